"""Numbers in documents, from committed rows: checks them, or writes them.

    python -m tools.numbers README.md            # says which are not what the rows give
    python -m tools.numbers --write README.md

A number is followed by a comment that a reader does not see, with the rule it comes from, in the
words of results/toy/predictions.md:

    pass@1 rises by 58.4<!--1 pass@1(3.6M.rl) - pass@1(3.6M)--> points

The comment begins with how it is written: the digits behind the point, + for a sign also before
what is positive, [] for the 95 % interval behind it, n for the number of seeds instead, % for a
logarithm (border) as the percentage that it is of. The rows are those of results/toy/toy-study*, or
of the folders that a page names: <!-- rows: FOLDERS* -->.
"""

import argparse
import re
import sys
from pathlib import Path

from data import UserError
from data.files import file_errors, write_text
from plumbing.flags import OneLineParser
from study.predictions import read_terms, value_of
from study.rows import Study
from study.takeoff import in_percent

ROWS = "results/toy/toy-study*"
OTHER_ROWS = re.compile(r"<!-- rows: (\S+) -->")
NUMBER = r"[+-]?\d[\d,]*(?:\.\d+)?"
MARKED = re.compile(
    rf"({NUMBER}(?: \[{NUMBER}, {NUMBER}\])?)<!--(\d?\+?(?:\[\])?[n%]?) ([^>]+?)-->"
)


def committed_study(page: str) -> Study:
    """The rows that the text of a page speaks of. Raises UserError where there are none."""
    other = OTHER_ROWS.search(page)
    pattern = other[1] if other else ROWS
    folders = sorted(map(str, Path().glob(pattern)), key=lambda path: (len(path), path))
    if not folders:
        raise UserError(f"{pattern} has no rows of a study; see study/publish.py")
    return Study(folders)


def written(study: Study, how: str, rule: str) -> str:
    """The number that a rule gives, as `how` says. Raises UserError where there are no rows."""
    task, _, sum_of_terms = rule.rpartition(":")  # "toy-hard: pass@1(3.6M.hard-rl)"
    estimate = value_of(study.on(task.strip()), read_terms(sum_of_terms.strip(), rule))
    if estimate is None:
        raise UserError(f"there are no rows for {rule}")
    if "n" in how:
        return str(len(estimate.of_seeds))
    if "%" in how:
        if not rule.startswith("border"):
            raise UserError(f"<!--{how} {rule}-->: % is for a border alone, which is a logarithm")
        text = in_percent(estimate)
        return text if "[]" in how else text.split(" ")[0]
    digits = int(how[0]) if how[:1].isdigit() else 1
    sign = "+" if "+" in how else ""
    if "[]" in how:
        return estimate.with_interval(digits, sign)
    return f"{estimate.mean:{sign}.{digits}f}"


def corrected(text: str, study: Study) -> tuple[str, list[str]]:
    """-> (the text with the numbers that the rows give, what was wrong)."""
    wrong = []

    def replaced(match: re.Match) -> str:
        number, how, rule = match.groups()
        right = written(study, how, rule)
        if number != right:
            wrong.append(f"{number} should be {right}: {rule}")
        return f"{right}<!--{how} {rule}-->"

    return MARKED.sub(replaced, text), wrong


def main(argv: list[str]) -> None:
    layout = argparse.RawDescriptionHelpFormatter
    parser = OneLineParser(
        prog="numbers.py", description=__doc__, formatter_class=layout, allow_abbrev=False
    )
    parser.add_argument("pages", nargs="+", help="Markdown files")
    parser.add_argument("--write", action="store_true", help="correct them")
    args = parser.parse_args(argv)
    found = 0
    try:
        for page in args.pages:
            with file_errors("read", page):
                text = Path(page).read_text(encoding="utf-8")
            right, wrong = corrected(text, committed_study(text))
            for line in wrong:
                print(f"{page}: {line}")
            found += len(wrong)
            if args.write and wrong:
                write_text(page, right)
    except (UserError, OSError) as error:
        sys.exit(f"numbers.py: {error}")
    if found and not args.write:
        sys.exit(f"numbers.py: {found} numbers are not those of the rows; --write corrects them")


if __name__ == "__main__":
    main(sys.argv[1:])
