"""The first screen of report.md: what was asked, what came out, one problem, in plain sentences."""

from data.problems import load_problems, prompt_text
from study import cells
from study.dots import GAINS, found_in_words
from study.estimates import Estimate, count_up, direction, said_of_seeds
from study.experiments import LONG_STEPS
from study.paper import paper_difference
from study.recipes import RECIPES, WRITTEN
from study.rows import Study

SPELLED = {
    "base": "the pre-trained model itself",
    "sft": "fine-tuned on one worked solution per problem",
    "sft-gold": "fine-tuned on all worked solutions",
    "rl": "direct RL: trained from the base by rewards for right answers (GRPO)",
    "sft.rl": "RL after SFT on one solution",
    "sft-gold.rl": "RL after SFT on all solutions",
    "parallel": "every step averages an RL update and an SFT update",
    "rl-written": "direct RL in the paper's written setting: 0.1 for a well-formed wrong answer, "
    "and a KL term",
}

SHAPES = (
    " A problem has a shape (a,b): a operations on the first person, b on the second; the test has "
    "five of them."
)
RULE = (
    "How a verdict is reached: values are paired by seed and problem, and the 95 % interval counts "
    "the luck of the seeds and the choice of problems together (one seed: problems alone). "
    "*Higher* or *lower* means that the interval leaves out 0, *undecided* that it holds 0, "
    "*expansion* that RL raised pass@1 and the widest pass@k, *sharpening* that it raised pass@1 "
    "and lowered the widest pass@k.\n"
)


def opening(study: Study, main_figure: str, overview: str) -> list[str]:
    """The first screen. main_figure: its paragraph; overview: that of the predictions; or ""."""
    parts = [question(study)]
    said = what_rl_did(study)
    if said:
        parts.append("\n".join(said) + "\n")
    parts += how_long(study)
    if main_figure:
        parts.append(main_figure)
    if study.task == "toy":
        parts.append(solved_problem())
    if overview:
        parts.append(overview)
    parts.append(recipes_in_words(study))
    parts.append(RULE)
    return parts


def question(study: Study) -> str:
    wide = study.ks(study.task)[-1]
    n_seeds = len(study.folders)
    seeds = "1 seed" if n_seeds == 1 else f"{n_seeds} seeds"
    return (
        "When should reinforcement learning (RL) enter the training of a language model, and does "
        f"it *expand* what the model can do (more problems solved in {wide} tries, pass@{wide}) or "
        "only *sharpen* it (more at the first try, pass@1, and fewer in many)? From checkpoints "
        f"after {', '.join(study.stems)} tokens of pre-training the same model was fine-tuned on "
        f"solutions (SFT), trained by RL, and both in turn or together; {seeds}."
        f"{SHAPES if study.task == 'toy' else ''}\n"
    )


def what_rl_did(study: Study) -> list[str]:
    """A sentence on each RL that was run at the last checkpoint, by shape of problem first."""
    lines = []
    stem = study.last
    wide = f"pass@{study.ks(study.task)[-1]}"
    for after, before, label in GAINS:
        name = f"{stem}.{after}"
        start = stem if before == "base" else f"{stem}.{before}"
        narrow = cells.difference(study, name, start, "pass@1")
        widest = cells.difference(study, name, start, wide)
        if narrow is None or widest is None:
            continue
        found = []
        groups = cells.level_groups(study, stem)
        for group in ["", *groups]:
            found.append((group, cells.difference(study, name, start, wide, group)))
        by_shape = f" By shape of problem {wide} is {found_in_words(found)}." if groups else ""
        paper = paper_difference(after, before)
        lines.append(
            f"- **{label}** at {stem} tokens: {claim(narrow, widest)}.{by_shape} Over all problems "
            f"pass@1 {change(narrow)}, and {wide} {change(widest)}."
            f"{at_others(study, after, before, wide)} The paper, at 44B tokens on GSM8K: {paper} "
            "points of pass@1 / pass@32."
        )
    return lines


def at_others(study: Study, after: str, before: str, wide: str) -> str:
    """ " Earlier: 24.3 [13.8, 34.9] points of pass@32 at 2.4M.", or ""."""
    parts = []
    for stem in study.stems:
        found = study.difference(stem, after, before, wide)
        if stem != study.last and found:
            parts.append(f"{found.with_interval()} at {stem}")
    return f" Earlier, {wide} changes by {', '.join(parts)}." if parts else ""


def how_long(study: Study) -> list[str]:
    """How many steps RL took, and what direct RL's training accuracy became."""
    logs = study.logs(study.last, "rl")
    if not logs:
        return []
    steps = min(log[-1]["step"] for log in logs)
    accuracy = cells.in_training(study, study.last, "rl")
    said = f"RL took {steps} steps"
    written = study.logs(study.stems[0], WRITTEN)
    if written and written[0][-1]["step"] < steps:
        said += f", in the paper's written setting {written[0][-1]['step']}"
    said += (
        f"; the share of right samples in direct RL from {study.last} went {accuracy} from its "
        "first to its last five steps"
    )
    if steps < LONG_STEPS and study.task == "toy":
        said += (
            ". That was still rising: `python excursions.py --only core` runs "
            f"{LONG_STEPS} steps, with 8 seeds"
        )
    return [said + ".\n"]


def change(estimate: Estimate) -> str:
    """ "rises by 29.4 [21.0, 37.8] points (8 of 8 seeds up)"."""
    words = {"higher": "rises by", "lower": "falls by"}
    side = direction(estimate)
    number = estimate.with_interval(sign="" if side == "higher" else "+")
    notes = []
    if len(estimate.of_seeds) > 1:
        notes.append(count_up(estimate))
    if side == "undecided":
        notes.append(f"undecided, {said_of_seeds(estimate)} whether it is 0")
    note = f" ({'; '.join(notes)})" if notes else ""
    return f"{words.get(side, 'changes by')} {number} points{note}"


def claim(narrow: Estimate, widest: Estimate) -> str:
    words = {
        ("higher", "higher"): "expansion",
        ("higher", "lower"): "sharpening",
        ("lower", "lower"): "worse at both",
    }
    found = words.get((direction(narrow), direction(widest)), "undecided")
    if direction(narrow) == "higher" and direction(widest) == "undecided":
        found = "more at the first try; beyond that undecided"
    if len(narrow.of_seeds) == 1:
        return f"in one seed, which decides nothing, {found}"
    return found


def solved_problem() -> str:
    """A test problem of the toy world with a right and a wrong response."""
    problem = load_problems("toy", "test")[0]
    solution = problem.solutions[0]
    first, second = problem.answer.split(", ")
    wrong = solution.replace(f"{{ {problem.answer}}}", f"{{ {first}, {int(second) + 1}}}")
    return (
        f"A problem of the test set:\n\n    {prompt_text(problem).strip()}\n\n"
        f"A right response, then a wrong one:\n\n    {solution}\n    {wrong}\n"
    )


def recipes_in_words(study: Study) -> str:
    there = study.recipes(study.task, study.last)
    first = study.recipes(study.task, study.stems[0])
    lines = []
    for recipe in RECIPES:
        if recipe in there or recipe in first:
            lines.append(f"`{recipe}`: {SPELLED[recipe]}")
    return "Recipes. " + "; ".join(lines) + ".\n"
