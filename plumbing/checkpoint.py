"""Checkpoints: one file of weights and facts, and how a stage opens the one that it starts from.

A file holds the weights, the model's config and its facts: the recipe, the tokens, the config of
the run, the parent. plumbing/identity.py makes the facts.
"""

import dataclasses
import functools
import json
import os
import re
import sys

import torch

from data import UserError
from data.files import write_aside
from data.tokenizer import get_tokenizer
from model import ModelConfig, Transformer
from plumbing.ranks import device, world

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
