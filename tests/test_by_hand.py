"""docs/by_hand.py prints what docs/by_hand.txt says, and its numbers are the formulas'."""

import math
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT

NUMBER = re.compile(r"-?\d+\.\d+")


PROGRAM = os.path.join(ROOT, "docs", "by_hand.py")


def run(*words, cwd=ROOT, program=PROGRAM) -> str:
    done = subprocess.run(
        [sys.executable, program, *words],
        cwd=cwd, capture_output=True, text=True, timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_it_prints_what_is_committed(tmp_path):
    """All words, tokens and responses; numbers to 0.002, as processors round in their own ways."""
    printed = run(cwd=tmp_path)
    with open(os.path.join(ROOT, "docs", "by_hand.txt")) as file:
        committed = file.read()
    assert NUMBER.sub("#", printed) == NUMBER.sub("#", committed)
    ours = [float(number) for number in NUMBER.findall(printed)]
    theirs = [float(number) for number in NUMBER.findall(committed)]
    assert ours == pytest.approx(theirs, abs=0.002)


def test_its_numbers_are_the_formulas(capsys):
    """Advantages, a loss, pass@k, and that the step does what it says, from the program's own
    variables.
    """
    found = runpy.run_path(os.path.join(ROOT, "docs", "by_hand.py"))
    rewards = found["rewards"][0].tolist()
    n, c = len(rewards), int(sum(rewards))
    assert 0 < c < n  # a group of mixed rewards, so that the loss is not 0
    mean = c / n
    std = math.sqrt(sum((r - mean) ** 2 for r in rewards) / (n - 1))
    expected = [(r - mean) / (std + 1e-6) for r in rewards]
    assert found["advantages"][0].tolist() == pytest.approx(expected, abs=1e-5)
    assert found["after"][0] > found["before"][0] and found["after"][1] < found["before"][1]
    assert found["differences"] and max(found["differences"]) < 1e-6
    moved = [(a - b).abs().max() for a, b in zip(found["after_rl"], found["after_sft"])]
    assert max(moved) > 1e-4  # the two steps differ, so that their mean is neither
    text = capsys.readouterr().out
    misses = 1.0
    for i in range(2):
        misses *= (n - c - i) / (n - i)
    assert f"pass@2 with {c} of {n} right: 1 - C({n - c}, 2) / C({n}, 2) = {1 - misses:.3f}" in text
    assert torch.allclose(found["old_logp"], found["logp"].detach(), atol=1e-4)


def test_the_first_exercise_runs(tmp_path):
    """Problem 1, none of whose rollouts is right: no advantage, and a step that changes nothing."""
    text = Path(ROOT, "docs", "by_hand.py").read_text()
    assert text.count('"train")[11]') == 1
    text = text.replace('"train")[11]', '"train")[1]')
    text = text.replace("Path(__file__)", f"Path({PROGRAM!r})")
    (tmp_path / "by_hand.py").write_text(text)
    printed = run(program=str(tmp_path / "by_hand.py"), cwd=tmp_path)
    assert "6. Rewards [0, 0, 0, 0, 0, 0, 0, 0]" in printed and "A right one gets" not in printed
    before, after = re.search(r"of a wrong one (\S+) -> (\S+)", printed).groups()
    assert float(before) == pytest.approx(float(after), abs=0.02)


def test_a_checkpoint_that_is_not_there_is_one_line(tmp_path):
    """Whatever its name, docs/toy.pt is not shown in its place."""
    done = subprocess.run([sys.executable, PROGRAM, "3.6M"], cwd=tmp_path, capture_output=True)
    assert done.returncode and not done.stdout and done.stderr.count(b"\n") == 1


def test_a_reader_has_minutes_for_it():
    with open(os.path.join(ROOT, "docs", "by_hand.py")) as file:
        source = file.read()
    assert source.count("\n") < 190 and source.count("# %%") >= 12
    assert os.path.getsize(os.path.join(ROOT, "docs", "toy.pt")) < 600_000
