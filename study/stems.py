"""The base checkpoints in a folder: what post-training can start from, whatever they are called."""

import os

from data import UserError
from data.files import file_errors
from plumbing.checkpoint import read_facts


def base_checkpoints(folder: str) -> list[str]:
    """The names, without .pt, of the checkpoints that were only pre-trained, earliest first.

    Raises UserError where there are none, or where one does not know its tokens of pre-training,
    which are the figures' axis.
    """
    with file_errors("read", folder):
        names = sorted(name for name in os.listdir(folder) if name.endswith(".pt"))
    tokens = {}
    unknown = []
    for name in names:
        facts = read_facts(os.path.join(folder, name))
        if facts["recipe"] != "base":
            continue
        stem = name.removesuffix(".pt")
        if "," in stem:
            raise UserError(f"{folder}/{name}: a name with a comma stands for two; rename it")
        tokens[stem] = facts["tokens"]
        if not facts["tokens"]:
            unknown.append(stem)
    if unknown:
        raise UserError(
            f"{folder}: {', '.join(unknown)} do not know their tokens of pre-training; convert "
            "them again with --tokens, as in convert.py from-hf ... --tokens 21B"
        )
    if not tokens:
        raise UserError(f"{folder} holds no base checkpoint; bring some with convert.py from-hf")
    return sorted(tokens, key=tokens.get)
