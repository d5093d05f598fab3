"""The study's report: report.md, and the paper's figures from our rows, the paper's values beside.

    python -m study.figures out/toy                               # one seed
    python -m study.figures out/toy out/toy-seed1 out/toy-seed2   # seeds together

Runs no model.
"""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

from data import UserError
from data.files import file_errors, write_text
from plumbing.files import read_rows
from plumbing.flags import OneLineParser
from plumbing.result_rows import read_results
from study import dots, drawing, paper_figures, paper_runs, room, sections, takeoff_figure
from study.answers import answer, title
from study.estimates import direction
from study.experiment import Experiment
from study.experiments import EXPERIMENTS, LONG_STEPS
from study.findings import findings
from study.opening import opening
from study.overview import overview
from study.paper import paper_difference
from study.predictions import read_predictions
from study.recipes import RECIPES, RECIPES_OF_FIGURE, WRITTEN
from study.report import task_section
from study.rows import Study
from study.said import sentence
from study.seeds import check_seeds


@dataclass(frozen=True)
class Figure:
    recipes: list[str]
    draw: Callable  # one of drawing.py
    caption: str  # what to look at
    last_only: bool = False  # shows the last checkpoint alone
    general_only: bool = False  # shows the task general alone
    from_logs: bool = False  # drawn from the RL logs, not from result rows


FIGURES = {
    "figure2": Figure(
        RECIPES_OF_FIGURE["figure2"],
        drawing.draw_passes,
        "SFT on one solution per problem. Look where direct RL leaves its base in pass@1, and "
        "whether RL lifts or lowers the pass@32 of what it starts from.",
    ),
    "figure3": Figure(
        RECIPES_OF_FIGURE["figure3"],
        drawing.draw_passes,
        "SFT on all solutions (gold). Look how much of its pass@32 is left after RL. The paper's "
        "base and RL are those of its figure 2.",
    ),
    "figure6": Figure(
        RECIPES_OF_FIGURE["figure6"],
        drawing.draw_paths,
        "Stages at the last checkpoint: rightwards is better at one try, upwards is wider, and a "
        "path that turns down sharpens. The paper's: 14B, RL every 200 steps, an older SFT.",
        last_only=True,
    ),
    "figure7": Figure(
        RECIPES_OF_FIGURE["figure7"],
        drawing.draw_general,
        "What post-training costs elsewhere: look at the gap of each recipe to its base. The "
        "paper gives no held-out loss.",
        general_only=True,
    ),
    "figure9": Figure(
        RECIPES_OF_FIGURE["figure9"],
        drawing.draw_passes_and_general,
        "Parallel averaging against the others: look at pass@32 and general skills together. The "
        "paper's general mean is of five benchmarks here.",
    ),
    "figure13": Figure(
        RECIPES_OF_FIGURE["figure13"],
        drawing.draw_dynamics,
        "RL over its steps; darker lines start from later checkpoints, thin lines are single "
        "seeds. A collapse is accuracy near 0 while every response gets its box.",
        from_logs=True,
    ),
    "shapes": Figure(
        [recipe for recipe in RECIPES if recipe != WRITTEN],
        drawing.draw_by_group,
        "The last checkpoint by shape of problem and by how often its base solves it. Look for "
        "problems that gain while others lose pass@32: expansion and sharpening in one run.",
        last_only=True,
    ),
}

# The figures of experiments (Experiment.figure): how they are drawn, and what to look at.
OF_EXPERIMENTS = {
    "dots": (dots.draw_dots, "A dot is a seed; beside it the mean with its 95 % interval."),
    "gains": (
        dots.draw_gains,
        "What RL adds to what it starts from, in all and by shape of problem; a dot is a seed. "
        "Above the line in both rows is expansion; above in the upper and below in the lower row "
        "is sharpening.",
    ),
    "scatter": (
        dots.draw_scatter,
        "Every test problem before and after RL, the mean over seeds. Problems that leave the left "
        "edge are expansion, those that reach the floor are what sharpening loses.",
    ),
    "takeoff": (
        takeoff_figure.draw_takeoff,
        "A dot is a shape of problem at a checkpoint in a seed; those without a right sample stand "
        "at half of one. The black curve, fitted to the dots above and below the line of 50 %, is "
        "the share of shapes that take off. It was found by looking at core's first six seeds, so "
        "nothing about core was predicted here.",
    ),
    "room": (
        room.draw_room,
        "A dot is a cell of RL after SFT, against its SFT, with its standard error. Both axes "
        "subtract the same pass@k, so a part of the slope is arithmetic; look at where the zero of "
        "the vertical axis is crossed, and at the paper's cells among ours.",
    ),
    "ladder": (dots.draw_ladder, "SFT of one to 61 passes, and the same RL from each."),
    "tail": (dots.draw_tail, "pass@k of the base and after RL, up to 256 samples."),
    "forgetting": (
        dots.draw_forgetting,
        "What is forgotten of general text, against the distance from the base: orange SFT, blue "
        "RL. On one curve the distance alone would decide.",
    ),
    "configurations": (
        paper_figures.draw_configurations,
        "What direct RL adds to its base on the hard family, for three ways to pre-train.",
    ),
    "base against rl": (
        paper_figures.draw_base_against_rl,
        "A dot is a seed at a checkpoint. Above, ours: over checkpoints the base tells what RL "
        "makes of it; look whether it also does over the seeds of one checkpoint.",
    ),
    "passes": (
        paper_figures.draw_hard,
        "All recipes on the hard family over pre-training; below, what the paper has on MATH (of "
        "its figure 12 only what direct RL adds from one checkpoint is public, in its figure 4).",
    ),
    "brittleness": (
        paper_runs.draw_brittleness,
        "Each colour is a seed of RL; all begin from the same weights.",
    ),
    "sft passes": (
        paper_figures.draw_sft_passes,
        "SFT of 1, 4, 16 and 61 passes over the same single solutions.",
    ),
    "shots": (paper_figures.draw_shots, "Base checkpoints with so many worked examples before."),
    "trajectories": (
        paper_runs.draw_trajectories,
        "Parallel averaging over its steps; the rate of the SFT half decides which half leads.",
    ),
    "rollouts": (
        paper_runs.draw_rollouts,
        "Few or many rollouts a problem, at equally many samples.",
    ),
    "differences": (
        paper_runs.draw_differences,
        "Each cell against the one that it is compared with; green is higher, orange lower, and "
        "grey an interval that holds 0.",
    ),
    "edge": (
        dots.draw_edge,
        "Problems inside what pre-training taught (3 and 4 operations), at its edge (5) and beyond "
        "(6 and 7). A dot is a seed, a dash the mean.",
    ),
}


# Figures that say themselves what they show.
SAYS_ITSELF = ("gains", "scatter", "takeoff", "room")


def keep(drawn, name: str, out: str) -> bool:
    """Save a figure; where there is none, remove that of an earlier report. -> is it there?"""
    path = os.path.join(out, "figures", f"{name}.png")
    if drawn is None:
        if os.path.exists(path):
            os.remove(path)
        return False
    with file_errors("write", path):
        drawn.savefig(path)
    drawing.pyplot().close(drawn)
    return True


def place_of_experiment(study: Study, name: str, experiment: Experiment, out: str) -> str:
    """Draw and save an experiment's figure -> its paragraph; "" where nothing is there."""
    draw, caption = OF_EXPERIMENTS.get(experiment.figure, OF_EXPERIMENTS["dots"])
    study = study.on(experiment.task)
    drawn = draw(study, experiment)
    if drawn is not None and name not in SAYS_ITSELF:
        words = title(experiment.question, answer(study, name), drawn.get_figwidth())
        drawn.suptitle(words, fontsize=10)
    if not keep(drawn, name, out):
        return ""
    return f"![{name}](figures/{name}.png)\n\n**{name}.** {caption}\n"


def place(study: Study, name: str, out: str) -> str:
    """Draw and save one figure.

    -> its paragraph in the report, which also says what is not there.
    """
    figure = FIGURES[name]
    missing = what_is_missing(study, figure)
    if not keep(figure.draw(study, name, figure.recipes), name, out):
        return f"**{name}** is not drawn: nothing of {missing or 'what it shows'} is there.\n"
    gone = f" Not there: {missing}." if missing else ""
    beside = against_paper(study, figure.recipes)
    return f"![{name}](figures/{name}.png)\n\n**{name}.** {figure.caption}{beside}{gone}\n"


def against_paper(study: Study, recipes: list[str]) -> str:
    """What RL does to the widest pass@k here and in the paper, for each pair of a figure."""
    wide = f"pass@{study.ks(study.task)[-1]}"
    sentences = []
    for after, before, label in dots.GAINS:
        if after not in recipes or before not in recipes:
            continue
        ours = study.difference(study.last, after, before, wide)
        if ours is None:
            continue
        theirs = paper_difference(after, before).split(" / ")[1]
        word = direction(ours)
        sentences.append(
            f" {label[0].upper()}{label[1:]} changes {wide} by {ours.with_interval()} points here "
            f"({word}), by {theirs} in the paper."
        )
    return "".join(sentences)


def what_is_missing(study: Study, figure: Figure) -> str:
    """The recipes and checkpoints it would show too, such as "sft at 1.5M, 2.4M; rl at 1.5M"."""
    task = "general" if figure.general_only else study.task
    missing = []
    for recipe in figure.recipes:
        stems = study.stems
        if figure.last_only:
            stems = [study.last]
        if recipe == WRITTEN:
            stems = stems[:1]  # the study takes it from the earliest checkpoint only
        gone = []
        for stem in stems:
            if figure.from_logs:
                there = bool(study.logs(stem, recipe))
            else:
                there = (task, stem, recipe) in study.rows
            if not there:
                gone.append(stem)
        if gone:
            missing.append(f"{recipe} at {', '.join(gone)}")
    return "; ".join(missing)


# ---------------------------------------------------------------------------------- report.md


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
