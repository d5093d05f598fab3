"""Whether two folders hold the same results: weights bit for bit, facts, rows, names of files.

What may differ between two runs of one command is left out: times, speeds, memory, the version of
the code, and the folder itself where a file names it.
"""

import hashlib
import json
from pathlib import Path

MAY_DIFFER = ("seconds", "speed", "memory", "code", "torch", "tok_s")  # how such keys begin
LOGS = "logs"  # the folder of excursions.py with what the commands print
LOCKS = (".lock",)


def snapshot(
    folder: Path, without: tuple[str, ...] = (), but: tuple[str, ...] = ()
) -> dict[str, object]:
    """File -> what it holds, in a form that can be compared.

    without: files and folders that are left out. but: beginnings of keys that are, besides those
    that always are.
    """
    skip = (*MAY_DIFFER, *but)
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        is_lock = name.endswith(LOCKS)
        is_named = name in without or name.split("/")[0] in without
        if is_lock or is_named or LOGS in name.split("/"):
            continue
        if path.is_dir():
            found[name + "/"] = "folder"
        else:
            found[name] = content(path, str(folder), skip)
    return found


def content(path: Path, folder: str, skip: tuple[str, ...]) -> object:
    if path.suffix == ".pt":
        return content_of_checkpoint(path, folder, skip)
    data = path.read_bytes()
    if path.suffix == ".jsonl":
        rows = [
            row_of_line(line, folder, skip) for line in data.decode(errors="replace").split("\n")
        ]
        # A study evaluates two checkpoints at a time, and either may be first.
        return sorted(rows, key=str) if path.name == "results.jsonl" else rows
    if path.suffix == ".json":
        return row_of_line(data.decode(errors="replace"), folder, skip)
    if path.suffix == ".md":
        return data.decode(errors="replace").replace(folder, ".")
    return hashlib.sha256(data).hexdigest()


def content_of_checkpoint(path: Path, folder: str, skip: tuple[str, ...]) -> object:
    import torch

    try:
        return plain(torch.load(path, weights_only=True), folder, skip)
    except Exception as error:  # any kind: whatever it is, the file is not a checkpoint
        return f"unreadable: {type(error).__name__}"


def row_of_line(line: str, folder: str, skip: tuple[str, ...]) -> object:
    try:
        return plain(json.loads(line), folder, skip)
    except ValueError:
        return line


def plain(value: object, folder: str, skip: tuple[str, ...]) -> object:
    """Dicts, lists and texts; a tensor becomes its type, shape and a hash of its bytes."""
    if hasattr(value, "numpy"):
        bits = value.detach().contiguous().reshape(-1).view(dtype=byte_type())
        digest = hashlib.sha256(bits.numpy().tobytes()).hexdigest()
        return f"{value.dtype} {tuple(value.shape)} {digest}"
    if isinstance(value, dict):
        kept = {}
        for key, item in value.items():
            if not str(key).startswith(skip):
                kept[str(key).replace(folder, ".")] = plain(item, folder, skip)
        return kept
    if isinstance(value, (list, tuple)):
        return [plain(item, folder, skip) for item in value]
    if isinstance(value, str):
        return value.replace(folder, ".")
    return repr(value)


def byte_type():
    import torch

    return torch.uint8


def differences(right: dict, found: dict) -> list[str]:
    """In words, what is missing, left over or different; empty where all is the same."""
    said = []
    for name in sorted(right.keys() | found.keys()):
        if name not in found:
            said.append(f"{name} is missing")
        elif name not in right:
            said.append(f"{name} is left over")
        elif right[name] != found[name]:
            said.append(f"{name}: {first_difference(right[name], found[name])}")
    return said


def first_difference(right: object, found: object, place: str = "") -> str:
    if isinstance(right, dict) and isinstance(found, dict):
        for key in sorted(right.keys() | found.keys()):
            if right.get(key) != found.get(key):
                return first_difference(right.get(key), found.get(key), f"{place}.{key}")
    if isinstance(right, list) and isinstance(found, list):
        if len(right) != len(found):
            return f"{place} has {len(found)} rows instead of {len(right)}"
        for i, (a, b) in enumerate(zip(right, found)):
            if a != b:
                return first_difference(a, b, f"{place}[{i}]")
    return f"{place} is {str(found)[:60]!r} instead of {str(right)[:60]!r}"
