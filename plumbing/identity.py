"""Which run a file belongs to: the flags that decide a result, and the facts that record them.

A file that exists and has other facts than this command's is never overwritten, and never taken
for this command's result.
"""

import dataclasses
import functools
import hashlib
import json
import os
import shutil
import subprocess

import torch

from data import UserError
from plumbing.checkpoint import read_facts, stem
from plumbing.ranks import print0, rank

# These flags change what a run costs or where it writes, but not its result; here is why. All
# others are recorded in the result, and a run that is resumed must have them unchanged.
COST_ONLY = {
    "ckpt": "the parent is recorded by its id, wherever the file stands",
    "out": "where the result is written",
    "save_every": "a resumed run is the same run",
    "log_every": "printed lines",
    "samples_every": "samples in the log",
    "save_rollouts": "a file beside the log",
    "micro_tokens": "a loss is a sum, divided once for the whole step; but see `recorded`",
    "slots": "a token's draw is keyed by problem, rollout and position, not by slot",
    "kv_memory": "it limits how many slots are in use",
    "progress": "a progress bar",
    "plain": "fast/ computes the same, to rounding",
    "compile": "the same, to rounding",
    "checkpoint_activations": "the same, some of it computed twice",
}


def recorded(config) -> dict:
    """The flags that decide the result, with their values.

    With --loss micro-mean each micro-batch is divided by its own count, so that --micro_tokens is
    a part of the objective.
    """
    values = dataclasses.asdict(config)
    free = set(COST_ONLY)
    if values.get("loss") == "micro-mean":
        free.remove("micro_tokens")
    return {name: value for name, value in values.items() if name not in free}


def differences(config, other: dict) -> str:
    """How the flags recorded in `other` differ from this config, in words; empty if they do not.

    A flag that the code did not have then counts as its default.
    """
    now = recorded(config)
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    changes = []
    for name in sorted(now.keys() | other.keys()):
        before = other.get(name, defaults.get(name))
        if now.get(name) != before:
            changes.append(f"{name} was {before} and is now {now.get(name)}")
    return ", ".join(changes)


def lineage(parent: dict, recipe: str) -> str:
    """`sft`, then `rl`, is `sft.rl`. A base checkpoint adds nothing to the name."""
    return recipe if parent["recipe"] == "base" else f"{parent['recipe']}.{recipe}"


def make_facts(config, recipe: str, step: int, parent: dict | None, **more) -> dict:
    """What a checkpoint says of itself; `id` stands for its whole lineage of configurations."""
    parent = parent or {}
    facts = {
        "recipe": recipe,
        "step": step,  # optimizer steps of this stage
        "tokens": parent.get("tokens"),  # of pre-training
        "corpus": parent.get("corpus"),
        "tokenizer": parent.get("tokenizer"),
        "preset": config.preset,
        "seed": config.seed,
        "parent": getattr(config, "ckpt", None),
        "parent_id": parent.get("id"),
        "base_id": parent.get("base_id") or parent.get("id"),
        "config": recorded(config),
        "code": code_version(),
        "torch": str(torch.__version__),
        **more,
    }
    identity = [recipe, step, facts["tokens"], facts["parent_id"], facts["config"]]
    text = json.dumps(identity, sort_keys=True)  # in whatever order a class has its flags
    facts["id"] = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    return facts


@functools.cache
def code_version() -> str:
    """The commit that runs, with a + where files differ from it."""
    try:
        commit = git("rev-parse", "--short", "HEAD") or "unknown"
        changed = git("status", "--porcelain", "-uno")
    except OSError:  # there is no git
        return "unknown"
    return commit + ("+" if changed else "")


def git(*args: str) -> str:
    folder = os.path.dirname(os.path.abspath(__file__))
    done = subprocess.run(["git", *args], cwd=folder, capture_output=True, text=True)
    return done.stdout.strip()


def is_finished(path: str, config, parent: dict | None = None) -> bool:
    """True where `path` holds the result of this very command. Says so, too.

    Raises UserError where it holds the result of another command.
    """
    if not os.path.exists(path):
        return False
    facts = read_facts(path)
    changed = differences(config, facts["config"])
    if not changed and parent and facts["parent_id"] != parent["id"]:
        changed = f"its parent {config.ckpt} was made again"
    if changed:
        message = f"{path} exists and differs ({changed}); give another --out or delete it"
        raise UserError(message)
    if rank() == 0:  # a kill after the result was written may have left the state behind
        shutil.rmtree(f"{stem(path)}.resume", ignore_errors=True)
    print0(f"{path} is finished; nothing to do")
    return True
