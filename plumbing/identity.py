"""Which run a file belongs to: what decided a result, and the facts that record it.

Identity is content. A result's facts hold the flags, hashes of the files that the flags name, and
the parent's weights as a hash. A file that exists and has other facts than this command's is never
overwritten, and never taken for this command's result.
"""

import dataclasses
import hashlib
import json
import os
import shutil

import torch

from data import UserError, lock
from data.manifest import hash_of_file
from plumbing.checkpoint import read_facts, stem
from plumbing.flags import check
from plumbing.ranks import gather_objects, print0, rank
from plumbing.version import code_version, other_code

# These flags change what a run costs or where it writes, but not its result; here is why. All
# others are recorded in the result, and a run that is resumed must have them unchanged.
COST_ONLY = {
    "ckpt": "the parent is recorded by its id, wherever the file stands",
    "out": "where the result is written",
    "save_every": "a resumed run is the same run",
    "log_every": "printed lines",
    "samples_every": "samples in the log",
    "save_rollouts": "a file beside the log",
    "wandb": "a copy of the log",
    "micro_tokens": "a loss is a sum, divided once for the whole step; but see `recorded`",
    "slots": "a token's draw is keyed by problem, rollout and position, not by slot",
    "kv_memory": "it limits how many slots are in use",
    "progress": "a progress bar",
    "again": "the same result is made again",
    "plain": "fast/ computes the same, to rounding",
    "compile": "the same, to rounding",
    "checkpoint_activations": "the same, some of it computed twice",
}


def recorded(config) -> dict:
    """What decides the result: flags with their values, and the content of the files they name.

    With --loss micro-mean each micro-batch is divided by its own count, so that --micro_tokens is
    a part of the objective.
    """
    values = dataclasses.asdict(config)
    free = set(COST_ONLY)
    if values.get("loss") == "micro-mean":
        free.remove("micro_tokens")
    decisive = {name: value for name, value in values.items() if name not in free}
    for name in getattr(config, "content_flags", ()):
        content = content_of(values.get(name) or "")
        if content:
            decisive[CONTENT + name] = content
    return decisive


CONTENT = "content of "  # begins the name under which `recorded` has the hash of a flag's file


# Path -> hash, as this run has found it at its start. The file may change while the run goes on.
FOUND: dict[str, str] = {}


def content_of(value: str) -> str:
    """A hash of the file that a flag names, as in my.jsonl or my_reward.py:score; "" if none."""
    path = value if os.path.isfile(value) else value.rpartition(":")[0]
    if not os.path.isfile(path):
        return ""
    path = os.path.abspath(path)
    if path not in FOUND:
        FOUND[path] = hash_of_file(path)[:16]
    return FOUND[path]


def differences(config, other: dict, most: int = 3) -> str:
    """How this config differs from what `other` has recorded, in words; empty if it does not.

    A flag that the code did not have then counts as its default, and of a file whose content was
    not recorded then nothing is said. The first `most` differences are named, in the order of the
    flags.
    """
    now = recorded(config)
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    changes = []
    for name in [*now, *sorted(other.keys() - now.keys())]:
        if name.startswith(CONTENT):
            if name in other and other[name] != now.get(name):
                flag = name.removeprefix(CONTENT)
                changes.append(f"the {CONTENT}--{flag} {getattr(config, flag, '')} has changed")
            continue
        before = other.get(name, defaults.get(name))
        if now.get(name) != before:
            changes.append(f"{name} was {short(before)} and is now {short(now.get(name))}")
    return listed(changes, most)


def listed(changes: list[str], most: int = 3) -> str:
    """The first few of them, and how many there are besides."""
    more = len(changes) - most
    text = ", ".join(changes[:most])
    return f"{text}, and {more} more" if more > 0 else text


def short(value) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def parent_differences(before: dict, parent: dict, ckpt: str) -> str:
    """How the parent that is there now differs from the one that a run began with, in words.

    before: `parent_id` and `parent_weights` as they were recorded. Facts of older code have no
    hash of the weights.
    """
    if before.get("parent_id") != parent.get("id"):
        return f"its parent was another checkpoint than {ckpt} is now"
    weights = before.get("parent_weights")
    if weights and parent.get("weights") and weights != parent["weights"]:
        return f"the weights of its parent {ckpt} have changed"
    return ""


def lineage(parent: dict, recipe: str) -> str:
    """`sft`, then `rl`, is `sft.rl`. A base checkpoint adds nothing to the name."""
    return recipe if parent["recipe"] == "base" else f"{parent['recipe']}.{recipe}"


def make_facts(config, recipe: str, step: int, parent: dict | None, **more) -> dict:
    """What a checkpoint says of itself; `id` stands for all that decided its weights."""
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
        "parent_weights": parent.get("weights"),  # a hash, of what was read
        "base_id": parent.get("base_id") or parent.get("id"),
        "config": recorded(config),
        "code": code_version(),
        "torch": str(torch.__version__),
        **more,
    }
    identity = [recipe, step, facts["tokens"], facts["parent_id"], facts["config"]]
    identity += [facts["parent_weights"], facts.get("corpus_content")]
    text = json.dumps(identity, sort_keys=True)  # in whatever order a class has its flags
    facts["id"] = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    return facts


def is_finished(path: str, config, parent: dict | None = None) -> bool:
    """True where `path` holds the result of this very command, which is said.

    Otherwise this command has the path to itself from now on. Raises UserError where the path holds
    the result of another command, or cannot be written.
    """
    claim_together(path)
    begin()
    if not os.path.exists(path):
        return False
    facts = read_facts(path)
    changed = differences(config, facts["config"])
    if not changed and parent:
        changed = parent_differences(facts, parent, config.ckpt)
    if changed:
        message = f"{path} exists and differs ({changed}); give another --out or delete it"
        raise UserError(message)
    if getattr(config, "again", False):
        print0(f"{path} is made again")
        drop_older_state(path, path)
        return False
    drop_state_of_finished(path, path)
    print0(f"{path} is finished; nothing to do{other_code(facts)}")
    return True


def begin() -> None:
    """The run begins: files that the flags name are hashed anew."""
    FOUND.clear()


def claim_together(output: str, path: str = "") -> None:
    """Wait until this command has the output to itself. All ranks call this, rank 0 waits.

    `path`: the file that is written, where it is not the output itself; others may write to it as
    well.
    """
    error = ""
    if rank() == 0:
        try:
            lock.check_file(path or output)
            lock.claim(output)
        except (UserError, OSError) as caught:
            error = str(caught)
    error = gather_objects(error)[0]
    check(not error, error)


def release_together(output: str) -> None:
    """Let others have the output, when every rank is done with it."""
    gather_objects(None)
    if rank() == 0:
        lock.release(output)


def drop_older_state(result: str, out: str) -> None:
    """Before a result is made again: a state that is older than the result belongs to that one.

    A newer one belongs to an unfinished run with --again, which goes on. `out`: what the state has
    its name from.
    """
    if rank() == 0 and not has_newer_state(result, out):
        shutil.rmtree(f"{stem(out)}.resume", ignore_errors=True)
    gather_objects(None)  # no rank looks for the state before


def drop_state_of_finished(result: str, out: str) -> None:
    """A kill after the result was written may have left its state behind.

    Raises UserError where the state belongs to an unfinished run with --again.
    """
    newer = gather_objects(rank() == 0 and has_newer_state(result, out))[0]
    check(
        not newer,
        f"{result} is there, and a run with --again that replaces it is not finished; give --again "
        f"to go on with that, or delete {stem(out)}.resume",
    )
    if rank() == 0:
        shutil.rmtree(f"{stem(out)}.resume", ignore_errors=True)


def has_newer_state(result: str, out: str) -> bool:
    state = os.path.join(f"{stem(out)}.resume", "state.pt")
    return os.path.exists(state) and os.path.getmtime(state) > os.path.getmtime(result)
