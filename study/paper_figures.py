"""The experiments of study/paper_experiments.py as figures, the paper's values beside ours.

Each draw_ function takes the study and the experiment and returns a matplotlib figure, or None
where nothing of ours is there. A dot is a seed; a line goes through means, with 95 % intervals.
"""

import numpy as np

from plumbing.units import count
from study import cells
from study.drawing import LABELS, colour, pyplot, token_axis
from study.estimates import Estimate, direction
from study.experiment import Experiment
from study.paper import PASSES
from study.paper_hard import (
    AVERAGING,
    FIGURE5,
    FIGURE14,
    FIGURE18,
    GAINS,
    HARD,
    SFT_PASSES,
    SHOTS,
    points,
)
from study.recipes import NAMES
from study.rows import Study
from study.sections import cells_there, reference_of

HUES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7f7f7f", "#e69f00"]
Curve = list[tuple[float, Estimate]]  # x, and what was measured there


# ---------------------------------------------------------------------------------- parts


def new_figure(rows: int, columns: int):
    size = (3.5 * columns + 0.6, 3.0 * rows + 0.5)
    return pyplot().subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)


def put_curve(ax, curve: Curve, label: str, hue: str, style: str = "-") -> None:
    """A line through the means, and a dot for each seed."""
    xs = [x for x, _ in curve]
    for x, estimate in curve:
        seeds = estimate.of_seeds
        ax.scatter([x] * len(seeds), seeds, s=9, color=hue, alpha=0.45, linewidth=0)
    means = [estimate.mean for _, estimate in curve]
    halves = [np.nan_to_num(estimate.half_width()) for _, estimate in curve]
    ax.errorbar(xs, means, yerr=halves, color=hue, capsize=3, label=label, linestyle=style)


def put_papers(ax, xs: list[float], ys: list[float], label: str, hue: str) -> None:
    ax.plot(xs, ys, color=hue, marker="o", markersize=4, label=label)


def same_height(axes) -> None:
    """These panels get the same y axis."""
    low = min(ax.get_ylim()[0] for ax in axes)
    high = max(ax.get_ylim()[1] for ax in axes)
    for ax in axes:
        ax.set_ylim(low, high)


def curve_over(study: Study, places: list[tuple[float, str]], quantity: str) -> Curve:
    """(x, cell) -> (x, estimate), where there is one."""
    curve = []
    for x, cell in places:
        estimate = cells.value(study, cell, quantity)
        if estimate:
            curve.append((x, estimate))
    return curve


def columns_of_table(table: dict, column: str, quantity: str) -> tuple[list[str], list[float]]:
    """The rows of one of the paper's tables that have this quantity, and its values."""
    names = []
    values = []
    for name, of_name in table[column].items():
        if quantity in of_name:
            names.append(name)
            values.append(of_name[quantity])
    return names, values


def run_of(stem: str) -> str:
    """The pre-training that a checkpoint is from: "targeted-5.4M" -> "targeted", "3.6M" -> ""."""
    return stem.rpartition("-")[0]


# ---------------------------------------------------------------------------------- figure 4

CONFIGURATIONS = {"": "toy", "targeted": "with targeted data", "large": "four times the weights"}
PAPERS = {"1B-50B": "1B", "1B-60B": "1B, 10B targeted tokens more", "4B-50B": "4B"}


def draw_configurations(study: Study, experiment: Experiment):
    """What direct RL adds to its base on the hard family, in three ways to pre-train."""
    fig, axes = new_figure(2, 3)
    drawn = False
    for column, quantity in enumerate(PASSES):
        ours, papers = axes[:, column]
        for (run, label), hue in zip(CONFIGURATIONS.items(), HUES):
            curve = []
            for stem in study.stems:
                gain = cells.difference(study, f"{stem}.hard-rl", stem, quantity)
                if run_of(stem) == run and gain:
                    curve.append((study.tokens[stem], gain))
            drawn = drawn or bool(curve)
            put_curve(ours, curve, label, hue)
        for (name, label), hue in zip(PAPERS.items(), HUES):
            stems, values = columns_of_table(GAINS, name, quantity)
            put_papers(papers, [count(stem) for stem in stems], values, label, hue)
        ours.set_title(f"ours, {study.task}")
        papers.set_title("paper, MATH")
        for ax in (ours, papers):
            ax.axhline(0, color="black", linewidth=0.8)
            ax.set(xscale="log", xlabel="pre-training (tokens)", ylabel=f"RL - base, {quantity}")
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
            ax.scatter(
                x, y, s=16, color=hue, label=f"{task}: rank correlation {spearman(x, y):.2f}"
            )
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
            label += f": rank correlation over seeds {spearman(x, y):.2f}"
        ax.scatter(x, y, s=16, color=hue, alpha=0.7, linewidth=0, label=label)
    every = sum(pairs.values(), [])
    if len(every) > 3:
        ax.set_title(f"ours: rank correlation {spearman(*zip(*every)):.2f}")
        ax.legend(fontsize=7)


def spearman(x, y) -> float:
    """Spearman's rank correlation; equal values share the mean of their ranks."""
    return float(np.corrcoef(ranks(x), ranks(y))[0, 1])


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
    name = {"targeted": "figure11", "large": ""}.get(run_of(stems[0]), "figure10")
    papers = HARD.get(name, {})  # the paper's values of figure 12 are not public
    fig, axes = new_figure(2 if papers else 1, 3)
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
        token_axis(ax, {stem: study.tokens[stem] for stem in stems})
        ax.set(ylabel=f"{quantity} (%)", title=f"ours, {study.task}")
        if papers:
            below = axes[1, column]
            for recipe in papers:
                names, values = columns_of_table(papers, recipe, quantity)
                tokens = [count(name) for name in names]
                put_papers(below, tokens, values, NAMES[recipe], colour(recipe))
            below.set(xscale="log", ylabel=f"{quantity} (%)", title="paper, MATH")
            same_height((ax, below))
    axes[0, 0].legend(fontsize=8)
    return fig


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
            if base:
                axes[row, column].axhline(base.mean, color="#7f7f7f", label="base")
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
    axes[0, 0].legend(fontsize=8)
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
        axes[0, column].set(ylabel=f"{quantity} (%)", xscale="log", title=f"ours, {study.task}")
        axes[1, column].set(ylabel=f"{quantity} (%)", xscale="log", title="paper, GSM8K")
        axes[1, column].set_xlabel("pre-training (tokens)")
    if not drawn:
        pyplot().close(fig)
        return None
    axes[0, 0].legend(title="examples", fontsize=8)
    return fig


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


def config_of(study: Study, stem: str, recipe: str) -> dict:
    """The flags that a cell was made with, as its first row has them."""
    rows = study.rows.get((study.task, stem, recipe), {})
    return next(iter(rows.values())).get("facts", {}).get("config", {}) if rows else {}


def rate_of(study: Study, stem: str, recipe: str) -> str:
    rate = config_of(study, stem, recipe).get("sft_lr")
    return f"{rate:g}" if rate else recipe


# ---------------------------------------------------------------------------------- figure 18


def draw_rollouts(study: Study, experiment: Experiment):
    """Few or many rollouts a problem on easy and hard ones, against samples."""
    stem = study.last
    fig, axes = new_figure(2, 2)
    drawn = False
    styles = {"easy": "-", "hard": "--"}
    for column, quantity in enumerate(("pass@1", "pass@8")):
        for recipe, hue in zip(experiment.recipes, HUES):
            kind, _, n = recipe.partition("-n")
            config = config_of(study, stem, recipe)
            per_step = config.get("prompts", 0) * config.get("n", 0)
            places = []
            for step, cell in on_the_way(study, stem, recipe):
                places.append((step * per_step, cell))
            curve = curve_over(study, places, quantity)
            drawn = drawn or bool(curve)
            put_curve(axes[0, column], curve, f"{kind}, {n} rollouts", hue, styles[kind])
            xs, ys = zip(*points(FIGURE18[quantity][recipe]))
            seen = [x * int(n) for x in xs]
            put_papers(axes[1, column], seen, ys, f"{kind}, {n} rollouts", hue)
        axes[0, column].set(ylabel=f"{quantity} (%)", xscale="log", title=f"ours, {study.task}")
        axes[1, column].set(ylabel=f"{quantity} (%)", xscale="log", title="paper, GSM8K")
        for ax in axes[:, column]:
            ax.set_xlabel("samples drawn")
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
