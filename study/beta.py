"""How often problems are solved: a Beta distribution that has a given pass@1 and pass@k.

If a problem's chance of being solved in one try is drawn from Beta(a, b), pass@k is

    1 - E[(1 - p)^k] = 1 - B(a, b + k) / B(a, b),    pass@1 = a / (a + b)

Two of these fix a and b; a third, pass@8, shows whether the form fits. Needs numpy alone.
"""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Beta:
    a: float
    b: float

    def pass_at(self, k: int) -> float:
        """Share of problems solved in k tries, 0 to 1."""
        a, b = self.a, self.b
        ln_kept = math.lgamma(b + k) + math.lgamma(a + b) - math.lgamma(b) - math.lgamma(a + b + k)
        return 1 - math.exp(ln_kept)

    def share_below(self, p: float) -> float:
        """Share of problems whose chance lies below p (regularised incomplete beta function)."""
        if p > 0.5:
            return 1 - Beta(self.b, self.a).share_below(1 - p)
        a, b = self.a, self.b
        # With t = x^a the integral of x^(a-1) (1-x)^(b-1) from 0 to p has no pole at 0.
        top = p**a
        n = 20_000
        t = (np.arange(n) + 0.5) * (top / n)
        integral = float(((1 - t ** (1 / a)) ** (b - 1)).mean()) * top / a
        ln_whole = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
        return min(1.0, integral / math.exp(ln_whole))  # the sum is a little off


def fit(pass_1: float, pass_k: float, k: int) -> Beta | None:
    """The Beta with this pass@1 and pass@k, both 0 to 1; None where there is none.

    For a given mean, the more alike the problems are, the higher is pass@k: a + b is found by
    halving.
    """
    if not 0 < pass_1 < pass_k < 1 - (1 - pass_1) ** k:
        return None
    low, high = math.log(1e-3), math.log(1e4)  # of a + b
    for _ in range(60):
        middle = (low + high) / 2
        total = math.exp(middle)
        if Beta(pass_1 * total, (1 - pass_1) * total).pass_at(k) < pass_k:
            low = middle
        else:
            high = middle
    total = math.exp((low + high) / 2)
    return Beta(pass_1 * total, (1 - pass_1) * total)
