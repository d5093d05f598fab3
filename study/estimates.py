"""Means with their uncertainty: over seeds, or over the problems of one seed."""

import math
from dataclasses import dataclass

import numpy as np

# 97.5 % quantile of Student's t for 0, 1, 2, ... degrees of freedom.
T95 = [0, 12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26]


@dataclass
class Estimate:
    """A mean, and the range in which it may lie.

    Over several seeds the range is the mean minus and plus its standard error. With one seed it is
    a 95 % bootstrap interval over problems, or nan where there is only one value.
    """

    mean: float
    low: float
    high: float
    of_seeds: list[float]  # one mean per seed

    def text(self, digits: int = 1, sign: str = "") -> str:
        """Over seeds "12.1 ± 2.7", with one "12.1 [9.8, 14.6]". sign "+" marks positive numbers."""
        style = f"{sign}.{digits}f"
        if len(self.of_seeds) > 1:
            return f"{self.mean:{style}} ± {self.high - self.mean:.{digits}f}"
        if math.isnan(self.low):
            return f"{self.mean:{style}}"
        return f"{self.mean:{style}} [{self.low:{style}}, {self.high:{style}}]"


def summarise(values_of_seeds: dict[int, list[float]]) -> Estimate | None:
    """seed -> its values, one per problem. None where there is no seed."""
    if not values_of_seeds:
        return None
    of_seeds = []
    for values in values_of_seeds.values():
        of_seeds.append(float(np.mean(values)))
    mean = float(np.mean(of_seeds))
    if len(of_seeds) > 1:
        error = float(np.std(of_seeds, ddof=1)) / math.sqrt(len(of_seeds))
        return Estimate(mean, mean - error, mean + error, of_seeds)
    (values,) = values_of_seeds.values()
    if len(values) == 1:
        return Estimate(mean, math.nan, math.nan, of_seeds)
    low, high = bootstrap(np.array(values))
    return Estimate(mean, low, high, of_seeds)


def bootstrap(values: np.ndarray) -> list[float]:
    """95 % interval of the mean, from 1,000 sets of problems drawn with replacement."""
    picks = np.random.default_rng(0).integers(len(values), size=(1000, len(values)))
    return np.quantile(values[picks].mean(1), [0.025, 0.975]).tolist()


def direction(difference: Estimate) -> str:
    """higher or lower, if the 95 % interval leaves out 0.

    The interval is Student's t over seeds. With one seed it is the bootstrap over problems.
    """
    if math.isnan(difference.low):
        return "one seed"  # and one value, so there is no interval
    low = difference.low
    high = difference.high
    n_seeds = len(difference.of_seeds)
    if n_seeds > 1:
        error = difference.high - difference.mean
        reach = error * T95[min(n_seeds - 1, len(T95) - 1)]
        low = difference.mean - reach
        high = difference.mean + reach
    if low > 0:
        return "higher"
    if high < 0:
        return "lower"
    return "undecided"


def verdict(difference: Estimate, digits: int = 1) -> str:
    """The direction, the numbers, and in brackets the value of each seed.

    Several seeds: "higher: +10.8 ± 2.9 (+8.3, +13.3)". One seed: "higher: +8.3 [+2.0, +14.1]".
    """
    text = f"{direction(difference)}: {difference.text(digits, '+')}"
    if len(difference.of_seeds) > 1:
        of_seeds = ", ".join(f"{value:+.{digits}f}" for value in difference.of_seeds)
        text += f" ({of_seeds})"
    return text
