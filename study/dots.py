"""Figures of experiments: a dot for every seed, the mean with its 95 % interval beside.

Each draw_ function takes the study and an Experiment, and returns a matplotlib figure, or None
where nothing is there.
"""

import math

import numpy as np

from study import cells
from study.curves import put_legend_below
from study.drawing import colour, pyplot
from study.estimates import Estimate, direction
from study.experiment import Experiment
from study.predictions import GROUPS
from study.rows import Study, distances
from study.sections import cells_there

# Shapes of problems by their operations, easiest first.
SHADES = ["#1b9e77", "#d95f02", "#7570b3", "#e7298a", "#66a61e", "#e6ab02", "#a6761d", "#666666"]


def put_dots(ax, x: float, estimate: Estimate, hue: str, size: float = 14) -> None:
    """The seeds as dots at x, and beside them the mean and its interval."""
    n = len(estimate.of_seeds)
    offsets = np.linspace(-0.12, 0.12, n) if n > 1 else [0.0]
    ax.scatter(x + np.array(offsets), estimate.of_seeds, s=size, color=hue, alpha=0.55, linewidth=0)
    half = estimate.half_width()
    if not math.isnan(half):
        place = x + 0.24
        ax.errorbar(place, estimate.mean, yerr=half, fmt="_", color=hue, capsize=3, linewidth=1.4)


def short(names: list[str]) -> list[str]:
    """The names without what they all begin with."""
    head = min(names, key=len)
    if not all(name == head or name.startswith(head + ".") for name in names):
        return names
    return ["base" if name == head else name.removeprefix(head + ".") for name in names]


# ---------------------------------------------------------------------------------- any experiment


def draw_dots(study: Study, experiment: Experiment):
    """pass@1 and the widest pass@k of every cell, of all problems or of the experiment's shape."""
    names = cells_there(study, experiment)
    if not names:
        return None
    fig, axes = pyplot().subplots(1, 2, figsize=(11.5, 4.2), layout="constrained")
    wide = min(cells.ks_of(study, name)[-1] for name in names)
    for ax, k in zip(axes, (1, wide)):
        for x, name in enumerate(names):
            estimate = cells.value(study, name, f"pass@{k}", experiment.shape)
            put_dots(ax, x, estimate, colour(study.cell(name)[1]))
        ax.set_xticks(range(len(names)), short(names), rotation=30, ha="right")
        of_shape = f" of shape ({experiment.shape})" if experiment.shape else ""
        ax.set(ylabel=f"pass@{k}{of_shape} (%)", ylim=(0, 102))
        ax.grid(axis="x", visible=False)
    return fig


# ---------------------------------------------------------------------------------- the core


GAINS = [("rl", "base", "direct RL"), ("sft.rl", "sft", "RL after SFT")]
GAINS += [("sft-gold.rl", "sft-gold", "RL after SFT-Gold")]


def draw_gains(study: Study, experiment: Experiment):
    """What RL changes at the last checkpoint, in all and by shape of problem."""
    stem = study.last
    pairs = []
    for after, before, label in GAINS:
        start = stem if before == "base" else f"{stem}.{before}"
        if cells.difference(study, f"{stem}.{after}", start, "pass@1"):
            pairs.append((f"{stem}.{after}", start, label, after))
    if not pairs:
        return None
    wide = f"pass@{study.ks(study.task)[-1]}"
    groups = ["", *cells.level_groups(study, stem)]
    fig, axes = pyplot().subplots(2, len(pairs), figsize=(12, 6.2), layout="constrained")
    axes = np.array(axes).reshape(2, len(pairs))
    for column, (after, start, label, recipe) in enumerate(pairs):
        for row, quantity in enumerate(("pass@1", wide)):
            ax = axes[row, column]
            found = []
            for x, group in enumerate(groups):
                estimate = cells.difference(study, after, start, quantity, group)
                if estimate:
                    put_dots(ax, x, estimate, colour(recipe))
                    found.append((group, estimate))
            ax.axhline(0, color="black", linewidth=0.8)
            ax.set_xticks(range(len(groups)), ["all", *[f"({group})" for group in groups[1:]]])
            ax.grid(axis="x", visible=False)
            ax.set_title(f"{label}: {quantity}\n{found_in_words(found)}", fontsize=9)
            ax.set_ylabel(f"change in {quantity} (points)")
        axes[1, column].set_xlabel("operations on the first and the second person")
    for row in axes:
        low = min(ax.get_ylim()[0] for ax in row)
        high = max(ax.get_ylim()[1] for ax in row)
        for ax in row:
            ax.set_ylim(low, high)
    return fig


def found_in_words(found: list[tuple[str, Estimate]]) -> str:
    """ "up on (1,2), (2,2); down on (3,2)", of the shapes whose interval leaves out 0."""
    sides = {"higher": [], "lower": []}
    for group, estimate in found:
        side = direction(estimate)
        if group and side in sides:
            sides[side].append(f"({group})")
    n = len(found) - 1
    parts = []
    for side, word in (("higher", "up"), ("lower", "down")):
        if len(sides[side]) == n:
            return f"{word} on every shape"
        if sides[side]:
            parts.append(f"{word} on {', '.join(sides[side])}")
    return "; ".join(parts) or "undecided on every shape"


# ---------------------------------------------------------------------------------- every problem


def draw_scatter(study: Study, experiment: Experiment):
    """How often each problem is solved before and after RL, averaged over seeds."""
    stem = study.last
    fig, axes = pyplot().subplots(1, 3, figsize=(12, 4.3), layout="constrained", sharey=True)
    drawn = False
    for ax, (after, before, label) in zip(axes, GAINS):
        start = stem if before == "base" else f"{stem}.{before}"
        pairs = mean_rates(study, start, f"{stem}.{after}")
        if not pairs:
            continue
        drawn = True
        for place, level in enumerate(sorted(pairs)):
            x, y = zip(*pairs[level])
            hue = SHADES[place % len(SHADES)]
            ax.scatter(x, y, s=12, alpha=0.65, color=hue, linewidth=0, label=level)
        ax.plot([0, 100], [0, 100], color="black", linewidth=0.8)
        ax.set(xlabel=f"solved before, % of samples ({start})", xlim=(-2, 102), ylim=(-2, 102))
        ax.set_title(f"{label}: {share_below(pairs)} of problems fall")
    axes[0].set_ylabel("solved after RL, % of samples")
    if not drawn:
        pyplot().close(fig)
        return None
    handles, labels = next(ax for ax in axes if ax.has_data()).get_legend_handles_labels()
    fig.legend(handles, labels, title="shape", loc="outside right upper", frameon=False)
    return fig


def mean_rates(study: Study, before: str, after: str) -> dict[str, list[tuple[float, float]]]:
    """level -> (rate before, rate after) of its problems, each the mean over seeds."""
    rates_before = cells.rates(study, before)
    rates_after = cells.rates(study, after)
    seeds = rates_before.keys() & rates_after.keys()
    if not seeds:
        return {}
    stem, recipe = study.cell(before)
    row = study.rows[study.task_of(stem, recipe), stem, recipe][min(seeds)]
    points = {}
    for place, (id, level, *_) in enumerate(row["problems"]):
        x = np.mean([rates_before[seed].get((place, id), 0) for seed in sorted(seeds)])
        y = np.mean([rates_after[seed].get((place, id), 0) for seed in sorted(seeds)])
        points.setdefault(level, []).append((float(x), float(y)))
    return points


def share_below(points: dict[str, list[tuple[float, float]]]) -> str:
    pairs = sum(points.values(), [])
    below = [pair for pair in pairs if pair[1] < pair[0]]
    return f"{100 * len(below) / len(pairs):.0f} %"


# ---------------------------------------------------------------------------------- ladder, edge


def draw_ladder(study: Study, experiment: Experiment):
    """pass@1 and pass@32 of SFT of several depths, and of the same RL from each."""
    depths = [("sft-1", 1), ("sft-4", 4), ("sft", 16), ("sft-61", 61)]
    stem = study.last
    fig, axes = pyplot().subplots(1, 2, figsize=(9.5, 4.2), layout="constrained")
    drawn = False
    for ax, quantity in zip(axes, ("pass@1", "pass@32")):
        for ending, label, hue in (
            ("", "SFT", colour("sft")),
            (".rl", "then RL", colour("sft.rl")),
        ):
            points = []
            for recipe, passes in depths:
                estimate = study.estimate(stem, recipe + ending, quantity)
                if estimate:
                    points.append((passes, estimate))
            if not points:
                continue
            drawn = True
            for passes, estimate in points:
                ax.scatter(
                    [passes] * len(estimate.of_seeds), estimate.of_seeds, s=12, alpha=0.4, color=hue
                )
            means = [estimate.mean for _, estimate in points]
            halves = [estimate.half_width() for _, estimate in points]
            places = [passes for passes, _ in points]
            ax.errorbar(places, means, yerr=halves, color=hue, capsize=3, label=label)
        ax.set_xscale("log")
        ax.set_xticks([passes for _, passes in depths], ["1", "4", "16", "61"])
        ax.set_xticks([], minor=True)
        ax.set(
            xlabel="SFT passes over the single solutions", ylabel=f"{quantity} (%)", ylim=(0, 102)
        )
    axes[0].legend()
    return fig if drawn else None


def draw_tail(study: Study, experiment: Experiment):
    """pass@k over k up to 256, of the base and after RL: where the curves cross."""
    stem = study.last
    ks = [2**i for i in range(9)]
    fig, ax = pyplot().subplots(figsize=(6.4, 4.4), layout="constrained")
    drawn = False
    for recipe, label in (("draw-1", "base"), ("rl.draw-1", "rl")):
        means = []
        for k in ks:
            estimate = study.estimate(stem, recipe, f"pass@{k}", study.task_of(stem, recipe))
            if estimate:
                means.append(estimate)
        if len(means) < len(ks):
            continue
        drawn = True
        halves = [estimate.half_width() for estimate in means]
        y = [estimate.mean for estimate in means]
        ax.errorbar(ks, y, yerr=halves, color=colour(label), capsize=3, label=label)
    ax.set_xscale("log", base=2)
    ax.set_xticks(ks, [str(k) for k in ks])
    ax.set(xlabel="samples k", ylabel="pass@k (%)", ylim=(0, 102))
    ax.legend()
    return fig if drawn else None


def draw_forgetting(study: Study, experiment: Experiment):
    """Change of the held-out loss against the distance from the base, a dot for each run.

    A line for each method joins the means of its rates.
    """
    stem = study.last
    fig, ax = pyplot().subplots(figsize=(6.4, 4.4), layout="constrained")
    means = {"sft": [], "rl": []}
    for recipe in experiment.recipes:
        name = f"{stem}.{recipe}"
        distance = distances(study, name)
        losses = study.values(stem, recipe, "heldout_loss")
        of_base = study.values(stem, "base", "heldout_loss")
        seeds = sorted(distance.keys() & losses.keys() & of_base.keys())
        if not seeds:
            continue
        x = [distance[seed] for seed in seeds]
        y = [losses[seed][""] - of_base[seed][""] for seed in seeds]
        method = "sft" if recipe.startswith("sft") else "rl"
        middle = (np.mean(x), np.mean(y))
        means[method].append(middle)
        ax.scatter(x, y, s=18, color=colour(method), alpha=0.6, linewidth=0)
        offset = (-6, 5) if method == "sft" else (6, -11)
        side = "right" if method == "sft" else "left"
        ax.annotate(recipe, middle, xytext=offset, textcoords="offset points", ha=side)
    for method, points in means.items():
        if points:
            ax.plot(*zip(*sorted(points)), color=colour(method), linewidth=1.2)
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set_xscale("log")
    ax.set(xlabel="KL from the base on prompts of the task (nats per response)")
    ax.set(ylabel="change of held-out loss (nats per token)")
    return fig if means["sft"] or means["rl"] else None


EDGE_TITLES = {"d0": "no problem of the edge", "d1": "1 % of the edge", "d10": "10 % of the edge"}


def draw_edge(study: Study, experiment: Experiment):
    """Verified pass@1 and pass@128 by band, of the base and of RL on each band.

    Dots and means alone: an interval from three seeds would be wider than the panel.
    """
    names = cells_there(study, experiment)
    stems = [name for name in names if name == study.cell(name)[0]]
    if not stems:
        return None
    recipes = ["base", *experiment.recipes]
    size = (3.6 * len(stems) + 1, 6)
    fig, axes = pyplot().subplots(2, len(stems), figsize=size, layout="constrained", squeeze=False)
    hues = dict(zip(recipes, ["#7f7f7f", *SHADES]))
    for column, stem in enumerate(stems):
        for row, k in enumerate((1, 128)):
            ax = axes[row, column]
            for place, recipe in enumerate(recipes):
                name = stem if recipe == "base" else f"{stem}.{recipe}"
                for x, band in enumerate(GROUPS):
                    estimate = cells.value(study, name, f"verified@{k}", band)
                    if estimate:
                        put_seeds(ax, x + (place - 2) * 0.16, estimate, hues[recipe])
            ax.set_xticks(range(len(GROUPS)), list(GROUPS))
            ax.set(ylabel=f"verified pass@{k} (%)", ylim=(-2, 102))
            ax.grid(axis="x", visible=False)
        axes[0, column].set_title(f"pre-training with {EDGE_TITLES.get(stem, stem)}")
        axes[1, column].set_xlabel("tested on problems that lie")
    labels = {recipe: recipe.replace("rl-", "RL on: ") for recipe in recipes}
    for recipe in recipes:
        axes[0, 0].plot([], [], color=hues[recipe], marker="o", ls="", label=labels[recipe])
    put_legend_below(fig, axes[0, 0])
    return fig


def put_seeds(ax, x: float, estimate: Estimate, hue: str) -> None:
    """The seeds as dots at x, and a dash at their mean."""
    xs = [x] * len(estimate.of_seeds)
    ax.scatter(xs, estimate.of_seeds, s=14, color=hue, alpha=0.6, linewidth=0, clip_on=False)
    ax.plot([x - 0.06, x + 0.06], [estimate.mean] * 2, color=hue, linewidth=1.8)
