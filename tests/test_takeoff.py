"""At what pass rate RL begins to work: the border against curves that are known, its interval in
simulated studies, and what rules, sentence and figure make of rows.
"""

import json
import math

import numpy as np
import pytest

from study import said
from study.estimates import combine
from study.experiments import EXPERIMENTS
from study.predictions import judge, prediction
from study.rows import Study
from study.takeoff import Shape, border, border_by_seed, border_in_percent, counts, curve, shapes
from study.takeoff_figure import draw_takeoff

LEVELS = ["(1,2)", "(2,1)", "(2,2)", "(2,3)", "(3,2)"]


def drawn(rng, seeds: int, border: float, slope: float = 3.0, spread: float = 0.0) -> list[Shape]:
    """15 shapes a seed. Their chance to take off is a logistic curve; seeds have their own luck."""
    found = []
    for seed in range(seeds):
        luck = rng.normal(0, spread)
        for i in range(15):
            rate = math.exp(rng.normal(math.log(0.03), 1.3))
            chance = 1 / (1 + math.exp(-slope * (math.log(rate / border) + luck)))
            found.append(Shape(seed, "3.6M", str(i), rate, 0.9 if rng.random() < chance else 0.1))
    return found


def test_the_border_is_the_curves():
    rng = np.random.default_rng(0)
    points = drawn(rng, 400, 0.025)
    log_border, slope = curve(points)
    assert math.exp(log_border) == pytest.approx(0.025, rel=0.05)
    assert slope == pytest.approx(3.0, rel=0.1)
    assert border(points) == log_border


def test_it_is_the_likeliest_curve():
    """No other curve has a higher likelihood, but for the pull on the slope."""
    points = drawn(np.random.default_rng(1), 8, 0.03)
    best = curve(points)

    def loss(log_border: float, slope: float) -> float:
        total = 0.02 / 2 * slope**2
        for shape in points:
            chance = 1 / (1 + math.exp(-slope * (math.log(shape.before) - log_border)))
            total -= math.log(chance if shape.after > 0.5 else 1 - chance)
        return total

    for step in ((0.02, 0), (-0.02, 0), (0, 0.02), (0, -0.02), (0.02, 0.02), (-0.02, 0.02)):
        assert loss(best[0] + step[0], best[1] + step[1]) > loss(*best)


def test_one_rate_that_divides_all_kinds():
    points = [
        Shape(0, "a", str(i), rate, float(rate > 0.02)) for i, rate in enumerate((0.01, 0.04))
    ]
    assert math.exp(border(points)) == pytest.approx(0.02)
    assert border(points[:1]) is None and border(points[1:]) is None and border([]) is None


@pytest.mark.parametrize("seeds", [4, 8])
def test_the_interval_holds_the_truth(seeds, monkeypatch):
    """95 %, of studies whose seeds have luck of their own. The truth is that of very many seeds."""
    rng = np.random.default_rng(seeds)
    truth = border(drawn(rng, 3000, 0.03, spread=0.3))
    held = 0
    for _ in range(300):
        points = drawn(rng, seeds, 0.03, spread=0.3)
        monkeypatch.setattr("study.takeoff.shapes", lambda study, recipe, stems: points)
        low, high = combine([border_by_seed(None, "rl")]).interval()
        held += low < truth < high
    assert 0.9 < held / 300 <= 0.99


def write_seed(folder, rates: dict[str, list[float]]):
    folder.mkdir(exist_ok=True)
    rows = []
    for name, of_levels in rates.items():
        problems = []
        for level, rate in zip(LEVELS, of_levels):
            problems += [[f"{level}{i}", level, 32, round(32 * rate), 0] for i in range(10)]
        row = dict(name=name, task="toy", kind="pass@k", tokens=3_600_000, seed=0, preset="toy")
        recipe = "base" if name == "3.6M" else name.removeprefix("3.6M.")
        row |= dict(recipe=recipe, key={"n": 32}, problems=problems)
        row |= {"distinct": 1.0, "format": 1.0, "truncated": 0.0, "length": 30.0}
        rows.append(json.dumps(row) + "\n")
    (folder / "results.jsonl").write_text("".join(rows))


@pytest.fixture
def study(tmp_path):
    """Four seeds: shapes of 6 % and more take off under direct RL, of 25 % after SFT. As tests
    sample, before RL, twice as many are right as RL sees.
    """
    folders = []
    for seed in range(4):
        before = [0.5, 0.25, 0.125, 1 / 16, 0.0]
        as_tested = [2 * rate for rate in before]
        rates = {
            "3.6M": as_tested,
            "3.6M.at-1": before,
            "3.6M.rl": [1.0, 1.0, 1.0, 0.75 if seed else 0.25, 0.0],
        }
        rates |= {"3.6M.sft": as_tested, "3.6M.sft.at-1": before}
        rates |= {"3.6M.sft.rl": [1.0, 1.0 if seed else 0.25, 0.25, 0.0, 0.0]}
        write_seed(tmp_path / f"seed{seed}", rates)
        folders.append(str(tmp_path / f"seed{seed}"))
    return Study(folders)


def test_kinds_of_rows(study):
    points = shapes(study, "rl")
    assert len(points) == 20 and points[0] == Shape(0, "3.6M", "(1,2)", 0.5, 1.0)
    assert points[4].before == pytest.approx(0.5 / 320)  # half a right one of 320
    assert counts(points) == ["0 of 4", "–", "7 of 8", "8 of 8"]
    assert {shape.before for shape in shapes(study, "sft.rl")} == {shape.before for shape in points}
    assert shapes(study, "sft.rl", ["3.6M"]) == shapes(study, "sft.rl")
    assert shapes(study, "parallel") == [] and shapes(study, "rl", ["1.5M"]) == []


def test_rules_speak_of_the_border(study):
    higher = prediction("takeoff-1", "", "border(sft.rl) - border[3.6M](rl) > 0", "", "here")
    verdict = judge(study, higher)
    assert 0.5 < verdict.estimate.mean < 3 and len(verdict.estimate.of_seeds) == 4  # logarithms
    assert verdict.word == "undecided"  # each seed gives much of the border
    alone = judge(study, prediction("takeoff-2", "", "border(rl) < 0", "", "here"))
    assert 0.01 < math.exp(alone.estimate.mean) < 0.08 and len(alone.estimate.of_seeds) == 4
    missing = prediction("takeoff-3", "", "border(parallel) - border(rl) < 0", "", "here")
    assert judge(study, missing).word == "not run"


def test_no_border_without_some_seed_is_none(tmp_path):
    """One seed alone has a shape that stays: without it no rate divides the shapes."""
    for seed in range(3):
        after = [1.0, 1.0, 1.0, 1.0, 1.0 if seed else 0.0]
        before = [0.5, 0.25, 0.125, 1 / 16, 1 / 32]
        rates = {"3.6M": before, "3.6M.at-1": before, "3.6M.rl": after}
        write_seed(tmp_path / f"seed{seed}", rates)
    study = Study([str(tmp_path / f"seed{seed}") for seed in range(3)])
    assert border(shapes(study, "rl")) is not None
    assert border_by_seed(study, "rl") == {} and border_in_percent(study, "rl") == ""


def test_sentence_and_figure(study, tmp_path):
    text = said.sentence(study, EXPERIMENTS["takeoff"])
    assert "| direct RL | 0 of 4 | – | 7 of 8 | 8 of 8 | " in text
    assert "| RL after SFT | 0 of 4 | – | " in text and "parallel" not in text
    figure = draw_takeoff(study, EXPERIMENTS["takeoff"])
    assert len(figure.axes) == 2
    assert draw_takeoff(Study([str(tmp_path / "none")]), EXPERIMENTS["takeoff"]) is None
