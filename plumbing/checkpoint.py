"""Checkpoints: one file of weights and facts, and how a stage opens the one that it starts from.

A file holds the weights, the model's config and its facts: the recipe, the tokens, the config of
the run, the parent. plumbing/identity.py makes the facts; plumbing/pt_file.py reads the bytes and
plumbing/checked.py what they say.
"""

import dataclasses
import functools
import json
import os
import re
import sys

import torch

from data import UserError
from data.files import only_print, write_aside
from data.tokenizer import get_tokenizer
from model import ModelConfig, Transformer
from plumbing.checked import Facts, check_content, facts_hash, not_finite
from plumbing.hashes import weights_hash
from plumbing.pt_file import read_file
from plumbing.ranks import device, print0, world

# ------------------------------------------------------------------------------------ the file


def save_checkpoint(
    path: str, model: Transformer, facts: dict, weights: dict | None = None
) -> None:
    """Write weights, model config and facts to one file. A hash of the weights joins the facts.

    `weights`: the whole ones, where the model has only a shard of each. Raises UserError where
    they are not finite, and OSError where they cannot be written; nothing is written then.
    """
    if weights is None:
        weights = {name: p.detach().cpu() for name, p in model.state_dict().items()}
    save_weights(path, model.config, weights, facts)


def save_weights(path: str, config: ModelConfig, weights: dict, facts: dict) -> None:
    """save_checkpoint without a model."""
    name = not_finite(weights)
    if name:
        message = f"{path} is not written: tensor {name} holds NaN or infinite numbers"
        raise UserError(f"{message}; the run has diverged, try a lower --lr")
    facts = {**facts, "weights": weights_hash(weights)}
    facts["check"] = facts_hash(facts)
    content = {"model": weights, "config": dataclasses.asdict(config), "facts": facts}
    save_file(path, content)


def save_file(path: str, content: dict) -> None:
    """torch.save that leaves a whole file or none (files.write_aside)."""
    write_aside(path, functools.partial(torch.save, content))


def load_checkpoint(path: str, mmap: bool = False) -> tuple[Transformer, dict]:
    """The model, in fp32 on the CPU, and its facts.

    facts["weights"] is the hash of the weights that were read. Raises FileNotFoundError, or OSError
    where the file is damaged, not one of ours, or holds weights that are not finite.
    """
    config, weights, facts = read_checkpoint(path, mmap)
    with torch.device("meta"):
        model = Transformer(config)
    for name, x in weights.items():
        weights[name] = x.float().contiguous()
    model.load_state_dict(weights, assign=True)
    return model, facts


def read_checkpoint(path: str, mmap: bool = False) -> tuple[ModelConfig, dict, Facts]:
    """The model's config, the weights as the file has them, and the facts; as load_checkpoint."""
    config, weights, facts = check_content(path, read_file(path, mmap))
    name = not_finite(weights)
    if name:
        message = f"{path}: tensor {name} holds NaN or infinite numbers"
        raise OSError(f"{message}; make the checkpoint again, or take an earlier one")
    written = facts.get("weights")  # older code recorded none
    facts["weights"] = weights_hash(weights)
    if written and written != facts["weights"]:
        print0(f"note: the weights in {path} are others than those that a stage wrote there")
    return config, weights, facts


def read_facts(path: str) -> dict:
    """The facts of a checkpoint and its model config, without reading the weights."""
    config, _, facts = check_content(path, read_file(path, mmap=True, whole=False))
    facts["model"] = dataclasses.asdict(config)
    return facts


def print_facts(*paths: str) -> None:
    """`python model.py CHECKPOINT.pt`"""
    if len(paths) != 1:
        sys.exit("usage: python model.py CHECKPOINT.pt")
    only_print()
    try:
        print(json.dumps(read_facts(paths[0]), indent=2))
    except OSError as error:
        sys.exit(f"model.py: {error}")


# ------------------------------------------------------------------------------------ the parent


def output_path(config, recipe: str) -> str:
    """`4B.pt` and `rl` -> `4B.rl.pt` beside it, unless --out says otherwise. Raises UserError.

    The log and the state to resume from have the same name without .pt, so it must end so.
    """
    if config.out and not config.out.endswith(".pt"):
        raise UserError(
            f"--out {config.out}: a checkpoint's name ends in .pt; give {config.out}.pt"
        )
    return config.out or f"{stem(config.ckpt)}.{recipe}.pt"


def stem(path: str) -> str:
    """`out/4B.rl.pt` -> `out/4B.rl`; the resume state and the log have names made of it."""
    return re.sub(r"\.pt$", "", path)


def open_model(config) -> tuple[Transformer, dict]:
    """The model of --ckpt, on this rank's device, and the facts of its checkpoint."""
    model, facts = load_checkpoint(config.ckpt, mmap=world() > 1)  # a node's ranks read one copy
    facts["tokenizer"] = tokenizer_of(facts, config.ckpt)
    return model.to(device()), facts


def tokenizer_of(facts: dict, ckpt: str) -> str:
    """The name of a checkpoint's tokenizer.

    A tokenizer.json that is no longer where it was is looked for beside the checkpoint.
    """
    name = facts["tokenizer"]
    if not name:
        raise UserError(f"the facts of {ckpt} name no tokenizer; make the checkpoint again")
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
    return tokenizer_for(facts["tokenizer"], model.config)


def tokenizer_for(name: str, config: ModelConfig):
    """open_tokenizer without a model."""
    encoding = get_tokenizer(name)
    known = config.vocab_size
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
