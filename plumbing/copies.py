"""Copies of the policy while RL goes on (--keep), to follow a run's pass@k over its steps."""

import os

from plumbing import checkpoint
from plumbing.flags import check
from plumbing.identity import differences, lineage, make_facts
from plumbing.ranks import rank
from plumbing.sharding import full_weights
from plumbing.units import is_whole


def steps_to_keep(config) -> list[int]:
    """--keep 50,100 -> [50, 100]. Raises UserError for what is no step of the run."""
    steps = []
    for word in filter(None, config.keep.split(",")):
        there = is_whole(word) and 1 <= int(word) <= config.steps
        check(there, f"--keep {word}: give steps from 1 to {config.steps}, joined by commas")
        steps.append(int(word))
    return steps


def copy_path(run, done: int) -> str:
    return f"{checkpoint.stem(run.out)}.step{done}.pt"


def keep_copy(run, done: int) -> None:
    """Write the policy after `done` steps beside the result."""
    weights = full_weights(run.model)
    if rank() == 0:
        facts = make_facts(run.config, lineage(run.parent, run.recipe), done, run.parent)
        checkpoint.save_checkpoint(copy_path(run, done), run.model, facts, weights)


def check_copies(run) -> None:
    """UserError where a copy would overwrite what another command has made."""
    for done in steps_to_keep(run.config):
        path = copy_path(run, done)
        if os.path.exists(path):
            changed = differences(run.config, checkpoint.read_facts(path)["config"])
            message = f"{path} exists and differs ({changed}); give another --out or delete it"
            check(not changed, message)
