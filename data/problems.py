r"""Sets of problems, by name or from a file, and their prompts. data/problem.py defines Problem.

    problems = load_problems("toy", "train")
    problems = load_problems("my_problems.jsonl")   # row_to_problem (data/rows.py) has the fields

    python -m data.problems my_problems.jsonl       # what is in it, and what is wrong with it

Training and testing build their prompts here and cannot drift apart (but for --style authors).
"""

import sys
from pathlib import Path

from data import UserError, sources, toy
from data.problem import INSTRUCTION, Problem
from data.sources import NAMES


def prompt_text(problem: Problem) -> str:
    """The authors' zero-shot prompt; the response follows without chat roles."""
    return f"{problem.question} {INSTRUCTION}\n"


def load_problems(name: str, split: str = "train", marks: bool = False) -> list[Problem]:
    """The problems of a named set (NAMES) or of a jsonl file.

    A file is one split, so `split` is ignored for it. `marks` keeps GSM8K's <<48/2=24>>, which is
    otherwise cut from its solutions. Rows without a reference answer are left out and counted.
    """
    if toy.is_name(name):  # "toy", "toy-hard", or some shapes alone, as in "toy:21+32"
        return toy.named_problems(name, split)
    if name == "gsm8k":
        return sources.load_gsm8k(split, marks)
    if name == "math":
        return sources.load_math(split)
    if name in ("openmath", "openmath-gsm8k"):
        return sources.load_openmath(name, split)
    if Path(name).suffix == ".jsonl" or Path(name).exists():
        return sources.load_file(Path(name), marks)
    raise UserError(
        f"unknown problem set {name!r}; choose one of {', '.join(NAMES)}, "
        "or give the path of a .jsonl file"
    )


def is_toy(problem: Problem) -> bool:
    """Whether it is from the toy world; toy.verify can check every equation of its responses."""
    return problem.source in toy.FAMILIES


if __name__ == "__main__":
    from data.problem_report import main

    main(*sys.argv[1:])
