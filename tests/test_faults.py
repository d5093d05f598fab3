"""The short form of tests/faults: a few trials of every part, the same ones each time; and its own rules."""

import json
import math
import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, run

from tests.faults import compare, damage, formats, judge, stages, trials
from tests.faults.children import Outcome
from tests.faults.judge import Shape

PARTS = ("kills", "disks", "twins", "flags", "mutations")


@pytest.fixture(scope="module")
def round_of_all(tmp_path_factory):
    """Part -> the results of its trials."""
    path = tmp_path_factory.mktemp("faults") / "results.jsonl"
    flags = ["-m", "tests.faults", "--short", "--rows", str(path)]
    done = subprocess.run([sys.executable, *flags], cwd=ROOT, capture_output=True, text=True)
    found = {part: [] for part in PARTS}
    assert path.exists(), done.stderr[-2000:]
    for line in path.read_text().splitlines():
        row = json.loads(line)
        found[row["part"]].append(row)
    n_bad = sum(row["bad"] for rows in found.values() for row in rows)
    assert done.returncode == (1 if n_bad else 0), done.stderr[-2000:]
    return found


@pytest.mark.parametrize("part", PARTS)
def test_nothing_bad_comes_of(part, round_of_all):
    rows = round_of_all[part]
    assert len(rows) >= 12
    bad = [
        f"{row['verdict']}: {row['command']}: {row['how']}: {row['said']}"
        for row in rows
        if row["bad"]
    ]
    assert not bad, "\n".join(bad)


def test_what_is_bad_is_printed_with_the_command_that_repeats_it(round_of_all):
    row = round_of_all["kills"][3]
    assert row["command"] == f"python -m tests.faults --kills 1 --only {row['name']} --seed 0"


def test_an_unknown_name_is_one_line():
    said = run("-m tests.faults", "--kills", "1", "--only", "sftt", ok=False)
    assert said.strip() == "tests.faults: --only sftt is no stage, format or flag"


# --- operations on files --------------------------------------------------------------------------

COMMAND = """
import os, sys
folder = sys.argv[1]
with open(folder + "/a.tmp", "w") as file:
    file.write("x" * 100)
    file.flush()
    os.fsync(file.fileno())
os.replace(folder + "/a.tmp", folder + "/a")
os.mkdir(folder + "/b")
os.remove(folder + "/a")
"""
DRIVER = """
import json, os, shutil, signal, sys
sys.path.insert(0, sys.argv[1])
from tests.faults import children, operations
from tests.faults.operations import Fault
folder, command = sys.argv[2:]

def end(before):
    shutil.rmtree(folder, ignore_errors=True)
    os.mkdir(folder)
    outcome = children.run([command, folder], before=before)
    files = {name: os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder)}
    return [outcome.status, (outcome.lines or [""])[-1], files]

ends = {}
ends["all"] = end(lambda: operations.watch(folder, note=folder + ".note"))
ends["operations"] = open(folder + ".note").read().split()[::2]
for at in range(1, 7):
    ends[f"before {at}"] = end(lambda: operations.watch(folder, Fault("signal", at)))
ends["within"] = end(lambda: operations.watch(folder, Fault("within", 2, share=0.25)))
for at in range(1, 7):
    ends[f"full {at}"] = end(lambda: operations.watch(folder, Fault("full", at, 28)))
ends["size, kill"] = end(lambda: operations.limit_sizes(7, kill=True))
ends["size"] = end(lambda: operations.limit_sizes(7, kill=False))
print(json.dumps(ends))
"""


def test_faults_come_at_their_operation(tmp_path):
    """In a process of its own, since this one has threads."""
    command = tmp_path / "command.py"
    command.write_text(COMMAND)
    flags = ["-c", DRIVER, ROOT, str(tmp_path / "folder"), str(command)]
    done = subprocess.run([sys.executable, *flags], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ends = json.loads(done.stdout)
    assert ends["operations"] == ["open", "write", "fsync", "rename", "mkdir", "remove"]
    assert ends["all"] == [0, "", {"b": ends["all"][2]["b"]}]
    files = [{}, {"a.tmp": 0}, {"a.tmp": 100}, {"a.tmp": 100}, {"a": 100}, {"a": 100, "b": 0}]
    for at, there in enumerate(files, start=1):
        status, _, found = ends[f"before {at}"]
        assert status == -9 and found.keys() == there.keys()
        assert all(found[name] == size for name, size in there.items() if name != "b")
    assert ends["within"] == [-9, "", {"a.tmp": 25}]
    no_space = "OSError: [Errno 28] No space left on device"
    assert ends["full 1"] == [1, f"{no_space}: '{tmp_path}/folder/a.tmp'", {}]
    assert ends["full 2"][:2] == [1, no_space] and ends["full 3"][:2] == [1, no_space]
    assert ends["full 4"][0] == 1  # a rename needs no space, the folder does
    assert ends["full 5"] == [1, f"{no_space}: '{tmp_path}/folder/b'", {"a": 100}]
    assert ends["full 6"][0] == 0
    assert ends["size, kill"] == [-25, "", {"a.tmp": 7}]
    assert ends["size"] == [1, "OSError: [Errno 27] File too large", {"a.tmp": 7}]


# --- verdicts -------------------------------------------------------------------------------------


def outcome(status, stderr=""):
    return Outcome(["a.py"], status, "", stderr, 1.0)


def test_how_a_refusal_is_judged():
    judged = lambda *end: trials.judged_end(outcome(*end), ["x.pt"])
    assert judged(1, "a.py: x.pt is damaged\n") == trials.REFUSED
    assert judged(1, "\rprepare: 100% 5.00B/s]\na.py: x.pt is damaged\n") == trials.REFUSED
    assert judged(1, "a.py: damaged\n") == judged(1, "a\nx.pt\n") == judged(1, "") == "unclear"
    assert judged(1, "Traceback (most recent call last):\n  x.pt\n") == "traceback"
    assert judged(-11, "x.pt") == judged(-9, "x.pt") == "traceback"
    assert judged(None) == "hang"


def test_every_bad_verdict_is_counted():
    for verdict in trials.BAD:
        assert trials.Result("kills", "sft", 0, verdict, "").bad
    for verdict in (trials.FINE, trials.REFUSED, trials.ENDED_BEFORE):
        assert not trials.Result("kills", "sft", 0, verdict, "").bad


def test_differences_between_folders(tmp_path):
    a = tmp_path / "a"
    b = tmp_path / "b"
    for folder in (a, b):
        folder.mkdir()
        row = {"step": 1, "seconds": len(str(folder)), "file": f"{folder}/x"}
        (folder / "log.jsonl").write_text(json.dumps(row) + "\n")
        torch.save(
            {"model": {"w": torch.tensor([0.0, 1.0])}, "facts": {"code": str(folder)}},
            folder / "x.pt",
        )
    assert not compare.differences(compare.snapshot(a), compare.snapshot(b))
    (b / "x.pt.tmp").write_text("")
    (b / "log.jsonl").write_text('{"step": 1}\n{"step": 1}\n')
    torch.save({"model": {"w": torch.tensor([-0.0, 1.0])}, "facts": {}}, b / "x.pt")
    found = compare.differences(compare.snapshot(a), compare.snapshot(b))
    assert [line.split()[0].rstrip(":") for line in found] == ["log.jsonl", "x.pt", "x.pt.tmp"]
    assert "is left over" in found[2] and ".model.w" in found[1]  # -0.0 is other bits than 0.0


# --- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["of_bytes", "of_json"])
def test_a_seed_is_always_the_same_damage(name):
    from random import Random

    data = json.dumps({"a": [1, 2, {"b": "text"}], "c": None}).encode() * (
        1 if name == "of_json" else 9
    )
    more = [Shape().fits] if name == "of_json" else []
    make = getattr(damage, name)
    found = [make(Random(seed), data, *more) for seed in range(200)]
    again = [make(Random(seed), data, *more) for seed in range(200)]
    assert [one.content for one in found] == [one.content for one in again]
    assert len({one.content for one in found}) > 60
    assert sum(one.content != data for one in found) > 180  # a cut at the end is none


def test_what_is_still_a_file_of_its_format():
    shape = Shape(optional=frozenset({"level"}), nullable=frozenset({"n"}))
    row = {"question": "q", "level": "1", "n": 3, "list": [1.5], "flag": True}
    fits = lambda **changes: shape.fits(row, row | changes)
    assert fits() and fits(question="other") and fits(level=None) and fits(n=None) and fits(more=[])
    assert fits(list=[]) and fits(list=[2, 3.5]) and fits(n=10**30)
    assert not fits(question=None) and not fits(question=5) and not fits(n="3") and not fits(n=1.5)
    assert (
        not fits(list=[math.nan]) and not fits(list="1.5") and not fits(flag=1) and not fits(n=True)
    )
    assert not shape.fits(row, [row]) and not shape.fits(row, {"level": "1"})
    assert Shape(loose=True).fits(row, row | {"question": 5}) and not Shape(loose=True).fits(
        row, row | {"question": []}
    )
    tensor = torch.zeros(2, 2)
    assert shape.fits(tensor, tensor + 1) and not shape.fits(tensor, tensor / 0)
    assert (
        not shape.fits(tensor, tensor.half())
        and not shape.fits(tensor, tensor[0])
        and not shape.fits(tensor, 0.0)
    )


def test_rows_that_a_kill_has_torn_are_no_damage():
    sound = b'{"step": 1}\n{"step": 2}\n'
    valid = lambda text, appended: judge.jsonl_is_valid(sound, text, Shape(), appended)
    assert valid(sound, False) and valid(sound[:12], False) and not valid(sound[:-3], False)
    assert valid(sound[:-3], True) and valid(b"", True) and not valid(b"", False)
    assert not valid(b'{"step": 1\n{"step": 2}\n', True) and not valid(b'{"step": []}\n', True)


def test_formats_and_stages_name_files_that_are_there():
    for name, kind in formats.FORMATS.items():
        for command in [
            *kind.commands,
            *(step.split(" ", 1)[1] for step in kind.setup if step[:4] != "copy"),
        ]:
            script = command.split()[0]
            assert script == "-m" or os.path.exists(os.path.join(ROOT, script)), (name, command)
    assert len(formats.FORMATS) >= 30 and len(stages.COMMANDS) >= 16
