"""Whether run folders are seeds of one study: they may differ in the seed, and in nothing else."""

import os

from data import UserError
from study.keys import question_of_row
from study.rows import Study


def check_seeds(study: Study) -> None:
    """UserError where two folders ran a recipe with other flags, or hold the same run."""
    for (task, stem, recipe), by_seed in study.rows.items():
        what = f"{stem}.{recipe} on {task}"
        places = sorted(by_seed)
        first = places[0]
        place_of = {}  # id of a checkpoint -> the first place that has it
        for place in places:
            folder = study.folders[place]
            row = by_seed[place]
            changed = difference(by_seed[first], row, study.folders[first], folder)
            if changed:
                raise UserError(
                    f"{study.folders[first]} and {folder} differ in more than the seed "
                    f"({what}: {changed}); they are two studies, so report each by itself"
                )
            same = place_of.setdefault(row.get("id", folder), place)
            if same != place:
                folders = f"{study.folders[same]} and {folder}"
                raise UserError(f"{folders} hold the same run ({what}); give one of them")


def difference(a: dict, b: dict, folder_of_a: str = "", folder_of_b: str = "") -> str:
    """How two rows of one recipe differ in more than the seed, in words; "" if they do not."""
    for name in ("preset", "setting"):
        if a.get(name) != b.get(name):
            return f"{name} {a.get(name)} and {b.get(name)}"
    configs = (config_of(a, folder_of_a), config_of(b, folder_of_b))
    for of_a, of_b in (configs, (question_of_row(a), question_of_row(b))):
        for name in of_a.keys() & of_b.keys():
            if of_a[name] != of_b[name] and name not in ("seed", "content"):
                return f"{name} {of_a[name]} and {of_b[name]}"
    return ""


def config_of(row: dict, folder: str) -> dict:
    """The flags of the run that made the checkpoint.

    A file of problems in the run's own folder is the study's: each seed sorts the problems by how
    often its own base solves them. Of such a file the name counts, and not the content.
    """
    config = row.get("facts", {}).get("config", {})
    home, name = os.path.split(config.get("data") or "")
    if home and os.path.basename(home) == os.path.basename(os.path.normpath(folder)):
        config = config | {"data": name}
        config.pop("content of data", None)
    return config
