"""The paper's figures over RL steps, samples and seeds of RL, and what differs from what.

Each draw_ function takes the study and the experiment and returns a matplotlib figure, or None
where nothing of ours is there. A dot is a seed; a line goes through means, with 95 % intervals.
"""

import numpy as np

from study import cells
from study.curves import (
    HUES,
    columns_of_table,
    curve_over,
    new_figure,
    put_curve,
    put_papers,
    same_height,
)
from study.drawing import pyplot
from study.estimates import direction
from study.experiment import Experiment
from study.flops import config_of, flops_of_a_step, rollouts_of_a_step
from study.paper import PASSES
from study.paper_hard import AVERAGING, FIGURE14, FIGURE18, points
from study.recipes import NAMES
from study.rows import Study
from study.sections import cells_there, reference_of

# ---------------------------------------------------------------------------------- figure 14


def draw_brittleness(study: Study, experiment: Experiment):
    """Seeds of RL from the same weights: training, validation and test."""
    stems = []
    for stem in study.stems:
        if any(study.logs(stem, recipe) for recipe in experiment.recipes):
            stems.append(stem)
    if not stems:
        return None
    fig, axes = new_figure(len(stems), 4)
    for row, stem in enumerate(stems):
        for number, recipe in enumerate(experiment.recipes):
            hue = HUES[number % len(HUES)]
            for log in study.logs(stem, recipe):
                steps = [line["step"] for line in log]
                axes[row, 0].plot(steps, [line["accuracy"] for line in log], color=hue, linewidth=1)
                tested = [line for line in log if "val_accuracy" in line]
                values = [line["val_accuracy"] for line in tested]
                steps = [line["step"] for line in tested]
                axes[row, 1].plot(steps, values, color=hue, marker="o", markersize=3)
            for column, quantity in ((2, "pass@1"), (3, "pass@32")):
                curve = curve_over(study, [(number, f"{stem}.{recipe}")], quantity)
                put_curve(axes[row, column], curve, recipe, hue)
        axes[row, 0].set(xlabel="RL step", ylabel="right in training (share)", title=f"from {stem}")
        axes[row, 1].set(xlabel="RL step", ylabel="right in validation (share)")
        for column, quantity in ((2, "pass@1"), (3, "pass@32")):
            base = cells.value(study, stem, quantity)
            if base:  # all seeds of RL begin from the base of seed 0
                axes[row, column].axhline(base.of_seeds[0], color="#7f7f7f", label="base")
            theirs = papers_ends(quantity)
            axes[row, column].set(xlabel="seed of RL", ylabel=f"{quantity} (%), test", title=theirs)
    for column in range(4):
        same_height(axes[:, column])
    return fig


def papers_ends(quantity: str) -> str:
    ends = []
    for kind in ("favourable", "unfavourable"):
        ends.append(f"{points(FIGURE14[f'{kind} seed, {quantity}'])[-1][1]:g}")
    return f"the paper, from 4B: {' and '.join(ends)}"


# ---------------------------------------------------------------------------------- figure 17


def draw_trajectories(study: Study, experiment: Experiment):
    """pass@k of parallel averaging over its steps, for three rates of its SFT half."""
    stem = study.last
    fig, axes = new_figure(2, 3)
    drawn = False
    theirs = dict(zip(experiment.recipes, AVERAGING))
    for column, quantity in enumerate(PASSES):
        for recipe, hue in zip(experiment.recipes, HUES):
            curve = curve_over(study, on_the_way(study, stem, recipe), quantity)
            drawn = drawn or bool(curve)
            rate = rate_of(study, stem, recipe)
            put_curve(axes[0, column], curve, f"SFT rate {rate}", hue)
            steps, values = columns_of_table(AVERAGING, theirs[recipe], quantity)
            steps = [int(step) for step in steps]
            put_papers(axes[1, column], steps, values, f"SFT rate {theirs[recipe]}", hue)
        for recipe, hue in (("base", "#7f7f7f"), ("rl", "black"), ("sft.rl", "#d62728")):
            cell = stem if recipe == "base" else f"{stem}.{recipe}"
            level = cells.value(study, cell, quantity)
            if level:
                axes[0, column].axhline(level.mean, color=hue, linestyle=":", label=NAMES[recipe])
        axes[0, column].set(xlabel="step", ylabel=f"{quantity} (%)", title=f"ours, {study.task}")
        axes[1, column].set(xlabel="step", ylabel=f"{quantity} (%)", title="paper, GSM8K, from 20B")
    if not drawn:
        pyplot().close(fig)
        return None
    axes[0, 0].legend(fontsize=8)
    axes[1, 0].legend(fontsize=8)
    return fig


def on_the_way(study: Study, stem: str, recipe: str) -> list[tuple[float, str]]:
    """(step, cell) of a recipe's copies and of its end, in order."""
    found = []
    for name in study.recipes(study.task, stem):
        if name == recipe:
            found.append((config_of(study, stem, name).get("steps", 0), f"{stem}.{name}"))
        elif name.startswith(recipe + ".step"):
            found.append((int(name.removeprefix(recipe + ".step")), f"{stem}.{name}"))
    return sorted(found)


def rate_of(study: Study, stem: str, recipe: str) -> str:
    rate = config_of(study, stem, recipe).get("sft_lr")
    return f"{rate:g}" if rate else recipe


# ---------------------------------------------------------------------------------- figure 18


def draw_rollouts(study: Study, experiment: Experiment):
    """Few or many rollouts a problem on easy and hard ones, against samples and against FLOPs."""
    stem = study.last
    fig, axes = new_figure(3, 2)
    drawn = False
    styles = {"easy": "-", "hard": "--"}
    for column, quantity in enumerate(("pass@1", "pass@8")):
        ours, by_flops, papers = axes[:, column]
        for recipe, hue in zip(experiment.recipes, HUES):
            kind, _, n = recipe.partition("-n")
            label = f"{kind}, {n} rollouts"
            logs = study.logs(stem, recipe)
            config = config_of(study, stem, recipe)
            samples = rollouts_of_a_step(config, logs) if config and logs else 0
            flops = flops_of_a_step(study, stem, recipe)
            for ax, unit in ((ours, samples), (by_flops, flops)):
                places = [(step * unit, cell) for step, cell in on_the_way(study, stem, recipe)]
                curve = curve_over(study, places, quantity) if unit else []
                drawn = drawn or bool(curve)
                put_curve(ax, curve, label, hue, styles[kind])
            xs, ys = zip(*points(FIGURE18[quantity][recipe]))
            put_papers(papers, [x * int(n) for x in xs], ys, label, hue)
        for ax, axis, title in (
            (ours, "samples drawn", f"ours, {study.task}"),
            (by_flops, "FLOPs of sampling and updates", f"ours, {study.task}"),
            (papers, "samples drawn", "paper, GSM8K"),
        ):
            ax.set(xlabel=axis, ylabel=f"{quantity} (%)", xscale="log", title=title)
        same_height((ours, by_flops))
    if not drawn:
        pyplot().close(fig)
        return None
    axes[0, 0].legend(fontsize=8)
    return fig


# ---------------------------------------------------------------------------------- differences


def draw_differences(study: Study, experiment: Experiment):
    """Each cell against what it is compared with: the mean difference, its interval, the seeds."""
    rows = []
    for name in cells_there(study, experiment):
        other = reference_of(study, experiment, name)
        found = []
        for quantity in ("pass@1", f"pass@{study.ks(study.task)[-1]}"):
            found.append(cells.difference(study, name, other, quantity) if other else None)
        if all(found):
            rows.append((name, other, found))
    if not rows:
        return None
    size = (11.0, 0.32 * len(rows) + 1.4)
    fig, axes = pyplot().subplots(1, 2, figsize=size, layout="constrained", sharey=True)
    for ax, column in zip(axes, (0, 1)):
        for y, (*_, found) in enumerate(rows):
            estimate = found[column]
            hue = {"higher": HUES[2], "lower": HUES[1]}.get(direction(estimate), "#7f7f7f")
            seeds = estimate.of_seeds
            ax.scatter(seeds, [y] * len(seeds), s=10, color=hue, alpha=0.5, linewidth=0)
            half = np.nan_to_num(estimate.half_width())
            ax.errorbar(estimate.mean, y, xerr=half, fmt="|", color=hue, capsize=3)
        ax.axvline(0, color="black", linewidth=0.8)
        ax.grid(axis="y", visible=False)
    axes[0].set_yticks(range(len(rows)), [f"{name} - {other}" for name, other, _ in rows])
    axes[0].invert_yaxis()
    axes[0].set_xlabel("change in pass@1 (points)")
    axes[1].set_xlabel(f"change in pass@{study.ks(study.task)[-1]} (points)")
    return fig
