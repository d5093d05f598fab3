"""The report's section of one experiment: predictions and verdicts, cells, differences, figure."""

from plumbing.presets import CHECKPOINTS
from study import cells, predictions
from study.estimates import direction
from study.experiment import Experiment, chosen_from, stems_of
from study.experiments import EXPERIMENTS
from study.predictions import Prediction
from study.report import MISSING, table
from study.rows import Study


def cells_there(study: Study, experiment: Experiment) -> list[str]:
    """The names of its cells that have rows, the base first."""
    found = []
    for stem in stems_there(study, experiment):
        for recipe in ["base", *experiment.recipes]:
            for name in [recipe, *copies_of(study, experiment, stem, recipe)]:
                if (study.task_of(stem, name), stem, name) in study.rows:
                    found.append(name_of(stem, name))
    return found


def stems_there(study: Study, experiment: Experiment) -> list[str]:
    """The checkpoints of an experiment, as far as the study has them."""
    for preset in sorted(study.presets & CHECKPOINTS.keys()):
        there = [stem for stem in stems_of(experiment, preset) if stem in study.all_stems]
        if there:
            return there
    plain = [stem for stem in study.stems if stem not in experiment.pretrain]  # of other names
    return chosen_from(plain, experiment.stems)


def copies_of(study: Study, experiment: Experiment, stem: str, recipe: str) -> list[str]:
    """The names of a recipe's copies, by their steps."""
    if recipe not in experiment.copies:
        return []
    steps = []
    for name in study.recipes(study.task, stem):
        if name.startswith(recipe + ".step"):
            steps.append(int(name.removeprefix(recipe + ".step")))
    return [f"{recipe}.step{step}" for step in sorted(steps)]


def name_of(stem: str, recipe: str) -> str:
    return stem if recipe == "base" else f"{stem}.{recipe}"


def reference_of(study: Study, experiment: Experiment, cell: str) -> str:
    """The cell that this one is compared with; "" for none."""
    stem, recipe = study.cell(cell)
    if recipe in experiment.beside:
        return name_of(stem, experiment.beside[recipe])
    if experiment.against:
        before = before_vary(experiment, stem)
        is_other_base = recipe == "base" and before != stem  # a pre-training that was varied
        other = name_of(before, "base" if is_other_base else experiment.against)
    elif recipe in experiment.recipes:
        other = name_of(stem, experiment.recipes[recipe][0])
    else:
        return ""
    return "" if other == cell else other


def before_vary(experiment: Experiment, stem: str) -> str:
    """The checkpoint of which this one is a variant, "3.6M" of "3.6M-lr-5e-3"; else itself."""
    for other in sorted(experiment.stems.split(","), key=len):
        if stem.startswith(f"{other}-"):
            return other
    return stem


# ---------------------------------------------------------------------------------- the section


def section(
    study: Study,
    name: str,
    experiment: Experiment,
    known: list[Prediction],
    figure: str,
    said: str = "",
) -> list[str]:
    """Its paragraphs; figure: what figures.py says of its picture; said: a sentence of result."""
    study = study.on(experiment.task)
    names = cells_there(study, experiment)
    heading = f"{name}: {experiment.question}"
    if name not in EXPERIMENTS:  # one of --vary or --recipe, whose name is its question
        heading = experiment.question
    parts = [f"## {heading}\n"]
    if said:
        parts.append(said + "\n")
    own = [prediction for prediction in known if prediction.experiment == name]
    if own:
        parts.append(prediction_table(study, own))
    if figure:
        parts.append(figure)
    if name == "tail":
        parts.append(tail_table(study))
    if name in ("figure5", "takeoff"):  # their cells are the core's
        return parts
    parts.append(cell_table(study, names))
    differences = difference_table(study, experiment, names)
    if differences:
        parts += [
            "Differences, paired by seed and problem: mean [95 % interval]; bold where the "
            "interval leaves out 0. Shape (a,b): a operations on the first person, b on the "
            "second.\n",
            differences,
        ]
    return parts


def prediction_table(study: Study, own: list[Prediction]) -> str:
    rows = []
    for prediction in own:
        verdict = predictions.judge(study, prediction)
        rows.append(predictions.in_words(prediction, verdict))
    commit = own[0].commit
    written = f" Written in commit {commit}, before the runs." if commit else ""
    header = ["id", "prediction", "verdict", "measured"]
    return f"{counted(study, own)}.{written}\n\n" + table(header, rows)


def counted(study: Study, own: list[Prediction]) -> str:
    """ "Of 5 predictions 3 held, 1 failed, 1 undecided"."""
    words = [predictions.judge(study, prediction).word for prediction in own]
    parts = []
    for word in ("held", "failed", "undecided", "one seed", "not run"):
        if word in words:
            parts.append(f"{words.count(word)} {word}")
    n = "1 prediction" if len(own) == 1 else f"{len(own)} predictions"
    return f"Of {n}: {', '.join(parts)}"


def tail_table(study: Study) -> str:
    """Problems that the base never solved in 256 samples: how many a second draw of it solves by
    luck, and how many the model after RL does.
    """
    stem = study.last
    rows = []
    for label, after in (("the base, asked again", "draw-2"), ("after RL", "rl.draw-1")):
        counts = cells.tail_counts(study, f"{stem}.draw-1", f"{stem}.{after}")
        for never, found in counts:
            rows.append([label, str(never), str(found)])
    if not rows:
        return ""
    header = [
        "who is asked",
        "problems with 0 of 256 right before",
        "of these solved at least once",
    ]
    return "Each line is a seed.\n\n" + table(header, rows)


def cell_table(study: Study, names: list[str]) -> str:
    """How good each cell is, and how its RL went."""
    ks = []
    for name in names:
        for k in cells.ks_of(study, name):
            if k not in ks:
                ks.append(k)
    rows = []
    for name in names:
        stem, recipe = study.cell(name)
        task = study.task_of(stem, recipe)
        row = [name, str(len(study.rows[task, stem, recipe]))]
        for k in sorted(ks):
            estimate = study.estimate(stem, recipe, f"pass@{k}", task)
            row.append(estimate.text() if estimate else MISSING)
        row += [cells.in_training(study, stem, recipe)]
        row += [cells.rollouts_per_problem(study, stem, recipe)]
        row += [cells.rl_flops(study, stem, recipe)]
        row += cells.how_often(study, stem, recipe)
        rows.append(row)
    header = ["cell", "seeds", *[f"pass@{k}" for k in sorted(ks)]]
    header += ["right in training, first -> last five steps", "rollouts per training problem"]
    header += ["TFLOPs of RL"]
    header += ["solved at least half the time", "solved less than 2 % of the time"]
    header += ["pass@8 by that fit / seen"]
    return table(header, rows)


def difference_table(study: Study, experiment: Experiment, names: list[str]) -> str:
    rows = []
    groups = []
    for name in names:
        for group in cells.level_groups(study, name):
            if group not in groups:
                groups.append(group)
    for name in names:
        other = reference_of(study, experiment, name)
        if not other or other not in names:
            continue
        ks = [k for k in cells.ks_of(study, name) if k in cells.ks_of(study, other)]
        wide = f"pass@{ks[-1]}"
        row = [f"{name} - {other}", changed(study, name, other, "pass@1")]
        row += [changed(study, name, other, wide) + ("" if ks[-1] == 32 else f" (k = {ks[-1]})")]
        for group in groups:
            row.append(changed(study, name, other, wide, group))
        rows.append(row)
    if not rows:
        return ""
    header = ["difference", "pass@1", "widest pass@k"]
    header += [f"widest, ({group})" for group in groups]
    return table(header, rows)


def changed(study: Study, a: str, b: str, quantity: str, group: str = "") -> str:
    estimate = cells.difference(study, a, b, quantity, group)
    if estimate is None:
        return MISSING
    text = estimate.with_interval()
    if direction(estimate) in ("higher", "lower"):
        return f"**{text}**"
    return text
