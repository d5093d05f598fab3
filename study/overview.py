"""The table of the report's first screen: each experiment, its question, its first prediction."""

from study import predictions
from study.experiment import Experiment
from study.predictions import Prediction
from study.report import table
from study.rows import Study


def overview(study: Study, ran: dict[str, Experiment], known: list[Prediction]) -> str:
    """ran: the experiments that have rows. "" where none of them was predicted."""
    rows = []
    for name, experiment in ran.items():
        own = [prediction for prediction in known if prediction.experiment == name]
        if own:
            rows.append(row_of(study.on(experiment.task), name, experiment, own))
    if not rows:
        return ""
    header = ["experiment", "question", "first prediction", "verdict", "measured", "all of them"]
    return table(header, rows)


def row_of(study: Study, name: str, experiment: Experiment, own: list[Prediction]) -> list[str]:
    verdicts = [predictions.judge(study, prediction) for prediction in own]
    first = verdicts[0]
    number = predictions.measured(own[0], first.estimate) if first.estimate else ""
    counts = []
    words = [verdict.word for verdict in verdicts]
    for word in ("held", "failed", "undecided", "one seed", "not run"):
        if word in words:
            counts.append(f"{words.count(word)} {word}")
    link = f"[{name}](#{anchor(name, experiment.question)})"
    said = [link, experiment.question, own[0].words, f"**{first.word}**", number]
    return [*said, ", ".join(counts)]


def anchor(name: str, question: str) -> str:
    """Of the heading "## core: What do ...?", as GitHub makes it."""
    kept = []
    for letter in f"{name}: {question}".lower():
        if letter.isalnum() or letter in " -_":
            kept.append(letter)
    return "".join(kept).replace(" ", "-")
