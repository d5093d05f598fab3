"""Checkpoints: one file of weights and facts, and the rules by which one is told from another.

A file holds the weights, the model's config and its facts: the recipe, the tokens, the config of
the run, the parent. A file that exists and has other facts than this command's is never
overwritten, and never taken for this command's result.
"""

import dataclasses
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

import torch

from data import UserError
from data.files import write_aside
from data.tokenizer import get_tokenizer
from model import ModelConfig, Transformer
from plumbing.ranks import device, print0, rank, world

# ------------------------------------------------------------------------------------ the file


def save_checkpoint(
    path: str, model: Transformer, facts: dict, weights: dict | None = None
) -> None:
    """Write weights, model config and facts to one file.

    `weights`: the whole ones, where the model has only a shard of each.
    """
    if weights is None:
        weights = {name: p.detach().cpu() for name, p in model.state_dict().items()}
    config = dataclasses.asdict(model.config)
    save_file(path, {"model": weights, "config": config, "facts": facts})


def save_file(path: str, content: dict) -> None:
    """torch.save that leaves a whole file or none (files.write_aside)."""
    write_aside(path, functools.partial(torch.save, content))


def load_checkpoint(path: str, mmap: bool = False) -> tuple[Transformer, dict]:
    """The model, in fp32 on the CPU, and its facts.

    Raises FileNotFoundError, or OSError where the file is damaged or not one of ours.
    """
    content = read_file(path, mmap)
    check_kind(path, content)
    with torch.device("meta"):
        model = Transformer(ModelConfig(**content["config"]))
    model.load_state_dict(content["model"], assign=True)
    return model, content["facts"]


def read_facts(path: str) -> dict:
    """The facts of a checkpoint and its model config, without reading the weights."""
    content = read_file(path, mmap=True)
    check_kind(path, content)
    return {**content["facts"], "model": content["config"]}


def print_facts(*paths: str) -> None:
    """`python model.py CHECKPOINT.pt`"""
    if len(paths) != 1:
        sys.exit("usage: python model.py CHECKPOINT.pt")
    try:
        print(json.dumps(read_facts(paths[0]), indent=2))
    except OSError as error:
        sys.exit(f"model.py: {error}")


def check_kind(path: str, content: dict) -> None:
    if not {"model", "config", "facts"} <= content.keys():
        message = f"{path} is not a checkpoint of this project; convert.py brings others in"
        raise OSError(message)


def read_file(path: str, mmap: bool = False) -> dict:
    """torch.load that runs no code from the file, with an error that says what to do."""
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path} is missing; {what_is_there(os.path.dirname(path) or '.')}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # a damaged zip surfaces as many exception types
        message = f"{path} is damaged or not a checkpoint ({type(error).__name__})"
        raise OSError(f"{message}; delete it and make it again") from error


def what_is_there(folder: str) -> str:
    names = []
    if os.path.isdir(folder):
        names = sorted(name for name in os.listdir(folder) if name.endswith(".pt"))
    return f"there are {', '.join(names)}" if names else "run pretrain.py first"


# ------------------------------------------------------------------------------------ the parent


def output_path(config, recipe: str) -> str:
    """`4B.pt` and `rl` -> `4B.rl.pt` beside it, unless --out says otherwise."""
    return config.out or f"{stem(config.ckpt)}.{recipe}.pt"


def stem(path: str) -> str:
    """`out/4B.rl.pt` -> `out/4B.rl`; the resume state and the log have names made of it."""
    return re.sub(r"\.pt$", "", path)


def open_parent(config) -> tuple[Transformer, dict]:
    """The checkpoint that a recipe starts from, on this rank's device, and its facts."""
    model, facts = load_checkpoint(config.ckpt, mmap=world() > 1)  # a node's ranks read one copy
    facts["tokenizer"] = tokenizer_of(facts, config.ckpt)
    return model.to(device()), facts


def tokenizer_of(facts: dict, ckpt: str) -> str:
    """The name of a checkpoint's tokenizer.

    A tokenizer.json that is no longer where it was is looked for beside the checkpoint.
    """
    name = facts["tokenizer"]
    if name in ("toy", "dolma2") or os.path.isfile(name):
        return name
    beside = os.path.join(os.path.dirname(ckpt), os.path.basename(name))
    if not os.path.isfile(beside):
        raise UserError(f"the tokenizer {name} of {ckpt} is missing; put it beside the checkpoint")
    return beside


def open_tokenizer(facts: dict, model):
    """The tokenizer that a checkpoint was trained with.

    The model may have more rows than the tokenizer has ids, but not fewer. The toy tokenizer is
    made by this code, and another number of ids means another version of it. Raises UserError.
    """
    name = facts["tokenizer"]
    encoding = get_tokenizer(name)
    known = model.config.vocab_size
    fits = encoding.n_vocab == known if name == "toy" else encoding.n_vocab <= known
    if not fits:
        sizes = f"tokenizer {name} has {encoding.n_vocab} ids, the checkpoint {known}"
        raise UserError(f"{sizes}; it was made with another version")
    return encoding


def check_length(model, tokens: int, what: str = "--max_prompt + --max_response") -> None:
    """Refuse sequences that are longer than the model's positions."""
    limit = model.config.max_seq_len
    if tokens > limit:
        raise UserError(f"{what} is {tokens} tokens, the model's limit is {limit}; lower it")


# ------------------------------------------------------------------------------------ the facts

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
