"""The program: python -m tests.faults. See the package's docstring."""

import argparse
import os
import shutil
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from tests.faults import disks, flags, kills, mutations, small, stages, twins
from tests.faults.trials import Trial, run_all, table

# part: (what is done to whom, its number in a short round)
PARTS = {
    "kills": ("of each stage, stopped at a random moment and run again", 2),
    "disks": ("of each stage, with a disk that is full at a random moment", 2),
    "twins": ("of each stage, two equal commands at once", 1),
    "flags": ("flags of all stages with odd values, one at a time; 0 is all", 60),
    "mutations": ("damaged files, over all formats", 120),
}


def read_flags(argv: list[str]) -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=sys.modules["tests.faults"].__doc__,
        formatter_class=layout, allow_abbrev=False,
    )  # fmt: skip
    for part, (text, _) in PARTS.items():
        parser.add_argument(f"--{part}", type=int, metavar="N", help=f"N trials {text}")
    text = "N trials of each stage on a real disk that is too small; mounts one, so it needs root"
    parser.add_argument("--tmpfs", type=int, metavar="N", help=text)
    text = "N short rounds of all parts, each with seeds of its own"
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help=text)
    text = "of the first trial; the next have the next seeds, and a seed is always the same trial"
    parser.add_argument("--seed", type=int, default=0, help=text)
    text = "these stages, formats or flags alone, joined by commas"
    parser.add_argument("--only", default="", metavar="NAMES", help=text)
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="trials at a time")
    parser.add_argument("--keep", action="store_true", help="keep the folders of bad trials")
    return parser.parse_args(argv)


def counts_of(args) -> dict[str, int]:
    """Part -> how many trials; a short round where none is given."""
    counts = {}
    for part in [*PARTS, "tmpfs"]:
        if getattr(args, part) is not None:
            counts[part] = getattr(args, part)
    return counts or {part: number for part, (_, number) in PARTS.items()}


def stage_trials(part: str, count: int, seed: int, only: str, world: Path, scratch: Path):
    """Trials over the stages, the stage changing fastest."""
    run = {
        "kills": kills.trial,
        "disks": disks.trial,
        "tmpfs": disks.tmpfs_trial,
        "twins": twins.trial,
    }
    names = chosen(list(stages.COMMANDS), only)
    trials = []
    for i in range(count):
        for name in names:
            stage = stages.Stage(name, world, scratch)
            trials.append(Trial(part, name, seed + i, partial(run[part], stage)))
    return trials


def chosen(names: list[str], only: str) -> list[str]:
    """The names in --only; all where it is empty."""
    if not only:
        return names
    wanted = only.split(",")
    return [name for name in names if name in wanted or name.split(":")[0] in wanted]


def trials_of(part: str, count: int, args, seed: int, world: Path, scratch: Path) -> list[Trial]:
    if part == "flags":
        return flags.trials(count, seed, args.only, world, scratch)
    if part == "mutations":
        return mutations.trials(count, seed, args.only, world, scratch)
    if part == "tmpfs" and not disks.can_mount(scratch):
        print("--tmpfs: not available; this process may not mount a disk")
        return []
    return stage_trials(part, count, seed, args.only, world, scratch)


def main(argv: list[str]) -> int:
    args = read_flags(argv)
    counts = counts_of(args)
    home = Path(tempfile.mkdtemp(prefix="faults-"))
    world = home / "world"
    scratch = home / "scratch"
    scratch.mkdir()
    os.chdir(scratch)
    try:
        small.import_and_shrink()
        small.make_world(world)
        n_bad = 0
        n_trials = 0
        for number in range(args.rounds):
            for part, count in counts.items():
                clock = time.time()
                seed = args.seed + 1000 * number
                trials = trials_of(part, count, args, seed, world, scratch)
                results = run_all(trials, args.workers, scratch / "bad" if args.keep else None)
                if not results:
                    continue
                n_bad += sum(result.bad for result in results)
                n_trials += len(results)
                print(f"\n{table(part, results)}\n({time.time() - clock:.0f} s)\n", flush=True)
        print(f"{n_trials:,} trials, {n_bad:,} bad")
    finally:
        if args.keep:
            print(f"the folders of bad trials are in {scratch / 'bad'}, what they read in {world}")
        else:
            os.chdir("/")
            shutil.rmtree(home, ignore_errors=True)
    if n_trials == 0:
        sys.exit(f"tests.faults: --only {args.only} is no stage, format or flag")
    return 1 if n_bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
