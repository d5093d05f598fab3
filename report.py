"""Result rows -> the tables and findings of report.md. figures.py draws the same rows and writes the file.

Reads <folder>/results.jsonl (evaluate.py writes it) and the RL logs beside it, runs no model and needs no torch.
Every number of ours is computed here from the rows; the paper's stand at the end of this file.
"""

import functools
import json
import math
import os
import re
from dataclasses import dataclass

import numpy as np

KS = (1, 8, 32)  # of pass@k; those above the number of samples are left out
BANDS = [(0, 2), (2, 5), (5, 20), (20, 100)]  # of the base's own pass@1, percent: low <= p < high; fixed before any run
T95 = [0, 12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26]  # 97.5 % quantile of Student's t by degrees of freedom
WRITTEN = "rl-written"  # direct RL in the setting `written`, from the earliest checkpoint
PASSES = ("pass@1", "pass@8", "pass@32")
GENERAL = ("general", "heldout_loss")  # what is read from rows of the task general
RECIPES = ["base", "sft", "sft-gold", "rl", "sft.rl", "sft-gold.rl", "parallel", WRITTEN]  # the order in tables and legends


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
        return sorted(there, key=lambda r: (RECIPES.index(r) if r in RECIPES else len(RECIPES), r))

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
            elif (value := 100 * row["mean"] if what == "general" else row[what]) is not None:  # only the toy world has a held-out loss
                found[seed] = {"": value}
        return {seed: values for seed, values in found.items() if values}

    def estimate(self, stem: str, recipe: str, what: str, task: str = "", groups: dict | None = None) -> Estimate | None:
        return summarise({seed: list(v.values()) for seed, v in self.samples(stem, recipe, what, task, groups).items()})

    def difference(self, stem: str, a: str, b: str, what: str, task: str = "") -> Estimate | None:
        """a - b of the same seed and the same problems."""
        one, two = self.samples(stem, a, what, task), self.samples(stem, b, what, task)
        paired = {seed: [one[seed][key] - two[seed][key] for key in one[seed] if key in two[seed]] for seed in one if seed in two}
        return summarise({seed: values for seed, values in paired.items() if values})

    def logs(self, stem: str, recipe: str) -> list[list[dict]]:
        """The RL log of each seed that has one: a row per step. Older ones call the surprise by its estimand, entropy."""
        logs = [read_rows(os.path.join(folder, f"{stem}.{recipe}.log.jsonl")) for folder in self.folders]
        return [[{"surprise": row.get("entropy"), **row} for row in log] for log in logs if log]


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
    pairs = [*around_rl, ("rl", "sft"), *(("parallel", other) for other in RECIPES if other not in ("parallel", WRITTEN))]
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


# ---------------------------------------------------------------------------------------------- sections


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
