"""At what pass rate RL begins to work on a shape of problem.

A shape of problem, (a,b) in the toy world, takes off if more than half of its samples are right
after RL, as tests sample. Its rate before is measured as RL samples, at temperature 1: far below
the border too few groups hold a right rollout. The border is the rate at which a logistic curve,
fitted to all shapes, checkpoints and seeds, is one half. It sums up a transition and is no
constant: shapes and checkpoints have borders of their own.
"""

import math
from typing import NamedTuple

import numpy as np

from study.estimates import Estimate, combine
from study.report import MISSING
from study.rows import BANDS, Study, band_of

OFF = 0.5  # share of samples that are right after RL
AT_1 = "at-1"  # the cells that were asked once more as RL samples
PULL = 0.02  # on the slope, so that the curve stays finite where one rate divides all shapes
STEPS = 100  # of Newton's method


class Shape(NamedTuple):
    """One shape of problem at one checkpoint in one seed, before and after RL."""

    seed: int
    stem: str
    level: str  # "(2,3)"
    before: float  # share of samples right at temperature 1; half a right one where there is none
    after: float


def shapes(study: Study, recipe: str, stems: list[str] | None = None) -> list[Shape]:
    """All that have rows of `recipe`, and at temperature 1 of what it starts from."""
    start = recipe.rpartition(".")[0]
    asked = f"{start}.{AT_1}" if start else AT_1
    found = []
    for stem in stems or study.stems:
        task = study.task_of(stem, recipe)
        before = study.rows.get((task, stem, asked), {})
        after = study.rows.get((task, stem, recipe), {})
        for seed in sorted(before.keys() & after.keys()):
            rates = rates_by_level(after[seed])
            for level, rate in rates_by_level(before[seed]).items():
                if level in rates:
                    found.append(Shape(seed, stem, level, rate, rates[level]))
    return found


def rates_by_level(row: dict) -> dict[str, float]:
    right = {}
    samples = {}
    for _, level, n, c, *_ in row["problems"]:
        right[level] = right.get(level, 0) + c
        samples[level] = samples.get(level, 0) + n
    return {level: max(right[level], 0.5) / samples[level] for level in right}


def has_taken_off(shape: Shape) -> bool:
    return shape.after > OFF


def curve(points: list[Shape]) -> tuple[float, float] | None:
    """(log of the border, slope) of the likeliest logistic curve in the log of the rate before.

    None where all shapes take off, or none does: then no rate lies between.
    """
    off = np.array([has_taken_off(shape) for shape in points], dtype=float)  # (K,)
    if not 0 < off.sum() < len(off):
        return None
    x = np.log([shape.before for shape in points])  # (K,)
    centre = x.mean()
    columns = np.stack([np.ones(len(x)), x - centre], 1)  # (K, 2)
    pull = np.array([1e-6, PULL])
    weights = np.zeros(2)
    for _ in range(STEPS):  # Newton's
        p = 1 / (1 + np.exp(-columns @ weights))
        gradient = columns.T @ (p - off) + pull * weights
        curvature = (columns.T * (p * (1 - p))) @ columns + np.diag(pull)
        weights = weights - np.linalg.solve(curvature, gradient).clip(-2, 2)
    intercept, slope = weights
    if slope <= 0:
        return None
    return float(centre - intercept / slope), float(slope)


def border(points: list[Shape]) -> float | None:
    """The natural logarithm of the rate."""
    found = curve(points)
    return found[0] if found else None


def border_by_seed(study: Study, recipe: str, stems: list[str] | None = None) -> dict[int, dict]:
    """seed -> {"": its jackknife value of the border}, as study/estimates.py combines them.

    Leaving out one of n seeds moves the border; the value of a seed is the border of all, moved
    n - 1 times as far the other way (Tukey 1958). Their mean is the border of all, and their
    spread over sqrt(n) is its standard error. All are logarithms. {} where there is no border,
    with or without some seed.
    """
    points = shapes(study, recipe, stems)
    seeds = sorted({shape.seed for shape in points})
    whole = border(points)
    without = [border([shape for shape in points if shape.seed != seed]) for seed in seeds]
    if whole is None or None in without:
        return {}
    middle = float(np.mean(without))
    values = {}
    for seed, rest in zip(seeds, without):
        values[seed] = {"": whole + (len(seeds) - 1) * (middle - rest)}
    return values


def border_in_percent(study: Study, recipe: str) -> str:
    """ "3.1 [2.3, 4.0] %", or "" where there is none."""
    estimate = combine([border_by_seed(study, recipe)])
    return f"{in_percent(estimate)} %" if estimate else ""


def in_percent(estimate: Estimate) -> str:
    """The rate and its interval, of an estimate of the rate's logarithm."""
    middle, low, high = (100 * math.exp(x) for x in (estimate.mean, *estimate.interval()))
    return f"{middle:.1f} [{low:.1f}, {high:.1f}]"


def counts(points: list[Shape]) -> list[str]:
    """ "3 of 13" took off, in each of the bands that study/rows.py sorts problems by."""
    found = []
    for band in BANDS:
        inside = [shape for shape in points if band_of(100 * shape.before) == band]
        off = sum(map(has_taken_off, inside))
        found.append(f"{off} of {len(inside)}" if inside else MISSING)
    return found
