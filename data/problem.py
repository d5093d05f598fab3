"""What one problem is, whatever source it comes from, and what a list of them remembers."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from data import UserError

# The authors' words.
INSTRUCTION = "Let's think step by step and output the final answer within \\boxed{}."

# How an answer is graded; data/grader.py says what each of them accepts.
KINDS = (
    "gsm8k",  # numbers, in a box or after ####
    "math",  # anything, in a box; a list of solutions may come in any order
    "ordered",  # as math, but a list must keep its order: the toy world asks for two numbers
)


@dataclass(frozen=True)
class Problem:
    id: str  # a stable hash of the question, unless the source has ids of its own
    question: str
    answer: str  # what the grader compares a response with
    solutions: Sequence[str]  # worked ones; SFT trains on the first, SFT-Gold on all
    source: str  # where it comes from: a named set, or the name of a file
    kind: str = "math"  # how it is graded, one of KINDS; never decided by the name of a file
    level: str = ""  # results are also reported by it. Toy: "(2,3)" or "4 steps"; MATH: "Level 3"


def question_id(question: str) -> str:
    """12 hex digits, the same on every machine: question_id("1 + 1 ?") == "47d10e5c5a4f"."""
    return hashlib.blake2b(question.encode(), digest_size=6).hexdigest()


class Problems(list):
    """The problems of a file or a data set, and which of its rows are not among them.

    The order is that of the rows. A plain list of problems has nothing to remember.
    """

    def __init__(self, problems: Iterable[Problem] = (), unit: str = "line"):
        super().__init__(problems)
        self.unit = unit  # what is numbered: "line" of a file, "row" of a data set
        self.numbers: list[int] = []  # of each problem's row, or none where they are not known
        self.left_out: dict[str, list[int]] = {}  # why -> the numbers of the rows

    def n_left_out(self) -> int:
        return sum(len(numbers) for numbers in self.left_out.values())

    def what_is_left_out(self) -> str:
        """'2 rows with an empty box (lines 3 and 9)', or "" where there is nothing."""
        parts = []
        for reason, numbers in self.left_out.items():
            rows = "row" if len(numbers) == 1 else "rows"
            parts.append(f"{len(numbers):,} {rows} with {reason} ({places(self.unit, numbers)})")
        return ", ".join(parts)


def like(others: list[Problem], problems: Iterable[Problem]) -> list[Problem]:
    """Problems made or chosen from `others`, in a list that remembers what was left out there."""
    if not isinstance(others, Problems):
        return list(problems)
    chosen = Problems(problems, others.unit)
    chosen.left_out = others.left_out
    if len(chosen) == len(others):  # none is missing, so they stand in the same order
        chosen.numbers = others.numbers
    return chosen


def places(unit: str, numbers: Sequence[int], most: int = 5) -> str:
    """'line 3', 'lines 3 and 9', or 'lines 3, 9, 12, 15, 20 and 480 more'."""
    if len(numbers) == 1:
        return f"{unit} {numbers[0]:,}"
    shown = [f"{number:,}" for number in numbers[:most]]
    more = len(numbers) - len(shown)
    last = f"{more:,} more" if more else shown.pop()
    return f"{unit}s {', '.join(shown)} and {last}"


def with_kind(problems: list[Problem], kind: str) -> list[Problem]:
    """The problems, all graded by `kind` (--kind), or as they are where it is "". UserError."""
    if not kind:
        return problems
    if kind not in KINDS:
        raise UserError(f"--kind {kind}: choose {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    return like(problems, [replace(p, kind=kind) for p in problems])
