"""commands.json in a study's folder: by which command everything in it was made. Needs no torch."""

import json
import os

COMMANDS = "commands.json"  # "<run folder> <name>" -> the command


def read_commands(study: str) -> dict[str, str]:
    """What commands.json holds; {} where there is none. Raises OSError where it is damaged."""
    path = os.path.join(study, COMMANDS)
    if not os.path.exists(path):
        return {}
    try:
        with open(path, encoding="utf-8") as file:
            commands = json.load(file)
    except (ValueError, RecursionError):  # ValueError: not JSON, or not text
        commands = None
    whole = isinstance(commands, dict) and all(isinstance(c, str) for c in commands.values())
    if not whole:
        raise OSError(f"{path} is damaged; delete it, and the same command goes on")
    return commands
