"""The log of a run: one JSON line for each step, for programs to read."""

import json

from data.files import write_aside
from plumbing.checkpoint import stem
from plumbing.files import read_rows
from plumbing.ranks import rank


class Log:
    """`<name>.log.jsonl`, or another `kind` of lines in `<name>.<kind>.jsonl`. Rank 0 writes it.

    `step`: the step that a run resumes from; the lines after it are dropped. 0: all are.
    """

    def __init__(self, out: str, step: int, kind: str = "log"):
        self.path = f"{stem(out)}.{kind}.jsonl"
        if rank() > 0:
            return
        kept = []
        if step > 0:
            kept = [row for row in read_rows(self.path) if row["step"] <= step]
        text = "".join(json.dumps(row) + "\n" for row in kept)
        write_aside(self.path, lambda file: file.write(text.encode()))

    def write(self, step: int, **values) -> None:
        if rank() == 0:
            with open(self.path, "a") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
