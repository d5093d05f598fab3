"""Where RL begins to work: the pass rate from which on it takes a kind of problem off.

A kind of problem (a shape of the toy world) takes off if more than half of its samples are right
after RL. Whether it does depends on its pass rate before: far below the border no group holds a
right rollout, so nothing is learned of that kind. The border is the rate at which a logistic curve,
fitted to all kinds, checkpoints and seeds, is one half.
"""

import math
from typing import NamedTuple

import numpy as np

from study.rows import Study

OFF = 0.5  # share of samples that are right after RL
PULL = 0.02  # on the slope, so that the curve stays finite where one rate divides all kinds
STEPS = 100  # of Newton's method
BANDS = (0.01, 0.08)  # rates between which the report counts


class Kind(NamedTuple):
    """One kind of problem at one checkpoint in one seed, before and after RL."""

    seed: int
    stem: str
    level: str  # "(2,3)"
    before: float  # share of samples that are right; half a right one where there is none
    after: float


def kinds(study: Study, recipe: str, stems: list[str] | None = None) -> list[Kind]:
    """All that have rows of `recipe` and of what it starts from."""
    start = recipe.rpartition(".")[0] or "base"
    found = []
    for stem in stems or study.stems:
        task = study.task_of(stem, recipe)
        before = study.rows.get((task, stem, start), {})
        after = study.rows.get((task, stem, recipe), {})
        for seed in sorted(before.keys() & after.keys()):
            rates = rates_by_level(after[seed])
            for level, rate in rates_by_level(before[seed]).items():
                if level in rates:
                    found.append(Kind(seed, stem, level, rate, rates[level]))
    return found


def rates_by_level(row: dict) -> dict[str, float]:
    right = {}
    samples = {}
    for _, level, n, c, *_ in row["problems"]:
        right[level] = right.get(level, 0) + c
        samples[level] = samples.get(level, 0) + n
    return {level: max(right[level], 0.5) / samples[level] for level in right}


def has_taken_off(kind: Kind) -> bool:
    return kind.after > OFF


def curve(points: list[Kind]) -> tuple[float, float] | None:
    """(log of the border, slope) of the likeliest logistic curve in the log of the rate before.

    None where all kinds take off, or none does: then no rate lies between.
    """
    off = np.array([has_taken_off(kind) for kind in points], dtype=float)  # (K,)
    if not 0 < off.sum() < len(off):
        return None
    x = np.log([kind.before for kind in points])  # (K,)
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


def border(points: list[Kind]) -> float | None:
    """In percent."""
    found = curve(points)
    return 100 * math.exp(found[0]) if found else None


def border_by_seed(study: Study, recipe: str, stems: list[str] | None = None) -> dict[int, dict]:
    """seed -> {"": its jackknife value of the border}, as study/estimates.py combines them.

    The value of a seed is n times the border of all n seeds minus n - 1 times that without it
    (Tukey 1958). Their mean is the border, their spread its error. {} where there is none.
    """
    points = kinds(study, recipe, stems)
    seeds = sorted({kind.seed for kind in points})
    whole = border(points)
    if whole is None:
        return {}
    values = {}
    for seed in seeds:
        rest = border([kind for kind in points if kind.seed != seed])
        if rest is None:  # with one seed, or where a single seed has all that took off
            return {seed: {"": whole} for seed in seeds[:1]}
        values[seed] = {"": len(seeds) * whole - (len(seeds) - 1) * rest}
    return values


def counts(points: list[Kind]) -> list[tuple[int, int]]:
    """(took off, all) of the kinds below, between and above the BANDS."""
    found = []
    for low, high in zip((0.0, *BANDS), (*BANDS, math.inf)):
        inside = [kind for kind in points if low <= kind.before < high]
        found.append((sum(map(has_taken_off, inside)), len(inside)))
    return found
