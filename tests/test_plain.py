"""The plain program is whole: without the folder fast/, and with --plain, every command runs to the same tokens."""

import os
import shutil
import subprocess
import sys

import pytest
import test_recipes
import torch
from conftest import ROOT, command

import evaluate
import grpo
import parallel
import pretrain
import sft
from plumbing.checkpoint import read_file
from plumbing.files import read_rows
from plumbing.flags import parse_flags

base = test_recipes.base  # a small checkpoint that writes boxes, and problems
LEFT_OUT = "fast .git .venv out results __pycache__ .pytest_cache .ruff_cache".split()
RL = ["--steps", 2, "--prompts", 8, "--samples", 8, "--max_response", 8, "--save_rollouts"]
STAGES = {
    pretrain: ["--tokens", "20K", "--keep", "20K", "--warmup", "4K", "--log_every", 1],
    sft: ["--steps", 3, "--batch", 16],
    grpo: [*RL, "--kl", 0.01, "--recompute_old"],
    parallel: [*RL, "--sft_batch", 16],
    evaluate: ["--samples", 16, "--k", "1,16", "--max_response", 8],
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A copy of the project without fast/."""
    folder = tmp_path_factory.mktemp("alone") / "main"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    assert not (folder / "fast").exists() and (folder / "tests" / "test_plain.py").exists()
    return folder


def run_in(folder, words):
    done = subprocess.run(
        list(map(str, words)),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=900,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-4000:]
    return done.stdout


def run_here(stage, words, plain):
    """As the command line does, in this process; fast/ is installed on every model, or on none."""
    import fast

    argv = [*map(str, words), "--plain" if plain else "--no-plain"]
    config = parse_flags(stage.Config, stage.PRESETS, getattr(stage, "SETTINGS", {}), argv)
    install, models = fast.install, []

    def count(model, **flags):
        models.append(model)
        install(model, **flags)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast, "install", count)
        stage.main(config)
    n_models = 2 if stage is grpo else 1  # the policy, and here a reference
    assert len(models) == (0 if plain else n_models)


@pytest.fixture(scope="module")
def made(base, alone, tmp_path_factory):
    """What every stage makes with fast/, with --plain, and as a command without the folder -> three folders."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("fast", "plain", "alone")}
    for stage, sizes in STAGES.items():
        for name, out in folders.items():
            words = [*files_of(stage, base, out), *sizes]
            if name == "alone":
                run_in(alone, command(f"{stage.__name__}.py", *words))
            else:
                run_here(stage, words, plain=name == "plain")
    return folders


def files_of(stage, base, out):
    ckpt, data = base[0] / "4K.pt", base[1]
    if stage is pretrain:
        return ["--out", out / "toy"]
    if stage is evaluate:
        return ["--ckpt", ckpt, "--task", f"{data},general", "--out", out / "results.jsonl"]
    return ["--ckpt", ckpt, "--data", data, "--out", out / f"{stage.__name__}.pt"]


@pytest.mark.parametrize("name", ["grpo", "parallel"])
def test_rl_samples_the_same_tokens(made, name):
    """Step 2 with weights that an update has moved. The plain program is the same one in both cases, bit for bit."""
    saved = {p: read_rows(str(folder / f"{name}.rollouts.jsonl")) for p, folder in made.items()}
    assert saved["plain"] == saved["alone"]
    assert [row["step"] for row in saved["fast"]] == [1, 2]
    assert any(len(set(g["rewards"])) > 1 for row in saved["fast"] for g in row["groups"])
    for fast, plain in zip(saved["fast"], saved["plain"], strict=True):
        for a, b in zip(fast["groups"], plain["groups"], strict=True):
            for x, y in zip(a.pop("logprobs"), b.pop("logprobs"), strict=True):
                assert x == pytest.approx(y, abs=1e-4)  # rounded in another order
            assert a == b


@pytest.mark.parametrize("name, metrics", [
    ("toy/pretrain", ["loss", "grad_norm"]), ("sft", ["loss", "grad_norm"]),
    ("grpo", ["loss", "grad_norm", "entropy", "kl", "reward"]), ("parallel", ["loss", "sft_loss", "grad_norm", "sft_grad_norm"]),
])  # fmt: skip
def test_training_says_the_same(made, name, metrics):
    logs = {p: read_rows(str(folder / f"{name}.log.jsonl")) for p, folder in made.items()}
    for metric in metrics:
        fast, plain, alone = ([row[metric] for row in logs[p]] for p in ("fast", "plain", "alone"))
        assert plain == alone and fast == pytest.approx(plain, rel=1e-3, abs=1e-5), metric


@pytest.mark.parametrize("name", ["toy/20K", "sft", "grpo", "parallel"])
def test_without_the_folder_the_weights_are_those_of_plain(made, name):
    plain, alone = (read_file(str(made[p] / f"{name}.pt")) for p in ("plain", "alone"))
    assert plain["facts"]["id"] == alone["facts"]["id"]
    assert plain["model"].keys() == alone["model"].keys()
    assert all(torch.equal(a, b) for a, b in zip(plain["model"].values(), alone["model"].values()))


def test_evaluation_counts_the_same(made):
    rows = {p: read_rows(str(folder / "results.jsonl")) for p, folder in made.items()}
    for fast, plain, alone in zip(*rows.values(), strict=True):
        for name in plain.keys() - {"seconds", "code", "facts"}:
            assert plain[name] == alone[name], name
    fast, plain = rows["fast"], rows["plain"]
    assert fast[0]["problems"] == plain[0]["problems"]  # id, level, n, c, verified
    right = sum(row[3] for row in plain[0]["problems"])
    assert len(plain[0]["problems"]) == 40 and 0 < right < 40 * 16
    for skill, summary in plain[1]["items"].items():
        assert fast[1]["items"][skill]["right"] == summary["right"], skill
    assert fast[1]["heldout_loss"] == pytest.approx(plain[1]["heldout_loss"], abs=1e-5)


def test_the_tests_of_the_plain_program_pass_without_fast(alone):
    files = [f"tests/test_{name}.py" for name in ("model", "sampler", "grpo", "problems")]
    pytest_in = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not fast"]
    said = run_in(alone, [*pytest_in, *files])
    assert " passed" in said and "failed" not in said


TINY = {  # what the toy preset is in this study
    pretrain: dict(tokens="60K", warmup="6K"),
    sft: dict(steps=4, batch=8),
    grpo: dict(steps=2, prompts=4, n=4, max_response=16),
    parallel: dict(steps=2, prompts=4, n=4, max_response=16, sft_batch=8),
    evaluate: dict(n=4, k="1,4", problems=8, max_response=16),
}


def test_the_study_runs_without_fast(alone, tmp_path):
    """Figure 9 from one checkpoint, with steps that are few and small."""
    folder = tmp_path / "main"
    shutil.copytree(alone, folder)
    for stage, values in TINY.items():
        script = folder / f"{stage.__name__}.py"
        start = 'if __name__ == "__main__":'
        assert script.read_text().count(start) == 1
        script.write_text(
            script.read_text().replace(start, f'PRESETS["toy"] |= {values!r}\n{start}')
        )
    with open(folder / "plumbing" / "presets.py", "a") as f:
        f.write('\nCHECKPOINTS["toy"] = "60K"\n')
    said = run_in(folder, command("excursions.py", "--only", "figure9"))
    rows = read_rows(str(folder / "out" / "toy" / "results.jsonl"))
    recipes = ("", ".sft", ".rl", ".sft.rl", ".parallel")
    expected = {("60K" + recipe, task) for recipe in recipes for task in ("toy", "general")}
    assert {(row["name"], row["task"]) for row in rows} == expected and len(rows) == len(expected)
    assert "report:" in said and (folder / "out" / "toy" / "report.md").exists()
    assert "nothing to do" in run_in(folder, command("excursions.py", "--only", "figure9"))
