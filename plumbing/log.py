"""The log of a run: one JSON line for each step, for programs to read."""

import json
import time

from data.files import file_errors, write_text
from plumbing import track
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
        self.start = step
        self.since = time.time()
        self.run = None  # of --wandb
        if rank() > 0:
            return
        if kind == "log":
            self.run = track.open_run(stem(out), step)
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
        if self.run:
            track.send(self.run, step, values)

    def left(self, done: int, total: int) -> str:
        """ " | 3 min left", by how long the steps of this process have taken."""
        seconds = (time.time() - self.since) / max(1, done - self.start) * (total - done)
        if done == total:
            return ""
        return f" | {time_text(seconds)} left"


def time_text(seconds: float) -> str:
    """ "45 s", "3 min", "2.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
