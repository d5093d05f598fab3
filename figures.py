"""The study's report: report.md, and the paper's figures drawn from our rows with the paper's values beside.

    python figures.py out/toy                               # one seed
    python figures.py out/toy out/toy-seed1 out/toy-seed2   # seeds together

Runs no model and needs no torch. The numbers come from report.py.
"""

import argparse
import functools
import json
import math
import os
import sys

import numpy as np

from report import (
    GENERAL, PAPER, PAPER_PATHS, PAPER_REWARD, PASSES, WRITTEN, Estimate, Study, by_band, by_level, findings, read_rows, task_section,
    tokens_of,
)  # fmt: skip

COLOURS = {
    "base": "#7f7f7f", "sft": "#e69f00", "sft-gold": "#8c564b", "rl": "#0072b2", "sft.rl": "#d62728", "sft-gold.rl": "#9467bd",
    "parallel": "#009e73", WRITTEN: "#e377c2",
}  # fmt: skip
MARKERS = dict(zip(COLOURS, "os^DvP*X"))


def pyplot():
    """matplotlib takes a second to import and excursions.py only needs read_rows, so not at the top."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 10, "axes.titlesize": 10, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 110})
    plt.rcParams.update({"axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True})
    return plt


def look(recipe: str) -> dict:
    return dict(color=COLOURS[recipe], marker=MARKERS[recipe], markersize=6, linewidth=1.5)


def legend(fig, recipes: list[str]) -> None:
    """Above all panels, where it covers no data."""
    handles = [pyplot().Line2D([], [], label=recipe, **look(recipe)) for recipe in COLOURS if recipe in recipes]
    fig.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)


def token_axis(ax, ticks: dict[str, float]) -> None:
    """A log axis with the checkpoints as ticks; labels that would touch are left out."""
    labels, last = [], 0.0
    for label, tokens in ticks.items():
        labels.append(label if tokens > 1.45 * last else "")
        last = tokens if labels[-1] else last
    ax.set_xscale("log")
    ax.set_xticks(list(ticks.values()), labels)
    ax.set_xticks([], minor=True)
    ax.set_xlabel("pre-training (tokens)")


def error(e: Estimate) -> list[list[float]]:
    return [[0], [0]] if math.isnan(e.low) else [[max(0, e.mean - e.low)], [max(0, e.high - e.mean)]]


def over_checkpoints(study: Study, figure: str, recipes: list[str], panels: list[list[tuple[str, str]]]):
    """Rows of panels (ours or paper, quantity): a curve per recipe over pre-training tokens."""
    points = lambda recipe, what: [(study.tokens[stem], e) for stem in study.stems if (e := study.estimate(stem, recipe, what))]
    if not any(points(recipe, what) for recipe in recipes for source, what in panels[0] if source == "ours"):
        return None
    labels = {"general": "general skills, mean (%)", "heldout_loss": "held-out loss (nats per token)"}
    shape = len(panels), len(panels[0])
    fig, axes = pyplot().subplots(*shape, figsize=(3.3 * shape[1] + 0.6, 2.9 * shape[0] + 0.5), layout="constrained")
    for ax, (source, what) in zip(axes.flat, [panel for row in panels for panel in row]):
        for recipe in recipes:
            if source == "paper":
                known = {stem: values[what] for stem, values in PAPER[figure].get(recipe, {}).items() if what in values}
                ax.plot([tokens_of(stem) for stem in known], list(known.values()), **look(recipe))
            else:
                ours = points(recipe, what)
                ax.plot([x for x, _ in ours], [e.mean for _, e in ours], **look(recipe))
                for x, e in ours:
                    ax.errorbar(x, e.mean, yerr=error(e), color=COLOURS[recipe], capsize=3, linewidth=1)
        token_axis(ax, {stem: tokens_of(stem) for stem in PAPER[figure]["base"]} if source == "paper" else {stem: study.tokens[stem] for stem in study.stems})
        where = "general" if what in GENERAL else "GSM8K" if source == "paper" else study.task
        ax.set(ylabel=labels.get(what, f"{what} (%)"), title=f"{source}, {where}" + (", 1B" if source == "paper" else ""))
        if what not in GENERAL:
            ax.set_ylim(bottom=0)
    legend(fig, recipes)
    return fig


def draw_paths(study: Study, figure: str, recipes: list[str]):
    """pass@1 against pass@k from stage to stage at the last checkpoint, ours and the paper's."""
    stem, wide = study.last, study.ks(study.task)[-1]
    both = lambda recipe: [study.estimate(stem, recipe, f"pass@{k}") for k in (1, wide)]
    ours = {recipe: both(recipe) for recipe in recipes if all(both(recipe))}
    if not ours:
        return None
    fig, axes = pyplot().subplots(1, 2, figsize=(9.6, 4.6), layout="constrained")
    paths = [[(r, ours[r][0].mean, ours[r][1].mean) for r in path if r in ours] for path in (["base", "sft", "sft.rl"], ["base", "rl"])]
    for ax, steps, title in ((axes[0], paths, f"ours, {study.task}, {stem} tokens"), (axes[1], PAPER_PATHS, "paper, GSM8K, 1B, 14B tokens")):
        for path in steps:
            for (_, *start), (recipe, *end) in zip(path, path[1:]):
                ax.annotate("", end, start, arrowprops=dict(arrowstyle="-|>", color=COLOURS[recipe], linewidth=1.5, shrinkA=4, shrinkB=4))
            for recipe, x, y in path:
                ax.plot(x, y, **look(recipe))
        ax.set(xlabel="pass@1 (%)", ylabel=f"pass@{wide if ax is axes[0] else 32} (%)", title=title)
        ax.margins(0.12)
    for recipe, (x, y) in ours.items():
        axes[0].errorbar(x.mean, y.mean, xerr=error(x), yerr=error(y), color=COLOURS[recipe], capsize=3, linewidth=1)
    legend(fig, recipes)
    return fig


def draw_dynamics(study: Study, figure: str, recipes: list[str]):
    """RL over its steps: five quantities of ours, and the paper's validation reward."""
    runs = {(stem, recipe): study.logs(stem, recipe) for recipe in recipes for stem in study.stems}
    if not any(runs.values()):
        return None
    fig, axes = pyplot().subplots(2, 3, figsize=(11.5, 6.2), layout="constrained")
    labels = {
        "accuracy": "training accuracy (share)", "format": "with a boxed answer (share)", "mixed": "groups with a signal (share)",
        "length": "response length (tokens)", "surprise": "entropy (nats per token)",
    }  # fmt: skip
    depth = lambda i, n: 0.35 + 0.65 * (i + 1) / n  # later checkpoints are darker
    for ax, (what, label) in zip(axes.flat, labels.items()):
        for (stem, recipe), logs in runs.items():
            if logs:
                steps = sorted(set.intersection(*({row["step"] for row in log} for log in logs)))
                curves = [[row[what] for row in log if row["step"] in steps] for log in logs]
                style = dict(color=COLOURS[recipe], alpha=depth(study.stems.index(stem), len(study.stems)) if recipe == "rl" else 1)
                ax.plot(steps, np.mean(curves, axis=0), linewidth=1.8, linestyle="-" if recipe == "rl" else "--", label=f"{recipe}, {stem}", **style)
                for curve in curves if len(curves) > 1 else []:
                    ax.plot(steps, curve, **style | dict(alpha=0.25), linewidth=0.7)
        ax.set(xlabel="RL step", ylabel=label, title=f"ours, {study.task}", ylim=(0, 1.05 * ax.get_ylim()[1]))
    for i, (stem, curve) in enumerate(PAPER_REWARD.items()):
        axes[1, 2].plot(list(curve), list(curve.values()), color=COLOURS["rl"], alpha=depth(i, len(PAPER_REWARD)), linewidth=1.5)
        axes[1, 2].annotate(stem, list(curve.items())[-1], xytext=(4, -3), textcoords="offset points", fontsize=9)
    axes[1, 2].set(xlabel="RL step", ylabel="validation reward (share)", title="paper, GSM8K, 1B, direct RL", xlim=(0, 1750))
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False)
    return fig


def draw_groups(study: Study, figure: str, recipes: list[str]):
    """pass@1 and pass@k at the last checkpoint by level and by band of the base's pass@1."""
    stem, recipes = study.last, [r for r in recipes if r in study.recipes(study.task, study.last)]
    groupings = {"kind of problem": by_level(study, stem, study.task), "the base's pass@1": by_band(study, stem, study.task)}
    groupings = {label: groups for label, groups in groupings.items() if groups}
    if not recipes or not groupings:
        return None
    fig, axes = pyplot().subplots(2, len(groupings), figsize=(7.2 * len(groupings), 6.4), layout="constrained", squeeze=False)
    width = 0.84 / len(recipes)
    for row, k in zip(axes, (1, study.ks(study.task)[-1])):
        for ax, (label, groups) in zip(row, groupings.items()):
            for i, recipe in enumerate(recipes):
                for x, keys in enumerate(groups.values()):
                    if e := study.estimate(stem, recipe, f"pass@{k}", groups=keys):
                        ax.bar(x + (i - (len(recipes) - 1) / 2) * width, e.mean, width, color=COLOURS[recipe], yerr=error(e), error_kw=dict(linewidth=0.8))
            sizes = [np.mean([len(keys) for keys in seeds.values()]) for seeds in groups.values()]
            ax.set_xticks(range(len(groups)), [f"{group}\n{size:.0f} problems" for group, size in zip(groups, sizes)])
            ax.set(xlabel=label, ylabel=f"pass@{k} (%)", ylim=(0, 105), title=f"ours, {study.task}, {stem} tokens")
            ax.grid(axis="x", visible=False)
    legend(fig, recipes)
    return fig


def panels(*quantities: str) -> list[list[tuple[str, str]]]:
    return [[(source, what) for what in quantities] for source in ("ours", "paper")]


FIGURES = {  # name: (how it is drawn, its recipes, what to look at)
    "figure2": (
        functools.partial(over_checkpoints, panels=panels(*PASSES)), ["base", "sft", "sft.rl", "rl"],
        "SFT on one solution per problem. Look where direct RL leaves its base in pass@1, and whether RL lifts or lowers the pass@32 of what it starts from.",
    ),
    "figure3": (
        functools.partial(over_checkpoints, panels=panels(*PASSES)), ["base", "sft-gold", "sft-gold.rl", "rl"],
        "SFT on all solutions (gold). Look how much of its pass@32 is left after RL. The paper's base and RL are those of its figure 2.",
    ),
    "figure6": (
        draw_paths, ["base", "sft", "sft.rl", "rl"],
        "Stages at the last checkpoint: rightwards is better at one try, upwards is wider, and a path that turns down sharpens. The paper's: 14B, RL every 200 steps, "
        "an older SFT.",
    ),
    "figure7": (
        functools.partial(over_checkpoints, panels=[[("ours", "general"), ("ours", "heldout_loss"), ("paper", "general")]]), ["base", "rl", "sft", "sft-gold"],
        "What post-training costs elsewhere: look at the gap of each recipe to its base. The paper gives no held-out loss.",
    ),
    "figure9": (
        functools.partial(over_checkpoints, panels=panels(*PASSES, "general")), ["base", "sft", "sft.rl", "rl", "parallel"],
        "Parallel averaging against the others: look at pass@32 and general skills together. The paper's general mean is of five benchmarks here.",
    ),
    "figure13": (
        draw_dynamics, ["rl", WRITTEN],
        "RL over its steps; darker lines start from later checkpoints, thin lines are single seeds. A collapse is accuracy near 0 while every response gets its box.",
    ),
    "shapes": (
        draw_groups, [recipe for recipe in COLOURS if recipe != WRITTEN],
        "The last checkpoint by kind of problem and by how often its base solves it. Look for problems that gain while others "
        "lose pass@32: expansion and sharpening in one run.",
    ),
}  # fmt: skip


def place(study: Study, figure: str, out: str) -> str:
    """Draw and save one figure -> its paragraph in the report, which also says what is not there."""
    how, recipes, caption = FIGURES[figure]
    stems = [study.last] if how in (draw_paths, draw_groups) else study.stems
    task = "general" if figure == "figure7" else study.task
    there = lambda stem, recipe: study.logs(stem, recipe) if how is draw_dynamics else (task, stem, recipe) in study.rows
    missing = {r: [stem for stem in (stems[:1] if r == WRITTEN else stems) if not there(stem, r)] for r in recipes}
    gone = "; ".join(f"{recipe} at {', '.join(at)}" for recipe, at in missing.items() if at)
    path, fig = os.path.join(out, "figures", f"{figure}.png"), how(study, figure, recipes)
    if fig is None:
        if os.path.exists(path):
            os.remove(path)  # of an earlier report; it would not belong to this one
        return f"**{figure}** is not drawn: nothing of {gone or 'what it shows'} is there.\n"
    fig.savefig(path)
    pyplot().close(fig)
    return f"![{figure}](figures/{figure}.png)\n\n**{figure}.** {caption}" + (f" Not there: {gone}." if gone else "") + "\n"


# ---------------------------------------------------------------------------------------------- report


def write_report(folders: list[str], out: str, task: str = "") -> str:
    """Tables, findings and figures of the seeds' run folders -> path of <out>/report.md."""
    study = Study(folders, task)
    os.makedirs(os.path.join(out, "figures"), exist_ok=True)
    parts = ["# RL excursions during pre-training: report\n"]
    if empty := [folder for folder in folders if not read_rows(os.path.join(folder, "results.jsonl"))]:
        parts.append(f"No evaluations in {', '.join(empty)}.\n")
    if study.strangers:
        parts.append(f"Left out, not named <tokens>.<recipe>: {', '.join(sorted(study.strangers))}.\n")
    parts.append(
        "pass@k and general skills (mean of six) in percent; boxed and cut are shares of the samples, length is in tokens, distinct is the number of different right "
        "responses per problem, held-out loss is in nats per token. ± is the standard error over seeds. With one seed, [low, high] is the 95 % bootstrap interval "
        "over problems, which does not cover the luck of the training run.\n"
    )
    for name in study.tasks:
        parts += task_section(study, name)
    if study.task in study.tasks:
        parts += ["## Findings\n", findings(study), "## Figures\n", "Points of ours: mean ± standard error over seeds, or one seed with its 95 % interval.\n"]
        parts += [place(study, figure, out) for figure in FIGURES]
    path = os.path.join(out, "report.md")
    with open(path + ".tmp", "w") as f:
        f.write("\n".join(parts))
    os.replace(path + ".tmp", path)
    return path


# ---------------------------------------------------------------------------------------------- main


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.error = lambda message: sys.exit(f"figures.py: {message}; --help lists the flags")
    parser.add_argument("folders", nargs="+", help="run folders, one per seed")
    parser.add_argument("--out", default="", help="folder of report.md and figures/; default: the first run folder")
    parser.add_argument("--task", default="", help="the task of the figures and findings; default toy, else the first found")
    args = parser.parse_args(argv)
    tasks = set()
    for folder in args.folders:
        if not os.path.isdir(folder):
            sys.exit(f"figures.py: {folder} is not a folder; give the run folders that excursions.py made")
        path = os.path.join(folder, "results.jsonl")
        try:
            tasks |= {row["task"] for row in read_rows(path) if row["kind"] == "pass@k"}
        except json.JSONDecodeError as problem:
            sys.exit(f"figures.py: {path} has a line that is not JSON: {problem.doc[:60]!r}; remove it and run the evaluation again")
    if not tasks or (args.task and args.task not in tasks):
        sys.exit(f"figures.py: no pass@k rows {'of task ' + args.task if tasks else 'in ' + ', '.join(args.folders)}; run: python excursions.py")
    print(write_report(args.folders, args.out or args.folders[0], args.task))


if __name__ == "__main__":
    main(sys.argv[1:])
