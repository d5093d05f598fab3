"""Parallel averaging: an RL update and an SFT update from the same weights, then their average.

    python parallel.py --ckpt out/toy/3.6M.pt                  # M_t -> M_t^Parallel
    torchrun --nproc_per_node=8 parallel.py --ckpt out/1B/20B.pt

The algorithm box of the paper (its figure 8) is `average_step`. At a weight of 1/2 averaging halves
the effective rate of each side. The RL half is grpo.py's, the SFT half is sft.py's. If RL has
several mini-batches, each is averaged with an SFT batch of its own, as in the authors' code. Three
other ways to combine the two (--mode interleave, curriculum, sum) are in plumbing/modes.py.
"""

from dataclasses import dataclass
from functools import partial

import torch

import grpo
from data.lock import exclusive
from plumbing import modes, packs, presets
from plumbing.batches import batch_indices
from plumbing.examples import load_examples
from plumbing.flags import launch
from plumbing.optimizer import adamw, clipped_step, lr_factor, set_lr
from plumbing.rl_setup import set_up
from plumbing.sharding import own_weights
from sft import sft_backward


@dataclass(frozen=True, kw_only=True)
class Config(grpo.Config):
    out: str = ""  # default: beside the parent, <parent>.parallel.pt, or the mode's name
    data: str = "openmath-gsm8k"  # problems of both halves, or a jsonl (with solutions)
    mode: str = "parallel"  # parallel, interleave, curriculum or sum
    weight: float = 0.5  # mode parallel: of the RL copy in the average; 1 is RL alone, 0 SFT alone
    weight_end: float | None = None  # weight of the last average, reached linearly; default: same
    adapt: bool = False  # mode parallel: the weight is the share of groups with mixed rewards
    interleave: int = 20  # mode interleave: SFT steps before each RL step
    curriculum: int = 200  # mode curriculum: SFT steps before the first RL step
    # the RL half, where it differs from grpo.py
    steps: int = 2_200  # rounds of rollouts
    max_prompt: int = 512  # tokens, in both halves; longer problems are left out
    max_response: int = 512  # tokens, in both halves; longer responses and solutions are cut
    mini_batches: int = 1  # updates, and averages, per step
    lr: float = 1e-6  # of the RL half, constant; mode sum: of both halves
    # the SFT half: see sft.py
    sft_batch: int = 512  # solutions per average, over all ranks
    sft_lr: float = 1e-6  # peak; 4e-5, the rate of SFT alone, forgets more (figure 17)
    sft_schedule: str = "constant"  # constant or cosine
    solutions: str = "one"  # one per problem, or all
    pick: str = "first"  # which one: first, or random (keyed by seed and problem)
    sft_loss: str = "mean"  # mean over the response tokens of a batch, or sum
    shuffle: bool = True  # a new order of the solutions every pass; the authors kept the file's


PRESETS = presets.PARALLEL  # other scales; the defaults above are 1B's
SETTINGS = presets.PARALLEL_SETTINGS


def average_step(
    model, rl_optimizer, sft_optimizer, rl_half, sft_half, weight=0.5, grad_clip=1.0
) -> dict:
    """theta <- weight * RLStep(theta) + (1 - weight) * SFTStep(theta), both from the same theta.

    rl_half() and sft_half() leave their gradient in the model. One copy of the weights is needed:
    it holds theta during the RL step, and then the RL result during the SFT step.
    -> {rl, sft: what the two halves returned; rl_grad_norm, sft_grad_norm}
    """
    parameters = list(own_weights(model).values())
    copy = [p.detach().clone() for p in parameters]  # theta
    rl = rl_half()
    rl_norm = clipped_step(model, rl_optimizer, grad_clip)
    with torch.no_grad():
        for p, kept in zip(parameters, copy):  # swap: the model gets theta, the copy RL's result
            after_rl = p.clone()
            p.copy_(kept)
            kept.copy_(after_rl)
            del after_rl  # freed before the next clone is made
    sft = sft_half()
    sft_norm = clipped_step(model, sft_optimizer, grad_clip)
    with torch.no_grad():
        for p, after_rl in zip(parameters, copy):
            p.lerp_(after_rl, weight)  # SFT's + weight * (RL's - SFT's)
    return {"rl": rl, "sft": sft, "rl_grad_norm": rl_norm, "sft_grad_norm": sft_norm}


@exclusive
def main(config: Config) -> None:
    run = set_up(config, config.mode)
    if run is None:
        return
    model = run.model
    data = load_examples(config, run.encoding, run.problems)
    # The other modes have one optimizer for both halves.
    rates = [config.lr, config.sft_lr] if config.mode == "parallel" else [config.lr]
    betas = (0.9, config.beta2)
    optimizers = [adamw(model, rate, betas, config.weight_decay) for rate in rates]
    sft_steps = modes.count_sft_steps(config)
    modes.print_plan(run, len(data))

    def sft_half(i: int) -> dict:
        """Set the rate of SFT step i, and leave the gradient of its batch in the model."""
        if config.mode != "sum":  # in mode sum the only optimizer keeps RL's rate
            factor = lr_factor(config.sft_schedule, i, sft_steps)
            set_lr(optimizers[-1], config.sft_lr * factor)
        items = batch_indices(len(data), config.sft_batch, i, config.seed, "sft", config.shuffle)
        batch = [data[j] for j in items]
        return sft_backward(model, batch, config.micro_tokens, config.sft_loss)

    other = modes.other_mode(config, model, optimizers[0], sft_half)  # None in mode parallel

    def update(step: int, groups) -> dict:
        packs.old_logprobs(model, groups, config)
        rl_weights = modes.average_weights(config, step, groups)
        updates = []
        for m in range(config.updates):
            chosen = grpo.mini_batch(groups, m, config)
            rl_half = partial(grpo.policy_backward, model, run.reference, groups, chosen, config)
            i = step * config.updates + m
            if other:
                updates.append(other.update(i, rl_half))
            else:
                halves = (rl_half, partial(sft_half, i))
                both = average_step(model, *optimizers, *halves, rl_weights[m], config.grad_clip)
                updates.append(both)
        if other:
            return other.metrics(updates)
        return modes.metrics_of_updates(updates) | {"weight": rl_weights[-1]}

    grpo.train(run, config.mode, optimizers, update, other.make_sft_steps if other else None)


if __name__ == "__main__":
    launch(main, Config, PRESETS, SETTINGS)
