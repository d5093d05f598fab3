r"""Problems of a small world, to pre-train and post-train on in minutes without any download.

    problems("train", "toy")[0]      word problems with many valid solutions (stands for GSM8K)
    problems("test", "toy-hard")     chains of assignments with products and a distractor (MATH)
    named_problems("toy-long:33+34", "test")     word problems of 3 to 7 operations, of two shapes

A problem asks for two totals at once: with some 400 possible pairs, 32 blind guesses hardly ever
help pass@32. Every draw is a function of a key (seed, purpose, index), so the same seed gives the
same bytes everywhere. The problem sets do not depend on the run's seed: runs differ in their text
(toy_text.py), not in the test.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import NamedTuple

from data import UserError
from data.problem import Problem, question_id
from data.toy_world import (
    CONNECTIVES,
    GAINS,
    LETTERS,
    LOSSES,
    NAMES,
    SEPARATORS,
    THINGS,
    WORDINGS,
    bucket,
    random_for,
)


class Limits(NamedTuple):
    top: int  # largest value at any step; the smallest is 0
    signs: str  # operations


class Split(NamedTuple):
    buckets: range  # of a problem's content, out of 10
    n: int  # problems


FAMILIES = ("toy", "toy-hard", "toy-long")
LIMITS = {"toy": Limits(20, "+-"), "toy-hard": Limits(40, "+-*"), "toy-long": Limits(20, "+-")}
SPLITS = {
    "train": Split(range(2, 10), 600),
    "val": Split(range(1, 2), 100),
    "test": Split(range(0, 1), 200),
}
LONG = {"train": 1200, "val": 100, "test": 240}  # problems of toy-long, whose shapes are more
SHAPES = {  # operations of the first and of the second chain: weight
    "toy": {(1, 2): 1, (2, 1): 1, (2, 2): 2, (2, 3): 1, (3, 2): 1},
    "toy-hard": {(1, 1): 1, (1, 2): 1, (2, 1): 1, (2, 2): 2},
    "toy-long": dict.fromkeys([(1, 2), (2, 1), (2, 2), (2, 3), (3, 2), (3, 3), (3, 4), (4, 3)], 1),
}
PLANS = {  # of a solution: weight
    "steps": 45,  # one operation a line, the first chain and then the second
    "names": 10,  # the same, with the name before each line
    "grouped": 15,  # up to two operations a line
    "interleaved": 10,
    "second first": 15,
    "bare": 5,  # the answer alone
}
N_SOLUTIONS = 24  # worked solutions of a problem; the paper's data has about 23


# --- a task: two chains of operations, posed as people with things or as assignments --------------


@dataclass(frozen=True)
class Chain:
    """A start and what happens to it: Chain(11, (("+", 2), ("-", 4))) has values [11, 13, 9]."""

    start: int
    ops: tuple[tuple[str, int], ...]

    @property
    def values(self) -> list[int]:
        values = [self.start]
        for sign, n in self.ops:
            values.append(apply(values[-1], sign, n))
        return values


@dataclass(frozen=True)
class Task:
    """Two chains in words.

    names[i][j] introduces the result of operation j of chain i, as in "hana :" or "q =".
    """

    chains: tuple[Chain, Chain]
    names: list[list[str]]
    question: str  # without its first word, so that a document can put its own heading there

    @property
    def answer(self) -> str:
        first, second = self.chains
        return f"{first.values[-1]}, {second.values[-1]}"


def apply(value: int, sign: str, n: int) -> int:
    if sign == "+":
        return value + n
    if sign == "-":
        return value - n
    return value * n


@lru_cache(maxsize=None)
def allowed_ops(value: int, family: str) -> list[list[tuple[str, int]]]:
    """The operations that keep the value within the family's limits, one list per sign."""
    top, signs = LIMITS[family]
    most_times = 5 if value else 1  # nothing can be done to 0 by multiplying
    operands = {"+": range(1, 10), "-": range(1, 10), "*": range(2, most_times + 1)}
    by_sign = []
    for sign in signs:
        ops = [(sign, n) for n in operands[sign] if 0 <= apply(value, sign, n) <= top]
        if ops:
            by_sign.append(ops)
    return by_sign


def draw_chain(rng: Random, n_ops: int, family: str) -> Chain:
    start = rng.randint(1, 20)
    value = start
    ops = []
    for _ in range(n_ops):
        of_one_sign = rng.choice(allowed_ops(value, family))
        sign, n = rng.choice(of_one_sign)
        ops.append((sign, n))
        value = apply(value, sign, n)
    return Chain(start, tuple(ops))


def content(chains: tuple[Chain, Chain]) -> str:
    """The numbers and operations, whoever they belong to and in whichever order: "10-8+3|11+2"."""
    parts = []
    for chain in chains:
        parts.append(str(chain.start) + "".join(f"{sign}{n}" for sign, n in chain.ops))
    return "|".join(sorted(parts))


def draw_task(rng: Random, family: str, shapes: dict, split: str) -> Task:
    """A task whose content belongs to the split.

    So no other text gives a test problem away under other names.
    """
    (shape,) = rng.choices(list(shapes), list(shapes.values()))
    first_ops, second_ops = shape
    while True:
        first = draw_chain(rng, first_ops, family)
        second = draw_chain(rng, second_ops, family)
        chains = (first, second)
        if bucket(content(chains)) in SPLITS[split].buckets:
            pose = pose_assignments if family == "toy-hard" else pose_people
            return pose(rng, chains)


def pose_people(rng: Random, chains: tuple[Chain, Chain]) -> Task:
    """hana has 11 cards . buys 2 . gail has 10 . loses 8 . finds 3 . how many now ?"""
    people = rng.sample(NAMES, 2)
    thing = " " + rng.choice(THINGS)  # named once, with the first person
    text = ""
    names = []
    for person, chain in zip(people, chains):
        text += f" {person} has {chain.start}{thing} ."
        thing = ""
        for sign, n in chain.ops:
            verb = rng.choice(GAINS if sign == "+" else LOSSES)
            text += f" {verb} {n} ."
        names.append([f"{person} :"] * len(chain.ops))
    return Task(chains, names, text + " how many now ?")


def pose_assignments(rng: Random, chains: tuple[Chain, Chain]) -> Task:
    """p = 3 * 4 . t = 7 . q = 9 + 8 . r = p - 5 . find r and q ?   (t is a distractor)"""
    letters = iter(rng.sample(LETTERS, len(LETTERS)))
    lines_of_chains = []
    names_of_chains = []
    asked = []  # the letter of each chain's last result
    for chain in chains:
        lines = []
        names = []
        left = str(chain.start)
        for sign, n in chain.ops:
            letter = next(letters)
            names.append(f"{letter} =")
            lines.append(f"{letter} = {left} {sign} {n}")
            left = letter
        lines_of_chains.append(lines)
        names_of_chains.append(names)
        asked.append(left)
    lines = interleave(rng, *lines_of_chains)
    place = rng.randint(0, len(lines))
    lines.insert(place, f"{next(letters)} = {rng.randint(1, 20)}")
    question = f" {' . '.join(lines)} . find {asked[0]} and {asked[1]} ?"
    return Task(chains, names_of_chains, question)


def interleave(rng: Random, a: list, b: list) -> list:
    """Both lists in one, each in its own order."""
    turns = [True] * len(a) + [False] * len(b)
    rng.shuffle(turns)
    rest_of_a = iter(a)
    rest_of_b = iter(b)
    return [next(rest_of_a if is_turn_of_a else rest_of_b) for is_turn_of_a in turns]


# --- solutions ------------------------------------------------------------------------------------


def equations(chain: Chain, names: list[str], most: int) -> list[tuple[str, str]]:
    """(name, "11 + 2 - 4 = 9") in order, with up to `most` operations in each.

    A product begins a new equation, so that it is not read as part of a sum.
    """
    lines = []
    left = str(chain.start)
    n_ops = 0  # in this equation
    for i, (sign, n) in enumerate(chain.ops):
        left += f" {sign} {n}"
        n_ops += 1
        is_last = i + 1 == len(chain.ops)
        if is_last or n_ops == most or chain.ops[i + 1][0] == "*":
            result = chain.values[i + 1]
            lines.append((names[i], f"{left} = {result}"))
            left = str(result)
            n_ops = 0
    return lines


def in_words(equation: str, wording: tuple[str, ...]) -> str:
    """The equation with the signs + - * = in this wording."""
    words = dict(zip("+-*=", wording))
    return " ".join(words.get(word, word) for word in equation.split())


def solve(rng: Random, task: Task, end: str, bare: bool = False) -> str:
    r"""One valid solution: first 11 + 2 = 13 . then 10 - 8 = 2 . then 2 + 3 = 5 . so \boxed{ 13, 5}

    Plan, wording, connectives and separator are drawn; `end` is what follows the last connective.
    `bare` allows the plan that writes the answer alone.
    """
    weights = dict(PLANS)
    if not bare:
        weights["bare"] = 0
    (plan,) = rng.choices(list(weights), list(weights.values()))
    if plan == "bare":
        return f"so{end}"
    first_word, then, last_word = rng.choice(CONNECTIVES)
    wording = rng.choice(WORDINGS)
    separator = rng.choice(SEPARATORS)

    most = 2 if plan == "grouped" else 1
    first = equations(task.chains[0], task.names[0], most)
    second = equations(task.chains[1], task.names[1], most)
    if plan == "second first":
        ordered = second + first
    elif plan == "interleaved":
        ordered = interleave(rng, first, second)
    else:
        ordered = first + second
    lines = []
    for name, equation in ordered:
        line = in_words(equation, wording)
        lines.append(f"{name} {line}" if plan == "names" else line)
    worked = f" {separator} {then} ".join(lines)
    return f"{first_word} {worked} {separator} {last_word}{end}"


def problems(split: str, family: str = "toy", n: int | None = None, seed: int = 0) -> list[Problem]:
    """The first n problems of a split (default: all), of different contents.

    Each has N_SOLUTIONS different worked solutions. The order of the two numbers of an answer
    counts, so the kind is "ordered".
    """
    if split not in SPLITS or family not in LIMITS:
        raise UserError(
            f"no split {split!r} of {family!r}; choose {', '.join(SPLITS)} of {' or '.join(LIMITS)}"
        )
    if n is None:
        n = LONG[split] if family == "toy-long" else SPLITS[split].n
    found = {}  # content -> problem
    for i in itertools.count():
        if len(found) == n:
            break
        rng = random_for(seed, family, split, i)
        task = draw_task(rng, family, SHAPES[family], split)
        problem = draw_problem(rng, task, family)
        found.setdefault(content(task.chains), problem)
    return list(found.values())


def is_name(name: str) -> bool:
    """Whether this is the name of a family, alone or with shapes as in "toy:32" or "toy:21+32"."""
    return name.partition(":")[0] in FAMILIES


def named_problems(name: str, split: str) -> list[Problem]:
    """The problems of a family; "toy:21+32" are those of toy whose shape is (2,1) or (3,2)."""
    family, _, wanted = name.partition(":")
    chosen = problems(split, family)
    if ":" not in name:
        return chosen
    levels = {level_of(shape, family) for shape in shapes_of(name)}
    return [problem for problem in chosen if problem.level in levels]


def shapes_of(name: str) -> list[tuple[int, int]]:
    """ "toy:21+32" -> [(2, 1), (3, 2)]. Raises UserError where the family has no such shape."""
    family, _, wanted = name.partition(":")
    by_digits = {f"{first}{second}": (first, second) for first, second in SHAPES[family]}
    shapes = []
    for digits in wanted.split("+"):
        if digits not in by_digits:
            there = ", ".join(by_digits)
            raise UserError(f"{name}: {family} has no shape {digits!r}; join some of {there} by +")
        shapes.append(by_digits[digits])
    return shapes


def level_of(shape: tuple[int, int], family: str) -> str:
    """The level of problems whose chains have so many operations each."""
    first_ops, second_ops = shape
    if family == "toy-hard":
        return f"{first_ops + second_ops} steps"
    return f"({first_ops},{second_ops})"


def draw_problem(rng: Random, task: Task, family: str) -> Problem:
    solutions = {}  # a dict keeps the order: the first solution is the one that SFT sees
    while len(solutions) < N_SOLUTIONS:
        solutions[solve(rng, task, f" \\boxed{{ {task.answer}}}")] = True
    first, second = task.chains
    shape = (len(first.ops), len(second.ops))
    question = "say" + task.question
    return Problem(
        id=question_id(question),
        question=question,
        answer=task.answer,
        solutions=tuple(solutions),
        source=family,
        kind="ordered",
        level=level_of(shape, family),
    )


# --- a strict check: did the response work the answer out? ----------------------------------------

EQUALS = {wording[3] for wording in WORDINGS}
OPERATORS = {}  # word -> sign
for words_of_signs in WORDINGS:
    OPERATORS.update(zip(words_of_signs[:3], "+-*"))
LARGEST_MEANT = 10**6  # a larger value is a mistake, and would cost time


def verify(response: str, problem: Problem) -> bool:
    r"""Is the answer right, with every written equation true?

    The last \boxed{} must be right, every written equation true, each number of the answer the
    result of one of them, and the last equation must give a number of the answer. So a guess fails,
    and so does a right answer after a false equation. A true equation that is not one of the
    problem's passes. It is for problems of this file, where both numbers need at least one
    operation.
    """
    boxes = re.findall(r"\\boxed\{([^{}]*)\}", response)
    if not boxes or boxes[-1].replace(" ", "") != problem.answer.replace(" ", ""):
        return False
    known = {}  # the hard family's letters, so that "q = p * 4 = 12" is checked as well
    for name, expression in re.findall(r"\b([a-z]) = ([^.]*)", problem.question):
        known[name] = value_of(expression.split(), known)
    results = []
    for sides in written_equations(response, known):
        values = [value_of(side, known) for side in sides]
        if values[0] is None or len(set(values)) > 1:
            return False
        if any(len(side) > 1 for side in sides):  # "13 = 13" works nothing out
            results.append(values[0])
    answer = [int(number) for number in problem.answer.split(",")]
    return bool(results) and results[-1] in answer and set(answer) <= set(results)


def written_equations(response: str, known: dict[str, int]) -> Iterator[list[list[str]]]:
    """The words of each side of each equation: [["11", "+", "2"], ["13"]]."""
    sides = [[]]
    for word in [*re.findall(r"[0-9]+|[a-z]+|\S", response), "."]:
        if word in EQUALS:
            sides.append([])
        elif word in OPERATORS or word in known or word.isdecimal():
            sides[-1].append(word)
        else:  # any other word ends the equation
            if len(sides) > 1:
                yield sides
            sides = [[]]


def value_of(expression: list[str], known: dict[str, int]) -> int | None:
    """The value of ["3", "times", "4", "-", "5"], products first.

    None if it is no expression, or too large to be meant.
    """
    operators = ["+", *expression[1::2]]
    operands = expression[::2]
    terms = []  # to be added up
    for operator, operand in itertools.zip_longest(operators, operands):
        if re.fullmatch("[0-9]{1,6}", operand or ""):
            n = int(operand)
        else:
            n = known.get(operand)
        sign = OPERATORS.get(operator)
        if n is None or sign is None:
            return None
        if sign == "*":
            terms[-1] *= n
        else:
            terms.append(n if sign == "+" else -n)
        if abs(terms[-1]) > LARGEST_MEANT:
            return None
    return sum(terms)
