"""The forks of docs/ablations.md apply as they stand there, each is short, and each runs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from plumbing.files import read_rows
from study import figures

PAGE = Path(ROOT, "docs", "ablations.md")
DIFFS = re.findall(r"```diff\n(.*?)```", PAGE.read_text(), re.S)
COMMANDS = re.findall(r"^python (excursions\.py --vary .*)$", PAGE.read_text(), re.M)
LEFT_OUT = ".git .venv out results tests wandb __pycache__ .pytest_cache .ruff_cache".split()
RL = "--ckpt docs/toy.pt --steps 2 --prompts 4 --samples 8 --mini_batches 1"


@pytest.fixture(scope="module")
def fork(tmp_path_factory):
    """A copy of the project with all three forks in it."""
    if shutil.which("git") is None:
        pytest.skip("git apply is needed")
    folder = tmp_path_factory.mktemp("fork") / "main"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    for diff in DIFFS:
        done = subprocess.run(
            ["git", "apply", "-"], input=diff, cwd=folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    return folder


def run_in(folder, *words) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=folder, capture_output=True, text=True, timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return done.stdout


def test_the_report_has_a_section_for_each(tmp_path):
    """Also where pre-training varied, whose recipes are the core's; bases against bases."""
    folders = sorted(map(str, Path(ROOT, "results", "ablations").glob("toy*")), key=len)
    report = Path(figures.write_report(folders, str(tmp_path))).read_text()
    for asked in (
        "grpo.normalize=std,failures",
        "grpo.normalize=std,failures grpo.steps=300",
        "grpo.reward=half_points.py:score",
        "pretrain.data=toy-math",
    ):
        assert f"## What does {asked} change at 3.6M.rl?" in report
    assert (
        "| 3.6M-data-toy-math - 3.6M |" in report
        and "| 3.6M-data-toy-math.rl - 3.6M.rl |" in report
    )
    assert (
        "From checkpoints after 3.6M tokens" in report
    )  # the other corpus' stands in its section alone


def test_each_is_a_few_lines():
    assert len(DIFFS) == 3 and len(COMMANDS) == 4  # the first fork is run for 300 steps, too
    for diff in DIFFS:
        changed = [line for line in diff.splitlines() if re.match(r"[+-](?![+-]{2} )", line)]
        assert 0 < len(changed) <= 10


def test_the_other_advantage(fork, tmp_path):
    """Rare failures weigh the most: a wrong rollout among 7 right ones gets -7/8 / (1/8) = -7."""
    code = (
        "import grpo, torch\n"
        "rewards = torch.tensor([[1.0] * 7 + [0.0], [1.0] * 8])\n"
        "print(grpo.group_advantages(rewards, 'failures').tolist())"
    )
    wrong, equal = eval(run_in(fork, "-c", code))
    assert wrong == pytest.approx([1.0] * 7 + [-7.0], abs=1e-3) and equal == [0.0] * 8
    out = tmp_path / "a.pt"
    run_in(fork, "grpo.py", *RL.split(), "--normalize", "failures", "--out", out)
    assert len(read_rows(str(tmp_path / "a.log.jsonl"))) == 2


def test_the_other_reward(fork, tmp_path):
    code = (
        "from half_points import score\nfrom data.problems import load_problems\n"
        "problem = load_problems('toy', 'train')[11]\n"
        "boxes = ['0, 2', '0, 3', '1, 2', '2, 0', '7']\n"
        "scores = [score(f'so \\\\boxed{{ {box}}}', problem) for box in boxes]\n"
        "print(problem.answer, scores, score('', problem))"
    )
    assert run_in(fork, "-c", code).strip() == "0, 2 [1.0, 0.5, 0.5, 0.0, 0.0] 0.0"
    run_in(
        fork, "grpo.py", *RL.split(), "--reward", "half_points.py:score", "--out", tmp_path / "b.pt"
    )
    row = read_rows(str(tmp_path / "b.log.jsonl"))[-1]
    assert row["reward"] > row["accuracy"]


def test_the_other_mix(fork, tmp_path):
    code = (
        "from data.toy_text import documents\nimport itertools\n"
        "words = {}\n"
        "for kind, text in itertools.islice(documents(0, 'toy-math'), 3000):\n"
        "    words[kind] = words.get(kind, 0) + len(text.split())\n"
        "print(words['mathematics'] / sum(words.values()))"
    )
    assert 0.7 < float(run_in(fork, "-c", code)) < 0.8
    small = "--data toy-math --tokens 20K --keep 20K --warmup 4K"
    run_in(fork, "pretrain.py", *small.split(), "--out", tmp_path / "c")
    assert (tmp_path / "c" / "20K.pt").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_the_cell_and_its_variant(fork, command):
    printed = run_in(fork, *command.replace("--seeds 4", "--seeds 1").split(), "--dry_run")
    compared_with = "3.6M.rl-steps-300.pt" if "steps=300" in command else "3.6M.rl.pt"
    assert f"out/toy/{compared_with}" in printed
    assert re.search(r"normalize failures|reward half_points.py:score|data toy-math", printed)
