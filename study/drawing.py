"""How the figures are drawn: ours from the rows, the paper's beside.

Each draw_ function takes the study, the figure's name and its recipes, and returns a matplotlib
figure, or None where nothing of ours is there. figures.py says which figure is drawn by which.
"""

import math

import numpy as np

from plumbing.units import count
from study.estimates import Estimate
from study.paper import PAPER, PAPER_PATHS, PAPER_REWARD, PASSES
from study.recipes import NAMES, RECIPES, WRITTEN
from study.rows import GENERAL, Study, problems_by_band, problems_by_level

STYLES = {  # recipe: (colour, marker)
    "base": ("#7f7f7f", "o"),
    "sft": ("#e69f00", "s"),
    "sft-gold": ("#8c564b", "^"),
    "rl": ("#0072b2", "D"),
    "sft.rl": ("#d62728", "v"),
    "sft-gold.rl": ("#9467bd", "P"),
    "parallel": ("#009e73", "*"),
    WRITTEN: ("#e377c2", "X"),
}
LABELS = {
    "general": "general skills, mean (%)",
    "heldout_loss": "held-out loss (nats per token)",
    # of an RL log
    "accuracy": "training accuracy (share)",
    "format": "with a boxed answer (share)",
    "mixed": "groups with a signal (share)",
    "length": "response length (tokens)",
    "surprise": "entropy (nats per token)",
}


def pyplot():
    """matplotlib takes a second to import, so it is not imported with this file."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "font.size": 10,
            "axes.titlesize": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.alpha": 0.3,
            "figure.dpi": 110,
        }
    )
    return plt


def colour(recipe: str) -> str:
    """Recipes of the core have colours of their own; variants have that of what they vary."""
    known = recipe
    while known not in STYLES and "-" in known:
        known = known.rpartition("-")[0]
    return STYLES.get(known, ("#0072b2", "o"))[0]


def look(recipe: str) -> dict:
    """How a curve of this recipe looks."""
    hue, marker = STYLES[recipe]
    return dict(color=hue, marker=marker, markersize=6, linewidth=1.5)


def add_legend(fig, recipes: list[str]) -> None:
    """Above all panels, where it covers no data."""
    handles = []
    for recipe in RECIPES:
        if recipe in recipes:
            handles.append(pyplot().Line2D([], [], label=NAMES[recipe], **look(recipe)))
    columns = min(5, len(handles))
    fig.legend(handles=handles, loc="outside upper center", ncols=columns, frameon=False)


def token_axis(ax, tokens_of_stems: dict[str, float]) -> None:
    """A log axis with the checkpoints as ticks; labels that would touch are left out."""
    labels = []
    last = 0.0
    for stem, tokens in tokens_of_stems.items():
        if tokens > 1.45 * last:
            labels.append(stem)
            last = tokens
        else:
            labels.append("")
    ax.set_xscale("log")
    ax.set_xticks(list(tokens_of_stems.values()), labels)
    ax.set_xticks([], minor=True)
    ax.set_xlabel("pre-training (tokens)")


def error_bar(estimate: Estimate) -> list[list[float]]:
    """Lengths of the bar below and above the mean, as matplotlib takes them."""
    if math.isnan(estimate.low):
        return [[0], [0]]
    below = max(0, estimate.mean - estimate.low)
    above = max(0, estimate.high - estimate.mean)
    return [[below], [above]]


# ---------------------------------------------------------------------------------- over tokens


def draw_passes(study: Study, figure: str, recipes: list[str]):
    """pass@1, 8 and 32 over pre-training: ours above, the paper's below."""
    return curves_over_tokens(study, figure, recipes, ours_above_paper(*PASSES))


def draw_passes_and_general(study: Study, figure: str, recipes: list[str]):
    return curves_over_tokens(study, figure, recipes, ours_above_paper(*PASSES, "general"))


def draw_general(study: Study, figure: str, recipes: list[str]):
    """General skills, ours and the paper's, and our held-out loss."""
    panels = [[("ours", "general"), ("ours", "heldout_loss"), ("paper", "general")]]
    return curves_over_tokens(study, figure, recipes, panels)


def ours_above_paper(*quantities: str) -> list[list[tuple[str, str]]]:
    ours = [("ours", quantity) for quantity in quantities]
    paper = [("paper", quantity) for quantity in quantities]
    return [ours, paper]


def curves_over_tokens(
    study: Study, figure: str, recipes: list[str], panels: list[list[tuple[str, str]]]
):
    """Rows of panels (ours or paper, quantity), with a curve for each recipe."""
    if not anything_there(study, recipes, panels[0]):
        return None
    rows = len(panels)
    columns = len(panels[0])
    size = (3.3 * columns + 0.6, 2.9 * rows + 0.5)
    fig, axes = pyplot().subplots(rows, columns, figsize=size, layout="constrained")
    for ax, (source, quantity) in zip(axes.flat, sum(panels, [])):
        if source == "ours":
            draw_our_curves(ax, study, recipes, quantity)
        else:
            draw_papers_curves(ax, figure, recipes, quantity)
        ax.set_ylabel(LABELS.get(quantity, f"{quantity} (%)"))
        if quantity not in GENERAL:
            ax.set_ylim(bottom=0)
    share_heights(axes, panels)
    add_legend(fig, recipes)
    return fig


def share_heights(axes, panels: list[list[tuple[str, str]]]) -> None:
    """Panels of the same quantity, ours and the paper's, get the same y axis."""
    of_quantity = {}
    for ax, (_, quantity) in zip(axes.flat, sum(panels, [])):
        of_quantity.setdefault(quantity, []).append(ax)
    for same in of_quantity.values():
        low = min(ax.get_ylim()[0] for ax in same)
        high = max(ax.get_ylim()[1] for ax in same)
        for ax in same:
            ax.set_ylim(low, high)


def anything_there(study: Study, recipes: list[str], panels: list[tuple[str, str]]) -> bool:
    for source, quantity in panels:
        for recipe in recipes:
            if source == "ours" and our_points(study, recipe, quantity):
                return True
    return False


def our_points(study: Study, recipe: str, quantity: str) -> list[tuple[int, Estimate]]:
    """(tokens, value) at each checkpoint that has one."""
    points = []
    for stem in study.stems:
        estimate = study.estimate(stem, recipe, quantity)
        if estimate:
            points.append((study.tokens[stem], estimate))
    return points


def draw_our_curves(ax, study: Study, recipes: list[str], quantity: str) -> None:
    for recipe in recipes:
        points = our_points(study, recipe, quantity)
        means = [estimate.mean for _, estimate in points]
        ax.plot([tokens for tokens, _ in points], means, **look(recipe))
        for tokens, estimate in points:
            seeds = estimate.of_seeds
            ax.scatter([tokens] * len(seeds), seeds, s=9, color=colour(recipe), alpha=0.4)
            bar = error_bar(estimate)
            ax.errorbar(
                tokens, estimate.mean, yerr=bar, color=colour(recipe), capsize=3, linewidth=1
            )
    token_axis(ax, {stem: study.tokens[stem] for stem in study.stems})
    ax.set_title(f"ours, {'general' if quantity in GENERAL else study.task}")


def draw_papers_curves(ax, figure: str, recipes: list[str], quantity: str) -> None:
    curves = PAPER[figure]
    for recipe in recipes:
        tokens = []
        values = []
        for stem, of_stem in curves.get(recipe, {}).items():
            if quantity in of_stem:
                tokens.append(count(stem))
                values.append(of_stem[quantity])
        ax.plot(tokens, values, **look(recipe))
    token_axis(ax, {stem: count(stem) for stem in curves["base"]})
    ax.set_title(f"paper, {'general' if quantity in GENERAL else 'GSM8K'}, 1B")


# ---------------------------------------------------------------------------------- paths


def draw_paths(study: Study, figure: str, recipes: list[str]):
    """pass@1 against pass@k from stage to stage at the last checkpoint, ours and the paper's."""
    stem = study.last
    wide = study.ks(study.task)[-1]
    ours = {}  # recipe -> (pass@1, pass@k)
    for recipe in recipes:
        narrow_pass = study.estimate(stem, recipe, "pass@1")
        wide_pass = study.estimate(stem, recipe, f"pass@{wide}")
        if narrow_pass and wide_pass:
            ours[recipe] = (narrow_pass, wide_pass)
    if not ours:
        return None
    our_paths = []
    for stages in (["base", "sft", "sft.rl"], ["base", "rl"]):
        path = []
        for recipe in stages:
            if recipe in ours:
                narrow_pass, wide_pass = ours[recipe]
                path.append((recipe, narrow_pass.mean, wide_pass.mean))
        our_paths.append(path)
    fig, axes = pyplot().subplots(1, 2, figsize=(9.6, 4.6), layout="constrained")
    draw_arrows(axes[0], our_paths, wide, f"ours, {study.task}, {stem} tokens")
    draw_arrows(axes[1], PAPER_PATHS, 32, "paper, GSM8K, 1B, 14B tokens")
    for recipe, (x, y) in ours.items():
        bars = dict(xerr=error_bar(x), yerr=error_bar(y))
        axes[0].errorbar(x.mean, y.mean, **bars, color=colour(recipe), capsize=3, linewidth=1)
    add_legend(fig, recipes)
    return fig


def draw_arrows(ax, paths: list[list[tuple[str, float, float]]], wide: int, title: str) -> None:
    """Each path is a list of (recipe, pass@1, pass@k), one stage after the other."""
    for path in paths:
        for (_, *start), (recipe, *end) in zip(path, path[1:]):
            arrow = dict(color=colour(recipe), linewidth=1.5, shrinkA=4, shrinkB=4)
            ax.annotate("", end, start, arrowprops=dict(arrowstyle="-|>", **arrow))
        for recipe, x, y in path:
            ax.plot(x, y, **look(recipe))
    ax.set(xlabel="pass@1 (%)", ylabel=f"pass@{wide} (%)", title=title)
    ax.margins(0.12)


# ---------------------------------------------------------------------------------- RL steps


def draw_dynamics(study: Study, figure: str, recipes: list[str]):
    """RL over its steps: five quantities of ours, and the paper's validation reward."""
    runs = []  # (stem, recipe, the logs of its seeds)
    for recipe in recipes:
        for stem in study.stems:
            logs = study.logs(stem, recipe)
            if logs:
                runs.append((stem, recipe, logs))
    if not runs:
        return None
    fig, axes = pyplot().subplots(2, 3, figsize=(11.5, 6.2), layout="constrained")
    quantities = ("accuracy", "format", "mixed", "length", "surprise")
    for ax, quantity in zip(axes.flat, quantities):
        for stem, recipe, logs in runs:
            draw_run(ax, study, stem, recipe, logs, quantity)
        ax.set(xlabel="RL step", ylabel=LABELS[quantity], title=f"ours, {study.task}")
        ax.set_ylim(0, 1.05 * ax.get_ylim()[1])
    draw_papers_reward(axes[1, 2])
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=5, frameon=False)
    return fig


def draw_run(
    ax, study: Study, stem: str, recipe: str, logs: list[list[dict]], quantity: str
) -> None:
    """The mean over seeds as a thick line, and where there are several, each seed as a thin one."""
    steps = set.intersection(*[{row["step"] for row in log} for log in logs])
    curves = []  # one of each seed, over the steps that all seeds have
    for log in logs:
        curves.append([row[quantity] for row in log if row["step"] in steps])
    if recipe == "rl":
        opacity = depth(study.stems.index(stem), len(study.stems))
        linestyle = "-"
    else:
        opacity = 1
        linestyle = "--"
    mean = np.mean(curves, axis=0)
    style = dict(color=colour(recipe), alpha=opacity, linestyle=linestyle, linewidth=1.8)
    ax.plot(sorted(steps), mean, label=f"{recipe}, {stem}", **style)
    if len(curves) > 1:
        for curve in curves:
            ax.plot(sorted(steps), curve, color=colour(recipe), alpha=0.25, linewidth=0.7)


def draw_papers_reward(ax) -> None:
    for place, (stem, curve) in enumerate(PAPER_REWARD.items()):
        steps = list(curve)
        rewards = list(curve.values())
        opacity = depth(place, len(PAPER_REWARD))
        ax.plot(steps, rewards, color=colour("rl"), alpha=opacity, linewidth=1.5)
        end = (steps[-1], rewards[-1])
        ax.annotate(stem, end, xytext=(4, -3), textcoords="offset points", fontsize=9)
    ax.set(xlabel="RL step", ylabel="validation reward (share)")
    ax.set(title="paper, GSM8K, 1B, direct RL", xlim=(0, 1750))


def depth(place: int, n: int) -> float:
    """Opacity of one of n curves: later checkpoints are darker."""
    return 0.35 + 0.65 * (place + 1) / n


# ---------------------------------------------------------------------------------- groups


def draw_by_group(study: Study, figure: str, recipes: list[str]):
    """pass@1 and pass@k at the last checkpoint, by level and by band of the base's pass@1.

    The base is left out of its own bands, where its values hold by construction.
    """
    stem = study.last
    there = study.recipes(study.task, stem)
    recipes = [recipe for recipe in recipes if recipe in there]
    groupings = {}
    for label, grouping in (
        ("shape of problem", problems_by_level),
        ("the base's pass@1", problems_by_band),
    ):
        groups = grouping(study, stem, study.task)
        if groups:
            groupings[label] = groups
    if not recipes or not groupings:
        return None
    columns = len(groupings)
    size = (7.2 * columns, 6.4)
    fig, axes = pyplot().subplots(2, columns, figsize=size, layout="constrained", squeeze=False)
    for row, k in zip(axes, (1, study.ks(study.task)[-1])):
        for ax, (label, groups) in zip(row, groupings.items()):
            shown = [recipe for recipe in recipes if recipe != "base" or "base" not in label]
            draw_groups(ax, study, shown, groups, f"pass@{k}")
            ax.set(xlabel=label, ylabel=f"pass@{k} (%)", ylim=(-2, 105))
            ax.set_title(f"ours, {study.task}, {stem} tokens")
    add_legend(fig, recipes)
    return fig


def draw_groups(ax, study: Study, recipes: list[str], groups: dict, quantity: str) -> None:
    """A cluster for each group: a dot for every seed of a recipe, and the mean as a line."""
    width = 0.84 / max(1, len(recipes))
    for place, recipe in enumerate(recipes):
        offset = (place - (len(recipes) - 1) / 2) * width
        for x, problems_of_seed in enumerate(groups.values()):
            value = study.estimate(study.last, recipe, quantity, groups=problems_of_seed)
            if not value:
                continue
            centre = x + offset
            ax.scatter(
                [centre] * len(value.of_seeds),
                value.of_seeds,
                s=12,
                color=colour(recipe),
                alpha=0.5,
            )
            ends = [centre - width / 3, centre + width / 3]
            ax.plot(ends, [value.mean, value.mean], color=colour(recipe), linewidth=2)
            ax.errorbar(
                centre, value.mean, yerr=error_bar(value), color=colour(recipe), linewidth=0.8
            )
    labels = []
    for name, problems_of_seed in groups.items():
        size = np.mean([len(problems) for problems in problems_of_seed.values()])
        labels.append(f"{name}\n{size:.0f} problems")
    ax.set_xticks(range(len(groups)), labels)
    ax.grid(axis="x", visible=False)
