"""tools/first_gpu.py: the whole command on a pretended GPU, at toy scale, and parts that fail or hang end no other."""

import json
import os
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from conftest import ROOT, run

from plumbing.files import read_rows
from tests.pretend_gpu import guard
from tools import first_gpu, first_gpu_page
from tools.first_gpu import Part, run_parts

ABOUT = {"where": "a GPU, torch 2", "code": "abc", "preset": "1B", "command": "python -m tools.x"}


def test_without_a_gpu_it_says_so_in_one_line(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = subprocess.run(
        [sys.executable, "-m", "tools.first_gpu", "--out", tmp_path / "out"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and not done.stdout and not (tmp_path / "out").exists()
    (line,) = done.stderr.splitlines()
    assert line.startswith("first_gpu.py: there is no GPU here")
    said = run("-m tools.first_gpu", "--out", tmp_path, "--parts", "sample,all", ok=False).strip()
    assert said.splitlines()[-1] == "first_gpu.py: --parts: some of tests,sample,peers,train,step"


def test_the_whole_command_on_a_pretended_gpu(tmp_path):
    """Each part's process has that GPU, and so have those of `train`. Continuous batching finds no memory there: a line, no error."""
    if torch.cuda.is_available() or guard.what_is_missing():
        pytest.skip(guard.what_is_missing() or "there is a GPU")
    test = "tests/test_gpu.py::test_a_process_says_that_it_has_a_gpu"
    command = [sys.executable, "-m", "tests.pretend_gpu", "--children", "-m", "tools.first_gpu"]
    command += ["--out", str(tmp_path), "--preset", "toy", "--tests", test]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    page = (tmp_path / "first_gpu.md").read_text()
    assert done.returncode == 0, done.stdout + done.stderr + page
    rows = read_rows(str(tmp_path / "first_gpu.jsonl"))
    parts = {row["part"]: row for row in rows if "part" in row}
    assert list(parts) == ["tests", "sample", "peers", "train", "step"]
    assert all(row["ok"] and row["outcome"] == "passed" for row in parts.values())
    measured = [row for row in rows if "part" not in row]
    assert [row["what"] for row in measured] == ["sample"] * 4 + ["sample"] + ["train"] * 3 + [
        "step"
    ] * 4
    for name, row in parts.items():
        text = (tmp_path / f"first_gpu.{name}.txt").read_text()
        if name == "tests":
            assert "1 passed" in text and row["summary"] is None
        else:
            assert (
                row["summary"]["device"] == "a pretended GPU" and row["summary"]["kind"] == "cuda"
            )
            assert row["summary"] == first_gpu.summary_in(text)
    assert all("a pretended GPU" in row["where"] for row in measured)
    assert "# First GPU\n\na pretended GPU, torch" in page and "--preset toy" in page
    assert "| all tests marked gpu pass | 1 passed" in page and "not judged: this is toy |" in page
    assert page.count(": passed\n") == 5 and '{"what"' not in page


HANGS = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("begun", child.pid, flush=True)
time.sleep(600)
"""
STAYS = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + HANGS
SUMMARY = {"what": "train", "measured": [], "ratios": {}, "versions": {"torch": "2"}, "date": "x"}


def part(name, program, share=1.0):
    return Part(name, [sys.executable, "-c", program], share)


def is_alive(pid):
    """Whether it runs; one that has ended and was not asked for its status does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_parts_that_fail_or_hang_end_no_other(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(first_gpu, "GRACE", 2.0)
    parts = [
        part("tests", "print('three lines'); raise ValueError('no kernel')", 1),
        part("sample", HANGS, 1),
        part("peers", STAYS, 1),
        part("step", "import no_such_module", 1),
        part("train", f"import json; print('table'); print(json.dumps({SUMMARY}))", 20),
    ]
    run_parts(parts, tmp_path, 180, ABOUT)
    fails, hangs, stays, missing, last = parts
    assert fails.outcome == "failed with exit status 1" and missing.outcome == fails.outcome
    assert hangs.outcome.startswith("ran out of its ") and stays.outcome.startswith("ran out of")
    assert last.ok and last.outcome == "passed" and last.summary == SUMMARY
    assert not any(p.ok for p in parts[:-1])
    for hanging in (hangs, stays):
        word, pid = hanging.said.split()
        assert word == "begun"  # what it had printed stays
        assert not is_alive(pid)  # and what it had started does not
        assert hanging.limit <= hanging.seconds < hanging.limit + 60
    rows = read_rows(str(tmp_path / "first_gpu.jsonl"))
    assert [(row["part"], row["outcome"]) for row in rows] == [(p.name, p.outcome) for p in parts]
    page = (tmp_path / "first_gpu.md").read_text()
    assert "three lines" in page and "ValueError: no kernel\n```" in page
    assert "No module named 'no_such_module'" in page and "begun" in page and "\ntable\n```" in page
    assert "| all tests marked gpu pass | ValueError: no kernel | **did not hold** |" in page
    assert capsys.readouterr().out.count(" at most ") == 5


def test_the_parts_share_the_time_and_end_within_it(tmp_path, monkeypatch):
    """Each asks for as much as it gets; the first needs nothing, and the others have its time."""
    monkeypatch.setattr(first_gpu, "GRACE", 1.0)
    parts = [part("a", "pass", 6), part("b", HANGS, 1), part("c", HANGS, 1)]
    run_parts(parts, tmp_path, 12, ABOUT)
    a, b, c = parts
    assert a.ok and 7.5 < a.limit <= 12 * 6 / 8 - 1
    assert min(b.limit, c.limit) > 12 * 1 / 8 - 1
    assert a.seconds + b.limit + c.limit <= 12 - 1  # a second is left in which c may end


def test_what_ends_the_command_ends_its_part(tmp_path):
    """SIGTERM, as a machine that is given back sends it."""
    program = (
        "import sys\nfrom pathlib import Path\nfrom tools import first_gpu\n"
        "first_gpu.torch.cuda.is_available = lambda: True\n"
        "first_gpu.where = lambda: 'a GPU'\n"
        f"part = first_gpu.Part('sample', [sys.executable, '-c', {HANGS!r}], 1.0)\n"
        "first_gpu.parts_of = lambda args: [part]\n"
        f"sys.argv[1:] = ['--out', {str(tmp_path)!r}]\n"
        "first_gpu.main()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.DEVNULL)
    output = tmp_path / "first_gpu.sample.txt"
    end = time.monotonic() + 60
    while not (output.exists() and output.read_text().endswith("\n")):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.1)
    process.terminate()
    assert process.wait(30) == 1
    assert not is_alive(output.read_text().split()[1])


# ---------------------------------------------------------------------------------- the page


def summaries(share, times, mfu):
    ours = {"work": "same", "program": "ours, 256 slots", "roofline": share}
    others = [{"work": "mix", "program": "ours, 256 slots", "roofline": 0.99}]
    others += [{"work": "same", "program": "ours, 512 slots", "roofline": 0.98}]
    step = lambda program, step, mfu: {"program": program, "step": step, "mfu": mfu}
    train = [step("ours", "pretrain", 0.3), step("ours, compiled", "pretrain", mfu)]
    train += [step("transformers", "pretrain", 0.9), step("ours, compiled", "sft", 0.95)]
    about = {"versions": {"torch": "2.13.0"}, "date": "2026-11-26"}
    return {
        "sample": {"measured": [*others, ours], "ratios": {}, **about},
        "peers": {"measured": [], "ratios": {"mix": {"generate_batch": {"ours": times}}}, **about},
        "train": {"measured": train, "ratios": {}, **about},
    }


def verdicts(tmp_path, values, preset="1B"):
    parts = []
    for name, value in summaries(*values).items():
        parts.append(Part(name, ["python", "x"], 1.0, "passed", True, summary=value, said="a\n"))
    first_gpu_page.write_page(tmp_path / "page.md", parts, {**ABOUT, "preset": preset})
    page = (tmp_path / "page.md").read_text()
    assert "Versions: torch 2.13.0. Date: 2026-11-26." in page
    lines = page.partition("\n|---|---|---|\n")[2].splitlines()
    return [tuple(x.strip() for x in line.split("|")[2:4]) for line in lines[:3]]


def test_what_held_and_what_did_not(tmp_path):
    no = "**did not hold**"
    assert verdicts(tmp_path, (0.6, 5.0, 0.5)) == [
        ("60%", "held"),
        ("5.0 x", "held"),
        ("50%", "held"),
    ]
    assert verdicts(tmp_path, (0.59, 4.9, 0.49)) == [("59%", no), ("4.9 x", no), ("49%", no)]
    not_judged = verdicts(tmp_path, (0.6, 5.0, 0.5), preset="toy")
    assert {verdict for _, verdict in not_judged} == {"not judged: this is toy"}


def test_what_was_not_measured_is_not_judged(tmp_path):
    part = Part("peers", ["python", "x"], 1.0, "passed", True, said="not measured: nano-vllm\n")
    part.summary = {**summaries(0, 0, 0)["peers"], "ratios": {"mix": {}}}
    first_gpu_page.write_page(tmp_path / "page.md", [part], ABOUT)
    page = (tmp_path / "page.md").read_text()
    assert page.count("| not measured | |") == 3 and "not measured: nano-vllm" in page


def test_at_1b_the_parts_have_the_work_that_is_expected():
    """256 slots in the work `same`, continuous batching in `mix`, compiled; only files with tests marked gpu."""
    names = list(first_gpu.SHARES)
    args = Namespace(preset="1B", parts=names, tests=None, out="/out")
    commands = {part.name: " ".join(part.command) for part in first_gpu.parts_of(args)}
    assert list(commands) == names
    assert "-m gpu" in commands["tests"] and "tests/test_gpu.py" in commands["tests"]
    assert "test_corpus" not in commands["tests"]
    for name in names[1:]:
        words = f"tools.bench {'sample' if name == 'peers' else name} "
        assert (
            words in commands[name]
            and "--preset 1B --out /out/first_gpu.jsonl --compile" in commands[name]
        )
    assert "--slots 256,512" in commands["sample"] and "--work" not in commands["sample"]
    assert "--work mix --peer --peers generate_batch,nano-vllm" in commands["peers"]
    said = 'table\n{"what": 1}\n{"what": 2, "measured": []}\na warning\n'
    assert first_gpu.summary_in(said) == json.loads('{"what": 2, "measured": []}')
    assert first_gpu.summary_in("killed before\n") is None and first_gpu.summary_in("") is None
