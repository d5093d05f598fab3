"""The log of a run: one JSON line for each step, for programs to read."""

import json

from data.files import file_errors, write_text
from plumbing.checkpoint import stem
from plumbing.files import read_rows
from plumbing.ranks import rank


class Log:
    """`<name>.log.jsonl`, or another `kind` of lines in `<name>.<kind>.jsonl`. Rank 0 writes it.

    `step`: the step that a run resumes from; the lines after it are dropped. 0: all are. Raises
    OSError, with the line, where a line is damaged.
    """

    def __init__(self, out: str, step: int, kind: str = "log"):
        self.path = f"{stem(out)}.{kind}.jsonl"
        if rank() > 0:
            return
        lines = []
        if step > 0:
            lines = [json.dumps(row) for row in self.read() if row["step"] <= step]
        write_text(self.path, "".join(f"{line}\n" for line in lines))

    def read(self) -> list[dict]:
        """The lines that are there. OSError where one has no step."""
        rows = read_rows(self.path)
        for number, row in enumerate(rows, 1):
            if type(row.get("step")) is not int:
                message = f"{self.path}: row {number} has no number of a step"
                raise OSError(f"{message}; delete that line")
        return rows

    def write(self, step: int, **values) -> None:
        if rank() > 0:
            return
        line = json.dumps({"step": step, **values}) + "\n"
        with file_errors("write", self.path), open(self.path, "a") as file:
            file.write(line)
