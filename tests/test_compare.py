"""Any two runs side by side, how far a run has moved from its base, and the sections of experiments."""

import json
import os
import shutil

import pytest
from conftest import ROOT

from data import UserError
from plumbing.checkpoint import load_checkpoint, save_checkpoint
from plumbing.files import read_rows
from study import compare, figures, publish, vary
from study.experiments import DEFAULT, EXPERIMENTS
from study.own_experiments import note_own
from study.rows import Study
from tools import distance

COMMITTED = [os.path.join(ROOT, "results", "toy", f"seed{seed}") for seed in range(3)]


def copy_of(folder, target, change=lambda row: row):
    """A committed run folder with its rows changed."""
    os.makedirs(target)
    rows = [change(row) for row in read_rows(os.path.join(folder, "results.jsonl"))]
    (target / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in os.listdir(folder):
        if name.endswith(".log.jsonl"):
            shutil.copy(os.path.join(folder, name), target / name)


# ---------------------------------------------------------------------------------- compare


def test_two_folders_are_compared_run_by_run_and_seed_by_seed(tmp_path):
    for side in ("a", "b"):
        for seed, folder in enumerate(COMMITTED):
            copy_of(folder, tmp_path / (side if seed == 0 else f"{side}-seed{seed}"), unchecked)
    text = compare.compare(str(tmp_path / "a"), str(tmp_path / "b"))
    row = next(
        line for line in text.splitlines() if line.startswith("| 3.6M.rl | toy | 3 | pass@1")
    )
    assert row.endswith("| +0.0 [+0.0, +0.0] |")
    assert (tmp_path / "b" / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "b" / "compare.md").read_text() == text


def unchecked(row: dict) -> dict:
    """A row without its checksum, as one that a test has changed must be."""
    row.get("facts", {}).pop("check", None)
    row.pop("check", None)
    return row


def test_two_runs_of_any_names(tmp_path):
    first = f"{COMMITTED[0]}/3.6M.rl.pt"
    second = f"{COMMITTED[0]}/3.6M.sft.rl.pt"
    text = compare.compare(first, second, str(tmp_path / "out"))
    rows = {
        row["name"]: row
        for row in read_rows(f"{COMMITTED[0]}/results.jsonl")
        if row["task"] == "toy"
    }
    change = 100 * (rows["3.6M.sft.rl"]["pass@1"] - rows["3.6M.rl"]["pass@1"])
    line = next(line for line in text.splitlines() if "| pass@1 |" in line)
    assert line.startswith("| 3.6M.sft.rl - 3.6M.rl | toy | 1 |") and f"| {change:+.1f} [" in line


def test_rows_that_were_asked_in_different_ways_are_not_paired(tmp_path):
    def colder(row):
        if row["task"] == "toy":
            row["key"]["temperature"] = 0.1
        return unchecked(row)

    copy_of(COMMITTED[0], tmp_path / "a", unchecked)
    copy_of(COMMITTED[0], tmp_path / "b", colder)
    text = compare.compare(str(tmp_path / "a"), str(tmp_path / "b"))
    assert "| toy |" not in text and "| general |" in text
    assert "3.6M.rl on toy is not compared: it was asked with temperature 0.6 and 0.1." in text
    with open(tmp_path / "b" / "results.jsonl", "a") as file:  # b was also asked as a was
        for row in read_rows(tmp_path / "a" / "results.jsonl"):
            file.write(json.dumps(row) + "\n")
    text = compare.compare(str(tmp_path / "a"), str(tmp_path / "b"))
    assert "| 3.6M.rl | toy | 1 | pass@1 |" in text and "not compared" not in text


def test_runs_of_different_problems_share_none(tmp_path):
    def other(row):
        row["problems"] = [
            [f"other{i}", *rest] for i, (_, *rest) in enumerate(row.get("problems", []))
        ]
        return unchecked(row)

    copy_of(COMMITTED[0], tmp_path / "a", other)
    text = compare.compare(COMMITTED[0], str(tmp_path / "a"))
    assert "| toy |" not in text and "| general |" in text


@pytest.mark.parametrize(
    "a, b, words",
    [
        ("results/toy/seed0", "/nowhere", "/nowhere is no folder"),
        ("results/toy/seed0/3.6M.rl.pt", "results/toy/seed0", "two folders or two checkpoints"),
        ("results/toy/seed0", "results/bench", "no run has the same name in both"),
    ],
)
def test_what_cannot_be_compared_is_one_line(a, b, words, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=words):
        compare.compare(a, b)


# ---------------------------------------------------------------------------------- distance


@pytest.fixture
def two_models(tmp_path, toy_model):
    """A base, and the same weights with its logits made sharper."""
    facts = dict(id="x", base_id="x", recipe="base", tokens=4000, preset="toy", seed=0, code="")
    facts |= dict(config={}, tokenizer="toy", corpus="toy")
    save_checkpoint(str(tmp_path / "4K.pt"), toy_model, facts)
    toy_model.lm_head.weight.data *= 3.0
    save_checkpoint(str(tmp_path / "4K.rl.pt"), toy_model, facts | {"recipe": "rl", "id": "y"})
    return tmp_path


def measured(folder, name, base="4K.pt") -> float:
    how = dict(preset="toy", task="toy", problems=5, n=4, max_response=8)
    distance.main(distance.Config(ckpt=f"{folder}/{name}", base=f"{folder}/{base}", **how))
    return read_rows(f"{folder}/distances.jsonl")[-1]["kl"]


def test_the_distance_is_the_mean_log_ratio(two_models, capsys):
    """Nothing from itself; from the sharper model what its own samples give by hand."""
    assert measured(two_models, "4K.pt") == pytest.approx(0.0, abs=1e-4)
    assert measured(two_models, "4K.rl.pt") > 0.1
    measured(two_models, "4K.rl.pt")
    assert "nothing to do" in capsys.readouterr().out
    assert len(read_rows(f"{two_models}/distances.jsonl")) == 2


def test_a_distance_needs_both(two_models):
    with pytest.raises((UserError, OSError), match="none.pt"):
        measured(two_models, "4K.rl.pt", "none.pt")
    load_checkpoint(f"{two_models}/4K.pt")


# ---------------------------------------------------------------------------------- sections


def test_an_ablation_has_its_section_in_the_report(tmp_path):
    """Rows of another recipe under the name that --vary gives, and its differences and figure."""
    name = "3.6M.rl-normalize-none"

    def renamed(row):
        if row["name"] == "3.6M.sft.rl":
            row["name"] = name
        return unchecked(row)

    for seed, folder in enumerate(COMMITTED):
        copy_of(folder, tmp_path / f"s{seed}", renamed)
    experiment = vary.experiment_of(DEFAULT, "toy", ["grpo.normalize=none"], "3.6M.rl")
    note_own(str(tmp_path / "s0"), experiment)
    folders = [str(tmp_path / f"s{seed}") for seed in range(3)]
    with open(figures.write_report(folders, str(tmp_path / "out"))) as file:
        report = file.read()
    assert f"## {experiment.question}" in report
    line = next(line for line in report.splitlines() if line.startswith(f"| {name} - 3.6M.rl |"))
    assert line.count("|") == 9  # pass@1, the widest, and five kinds
    assert "figures/grpo.normalize-none-change-at-3.6M.rl.png" in report


def test_the_long_core_shows_its_predictions(tmp_path):
    """Where RL ran for 300 steps the report judges what was predicted of it."""
    for seed, folder in enumerate(COMMITTED):
        target = tmp_path / f"s{seed}"
        copy_of(folder, target, unchecked)
        log = read_rows(str(target / "3.6M.rl.log.jsonl"))
        longer = [dict(log[-1], step=step) for step in range(1, 301)]
        (target / "3.6M.rl.log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in longer))
    folders = [str(tmp_path / f"s{seed}") for seed in range(3)]
    with open(figures.write_report(folders, str(tmp_path / "out"))) as file:
        report = file.read()
    assert f"## core: {EXPERIMENTS['core'].question}" in report
    assert "| core-6 | RL after SFT raises pass@32" in report and "**held** | +17.7 [" in report
    assert report.index("| core-6 |") < report.index("## Results on toy")
    assert Study(folders).task == "toy"
    for title in ("gains", "scatter"):
        assert (tmp_path / "out" / "figures" / f"{title}.png").stat().st_size > 10_000


# ---------------------------------------------------------------------------------- publish


def test_a_published_study_gives_the_same_report(tmp_path):
    """Rows whole, logs in small: every table is the same, bit for bit."""
    for seed, folder in enumerate(COMMITTED[:2]):
        target = tmp_path / ("s" if seed == 0 else f"s-seed{seed}")
        shutil.copytree(folder, target)
        log = read_rows(str(target / "3.6M.rl.log.jsonl"))
        longer = [dict(log[min(step, 50) - 1], step=step) for step in range(1, 101)]
        (target / "3.6M.rl.log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in longer))
    folders = publish.folders_of(str(tmp_path / "s"))
    assert [os.path.basename(folder) for folder in folders] == ["s", "s-seed1"]
    reports = []
    for place in ("", "kept"):
        if place:
            for folder in folders:
                said = publish.publish(folder, str(tmp_path / place / os.path.basename(folder)))
            assert said.endswith("44 rows, 4 logs")
        found = [str(tmp_path / place / os.path.basename(folder)) for folder in folders]
        with open(figures.write_report(found, str(tmp_path / f"report{place}"))) as file:
            reports.append(file.read())
    assert reports[0].split("training, first")[0] == reports[1].split("training, first")[0]
    log = read_rows(str(tmp_path / "kept" / "s" / "3.6M.rl.log.jsonl"))
    steps = [row["step"] for row in log]
    assert steps == [1, 2, 3, 4, 5, *range(10, 91, 10), 96, 97, 98, 99, 100]
    assert os.path.getsize(tmp_path / "kept" / "s" / "3.6M.rl.log.jsonl") < 4_000
