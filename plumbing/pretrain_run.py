"""When a run of pretrain.py has ended, and which run a folder holds."""

import json
import os
from pathlib import Path

from data.files import read_json, write_text
from plumbing.checkpoint import read_facts
from plumbing.flags import check
from plumbing.identity import (
    begin,
    claim_together,
    differences,
    drop_older_state,
    drop_state_of_finished,
    other_code,
    recorded,
)
from plumbing.ranks import gather_objects, print0, rank


def is_finished(config, folder: str, keep: dict[int, str], steps: int) -> bool:
    """True where this very run has ended and its checkpoints are there, which is said.

    Otherwise the folder is this command's from now on. A run may go on after the last checkpoint
    that it keeps, so <folder>/pretrain.json says whether it has ended. Raises UserError where the
    folder holds another run's checkpoints or log.
    """
    folder = folder.rstrip("/") or "/"
    claim_together(f"{folder}.pretrain", run_name(folder))  # locked beside: nothing is made in it
    begin()
    paths = [path for path in keep.values() if os.path.exists(path)]
    earlier = {path: read_facts(path) for path in paths}
    about = read_about(folder)
    for path, facts in [(about_file(folder), about), *earlier.items()]:
        changed = differences(config, facts["config"]) if facts else ""
        check(
            not changed,
            f"{path} exists and differs ({changed}); give another --out, or delete {folder}",
        )
    last = keep[max(keep)]
    ended = len(earlier) == len(keep) and (about.get("ended") or max(keep) == steps)
    gather_objects(None)  # every rank has read what is there
    if ended and config.again:
        drop_older_state(last, run_name(folder))
        print0(f"{folder} is made again")
    elif ended:
        drop_state_of_finished(last, run_name(folder))
        if rank() == 0:
            write_about(config, folder, ended=True)
        print0(f"{last} is finished; nothing to do{other_code(earlier[last])}")
        return True
    return False


def note_start(config, folder: str) -> None:
    """From now on the folder is this run's: all that it reads has been opened."""
    if rank() == 0:
        write_about(config, folder, ended=False)


def end(config, folder: str, resume) -> None:
    """Note that the run has ended, then drop its state."""
    resume.check_end()
    if rank() == 0:
        write_about(config, folder, ended=True)
        resume.drop()


def run_name(folder: str) -> str:
    """The log and the state of a run have names that begin so."""
    return os.path.join(folder, "pretrain")


def about_file(folder: str) -> str:
    return f"{run_name(folder)}.json"


def read_about(folder: str) -> dict:
    """What pretrain.json says of the run in this folder: its config, and whether it has ended."""
    path = Path(about_file(folder))
    if not path.exists():
        return {}
    advice = "delete it, and the same command goes on"
    about = read_json(path, advice, advice)
    check(isinstance(about.get("config"), dict), f"{path} is damaged; {advice}")
    return about


def write_about(config, folder: str, ended: bool) -> None:
    about = {"config": recorded(config), "ended": ended}
    write_text(about_file(folder), json.dumps(about, indent=1))
