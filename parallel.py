"""Parallel averaging: one RL step and one SFT step from the same weights, then their average; M_t -> M_t^Parallel.

    python parallel.py --ckpt out/toy/3.6M.pt
    torchrun --nproc_per_node=8 parallel.py --ckpt out/20B.pt

The algorithm box of the paper (its figure 8) is `average_step`. Two AdamW over the same weights, each with its own
moments and step count; the gradients are clipped separately. Averaging halves each side's effective rate.
Where RL has several mini-batches, each is averaged with an SFT batch of its own, as in the authors' code; their
published runs have one. The RL half is grpo.py's, the SFT half is sft.py's.
"""

import time
from dataclasses import dataclass

import torch

import common
from common import check, print0
from grpo import (
    check_config, group_advantages, load_prompts, mini_batch, old_logprobs, policy_backward, roll_out, rollout_metrics, score, show_samples,
    update_metrics,
)  # fmt: skip
from sft import load_examples, sft_backward


@dataclass(frozen=True)
class Config:
    ckpt: str  # the checkpoint to start from
    preset: str = "1B"  # scale; read from the checkpoint where not given
    setting: str = "controlled"  # written, run or controlled
    out: str = ""  # default: beside the parent, <parent>.parallel.pt
    data: str = "openmath-gsm8k"  # problems of both halves, or a jsonl of question and answer (with solutions)
    seed: int = 0  # order of the data, every sampled token
    weight: float = 0.5  # of the RL copy in the average; 1 is RL alone, 0 is SFT alone
    # the RL half: see grpo.py
    steps: int = 2_200  # rounds of rollouts
    prompts: int = 512  # problems per step, over all ranks
    n: int = 32  # rollouts per problem: the group
    temperature: float = 1.0  # of sampling and of every log-prob
    max_prompt: int = 512  # tokens; longer problems are left out
    max_response: int = 512  # tokens; a longer response is cut, and still graded
    format_score: float = 0.0  # for a wrong answer in one well-formed box
    normalize: str = "std"  # divide group advantages by their deviation: std or none
    mini_batches: int = 1  # updates, and averages, per step
    lr: float = 1e-6  # of RL, constant
    clip_low: float = 0.2  # the ratio of new to old probability counts down to 1 - clip_low
    clip_high: float = 0.2  # and up to 1 + clip_high
    dual_clip: float = 3.0  # bound on the ratio where the advantage is negative; 0 is off
    kl: float = 0.0  # weight of the k3 estimate of KL(policy || start), in the loss
    recompute_old: bool = True  # old log-probs by the training code; off: the sampler's (equal in fp32)
    # the SFT half: see sft.py
    sft_batch: int = 512  # solutions per average, over all ranks
    sft_lr: float = 1e-6  # peak; the published curve's. 4e-5, the rate of SFT alone, forgets more (figure 17)
    sft_schedule: str = "constant"  # constant or cosine
    solutions: str = "one"  # one per problem, or all
    pick: str = "first"  # which one: first, or random (keyed by seed and problem)
    loss: str = "mean"  # of SFT: over the response tokens of a batch, or their sum
    shuffle: bool = True  # a new order of the solutions every pass; the authors kept the file's
    # both
    beta2: float = 0.999  # AdamW; beta1 is 0.9
    weight_decay: float = 0.01  # on all weights, in each optimizer
    grad_clip: float = 1.0  # global norm, of each half
    # cost only
    slots: int = 256  # rollouts decoded at a time, per rank
    micro_tokens: int = 16_384  # tokens per forward pass and rank
    save_every: int = 20  # steps between saves to resume from
    log_every: int = 1  # steps between printed lines


PRESETS = {
    "toy": dict(
        data="toy", steps=50, prompts=24, n=16, max_prompt=160, max_response=52, mini_batches=2, lr=2.5e-4, sft_batch=32, sft_lr=1e-3,
        sft_schedule="cosine", recompute_old=False, slots=512, micro_tokens=8192, save_every=10, log_every=10,
    ),
    "small": dict(
        data="toy", steps=80, prompts=128, n=16, max_prompt=256, max_response=128, mini_batches=2, lr=1e-4, sft_batch=128, sft_lr=3e-4,
        sft_schedule="cosine", slots=2048,
    ),
    "1B": {},
    "1B-60B": dict(data="openmath", max_prompt=1024, max_response=1024),
    "4B": dict(data="openmath", max_prompt=1024, max_response=1024),
}  # fmt: skip
SETTINGS = {
    "written": dict(format_score=0.1, pick="random"),
    "run": dict(loss="sum", shuffle=False),
    "controlled": {},
}


def average_step(model, rl_optimizer, sft_optimizer, rl_backward, sft_backward, weight: float = 0.5, grad_clip: float = 1.0) -> dict:
    """theta <- weight * RLStep(theta) + (1 - weight) * SFTStep(theta), both steps from the same theta.

    rl_backward() and sft_backward() leave their gradient in the model and return anything. Needs one copy of the
    weights: it holds theta during the RL step, then the RL result while the SFT step starts from theta again.
    -> {rl, sft: what the two returned; rl_grad_norm, sft_grad_norm}
    """
    parameters = list(model.parameters())
    copy = [p.detach().clone() for p in parameters]  # theta
    rl = rl_backward()
    rl_norm = common.clipped_step(model, rl_optimizer, grad_clip)
    with torch.no_grad():
        for p, c in zip(parameters, copy):  # swap: the model is theta again, the copy is the RL result
            after_rl = p.clone()
            p.copy_(c)
            c.copy_(after_rl)
    sft = sft_backward()
    sft_norm = common.clipped_step(model, sft_optimizer, grad_clip)
    with torch.no_grad():
        for p, after_rl in zip(parameters, copy):
            p.lerp_(after_rl, weight)  # SFT result + weight * (RL result - SFT result)
    return {"rl": rl, "sft": sft, "rl_grad_norm": rl_norm, "sft_grad_norm": sft_norm}


def main(config: Config) -> None:
    check_config(config)
    check(0 <= config.weight <= 1, f"--weight {config.weight} must lie between 0 (SFT) and 1 (RL)")
    check(config.solutions in ("one", "all"), f"--solutions {config.solutions}: choose one or all")
    check(config.pick in ("first", "random"), f"--pick {config.pick}: choose first or random")
    check(config.loss in ("mean", "sum"), f"--loss {config.loss}: choose mean or sum")
    common.check_schedule(config.sft_schedule)
    out = common.output_path(config, "parallel")
    model, parent = common.open_parent(config)
    if common.is_finished(out, config, parent):
        return
    common.check_length(model, config.max_prompt + config.max_response)
    encoding = common.open_tokenizer(parent, model)
    problems = load_prompts(config, encoding)
    data = load_examples(config, encoding)
    reference = common.open_parent(config)[0].requires_grad_(False) if config.kl else None
    rl_optimizer = common.adamw(model, config.lr, (0.9, config.beta2), config.weight_decay)
    sft_optimizer = common.adamw(model, config.sft_lr, (0.9, config.beta2), config.weight_decay)
    averages = config.steps * config.mini_batches
    print0(
        f"{config.steps} steps of {config.prompts} prompts x {config.n} = {config.prompts * config.n} rollouts; {averages} averages, each with "
        f"{config.sft_batch} solutions; {config.steps * config.prompts / len(problems):.1f} passes of RL, {averages * config.sft_batch / len(data):.1f} of SFT"
    )
    resume = common.Resume(out, config, model, rl_optimizer, sft_optimizer)
    start = resume.load()
    log = common.Log(out, start)
    for step in range(start, config.steps):
        clocks = [time.time()]
        batch = [problems[i] for i in common.batch_indices(len(problems), config.prompts, step, config.seed, "grpo")]
        groups = roll_out(model, batch, encoding, config, step)
        clocks.append(time.time())
        score(groups, encoding, config)
        groups.advantages = group_advantages(groups.rewards, config.normalize)
        clocks.append(time.time())
        metrics, averaged = rollout_metrics(groups, config), []
        old_logprobs(model, groups, config)
        for m in range(config.mini_batches):
            average = step * config.mini_batches + m
            common.set_lr(sft_optimizer, config.sft_lr * common.schedule(config.sft_schedule, average, averages))
            indices = common.batch_indices(len(data), config.sft_batch, average, config.seed, "sft", config.shuffle)
            averaged.append(average_step(
                model, rl_optimizer, sft_optimizer,
                lambda: policy_backward(model, reference, groups, mini_batch(groups, m, config), config),
                lambda: sft_backward(model, [data[i] for i in indices], config.micro_tokens, config.loss),
                config.weight, config.grad_clip,
            ))  # fmt: skip
        metrics |= update_metrics([a["rl"] for a in averaged], [a["rl_grad_norm"] for a in averaged])
        metrics["sft_loss"] = sum(a["sft"]["loss"] for a in averaged) / len(averaged)
        metrics["sft_grad_norm"] = sum(a["sft_grad_norm"] for a in averaged) / len(averaged)
        clocks.append(time.time())

        done = step + 1
        seconds = {f"seconds_{name}": b - a for name, a, b in zip(("sample", "score", "update"), clocks, clocks[1:])}
        log.write(done, **metrics, **seconds, **({"samples": show_samples(groups)} if step % 10 == 0 else {}))
        if done % config.log_every == 0 or done == config.steps:
            print0(
                f"step {done:5d}/{config.steps} | reward {metrics['reward']:.3f} | right {metrics['accuracy']:.3f} | mixed {metrics['mixed']:.2f} | "
                f"length {metrics['length']:.1f} | cut {metrics['truncated']:.2f} | entropy {metrics['entropy']:.3f} | "
                f"sft loss {metrics['sft_loss']:.4f} | {metrics['tokens'] / seconds['seconds_sample']:,.0f} tok/s sampled | {clocks[-1] - clocks[0]:.2f} s"
            )
        if done % config.save_every == 0 and done < config.steps:
            resume.save(done)
    resume.finish(out, common.make_facts(config, common.lineage(parent, "parallel"), config.steps, parent))


if __name__ == "__main__":
    common.launch(main, Config, PRESETS, SETTINGS)
