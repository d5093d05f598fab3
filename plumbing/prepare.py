"""A model as the flags say it computes: quick or plain, sharded over the ranks, and its sampler."""

import importlib
import importlib.util
from dataclasses import dataclass

import torch

from data import UserError
from plumbing.compilers import cpp_lacks, triton_lacks
from plumbing.sharding import shard, whole_copy
from sampler import Sampler


@dataclass(frozen=True, kw_only=True)
class ComputeFlags:
    """Flags of every stage that say how a model computes, not what."""

    # cost
    again: bool = False  # do it although the result is there
    micro_tokens: int = 16_384  # tokens per forward pass and rank
    compile: bool = False  # fuse what surrounds attention: faster; takes a minute at the start
    checkpoint_activations: bool = False  # keep block inputs alone: less memory, a third more work
    fp32_head: bool = False  # on a GPU: factors of the head's products in fp32; exact and slow
    plain: bool = False  # the plain program alone, without fast/: slower, same results


@dataclass(frozen=True, kw_only=True)
class LoggedFlags(ComputeFlags):
    """Flags of every stage that has steps."""

    # log
    wandb: str = ""  # send the log to this project of Weights & Biases, too


@dataclass(frozen=True, kw_only=True)
class TrainingFlags(LoggedFlags):
    """Flags of every stage that trains from a checkpoint."""

    content_flags = ("data", "reward")  # a file that one of these names is known by its content

    # optimizer
    beta2: float = 0.999  # AdamW; beta1 is 0.9
    weight_decay: float = 0.01  # on all weights
    grad_clip: float = 1.0  # global norm
    # log
    save_every: int = 20  # steps between saves to resume from
    log_every: int = 1  # steps between printed lines


def prepare(model, config, equal_rows: bool = False):
    """For training: fast/ unless --plain, and sharded over the ranks -> the model.

    The model is on its device already. Make the optimizer after this. equal_rows: every pass will
    have the same number of tokens, as in pre-training.
    """
    install_fast(model, config)
    if equal_rows and hasattr(model, "expect_equal_rows"):
        model.expect_equal_rows()
    return shard(model)


def install_fast(model, config):
    """Put fast/ into a model that is on its device, unless --plain -> the model.

    This is the one place that knows of fast/. Without that folder everything is plain.
    """
    if has_fast(config):
        flags = ("compile", "checkpoint_activations", "fp32_head")
        chosen = {name: getattr(config, name, False) for name in flags}
        importlib.import_module("fast").install(model, **chosen)
    return model


def has_fast(config) -> bool:
    return not getattr(config, "plain", False) and importlib.util.find_spec("fast") is not None


def make_sampler(model, slots: int, memory: float = 0.4):
    """What samples from a prepared model; `refresh(sampler.model, model)` gives it new weights.

    memory: the share of a GPU's free memory for keys and values, which only fast/'s sampler limits.
    """
    if hasattr(model, "sampler_class"):
        return model.sampler_class(model, slots, memory)
    return Sampler(whole_copy(model), slots)


def check_compiler() -> None:
    """UserError where --compile lacks what it needs."""
    missing = triton_lacks() if torch.cuda.is_available() else cpp_lacks()
    if missing:
        raise UserError(f"--compile needs {missing}; --no-compile does without")
