"""Means with their uncertainty, over seeds and over problems together.

A value has a seed s and a problem p: x[s, p] = mean + of the seed + of the problem + rest. Seeds
and problems are both samples, so the mean of S seeds and P problems varies with

    var(seed) / S + var(problem) / P + var(rest) / (S P).

The variances come from the mean squares of the table (two-way analysis of variance), which are
right for few seeds, too; drawing seeds and problems anew together (bootstrap) gives the same for
many. Each part has a 95 % interval of its own, by Student's t; their half-widths add as squares.
Seeds that agree by chance do not make it narrower than what is left of each problem alone would.
With one seed there are problems alone, and their interval is a bootstrap's.
"""

import math
from dataclasses import dataclass

import numpy as np

# 97.5 % quantile of Student's t for 1, 2, 3, ... degrees of freedom.
T95 = [12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160]
MANY = 1000  # degrees of freedom, as good as any more
MOST_SEEDS = 200  # beyond which nobody would go to decide a question


def t95(df: float) -> float:
    """97.5 % quantile of Student's t; degrees of freedom are rounded down."""
    whole = max(1, math.floor(df))
    if whole <= len(T95):
        return T95[whole - 1]
    return 1.96 + 2.4 / whole + 3.0 / whole**2  # within 0.002 of the true value from 14 on


@dataclass
class Part:
    """Where variance of a mean comes from: the seeds, or the problems of a group."""

    variance: float  # of the mean
    df: int  # degrees of freedom by which it is known

    def half_width(self) -> float:
        return math.sqrt(self.variance) * t95(self.df)


@dataclass
class Estimate:
    """A mean, its standard error, and what each seed says."""

    mean: float
    of_seeds: list[float]  # one mean per seed
    parts: list[Part]  # none where there is only one value
    of_one_seed: tuple[float, float] | None = None  # its interval over problems

    @property
    def error(self) -> float:
        """The standard error; nan where there is only one value."""
        if not self.parts:
            return math.nan
        return math.sqrt(sum(part.variance for part in self.parts))

    @property
    def low(self) -> float:
        """Where a bar of a figure begins: one standard error; with one seed the 95 % interval."""
        return self.interval()[0] if self.of_one_seed else self.mean - self.error

    @property
    def high(self) -> float:
        return self.interval()[1] if self.of_one_seed else self.mean + self.error

    def half_width(self) -> float:
        """Of the 95 % interval."""
        if not self.parts:
            return math.nan
        return math.hypot(*[part.half_width() for part in self.parts])

    def interval(self) -> tuple[float, float]:
        """95 %: over seeds and problems, or with one seed over problems alone."""
        if self.of_one_seed:
            return self.of_one_seed
        return self.mean - self.half_width(), self.mean + self.half_width()

    def text(self, digits: int = 1, sign: str = "") -> str:
        """Over seeds "12.1 ± 2.7", with one "12.1 [9.8, 14.6]". sign "+" marks positive numbers."""
        style = f"{sign}.{digits}f"
        if math.isnan(self.error):
            return f"{self.mean:{style}}"
        if len(self.of_seeds) > 1:
            return f"{self.mean:{style}} ± {self.error:.{digits}f}"
        low, high = self.interval()
        return f"{self.mean:{style}} [{low:{style}}, {high:{style}}]"

    def with_interval(self, digits: int = 1, sign: str = "+") -> str:
        """ "+12.1 [+4.0, +20.2]" with the 95 % interval."""
        style = f"{sign}.{digits}f"
        if math.isnan(self.error):
            return f"{self.mean:{style}}"
        low, high = self.interval()
        return f"{self.mean:{style}} [{low:{style}}, {high:{style}}]"


# ---------------------------------------------------------------------------------- means


def summarise(values_of_seeds: dict[int, dict]) -> Estimate | None:
    """seed -> {problem: value} -> the mean over seeds of their means over problems.

    None where there is no seed.
    """
    return combine([values_of_seeds]) if values_of_seeds else None


def combine(groups: list[dict[int, dict]]) -> Estimate | None:
    """The sum of the means of several groups of problems, each as in `summarise`.

    A difference between shapes of problems is such a sum: the values of one are negative.
    Seeds count that all groups have; None where there is none.
    """
    seeds = sorted(set.intersection(*[set(group) for group in groups]))
    if not seeds:
        return None
    of_seeds = []
    for seed in seeds:
        of_seeds.append(sum(float(np.mean(list(group[seed].values()))) for group in groups))
    mean = float(np.mean(of_seeds))
    parts = []
    rest = 0.0  # variance of the mean that what is left of each problem makes alone
    for group in groups:
        part, of_rest = problem_part({seed: group[seed] for seed in seeds})
        rest += of_rest
        if part:
            parts.append(part)
    if len(seeds) > 1:
        of_seed = Part(float(np.var(of_seeds, ddof=1)) / len(seeds), len(seeds) - 1)
        # Seeds may agree by chance, the more easily the fewer they are.
        least = Part(rest, MANY)
        parts.insert(0, max(of_seed, least, key=Part.half_width))
    if len(seeds) == len(groups) == 1 and parts:
        return Estimate(mean, of_seeds, parts, bootstrap(list(groups[0][seeds[0]].values())))
    return Estimate(mean, of_seeds, parts)


def bootstrap(values: list[float]) -> tuple[float, float]:
    """95 % interval of the mean, from 1,000 sets of problems drawn with replacement."""
    values = np.array(values)
    picks = np.random.default_rng(0).integers(len(values), size=(1000, len(values)))
    low, high = np.quantile(values[picks].mean(1), [0.025, 0.975])
    return float(low), float(high)


def problem_part(values: dict[int, dict]) -> tuple[Part | None, float]:
    """What the choice of problems adds to the variance of a mean, beyond what seeds show.

    None where there is one problem, or where the seeds were asked different ones: then the seeds
    show it themselves. -> (the part, the variance of the mean that the rest makes alone)
    """
    first, *others = values.values()
    problems = list(first)
    if len(problems) < 2 or any(of_seed.keys() != first.keys() for of_seed in others):
        return None, 0.0
    table = np.array([[of_seed[problem] for problem in problems] for of_seed in values.values()])
    S, P = table.shape
    of_problem = S * table.mean(0).var(ddof=1)  # mean square between problems
    if S == 1:
        return Part(float(of_problem) / P, P - 1), 0.0
    rest = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    of_rest = (rest**2).sum() / ((S - 1) * (P - 1))  # mean square of what is left
    variance = max(0.0, float(of_problem - of_rest)) / (S * P)
    return Part(variance, P - 1), float(of_rest) / (S * P)


# ---------------------------------------------------------------------------------- words


def direction(difference: Estimate) -> str:
    """higher or lower, if the 95 % interval leaves out 0."""
    if math.isnan(difference.error):
        return "one seed"  # and one value, so there is no interval
    low, high = difference.interval()
    if low > 0:
        return "higher"
    if high < 0:
        return "lower"
    return "undecided"


def more_seeds(estimate: Estimate, border: float = 0.0) -> int | None:
    """How many more seeds would put the border outside of the interval.

    It takes the mean and the spread as they are now. None where not even MOST_SEEDS would.
    """
    S = len(estimate.of_seeds)
    if S < 2:
        return None
    of_seeds, *of_problems = estimate.parts
    for n in range(S + 1, MOST_SEEDS + 1):
        parts = [Part(of_seeds.variance * S / n, n - 1), *of_problems]
        if abs(estimate.mean - border) > Estimate(estimate.mean, [], parts).half_width():
            return n - S
    return None


def said_of_seeds(estimate: Estimate, border: float = 0.0) -> str:
    """ "6 more seeds would decide", or that nobody would wait for as many."""
    if len(estimate.of_seeds) < 2:
        return "more seeds are needed"
    more = more_seeds(estimate, border)
    if more is None:
        return f"not even {MOST_SEEDS} seeds would decide"
    return f"{more} more seed{'s' if more > 1 else ''} would decide"


def count_up(estimate: Estimate) -> str:
    """ "5 of 6 seeds up"."""
    up = sum(value > 0 for value in estimate.of_seeds)
    return f"{up} of {len(estimate.of_seeds)} seeds up"


def verdict(difference: Estimate, digits: int = 1) -> str:
    """The direction, the numbers, how many seeds rose, and what an open question would take.

    Several seeds: "higher: +10.8 ± 2.9, 3 of 3 seeds up". One seed: "higher: +8.3 [+2.0, +14.1]".
    """
    word = direction(difference)
    text = f"{word}: {difference.text(digits, '+')}"
    if len(difference.of_seeds) > 1:
        text += f", {count_up(difference)}"
        if word == "undecided":
            text += f"; the interval holds 0, {said_of_seeds(difference)}"
    return text
