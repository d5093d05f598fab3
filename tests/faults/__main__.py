"""The program: python -m tests.faults. See the package's docstring."""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

from tests.faults import children, disks, flags, kills, mutations, small, stages, twins
from tests.faults.formats import FORMATS
from tests.faults.trials import Result, Trial, run_all, table

# part: what is done to whom
PARTS = {
    "kills": "of each stage, stopped at a random moment and run again",
    "disks": "of each stage, with a disk that is full at a random moment",
    "tmpfs": "of each stage, on a real disk that is too small; mounts one, so it needs root",
    "twins": "of each stage, two equal commands at once",
    "flags": "flags of all stages with odd values, one at a time; 0 is all",
    "mutations": "damaged files, over all formats",
}
ROUND = {"kills": 1, "disks": 1, "twins": 1, "flags": 60, "mutations": 120}
SHORT = {"kills": 1, "disks": 1, "twins": 1, "flags": 24, "mutations": 48}
# Left out of --short: a study and two ranks take seconds.
SLOW = ("excursions", "rl-ranks", "results", "rl-log", "commands")


def read_flags(argv: list[str]) -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=sys.modules["tests.faults"].__doc__,
        formatter_class=layout, allow_abbrev=False,
    )  # fmt: skip
    for part, text in PARTS.items():
        parser.add_argument(f"--{part}", type=int, metavar="N", help=f"N trials {text}")
    text = "N short rounds of all parts, each with seeds of its own"
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help=text)
    text = "of the first trial; the next have the next seeds, and a seed is always the same trial"
    parser.add_argument("--seed", type=int, default=0, help=text)
    text = "these stages, formats or flags alone, joined by commas"
    parser.add_argument("--only", default="", metavar="NAMES", help=text)
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="trials at a time")
    parser.add_argument("--keep", action="store_true", help="keep the folders of bad trials")
    parser.add_argument("--short", action="store_true", help="what the test suite runs")
    parser.add_argument("--rows", default="", metavar="FILE", help="write a JSON line per trial")
    return parser.parse_args(argv)


def counts_of(args) -> dict[str, int]:
    """Part -> how many trials; a round of all where none is given."""
    counts = {}
    for part in PARTS:
        if getattr(args, part) is not None:
            counts[part] = getattr(args, part)
    return counts or (SHORT if args.short else ROUND)


def stage_trials(part: str, count: int, args, seed: int, world: Path, scratch: Path):
    """Trials over the stages, the stage changing fastest."""
    run = {
        "kills": kills.trial,
        "disks": disks.trial,
        "tmpfs": disks.tmpfs_trial,
        "twins": twins.trial,
    }
    trials = []
    for i in range(count):
        for name in chosen(list(stages.COMMANDS), args):
            stage = stages.Stage(name, world, scratch)
            trials.append(Trial(part, name, seed + i, partial(run[part], stage)))
    return trials


def chosen(names: list[str], args) -> list[str]:
    """Those in --only, or all, with --short without the slow ones."""
    if args.only:
        return [name for name in names if name in args.only.split(",")]
    return [name for name in names if not (args.short and name in SLOW)]


def trials_of(part: str, count: int, args, seed: int, world: Path, scratch: Path) -> list[Trial]:
    if part == "flags":
        return flags.trials(count, seed, args.only, world, scratch)
    if part == "mutations":
        return mutations.trials(count, seed, chosen(list(FORMATS), args), world, scratch)
    if part == "tmpfs" and not disks.can_mount(scratch):
        print("--tmpfs: not available; this process may not mount a disk")
        return []
    return stage_trials(part, count, args, seed, world, scratch)


def write_rows(path: str, results: list[Result]) -> None:
    if not path:
        return
    with open(path, "a") as file:
        for result in results:
            row = asdict(result) | {"bad": result.bad, "command": result.command()}
            file.write(json.dumps(row) + "\n")


def check_names(only: str) -> None:
    known = {*stages.COMMANDS, *FORMATS, *flags.names()}
    for name in only.split(","):
        if only and name not in known:
            sys.exit(f"tests.faults: --only {name} is no stage, format or flag")


def run_rounds(args, world: Path, scratch: Path) -> list[Result]:
    """Make all trials, and print a table after each part."""
    everything = []
    for number in range(args.rounds):
        for part, count in counts_of(args).items():
            clock = time.time()
            seed = args.seed + 1000 * number
            trials = trials_of(part, count, args, seed, world, scratch)
            if not trials:
                continue
            results = run_all(trials, args.workers, scratch / "bad" if args.keep else None)
            write_rows(args.rows, results)
            everything += results
            print(f"\n{table(part, results)}\n({time.time() - clock:.0f} s)\n", flush=True)
    return everything


def main(argv: list[str]) -> int:
    args = read_flags(argv)
    args.rows = args.rows and os.path.abspath(args.rows)
    small.import_and_shrink()
    check_names(args.only)
    home = Path(tempfile.mkdtemp(prefix="faults-"))
    world = home / "world"
    scratch = home / "scratch"
    scratch.mkdir()
    os.chdir(scratch)
    try:
        small.make_world(world)
        results = run_rounds(args, world, scratch)
    except children.Broken as error:
        sys.exit(f"tests.faults: {error}")
    finally:
        if args.keep:
            print(f"the folders of bad trials are in {scratch / 'bad'}, what they read in {world}")
        else:
            os.chdir("/")
            shutil.rmtree(home, ignore_errors=True)
    n_bad = sum(result.bad for result in results)
    print(f"{len(results):,} trials, {n_bad:,} bad")
    return 1 if n_bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
