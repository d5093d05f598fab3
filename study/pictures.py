"""Every figure of the report: how it is drawn, what to look at, and its paragraph."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from data.files import file_errors
from study import dots, drawing, paper_figures, paper_runs, room, takeoff_figure
from study.answers import answer, title
from study.estimates import direction
from study.experiment import Experiment
from study.paper import paper_difference
from study.recipes import RECIPES, RECIPES_OF_FIGURE, WRITTEN
from study.rows import Study


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
