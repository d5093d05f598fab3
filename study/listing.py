"""`excursions.py --list`: every experiment with its question, its cells and its minutes."""

import textwrap

from study.durations import seconds_of
from study.experiment import Experiment, at_scale
from study.experiments import DEFAULT, EXPERIMENTS
from study.jobs import Study, all_jobs, stems_for
from study.recipes import WRITTEN
from study.runner import Job


def print_list(workers: int) -> None:
    """Print all experiments; the minutes are of the toy preset with so many commands at a time."""
    print_one("(default)", DEFAULT, workers)
    seconds_of_command = {}  # a command that several experiments share stands in it once
    for name, experiment in EXPERIMENTS.items():
        print_one(name, experiment, workers)
        if preset_of(experiment) == "toy":
            for job in jobs_of(experiment):
                seconds_of_command[tuple(job.command)] = seconds_of(job.command)
    hours = sum(seconds_of_command.values()) / workers / 3600
    print(f"minutes: toy preset, {workers} commands at a time, nothing shared with others")
    print(f"all toy experiments, what they share run once: {hours:.0f} hours")


def preset_of(experiment: Experiment) -> str:
    """The scale whose minutes are printed."""
    return "toy" if experiment.recipes else experiment.preset


def jobs_of(experiment: Experiment) -> list[Job]:
    """Its commands, in a study of its own."""
    study = Study(preset_of(experiment), "controlled", experiment.seeds, "out/none")
    experiment = at_scale(experiment, study.preset)
    return all_jobs(study, experiment, stems_for(study, experiment))


def print_one(name: str, experiment: Experiment, workers: int) -> None:
    preset = preset_of(experiment)
    jobs = jobs_of(experiment)
    experiment = at_scale(experiment, preset)
    stems = stems_for(Study(preset, "controlled", experiment.seeds, "out/none"), experiment)
    minutes = sum(seconds_of(job.command) for job in jobs) / workers / 60
    cells = len([job for job in jobs if job.kind == "evaluation"])
    n_seeds = "1 seed" if experiment.seeds == 1 else f"{experiment.seeds} seeds"
    print(f"{name:<12} {experiment.question}")
    recipes = ["base", *(recipe for recipe in experiment.recipes if recipe != WRITTEN)]
    cost = (
        f"{minutes:.0f} min" if preset == "toy" else f"--preset {preset} --plan says what it costs"
    )
    about = f"{', '.join(recipes)} at {', '.join(stems)}; {n_seeds}, {cells} cells, {cost}"
    print(textwrap.indent(textwrap.fill(about, 87), " " * 13))
