"""The paper's figures over pre-training, SFT passes and worked examples, theirs beside ours.

Each draw_ function takes the study and the experiment and returns a matplotlib figure, or None
where nothing of ours is there. A dot is a seed; a line goes through means, with 95 % intervals.
"""

import math

import numpy as np

from plumbing.units import count
from study import cells
from study.curves import (
    HUES,
    columns_of_table,
    curve_over,
    new_figure,
    our_token_axis,
    papers_token_axis,
    put_curve,
    put_legend_below,
    put_papers,
    run_of,
    same_height,
)
from study.drawing import LABELS, colour, pyplot
from study.experiment import Experiment
from study.paper import PASSES
from study.paper_hard import FIGURE5, GAINS, HARD, SFT_PASSES, SHOTS, points
from study.recipes import NAMES
from study.rows import Study
from study.sections import cells_there

# ---------------------------------------------------------------------------------- figure 4

CONFIGURATIONS = {"": "toy", "targeted": "with targeted data", "large": "four times the weights"}
PAPERS = {"1B-50B": "1B", "1B-60B": "1B, 10B targeted tokens more", "4B-50B": "4B"}


def draw_configurations(study: Study, experiment: Experiment):
    """What direct RL adds to its base on the hard family, in three ways to pre-train."""
    fig, axes = new_figure(2, 3)
    drawn = False
    for column, quantity in enumerate(PASSES):
        ours, papers = axes[:, column]
        there = []
        for (run, label), hue in zip(CONFIGURATIONS.items(), HUES):
            curve = []
            for stem in study.stems:
                gain = cells.difference(study, f"{stem}.hard-rl", stem, quantity)
                if run_of(stem) == run and gain:
                    curve.append((study.tokens[stem], gain))
                    there.append(stem)
            drawn = drawn or bool(curve)
            put_curve(ours, curve, label, hue)
        for (name, label), hue in zip(PAPERS.items(), HUES):
            stems, values = columns_of_table(GAINS, name, quantity)
            put_papers(papers, [count(stem) for stem in stems], values, label, hue)
        ours.set_title(f"ours, {study.task}")
        papers.set_title("paper, MATH")
        for ax in (ours, papers):
            ax.axhline(0, color="black", linewidth=0.8)
            ax.set_ylabel(f"RL - base, {quantity}")
        our_token_axis(ours, study, there)
        papers_token_axis(papers, GAINS)
        same_height((ours, papers))
    if not drawn:
        pyplot().close(fig)
        return None
    axes[0, 0].legend(fontsize=8)
    axes[1, 0].legend(fontsize=8)
    return fig


# ---------------------------------------------------------------------------------- figure 5


def draw_base_against_rl(study: Study, experiment: Experiment):
    """Does the base tell what RL will make of it? A dot is a seed at a checkpoint."""
    fig, axes = new_figure(2, 3)
    drawn = False
    wide = f"pass@{study.ks(study.task)[-1]}"
    for column, quantity in enumerate(("pass@1", wide)):
        pairs = before_and_after(study, quantity, quantity)
        drawn = drawn or bool(pairs)
        put_pairs(study, axes[0, column], pairs)
        axes[0, column].set(xlabel=f"base, {quantity} (%)", ylabel=f"after RL, {quantity} (%)")
    pairs = before_and_after(study, "heldout_loss", "pass@1")
    put_pairs(study, axes[0, 2], pairs)
    axes[0, 2].set(xlabel=f"base, {LABELS['heldout_loss']}", ylabel="after RL, pass@1 (%)")
    for ax, quantity in zip(axes[1], ("pass@1", "pass@32")):
        for task, hue in (("GSM8K", HUES[0]), ("MATH", HUES[1])):
            x, y = zip(*points(FIGURE5[f"{task}, {quantity}"]))
            ax.scatter(x, y, s=16, color=hue, label=f"{task}: {rank_correlation(x, y)}")
        ax.set(xlabel=f"base, {quantity} (%)", ylabel=f"after RL, {quantity} (%)", title="paper")
        ax.legend(fontsize=8)
    axes[1, 2].set_visible(False)
    if not drawn:
        pyplot().close(fig)
        return None
    return fig


def before_and_after(study: Study, before: str, after: str) -> dict[str, list]:
    """stem -> (quantity of the base, quantity after direct RL) of each seed that has both."""
    pairs = {}
    for stem in study.stems:
        x = study.values(stem, "base", before)
        y = study.values(stem, "rl", after)
        for seed in sorted(x.keys() & y.keys()):
            pair = (float(np.mean(list(x[seed].values()))), float(np.mean(list(y[seed].values()))))
            pairs.setdefault(stem, []).append(pair)
    return pairs


def put_pairs(study: Study, ax, pairs: dict[str, list]) -> None:
    for (stem, of_stem), hue in zip(pairs.items(), HUES):
        x, y = zip(*of_stem)
        label = stem
        if len(of_stem) > 3:
            label += f": {rank_correlation(x, y)} over seeds"
        ax.scatter(x, y, s=16, color=hue, alpha=0.7, linewidth=0, label=label)
    every = sum(pairs.values(), [])
    if len(every) > 3:
        ax.set_title(f"ours: {rank_correlation(*zip(*every))}")
        ax.legend(fontsize=7)


def spearman(x, y) -> float:
    """Spearman's rank correlation; equal values share the mean of their ranks.

    NaN where all x, or all y, are the same.
    """
    if len(set(x)) < 2 or len(set(y)) < 2:
        return math.nan
    return float(np.corrcoef(ranks(x), ranks(y))[0, 1])


def rank_correlation(x, y) -> str:
    value = spearman(x, y)
    if math.isnan(value):
        return "no rank correlation, all are the same"
    return f"rank correlation {value:.2f}"


def ranks(values) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    below = (values[:, None] > values).sum(1)
    equal = (values[:, None] == values).sum(1)
    return below + (equal - 1) / 2


# ---------------------------------------------------------------------------------- 10, 11, 12


def draw_hard(study: Study, experiment: Experiment):
    """All recipes on the hard family, over pre-training."""
    stems = []
    for name in cells_there(study, experiment):
        stem = study.cell(name)[0]
        if stem not in stems:
            stems.append(stem)
    if not stems:
        return None
    name = {"targeted": "figure11", "large": "figure12"}.get(run_of(stems[0]), "figure10")
    papers = HARD.get(name, {})  # of figure 12 they are not public
    fig, axes = new_figure(2, 3)
    for column, quantity in enumerate(PASSES):
        ax = axes[0, column]
        for recipe in ["base", *experiment.recipes]:
            plain = recipe.removeprefix("hard-")
            places = []
            for stem in stems:
                cell = stem if recipe == "base" else f"{stem}.{recipe}"
                places.append((study.tokens[stem], cell))
            curve = curve_over(study, places, quantity)
            put_curve(ax, curve, NAMES.get(plain, plain), colour(plain))
        our_token_axis(ax, study, stems)
        ax.set(ylabel=f"{quantity} (%)", title=f"ours, {study.task}")
        if papers:
            below = axes[1, column]
            for recipe in papers:
                names, values = columns_of_table(papers, recipe, quantity)
                tokens = [count(name) for name in names]
                put_papers(below, tokens, values, NAMES[recipe], colour(recipe))
            below.set(ylabel=f"{quantity} (%)", title="paper, MATH")
            papers_token_axis(below, papers)
            same_height((ax, below))
        else:
            put_gain_of_4b(axes[1, column], study, stems[-1], quantity)
    put_legend_below(fig, axes[0, 0])
    return fig


def put_gain_of_4b(ax, study: Study, stem: str, quantity: str) -> None:
    """What direct RL adds: ours, beside the only value of the paper's 4B model that is public."""
    gain = cells.difference(study, f"{stem}.hard-rl", stem, quantity)
    if gain:
        put_curve(ax, [(0, gain)], "", colour("rl"), "o")
    ((tokens, theirs),) = zip(*columns_of_table(GAINS, "4B-50B", quantity))
    ax.plot(1, theirs, "o", color="black")
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set(xlim=(-0.5, 1.5), ylabel=f"direct RL - base, {quantity}")
    ax.set_xticks([0, 1], [f"ours, {stem}", f"paper, MATH, 4B at {tokens}"])


# ---------------------------------------------------------------------------------- figure 15


def draw_sft_passes(study: Study, experiment: Experiment):
    """SFT of one to 61 passes: pass@k, and general skills."""
    depths = {"sft-1": 1, "sft-4": 4, "sft": 16, "sft-61": 61}
    stem = study.last
    fig, axes = new_figure(1, 4)
    drawn = False
    for ax, quantity in zip(axes[0], (*PASSES, "general")):
        places = [(passes, f"{stem}.{recipe}") for recipe, passes in depths.items()]
        curve = curve_over(study, places, quantity)
        drawn = drawn or bool(curve)
        put_curve(ax, curve, f"ours, {stem}", colour("sft"))
        base = cells.value(study, stem, quantity)
        if base:
            ax.axhline(base.mean, color="#7f7f7f", label="ours, base")
        if quantity in PASSES:
            theirs = [SFT_PASSES[passes]["44B"][quantity] for passes in ("5", "10")]
            put_papers(ax, [5, 10], theirs, "paper, GSM8K, 44B", "black")
        ax.set_xscale("log")
        ax.set_xticks([1, 4, 16, 61], ["1", "4", "16", "61"])
        ax.set_xticks([], minor=True)
        ax.set(xlabel="SFT passes", ylabel=LABELS.get(quantity, f"{quantity} (%)"))
    put_legend_below(fig, axes[0, 0])
    if not drawn:
        pyplot().close(fig)
        return None
    return fig


# ---------------------------------------------------------------------------------- figure 16


def draw_shots(study: Study, experiment: Experiment):
    """Base checkpoints with so many worked examples in the prompt."""
    stems = [stem for stem in study.all_stems if stem in experiment.pretrain]
    fig, axes = new_figure(2, 3)
    drawn = False
    for column, quantity in enumerate(PASSES):
        for recipe, hue in zip(experiment.recipes, HUES):
            places = [(study.tokens[stem], f"{stem}.{recipe}") for stem in stems]
            curve = curve_over(study, places, quantity)
            drawn = drawn or bool(curve)
            put_curve(axes[0, column], curve, recipe.removeprefix("shots-"), hue)
            shots = recipe.removeprefix("shots-")
            if shots in SHOTS:
                names, values = columns_of_table(SHOTS, shots, quantity)
                tokens = [count(name) for name in names]
                put_papers(axes[1, column], tokens, values, shots, hue)
        axes[0, column].set(ylabel=f"{quantity} (%)", title=f"ours, {study.task}")
        axes[1, column].set(ylabel=f"{quantity} (%)", title="paper, GSM8K")
        our_token_axis(axes[0, column], study, stems)
        papers_token_axis(axes[1, column], SHOTS)
    if not drawn:
        pyplot().close(fig)
        return None
    put_legend_below(fig, axes[0, 0], "examples")
    return fig
