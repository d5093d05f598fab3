"""Every experiment gets its section and its figure from rows of all its cells, in two seeds; what
they show is what the rows hold.
"""

import json
import os

import numpy as np
import pytest
from test_experiments import jobs_of
from test_figures import write_rows

from plumbing.units import count
from study import cells, figures, paper_figures, paper_runs, said, sections
from study.experiment import at_scale
from study.experiments import EXPERIMENTS
from study.paper_hard import AVERAGING, FIGURE5, GAINS, HARD, SHOTS, points
from study.predictions import read_predictions
from study.recipes import RECIPES_OF_FIGURE
from study.rows import Study

NAMES = [name for name in EXPERIMENTS if name not in RECIPES_OF_FIGURE and name != "public"]
LEVELS = {
    "toy": ["(2,2)", "(2,3)", "(3,2)"],
    "toy-hard": ["2 steps", "4 steps"],
    "toy-long": ["(1,2)", "(2,3)", "(3,3)"],
}


def rows_of(name: str, seed: int) -> tuple[list[dict], list[dict]]:
    """A row for every evaluation of an experiment, and the jobs of its training. Cell i solves
    problem j in i + j + seed samples.
    """
    jobs = jobs_of("--only", name, "--seeds", "1", "--out", "o")
    made = []
    for i, job in enumerate(job for job in jobs if job.kind == "evaluation"):
        words = job.command
        tasks = words[words.index("--task") + 1] if "--task" in words else "toy,general"
        n = int(words[words.index("--n") + 1]) if "--n" in words else 32
        stem = job.checkpoint.split(".rl")[0].split(".hard")[0].split(".sft")[0]
        stem = next(
            (
                s
                for s in sorted(stems_of(name), key=len, reverse=True)
                if job.checkpoint == s or job.checkpoint.startswith(s + ".")
            ),
            stem,
        )
        tokens = count(stem.rpartition("-")[2]) if not stem.startswith("d") else 14_000_000
        is_base = job.checkpoint == stem
        facts = {"config": dict(data="toy", n=16, prompts=24, steps=300, sft_lr=1e-3), "step": 300}
        common = dict(
            name=job.checkpoint,
            recipe="base" if is_base else "rl",
            tokens=tokens,
            seed=seed,
            preset="toy",
            setting="controlled",
            code="a",
        )
        for task in tasks.split(","):
            row = common | {"task": task, "facts": facts, "key": {"task": task, "split": "test"}}
            if task == "general":
                made.append(
                    row
                    | dict(
                        kind="general",
                        mean=0.5 - 0.001 * i,
                        heldout_loss=1 + 0.01 * i + 0.003 * seed,
                    )
                )
                continue
            problems = []
            for j in range(6):
                level = LEVELS[task][j % len(LEVELS[task])]
                problems.append([f"{j}", level, n, min(n, i + 2 * j + seed), min(n, i + j)])
            more = {
                "distinct": 1.0,
                "format": 1.0,
                "truncated": 0.0,
                "length": 30.0,
                "verified_pass@1": 0.5,
            }
            made.append(row | more | {"kind": "pass@k", "problems": problems})
    trained = [
        job
        for job in jobs
        if job.makes
        and "evaluate.py" not in job.command
        and job.command[1] in ("grpo.py", "parallel.py")
    ]
    return made, trained


def stems_of(name: str) -> list[str]:
    return [*EXPERIMENTS[name].pretrain, "1.5M", "2.4M", "3.6M"]


def study_of(name: str, tmp_path) -> tuple[Study, list[str]]:
    folders = []
    for seed in range(2):
        folder = tmp_path / f"o-seed{seed}"
        rows, trained = rows_of(name, seed)
        write_rows(folder, rows)
        for job in trained:
            with open(folder / f"{job.name}.log.jsonl", "w") as file:
                for step in (1, 2, 25, 300):
                    row = dict(
                        step=step,
                        accuracy=0.1 + step / 1000,
                        format=1.0,
                        mixed=0.5,
                        length=30.0,
                        surprise=0.4,
                        groups=24.0,
                        tokens=11520.0,
                        scored=5760.0,
                    )
                    file.write(
                        json.dumps(
                            row | ({"val_accuracy": 0.2 + step / 1000} if step % 25 == 0 else {})
                        )
                        + "\n"
                    )
        with open(folder / "distances.jsonl", "w") as file:
            for row in rows:
                file.write(
                    json.dumps({"name": row["name"], "kl": 0.1 + len(row["name"]) / 10}) + "\n"
                )
        folders.append(str(folder))
    return Study(folders), folders


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_has_its_section_and_figure(name, tmp_path):
    study, _ = study_of(name, tmp_path)
    experiment = EXPERIMENTS[name]
    assert figures.was_run(study, name, experiment)
    os.makedirs(tmp_path / "out" / "figures")
    paragraph = figures.place_of_experiment(study, name, experiment, str(tmp_path / "out"))
    assert (
        paragraph.startswith(f"![{name}]")
        and (tmp_path / "out" / "figures" / f"{name}.png").stat().st_size > 5000
    )
    section = "\n".join(sections.section(study, name, experiment, read_predictions(), paragraph))
    for recipe in at_scale(experiment, "toy").recipes:  # sft-16 is toy's sft
        if recipe != "rl-written" and name not in ("figure5", "takeoff"):
            assert f".{recipe} |" in section, recipe
    if name != "takeoff":  # which also speaks of the cells of others
        assert "not run" not in section  # every prediction finds the cells that it speaks of
    written = [p for p in read_predictions() if p.experiment == name]
    assert all(p.name in section for p in written)


def test_a_cell_that_two_compare_with_is_no_sign_that_both_have_run(tmp_path):
    study, _ = study_of("losses", tmp_path)
    assert figures.was_run(study, "losses", EXPERIMENTS["losses"])
    assert not figures.was_run(study, "weight", EXPERIMENTS["weight"])  # it has rl-150, too
    study, _ = study_of("figure10", tmp_path / "hard")
    assert figures.was_run(study, "figure10", EXPERIMENTS["figure10"])
    assert not figures.was_run(study, "figure4", EXPERIMENTS["figure4"])  # it has hard-rl, too
    study, _ = study_of("figure4", tmp_path / "larger")
    assert figures.was_run(study, "figure4", EXPERIMENTS["figure4"])
    assert not figures.was_run(study, "figure12", EXPERIMENTS["figure12"])  # one recipe of four


def test_the_hard_family_is_read_on_its_own_task(tmp_path):
    study, _ = study_of("figure11", tmp_path)
    on_hard = study.on("toy-hard")
    assert (
        on_hard.task == "toy-hard"
        and study.on("") is study
        and on_hard.stems == ["targeted-3.6M", "targeted-5.4M"]
    )
    assert study.on("toy").stems == study.on("toy-hard").on("toy").stems
    gain = cells.difference(on_hard, "targeted-5.4M.hard-rl", "targeted-5.4M", "pass@1")
    rows, _ = rows_of("figure11", 0)
    rate = {
        row["name"]: np.mean([p[3] / 32 for p in row["problems"]])
        for row in rows
        if row["task"] == "toy-hard"
    }
    assert gain.of_seeds[0] == pytest.approx(
        100 * (rate["targeted-5.4M.hard-rl"] - rate["targeted-5.4M"])
    )


def test_ranks_and_their_correlation():
    assert paper_figures.ranks([10, 30, 20, 30]).tolist() == [0, 2.5, 1, 2.5]
    assert paper_figures.spearman([1, 2, 3], [1, 4, 9]) == pytest.approx(1)
    assert paper_figures.spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    assert paper_figures.spearman([1, 2, 3], [2, 1, 3]) == pytest.approx(0.5)


def test_intervals_of_a_standard_deviation():
    """Against quantiles of chi-squared from tables, and by simulation."""
    assert said.chi_squared(5, 1.96) == pytest.approx(12.83, rel=0.01)
    assert said.chi_squared(5, -1.96) == pytest.approx(0.831, rel=0.05)
    assert said.chi_squared(11, 1.96) == pytest.approx(21.92, rel=0.01)
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(1000):
        low, high = said.interval_of_sd(list(rng.normal(0, 3, 6)))
        hits += low < 3 < high
    assert 930 <= hits <= 970


def test_sentences_of_result(tmp_path):
    study, _ = study_of("figure14", tmp_path)
    text = said.sentence(study, EXPERIMENTS["figure14"])
    assert (
        text.startswith("Over 6 seeds of RL from the same weights, pass@1 from 2.4M ends between")
        and "3.6M" in text
    )
    study, _ = study_of("figure5", tmp_path / "b")
    text = said.sentence(study, EXPERIMENTS["figure5"])
    assert (
        text.startswith("Rank correlation of the base")
        and "pass@32 before and pass@32 after: " in text
    )
    assert said.sentence(study, EXPERIMENTS["core"]) == ""


def test_a_correlation_of_what_is_all_the_same():
    """No number and no warning, where every seed solves everything."""
    assert np.isnan(paper_figures.spearman([1.0, 2, 3], [100.0] * 3))
    assert paper_figures.rank_correlation([1.0, 2, 3], [3.0, 1, 2]) == "rank correlation -0.50"
    assert "all are the same" in paper_figures.rank_correlation([1.0, 2, 3], [100.0] * 3)
    assert said.correlation({"a": [(1.0, 100.0)] * 4}) == "none"
    some = said.correlation({"a": [(1.0, 4.0), (2, 5), (3, 5), (4, 6)]})
    assert some.startswith("0.95 [") and "nan" not in some


def test_the_papers_numbers():
    """A few, read again in the source: the last checkpoint of each, and what stands out."""
    assert GAINS["1B-60B"]["56B"] == {"pass@1": 29.5, "pass@8": 37.1, "pass@32": 28.6}
    assert GAINS["1B-50B"]["10B"]["pass@32"] == -3.3 and "34B" not in GAINS["1B-50B"]
    assert HARD["figure10"]["rl"]["44B"] == {"pass@1": 8.9, "pass@8": 19.2, "pass@32": 26.3}
    assert HARD["figure11"]["base"]["56B"]["pass@32"] == 35.6
    assert SHOTS["1"]["44B"]["pass@32"] == 74.5 and AVERAGING["1e-6"]["2200"]["pass@32"] == 77.5
    assert points(FIGURE5["MATH, pass@1"])[-1] == (2.7, 32.3)
    of_base, after = zip(*points(FIGURE5["GSM8K, pass@1"]))
    assert paper_figures.spearman(of_base, after) > 0.9


def test_copies_are_in_order(tmp_path):
    study, _ = study_of("figure17", tmp_path)
    way = paper_runs.on_the_way(study, "3.6M", "parallel-low")
    assert [step for step, _ in way] == [25, 50, 100, 200, 300]
    assert way[0][1] == "3.6M.parallel-low.step25" and way[-1][1] == "3.6M.parallel-low"
    names = sections.cells_there(study, EXPERIMENTS["figure17"])
    assert names.index("3.6M.parallel-low.step25") == names.index("3.6M.parallel-low") + 1


def test_single_differences_are_from_the_controlled_setting():
    experiment = EXPERIMENTS["settings"]
    study = type("Study", (), {"cell": lambda self, name: tuple(name.split(".", 1)), "stems": []})()
    for cell, other in (
        ("M.rl-kl", "M.controlled-rl"),
        ("M.sft-sum", "M.controlled-sft"),
        ("M.controlled-sft.rl-fast", "M.controlled-sft.rl"),
        ("M.controlled-rl.top-p-1", "M.controlled-rl"),
        ("M.run-sft.rl", "M.controlled-sft.rl"),
    ):
        assert sections.reference_of(study, experiment, cell) == other
