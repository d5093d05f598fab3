"""The study: checkpoints x recipes x seeds as a table of commands, then figures and report.md.

    python excursions.py                       # toy scale: three checkpoints, seven recipes, about
                                               # ten minutes on two cores
    python excursions.py --seeds 4             # with error bars
    python excursions.py --only figure9        # what one figure needs
    python excursions.py --dry_run             # the commands, without running them
    python excursions.py --preset 1B --plan    # what they would take: time, memory, disk, cost

What is done is skipped. After an interruption the same command resumes the study. The output of
each command is in <out>/logs, and every line of the table can be typed by hand.
"""

import argparse
import difflib
import os
import sys

from data import UserError
from plumbing.presets import CHECKPOINTS
from study.recipes import RECIPES_OF_FIGURE, WRITTEN
from study.runner import Job, claim, logs_folder, run, same_commands

# ---------------------------------------------------------------------------------- the table

PRETRAIN = "pretrain.py --preset {preset} --out {folder} --keep {checkpoints}"

# recipe: (the recipe that it starts from, its command). The order is the order of work.
COMMANDS = {
    "sft": ("base", "sft.py --ckpt {parent} --setting {setting}"),
    "sft-gold": ("base", "sft.py --ckpt {parent} --solutions all --setting {setting}"),
    "rl": ("base", "grpo.py --ckpt {parent} --setting {setting}"),
    "parallel": ("base", "parallel.py --ckpt {parent} --setting {setting}"),
    "sft.rl": ("sft", "grpo.py --ckpt {parent} --setting {setting}"),
    "sft-gold.rl": ("sft-gold", "grpo.py --ckpt {parent} --setting {setting}"),
    # From the earliest checkpoint only. Without --out it would be called rl.
    WRITTEN: ("base", "grpo.py --ckpt {parent} --setting written --out {out}"),
}

EVALUATE = "evaluate.py --ckpt {ckpt} --setting {setting}"
EVALUATE_BASE = {
    # With worked examples, except in the toy world, whose rows are too short for any. The authors
    # asked their 4B base without examples, too.
    "1B": EVALUATE + " --shots 8",
    "1B-60B": EVALUATE + " --shots 8",
}


def all_jobs(args) -> list[Job]:
    """The commands of all seeds, every pre-training first."""
    first = []
    others = []
    for seed in range(args.seeds):
        of_seed = JobsOfSeed(args, seed)
        if args.pretrain:
            first.append(of_seed.pretraining())
        for stem in of_seed.stems:
            others += of_seed.at_checkpoint(stem)
    return first + others


class JobsOfSeed:
    """The lines of the table with the values of one seed."""

    def __init__(self, args, seed: int):
        self.args = args
        self.seed = seed
        self.folder = seed_folder(args.out, seed)
        self.stems = CHECKPOINTS[args.preset].split(",")

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name + ".pt")

    def command(self, line: str, **values) -> list[str]:
        """The words of a line of the table, with what all commands have before and after."""
        start = [sys.executable]
        if self.args.nproc > 1:
            start = ["torchrun", "--standalone", f"--nproc_per_node={self.args.nproc}"]
        end = ["--seed", str(self.seed)]
        if self.args.plain:
            end.append("--plain")
        words = [word.format(setting=self.args.setting, **values) for word in line.split()]
        return [*start, *words, *end]

    def pretraining(self) -> Job:
        checkpoints = ",".join(self.stems)
        values = dict(preset=self.args.preset, folder=self.folder, checkpoints=checkpoints)
        command = self.command(PRETRAIN, **values)
        return Job("pretrain", command, self.folder, "pretrain", makes=self.path(self.stems[-1]))

    def at_checkpoint(self, stem: str) -> list[Job]:
        """Every recipe from this checkpoint, then the evaluations.

        Evaluations are short: at the end they fill the gaps that the long commands leave.
        """
        trained = []
        evaluations = [self.evaluation(stem)]
        for recipe in self.recipes(stem):
            job = self.training(stem, recipe)
            trained.append(job)
            evaluations.append(self.evaluation(job.name))
        return trained + evaluations

    def recipes(self, stem: str) -> list[str]:
        wanted = RECIPES_OF_FIGURE[self.args.only] if self.args.only else COMMANDS
        recipes = []
        for recipe in COMMANDS:
            if recipe == WRITTEN and stem != self.stems[0]:
                continue
            if recipe in wanted:
                recipes.append(recipe)
        return recipes

    def training(self, stem: str, recipe: str) -> Job:
        parent_recipe, line = COMMANDS[recipe]
        parent = self.path(stem if parent_recipe == "base" else f"{stem}.{parent_recipe}")
        name = f"{stem}.{recipe}"
        out = self.path(name)
        command = self.command(line, parent=parent, out=out)
        return Job(name, command, self.folder, recipe, makes=out, needs=[parent])

    def evaluation(self, name: str) -> Job:
        preset = self.args.preset
        line = EVALUATE
        if name in self.stems:
            line = EVALUATE_BASE.get(preset, EVALUATE)
        ckpt = self.path(name)
        command = self.command(line, ckpt=ckpt)
        return Job(
            f"{name} evaluation",
            command,
            self.folder,
            "evaluation",
            needs=[ckpt],
            checkpoint=name,
            preset=preset,
        )


def seed_folder(out: str, seed: int) -> str:
    return out if seed == 0 else f"{out}-seed{seed}"


# ---------------------------------------------------------------------------------- flags


MOST_SEEDS = 1_000
FLAGS = ("--preset", "--setting", "--seeds", "--only", "--out", "--workers", "--nproc")
FLAGS += ("--no_pretrain", "--plain", "--dry_run", "--plan", "--help")


def refuse(message: str) -> None:
    sys.exit(f"excursions.py: {message}; --help lists the flags")


def unknown_flags(rest: list[str]) -> str:
    """What is wrong with arguments that no flag takes, and which flag may have been meant."""
    near = difflib.get_close_matches(rest[0].split("=")[0], FLAGS, 1)
    hint = f", did you mean {near[0]}?" if near else ""
    return f"unrecognized argument {rest[0]}{hint}"


def read_flags(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """-> (the flags, what is left for --plan)."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=layout, allow_abbrev=False
    )
    parser.error = refuse
    add = parser.add_argument
    add("--preset", default="toy", choices=CHECKPOINTS, help="scale")
    add(
        "--setting",
        default="controlled",
        choices=["written", "run", "controlled"],
        help="fidelity to the paper",
    )
    add("--seeds", type=int, default=1, help="seeds 0 .. N-1, each with its own pre-training")
    add("--only", choices=RECIPES_OF_FIGURE, help="run only what this figure needs")
    add(
        "--out", default="", help="folder; default out/<preset>; further seeds get <out>-seed1, ..."
    )
    add(
        "--workers",
        type=int,
        default=0,
        help="commands at a time; default: one per core at toy scale, else 1",
    )
    add("--nproc", type=int, default=1, help="processes per command, by torchrun")
    add(
        "--no-pretrain",
        "--no_pretrain",
        dest="pretrain",
        action="store_false",
        help="the checkpoints are there, from convert.py say",
    )
    add(
        "--plain",
        action="store_true",
        help="run the plain program alone, without fast/: slower, same results",
    )
    add(
        "--dry-run",
        "--dry_run",
        dest="dry_run",
        action="store_true",
        help="print the commands and stop",
    )
    add(
        "--plan",
        action="store_true",
        help="print what it would take and stop; with --gpus, --gpu, --price, ... (see README)",
    )
    args, rest = parser.parse_known_args(argv)
    for name, least, most in (("seeds", 1, MOST_SEEDS), ("workers", 0, 1_000), ("nproc", 1, 1_000)):
        value = getattr(args, name)
        if not least <= value <= most:
            refuse(f"--{name} {value}: give {least} to {most}")
    args.out = args.out or os.path.join("out", args.preset)
    if not args.workers:
        args.workers = min(8, os.cpu_count() or 1) if args.preset == "toy" else 1
    return args, rest


# ---------------------------------------------------------------------------------- main


def main(argv: list[str]) -> None:
    args, rest = read_flags(argv)
    if args.plan:
        show_plan(args, rest)
        return
    if rest:
        refuse(unknown_flags(rest))
    go_home()
    try:
        start(args)
    except (UserError, OSError) as error:
        sys.exit(f"excursions.py: {error}")
    except KeyboardInterrupt:  # outside of the commands: while the report is drawn, say
        sys.exit("excursions.py: interrupted; the same command goes on")


def start(args) -> None:
    """Run what is not done, then write the report."""
    jobs = all_jobs(args)
    if args.dry_run:
        print_commands(jobs)
        return
    lock = claim(args.out)
    same_commands(jobs, args.out)
    logs = logs_folder(args.out)
    left = len([job for job in jobs if not job.done()])
    print(
        f"{len(jobs)} commands, {len(jobs) - left} done, {left} to do, "
        f"{args.workers} at a time; outputs in {logs}",
        flush=True,
    )
    failed = run(jobs, args.out, args.workers, lock)
    report = make_report(args)
    print(f"report: {report}" if left else f"all done before; nothing to do. Report: {report}")
    lock.close()
    if failed:
        names = ", ".join(job.name for job in failed)
        sys.exit(
            f"excursions.py: {len(failed)} commands failed or could not start: {names}; see {logs}"
        )


def go_home() -> None:
    """To the folder of the scripts, so that commands name them as a user there would."""
    os.chdir(os.path.dirname(os.path.abspath(__file__)))


def print_commands(jobs: list[Job]) -> None:
    for job in jobs:
        command = list(job.command)
        if command[0] == sys.executable:
            command[0] = "python"
        line = " ".join(command)
        if job.done():
            line += "   # done"
        print(line)


def show_plan(args, rest: list[str]) -> None:
    """`rest`: the flags that describe the machine."""
    from study import plan  # needs torch, which takes two seconds to import

    try:
        machine, rest = plan.read_machine("excursions.py", rest, args.preset, args.nproc)
    except UserError as error:
        refuse(error)
    if rest:
        refuse(unknown_flags(rest))
    go_home()
    plan.print_study(all_jobs(args), args, machine)


def make_report(args) -> str:
    """-> path of report.md."""
    from study import figures  # needs torch

    folders = []
    for seed in range(args.seeds):
        folders.append(seed_folder(args.out, seed))
    return figures.write_report(folders, args.out)


if __name__ == "__main__":
    main(sys.argv[1:])
