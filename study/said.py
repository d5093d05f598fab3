"""A sentence of result for experiments whose question no prediction's sum can answer."""

import math

import numpy as np

from study import cells
from study.experiment import Experiment
from study.paper_figures import before_and_after, spearman
from study.report import MISSING, table
from study.rows import BANDS, Study, name_of_band
from study.sections import stems_there
from study.takeoff import border_in_percent, counts, shapes
from study.takeoff_figure import LABELS

DRAWS = 1000  # of the bootstrap


def sentence(study: Study, experiment: Experiment) -> str:
    """ "" where there is nothing to say."""
    sentences = {
        "base against rl": base_against_rl,
        "brittleness": brittleness,
        "takeoff": border_of_takeoff,
        "tail": never_solved,
    }
    if experiment.figure not in sentences:
        return ""
    return sentences[experiment.figure](study, experiment)


def base_against_rl(study: Study, experiment: Experiment) -> str:
    """Rank correlations, over checkpoints and seeds and over the seeds of each checkpoint."""
    parts = []
    for before, after in (("pass@1", "pass@1"), ("pass@32", "pass@32"), ("heldout_loss", "pass@1")):
        pairs = before_and_after(study, before, after)
        if len(sum(pairs.values(), [])) < 4:
            continue
        alone = []
        for stem, of_stem in pairs.items():
            if len(of_stem) > 3:
                alone.append(f"{number(spearman(*zip(*of_stem)))} over seeds at {stem}")
        said = f"{correlation(pairs)} over all"
        name = before.replace("_", "-").replace("heldout", "held-out")
        parts.append(f"{name} before and {after} after: {', '.join([said, *alone])}")
    if not parts:
        return ""
    return f"Rank correlation of the base with what RL makes of it. {'; '.join(parts)}."


def correlation(pairs: dict[str, list]) -> str:
    """Spearman's over all pairs, with a 95 % interval: seeds drawn anew, for all checkpoints."""
    n = min(len(of_stem) for of_stem in pairs.values())
    rng = np.random.default_rng(0)
    found = []
    for _ in range(DRAWS):
        drawn = rng.integers(n, size=n)
        every = [of_stem[seed] for of_stem in pairs.values() for seed in drawn]
        value = spearman(*zip(*every))
        if not math.isnan(value):
            found.append(value)
    value = number(spearman(*zip(*sum(pairs.values(), []))))
    if not found:
        return value
    low, high = np.quantile(found, [0.025, 0.975])
    return f"{value} [{low:.2f}, {high:.2f}]"


def number(correlation: float) -> str:
    return "none" if math.isnan(correlation) else f"{correlation:.2f}"


def border_of_takeoff(study: Study, experiment: Experiment) -> str:
    """How many shapes of problems took off, by their rate before; and where half of them do."""
    lines = []
    for recipe, label in LABELS.items():
        points = shapes(study, recipe)
        if points:
            lines.append([label, *counts(points), border_in_percent(study, recipe) or MISSING])
    if not lines:
        return ""
    bands = [name_of_band(band) for band in BANDS]
    return (
        "A shape of problem takes off if more than half of its samples are right after RL. How "
        "many shapes did, by how many of their samples were right before, at RL's own temperature "
        "of 1; and the rate at which half of them do:\n\n"
        + table(["RL", *[f"{band} right before" for band in bands], "half take off at"], lines)
    )


def never_solved(study: Study, experiment: Experiment) -> str:
    """How many problems of the tail RL solves, beside what luck gives."""
    stem = study.last
    by_luck = cells.tail_counts(study, f"{stem}.draw-1", f"{stem}.draw-2")
    by_rl = cells.tail_counts(study, f"{stem}.draw-1", f"{stem}.rl.draw-1")
    if not by_luck or not by_rl:
        return ""
    never = sum(n for n, _ in by_rl)
    of_luck = sum(n for n, _ in by_luck)
    return (
        f"Of {never} problems that the base solved in none of 256 samples, in all "
        f"seeds together, the model after RL solves {sum(found for _, found in by_rl)}; the "
        f"base, asked again, solves {sum(found for _, found in by_luck)} of {of_luck}."
    )


def brittleness(study: Study, experiment: Experiment) -> str:
    """How far apart seeds of RL from the same weights end."""
    parts = []
    for stem in stems_there(study, experiment):
        for quantity in ("pass@1", "pass@32"):
            ends = []
            for recipe in experiment.recipes:
                estimate = cells.value(study, f"{stem}.{recipe}", quantity)
                if estimate:
                    ends.append(estimate.mean)
            if len(ends) > 2:
                low, high = interval_of_sd(ends)
                parts.append(
                    f"{quantity} from {stem} ends between {min(ends):.1f} and {max(ends):.1f}, "
                    f"standard deviation {np.std(ends, ddof=1):.1f} [{low:.1f}, {high:.1f}]"
                )
    if not parts:
        return ""
    return f"Over {len(experiment.recipes)} seeds of RL from the same weights, {'; '.join(parts)}."


def interval_of_sd(values: list[float]) -> tuple[float, float]:
    """95 % interval of a standard deviation of normal values, by the chi-squared distribution."""
    df = len(values) - 1
    squares = df * np.var(values, ddof=1)
    low = math.sqrt(squares / chi_squared(df, 1.96))
    return low, math.sqrt(squares / chi_squared(df, -1.96))


def chi_squared(df: int, z: float) -> float:
    """The quantile of chi-squared at which a normal one is z (Wilson and Hilferty 1931), within
    5 % from 5 degrees of freedom on.
    """
    part = 2 / (9 * df)
    return df * (1 - part + z * math.sqrt(part)) ** 3
