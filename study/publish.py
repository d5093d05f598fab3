"""What is kept of a study in the repository: its rows whole, its RL logs in small.

    python -m study.publish out/toy-study results/toy
    python -m study.figures results/toy/toy-study* --out results/toy

The second command draws report and figures from what the first one copied, bit for bit. A log keeps
its first and last five steps and every tenth, of each the quantities that the report reads.
"""

import argparse
import json
import os
import shutil
import sys

from data import UserError
from data.files import file_errors, write_text
from plumbing.files import read_rows
from plumbing.flags import OneLineParser, check
from study.commands import COMMANDS
from study.own_experiments import FILE
from study.rows import IN_FIGURES

WHOLE = ("results.jsonl", "distances.jsonl", COMMANDS, FILE)
KEPT = (*IN_FIGURES, "reward", "groups", "val_accuracy", "tokens", "scored")
DIGITS = 4


def main(argv: list[str]) -> None:
    layout = argparse.RawDescriptionHelpFormatter
    parser = OneLineParser(
        prog="publish.py", description=__doc__, formatter_class=layout, allow_abbrev=False
    )
    parser.add_argument("study", help="the folder of seed 0; those of further seeds lie beside it")
    parser.add_argument("out", help="where the copies go, under the same names")
    args = parser.parse_args(argv)
    try:
        for folder in folders_of(args.study):
            print(publish(folder, os.path.join(args.out, os.path.basename(folder))))
    except (UserError, OSError) as error:
        sys.exit(f"publish.py: {error}")


def folders_of(study: str) -> list[str]:
    """The run folders of all seeds that have rows."""
    study = study.rstrip("/")
    check(os.path.isdir(study), f"{study} is no folder; give one that excursions.py made")
    folders = [study]
    while os.path.isdir(f"{study}-seed{len(folders)}"):
        folders.append(f"{study}-seed{len(folders)}")
    return [folder for folder in folders if read_rows(os.path.join(folder, "results.jsonl"))]


def publish(folder: str, out: str) -> str:
    """Copy a run folder's rows and its logs in small -> a line that says what."""
    os.makedirs(out, exist_ok=True)
    for name in WHOLE:
        path = os.path.join(folder, name)
        if os.path.exists(path):
            with file_errors("copy", path):
                shutil.copyfile(path, os.path.join(out, name))
    n_logs = 0
    for name in sorted(os.listdir(folder)):
        rows = []
        if name.endswith(".log.jsonl"):
            rows = [row for row in read_rows(os.path.join(folder, name)) if "accuracy" in row]
        if rows:
            write_text(os.path.join(out, name), in_small(rows))
            n_logs += 1
    n_rows = len(read_rows(os.path.join(out, "results.jsonl")))
    return f"{out}: {n_rows} rows, {n_logs} logs"


def in_small(rows: list[dict]) -> str:
    """The lines of a log that are kept."""
    lines = []
    for place, row in enumerate(rows):
        is_end = place < 5 or place >= len(rows) - 5
        if is_end or row["step"] % 10 == 0:
            kept = {name: rounded(row[name]) for name in KEPT if name in row}
            lines.append(json.dumps(kept) + "\n")
    return "".join(lines)


def rounded(value):
    return round(value, DIGITS) if isinstance(value, float) else value


if __name__ == "__main__":
    main(sys.argv[1:])
