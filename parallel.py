"""Parallel averaging: one RL step and one SFT step from the same weights, then their average; M_t -> M_t^Parallel.

    python parallel.py --ckpt out/toy/3.6M.pt
    python parallel.py --ckpt out/toy/3.6M.pt --mode interleave
    torchrun --nproc_per_node=8 parallel.py --ckpt out/20B.pt

The algorithm box of the paper (its figure 8) is `average_step`. Two AdamW over the same weights, each with its own
moments and step count; the gradients are clipped separately. Averaging halves each side's effective rate.
Where RL has several mini-batches, each is averaged with an SFT batch of its own, as in the authors' code; their
published runs have one. The RL half is grpo.py's, the SFT half is sft.py's.

The authors tried three other combinations, each with one AdamW (and both rates 4e-5): `interleave` (SFT steps before each
RL step), `curriculum` (SFT steps first, RL steps in the end) and `sum` (one step on the sum of both losses).
"""

import time
from dataclasses import dataclass
from math import isqrt

import torch

import common
from common import check, print0
from data.grader import load_reward
from grpo import check_config, collect, deal_out, keep_mixed, load_prompts, mini_batch, old_logprobs, policy_backward, validate
from metrics import StepLog, rollout_metrics, update_metrics
from sampler import Sampler
from sft import load_examples, sft_backward


@dataclass(frozen=True)
class Config:
    ckpt: str  # the checkpoint to start from
    preset: str = "1B"  # scale; read from the checkpoint where not given
    setting: str = "controlled"  # written, run or controlled
    out: str = ""  # default: beside the parent, <parent>.parallel.pt, or the mode's name for parallel
    data: str = "openmath-gsm8k"  # problems of both halves, or a jsonl of question and answer (with solutions)
    seed: int = 0  # order of the data, every sampled token
    mode: str = "parallel"  # parallel, interleave, curriculum or sum
    weight: float = 0.5  # mode parallel: of the RL copy in the average; 1 is RL alone, 0 is SFT alone
    weight_end: float | None = None  # weight of the last average, reached in a straight line; default: it stays
    interleave: int = 20  # mode interleave: SFT steps before each RL step
    curriculum: int = 200  # mode curriculum: SFT steps of the first round, which ends in one RL step; then one less, and one more
    # the RL half: see grpo.py
    steps: int = 2_200  # rounds of rollouts
    prompts: int = 512  # problems per step, over all ranks
    n: int = 32  # rollouts per problem: the group
    temperature: float = 1.0  # of sampling and of every log-prob
    max_prompt: int = 512  # tokens; longer problems are left out
    max_response: int = 512  # tokens; a longer response is cut, and still graded
    dynamic_sampling: int = 0  # draw so many more batches of prompts at most, until `prompts` groups have mixed rewards
    reward: str = ""  # your own, FILE.py:FUNCTION with function(response, problem) -> float; default the grader
    format_score: float = 0.0  # for a wrong answer in one well-formed box
    normalize: str = "std"  # divide group advantages by their deviation: std or none
    loss: str = "token-mean"  # over a mini-batch: token-mean, sequence-mean, constant or micro-mean
    mask_truncated: bool = False  # rollouts that were cut carry no loss; they still count in their group's mean
    mini_batches: int = 1  # updates, and averages, per step
    lr: float = 1e-6  # of RL, constant; in mode sum of both
    clip_low: float = 0.2  # the ratio of new to old probability counts down to 1 - clip_low
    clip_high: float = 0.2  # and up to 1 + clip_high
    dual_clip: float = 3.0  # bound on the ratio where the advantage is negative; 0 is off
    kl: float = 0.0  # weight of the k3 estimate of KL(policy || reference), in the loss; 0 is none
    ref_every: int = 0  # steps after which the policy becomes the reference; 0: it stays the start
    tis: float = 0.0  # weigh tokens by trainer / sampler probability, at most so much; 0 is off
    recompute_old: bool = True  # old log-probs by the training code; off: the sampler's (equal in fp32)
    # the SFT half: see sft.py
    sft_batch: int = 512  # solutions per average, over all ranks
    sft_lr: float = 1e-6  # peak; the published curve's. 4e-5, the rate of SFT alone, forgets more (figure 17)
    sft_schedule: str = "constant"  # constant or cosine
    solutions: str = "one"  # one per problem, or all
    pick: str = "first"  # which one: first, or random (keyed by seed and problem)
    sft_loss: str = "mean"  # over the response tokens of a batch, or their sum
    shuffle: bool = True  # a new order of the solutions every pass; the authors kept the file's
    # both
    beta2: float = 0.999  # AdamW; beta1 is 0.9
    weight_decay: float = 0.01  # on all weights, in each optimizer
    grad_clip: float = 1.0  # global norm, of each half
    fp32_head: bool = False  # on a GPU: factors of the head's products in fp32, not bf16; exact and slow
    val: int = 1_000  # held-out problems, one greedy response each; at most a quarter of a set without a split for it
    val_every: int = 0  # steps between validations; 0 is none, and holds nothing out
    # cost only
    slots: int = 256  # rollouts decoded at a time, per rank
    kv_memory: float = 0.4  # share of a GPU's free memory for keys and values while sampling
    micro_tokens: int = 16_384  # tokens per forward pass and rank
    compile: bool = False  # fuse what surrounds attention: faster; a minute at the start, and a C++ compiler on a CPU
    checkpoint_activations: bool = False  # keep each block's input alone and compute the rest again going back: little memory, a third more work
    save_every: int = 20  # steps between saves to resume from
    log_every: int = 1  # steps between printed lines
    samples_every: int = 10  # steps between decoded samples in the log
    save_rollouts: bool = False  # every rollout, with tokens and log-probs, in <name>.rollouts.jsonl


PRESETS = {
    "toy": dict(
        data="toy", steps=50, prompts=24, n=16, max_prompt=160, max_response=52, mini_batches=2, lr=2.5e-4, sft_batch=32, sft_lr=1e-3,
        sft_schedule="cosine", interleave=6, curriculum=35, recompute_old=False, slots=512, micro_tokens=8192, save_every=10, log_every=10,
    ),
    "small": dict(
        data="toy", steps=80, prompts=128, n=16, max_prompt=256, max_response=128, mini_batches=2, lr=1e-4, sft_batch=128, sft_lr=3e-4,
        sft_schedule="cosine", slots=2048,
    ),
    "1B": dict(val_every=25, micro_tokens=8192, compile=True),
    "1B-60B": dict(data="openmath", max_prompt=2560, max_response=1024, val_every=25, micro_tokens=8192, compile=True),
    "4B": dict(data="openmath", max_prompt=2560, max_response=1024, val_every=25, micro_tokens=4096, kv_memory=0.3, compile=True),
}  # fmt: skip
SETTINGS = {
    "written": dict(format_score=0.1, pick="random"),
    "run": dict(loss="micro-mean", sft_loss="sum", shuffle=False),
    "controlled": {},
}


def average_step(model, rl_optimizer, sft_optimizer, rl_backward, sft_backward, weight: float = 0.5, grad_clip: float = 1.0) -> dict:
    """theta <- weight * RLStep(theta) + (1 - weight) * SFTStep(theta), both steps from the same theta.

    rl_backward() and sft_backward() leave their gradient in the model and return anything. Needs one copy of the
    weights: it holds theta during the RL step, then the RL result while the SFT step starts from theta again.
    -> {rl, sft: what the two returned; rl_grad_norm, sft_grad_norm}
    """
    parameters = list(common.own_weights(model).values())
    copy = [p.detach().clone() for p in parameters]  # theta
    rl = rl_backward()
    rl_norm = common.clipped_step(model, rl_optimizer, grad_clip)
    with torch.no_grad():
        for p, c in zip(parameters, copy):  # swap: the model is theta again, the copy is the RL result
            after_rl = p.clone()
            p.copy_(c)
            c.copy_(after_rl)
            del after_rl  # one tensor more than the copy, not two
    sft = sft_backward()
    sft_norm = common.clipped_step(model, sft_optimizer, grad_clip)
    with torch.no_grad():
        for p, after_rl in zip(parameters, copy):
            p.lerp_(after_rl, weight)  # SFT result + weight * (RL result - SFT result)
    return {"rl": rl, "sft": sft, "rl_grad_norm": rl_norm, "sft_grad_norm": sft_norm}


def sum_step(model, optimizer, rl_backward, sft_backward, grad_clip: float = 1.0) -> dict:
    """Mode sum: one step on the sum of both losses, whose gradients add up in the model. Returned as by average_step."""
    rl, sft = rl_backward(), sft_backward()
    norm = common.clipped_step(model, optimizer, grad_clip)
    return {"rl": rl, "sft": sft, "rl_grad_norm": norm, "sft_grad_norm": norm}


def average_weight(config: Config, average: int, averages: int) -> float:
    """The weight of the RL copy in average 0 .. averages-1."""
    end = config.weight if config.weight_end is None else config.weight_end
    return config.weight + (end - config.weight) * average / max(1, averages - 1)


def sft_before(config: Config, step: int) -> range:
    """The SFT batches of one step each that come before RL step `step`, counted from the start.

    interleave 3:  SSS R SSS R ...      curriculum 3:  SSS R  SS RR  S RRR  RRRR ...
    """
    if config.mode == "interleave":
        return range(step * config.interleave, (step + 1) * config.interleave)
    if config.mode != "curriculum":
        return range(0)
    turn = (isqrt(8 * step + 1) - 1) // 2  # round 0, 1, ... has turn + 1 RL steps, so it begins at step turn (turn + 1) / 2
    sizes = [max(0, config.curriculum - t) for t in range(turn + 1)]
    start = sum(sizes[:-1])
    return range(start, start + sizes[-1]) if step == turn * (turn + 1) // 2 else range(start + sizes[-1], start + sizes[-1])


def check_parallel(config: Config) -> None:
    check(config.mode in ("parallel", "interleave", "curriculum", "sum"), f"--mode {config.mode}: choose parallel, interleave, curriculum or sum")
    for name in ("weight", "weight_end"):
        value = getattr(config, name)
        check(value is None or 0 <= value <= 1, f"--{name} {value} must lie between 0 (SFT) and 1 (RL)")
    check(config.mode == "parallel" or config.weight_end is None, f"--weight_end is of --mode parallel; {config.mode} averages nothing")
    check(config.solutions in ("one", "all"), f"--solutions {config.solutions}: choose one or all")
    check(config.pick in ("first", "random"), f"--pick {config.pick}: choose first or random")
    check(config.sft_loss in ("mean", "sum"), f"--sft_loss {config.sft_loss}: choose mean or sum")
    common.check_schedule(config.sft_schedule)


def main(config: Config) -> None:
    check_config(config)
    check_parallel(config)
    out = common.output_path(config, config.mode)
    model, parent = common.open_parent(config)
    if common.is_finished(out, config, parent):
        return
    common.check_length(model, config.max_prompt + config.max_response)
    encoding = common.open_tokenizer(parent, model)
    problems, held_out = load_prompts(config, encoding)
    own_reward = load_reward(config.reward, problems[0])
    data = load_examples(config, encoding, problems)
    reference = common.prepare(common.open_parent(config)[0].requires_grad_(False), config) if config.kl else None
    common.prepare(model, config)
    rl_optimizer = common.adamw(model, config.lr, (0.9, config.beta2), config.weight_decay)
    optimizers = [rl_optimizer]  # the other modes have one
    if config.mode == "parallel":
        optimizers.append(common.adamw(model, config.sft_lr, (0.9, config.beta2), config.weight_decay))
    sft_optimizer = optimizers[-1]
    averages = config.steps * config.mini_batches
    sft_steps = sft_before(config, config.steps - 1).stop if config.mode in ("interleave", "curriculum") else averages
    print0(
        f"{config.steps} steps of {config.prompts} prompts x {config.n} = {config.prompts * config.n} rollouts; {averages} RL and {sft_steps} SFT "
        f"updates, these of {config.sft_batch} solutions; {config.steps * config.prompts / len(problems):.1f} passes of RL, "
        f"{sft_steps * config.sft_batch / len(data):.1f} of SFT"
    )

    def sft_half(i: int) -> dict:
        """The gradient of SFT batch i, for a step at its rate (in mode sum the one step has RL's)."""
        if config.mode != "sum":
            common.set_lr(sft_optimizer, config.sft_lr * common.schedule(config.sft_schedule, i, sft_steps))
        indices = common.batch_indices(len(data), config.sft_batch, i, config.seed, "sft", config.shuffle)
        return sft_backward(model, [data[j] for j in indices], config.micro_tokens, config.sft_loss)

    resume = common.Resume(out, config, model, *optimizers, reference=reference if config.ref_every else None)
    start = resume.load()
    log = StepLog(out, start, config)
    sampler = Sampler(model, config.slots, memory=config.kv_memory)
    for step in resume.steps(start, config.steps):
        common.phase(f"step {step + 1}, SFT")
        clock, sft = time.time(), []  # sft: (loss, gradient norm) of each SFT update
        for i in sft_before(config, step):
            sft.append((sft_half(i)["loss"], common.clipped_step(model, sft_optimizer, config.grad_clip)))
        sft_seconds = time.time() - clock
        common.phase(f"step {step + 1}, sampling")
        sampler.refresh(model)
        groups, seconds = collect(sampler, problems, encoding, config, step, own_reward)
        metrics, samples = rollout_metrics(groups, config), log.samples(groups, step)
        if config.dynamic_sampling:
            groups = keep_mixed(groups, config)
            metrics["kept"] = groups.kept
        common.phase(f"step {step + 1}, update")
        clock, updates = time.time(), []
        groups = deal_out(groups, config)
        old_logprobs(model, groups, config)
        for m in range(config.mini_batches):
            average = step * config.mini_batches + m
            rl_half = lambda: policy_backward(model, reference, groups, mini_batch(groups, m, config), config)
            if config.mode == "parallel":
                weight = average_weight(config, average, averages)
                pair = average_step(model, rl_optimizer, sft_optimizer, rl_half, lambda: sft_half(average), weight, config.grad_clip)
                metrics["weight"] = weight
            elif config.mode == "sum":
                pair = sum_step(model, rl_optimizer, rl_half, lambda: sft_half(average), config.grad_clip)
            else:
                common.set_lr(rl_optimizer, config.lr)
                pair = {"rl": rl_half(), "rl_grad_norm": common.clipped_step(model, rl_optimizer, config.grad_clip)}
            updates.append(pair)
            if "sft" in pair:
                sft.append((pair["sft"]["loss"], pair["sft_grad_norm"]))
        metrics |= update_metrics([u["rl"] for u in updates], [u["rl_grad_norm"] for u in updates])
        if sft:  # a curriculum has RL steps without any
            metrics["sft_loss"], metrics["sft_grad_norm"] = (sum(values) / len(sft) for values in zip(*sft))
        metrics["sft_updates"] = len(sft)
        seconds["update"] = time.time() - clock + sft_seconds

        done = step + 1
        if config.ref_every and done % config.ref_every == 0:
            common.put_weights(reference, common.own_weights(model))
        if config.val_every and (done % config.val_every == 0 or done == config.steps):
            common.phase(f"step {done}, validation")
            sampler.refresh(model)
            metrics |= validate(sampler, held_out, encoding, config, step, own_reward)
        log.write(done, metrics, seconds, samples)
    resume.finish(out, common.make_facts(config, common.lineage(parent, config.mode), config.steps, parent))


if __name__ == "__main__":
    common.launch(main, Config, PRESETS, SETTINGS)
