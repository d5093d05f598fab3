"""Predictions: the rules are read as they are written, and judged as the file says."""

import json
import math
import os
import re
import shutil

import pytest
from conftest import ROOT

from data import UserError
from study.estimates import Estimate, Part
from study.experiments import EXPERIMENTS
from study.predictions import (
    Term,
    judge,
    measured,
    prediction,
    range_of,
    read_predictions,
    read_terms,
    value_of,
)
from study.rows import Study
from study.sections import prediction_table

LEVELS = ["(2,3)", "(3,2)"]


def write_seed(folder, counts: dict[str, list[int]]):
    """A run folder whose cells solve problem i in counts[i] of 32 samples."""
    folder.mkdir(exist_ok=True)
    rows = []
    for name, right in counts.items():
        problems = [[f"{i:04x}", LEVELS[i % 2], 32, c, c] for i, c in enumerate(right)]
        row = dict(name=name, task="toy", kind="pass@k", tokens=3_600_000, seed=0, preset="toy")
        row |= dict(recipe="base" if name == "3.6M" else "rl", key={"n": 32}, problems=problems)
        row |= {"distinct": 1.0, "format": 1.0, "truncated": 0.0, "length": 30.0}
        rows.append(json.dumps(row) + "\n")
    (folder / "results.jsonl").write_text("".join(rows))


@pytest.fixture
def study(tmp_path):
    """Three seeds: RL adds about 8 of 32 on (2,3) and takes about 8 on (3,2)."""
    folders = []
    for seed, extra in enumerate((0, 1, -1)):
        base = [10, 20] * 10
        after = [18 + extra, 12 + extra] * 10
        folder = tmp_path / f"seed{seed}"
        write_seed(folder, {"3.6M": base, "3.6M.rl": after})
        folders.append(str(folder))
    return Study(folders)


def test_a_rule_is_a_sum_of_terms():
    text = "pass@32[2,3](3.6M.rl) - 0.5*heldout_loss(3.6M) + verified@1(d1.rl-edge)"
    assert read_terms(text, "here") == [
        Term(1.0, "pass@32", "2,3", "3.6M.rl"),
        Term(-0.5, "heldout_loss", "", "3.6M"),
        Term(1.0, "verified@1", "", "d1.rl-edge"),
    ]


@pytest.mark.parametrize(
    "rule, word",
    [
        ("pass@1[2,3](3.6M.rl) - pass@1[2,3](3.6M) > 10", "held"),
        ("pass@1[2,3](3.6M.rl) - pass@1[2,3](3.6M) < 10", "failed"),
        ("pass@1[3,2](3.6M.rl) - pass@1[3,2](3.6M) < 0", "held"),
        ("pass@1(3.6M.rl) - pass@1(3.6M) within 20", "held"),
        ("pass@1(3.6M.rl) - pass@1(3.6M) > 0", "undecided"),
        ("pass@1(3.6M.rl) - pass@1(3.6M) within 1", "undecided"),
        ("pass@1[2,3](3.6M.rl) - pass@1[2,3](3.6M) within 1", "failed"),
        ("pass@1(3.6M.sft) - pass@1(3.6M) > 0", "not run"),
    ],
)
def test_verdicts(study, rule, word):
    verdict = judge(study, prediction("core-1", "words", rule, "", "file"))
    assert verdict.word == word
    assert bool(verdict.why) is (word == "undecided")


def test_one_seed_decides_nothing(study):
    """However clear its problems are."""
    alone = Study(study.folders[:1])
    rule = "pass@1[2,3](3.6M.rl) - pass@1[2,3](3.6M) > 10"
    verdict = judge(alone, prediction("core-1", "words", rule, "", "file"))
    assert verdict.word == "one seed" and verdict.why == "more seeds are needed"


def test_a_difference_of_kinds_is_paired_by_seed(study):
    """What a seed adds to both kinds cancels: +25 and -25 points, whatever the seed."""
    rule = "pass@1[2,3](3.6M.rl) - pass@1[2,3](3.6M) - pass@1[3,2](3.6M.rl) + pass@1[3,2](3.6M)"
    verdict = judge(study, prediction("core-5", "words", rule + " > 49", "", "file"))
    assert verdict.estimate.mean == pytest.approx(50.0)
    assert verdict.word == "held" and verdict.estimate.error == pytest.approx(0.0, abs=1e-9)


def test_how_far_a_cell_has_moved_is_a_value_of_its_own(study, tmp_path):
    """Read from distances.jsonl; a cell without a row has none."""
    folders = []
    for seed, kl in enumerate((4.0, 5.0)):
        folder = tmp_path / f"moved{seed}"
        shutil.copytree(study.folders[seed], folder)
        row = {"name": "3.6M.rl", "kl": kl}
        (folder / "distances.jsonl").write_text(json.dumps(row) + "\n")
        folders.append(str(folder))
    moved = Study(folders)
    assert value_of(moved, read_terms("distance(3.6M.rl)", "here")).mean == pytest.approx(4.5)
    assert value_of(moved, read_terms("distance(3.6M.sft)", "here")) is None


def test_a_difference_of_logarithms_is_told_as_a_factor():
    one = prediction("takeoff-4", "words", "border(rl-6x64) - border(rl-96x4) < 0", "", "file")
    text = measured(one, Estimate(math.log(2), [0.5, 0.9], [Part(0.01, 10)]))
    assert text.startswith("x 2.00 [1.6") and range_of(one) == "predicted < x 1"


def test_the_table_names_the_commit(study):
    one = prediction("core-1", "RL helps", "pass@1(3.6M.rl) > 5", "abc1234", "file")
    text = prediction_table(study, [one])
    assert "Written in commit abc1234" in text and "| core-1 | RL helps | **held** |" in text


def test_the_committed_file_speaks_of_cells_that_the_experiments_have():
    known = read_predictions()
    lines = open(os.path.join(ROOT, "results", "toy", "predictions.md")).read().splitlines()
    assert len(known) == len([line for line in lines if re.match(r"\| \S+-\d+ \|", line)])
    assert len(known) > 90 and len({one.name for one in known}) == len(known)
    for one in known:
        experiment = EXPERIMENTS[one.experiment]
        assert one.commit
        for term in one.terms:
            if term.quantity == "border":  # of a recipe of any experiment
                assert any(term.cell in other.recipes for other in EXPERIMENTS.values()), term
                continue
            stem = re.match(r"(targeted-|large-|wide-)?\d+\.\d+M|d\d+", term.cell)[0]
            recipe = term.cell.removeprefix(stem).removeprefix(".")
            assert not recipe or recipe in experiment.recipes, term


def test_a_rule_that_cannot_be_read_is_one_line():
    with pytest.raises(UserError, match="ends in no range"):
        prediction("core-1", "words", "pass@1(3.6M)", "", "file")
    with pytest.raises(UserError, match="cannot read"):
        prediction("core-1", "words", "pass(3.6M) ! > 1", "", "file")
