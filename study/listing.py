"""`excursions.py --list`: every experiment with its question, its cells and its minutes."""

import textwrap
from dataclasses import dataclass

from study.durations import seconds_of
from study.experiment import Experiment, at_scale
from study.experiments import DEFAULT, EXPERIMENTS
from study.jobs import Study, all_jobs, stems_for
from study.recipes import WRITTEN
from study.runner import Job


@dataclass(frozen=True)
class Planned:
    """An experiment as a study of its own, at the scale whose minutes are printed."""

    experiment: Experiment
    preset: str
    stems: list[str]
    jobs: list[Job]


def planned(experiment: Experiment) -> Planned:
    preset = "toy" if experiment.recipes else experiment.preset
    experiment = at_scale(experiment, preset)
    study = Study(preset, "controlled", experiment.seeds, "out/none")
    stems = stems_for(study, experiment)
    return Planned(experiment, preset, stems, all_jobs(study, experiment, stems))


def print_list(workers: int) -> None:
    """Print all experiments; the minutes are of the toy preset with so many commands at a time."""
    print_one("(default)", planned(DEFAULT), workers)
    seconds_of_command = {}  # a command that several experiments share stands in it once
    for name, experiment in EXPERIMENTS.items():
        plan = planned(experiment)
        print_one(name, plan, workers)
        if plan.preset == "toy":
            for job in plan.jobs:
                seconds_of_command[tuple(job.command)] = seconds_of(job.command)
    hours = sum(seconds_of_command.values()) / workers / 3600
    print(f"minutes: toy preset, {workers} commands at a time, nothing shared with others")
    print(f"all toy experiments, what they share run once: {hours:.0f} hours")


def print_one(name: str, plan: Planned, workers: int) -> None:
    experiment = plan.experiment
    minutes = sum(seconds_of(job.command) for job in plan.jobs) / workers / 60
    cells = len([job for job in plan.jobs if job.kind == "evaluation"])
    n_seeds = "1 seed" if experiment.seeds == 1 else f"{experiment.seeds} seeds"
    print(f"{name:<12} {experiment.question}")
    recipes = ["base", *(recipe for recipe in experiment.recipes if recipe != WRITTEN)]
    cost = f"--preset {plan.preset} --plan says what it costs"
    if plan.preset == "toy":
        cost = f"{minutes:.0f} min"
    about = f"{', '.join(recipes)} at {', '.join(plan.stems)}; {n_seeds}, {cells} cells, {cost}"
    print(textwrap.indent(textwrap.fill(about, 87), " " * 13))
