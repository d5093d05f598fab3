"""Parallel averaging: an RL step and an SFT step from the same weights, then their average.

    python parallel.py --ckpt out/toy/3.6M.pt                  # M_t -> M_t^Parallel
    torchrun --nproc_per_node=8 parallel.py --ckpt out/20B.pt

The algorithm box of the paper (its figure 8) is `average_step`. Two AdamW work on the same weights,
each with its own moments and step count, and the gradients are clipped separately. Averaging halves
the effective rate of each side. Where RL has several mini-batches, each is averaged with an SFT
batch of its own, as in the authors' code; their published runs have one.

The RL half is grpo.py's, the SFT half is sft.py's. The authors also tried three other ways to
combine the two, with one AdamW: `--mode interleave`, `curriculum` and `sum` are in
plumbing/modes.py.
"""

import gc
import time
from dataclasses import dataclass
from functools import partial

import torch

import grpo
from plumbing import modes, presets
from plumbing.batches import batch_indices
from plumbing.checkpoint import lineage, make_facts
from plumbing.flags import launch
from plumbing.metrics import StepLog
from plumbing.optimizer import adamw, clipped_step, lr_factor, set_lr
from plumbing.ranks import print0
from plumbing.resume import Resume, collecting_by_hand, stop_signal
from plumbing.rl_options import after_update, collect
from plumbing.rl_setup import set_up
from plumbing.sharding import own_weights
from sft import load_examples, sft_backward


@dataclass(frozen=True, kw_only=True)
class Config(grpo.Config):
    out: str = ""  # default: beside the parent, <parent>.parallel.pt, or the mode's name
    data: str = "openmath-gsm8k"  # problems of both halves, or a jsonl (with solutions)
    mode: str = "parallel"  # parallel, interleave, curriculum or sum
    weight: float = 0.5  # mode parallel: of the RL copy in the average; 1 is RL alone, 0 SFT alone
    weight_end: float | None = None  # of the last average, reached in a line; default: it stays
    interleave: int = 20  # mode interleave: SFT steps before each RL step
    curriculum: int = (
        200  # mode curriculum: SFT steps before the first RL step; see plumbing/modes.py
    )
    # the RL half, where it differs from grpo.py
    steps: int = 2_200  # rounds of rollouts
    max_prompt: int = 512  # tokens; longer problems are left out
    max_response: int = 512  # tokens; a longer response is cut, and still graded
    mini_batches: int = 1  # updates, and averages, per step
    lr: float = 1e-6  # of RL, constant; in mode sum of both
    # the SFT half: see sft.py
    sft_batch: int = 512  # solutions per average, over all ranks
    sft_lr: float = (
        1e-6  # peak; the published curve's. 4e-5, as in SFT alone, forgets more (fig. 17)
    )
    sft_schedule: str = "constant"  # constant or cosine
    solutions: str = "one"  # one per problem, or all
    pick: str = "first"  # which one: first, or random (keyed by seed and problem)
    sft_loss: str = "mean"  # over the response tokens of a batch, or their sum
    shuffle: bool = True  # a new order of the solutions every pass; the authors kept the file's


PRESETS = presets.PARALLEL
SETTINGS = presets.PARALLEL_SETTINGS


def average_step(
    model, rl_optimizer, sft_optimizer, rl_backward, sft_backward, weight=0.5, grad_clip=1.0
) -> dict:
    """theta <- weight * RLStep(theta) + (1 - weight) * SFTStep(theta), both from the same theta.

    rl_backward() and sft_backward() leave their gradient in the model, and return anything. One
    copy of the weights is needed: it holds theta during the RL step, and then the RL result, while
    the SFT step starts from theta again.
    -> {rl, sft: what the two returned; rl_grad_norm, sft_grad_norm}
    """
    parameters = list(own_weights(model).values())
    copy = [p.detach().clone() for p in parameters]  # theta
    rl = rl_backward()
    rl_norm = clipped_step(model, rl_optimizer, grad_clip)
    with torch.no_grad():
        for p, c in zip(parameters, copy):  # swap: the model is theta again, the copy is RL's
            after_rl = p.clone()
            p.copy_(c)
            c.copy_(after_rl)
            del after_rl  # so that only one tensor is there besides the copy
    sft = sft_backward()
    sft_norm = clipped_step(model, sft_optimizer, grad_clip)
    with torch.no_grad():
        for p, after_rl in zip(parameters, copy):
            p.lerp_(after_rl, weight)  # SFT's + weight * (RL's - SFT's)
    return {"rl": rl, "sft": sft, "rl_grad_norm": rl_norm, "sft_grad_norm": sft_norm}


def average_weight(config: Config, average: int, averages: int) -> float:
    """The weight of the RL copy in average 0 .. averages-1."""
    end = config.weight if config.weight_end is None else config.weight_end
    return config.weight + (end - config.weight) * average / max(1, averages - 1)


def main(config: Config) -> None:
    modes.check_parallel(config)
    run = set_up(config, config.mode)
    if run is None:
        return
    model = run.model
    data = load_examples(config, run.encoding, run.problems)
    betas = (0.9, config.beta2)
    rl_optimizer = adamw(model, config.lr, betas, config.weight_decay)
    optimizers = [rl_optimizer]
    if config.mode == "parallel":  # the other modes have one for both
        optimizers.append(adamw(model, config.sft_lr, betas, config.weight_decay))
    sft_optimizer = optimizers[-1]
    averages = config.steps * config.mini_batches
    sft_steps = modes.count_sft_steps(config)
    n_rollouts = config.prompts * config.n
    print0(
        f"{config.steps} steps of {config.prompts} prompts x {config.n} = {n_rollouts} rollouts; "
        f"{averages} RL and {sft_steps} SFT updates, these of {config.sft_batch} solutions; "
        f"{config.steps * config.prompts / len(run.problems):.1f} passes of RL, "
        f"{sft_steps * config.sft_batch / len(data):.1f} of SFT"
    )

    def sft_half(i: int) -> dict:
        """Leave the gradient of SFT batch i in the model, and set the rate of its step."""
        if config.mode != "sum":  # there the one step has RL's rate
            factor = lr_factor(config.sft_schedule, i, sft_steps)
            set_lr(sft_optimizer, config.sft_lr * factor)
        order = (config.seed, "sft", config.shuffle)
        batch = [data[j] for j in batch_indices(len(data), config.sft_batch, i, *order)]
        return sft_backward(model, batch, config.micro_tokens, config.sft_loss)

    def average(i: int, rl_half) -> dict:
        weight = average_weight(config, i, averages)
        halves = (rl_half, lambda: sft_half(i))
        steps = average_step(model, *optimizers, *halves, weight, config.grad_clip)
        return steps | {"weight": weight}

    other_mode = None
    if config.mode != "parallel":
        other_mode = modes.OtherMode(config, model, rl_optimizer, sft_half)
    resume = Resume(run.out, config, model, *optimizers, reference=run.moving_reference())
    start = resume.load()
    log = StepLog(run.out, start, config)
    with stop_signal() as stop, collecting_by_hand():
        for step in range(start, config.steps):
            clock = time.time()
            before = other_mode.sft_steps_before(step) if other_mode else []
            sft_seconds = time.time() - clock
            groups, metrics, samples = collect(run, grpo.draw_groups, step, log)
            clock = time.time()
            grpo.old_logprobs(model, groups, config)
            updates = []
            for m in range(config.mini_batches):
                chosen = grpo.mini_batch(groups, m, config)
                rl_half = partial(
                    grpo.policy_backward, model, run.reference, groups, chosen, config
                )
                combine = other_mode.update if other_mode else average
                updates.append(combine(step * config.mini_batches + m, rl_half))
            metrics |= modes.metrics_of_updates(updates, before)
            seconds = groups.seconds | {"update": time.time() - clock + sft_seconds}

            done = step + 1
            metrics |= after_update(run, grpo.score_rollouts, done)
            log.write(done, metrics, seconds, samples)
            stopping = stop.asked()
            if done < config.steps and (stopping or done % config.save_every == 0):
                resume.save(done, leave=stopping)
            gc.collect()  # at the same moment on every rank
    recipe = lineage(run.parent, config.mode)
    resume.finish(run.out, make_facts(config, recipe, config.steps, run.parent))


if __name__ == "__main__":
    launch(main, Config, PRESETS, SETTINGS)
