"""experiments.json in a study's folder: the experiments that --vary and --recipe made there.

The report has a section for each, also when it is drawn again later.
"""

import dataclasses
import json
import os
import re
from pathlib import Path

from data import UserError
from data.files import read_json, write_text
from study.experiment import Experiment

FILE = "experiments.json"
RENAMED = {"long": "with_core", "kind": "shape"}  # as older code called these fields


def read_own(folder: str) -> dict[str, Experiment]:
    """Name -> experiment; {} where there is none. UserError where the file is damaged."""
    path = Path(folder, FILE)
    if not path.exists():
        return {}
    advice = "delete it; the report then leaves out what --vary and --recipe made"
    found = {}
    for name, values in read_json(path, advice, advice).items():
        try:
            values = {RENAMED.get(field, field): value for field, value in values.items()}
            recipes = {recipe: (start, line) for recipe, (start, line) in values["recipes"].items()}
            found[name] = Experiment(**{**values, "recipes": recipes})
        except (TypeError, ValueError, KeyError, AttributeError):
            raise UserError(f"{path} is damaged at {name!r:.60}; {advice}") from None
    return found


def note_own(folder: str, experiment: Experiment) -> None:
    """Add an experiment, named by its question."""
    known = {}
    for name, other in read_own(folder).items():
        known[name] = dataclasses.asdict(other)
    known[name_of(experiment)] = dataclasses.asdict(experiment)
    write_text(os.path.join(folder, FILE), json.dumps(known, indent=1))


def name_of(experiment: Experiment) -> str:
    """ "What does grpo.lr=1e-4 change at 3.6M.rl?" -> "grpo.lr-1e-4-change-at-3.6M.rl"."""
    words = re.sub(r"^What (does|do) |\\?$", "", experiment.question)
    return re.sub(r"[^A-Za-z0-9.-]+", "-", words).strip("-")
