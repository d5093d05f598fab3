"""What a table says of one cell: a checkpoint and what a recipe made of it."""

from functools import lru_cache

import numpy as np

from data import UserError
from data.problems import load_problems
from data.sources import DOCUMENTED
from study.beta import fit
from study.estimates import Estimate
from study.flops import config_of, flops_of_a_step, rollouts_of_a_step
from study.predictions import Term, value_of
from study.rows import Study

MISSING = "–"
OFTEN = 0.5  # solved at least half the time
HARDLY = 0.02  # solved less than 2 % of the time


def difference(study: Study, a: str, b: str, quantity: str, group: str = "") -> Estimate | None:
    """Cell a minus cell b, paired by seed and problem; group "2,3" is one shape alone."""
    return value_of(study, [Term(1, quantity, group, a), Term(-1, quantity, group, b)])


def value(study: Study, cell: str, quantity: str, group: str = "") -> Estimate | None:
    """A quantity of a cell on a group of problems, "2,3" or "edge"."""
    return value_of(study, [Term(1, quantity, group, cell)])


def level_groups(study: Study, cell: str) -> list[str]:
    """The shapes of problems that a cell was asked, as groups of a Term: "1,2", "2,1", ..."""
    stem, recipe = study.cell(cell)
    levels = set()
    for row in study.rows.get((study.task_of(stem, recipe), stem, recipe), {}).values():
        levels |= {level for _, level, *_ in row["problems"]}
    return sorted(level.strip("()") for level in levels if level.startswith("("))


def ks_of(study: Study, cell: str) -> list[int]:
    """The k of pass@k for which a cell has samples enough."""
    stem, recipe = study.cell(cell)
    return study.ks(study.task_of(stem, recipe), stem, recipe)


# ---------------------------------------------------------------------------------- RL


def in_training(study: Study, stem: str, recipe: str) -> str:
    """Accuracy at temperature 1 in the first and in the last five RL steps: "0.08 -> 0.72"."""
    logs = study.logs(stem, recipe)
    if not logs:
        return MISSING
    start = np.mean([row["accuracy"] for log in logs for row in log[:5]])
    end = np.mean([row["accuracy"] for log in logs for row in log[-5:]])
    return f"{start:.2f} -> {end:.2f}"


def rollouts_per_problem(study: Study, stem: str, recipe: str) -> str:
    """How many responses RL sampled of each training problem, on average."""
    logs = study.logs(stem, recipe)
    task = study.task_of(stem, recipe)
    rows = study.rows.get((task, stem, recipe), {})
    if not logs or not rows:
        return MISSING
    config = config_of(study, stem, recipe)
    problems = n_training_problems(config.get("data", ""))
    if not problems:
        return MISSING
    steps = np.mean([log[-1]["step"] for log in logs])
    return f"{steps * rollouts_of_a_step(config, logs) / problems:.0f}"


def rl_flops(study: Study, stem: str, recipe: str) -> str:
    """What all steps of RL cost in sampling and updates, in TFLOPs (10^12 FLOPs)."""
    flops = flops_of_a_step(study, stem, recipe)
    if not flops:
        return MISSING
    steps = np.mean([log[-1]["step"] for log in study.logs(stem, recipe)])
    return f"{steps * flops / 1e12:.2f}"


@lru_cache
def n_training_problems(name: str) -> int:
    """Problems in a training set; 0 where that cannot be told without fetching it."""
    if (name, "train") in DOCUMENTED:
        return DOCUMENTED[name, "train"][0]
    if not name.startswith("toy"):
        return 0
    try:
        return len(load_problems(name))
    except UserError:
        return 0


# ---------------------------------------------------------------------------------- how often


def how_often(study: Study, stem: str, recipe: str) -> list[str]:
    """Share of problems solved at least half the time and hardly ever, and the fit's pass@8.

    By the Beta distribution with the cell's pass@1 and its widest pass@k.
    """
    task = study.task_of(stem, recipe)
    ks = study.ks(task, stem, recipe)
    narrow = study.estimate(stem, recipe, "pass@1", task)
    if narrow is None or len(ks) < 3:
        return [MISSING, MISSING, MISSING]
    wide = study.estimate(stem, recipe, f"pass@{ks[-1]}", task)
    seen = study.estimate(stem, recipe, "pass@8", task)
    beta = fit(narrow.mean / 100, wide.mean / 100, ks[-1])
    if beta is None or seen is None:
        return [MISSING, MISSING, MISSING]
    often = 100 * (1 - beta.share_below(OFTEN))
    hardly = 100 * beta.share_below(HARDLY)
    return [f"{often:.0f} %", f"{hardly:.0f} %", f"{100 * beta.pass_at(8):.1f} / {seen.mean:.1f}"]


# ---------------------------------------------------------------------------------- the tail


def tail_counts(study: Study, before: str, after: str) -> list[tuple[int, int]]:
    """For each seed: the problems that `before` never solved, and how many of them `after` does."""
    stem_a, recipe_a = study.cell(before)
    stem_b, recipe_b = study.cell(after)
    counts_a = right_counts(study, stem_a, recipe_a)
    counts_b = right_counts(study, stem_b, recipe_b)
    counts = []
    for seed, of_a in counts_a.items():
        of_b = counts_b.get(seed, {})
        never = [problem for problem, right in of_a.items() if right == 0 and problem in of_b]
        if never:
            found = [problem for problem in never if of_b[problem] > 0]
            counts.append((len(never), len(found)))
    return counts


def right_counts(study: Study, stem: str, recipe: str) -> dict[int, dict]:
    """seed -> {problem: right samples}."""
    task = study.task_of(stem, recipe)
    found = {}
    for seed, row in study.rows.get((task, stem, recipe), {}).items():
        counts = {}
        for place, (id, _, _, right, _) in enumerate(row["problems"]):
            counts[place, id] = right
        found[seed] = counts
    return found


def rates(study: Study, cell: str) -> dict[int, dict]:
    """seed -> {problem: share of right samples}."""
    stem, recipe = study.cell(cell)
    return study.values(stem, recipe, "pass@1", study.task_of(stem, recipe))
