"""`excursions.py --list`: every experiment with its question, its cells and its minutes."""

import textwrap

from study.durations import seconds_of
from study.experiment import Experiment, at_scale
from study.experiments import DEFAULT, EXPERIMENTS
from study.jobs import Study, all_jobs, stems_for
from study.recipes import WRITTEN


def print_list(workers: int) -> None:
    """Print all experiments; the minutes are of the toy preset with so many commands at a time."""
    print_one("(default)", DEFAULT, workers)
    for name, experiment in EXPERIMENTS.items():
        print_one(name, experiment, workers)
    print(f"minutes: toy preset, {workers} commands at a time, nothing shared with others")


def print_one(name: str, experiment: Experiment, workers: int) -> None:
    preset = "toy" if experiment.recipes else experiment.preset
    experiment = at_scale(experiment, preset)
    study = Study(preset, "controlled", experiment.seeds, "out/none")
    stems = stems_for(study, experiment)
    jobs = all_jobs(study, experiment, stems)
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
