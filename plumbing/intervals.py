"""How far a mean may be off."""

import numpy as np

from plumbing.batches import generator


def interval(values: list[float], seed: int = 0, draws: int = 1000) -> list[float]:
    """95 % bootstrap interval of the mean, drawing problems with replacement -> [low, high]."""
    picks = generator(seed, "bootstrap").integers(len(values), size=(draws, len(values)))
    means = np.asarray(values)[picks].mean(1)  # (draws,)
    return np.quantile(means, [0.025, 0.975]).round(4).tolist()
