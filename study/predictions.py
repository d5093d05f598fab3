"""What was predicted before the runs (results/toy/predictions.md), and what came of it.

A rule is a sum of measured values and a range, as in

    pass@32[2,3](3.6M.rl) - pass@32[2,3](3.6M) > 10

that is pass@32 of cell 3.6M.rl on the problems of shape (2,3), minus that of its base. A term may
have a factor (0.5*heldout_loss(3.6M)), and a range is `> x`, `< x` or `within x`. border(rl) is
the logarithm of a rate (study/takeoff.py), of a recipe at all checkpoints; in border[3.6M](rl) at
this one. distance(3.6M.rl) is the cell's KL from its base, in nats a response (tools/distance.py).
"""

import math
import os
import re
from dataclasses import dataclass

from data import UserError
from data.files import file_errors
from study.estimates import Estimate, combine, count_up, said_of_seeds
from study.rows import Study, distances
from study.takeoff import border_by_seed

FILE = os.path.join("results", "toy", "predictions.md")
TERM = re.compile(r"([+-]?)\s*(?:([\d.]+)\*)?([a-z_]+(?:@\d+)?)(?:\[([^\]]+)\])?\(([^()]+)\)\s*")
RANGE = re.compile(r"(>|<|within)\s*(-?[\d.]+)$")
# Names of several shapes of problems together.
GROUPS = {
    "inside": ["(1,2)", "(2,1)", "(2,2)"],
    "edge": ["(2,3)", "(3,2)"],
    "beyond": ["(3,3)", "(3,4)", "(4,3)"],
}


@dataclass(frozen=True)
class Term:
    factor: float
    quantity: str  # pass@32, heldout_loss, ...
    group: str  # of problems; "" is all
    cell: str  # 3.6M.rl


@dataclass(frozen=True)
class Prediction:
    name: str  # core-1
    words: str
    terms: list[Term]
    sign: str  # >, < or within
    border: float
    commit: str  # in which it was written

    @property
    def experiment(self) -> str:
        return self.name.rpartition("-")[0]


@dataclass(frozen=True)
class Verdict:
    word: str  # held, failed, undecided, one seed, or not run
    estimate: Estimate | None
    why: str  # what an open question would take


def read_predictions(path: str = FILE) -> list[Prediction]:
    """Every line of the file's tables. Raises UserError where a rule cannot be read."""
    if not os.path.exists(path):
        return []
    with file_errors("read", path), open(path) as file:
        lines = file.read().splitlines()
    found = []
    commit = ""
    for line in lines:
        if line.startswith("## "):
            commit = ""
        written = re.match(r"Written in commit (\w+)", line)
        if written:
            commit = written[1]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and re.fullmatch(r"[a-z]+\d*-\d+", cells[0]):
            found.append(prediction(*cells, commit, path))
    return found


def prediction(name: str, words: str, rule: str, commit: str, path: str) -> Prediction:
    end = RANGE.search(rule)
    if not end:
        raise UserError(f"{path}, {name}: the rule {rule!r} ends in no range, as in > 0")
    terms = read_terms(rule[: end.start()], f"{path}, {name}")
    return Prediction(name, words, terms, end[1], float(end[2]), commit)


def read_terms(text: str, where: str) -> list[Term]:
    terms = []
    place = 0
    while place < len(text):
        match = TERM.match(text, place)
        if not match:
            raise UserError(f"{where}: cannot read {text[place:]!r} as a term like pass@1(3.6M)")
        sign, factor, quantity, group, cell = match.groups()
        value = float(factor or 1)
        terms.append(Term(-value if sign == "-" else value, quantity, group or "", cell))
        place = match.end()
    return terms


# ---------------------------------------------------------------------------------- judging


def judge(study: Study, prediction: Prediction) -> Verdict:
    """Held if the whole 95 % interval lies in the range, failed if none of it does."""
    estimate = value_of(study, prediction.terms)
    if estimate is None:
        return Verdict("not run", None, "")
    if len(estimate.of_seeds) < 2:  # what it would have been with another seed, nobody knows
        return Verdict("one seed", estimate, said_of_seeds(estimate))
    low, high = estimate.interval()
    border = prediction.border
    if prediction.sign == "within":
        inside = -border < low and high < border
        outside = low > border or high < -border
        nearest = border if estimate.mean > 0 else -border
    else:
        inside = low > border if prediction.sign == ">" else high < border
        outside = high < border if prediction.sign == ">" else low > border
        nearest = border
    if inside:
        return Verdict("held", estimate, "")
    if outside:
        return Verdict("failed", estimate, "")
    return Verdict("undecided", estimate, said_of_seeds(estimate, nearest))


def value_of(study: Study, terms: list[Term]) -> Estimate | None:
    """The sum of the terms over seeds; None where a cell has no rows.

    Terms of the same group of problems are added problem by problem, so that they are paired.
    """
    groups = {}  # group of problems -> seed -> {problem: sum of the terms}
    for term in terms:
        values = values_of_term(study, term)
        if not values:
            return None
        of_problems = "@" in term.quantity
        key = (term.group if of_problems else "", of_problems)
        if key not in groups:
            groups[key] = values
        else:
            groups[key] = added(groups[key], values)
    return combine(list(groups.values()))


def values_of_term(study: Study, term: Term) -> dict[int, dict]:
    if term.quantity == "border":
        values = border_by_seed(study, term.cell, term.group.split("+") if term.group else None)
    elif term.quantity == "distance":
        values = {seed: {"": kl} for seed, kl in distances(study, term.cell).items()}
    else:
        stem, recipe = study.cell(term.cell)
        task = study.task_of(stem, recipe)
        values = study.values(stem, recipe, term.quantity, task)
        if term.group:
            levels = GROUPS.get(term.group, [f"({term.group})"])
            values = chosen(study, task, stem, recipe, values, levels)
    scaled = {}
    for seed, of_seed in values.items():
        scaled[seed] = {problem: term.factor * value for problem, value in of_seed.items()}
    return scaled


def chosen(
    study: Study, task: str, stem: str, recipe: str, values: dict, levels: list[str]
) -> dict[int, dict]:
    """The values of the problems of these levels."""
    found = {}
    for seed, of_seed in values.items():
        row = study.rows[task, stem, recipe][seed]
        of_levels = {}
        for place, (id, level, *_) in enumerate(row["problems"]):
            if level in levels and (place, id) in of_seed:
                of_levels[place, id] = of_seed[place, id]
        if of_levels:
            found[seed] = of_levels
    return found


def added(a: dict[int, dict], b: dict[int, dict]) -> dict[int, dict]:
    """The sums of two tables, of the seeds and the problems that both have."""
    sums = {}
    for seed in a.keys() & b.keys():
        of_seed = {}
        for problem, value in a[seed].items():
            if problem in b[seed]:
                of_seed[problem] = value + b[seed][problem]
        if of_seed:
            sums[seed] = of_seed
    return dict(sorted(sums.items()))


# ---------------------------------------------------------------------------------- words


def in_words(prediction: Prediction, verdict: Verdict) -> list[str]:
    """A row of the report: id, prediction, verdict, number."""
    if verdict.estimate is None:
        return [prediction.name, prediction.words, "not run", ""]
    number = measured(prediction, verdict.estimate)
    said = f"**{verdict.word}**"
    if verdict.why:
        said += f": {verdict.why}"
    return [prediction.name, prediction.words, said, f"{number} ({range_of(prediction)})"]


def measured(prediction: Prediction, estimate: Estimate) -> str:
    """ "+12.1 [+4.0, +20.2], 6 of 6 seeds up"; nats have three digits, points one.

    A difference of borders, which are logarithms of rates, is told as the factor between the rates.
    """
    if all(term.quantity == "border" for term in prediction.terms):
        low, high = map(math.exp, estimate.interval())
        return f"x {math.exp(estimate.mean):.2f} [{low:.2f}, {high:.2f}], {count_up(estimate)}"
    in_points = all("@" in term.quantity or term.quantity == "general" for term in prediction.terms)
    return f"{estimate.with_interval(1 if in_points else 3)}, {count_up(estimate)}"


def range_of(prediction: Prediction) -> str:
    """ "predicted > 10", "predicted within ±10", or of borders "predicted < x 1"."""
    if all(term.quantity == "border" for term in prediction.terms):
        return f"predicted {prediction.sign} x {math.exp(prediction.border):.3g}"
    if prediction.sign == "within":
        return f"predicted within ±{prediction.border:g}"
    return f"predicted {prediction.sign} {prediction.border:g}"
