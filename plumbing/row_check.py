"""A row of results, checked field by field before a report is made of it. Needs no torch."""

import hashlib
import json

CHECK = "check"  # the fact with the row's checksum
NUMBER = (int, float)
# Field -> the types that it may have. Rows of older code and of other tasks lack some of them.
TYPES = {
    "name": (str,),
    "task": (str,),
    "kind": (str,),
    "key": (dict,),
    "facts": (dict,),
    "recipe": (str,),
    "tokens": (int, type(None)),
    "seed": (int,),
    "preset": (str, type(None)),
    "setting": (str, type(None)),
    "id": (str,),
    "code": (str, type(None)),
    "distinct": NUMBER,
    "format": NUMBER,
    "truncated": NUMBER,
    "length": NUMBER,
    "mean": NUMBER,
    "heldout_loss": (*NUMBER, type(None)),
    "problems": (list,),
}
NEEDED = {
    "": ("name", "task", "kind"),
    "pass@k": ("problems", "distinct", "format", "truncated", "length"),
    "general": ("mean", "heldout_loss"),
}


def what_is_wrong(row: dict) -> str:
    """In a few words; "" where nothing is."""
    kind = row.get("kind")
    for name in NEEDED[""] + NEEDED.get(kind if isinstance(kind, str) else "", ()):
        if name not in row:
            return f"it has no {name}"
    for name, types in TYPES.items():
        if name in row and type(row[name]) not in types:
            return f"{name} is {short(row[name])}"
    facts = row.get("facts", {})
    if not isinstance(facts.get("config", {}), dict):
        return "facts.config is no object"
    if CHECK in facts and facts[CHECK] != checksum(row):  # older code wrote none
        return "its numbers are not those that were written"
    if kind != "pass@k":
        return ""
    for problem in row["problems"]:
        if not is_count(problem):
            return f"problems holds {short(problem)}"
    return ""


def checksum(row: dict) -> str:
    """Of all but itself and the seconds, in whatever order the fields stand."""
    facts = {name: value for name, value in row["facts"].items() if name != CHECK}
    text = json.dumps(row | {"facts": facts, "seconds": 0}, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def is_count(problem) -> bool:
    """Is it [id, level, n, right, verified], with 0 <= verified <= right <= n?"""
    if not isinstance(problem, list) or len(problem) != 5:
        return False
    id, level, *counts = problem
    if type(id) is not str or type(level) is not str:
        return False
    if any(type(count) is not int for count in counts):
        return False
    n, right, verified = counts
    return 0 <= verified <= right <= n and n >= 1


def short(value) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
