"""Two runs side by side: the curves of their logs, and the paired differences of their results.

    python -m study.compare out/toy out/toy-mine                         # runs of the same names
    python -m study.compare out/toy/3.6M.rl.pt out/toy/3.6M.mine.pt      # two runs, whatever named
    python -m study.compare out/a out/b --out out/compared

Any folder that a stage has written to will do. Folders beside it that end in -seed1, -seed2, ...
count as further seeds where both sides have them. Prints the table, and writes it to compare.md
with the curves as compare.png. Runs no model.
"""

import argparse
import json
import os
import re
import sys
from dataclasses import dataclass

import numpy as np

from data import UserError
from data.files import file_errors, write_text
from plumbing.files import read_rows
from plumbing.flags import OneLineParser, check
from plumbing.result_rows import read_results
from study.drawing import pyplot
from study.estimates import summarise
from study.keys import question_of_row
from study.report import table
from study.rows import values_of_row

CURVES = ("accuracy", "reward", "loss", "length", "surprise", "grad_norm", "lr")
COLOURS = ("#7f7f7f", "#0072b2")  # of the first and of the second run


@dataclass(frozen=True)
class Run:
    """What one command made: a name in a folder, in as many folders as there are seeds."""

    folders: tuple[str, ...]
    name: str

    def logs(self) -> list[list[dict]]:
        logs = []
        for folder in self.folders:
            rows = read_rows(os.path.join(folder, f"{self.name}.log.jsonl"))
            if rows:
                logs.append(rows)
        return logs

    def results(self, seed: int) -> dict[str, dict[str, dict]]:
        """task -> how it was asked, as text -> the last such row."""
        found = {}
        for row in read_results(os.path.join(self.folders[seed], "results.jsonl")):
            if row["name"] == self.name:
                of_task = found.setdefault(row["task"], {})
                how = how_asked(row)
                of_task.pop(how, None)  # so that the last row stands last
                of_task[how] = row
        return found


def how_asked(row: dict) -> str:
    """The part of a row's key that must be equal on both sides.

    Other checkpoints, draws and k are compared; other temperatures, shots or samples are not.
    """
    question = question_of_row(row)
    for name in ("seed", "k"):
        question.pop(name, None)
    return json.dumps(question, sort_keys=True)


def main(argv: list[str]) -> None:
    layout = argparse.RawDescriptionHelpFormatter
    parser = OneLineParser(
        prog="compare.py", description=__doc__, formatter_class=layout, allow_abbrev=False
    )
    parser.add_argument("a", help="a run folder, or a checkpoint")
    parser.add_argument("b", help="what it is compared with")
    parser.add_argument("--out", default="", help="folder of compare.md and compare.png; default b")
    args = parser.parse_args(argv)
    try:
        print(compare(args.a, args.b, args.out))
    except (UserError, OSError) as error:
        sys.exit(f"compare.py: {error}")


def compare(a: str, b: str, out: str = "") -> str:
    """Write compare.md and compare.png -> the table. UserError if nothing can be compared."""
    pairs = pairs_of(a, b)
    check(not os.path.isfile(out), f"--out {out} is a file; give a folder")
    out = out or (b if os.path.isdir(b) else os.path.dirname(b) or ".")
    rows = []
    for first, second in pairs:
        rows += difference_rows(first, second)
    with_curves = []
    for first, second in pairs:
        if first.logs() and second.logs():
            with_curves.append((first, second))
    apart = []
    for first, second in pairs:
        apart += different_ways(first, second)
    check(
        bool(rows or with_curves or apart),
        f"{a} and {b} have neither results nor logs of the same runs",
    )
    text = f"# {b} against {a}\n\n"
    if rows:
        text += "Second minus first, paired by seed and problem: mean [95 % interval].\n\n"
        text += table(["run", "task", "seeds", "quantity", "first", "second", "difference"], rows)
    text += "".join(f"\n{line}\n" for line in apart)
    os.makedirs(out, exist_ok=True)
    if with_curves:
        path = os.path.join(out, "compare.png")
        fig = draw(with_curves)
        with file_errors("write", path):
            fig.savefig(path)
        pyplot().close(fig)
        text += "\n![curves](compare.png)\n"
    write_text(os.path.join(out, "compare.md"), text)
    return text


# ---------------------------------------------------------------------------------- which runs


def pairs_of(a: str, b: str) -> list[tuple[Run, Run]]:
    """The runs that stand on both sides."""
    one_run = a.endswith(".pt")  # the checkpoint itself may be gone; its rows and log tell
    check(one_run == b.endswith(".pt"), "give two folders or two checkpoints, not one of each")
    for path in (a, b):
        folder = (os.path.dirname(path) or ".") if one_run else path
        check(os.path.isdir(folder), f"{folder} is no folder; give one that a run has written to")
    if one_run:
        folders = seeds_of(os.path.dirname(a) or ".", os.path.dirname(b) or ".")
        return [(Run(folders[0], run_name(a)), Run(folders[1], run_name(b)))]
    folders = seeds_of(a, b)
    names_a = names_in(folders[0])
    names_b = names_in(folders[1])
    both = [name for name in names_a if name in names_b]
    check(
        bool(both),
        f"no run has the same name in both: {listed(names_a)} in {a}, {listed(names_b)} in {b}; "
        "give two checkpoints, as in a/x.pt b/y.pt",
    )
    return [(Run(folders[0], name), Run(folders[1], name)) for name in both]


def run_name(path: str) -> str:
    return re.sub(r"\.pt$", "", os.path.basename(path))


def listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") or "none"


def seeds_of(a: str, b: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The folders of the seeds that both sides have: a, a-seed1, ... and b, b-seed1, ..."""
    folders_a = [a.rstrip("/") or "/"]
    folders_b = [b.rstrip("/") or "/"]
    seed = 1
    while os.path.isdir(f"{folders_a[0]}-seed{seed}") and os.path.isdir(
        f"{folders_b[0]}-seed{seed}"
    ):
        folders_a.append(f"{folders_a[0]}-seed{seed}")
        folders_b.append(f"{folders_b[0]}-seed{seed}")
        seed += 1
    return tuple(folders_a), tuple(folders_b)


def names_in(folders: tuple[str, ...]) -> list[str]:
    """The runs that left a log or a result in the first folder."""
    names = []
    for file in sorted(os.listdir(folders[0])):
        if file.endswith(".log.jsonl"):
            names.append(file.removesuffix(".log.jsonl"))
    for row in read_results(os.path.join(folders[0], "results.jsonl")):
        if row["name"] not in names:
            names.append(row["name"])
    return names


# ---------------------------------------------------------------------------------- the table


def difference_rows(first: Run, second: Run) -> list[list[str]]:
    """A row for each task and quantity that both runs have."""
    name = first.name if first.name == second.name else f"{second.name} - {first.name}"
    rows = []
    for task, (results_a, results_b) in paired_results(first, second).items():
        for quantity in quantities(results_a, results_b):
            a, b, difference = estimates(results_a, results_b, quantity)
            if difference is None:
                continue
            digits = 3 if quantity == "heldout_loss" else 1
            n_seeds = str(len(difference.of_seeds))
            values = [a.text(digits), b.text(digits), difference.with_interval(digits)]
            rows.append([name, task, n_seeds, quantity, *values])
    return rows


def paired_results(first: Run, second: Run) -> dict[str, tuple[dict[int, dict], dict[int, dict]]]:
    """task -> (seed -> row of the first, seed -> row of the second), both asked in one way.

    Of several ways that both were asked in, the second's last. A task that they were asked in
    different ways is left out; different_ways says so.
    """
    found = {}
    for seed in range(len(first.folders)):
        of_first = first.results(seed)
        for task, of_second in second.results(seed).items():
            shared = [how for how in of_second if how in of_first.get(task, {})]
            if shared:
                rows_a, rows_b = found.setdefault(task, ({}, {}))
                rows_a[seed] = of_first[task][shared[-1]]
                rows_b[seed] = of_second[shared[-1]]
    return found


def different_ways(first: Run, second: Run) -> list[str]:
    """A line for each task that both have rows of, but none that were asked in one way."""
    lines = []
    paired = paired_results(first, second)
    of_second = second.results(0)
    for task, of_first in first.results(0).items():
        if task in of_second and task not in paired:
            key_a = json.loads(list(of_first)[-1])
            key_b = json.loads(list(of_second[task])[-1])
            names = sorted(key_a.keys() | key_b.keys())
            differ = [name for name in names if key_a.get(name) != key_b.get(name)]
            said = [f"{name} {key_a.get(name)} and {key_b.get(name)}" for name in differ]
            lines.append(
                f"{second.name} on {task} is not compared: it was asked with {', '.join(said)}."
            )
    return lines


def quantities(a: dict[int, dict], b: dict[int, dict]) -> list[str]:
    """pass@k that both have samples for; of likelihood tasks their mean."""
    if not a or not b:
        return []
    row_a = next(iter(a.values()))
    row_b = next(iter(b.values()))
    if row_a["kind"] != "pass@k":
        return ["general", "heldout_loss"]
    found = []
    for name in row_a:
        if name.startswith("pass@") and name in row_b:
            found.append(name)
    return found


def estimates(a: dict[int, dict], b: dict[int, dict], quantity: str):
    """-> (first, second, second minus first) over the seeds that both have, or Nones."""
    values_a = {}
    values_b = {}
    differences = {}
    for seed in sorted(a.keys() & b.keys()):
        of_a = values_of_row(a[seed], quantity)
        of_b = values_of_row(b[seed], quantity)
        shared = [problem for problem in of_a if problem in of_b]
        if shared:
            values_a[seed] = {problem: of_a[problem] for problem in shared}
            values_b[seed] = {problem: of_b[problem] for problem in shared}
            differences[seed] = {problem: of_b[problem] - of_a[problem] for problem in shared}
    return summarise(values_a), summarise(values_b), summarise(differences)


# ---------------------------------------------------------------------------------- the curves


def draw(pairs: list[tuple[Run, Run]]):
    """A row of panels for each pair of runs, a panel for each quantity of their logs."""
    quantities_of = []
    for first, second in pairs:
        quantities_of.append(curves_of(first.logs()[0], second.logs()[0]))
    columns = max(1, *[len(names) for names in quantities_of])
    size = (3.2 * columns, 2.5 * len(pairs))
    fig, axes = pyplot().subplots(
        len(pairs), columns, figsize=size, layout="constrained", squeeze=False
    )
    for row, (first, second), names in zip(axes, pairs, quantities_of):
        for ax, quantity in zip(row, names):
            for run, hue in zip((first, second), COLOURS):
                draw_run(ax, run, quantity, hue)
            ax.set(title=quantity, xlabel="step")
        for ax in row[len(names) :]:
            ax.set_visible(False)
        row[0].set_ylabel(second.name)
    handles = []
    for hue, label in zip(COLOURS, ("first", "second")):
        handles.append(pyplot().Line2D([], [], color=hue, label=label))
    fig.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False)
    return fig


def curves_of(a: list[dict], b: list[dict]) -> list[str]:
    """The quantities that both logs have, at most four."""
    return [name for name in CURVES if name in a[-1] and name in b[-1]][:4]


def draw_run(ax, run: Run, quantity: str, hue: str) -> None:
    """Each seed as a thin line, their mean over the steps that all have as a thick one."""
    curves = []
    for log in run.logs():
        curve = {row["step"]: row.get(quantity) for row in log}
        curve = {step: value for step, value in curve.items() if isinstance(value, int | float)}
        if curve:
            curves.append(curve)
    if not curves:
        return
    for curve in curves:
        ax.plot(list(curve), list(curve.values()), color=hue, alpha=0.35, linewidth=0.8)
    steps = sorted(set.intersection(*[set(curve) for curve in curves]))
    means = [np.mean([curve[step] for curve in curves]) for step in steps]
    ax.plot(steps, means, color=hue, linewidth=1.6)


if __name__ == "__main__":
    main(sys.argv[1:])
