"""python -m data.problems: how large a training set is, and what it shares with test sets."""

import sys

from data.problems import load_problems
from data.sources import NAMES, contamination, counted


def main(*names: str) -> None:
    if not names:
        sys.exit(f"usage: python -m data.problems {'|'.join(NAMES)}|FILE.jsonl [TEST SETS]")
    try:
        report(*names)
    except (ValueError, OSError) as error:
        sys.exit(f"data.problems: {error}")


def report(name: str, *tests: str) -> None:
    """Print the counts of a training set and what it shares with test sets."""
    train = load_problems(name, "train")
    print(counted(name, "train", train))
    for test in tests or ("gsm8k", "math"):
        held_out = load_problems(test, "test")
        print(counted(test, "test", held_out))
        equal, near = contamination(train, held_out)
        print(
            f"contamination: of {len(train):,} training questions {equal:,} stand in {test} test, "
            f"{near:,} share 13 words in a row with one of its {len(held_out):,}"
        )
