"""Training problems, and others that are kept apart for validation."""

import hashlib

from data.problem import Problem, like
from data.problems import load_problems
from data.toy import FAMILIES

WITH_VAL = (*FAMILIES, "openmath-gsm8k", "openmath")  # have a validation split of their own


def train_and_val(name: str, n: int) -> tuple[list[Problem], list[Problem]]:
    """(training problems, n held-out ones for validation), never the same question in both.

    Sets with a validation split give its first n. Of the others n questions, but at most a quarter,
    are drawn by their hash: the same ones for every seed, order and machine, and they are not
    trained on. n = 0 holds nothing out.
    """
    train = load_problems(name, "train")
    if not n:
        return train, []
    if name.partition(":")[0] in WITH_VAL:
        return train, load_problems(name, "val")[:n]
    first = {}  # question -> the first problem that asks it
    for p in train:
        first.setdefault(p.question, p)
    questions = sorted(first, key=validation_rank)
    held_out = questions[: min(n, len(questions) // 4)]
    left = set(questions) - set(held_out)
    chosen = [p for p in train if p.question in left]
    return like(train, chosen), [first[q] for q in held_out]


def validation_rank(question: str) -> bytes:
    return hashlib.blake2b(b"held out" + question.encode()).digest()
