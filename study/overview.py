"""The lines of the report's first screen: each experiment, its question, its first prediction."""

from study import predictions
from study.experiment import Experiment
from study.predictions import Prediction
from study.rows import Study
from study.sections import counted


def overview(study: Study, ran: dict[str, Experiment], known: list[Prediction]) -> str:
    """A line for each experiment in `ran`, those that have rows; "" where none was predicted."""
    lines = []
    for name, experiment in ran.items():
        own = [prediction for prediction in known if prediction.experiment == name]
        if own:
            lines.append(line_of(study.on(experiment.task), name, experiment, own))
    if not lines:
        return ""
    return "What was predicted before the runs, and what came out:\n\n" + "\n".join(lines) + "\n"


def line_of(study: Study, name: str, experiment: Experiment, own: list[Prediction]) -> str:
    """Question, first prediction, verdict, number, and how many of its predictions held."""
    verdict = predictions.judge(study, own[0])
    number = ""
    if verdict.estimate:
        range_of = predictions.range_of(own[0])
        number = f", {predictions.measured(own[0], verdict.estimate)} ({range_of})"
    link = f"[{name}](#{anchor(name, experiment.question)})"
    words = own[0].words.rstrip(".")
    return (
        f"- {link}: *{experiment.question}* {words}: **{verdict.word}**{number}. "
        f"{counted(study, own)}."
    )


def anchor(name: str, question: str) -> str:
    """Of the heading "## core: What do ...?", as GitHub makes it."""
    kept = []
    for letter in f"{name}: {question}".lower():
        if letter.isalnum() or letter in " -_":
            kept.append(letter)
    return "".join(kept).replace(" ", "-")
