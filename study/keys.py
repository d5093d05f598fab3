"""Which evaluations a study asks for, and which rows answer them.

Anybody may evaluate a checkpoint of a study in another way, with five problems say, and the row
lands in the same file. So a row counts for what its key says: the questions, and how they were
asked. The study's own commands are in commands.json. In folders that have none, the key that most
rows have is taken.
"""

import contextlib
import json
import os
import shlex

import evaluate
from data import UserError
from plumbing import flags
from plumbing.checkpoint import read_facts
from plumbing.files import read_rows
from plumbing.identity import parent_differences
from plumbing.result_rows import question_key, read_results, tasks_of
from study.commands import COMMANDS, read_commands


def questions_of(command: list[str], preset: str) -> dict[str, dict]:
    """Task -> the key of its row, but for the checkpoint, after this command of evaluate.py."""
    argv = command[command.index("evaluate.py") + 1 :]
    parent = {"preset": preset, "recipe": "base"}
    stage = (evaluate.Config, evaluate.PRESETS, evaluate.SETTINGS)
    with contextlib.redirect_stdout(None):  # it would print the settings
        config = flags.parse_flags(*stage, argv, parent=parent)
    return {task: question_key(config, task) for task in tasks_of(config)}


def is_answered(rows: list[dict], ckpt: str, command: list[str], preset: str) -> bool:
    """Whether the rows hold all that this command would evaluate of the checkpoint."""
    facts = read_facts(ckpt)
    checkpoint = {"id": facts["id"], "weights": facts.get("weights")}
    keys = [row.get("key") for row in rows]
    for question in questions_of(command, preset).values():
        if checkpoint | question not in keys:
            return False
    return True


def is_made_from(path: str, parent: str) -> bool:
    """Whether a checkpoint has come from the parent that is there now. The parent may be gone."""
    if not os.path.exists(parent):
        return True
    return not parent_differences(read_facts(path), read_facts(parent), parent)


def is_measured(path: str, ckpt: str, base: str) -> bool:
    """Whether the file holds how far these weights lie from those of the base."""
    wanted = (read_facts(ckpt).get("weights"), read_facts(base).get("weights"))
    for row in read_rows(path):
        if (row["key"]["weights"], row["key"]["base"]) == wanted:
            return True
    return False


def question_of_row(row: dict) -> dict:
    """The key of a row, but for the checkpoint."""
    key = row.get("key", {})
    return {name: value for name, value in key.items() if name not in ("id", "weights")}


def rows_of_folder(folder: str, study: str) -> tuple[list[dict], list[str]]:
    """The rows of a run folder that belong to the study, and the names of the others.

    study: the folder with the study's commands.json.
    """
    rows = read_results(os.path.join(folder, "results.jsonl"))
    asked = asked_in_study(folder, study, rows)
    usual = usual_questions(rows)
    chosen = []
    others = []
    for row in rows:
        task = row["task"]
        wanted = asked.get((row["name"], task), usual[task, is_base(row)])
        if question_of_row(row) == wanted:
            chosen.append(row)
        else:
            others.append(f"{row['name']} on {task}")
    return chosen, others


def is_base(row: dict) -> bool:
    """Base checkpoints may be asked in another way than the rest, with worked examples."""
    return row.get("recipe") == "base"


def usual_questions(rows: list[dict]) -> dict[tuple, dict]:
    """(task, is it a base?) -> the key that most checkpoints have, of equally many the last."""
    names = {}  # (task, is it a base?) -> key as text -> the checkpoints' names
    for row in rows:
        by_key = names.setdefault((row["task"], is_base(row)), {})
        text = json.dumps(question_of_row(row), sort_keys=True)
        of_key = by_key.pop(text, set())  # taken out, so that the key of the last row stands last
        by_key[text] = of_key | {row["name"]}
    usual = {}
    for place, by_key in names.items():
        most = 0
        for text, of_key in by_key.items():
            if len(of_key) >= most:
                most = len(of_key)
                usual[place] = json.loads(text)
    return usual


def asked_in_study(folder: str, study: str, rows: list[dict]) -> dict[tuple, dict]:
    """(name, task) -> the key that the study's command asks for; {} where that is not known."""
    commands = read_commands(study)
    presets = {row["name"]: row.get("preset") for row in rows}
    asked = {}
    for place, command in commands.items():
        run_folder, _, job = place.partition(" ")
        name, evaluated, _ = job.partition(" evaluation")
        same_folder = os.path.basename(run_folder) == os.path.basename(os.path.abspath(folder))
        if not evaluated or name not in presets or not same_folder:
            continue
        try:
            questions = questions_of(shlex.split(command), presets[name])
        except (ValueError, UserError, SystemExit):  # not even a command of evaluate.py
            path = os.path.join(study, COMMANDS)
            said = f"{path} is damaged: {place!r:.80} has {command!r:.80}"
            raise UserError(f"{said}; delete the file, and the same command goes on") from None
        for task, question in questions.items():
            asked[name, task] = question
    return asked
