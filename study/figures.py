"""The study's report: report.md, and the paper's figures from our rows, the paper's values beside.

    python -m study.figures out/toy                               # one seed
    python -m study.figures out/toy out/toy-seed1 out/toy-seed2   # seeds together

Runs no model.
"""

import argparse
import os
import sys
from dataclasses import replace

from data import UserError
from data.files import write_text
from plumbing.files import read_rows
from plumbing.flags import OneLineParser
from plumbing.result_rows import read_results
from study import room, sections
from study.answers import answer
from study.experiment import Experiment
from study.experiments import EXPERIMENTS, LONG_STEPS
from study.findings import findings
from study.opening import opening
from study.overview import overview
from study.pictures import FIGURES, place, place_of_experiment
from study.predictions import read_predictions
from study.recipes import RECIPES, RECIPES_OF_FIGURE
from study.report import task_section
from study.rows import Study
from study.said import sentence
from study.seeds import check_seeds


def write_report(folders: list[str], out: str, task: str = "") -> str:
    """Tables, findings and figures of the seeds' run folders -> path of <out>/report.md.

    Raises UserError where the folders differ in more than the seed.
    """
    study = Study(folders, task)
    check_seeds(study)
    os.makedirs(os.path.join(out, "figures"), exist_ok=True)
    parts = ["# RL excursions during pre-training: report\n"]
    empty = []
    for folder in folders:
        if not read_rows(os.path.join(folder, "results.jsonl")):
            empty.append(folder)
    left_out = []
    if empty:
        left_out.append(f"No evaluations in {', '.join(empty)}.")
    if study.strangers:
        strangers = ", ".join(sorted(study.strangers))
        left_out.append(f"Left out, not named <tokens>.<recipe>: {strangers}.")
    if study.others:
        others = ", ".join(sorted(set(study.others)))
        left_out.append(f"Left out, evaluated in another way than the study asks for: {others}.")
    for line in left_out:
        print(line, file=sys.stderr)
        parts.append(line + "\n")
    if study.task in study.tasks:
        predicted = overview(study, experiments_run(study), read_predictions())
        main_figure = place_of_experiment(study, "gains", CORE_GAINS, out)
        parts += opening(study, main_figure, predicted)
        parts += when(study, out)
        parts += what_decides(study, out)
        scatter = place_of_experiment(study, "scatter", CORE_SCATTER, out)
        if scatter:
            parts.append(scatter)
        parts += ["## Findings\n", findings(study)]
        parts += experiment_sections(study, out)
    parts.append(
        "pass@k and general skills (mean of six) in percent; boxed and cut are shares of the "
        "samples, length is in tokens, distinct is the number of different right responses per "
        "problem, held-out loss is in nats per token. ± is the standard error over seeds. With one "
        "seed, [low, high] is the 95 % bootstrap interval over problems, which does not cover the "
        "luck of the training run.\n"
    )
    for name in study.tasks:
        parts += task_section(study, name)
        if name == study.task:
            parts += how_often_section(study)
    if study.task in study.tasks:
        parts += [
            "## Figures\n",
            "Points of ours: mean ± standard error over seeds, "
            "or one seed with its 95 % interval.\n",
        ]
        for name in FIGURES:
            parts.append(place(study, name, out))
    path = os.path.join(out, "report.md")
    write_text(path, "\n".join(parts))
    return path


CORE_GAINS = replace(EXPERIMENTS["core"], figure="gains")
CORE_ROOM = replace(EXPERIMENTS["core"], figure="room")
CORE_SCATTER = replace(EXPERIMENTS["core"], figure="scatter")


def when(study: Study, out: str) -> list[str]:
    """From which pass rate on RL works: a sentence and a figure, if RL was long."""
    if not is_long(study):
        return []
    experiment = EXPERIMENTS["takeoff"]
    said = sentence(study, experiment)
    figure = place_of_experiment(study, "takeoff", experiment, out)
    return [f"**When does RL begin to work?** {said}\n", figure] if said and figure else []


def what_decides(study: Study, out: str) -> list[str]:
    """Whether RL after SFT widens or narrows: a sentence and a figure, if RL was long."""
    if not is_long(study):
        return []
    figure = place_of_experiment(study, "room", CORE_ROOM, out)
    if not figure:
        return []
    said = room.sentence(room.cells_after_sft(study))
    return [f"**What decides whether RL after SFT raises pass@k?** {said}\n", figure]


def how_often_section(study: Study) -> list[str]:
    """How RL went, and how often problems are solved, of every recipe at every checkpoint."""
    names = []
    for stem in study.stems:
        for recipe in study.recipes(study.task, stem):
            if recipe in RECIPES:
                names.append(sections.name_of(stem, recipe))
    return [
        f"### {study.task}: in training, and how often problems are solved\n",
        "The shares are those of the Beta distribution that has the cell's pass@1 and widest "
        "pass@k.\n",
        sections.cell_table(study, names),
    ]


def experiment_sections(study: Study, out: str) -> list[str]:
    """A section for every experiment that was run, the user's own ones first."""
    known = read_predictions()
    parts = []
    for name, experiment in experiments_run(study).items():
        figure = ""
        said = ""
        if experiment.figure not in ("gains", "takeoff"):  # these stand at the top of the report
            figure = place_of_experiment(study, name, experiment, out)
            of_task = study.on(experiment.task)
            said = f"{answer(of_task, name)} {sentence(of_task, experiment)}".strip()
        parts += sections.section(study, name, experiment, known, figure, said)
    return parts


def experiments_run(study: Study) -> dict[str, Experiment]:
    found = {}
    for name, experiment in study.experiments.items():
        if was_run(study, name, experiment):
            found[name] = experiment
    return found


def was_run(study: Study, name: str, experiment: Experiment) -> bool:
    """Whether half of its own cells are there: of its recipes, from its checkpoints if it has any.

    Cells that it compares with do not count, nor do the core's recipes. The core has run if its RL
    was long, and an experiment that the user made if it has one cell: --only may have named it.
    """
    if name in RECIPES_OF_FIGURE:
        return False
    if name in ("core", "figure5"):
        return is_long(study)
    there = sections.cells_there(study.on(experiment.task), experiment)
    own = set(experiment.recipes)
    if not experiment.pretrain:
        own -= {experiment.against, *RECIPES}
    found = 0
    for cell in there:
        stem, recipe = study.cell(cell)
        found += recipe in own and (stem in experiment.pretrain or not experiment.pretrain)
    stems = sections.stems_there(study.on(experiment.task), experiment)
    if experiment.pretrain:
        stems = [stem for stem in stems if stem in experiment.pretrain]
    if name not in EXPERIMENTS:
        return found > 0
    return found > 0 and 2 * found >= len(own) * len(stems)


def is_long(study: Study) -> bool:
    """Whether direct RL ran for as many steps as the experiments' does."""
    logs = study.logs(study.last, "rl")
    return bool(logs) and all(log[-1]["step"] >= LONG_STEPS for log in logs)


# ---------------------------------------------------------------------------------- main


def main(argv: list[str]) -> None:
    layout = argparse.RawDescriptionHelpFormatter
    parser = OneLineParser(
        prog="figures.py", description=__doc__, formatter_class=layout, allow_abbrev=False
    )
    parser.add_argument("folders", nargs="+", help="run folders, one per seed")
    parser.add_argument(
        "--out", default="", help="folder of report.md and figures/; default: the first run folder"
    )
    parser.add_argument(
        "--task",
        default="",
        help="the task of the figures and findings; default toy, else the first found",
    )
    args = parser.parse_args(argv)
    tasks = set()
    for folder in args.folders:
        tasks |= tasks_of_folder(folder)
    if not tasks:
        given = f"in {', '.join(args.folders)}"
        sys.exit(f"figures.py: no pass@k rows {given}; run: python excursions.py")
    if args.task and args.task not in tasks:
        sys.exit(f"figures.py: no pass@k rows of task {args.task}; run: python excursions.py")
    try:
        print(write_report(args.folders, args.out or args.folders[0], args.task))
    except (UserError, OSError) as error:
        sys.exit(f"figures.py: {error}")


def tasks_of_folder(folder: str) -> set[str]:
    if not os.path.isdir(folder):
        advice = "give the run folders that excursions.py made"
        sys.exit(f"figures.py: {folder} is not a folder; {advice}")
    try:
        rows = read_results(os.path.join(folder, "results.jsonl"))
    except (UserError, OSError) as error:
        sys.exit(f"figures.py: {error}")
    return {row["task"] for row in rows if row["kind"] == "pass@k"}


if __name__ == "__main__":
    main(sys.argv[1:])
