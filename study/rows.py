"""The result rows of a study: every seed's results.jsonl, and the RL logs beside it.

A stem is the name of a base checkpoint, such as "3.6M", and a cell is what a recipe made of it,
such as "3.6M.sft.rl". A quantity is pass@k, verified@k or
general, all in percent, or the name of a field of the rows, such as "length".
"""

import copy
import os
import re

from data import UserError
from evaluate import pass_at_k
from plumbing.files import read_rows
from study.estimates import Estimate, summarise
from study.experiments import EXPERIMENTS
from study.keys import rows_of_folder
from study.own_experiments import read_own
from study.recipes import RECIPES

KS = (1, 8, 32)  # of pass@k; those above the number of samples are left out
MORE_KS = (64, 128, 256)  # of cells that were asked more often
BANDS = [(0, 2), (2, 5), (5, 20), (20, 100)]  # percent, low <= pass@1 < high; set before any run
GENERAL = ("general", "heldout_loss")  # quantities that stand in rows of the task general
NAME = re.compile(r"(\d+(?:\.\d+)?[KMBT])(?:\.(.+))?")  # "3.6M", "3.6M.sft.rl", "1.2M.rl-written"


class Study:
    """rows[task, stem, recipe][seed] is a row. A seed is the place of its folder in the list."""

    def __init__(self, folders: list[str], task: str = ""):
        """`task` is what figures and findings are about; by default toy, else the first found."""
        self.folders = folders
        self.rows: dict[tuple[str, str, str], dict[int, dict]] = {}
        self.tokens: dict[str, int] = {}  # stem -> tokens of pre-training
        self.presets: set[str | None] = set()  # scales of the rows
        self.strangers: set[str] = set()  # names that are not <tokens>.<recipe>
        self.others: list[str] = []  # what was evaluated in another way than the study asks for
        rows_of_seed = []
        for folder in folders:
            rows, others = rows_of_folder(folder, study=folders[0])
            self.others += others
            rows_of_seed.append(rows)
        bases = stems_among(sum(rows_of_seed, []))
        for seed, rows in enumerate(rows_of_seed):
            for row in rows:
                self.add(seed, row, bases)
        self.all_stems = sorted(self.tokens, key=self.tokens.get)
        self.tasks = self.tasks_with_problems()
        self.task = task
        if not task and self.tasks:
            self.task = self.tasks[0]
        self.experiments = read_own(folders[0]) | EXPERIMENTS
        self.stems = self.stems_of(self.task)  # those of the main tables and figures
        self.last = self.stems[-1] if self.stems else ""

    def add(self, seed: int, row: dict, bases: list[str]) -> None:
        stem, recipe = parts_of(row["name"], bases)
        if not stem or not row["tokens"]:
            self.strangers.add(row["name"])
            return
        self.tokens[stem] = row["tokens"]
        self.presets.add(row.get("preset"))
        by_seed = self.rows.setdefault((row["task"], stem, recipe), {})
        by_seed[seed] = row  # the last of several evaluations counts

    def tasks_with_problems(self) -> list[str]:
        """toy first, then by name."""
        found = set()
        for (task, _, _), by_seed in self.rows.items():
            a_row = next(iter(by_seed.values()))
            if a_row["kind"] == "pass@k":
                found.add(task)
        return sorted(found, key=lambda task: (task != "toy", task))

    def on(self, task: str) -> "Study":
        """The same rows, for findings about another task; "" is the study's own."""
        if task in ("", self.task):
            return self
        other = copy.copy(self)
        other.task = task
        other.stems = self.stems_of(task)
        other.last = other.stems[-1] if other.stems else ""
        return other

    def stems_of(self, task: str) -> list[str]:
        """The checkpoints evaluated on a task, earliest first.

        On the study's own task without those that one experiment pre-trained for itself, which
        stand in its section; unless there are no others.
        """
        aside = set()
        if task == self.task:
            for experiment in self.experiments.values():
                aside |= set(experiment.pretrain)
        there = [stem for stem in self.all_stems if self.recipes(task, stem)]
        return [stem for stem in there if stem not in aside] or there

    def main_recipes(self, task: str, stem: str) -> list[str]:
        """The recipes of the main tables: without those that an experiment's section shows."""
        aside = set()
        if task in (self.task, "general"):
            for experiment in self.experiments.values():
                aside |= set(experiment.recipes)
                aside |= {f"{recipe}.step" for recipe in experiment.copies}
        return [
            recipe
            for recipe in self.recipes(task, stem)
            if recipe in RECIPES or re.sub(r"\.step\d+$", ".step", recipe) not in aside
        ]

    def recipes(self, task: str, stem: str) -> list[str]:
        """The recipes evaluated at this checkpoint: those we know in their order, then others."""
        there = [recipe for t, s, recipe in self.rows if (t, s) == (task, stem)]
        known = [recipe for recipe in RECIPES if recipe in there]
        return known + sorted(set(there) - set(known))

    def rows_of_task(self, task: str) -> list[dict]:
        found = []
        for (of_task, _, _), by_seed in self.rows.items():
            if of_task == task:
                found += by_seed.values()
        return found

    def ks(self, task: str, stem: str = "", recipe: str = "") -> list[int]:
        """The k of pass@k that all rows of a task, or of one cell, have samples for."""
        n = 0  # the most samples that a problem has
        rows = self.rows_of_task(task)
        if stem:
            rows = list(self.rows.get((task, stem, recipe), {}).values())
        for row in rows:
            for _, _, samples, *_ in row["problems"]:
                n = max(n, samples)
        known = KS if not stem else (*KS, *MORE_KS)
        return [k for k in known if k <= n]

    def values(
        self, stem: str, recipe: str, quantity: str, task: str = "", groups: dict | None = None
    ) -> dict[int, dict]:
        """seed -> {problem: value}; {"": value} where a quantity has one value for all problems.

        `groups`: seed -> its problems; the others are left out. Seeds without a value are left out.
        """
        if quantity in GENERAL:
            task = "general"
        found = {}
        for seed, row in self.rows.get((task or self.task, stem, recipe), {}).items():
            values = values_of_row(row, quantity)
            if groups is not None:
                chosen = groups.get(seed, ())
                values = {problem: values[problem] for problem in values if problem in chosen}
            if values:
                found[seed] = values
        return found

    def estimate(
        self, stem: str, recipe: str, quantity: str, task: str = "", groups: dict | None = None
    ) -> Estimate | None:
        values = self.values(stem, recipe, quantity, task, groups)
        return summarise(values)

    def difference(
        self, stem: str, a: str, b: str, quantity: str, task: str = ""
    ) -> Estimate | None:
        """Recipe a minus recipe b, paired: of the same seeds and the same problems."""
        values_a = self.values(stem, a, quantity, task)
        values_b = self.values(stem, b, quantity, task)
        differences = {}
        for seed, of_a in values_a.items():
            of_b = values_b.get(seed, {})
            paired = {}
            for problem, value in of_a.items():
                if problem in of_b:
                    paired[problem] = value - of_b[problem]
            if paired:
                differences[seed] = paired
        return summarise(differences)

    def cell(self, name: str) -> tuple[str, str]:
        """ "3.6M.sft.rl" -> ("3.6M", "sft.rl"), and ("", "base") where no such stem is there."""
        return parts_of(name, self.all_stems)

    def task_of(self, stem: str, recipe: str) -> str:
        """The task on which a cell was evaluated: the study's, or the first that it has."""
        for task in [self.task, *self.tasks]:
            if (task, stem, recipe) in self.rows:
                return task
        return self.task

    def logs(self, stem: str, recipe: str) -> list[list[dict]]:
        """The RL log of each seed that has one: a row per step."""
        logs = []
        for folder in self.folders:
            path = os.path.join(folder, f"{stem}.{recipe}.log.jsonl")
            log = read_rows(path)
            if not any("accuracy" in row for row in log):
                continue  # there is none, or it is SFT's, which has no rollouts
            for number, row in enumerate(log, 1):
                if "surprise" not in row:  # older logs call it by what it estimates
                    row["surprise"] = row.get("entropy")
                check_log_row(row, f"{path}, row {number}")
            logs.append(log)
        return logs


def stems_among(rows: list[dict]) -> list[str]:
    """The names of base checkpoints, longest first; other names that begin with one are cells."""
    names = {row["name"] for row in rows if row.get("recipe") == "base"}
    stems = []
    for name in sorted(names, key=len):
        if not any(name.startswith(stem + ".") for stem in stems):
            stems.append(name)
    return stems[::-1]


def parts_of(name: str, stems: list[str]) -> tuple[str, str]:
    """The stem and the recipe in a name; ("", "base") where it has no stem.

    Without the base's own rows its name is known by its form, <tokens>.
    """
    for stem in stems:
        if name == stem:
            return stem, "base"
        if name.startswith(stem + "."):
            return stem, name.removeprefix(stem + ".")
    match = NAME.fullmatch(name)
    if not match:
        return "", "base"
    return match[1], match[2] or "base"


IN_FIGURES = ("step", "accuracy", "format", "mixed", "length", "surprise")  # of the logs


def check_log_row(row: dict, where: str) -> None:
    """UserError where a quantity that is drawn is no number."""
    for name in IN_FIGURES:
        value = row.get(name)
        if type(value) not in (int, float):
            raise UserError(f"{where} is damaged ({name} is {value!r:.40}); delete that line")


def values_of_row(row: dict, quantity: str) -> dict:
    """{problem: value}, or {"": value}; {} where the row has no such quantity."""
    if "@" in quantity:
        return values_by_problem(row, quantity)
    value = 100 * row["mean"] if quantity == "general" else row.get(quantity)
    if value is None:  # as in rows of other tasks: only the toy world has a held-out loss
        return {}
    return {"": value}


def values_by_problem(row: dict, quantity: str) -> dict[tuple, float]:
    """(place, id) of a problem -> its pass@k or verified@k in percent, if it has k samples."""
    kind, k = quantity.split("@")
    k = int(k)
    if kind == "verified" and "verified_pass@1" not in row:  # only toy problems can be verified
        return {}
    values = {}
    for place, (id, _, n, right, verified) in enumerate(row["problems"]):
        count = verified if kind == "verified" else right
        if n >= k:
            values[place, id] = 100 * pass_at_k(n, count, k)
    return values


def distances(study: Study, cell: str) -> dict[int, float]:
    """seed -> the KL divergence from the base, nats per response (tools/distance.py)."""
    found = {}
    for seed, folder in enumerate(study.folders):
        for row in read_rows(os.path.join(folder, "distances.jsonl")):
            if row["name"] == cell:
                found[seed] = row["kl"]
    return found


# ---------------------------------------------------------------------------------- groups


def problems_by_level(study: Study, stem: str, task: str) -> dict[str, dict[int, set]]:
    """Level -> seed -> its problems; {} where all problems have the same level."""
    groups = {}
    for recipe in study.recipes(task, stem):
        for seed, row in study.rows[task, stem, recipe].items():
            for place, (id, level, *_) in enumerate(row["problems"]):
                of_level = groups.setdefault(level, {})
                of_level.setdefault(seed, set()).add((place, id))
    if len(groups) < 2:
        return {}
    return dict(sorted(groups.items()))


def problems_by_band(study: Study, stem: str, task: str) -> dict[str, dict[int, set]]:
    """Band of the base's pass@1 -> seed -> its problems; {} where the base was not evaluated."""
    groups = {name_of_band(band): {} for band in BANDS}
    for seed, values in study.values(stem, "base", "pass@1", task).items():
        for problem, value in values.items():
            of_band = groups[name_of_band(band_of(value))]
            of_band.setdefault(seed, set()).add(problem)
    return {name: by_seed for name, by_seed in groups.items() if by_seed}


def band_of(value: float) -> tuple[int, int]:
    for low, high in BANDS:
        if value < high:
            return low, high
    return BANDS[-1]  # 100 %


def name_of_band(band: tuple[int, int]) -> str:
    low, high = band
    return f"{low}-{high} %"
