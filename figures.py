"""Result rows -> report.md with tables and findings, and the paper's figures with the paper's values beside ours.

    python figures.py out/toy                               # one seed
    python figures.py out/toy out/toy-seed1 out/toy-seed2   # seeds together

Reads <folder>/results.jsonl (evaluate.py writes it) and the RL logs beside it, runs no model and needs no torch.
Every number of ours in the report is computed here from the rows; the paper's stand near the end of this file.
"""

import argparse
import functools
import json
import math
import os
import re
import sys
from dataclasses import dataclass

import numpy as np

KS = (1, 8, 32)  # of pass@k; those above the number of samples are left out
BANDS = [(0, 2), (2, 5), (5, 20), (20, 100)]  # of the base's own pass@1, percent: low <= p < high; fixed before any run
T95 = [0, 12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26]  # 97.5 % quantile of Student's t by degrees of freedom
WRITTEN = "rl-written"  # direct RL in the setting `written`, from the earliest checkpoint
GENERAL = ("general", "heldout_loss")  # what is read from rows of the task general
COLOURS = {  # also the order of recipes in tables and legends
    "base": "#7f7f7f", "sft": "#e69f00", "sft-gold": "#8c564b", "rl": "#0072b2", "sft.rl": "#d62728", "sft-gold.rl": "#9467bd",
    "parallel": "#009e73", WRITTEN: "#e377c2",
}  # fmt: skip
MARKERS = dict(zip(COLOURS, "os^DvP*X"))


# ---------------------------------------------------------------------------------------------- rows


def read_rows(path: str) -> list[dict]:
    """The JSON lines of a file, [] if it is not there; a last line torn by a kill is passed over."""
    if not os.path.exists(path):
        return []
    with open(path) as f:
        lines = f.read().split("\n")[:-1]
    return [json.loads(line) for line in lines if line]


@functools.cache
def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that k of the n samples, drawn without replacement, hold one of the c right ones (evaluate.py's, without torch)."""
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


@dataclass
class Estimate:
    """A mean over seeds with mean -+ standard error; of one seed its value with a 95 % bootstrap interval, or nan."""

    mean: float
    low: float
    high: float
    each: list[float]  # a value per seed

    def text(self, digits: int = 1, sign: str = "") -> str:
        show = lambda x: f"{x:{sign}.{digits}f}"
        if len(self.each) > 1:
            return f"{show(self.mean)} ± {self.high - self.mean:.{digits}f}"
        return show(self.mean) + ("" if math.isnan(self.low) else f" [{show(self.low)}, {show(self.high)}]")


def summarise(samples: dict[int, list[float]]) -> Estimate | None:
    """seed -> values by problem. Two or more seeds: standard error over seeds. One: problems drawn with replacement."""
    each = [float(np.mean(values)) for values in samples.values()]
    if not each:
        return None
    mean, low, high = float(np.mean(each)), math.nan, math.nan
    if len(each) > 1:
        error = float(np.std(each, ddof=1)) / math.sqrt(len(each))
        low, high = mean - error, mean + error
    elif len(values := np.array(next(iter(samples.values())))) > 1:
        picks = np.random.default_rng(0).integers(len(values), size=(1000, len(values)))
        low, high = np.quantile(values[picks].mean(1), [0.025, 0.975]).tolist()
    return Estimate(mean, low, high, each)


class Study:
    """All rows: rows[task, checkpoint, recipe][seed], seed being the place of its folder. self.task is the figures'."""

    def __init__(self, folders: list[str], task: str = ""):
        self.folders, self.rows, self.tokens, self.strangers = folders, {}, {}, set()
        for seed, folder in enumerate(folders):
            for row in read_rows(os.path.join(folder, "results.jsonl")):
                match = re.fullmatch(r"(\d+(?:\.\d+)?[KMBT])(?:\.(.+))?", row["name"])  # "3.6M", "3.6M.sft.rl", "1.2M.rl-written"
                if match and row["tokens"]:
                    self.tokens[match[1]] = row["tokens"]
                    self.rows.setdefault((row["task"], match[1], match[2] or "base"), {})[seed] = row  # the last evaluation counts
                else:
                    self.strangers.add(row["name"])
        self.stems = sorted(self.tokens, key=self.tokens.get)
        tasks = {task for (task, _, _), seeds in self.rows.items() if next(iter(seeds.values()))["kind"] == "pass@k"}
        self.tasks = sorted(tasks, key=lambda t: (t != "toy", t))
        self.task = task or next(iter(self.tasks), "")
        self.last = next((stem for stem in reversed(self.stems) if self.recipes(self.task, stem)), "")

    def recipes(self, task: str, stem: str) -> list[str]:
        there = [recipe for t, s, recipe in self.rows if (t, s) == (task, stem)]
        return sorted(there, key=lambda r: (list(COLOURS).index(r) if r in COLOURS else len(COLOURS), r))

    def ks(self, task: str) -> list[int]:
        n = max(problem[2] for (t, _, _), seeds in self.rows.items() if t == task for row in seeds.values() for problem in row["problems"])
        return [k for k in KS if k <= n]

    def samples(self, stem: str, recipe: str, what: str, task: str = "", groups: dict | None = None) -> dict[int, dict]:
        """seed -> {problem: value}, or {"": value} where there is one value in all. groups: seed -> only these problems.

        what: pass@k, verified@k or general, in percent, or a field of the row.
        """
        found = {}
        for seed, row in self.rows.get(("general" if what in GENERAL else task or self.task, stem, recipe), {}).items():
            if "@" in what:
                values = by_problem(row, what)
                found[seed] = {key: v for key, v in values.items() if groups is None or key in groups.get(seed, ())}
            else:
                found[seed] = {"": 100 * row["mean"] if what == "general" else row[what]}
        return {seed: values for seed, values in found.items() if values}

    def estimate(self, stem: str, recipe: str, what: str, task: str = "", groups: dict | None = None) -> Estimate | None:
        return summarise({seed: list(v.values()) for seed, v in self.samples(stem, recipe, what, task, groups).items()})

    def difference(self, stem: str, a: str, b: str, what: str, task: str = "") -> Estimate | None:
        """a - b of the same seed and the same problems."""
        one, two = self.samples(stem, a, what, task), self.samples(stem, b, what, task)
        paired = {seed: [one[seed][key] - two[seed][key] for key in one[seed] if key in two[seed]] for seed in one if seed in two}
        return summarise({seed: values for seed, values in paired.items() if values})

    def logs(self, stem: str, recipe: str) -> list[list[dict]]:
        """The RL log of each seed that has one: a row per step."""
        logs = [read_rows(os.path.join(folder, f"{stem}.{recipe}.log.jsonl")) for folder in self.folders]
        return [log for log in logs if log]


def by_problem(row: dict, what: str) -> dict[tuple, float]:
    """(place, id) of a problem -> its pass@k or verified@k in percent; problems with fewer than k samples are left out."""
    kind, k = what.split("@")
    if kind == "verified" and "verified_pass@1" not in row:  # only toy problems can be verified
        return {}
    counts = [((i, id), n, verified if kind == "verified" else c) for i, (id, _, n, c, verified) in enumerate(row["problems"])]
    return {key: 100 * pass_at_k(n, c, int(k)) for key, n, c in counts if n >= int(k)}


def by_level(study: Study, stem: str, task: str) -> dict[str, dict[int, set]]:
    """Level -> seed -> its problems; {} where problems have no levels."""
    groups = {}
    for recipe in study.recipes(task, stem):
        for seed, row in study.rows[task, stem, recipe].items():
            for i, (id, level, *_) in enumerate(row["problems"]):
                groups.setdefault(level, {}).setdefault(seed, set()).add((i, id))
    return dict(sorted(groups.items())) if len(groups) > 1 else {}


def by_band(study: Study, stem: str, task: str) -> dict[str, dict[int, set]]:
    """Band of the same checkpoint's base pass@1 -> seed -> its problems; {} where the base is not evaluated."""
    groups = {f"{low}-{high} %": {} for low, high in BANDS}
    for seed, values in study.samples(stem, "base", "pass@1", task).items():
        for key, value in values.items():
            low, high = next((band for band in BANDS if value < band[1]), BANDS[-1])
            groups[f"{low}-{high} %"].setdefault(seed, set()).add(key)
    return {band: seeds for band, seeds in groups.items() if seeds}


# ---------------------------------------------------------------------------------------------- tables


def table(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *rows]) + "\n"


def result_table(study: Study, task: str, columns: dict[str, tuple[str, int]]) -> str:
    """A row per checkpoint and recipe; columns: header -> (quantity, digits). "" where no row has any of them."""
    rows, any_there = [], False
    for stem in study.stems:
        for recipe in study.recipes(task, stem):
            texts = []
            for what, digits in columns.values():
                change = what == "loss change"
                e = study.difference(stem, recipe, "base", "heldout_loss") if change else study.estimate(stem, recipe, what, task)
                texts.append(e.text(digits, "+" if change else "") if e and not (change and recipe == "base") else "–")
                any_there |= e is not None
            rows.append([stem, recipe, str(len(study.rows[task, stem, recipe])), *texts])
    return table(["checkpoint", "recipe", "seeds", *columns], rows) if any_there else ""


def group_tables(study: Study, task: str, grouping) -> str:
    """pass@1 / pass@k of each recipe in each group of problems; one table per checkpoint."""
    parts, ks = [], (1, study.ks(task)[-1])
    for stem in study.stems:
        groups = grouping(study, stem, task)
        seeds = sorted({seed for keys in groups.values() for seed in keys})
        header, rows = [f"at {stem}"], []
        for group, keys in groups.items():
            sizes = [str(len(keys.get(seed, ()))) for seed in seeds]
            header.append(f"{group} ({sizes[0] if len(set(sizes)) == 1 else ', '.join(sizes)})")
        for recipe in study.recipes(task, stem):
            pairs = [[study.estimate(stem, recipe, f"pass@{k}", task, keys) for k in ks] for keys in groups.values()]
            rows.append([recipe, *(" / ".join(f"{e.mean:.1f}" if e else "–" for e in pair) for pair in pairs)])
        parts += [table(header, rows)] if groups else []
    return "\n".join(parts)


# ---------------------------------------------------------------------------------------------- findings


def word(d: Estimate) -> str:
    """higher or lower if the 95 % interval leaves 0 out: Student's t over seeds; with one seed the bootstrap over problems."""
    low, high = d.low, d.high
    if math.isnan(low):
        return "one seed"  # of a quantity without an interval
    if len(d.each) > 1:
        reach = (high - d.mean) * T95[min(len(d.each), len(T95)) - 1]
        low, high = d.mean - reach, d.mean + reach
    return "higher" if low > 0 else "lower" if high < 0 else "undecided"


def spelled(d: Estimate, digits: int = 1) -> str:
    """higher: +10.8 ± 2.9 (+8.3, +13.3), the values of the seeds in brackets; with one seed higher: +8.3 [+2.0, +14.1]."""
    return f"{word(d)}: {d.text(digits, '+')}" + (f" ({', '.join(f'{x:+.{digits}f}' for x in d.each)})" if len(d.each) > 1 else "")


def findings(study: Study) -> str:
    """What the rows say about the paper's claims at the last checkpoint; every word follows from an interval."""
    task, stem = study.task, study.last
    wide = f"pass@{study.ks(task)[-1]}"
    around_rl = [("rl", "base"), ("sft.rl", "sft"), ("sft-gold.rl", "sft-gold")]
    pairs = [*around_rl, ("rl", "sft"), *(("parallel", other) for other in COLOURS if other not in ("parallel", WRITTEN))]
    names = {("higher", "higher"): "expansion", ("higher", "lower"): "sharpening", ("lower", "lower"): "worse at both"}
    rows, missing = [], []
    for a, b in pairs:
        changes = [d for what in ("pass@1", wide) if (d := study.difference(stem, a, b, what))]
        if len(changes) == 2:
            claim = names.get(tuple(map(word, changes)), "undecided") if (a, b) in around_rl else ""
            rows.append([f"{a} - {b}", *map(spelled, changes), claim, paper_difference(a, b)])
        else:
            missing.append(f"{a} - {b}")
    lines = [
        f"At {stem} tokens, on {task}, in points, paired. Several seeds: mean ± standard error (each seed), and the word follows Student's t "
        "at 95 %. One seed: 95 % bootstrap over problems, blind to the luck of the training run. Undecided: the interval holds 0. "
        f"Expansion: RL raised pass@1 and {wide}; sharpening: it raised pass@1 and lowered {wide}.\n",
        table(["difference", "pass@1", wide, "reads as", "paper, GSM8K, 44B: pass@1 / pass@32"], rows) if rows else "",
        *([f"- Not there: {', '.join(missing)}."] if missing else []),
        best(study, stem, wide),
    ]
    costs = {r: [study.difference(stem, r, "base", what) for what in ("heldout_loss", "general")] for r in study.recipes("general", stem) if r != "base"}
    costs = [[recipe, spelled(loss, 3), spelled(skills)] for recipe, (loss, skills) in costs.items() if loss]
    if costs:
        lines.append("\n" + table([f"change from base at {stem}", "held-out loss (nats per token)", "general skills (points)"], costs))
    return "\n".join([*lines, *collapse(study, study.stems[0])]) + "\n"


def best(study: Study, stem: str, what: str) -> str:
    """Which recipe leads, over the seeds that all recipes have."""
    mean_by_seed = lambda recipe: {seed: np.mean(list(v.values())) for seed, v in study.samples(stem, recipe, what).items()}
    values = {recipe: mean_by_seed(recipe) for recipe in study.recipes(study.task, stem)}
    seeds = set.intersection(*map(set, values.values())) if values else set()
    if len(values) < 2 or not seeds:
        return f"- Best {what}: no seed has two recipes to compare."
    means = {recipe: np.mean([v[s] for s in seeds]) for recipe, v in values.items()}
    first, second = sorted(means, key=means.get, reverse=True)[:2]
    wins = sum(max(values, key=lambda recipe: values[recipe][s]) == first for s in seeds)
    lead = study.difference(stem, first, second, what)
    return (
        f"- Best {what}: {first} ({means[first]:.1f}, first in {wins} of {len(seeds)} seeds), then {second} ({means[second]:.1f}); "
        f"{first} - {second} {spelled(lead)}."
    )


def collapse(study: Study, stem: str) -> list[str]:
    """Direct RL as the paper's table has it, from the earliest checkpoint, against its base."""
    changes = {what: study.difference(stem, WRITTEN, "base", what) for what in ("pass@1", "format", "length", "distinct")}
    if not all(changes.values()):
        return [f"- Not there: {stem}.{WRITTEN} against its base."]
    more_boxed = changes["format"].mean > 0 and word(changes["format"]) != "undecided"
    lower = "collapse: fewer right, more boxed" if more_boxed else "worse: fewer right, not more boxed"
    verdict = {"higher": "no collapse: more right", "lower": lower}.get(word(changes["pass@1"]), "undecided")
    lines = [
        f"- {stem}.{WRITTEN} against its base: {verdict}. pass@1 (points) {spelled(changes['pass@1'])}; boxed (share) {spelled(changes['format'], 2)}; "
        f"length (tokens) {spelled(changes['length'])}; different right responses per problem {spelled(changes['distinct'], 2)}."
    ]
    for recipe in ("rl", WRITTEN):
        if logs := study.logs(stem, recipe):
            ends = lambda what: " -> ".join(f"{np.mean([row[what] for log in logs for row in log[part]]):.3f}" for part in (slice(5), slice(-5, None)))
            lines.append(f"- {stem}.{recipe} in training, first -> last five steps: right {ends('accuracy')}, boxed {ends('format')}, length {ends('length')}.")
    return lines


# ---------------------------------------------------------------------------------------------- figures


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
        "length": "response length (tokens)", "entropy": "entropy (nats per token)",
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


PASSES = ("pass@1", "pass@8", "pass@32")
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


def what_was_run(study: Study, task: str) -> str:
    rows = [row for (t, _, _), seeds in study.rows.items() if t == task for row in seeds.values()]
    one = lambda values: ", ".join(sorted({str(v) for v in values if v is not None})) or "unknown"
    key = lambda name: one(row["key"].get(name) for row in rows)
    settings = one(row.get("setting") for row in rows if not row["name"].endswith(f".{WRITTEN}"))
    return (
        f"Preset {one(row['preset'] for row in rows)}, setting {settings} ({WRITTEN}: written), seeds {one(row['seed'] for row in rows)}, checkpoints after "
        f"{', '.join(study.stems)} tokens of pre-training. Task {task}, {key('split')} split: {one(len(row['problems']) for row in rows)} problems x "
        f"{key('n')} samples, temperature {key('temperature')}, top_p {key('top_p')}, {key('shots')} worked examples in the prompt. Code {one(row.get('code') for row in rows)}.\n"
    )


def task_section(study: Study, task: str) -> list[str]:
    ks = study.ks(task)
    columns = {f"pass@{k}": (f"pass@{k}", 1) for k in ks}
    columns |= {"boxed": ("format", 2), "cut": ("truncated", 2), "length": ("length", 1), "distinct": ("distinct", 1)}
    columns |= {"general": ("general", 1), "held-out loss": ("heldout_loss", 3), "change from base": ("loss change", 3)}
    parts = [f"## Results on {task}\n", what_was_run(study, task)]
    parts.append(result_table(study, task, columns))
    if verified := result_table(study, task, {f"verified pass@{k}": (f"verified@{k}", 1) for k in ks}):
        parts += ["Verified: the answer is right and so is every equation written on the way.\n", verified]
    if levels := group_tables(study, task, by_level):
        note = "; shape (a,b): a operations on the first person, b on the second" if task == "toy" else ""
        parts += [f"### {task} by kind of problem\n", f"pass@1 / pass@{ks[-1]}, in brackets the number of problems{note}.\n", levels]
    if bands := group_tables(study, task, by_band):
        parts += [
            f"### {task} by how often the base solves it\n",
            f"pass@1 / pass@{ks[-1]} in bands of the pass@1 of the same checkpoint's base, fixed beforehand; in brackets the number of "
            "problems, per seed where it differs. The samples that choose the band are also the base's values: the base looks too low in the low bands and too high in the top one (never solved means "
            "a pass@k of 0). So compare recipes with each other here, and with the base by kind of problem.\n",
            bands,
        ]
    return parts


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


# ---------------------------------------------------------------------------------------------- the paper's values


def tokens_of(stem: str) -> float:
    return float(stem[:-1]) * {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}[stem[-1]]


def paper_table(text: str, *fields: str) -> dict[str, dict[str, dict[str, float]]]:
    """A table of a/b/... per checkpoint and recipe -> {recipe: {checkpoint: {field: value}}}; "-" is what the paper does not give."""
    (_, *recipes), *lines = [line.split() for line in text.strip().splitlines()]
    values = lambda cell: {field: float(v) for field, v in zip(fields, cell.split("/")) if v != "-"}
    return {recipe: {stem: values(cells[i]) for stem, *cells in lines if values(cells[i])} for i, recipe in enumerate(recipes)}


PAPER = {  # arXiv 2606.04272, model 1B-50B, GSM8K, percent
    "figure2": paper_table(  # pass@1/@8/@32; RL is its best seed
        """
        tokens  base            sft             sft.rl          rl
        2B      1.34/6.1/13.8   9.2/26.7/45.0   20.1/29.7/36.4  2.5/10.8/20.5
        4B      2.41/10.2/25.0  15.4/35.5/51.9  27.6/41.2/49.7  15.3/26.9/35.3
        6B      2.41/14.3/34.5  18.8/40.4/56.0  -               19.8/34.0/45.2
        10B     4.08/20.2/42.4  24.4/47.5/63.8  40.7/53.8/60.6  30.2/49.4/61.1
        12B     3.17/18.1/40.8  25.8/49.0/64.1  -               36.3/53.1/63.2
        14B     4.24/22.8/46.7  28.0/52.6/68.8  -               38.6/57.6/68.8
        20B     7.26/31.9/55.5  31.6/56.1/70.2  48.5/59.6/65.3  47.4/65.5/73.5
        28B     10.4/37.2/60.3  35.5/59.3/71.8  53.2/65.8/71.3  52.0/69.6/78.5
        44B     14.8/46.0/67.5  37.7/60.7/73.8  53.6/64.8/70.3  55.8/72.7/80.4
        """,
        *PASSES,
    ),
    "figure3": paper_table(  # pass@1/@8/@32
        """
        tokens  sft-gold        sft-gold.rl
        2B      27.3/52.8/69.5  34.9/48.1/56.2
        4B      35.0/60.8/74.7  -
        6B      38.9/65.3/78.6  46.0/59.3/66.4
        10B     44.2/69.3/81.6  49.8/61.4/67.3
        12B     45.4/70.8/82.4  51.9/63.4/69.8
        14B     46.9/72.4/84.0  -
        20B     50.2/74.9/83.8  54.6/66.3/72.4
        28B     51.2/76.7/86.0  -
        44B     54.1/78.7/87.8  60.3/70.0/75.1
        """,
        *PASSES,
    ),
    "figure7": paper_table(  # mean of LAMBADA, HellaSwag, ARC-E, ARC-C, PIQA, OBQA; RL is the mean over seeds
        """
        tokens  base  rl    sft   sft-gold
        2B      32.2  -     29.2  29.9
        4B      37.4  37.5  32.9  32.3
        6B      38.5  38.6  33.7  34.3
        10B     41.4  41.3  36.5  37.1
        12B     42.6  42.6  36.6  38.0
        14B     42.8  43.1  37.6  37.7
        20B     44.3  44.4  39.5  38.5
        28B     45.2  45.4  40.1  39.3
        44B     47.2  47.6  41.1  40.1
        """,
        "general",
    ),
    "figure9": paper_table(  # pass@1/@8/@32/mean of five benchmarks
        """
        tokens  base                 sft                  sft.rl            rl                   parallel
        6B      2.4/14.3/34.5/41.0   18.8/40.4/56.0/35.4  -                 19.9/34.2/45.9/41.0  17.5/42.5/62.3/40.7
        10B     3.7/19.3/41.0/44.2   24.4/47.5/63.8/38.2  40.7/53.8/60.6/-  29.8/49.1/61.5/44.2  27.2/54.2/71.0/44.7
        20B     7.8/31.3/54.3/47.1   31.6/56.1/70.2/41.6  48.5/59.6/65.3/-  47.4/63.9/72.8/47.4  36.2/63.1/77.5/47.3
        28B     10.9/37.5/58.8/48.1  35.5/59.3/71.8/42.4  53.2/65.8/71.3/-  51.9/69.4/78.7/48.3  43.3/69.9/83.1/48.6
        44B     14.8/46.0/67.5/50.3  37.7/60.7/73.8/43.5  53.6/64.8/70.3/-  54.8/72.0/80.6/50.8  47.9/73.2/84.5/49.7
        """,
        *PASSES, "general",
    ),
}
PAPER["figure3"] |= {recipe: PAPER["figure2"][recipe] for recipe in ("base", "rl")}
PAPER_PATHS = [  # figure 6, at 14B: pass@1, pass@32; RL every 200 steps
    [("base", 3.8, 45.5), ("sft", 33.4, 79.9), ("sft.rl", 47.0, 77.2), ("sft.rl", 47.9, 75.4), ("sft.rl", 49.1, 74.9)],
    [("base", 3.8, 45.5), ("rl", 28.8, 67.2), ("rl", 33.4, 68.5), ("rl", 36.0, 68.0), ("rl", 37.7, 66.9), ("rl", 38.6, 68.8)],
]
PAPER_REWARD = {  # figure 13: RL step -> validation reward (greedy)
    stem: dict(zip((20, 100, 200, 400, 600, 800, 1000), map(float, values.split()))) | {last: end}
    for stem, values, last, end in (
        ("2B", ".019 .020 .024 .024", 565, 0.022), ("4B", ".012 .021 .048 .100 .153 .196 .215", 1555, 0.253), ("6B", ".016 .081 .147 .232 .280", 600, 0.280),
        ("10B", ".019 .114 .218 .290 .335 .383 .416", 1160, 0.428), ("12B", ".070 .259 .320 .380 .429 .453 .449", 1400, 0.491),
        ("14B", ".094 .277 .320 .405 .435 .466 .482", 1150, 0.502), ("20B", ".196 .367 .438 .487 .523 .549 .572", 1540, 0.609),
        ("28B", ".280 .435 .491 .549 .579 .600 .643", 1220, 0.654), ("44B", ".370 .507 .564 .629 .637 .665 .670", 1040, 0.675),
    )
}  # fmt: skip


def paper_difference(a: str, b: str) -> str:
    """a - b at the paper's last checkpoint, 44B: figure 9 where parallel is one of them, else figure 2; gold is figure 3."""
    figures = ("figure9", "figure3") if "parallel" in (a, b) else ("figure2", "figure3")
    one, two = (next(PAPER[f][recipe]["44B"] for f in figures if recipe in PAPER[f]) for recipe in (a, b))
    return " / ".join(f"{one[what] - two[what]:+.1f}" for what in ("pass@1", "pass@32"))


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
