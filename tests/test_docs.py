"""README and docs: links and names lead somewhere, and every command is one that its program
takes.
"""

import importlib
import os
import re
import shlex
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest
from conftest import ROOT

from plumbing.checkpoint import save_checkpoint
from plumbing.files import read_rows
from plumbing.flags import parse_flags
from study.paper import PAPER

PAGES = [
    Path(ROOT, "README.md"),
    Path(ROOT, "CONTRIBUTING.md"),
    Path(ROOT, "results", "README.md"),
    *sorted(Path(ROOT, "docs").glob("*.md")),
]
STAGES = ("pretrain.py", "sft.py", "grpo.py", "parallel.py", "evaluate.py")
INSTEAD = {
    "RUN": "run",
    "DIR": "dir",
    "FOLDER": "folder",
    "...": "",
}  # what stands for something of the reader's


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", text, re.M):
        plain = re.sub(r"[^\w\s-]", "", heading.lower())
        found.add(plain.strip().replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading(page):
    text = re.sub(
        r"<!--.*?-->", "", page.read_text(), flags=re.S
    )  # rules of numbers look like links
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http", "mailto")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text()), link


def test_functions_of_the_hour_are_there():
    text = Path(ROOT, "docs", "hour.md").read_text()
    named = set(re.findall(r"\| `((?:\w+\.)+\w+)` \|", text))
    assert len(named) >= 9
    for name in named:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name
    for test in re.findall(r"tests/\w+\.py", text):
        assert Path(ROOT, test).exists(), test


# ---------------------------------------------------------------------------------- commands


def commands() -> list[tuple[str, str]]:
    """(page, command) of all lines of code that run one of our programs."""
    found = []
    for page in PAGES:
        text = re.sub(
            r"\s*\\\n\s*", " ", page.read_text()
        )  # a long command goes on in the next line
        code = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
        lines = "\n".join(code).splitlines() + re.findall(r"`((?:python|torchrun) [^`]+)`", text)
        for line in lines:
            line = re.sub(
                r"\s{2,}.*$| #.*$", "", line.strip()
            )  # what stands behind it is a comment
            of_a_fork = (
                page.name == "ablations.md"
            )  # tests/test_ablations.py applies the forks first
            if re.match(r"(?:[A-Z_]+=\S+ )*(?:python|torchrun)\b", line) and not of_a_fork:
                found.append((page.name, line))
    return sorted(set(found))


COMMANDS = commands()


def words_of(line: str) -> list[str]:
    for stands, instead in INSTEAD.items():
        line = line.replace(stands, instead)
    words = shlex.split(line)
    while "=" in words[0]:
        words = words[1:]
    return words


@lru_cache
def help_of(module: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_are_many():
    assert len(COMMANDS) > 50 and {page for page, _ in COMMANDS} >= {
        "README.md",
        "study.md",
        "settings.md",
    }


@pytest.mark.parametrize(
    "page, line", COMMANDS, ids=[f"{page}-{i}" for i, (page, _) in enumerate(COMMANDS)]
)
def test_every_command_is_one_that_its_program_takes(page, line, capsys):
    words = words_of(line)
    if words[0] == "torchrun":
        script = next(i for i, word in enumerate(words) if word.endswith(".py"))
        takes_n = "--n" in words[script:] and words[script - 1] != "--"
        assert not takes_n, "torchrun takes --n for one of its own flags"
        words = ["python", *words[script:]]
    if words[1] == "-m" and words[2] not in (
        "venv",
        "pytest",
        "tests.density",
        "tests.fake_gpu",
        "tests.faults",
    ):
        for flag in (word for word in words[3:] if word.startswith("--")):
            assert flag.split("=")[0] in help_of(words[2]), line
    elif words[1] in STAGES:
        if "--plan" in words or "--help" in words:
            return
        stage = importlib.import_module(words[1].removesuffix(".py"))
        preset = words[words.index("--preset") + 1] if "--preset" in words else "toy"
        parent = {"preset": preset, "recipe": "base"}
        parse_flags(
            stage.Config, stage.PRESETS, getattr(stage, "SETTINGS", {}), words[2:], parent=parent
        )
    elif words[1] == "excursions.py":
        import excursions

        args, rest = excursions.read_flags(words[2:])
        if not args.checkpoints and not args.out_of:
            excursions.what_to_run(args)
        assert not rest or args.plan, line
    elif words[1].endswith(".py"):
        assert Path(ROOT, words[1]).exists() or words[1].startswith("data/"), line


SMALLER = {  # flags that make a command of the README end in seconds
    "grpo.py": "--steps 2 --prompts 2 --n 4 --max_response 12",
    "evaluate.py": "--n 2 --k 1,2 --problems 8 --max_response 12",
}


def test_one_recipe_by_hand_in_its_order(tmp_path, toy_model):
    """The README's four steps, typed one after another: each finds what those before it left."""
    section = Path(ROOT, "README.md").read_text().split("## One recipe by hand")[1]
    lines = [line.split(" #")[0] for line in section.split("```")[1].strip().splitlines()]
    assert lines.pop(0) == "source .venv/bin/activate"
    assert len(lines) == 5 and lines[0].startswith("python pretrain.py")
    (tmp_path / "out" / "hand").mkdir(parents=True)
    facts = dict(id="x", base_id="x", recipe="base", tokens=3_600_000, preset="toy", seed=0)
    facts |= dict(code="", config={}, tokenizer="toy", corpus="toy")
    save_checkpoint(
        str(tmp_path / "out" / "hand" / "3.6M.pt"), toy_model, facts
    )  # the first line's
    for line in lines[1:]:
        python, *words = line.split()
        assert python == "python"
        if words[0] == "-m":
            command = ["-m", words[1]]
            rest = words[2:]
        else:
            command = [str(Path(ROOT, words[0]))]
            rest = [*words[1:], *SMALLER[words[0]].split()]
        done = subprocess.run(
            [sys.executable, *command, *rest],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[-1000:]}{done.stderr[-2000:]}"
    assert "3.6M.rl" in done.stdout and "pass@1" in done.stdout


def test_speeds_on_a_gpu_are_rows():
    """docs/speed.md's table of the H100: tokens/s, shares and peaks of results/gpu."""
    rows = read_rows(str(Path(ROOT, "results", "gpu", "first_gpu.jsonl")))
    known = set()
    for row in rows:
        if "tokens_per_s" in row:
            share = row.get("roofline") or row.get("mfu") or 0.0
            speed = f"{row['tokens_per_s']:,.0f}"
            known.add((speed, f"{share:.0%}", f"{row['peak_bytes'] / 1e9:.2f}"))
    page = Path(ROOT, "docs", "speed.md").read_text()
    table = page.split("## Measured on an H100")[1].split("\n\n")[2]
    for line in table.splitlines()[2:]:
        _, _, speed, share, peak, _ = (cell.strip() for cell in line.split("|"))
        assert (speed, share.split(" %")[0] + "%" if share else "0%", peak) in known, line


def test_the_readmes_speeds_are_rows_too():
    """Of 256 slots, and of the table of passes of 16,384 tokens."""
    rows = read_rows(str(Path(ROOT, "results", "gpu", "first_gpu.jsonl")))
    same = [row for row in rows if row.get("work") == "same"]
    best = max(row["tokens_per_s"] for row in same)
    readme = Path(ROOT, "README.md").read_text()
    assert f"sampling {round(best, -3):,.0f} tokens/s" in readme
    later = Path(ROOT, "results", "gpu", "later.md").read_text()
    line = re.search(r"^pretrain +ours, compiled .*$", later, re.M)[0]
    assert f"pre-training {line.split()[-3].rstrip('%')} % MFU" in readme


def test_what_decides_it_is_told_as_in_the_report():
    """docs/sharpening.md: pass@32 in bands of the base's rate, the gaps, and the paper's row."""
    page = Path(ROOT, "docs", "sharpening.md").read_text().replace("\n", " ")
    report = Path(ROOT, "results", "toy", "report.md").read_text()
    table = report.split("\n| at targeted-5.4M | 0-2 %")[1].split("\n\n")[0]
    bands = {}  # recipe -> pass@32 of each band
    for line in table.split("\n")[1:]:
        name, *values = [cell.strip() for cell in line.strip("|").split("|")]
        bands[name] = [value.split(" / ")[-1] for value in values]
    before, after = bands["hard-sft"], bands["hard-sft.rl"]
    assert f"from {before[2]} to {after[2]} where the base solved 5 to 20 %" in page
    assert f"from {before[3]} to {after[3]} where it solved more" in page
    said = report.split("**What decides whether RL after SFT raises pass@k?**")[1].split("\n")[0]
    cells, *gaps = re.search(
        r"in (\d+) of \1 cells: .*? is (\d+ to \d+) points above pass@1, after it (\d+ to \d+) "
        r"\(in the paper (\d+ to \d+) and (\d+ to \d+)\)",
        said,
    ).groups()
    assert f"In all {cells} cells" in page
    assert f"is {gaps[0]} points above pass@1 before RL, and {gaps[1]} after it" in page
    assert f"in the paper it is {gaps[2]} before and {gaps[3]} after" in page
    sft, rl = (PAPER["figure2"][recipe]["44B"] for recipe in ("sft", "sft.rl"))
    of_paper = [f"{row['pass@1']}, {row['pass@32']}" for row in (sft, rl)]
    assert f"| the paper, GSM8K, 44B | {of_paper[0]} | {of_paper[1]} |" in page
