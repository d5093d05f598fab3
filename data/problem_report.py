"""python -m data.problems: what is in a set of problems, and what it shares with test sets.

    python -m data.problems my.jsonl                        # needs no network
    python -m data.problems my.jsonl my_test.jsonl          # and what the two share
    python -m data.problems openmath-gsm8k                  # counts; the test sets are gsm8k, math

Of a file it says how many problems it has and which rows were left out, and why; their levels and
lengths in tokens; and which solutions the grader does not accept. It ends with status 1 where the
file cannot be used.
"""

import argparse
import hashlib
import os
import tempfile

from data import UserError, problem_check
from data.files import only_print
from data.jsonl import one_line
from data.problem import Problem
from data.problems import load_problems
from data.sources import NAMES, contamination, counted, is_named
from data.tokenizer import get_tokenizer

CL100K = "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken"


def main(*argv: str) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m data.problems",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", help=f"a .jsonl file, or one of {', '.join(NAMES)}")
    parser.add_argument("tests", nargs="*", default=[], help="test sets to compare with")
    parser.add_argument(
        "--tokenizer", default="", help="toy, dolma2 or a tokenizer.json; default what is here"
    )
    flags = parser.parse_args(argv)
    only_print()
    try:
        report(flags.name, *flags.tests, tokenizer=flags.tokenizer)
    except (UserError, OSError) as error:
        raise SystemExit(f"data.problems: {error}") from None


def report(name: str, *tests: str, tokenizer: str = "") -> None:
    """Print what is in a set of problems, and what it shares with the test sets."""
    problems = load_problems(name, "train")
    print(counted(name, "train", problems))
    if not is_named(name):
        describe(problems, tokenizer)
    if not tests and is_named(name):
        tests = ("gsm8k", "math")
    for test in tests:
        held_out = load_problems(test, "test")
        print(counted(test, "test", held_out))
        equal, near = contamination(problems, held_out)
        print(
            f"contamination: of {len(problems):,} training questions {equal:,} stand in {test} "
            f"test, {near:,} share 13 words in a row with one of its {len(held_out):,}"
        )


def describe(problems: list[Problem], tokenizer: str) -> None:
    """Print a line for each thing that somebody should know of an own file."""
    lines = []
    levels = problem_check.levels(problems)
    if levels:
        lines.append(f"levels: {levels}")
    n_repeated = problem_check.repeated(problems)
    if n_repeated:
        lines.append(f"{n_repeated:,} ask the same as an earlier one")
    encoding = get_tokenizer(tokenizer or default_tokenizer())
    lines += problem_check.findings_in_lines(problems, encoding)
    if encoding.name == "toy":
        lines.append(problem_check.unknown_words(problems, encoding))
    for line in filter(None, lines):
        print(f"  {one_line(line)}")


def default_tokenizer() -> str:
    """dolma2, where tiktoken has fetched it before, and else the toy tokenizer, which is built."""
    folder = os.path.join(tempfile.gettempdir(), "data-gym-cache")
    for variable in ("DATA_GYM_CACHE_DIR", "TIKTOKEN_CACHE_DIR"):
        folder = os.environ.get(variable, folder)
    fetched = os.path.join(folder, hashlib.sha1(CL100K.encode()).hexdigest())
    return "dolma2" if os.path.isfile(fetched) else "toy"
