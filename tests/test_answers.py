"""Sentences of result: which cells they speak of, and what they say of simulated rows."""

import re

import pytest
from test_predictions import write_seed

from study.answers import ANSWERS, HOLE, answer, changed, compared, title
from study.estimates import Estimate, Part
from study.experiment import stems_of
from study.experiments import EXPERIMENTS
from study.predictions import read_terms
from study.rows import Study
from study.said import sentence


def estimate(mean, half, seeds=6):
    """With a 95 % interval of mean +- half."""
    part = Part(1.0, 5)
    part.variance = (half / part.half_width()) ** 2
    return Estimate(mean, [mean] * seeds, [part])


@pytest.mark.parametrize("name", ANSWERS)
def test_a_sentence_speaks_of_cells_that_its_experiment_has(name):
    experiment = EXPERIMENTS[name]
    cells = set()
    for stem in stems_of(experiment, "toy"):
        cells |= {stem, *[f"{stem}.{recipe}" for recipe in experiment.recipes]}
    holes = list(HOLE.finditer(ANSWERS[name]))
    assert len(holes) >= 2
    for match in holes:
        assert read_terms(f"{match[2]}({match[3]})", name)  # a quantity that rules know
        assert {match[3], match[4]} <= cells
    assert ANSWERS[name].count("{") == len(holes)
    assert ANSWERS[name].endswith(".")


@pytest.mark.parametrize(
    "mean, half, change, comparison",
    [
        (38.4, 6.4, "rises by 38.4 [32.0, 44.8] points", "is 38.4 [32.0, 44.8] points higher"),
        (-3.1, 2.9, "falls by 3.1 [0.2, 6.0] points", "is 3.1 [0.2, 6.0] points lower"),
        (
            -1.0,
            2.0,
            "changes by -1.0 [-3.0, +1.0] points (undecided)",
            "differs by -1.0 [-3.0, +1.0] points (undecided)",
        ),
    ],
)
def test_words_follow_the_interval(mean, half, change, comparison):
    assert changed(estimate(mean, half), "points") == change
    assert compared(estimate(mean, half), "points") == comparison


def test_nats_have_three_digits():
    assert changed(estimate(-0.1031, 0.01), "nats a token") == (
        "falls by 0.103 [0.093, 0.113] nats a token"
    )


def test_a_sentence_is_the_rows_difference(tmp_path):
    """Of 32 samples 8 are right before, and 8, 16 and 24 after: 0, 25 and 50 points more."""
    right = {"": 8, ".rl-random": 8, ".rl-format": 16, ".rl": 24}
    write_seed(tmp_path / "out", {f"3.6M{end}": [n] * 40 for end, n in right.items()})
    said = answer(Study([str(tmp_path / "out")]), "controls")
    numbers = [float(x) for x in re.findall(r"by \+?(-?[\d.]+)", said)]
    assert numbers == pytest.approx([0.0, 25.0, 50.0])
    assert said.count("(one seed)") == 3


def test_without_a_cell_there_is_no_sentence(tmp_path):
    write_seed(tmp_path / "out", {"3.6M": [8] * 40, "3.6M.rl": [24] * 40})
    assert answer(Study([str(tmp_path / "out")]), "controls") == ""


def test_a_title_is_the_question_and_what_came_out():
    said = title("Why?", "Because " * 20, inches=6)
    assert said.startswith("Why?\nBecause")
    assert max(map(len, said.splitlines())) <= 72
    assert title("Why?", "", inches=6) == "Why?"


def test_the_tail_is_counted_beside_luck(tmp_path):
    """The base solves none of three problems; asked again it solves one, and after RL two."""
    counts = {"3.6M": [0, 0, 0, 5], "3.6M.draw-1": [0, 0, 0, 5], "3.6M.draw-2": [0, 1, 0, 5]}
    write_seed(tmp_path / "out", counts | {"3.6M.rl.draw-1": [3, 1, 0, 32]})
    text = sentence(Study([str(tmp_path / "out")]), EXPERIMENTS["tail"])
    assert "Of 3 problems that the base solved in none of 256 samples, in all seeds" in text
    assert "after RL solves 2; the base, asked again, solves 1 of 3." in text
