"""The study: experiments as tables of commands, then figures and report.md.

    python excursions.py                       # toy scale: three checkpoints, seven recipes, about
                                               # ten minutes on two cores
    python excursions.py --seeds 4             # with error bars
    python excursions.py --list                # all experiments: questions, cells, minutes
    python excursions.py --only ladder         # one of them; figure9: what that figure needs
    python excursions.py --vary grpo.normalize=std,none --on 3.6M.rl --seeds 6     # an ablation
    python excursions.py --recipe "rl-none: grpo.py --normalize none" --from out/toy
    python excursions.py --checkpoints DIR     # these checkpoints are where post-training starts
    python excursions.py --quick               # a minute: a few steps, from two checkpoints
    python excursions.py --dry_run             # the commands, without running them
    python excursions.py --preset 1B --plan    # what they would take: time, memory, disk, cost

The experiments are rows of study/experiments.py. What is done is skipped, and cells that two
experiments share run once. After an interruption the same command resumes the study. The output of
each command is in <out>/logs; --dry_run prints the commands, which can be typed by hand.
"""

import argparse
import difflib
import os
import re
import shlex
import sys
from dataclasses import replace

from data import UserError
from data.files import only_print
from plumbing.presets import CHECKPOINTS
from study.experiment import Experiment, at_scale, is_toy, stems_of
from study.experiments import DEFAULT, EXPERIMENTS
from study.jobs import Study, all_jobs, stems_for
from study.listing import print_list
from study.own_experiments import note_own
from study.runner import Job, claim, logs_folder, run, same_commands

# ---------------------------------------------------------------------------------- flags


MOST_SEEDS = 1_000
FLAGS = ("--preset", "--setting", "--seeds", "--only", "--out", "--workers", "--nproc")
FLAGS += ("--no_pretrain", "--plain", "--dry_run", "--plan", "--help", "--list", "--vary", "--on")
FLAGS += ("--recipe", "--from", "--checkpoints", "--data", "--task", "--quick")
SCRIPTS = ("pretrain.py", "sft.py", "grpo.py", "parallel.py", "evaluate.py")


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
    add("--seeds", type=int, help="seeds 0 .. N-1; default 1, or the experiment's")
    add("--only", choices=EXPERIMENTS, help="one experiment, or what a figure of the paper needs")
    add("--list", action="store_true", help="print all experiments and stop")
    add(
        "--vary",
        nargs="+",
        action="extend",
        default=[],
        metavar="STAGE.FLAG=VALUE,...",
        help="an ablation: a cell, and the same with every combination of these values",
    )
    add("--on", default="", help="the cells that --vary changes, as 3.6M.rl, joined by commas")
    add("--recipe", action="append", default=[], metavar='"NAME: COMMAND"', help="a new recipe")
    add("--from", dest="out_of", default="", help="the folder of a study to go on from")
    add("--checkpoints", default="", help="a folder whose checkpoints post-training starts from")
    add("--data", default="", help="problems to train on; default the preset's")
    add("--task", default="", help="what is evaluated; default the preset's")
    add("--quick", action="store_true", help="a few steps of every command, in out/quick")
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
        help="the checkpoints are there already, for example from convert.py",
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
        help="print what it would take and stop; with --gpus, --gpu, --price, ... (docs/costs.md)",
    )
    args, rest = parser.parse_known_args(argv)
    for name, least, most in (("seeds", 1, MOST_SEEDS), ("workers", 0, 1_000), ("nproc", 1, 1_000)):
        value = getattr(args, name)
        if value is not None and not least <= value <= most:
            refuse(f"--{name} {value}: give {least} to {most}")
    if not args.workers:
        args.workers = min(8, os.cpu_count() or 1) if args.preset.startswith("toy") else 1
    return args, rest


def what_to_run(args) -> tuple[Experiment, Study]:
    """Raises UserError where the flags name what is not there."""
    for flag, names in (("--data", args.data), ("--task", args.task)):
        for name in names.split(","):
            if name.endswith(".jsonl") and not os.path.isfile(name):
                raise UserError(f"{flag}: {name} is missing; give the path of a file of problems")
    experiment = read_experiment(args)
    study = read_study(args, experiment)
    if not args.pretrain and not args.checkpoints:
        stems = stems_there(study.out, experiment, args.preset)
        experiment = replace(experiment, stems=",".join(stems))
    return experiment, study


def read_experiment(args) -> Experiment:
    """The experiment that the flags ask for. Raises UserError where they name what is not there."""
    experiment = EXPERIMENTS[args.only] if args.only else DEFAULT
    if not experiment.recipes and args.preset != experiment.preset and not args.list:
        raise UserError(f"--only {args.only} is of one scale; give --preset {experiment.preset}")
    if args.quick and experiment.split:
        raise UserError(
            f"--only {args.only} sorts problems by how often the base solves them, and --quick's "
            "solve none; leave out --quick"
        )
    if experiment.with_core and not experiment.anywhere and args.preset != "toy":
        raise UserError(
            f"--only {args.only} is of the toy world; give --preset toy, or make "
            "one of --vary and --recipe"
        )
    if args.vary and args.recipe:
        raise UserError("--vary and --recipe are two experiments; give one of them")
    if args.on and not args.vary:
        raise UserError(f"--on {args.on} says where --vary changes something; give --vary, too")
    if args.checkpoints:
        experiment = replace(experiment, stems=",".join(stems_in(args.checkpoints)))
    experiment = at_scale(experiment, args.preset)
    if not args.vary and not args.recipe:
        return experiment
    from study import vary  # needs torch

    if args.recipe:
        return vary.with_recipes(experiment, args.preset, args.recipe)
    return vary.experiment_of(experiment, args.preset, args.vary, args.on)


def stems_in(folder: str) -> list[str]:
    """The names of the base checkpoints in a folder, by their tokens of pre-training."""
    from study.stems import base_checkpoints  # needs torch

    return base_checkpoints(folder)


def stems_there(folder: str, experiment: Experiment, preset: str) -> list[str]:
    """--no_pretrain: the checkpoints to start from.

    The preset's own. If the folder has none of these, all base checkpoints in it, whatever their
    names, in the order of their tokens of pre-training.
    """
    stems = stems_of(experiment, preset)
    there = [stem for stem in stems if os.path.exists(os.path.join(folder, stem + ".pt"))]
    if os.path.isdir(folder) and not there:
        return stems_in(folder)
    return stems


def read_study(args, experiment: Experiment) -> Study:
    """What all commands have in common, with the defaults filled in."""
    out = args.out or args.out_of or default_folder(args, experiment)
    if args.out_of and not os.path.isdir(args.out_of):
        raise UserError(f"--from {args.out_of}: no such folder; give one that excursions.py made")
    return Study(
        preset=args.preset,
        setting=args.setting,
        seeds=args.seeds or experiment.seeds,
        out=out,
        nproc=args.nproc,
        pretrain=args.pretrain and not args.checkpoints,
        plain=args.plain,
        quick=args.quick,
        data=args.data,
        task=args.task,
        checkpoints=args.checkpoints,
    )


def default_folder(args, experiment: Experiment) -> str:
    """out/toy; out/toy-study for long RL; out/quick; out/<name of --checkpoints>-study."""
    if args.quick:
        return os.path.join("out", "quick")
    if args.only and not experiment.recipes:  # it evaluates checkpoints of others
        return os.path.join("out", args.only)
    if args.checkpoints:
        name = os.path.basename(os.path.abspath(args.checkpoints))
        return os.path.join("out", f"{name}-study")
    name = f"{args.preset}-study" if experiment.with_core and is_toy(args.preset) else args.preset
    return os.path.join("out", name)


# ---------------------------------------------------------------------------------- main


def main(argv: list[str]) -> None:
    args, rest = read_flags(argv)
    if rest and not args.plan:
        refuse(unknown_flags(rest))
    go_home(args)
    try:
        experiment, study = what_to_run(args)
        jobs = all_jobs(study, experiment, stems_for(study, experiment))
        if args.list or args.plan or args.dry_run:
            only_print()
        if args.list:
            print_list(args.workers)
        elif args.plan:
            show_plan(study, jobs, rest)
        elif args.dry_run:
            print_commands(jobs)
        else:
            start(study, jobs, args.workers, experiment if args.vary or args.recipe else None)
    except (UserError, OSError) as error:
        sys.exit(f"excursions.py: {error}")
    except KeyboardInterrupt:  # outside of the commands: while the report is drawn, say
        sys.exit("excursions.py: interrupted; the same command goes on")


def start(study: Study, jobs: list[Job], workers: int, own: Experiment | None) -> None:
    """Run what is not done, then write the report. own: what --vary or --recipe made."""
    if not study.pretrain and not study.checkpoints:
        check_there(jobs)
    lock = claim(study.out)
    same_commands(jobs, study.out)
    if own:
        note_own(study.out, replace(own, stems=",".join(stems_for(study, own))))
    logs = logs_folder(study.out)
    left = len([job for job in jobs if not job.done()])
    print(
        f"{len(jobs)} commands, {len(jobs) - left} done, {left} to do, "
        f"{workers} at a time; outputs in {logs}",
        flush=True,
    )
    failed = run(jobs, study.out, workers, lock)
    report = make_report(study)
    print(f"report: {report}" if left else f"all done before; nothing to do. Report: {report}")
    lock.close()
    if failed:
        names = ", ".join(job.name for job in failed)
        sys.exit(
            f"excursions.py: {len(failed)} commands failed or could not start: {names}; see {logs}"
        )


def check_there(jobs: list[Job]) -> None:
    """--no_pretrain: the checkpoints to start from must be there. Raises UserError."""
    made = {job.makes for job in jobs}
    for job in jobs:
        for path in job.needs:
            if path not in made and ".step" not in path and not os.path.exists(path):
                raise UserError(
                    f"--no_pretrain: {path} is missing; bring it with convert.py, or leave out "
                    "--no_pretrain"
                )


def go_home(args) -> None:
    """Change to the folder of the scripts, so that commands name them as a user there would.

    If the caller is in another folder, the paths in the flags are made absolute first.
    """
    home = os.path.dirname(os.path.abspath(__file__))
    if not os.path.samefile(home, os.getcwd()):
        for name in ("out", "out_of", "checkpoints"):
            if getattr(args, name):
                setattr(args, name, os.path.abspath(getattr(args, name)))
        args.data = whole_paths(args.data)
        args.task = whole_paths(args.task)
        args.vary = [whole_paths(change) for change in args.vary]
        args.recipe = [whole_paths(recipe) for recipe in args.recipe]
    os.chdir(home)


def whole_paths(flag: str) -> str:
    """A flag's value, in which each file of the caller's folder is named by its whole path.

    "toy,mine.jsonl" -> "toy,/home/me/mine.jsonl", and "half.py:score" likewise.
    """
    words = re.split(r"([\s,=])", flag)  # what separates words is kept
    for i, word in enumerate(words):
        path, colon, function = word.partition(":")
        if os.path.isfile(path) and path not in SCRIPTS:
            words[i] = os.path.abspath(path) + colon + function
    return "".join(words)


def print_commands(jobs: list[Job]) -> None:
    for job in jobs:
        command = list(job.command)
        if command[0] == sys.executable:
            command[0] = "python"
        line = shlex.join(command)
        if job.done():
            line += "   # done"
        print(line)


def show_plan(study: Study, jobs: list[Job], rest: list[str]) -> None:
    """`rest`: the flags that describe the machine."""
    from study import plan  # needs torch, which takes two seconds to import

    try:
        machine, rest = plan.read_machine("excursions.py", rest, study.preset, study.nproc)
    except UserError as error:
        refuse(error)
    if rest:
        refuse(unknown_flags(rest))
    plan.print_study(jobs, study, machine)


def make_report(study: Study) -> str:
    """-> path of report.md."""
    from study import figures  # needs torch

    folders = [study.folder(seed) for seed in range(study.seeds)]
    return figures.write_report(folders, study.out)


if __name__ == "__main__":
    main(sys.argv[1:])
