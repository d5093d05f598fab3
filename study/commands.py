"""commands.json in a study's folder: by which command everything in it was made. Needs no torch."""

from pathlib import Path

from data import UserError
from data.files import read_json

COMMANDS = "commands.json"  # "<run folder> <name>" -> the command


def read_commands(study: str) -> dict[str, str]:
    """What commands.json holds; {} where there is none. Raises UserError where it is damaged."""
    path = Path(study, COMMANDS)
    if not path.exists():
        return {}
    advice = "delete it, and the same command goes on"
    commands = read_json(path, advice, advice)
    if not all(isinstance(command, str) for command in commands.values()):
        raise UserError(f"{path} is damaged; {advice}")
    return commands
