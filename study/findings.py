"""The findings of report.md: what the rows say about the paper's claims.

Every word follows from an interval.
"""

import numpy as np

from study.estimates import Estimate, direction, verdict
from study.paper import paper_difference
from study.recipes import RECIPES, WRITTEN
from study.report import table
from study.rows import Study

# What RL is compared with: what it started from.
AROUND_RL = [("rl", "base"), ("sft.rl", "sft"), ("sft-gold.rl", "sft-gold")]
TRAINED_BY_RL = [*AROUND_RL, ("parallel", "base")]  # half of each parallel step is RL


def findings(study: Study) -> str:
    """The section of the last checkpoint, on the study's task."""
    stem = study.last
    wide = f"pass@{study.ks(study.task)[-1]}"
    lines = [
        f"At {stem} tokens, on {study.task}, in points, paired. Several seeds: mean ± standard "
        "error (each seed), and the word follows Student's t at 95 %. One seed: 95 % bootstrap "
        "over problems, blind to the luck of the training run. Undecided: the interval holds 0. "
        f"Expansion: RL raised pass@1 and {wide}; sharpening: it raised pass@1 and lowered "
        f"{wide}. The paper's values are figure 2's, figure 9's where parallel averaging is one of "
        "the two, and figure 3's for SFT-Gold.\n",
        *compare_recipes(study, stem, wide),
        best_recipe(study, stem, wide),
    ]
    costs = costs_elsewhere(study, stem)
    if costs:
        lines.append("\n" + costs)
    lines += collapse(study, study.stems[0])
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------------------------- pairs


def compare_recipes(study: Study, stem: str, wide: str) -> list[str]:
    """A table of the pairs that are there, and a line that names the others."""
    pairs = [*AROUND_RL, ("rl", "sft")]
    for other in RECIPES:
        if other not in ("parallel", WRITTEN):
            pairs.append(("parallel", other))
    rows = []
    missing = []
    for a, b in pairs:
        narrow_change = study.difference(stem, a, b, "pass@1")
        wide_change = study.difference(stem, a, b, wide)
        if narrow_change is None or wide_change is None:
            missing.append(f"{a} - {b}")
            continue
        if (a, b) in TRAINED_BY_RL:
            claim = what_rl_did(narrow_change, wide_change)
        else:
            claim = which_is_better(narrow_change, wide_change, wide)
        paper = paper_difference(a, b)
        rows.append([f"{a} - {b}", verdict(narrow_change), verdict(wide_change), claim, paper])
    header = ["difference", "pass@1", wide, "reads as", "paper, GSM8K, 44B: pass@1 / pass@32"]
    lines = [table(header, rows) if rows else ""]
    if missing:
        lines.append(f"- Not there: {', '.join(missing)}.")
    return lines


def what_rl_did(narrow_change: Estimate, wide_change: Estimate) -> str:
    claims = {
        ("higher", "higher"): "expansion",
        ("higher", "lower"): "sharpening",
        ("lower", "lower"): "worse at both",
    }
    return claims.get((direction(narrow_change), direction(wide_change)), "undecided")


def which_is_better(narrow_change: Estimate, wide_change: Estimate, wide: str) -> str:
    """In words, where the first of two recipes beats the second, and where it loses to it."""
    narrow = direction(narrow_change)
    many = direction(wide_change)
    if narrow == many:
        return {"higher": "better at both", "lower": "worse at both"}.get(narrow, "undecided")
    parts = []
    for quantity, change in (("pass@1", narrow), (wide, many)):
        if change != "undecided":
            parts.append(f"{'better' if change == 'higher' else 'worse'} at {quantity}")
    return ", ".join(parts)


# ---------------------------------------------------------------------------------- the best


def best_recipe(study: Study, stem: str, quantity: str) -> str:
    """Which recipe leads, over the seeds that all recipes have."""
    of_recipes = {}  # recipe -> seed -> mean over problems
    for recipe in study.main_recipes(study.task, stem):
        of_recipes[recipe] = {}
        for seed, values in study.values(stem, recipe, quantity).items():
            of_recipes[recipe][seed] = np.mean(list(values.values()))
    seeds = seeds_of_all(of_recipes)
    if len(of_recipes) < 2 or not seeds:
        return f"- Best {quantity}: no seed has two recipes to compare."
    means = {}
    for recipe, of_seeds in of_recipes.items():
        means[recipe] = np.mean([of_seeds[seed] for seed in seeds])
    first, second = sorted(means, key=means.get, reverse=True)[:2]
    wins = 0
    for seed in seeds:
        winner = max(of_recipes, key=lambda recipe: of_recipes[recipe][seed])
        if winner == first:
            wins += 1
    lead = study.difference(stem, first, second, quantity)
    return (
        f"- Best {quantity}: {first} ({means[first]:.1f}, first in {wins} of {len(seeds)} seeds), "
        f"then {second} ({means[second]:.1f}); {first} - {second} {verdict(lead)}."
    )


def seeds_of_all(of_recipes: dict[str, dict[int, float]]) -> set[int]:
    if not of_recipes:
        return set()
    return set.intersection(*[set(of_seeds) for of_seeds in of_recipes.values()])


# ---------------------------------------------------------------------------------- what it costs


def costs_elsewhere(study: Study, stem: str) -> str:
    """A table of what recipes change in general text and skills; "" without a held-out loss."""
    rows = []
    for recipe in study.main_recipes("general", stem):
        loss = study.difference(stem, recipe, "base", "heldout_loss")
        skills = study.difference(stem, recipe, "base", "general")
        if recipe != "base" and loss:
            rows.append([recipe, verdict(loss, 3), verdict(skills)])
    if not rows:
        return ""
    header = [
        f"change from base at {stem}",
        "held-out loss (nats per token)",
        "general skills (points)",
    ]
    return table(header, rows)


# ---------------------------------------------------------------------------------- the collapse


def collapse(study: Study, stem: str) -> list[str]:
    """Direct RL as the paper's table has it, from the earliest checkpoint, against its base."""
    right = study.difference(stem, WRITTEN, "base", "pass@1")
    boxed = study.difference(stem, WRITTEN, "base", "format")
    length = study.difference(stem, WRITTEN, "base", "length")
    distinct = study.difference(stem, WRITTEN, "base", "distinct")
    if not (right and boxed and length and distinct):
        return [f"- Not there: {stem}.{WRITTEN} against its base."]
    lines = [
        f"- {stem}.{WRITTEN} against its base: {name_of_collapse(right, boxed)}. "
        f"pass@1 (points) {verdict(right)}; boxed (share) {verdict(boxed, 2)}; "
        f"length (tokens) {verdict(length)}; "
        f"different right responses per problem {verdict(distinct, 2)}."
    ]
    for recipe in ("rl", WRITTEN):
        logs = study.logs(stem, recipe)
        if logs:
            lines.append(
                f"- {stem}.{recipe} in training, first -> last five steps: "
                f"right {from_start_to_end(logs, 'accuracy')}, "
                f"boxed {from_start_to_end(logs, 'format')}, "
                f"length {from_start_to_end(logs, 'length')}."
            )
    return lines


def name_of_collapse(right: Estimate, boxed: Estimate) -> str:
    if direction(right) == "higher":
        return "no collapse: more right"
    if direction(right) != "lower":
        return "undecided"
    if boxed.mean > 0 and direction(boxed) != "undecided":
        return "collapse: fewer right, more boxed"
    return "worse: fewer right, not more boxed"


def from_start_to_end(logs: list[list[dict]], what: str) -> str:
    """The mean over the seeds' first five steps, and over their last five."""
    start = []
    end = []
    for log in logs:
        start += [row[what] for row in log[:5]]
        end += [row[what] for row in log[-5:]]
    return f"{np.mean(start):.3f} -> {np.mean(end):.3f}"
