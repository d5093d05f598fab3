"""How far training has moved a model: the KL divergence from its base on prompts of a task.

    python -m tools.distance --ckpt out/toy/3.6M.rl.pt --base out/toy/3.6M.pt

The checkpoint samples responses y at temperature 1, and KL(checkpoint || base) is the mean of
log p(y) - log p_base(y), in nats per response. A row goes to distances.jsonl beside the checkpoint.
What is forgotten elsewhere may depend on this distance alone (arXiv 2509.04259).
"""

import os
from dataclasses import dataclass

import numpy as np

from data.problems import load_problems, prompt_text
from plumbing import checkpoint
from plumbing.batches import problem_keys
from plumbing.files import append_row, read_rows
from plumbing.flags import launch
from plumbing.likelihood import score_continuations
from plumbing.prepare import install_fast, make_sampler
from plumbing.ranks import autocast, print0, rank


@dataclass(frozen=True)
class Config:
    ckpt: str  # the trained checkpoint
    base: str  # what it was trained from
    preset: str = "1B"  # scale; read from the checkpoint where not given
    task: str = "gsm8k"  # whose test problems are the prompts
    problems: int = 200  # the first so many; 0 is all
    n: int = 8  # responses to each
    max_response: int = 1024  # new tokens
    seed: int = 0  # of the samples
    out: str = ""  # file of rows; default distances.jsonl beside the checkpoint
    # cost
    micro_tokens: int = 16_384  # of a pass of the base
    slots: int = 512  # samples decoded at a time
    kv_memory: float = 0.4  # share of a GPU's free memory for keys and values
    compile: bool = False  # fuse what surrounds attention
    plain: bool = False  # run without the fast paths
    fp32_head: bool = False  # on a GPU: the head's factors in fp32, as on a CPU


PRESETS = {
    "toy": dict(task="toy", max_response=52),
    "toy-large": dict(task="toy", max_response=52),
    "small": dict(task="toy", max_response=128),
    "1B": {},
    "1B-60B": dict(task="math"),
    "4B": dict(task="math"),
}


def main(config: Config) -> None:
    """One process: the distance is a mean over 1,600 responses by default, a minute's work."""
    out = config.out or os.path.join(os.path.dirname(config.ckpt), "distances.jsonl")
    model, facts = checkpoint.open_model(config)
    base, base_facts = checkpoint.load_checkpoint(config.base)
    key = {"weights": facts.get("weights"), "base": base_facts.get("weights"), "n": config.n}
    key |= {"task": config.task, "problems": config.problems, "seed": config.seed}
    if any(row["key"] == key for row in read_rows(out)):
        print0(f"already in {out}; nothing to do")
        return
    encoding = checkpoint.open_tokenizer(facts, model)
    base = base.to(model.lm_head.weight.device)
    for one in (model, base):
        install_fast(one, config)
    problems = load_problems(config.task, "test")[: config.problems or None]
    prompts = [encoding.encode_ordinary(prompt_text(problem)) for problem in problems]
    sampler = make_sampler(model, config.slots, config.kv_memory)
    with autocast():
        rollouts = sampler.sample(
            prompts,
            config.n,
            config.max_response,
            temperature=1.0,
            eos=encoding.eot_token,
            seed=config.seed,
            problem_ids=problem_keys(problems),
        )
    requests = []
    own = []  # log-prob of each response by the model that sampled it
    tokens = 0
    for prompt, group in zip(prompts, rollouts):
        for rollout in group:
            requests.append((prompt, rollout.tokens))
            own.append(sum(rollout.logprobs))
            tokens += len(rollout.tokens)
    scores = score_continuations(base, requests, config.micro_tokens)
    of_base = [logp for logp, _ in scores]
    kl = float(np.mean(np.array(own) - np.array(of_base)))
    row = {"name": checkpoint.stem(os.path.basename(config.ckpt)), "key": key, "kl": kl}
    row["kl_per_token"] = kl * len(requests) / tokens
    if rank() == 0:
        append_row(out, row)
    print0(
        f"KL({row['name']} || {os.path.basename(config.base)}) = {kl:.4f} nats per response, "
        f"{row['kl_per_token']:.5f} per token ({len(requests):,} responses)"
    )


if __name__ == "__main__":
    launch(main, Config, PRESETS)
