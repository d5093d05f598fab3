"""Whether run folders are seeds of one study: they may differ in the seed, and in nothing else."""

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
            changed = difference(by_seed[first], row)
            if changed:
                raise UserError(
                    f"{study.folders[first]} and {folder} differ in more than the seed "
                    f"({what}: {changed}); they are two studies, so report each by itself"
                )
            same = place_of.setdefault(row.get("id", folder), place)
            if same != place:
                folders = f"{study.folders[same]} and {folder}"
                raise UserError(f"{folders} hold the same run ({what}); give one of them")


def difference(a: dict, b: dict) -> str:
    """How two rows of one recipe differ in more than the seed, in words; "" if they do not."""
    for name in ("preset", "setting"):
        if a.get(name) != b.get(name):
            return f"{name} {a.get(name)} and {b.get(name)}"
    for part in (config_of, question_of_row):
        of_a = part(a)
        of_b = part(b)
        for name in of_a.keys() & of_b.keys():
            if of_a[name] != of_b[name] and name not in ("seed", "content"):
                return f"{name} {of_a[name]} and {of_b[name]}"
    return ""


def config_of(row: dict) -> dict:
    """The flags of the run that made the checkpoint."""
    return row.get("facts", {}).get("config", {})
