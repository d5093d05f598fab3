"""What RL cost: the rollouts and the FLOPs of a step, from a cell's log and its flags."""

import numpy as np

from model import PRESETS as MODELS
from plumbing.pretrain_setup import with_vocabulary
from plumbing.which_groups import PROBED
from study.costs import forward_flops
from study.rows import Study

VOCABULARY = 600  # of the toy tokenizer
PROMPT = 28  # tokens of a toy prompt, on average


def config_of(study: Study, stem: str, recipe: str) -> dict:
    """The flags that a cell was made with, as its first row has them."""
    rows = study.rows.get((study.task_of(stem, recipe), stem, recipe), {})
    return next(iter(rows.values())).get("facts", {}).get("config", {}) if rows else {}


def rollouts_of_a_step(config: dict, logs: list[list[dict]]) -> float:
    """All that were sampled, on average: also those that only chose problems (--probe)."""
    groups = np.mean([row["groups"] for log in logs for row in log])
    return float(groups * config["n"] + probing_rollouts(config))


def probing_rollouts(config: dict) -> int:
    return PROBED * config.get("probe", 0) * config["prompts"]


def flops_of_a_step(study: Study, stem: str, recipe: str) -> float:
    """The FLOPs of RL's sampling and updates, on average over the steps; 0 if they are not known.

    They are known at the toy scales, whose vocabulary and prompts are given above. The SFT half of
    averaging is left out. A prompt is read once for its group, as fast/ does it. Sampling is a
    forward pass over all tokens. An update is three over the tokens that it scored, one more with
    a reference, and one for the old log-probs where there are several updates.
    """
    config = config_of(study, stem, recipe)
    logs = study.logs(stem, recipe)
    preset = config.get("preset", "toy")
    if not config or not logs or "scored" not in logs[0][0] or not preset.startswith("toy"):
        return 0.0
    shape = with_vocabulary(MODELS[preset], VOCABULARY)
    steps = [row for log in logs for row in log]
    length = np.mean([row["length"] for row in steps])
    context = (PROMPT + length) / 2  # on average over a response

    def forward(tokens: float, prompts: float) -> float:
        return forward_flops(shape, tokens + prompts * PROMPT, context, tokens)

    groups = np.mean([row["groups"] for row in steps])
    tokens = np.mean([row["tokens"] for row in steps]) + probing_rollouts(config) * length
    probed = PROBED * config["prompts"] if config.get("probe") else 0  # problems
    sampling = forward(tokens, groups + probed)

    scored = np.mean([row["scored"] for row in steps])
    learned = scored_groups(config, steps)
    epochs = config.get("epochs", 1)
    passes = 4 if config.get("kl") else 3
    update = passes * forward(scored, epochs * learned)
    if config.get("mini_batches", 1) * epochs > 1 and config.get("recompute_old", True):
        update += forward(scored / epochs, learned)
    return float(sampling + update)


def scored_groups(config: dict, steps: list[dict]) -> float:
    """Groups of a step whose tokens went through the trainer: those with a signal, or all."""
    if config.get("kl") or config.get("entropy") or config.get("loss") == "micro-mean":
        return np.mean([row["groups"] for row in steps])
    return np.mean([row["groups"] * row["mixed"] for row in steps])
