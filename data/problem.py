"""What one problem is, whatever source it comes from."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

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
