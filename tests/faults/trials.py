"""One trial is one fault and what came of it; here they are run, counted and printed."""

import os
import pickle
import shutil
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.faults.children import Broken, own_folder, transcript

# What may come of a trial. `fine` and `refused` are right; all others are bad.
FINE = "fine"  # the command did its work, as without the fault
REFUSED = "refused"  # one line that names what is wrong
ENDED_BEFORE = "ended before"  # the run was over when the fault was due
BAD = {
    "broken": "the command does not work at all, without any fault",
    "different": "the results are not those of an undisturbed run",
    "failed": "the same command does not finish afterwards",
    "leftover": "a .tmp stays",
    "traceback": "",
    "hang": "still running at the time limit",
    "silent": "another result, and nothing was said",
    "unclear": "not one line, or none that names the file or flag",
    "not finite": "a checkpoint or a log with numbers that are not finite",
}
WIDTH = 150  # of a line on a bad trial


@dataclass
class Result:
    """What came of one trial."""

    part: str  # kills, mutations, disks, tmpfs, twins, flags
    name: str  # of the stage, format or flag
    seed: int
    verdict: str
    how: str  # what was done, in words
    said: str = ""  # the end of what the command said, or the first difference

    @property
    def bad(self) -> bool:
        return self.verdict in BAD

    def command(self) -> str:
        """The command that does the same trial again."""
        return f"python -m tests.faults --{self.part} 1 --only {self.name} --seed {self.seed}"


@dataclass
class Trial:
    """A trial that has still to be made: run(seed) -> (verdict, how, said)."""

    part: str
    name: str
    seed: int
    run: Callable[[int], tuple[str, str, str]]

    def result(self) -> Result:
        try:
            return Result(self.part, self.name, self.seed, *self.run(self.seed))
        except Broken as broken:
            return Result(self.part, self.name, self.seed, "broken", last_line(str(broken)))
        except BaseException as error:  # one of this program's own, then
            error.add_note(f"in --{self.part} 1 --only {self.name} --seed {self.seed}")
            raise


def run_all(trials: list[Trial], workers: int, keep: Path | None = None) -> list[Result]:
    """Make all trials, `workers` of them at a time, each in a process that forks its commands.

    keep: where the folders of bad trials are kept.
    """
    if workers == 1:
        return list(noted(trials, keep))
    pipes = []
    for number in range(workers):
        ours, of_child = os.pipe()
        if os.fork() == 0:
            os.close(ours)
            send(of_child, trials[number::workers], keep)
        os.close(of_child)
        pipes.append(os.fdopen(ours, "rb"))
    results = []
    for pipe in pipes:
        with pipe:
            results += pickle.load(pipe)
    for _ in pipes:
        os.wait()
    return results


def send(pipe: int, trials: list[Trial], keep: Path | None) -> None:
    try:
        results = list(noted(trials, keep))
        with os.fdopen(pipe, "wb") as file:
            pickle.dump(results, file)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def noted(trials: Iterable[Trial], keep: Path | None):
    """Each result; a bad one is printed at once."""
    for trial in trials:
        result = trial.result()
        if result.bad:
            print_bad(result)
        if result.bad and keep:
            name = f"{result.part}-{result.name}-{result.seed}"
            shutil.copytree(own_folder(keep.parent, empty=False), keep / name, dirs_exist_ok=True)
            (keep / name / "transcript.txt").write_text("\n".join(transcript))
        yield result


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def print_bad(result: Result) -> None:
    print(f"{result.verdict.upper()}: {result.command()}")
    how = result.how if len(result.how) < WIDTH else f"{result.how[:40]} ... {result.how[-WIDTH:]}"
    print(f"    {how}")
    if result.said:
        print(f"    {result.said}"[: 2 * WIDTH])
    sys.stdout.flush()


def table(part: str, results: list[Result]) -> str:
    """One line for each name, with how often each verdict came."""
    counts = {}
    for result in results:
        counts.setdefault(result.name, Counter())[result.verdict] += 1
    if part == "flags":
        counts = by_script(counts)
    verdicts = [FINE, REFUSED, ENDED_BEFORE, *BAD]
    total = sum(counts.values(), Counter())
    shown = [v for v in verdicts if total[v] or v in columns_of(part)]
    rows = [["", "trials", *shown]]
    for name, of_name in [*counts.items(), ("all", total)]:
        rows.append([name, str(of_name.total()), *(str(of_name[v]) for v in shown)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [f"--{part}"]
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        lines.append("  ".join(cells))
    return "\n".join(lines)


def columns_of(part: str) -> tuple[str, ...]:
    """The verdicts that are shown even where there is none."""
    if part == "mutations":
        return (FINE, REFUSED, "unclear", "traceback", "hang", "silent")
    if part == "flags":
        return (FINE, REFUSED, "unclear", "traceback", "hang", "not finite")
    if part in ("disks", "tmpfs"):
        return (REFUSED, "different", "failed", "leftover", "traceback", "hang")
    return (FINE, "different", "failed", "traceback", "hang")


def by_script(counts: dict[str, Counter]) -> dict[str, Counter]:
    """Flags are many: grpo:kl counts for grpo."""
    summed = {}
    for name, of_name in counts.items():
        summed.setdefault(name.split(":")[0], Counter()).update(of_name)
    return summed


def judged_end(outcome, names: Iterable[str]) -> str:
    """Of a command that ended with an error: refused, unclear, traceback or hang.

    names: one of them has to stand in the line.
    """
    if outcome.hung:
        return "hang"
    if outcome.traceback or outcome.status < 0:
        return "traceback"
    lines = outcome.lines
    if len(lines) != 1 or len(lines[0]) > 1000:
        return "unclear"
    return REFUSED if any(name in lines[0] for name in names) else "unclear"
