"""Reinforcement learning with verifiable rewards: GRPO from any checkpoint, M_t -> M_t^RL or M_t^SFT -> M_t^SFT,RL.

    python grpo.py --ckpt out/toy/3.6M.pt
    torchrun --nproc_per_node=8 grpo.py --ckpt out/4B.pt

A step: n rollouts of every prompt, a reward for each, the advantage of each against its group, and a few clipped
policy-gradient updates. Five functions, in this order: roll_out, score, group_advantages, policy_loss, update.

Settings. `written` is the paper's Table 1: advantage divided by the group's deviation, 0.1 for a well-formed wrong
answer, KL to the start. `run` is what the authors' code did: the same, but the format score never took effect.
`controlled` (default) drops the format score, which early checkpoints learn instead of the answer, and the KL, which
the authors had in direct RL but not in RL after SFT: here these two differ in their start and in nothing else.
"""

import time
from dataclasses import dataclass

import torch

import common
from common import check, print0
from data.grader import extract, reward
from data.problems import Problem, answer_kind, counted, load_problems, prompt_text
from sampler import Rollout, sample


@dataclass(frozen=True)
class Config:
    ckpt: str  # the checkpoint to start from
    preset: str = "1B"  # scale; read from the checkpoint where not given
    setting: str = "controlled"  # written, run or controlled
    out: str = ""  # default: beside the parent, <parent>.rl.pt
    data: str = "openmath-gsm8k"  # problem set, or a jsonl of question and answer
    seed: int = 0  # order of the problems, every sampled token
    # rollouts
    steps: int = 1_560  # rounds of rollouts; 10 passes over 80k problems
    prompts: int = 512  # problems per step, over all ranks
    n: int = 32  # rollouts per problem: the group
    temperature: float = 1.0  # of sampling and of every log-prob
    max_prompt: int = 1024  # tokens; longer problems are left out
    max_response: int = 2048  # tokens; a longer response is cut, and still graded
    # reward and advantage
    format_score: float = 0.0  # for a wrong answer in one well-formed box
    normalize: str = "std"  # divide group advantages by their deviation: std or none
    # update
    mini_batches: int = 4  # optimizer steps per step, each on prompts / mini_batches groups
    lr: float = 1e-6  # constant
    beta2: float = 0.999  # AdamW; beta1 is 0.9
    weight_decay: float = 0.01  # on all weights
    grad_clip: float = 1.0  # global norm
    clip_low: float = 0.2  # the ratio of new to old probability counts down to 1 - clip_low
    clip_high: float = 0.2  # and up to 1 + clip_high
    dual_clip: float = 3.0  # bound on the ratio where the advantage is negative; 0 is off
    kl: float = 0.0  # weight of the k3 estimate of KL(policy || start), in the loss
    recompute_old: bool = True  # old log-probs by the training code; off: the sampler's (equal in fp32)
    # cost only
    slots: int = 256  # rollouts decoded at a time, per rank
    micro_tokens: int = 16_384  # tokens per forward pass and rank
    save_every: int = 20  # steps between saves to resume from
    log_every: int = 1  # steps between printed lines


PRESETS = {
    "toy": dict(
        data="toy", steps=50, prompts=24, n=16, max_prompt=160, max_response=52, mini_batches=2, lr=2.5e-4, recompute_old=False,
        slots=512, micro_tokens=8192, save_every=10, log_every=10,
    ),
    "small": dict(data="toy", steps=80, prompts=128, n=16, max_prompt=256, max_response=128, mini_batches=2, lr=1e-4, slots=2048),
    "1B": {},
    "1B-60B": dict(data="openmath"),
    "4B": dict(data="openmath"),
}  # fmt: skip
SETTINGS = {
    "written": dict(normalize="std", format_score=0.1, kl=1e-3),
    "run": dict(normalize="std", format_score=0.0, kl=1e-3),
    "controlled": dict(normalize="std", format_score=0.0, kl=0.0),
}


@dataclass
class Groups:
    """One step's groups on this rank: P problems x n rollouts, and what each stage adds to them."""

    problems: list[Problem]
    prompts: list[list[int]]  # P token lists
    rollouts: list[list[Rollout]]  # P x n
    place: list[int]  # P positions in the step's global batch: they decide the mini-batch
    texts: list[list[str]] | None = None  # P x n decoded responses
    rewards: torch.Tensor | None = None  # (P, n)
    advantages: torch.Tensor | None = None  # (P, n)
    old_logp: list[list[torch.Tensor]] | None = None  # P x n x (response,); None: the policy has not moved yet


def roll_out(model, problems: list[Problem], encoding, config: Config, step: int) -> Groups:
    """Sample n responses to each of this rank's share of the step's problems."""
    place = list(range(common.rank(), len(problems), common.world()))
    mine = [problems[i] for i in place]
    prompts = [encoding.encode_ordinary(prompt_text(p)) for p in mine]
    if not mine:
        return Groups([], [], [], [])
    keys = common.problem_keys(problems)
    with common.autocast():
        rollouts = sample(
            model, prompts, config.n, config.max_response, config.temperature, eos=encoding.eot_token,
            seed=config.seed, step=step, problem_ids=[keys[i] for i in place], slots=config.slots,
        )  # fmt: skip
    return Groups(mine, prompts, rollouts, place)


def score(groups: Groups, encoding, config: Config) -> None:
    """The evaluation's grader is the reward: 1 for the right answer, format_score for a wrong one in a box, else 0."""
    eos = encoding.eot_token
    groups.texts = [[encoding.decode([t for t in r.tokens if t != eos]) for r in group] for group in groups.rollouts]
    rewards = [
        [reward(text, problem.answer, answer_kind(problem), config.format_score) for text in texts]
        for problem, texts in zip(groups.problems, groups.texts)
    ]
    groups.rewards = torch.tensor(rewards).view(len(groups.problems), config.n)  # a rank may have none


def group_advantages(rewards: torch.Tensor, normalize: str = "std") -> torch.Tensor:
    """rewards (P, n) -> advantages (P, n): how much better than its own group each rollout was.

    "std": (r - mean) / (unbiased std + 1e-6), GRPO (Shao et al. 2024). "none": r - mean, Dr. GRPO (Liu et al. 2025).
    A group whose rewards are all equal gets exactly 0.
    """
    centred = rewards - rewards.mean(1, keepdim=True)
    centred[(rewards == rewards[:, :1]).all(1)] = 0.0  # not the rounding error of the mean
    if normalize == "std" and rewards.shape[1] > 1:
        centred = centred / (rewards.std(1, keepdim=True) + 1e-6)
    return centred


def policy_loss(logp, old_logp, advantage, ref_logp=None, clip_low=0.2, clip_high=0.2, dual_clip=3.0, kl_coef=0.0):
    """The clipped loss of every response token, all arguments (R,) -> (loss (R,), metrics of the tokens).

    ratio = exp(logp - old_logp);  loss = max(-A ratio, -A clip(ratio, 1 - clip_low, 1 + clip_high))   (PPO)
    where A < 0 also: loss <= -A dual_clip                                                 (Ye et al. 2020, dual clip)
    plus kl_coef * k3, k3 = exp(d) - d - 1 with d = ref_logp - logp                        (Schulman 2020; as in GRPO)
    Differences of log-probs are cut at +-20 before exp and k3 at 10, as in the authors' trainer.
    """
    ratio = (logp - old_logp).clamp(-20, 20).exp()
    plain, clipped = -advantage * ratio, -advantage * ratio.clamp(1 - clip_low, 1 + clip_high)
    loss = torch.maximum(plain, clipped)
    if dual_clip:
        loss = torch.where(advantage < 0, torch.minimum(loss, -advantage * dual_clip), loss)
    metrics = {"clip_fraction": (clipped > plain).float(), "ratio": ratio}
    if ref_logp is not None:
        d = (ref_logp - logp).clamp(-20, 20)
        k3 = (d.exp() - d - 1).clamp(max=10)
        loss = loss + kl_coef * k3
        metrics["kl"] = k3
    return loss, {name: value.detach() for name, value in metrics.items()}


def old_logprobs(model, groups: Groups, config: Config) -> None:
    """Log-probs of the responses before the first update: the denominator of the ratio.

    With one update per step they are the current ones, and nothing has to be computed.
    """
    if config.mini_batches == 1:
        return
    if not config.recompute_old:
        groups.old_logp = [[torch.tensor(r.logprobs) for r in group] for group in groups.rollouts]
        return
    groups.old_logp = [[torch.empty(0)] * config.n for _ in groups.rollouts]
    with torch.no_grad():
        for members, packed in micro_batches(groups, range(len(groups.prompts)), config):
            logp = common.response_logprobs(model, packed, config.temperature)[0].cpu()
            for (g, i), one in zip(members, logp.split([len(groups.rollouts[g][i].tokens) for g, i in members])):
                groups.old_logp[g][i] = one


def micro_batches(groups: Groups, chosen, config: Config):
    """The chosen groups' rollouts in packs of at most micro_tokens -> (members [(group, rollout)], Packed), one by one.

    A prompt stands once in a pack, before all its rollouts: they share its hidden states, forward and backward.
    """
    packs, size = [], 0
    for g in chosen:
        for i, rollout in enumerate(groups.rollouts[g]):
            if not config.kl and groups.advantages[g, i] == 0:
                continue  # without a KL term a zero advantage has no gradient: nothing to compute
            new_prompt = not packs or not packs[-1] or packs[-1][-1][0] != g
            needs = len(rollout.tokens) + new_prompt * len(groups.prompts[g])
            if not packs or size + needs > config.micro_tokens:
                packs.append([])
                needs, size = len(rollout.tokens) + len(groups.prompts[g]), 0
            packs[-1].append((g, i))
            size += needs
    for members in packs:
        there = sorted({g for g, _ in members})
        prompts, responses = [groups.prompts[g] for g in there], [groups.rollouts[g][i].tokens for g, i in members]
        yield members, common.pack(prompts, responses, [there.index(g) for g, _ in members])


def policy_backward(model, reference, groups: Groups, chosen: list[int], config: Config) -> dict:
    """Add the gradient of the policy loss on the `chosen` groups (indices on this rank) to the model's.

    The sum over tokens is divided once, by the number of response tokens of the mini-batch over all ranks.
    -> sums over this rank's tokens.
    """
    (n_tokens,) = common.all_sum(sum(len(r.tokens) for g in chosen for r in groups.rollouts[g]))
    sums = dict.fromkeys(("loss", "clip_fraction", "ratio", "kl", "mismatch", "scored"), 0.0)
    for members, packed in micro_batches(groups, chosen, config):
        to = packed.tokens.device
        advantage = torch.stack([groups.advantages[g, i] for g, i in members]).to(to)[packed.sequence]  # (R,)
        ref_logp = None
        if config.kl:
            with torch.no_grad():
                ref_logp = common.response_logprobs(reference, packed, config.temperature)[0]
        logp = common.response_logprobs(model, packed, config.temperature)[0]  # (R,)
        old_logp = torch.cat([groups.old_logp[g][i] for g, i in members]).to(to) if groups.old_logp else logp.detach()
        loss, metrics = policy_loss(
            logp, old_logp, advantage, ref_logp, config.clip_low, config.clip_high, config.dual_clip, config.kl
        )
        (loss.sum() / n_tokens).backward()
        sampled = torch.tensor([x for g, i in members for x in groups.rollouts[g][i].logprobs]).to(to)  # (R,)
        metrics |= {"loss": loss.detach() / n_tokens, "mismatch": (logp.detach() - sampled).abs(), "scored": torch.ones_like(logp)}
        for name, value in metrics.items():
            sums[name] += float(value.detach().sum())
    return sums


def mini_batch(groups: Groups, m: int, config: Config) -> list[int]:
    """This rank's groups of mini-batch m: the step's prompts are cut into equal stretches, groups stay whole."""
    start, stop = (config.prompts * k // config.mini_batches for k in (m, m + 1))
    return [g for g, place in enumerate(groups.place) if start <= place < stop]


def update(model, reference, optimizer, groups: Groups, config: Config) -> dict:
    """One optimizer step per mini-batch -> metrics of the step, over all ranks."""
    old_logprobs(model, groups, config)
    sums, norms = [], []
    for m in range(config.mini_batches):
        sums.append(policy_backward(model, reference, groups, mini_batch(groups, m, config), config))
        norms.append(common.clipped_step(model, optimizer, config.grad_clip))
    return update_metrics(sums, norms)


def update_metrics(sums: list[dict], norms: list[float]) -> dict:
    """Token sums of each mini-batch on this rank -> means over the step and all ranks."""
    sums = [dict(zip(one, common.all_sum(*one.values()))) for one in sums]
    total = {name: sum(one[name] for one in sums) for name in sums[0]}
    scored = max(1, total["scored"])
    return {
        "loss": total["loss"] / len(sums),  # what was optimised, mean over the mini-batches
        "grad_norm": sum(norms) / len(norms),  # before the cut
        "clip_fraction": total["clip_fraction"] / scored,  # of the tokens that were scored
        "ratio": total["ratio"] / scored,
        "kl": total["kl"] / scored,  # k3 to the start, nats per token; 0 where there is no KL term
        # mean |log-prob of the sampler - of the trainer|, in the first mini-batch: later ones have moved the weights
        "mismatch": sums[0]["mismatch"] / max(1, sums[0]["scored"]),
    }


def rollout_metrics(groups: Groups, config: Config) -> dict:
    """What the step's rollouts were like, over all ranks and before any update. Shares lie between 0 and 1."""
    right = groups.rewards == 1 if groups.problems else torch.zeros(0, config.n, dtype=torch.bool)
    rollouts = [r for group in groups.rollouts for r in group]
    answered = [extract(text, answer_kind(p)) is not None for p, texts in zip(groups.problems, groups.texts or []) for text in texts]
    sums = common.all_sum(
        len(rollouts),
        len(right),
        float(groups.rewards.double().sum()) if groups.problems else 0.0,
        int(right.sum()),
        sum(answered),
        int(right.any(1).sum()),
        int(right.all(1).sum()),
        int((groups.advantages != 0).any(1).sum()) if groups.problems else 0,
        sum(len(r.tokens) for r in rollouts),
        sum(not r.finished for r in rollouts),
        -sum(sum(r.logprobs) for r in rollouts),
    )
    n_rollouts, n_groups, rewards, n_right, n_answered, any_right, all_right, mixed, tokens, cut, surprise = sums
    return {
        "reward": rewards / n_rollouts,
        "accuracy": n_right / n_rollouts,
        "format": n_answered / n_rollouts,  # share that commits to an answer: a box
        "pass@n": any_right / n_groups,  # groups with a right answer
        "all_right": all_right / n_groups,
        "mixed": mixed / n_groups,  # groups whose rewards differ: the only ones to learn from
        "length": tokens / n_rollouts,  # response tokens
        "truncated": cut / n_rollouts,
        "entropy": surprise / tokens,  # nats per token: mean of -log p of what was sampled, an estimate
        "tokens": tokens,
    }


def show_samples(groups: Groups, k: int = 2) -> list[dict]:
    """A few decoded rollouts with their verdicts, for the log."""
    return [
        {"question": p.question, "answer": p.answer, "response": t[0], "extracted": extract(t[0], answer_kind(p)), "reward": float(r[0])}
        for p, t, r in list(zip(groups.problems, groups.texts or [], groups.rewards if groups.rewards is not None else []))[:k]
    ]


def load_prompts(config, encoding) -> list[Problem]:
    """The training problems whose prompts fit."""
    problems = load_problems(config.data, "train")
    kept = [p for p in problems if len(encoding.encode_ordinary(prompt_text(p))) <= config.max_prompt]
    check(bool(kept), f"every prompt of {config.data} is over --max_prompt {config.max_prompt} tokens")
    print0(f"{counted(config.data, 'train', problems)}; {len(problems) - len(kept):,} over {config.max_prompt} prompt tokens left out")
    return kept


def check_config(config) -> None:
    check(config.normalize in ("std", "none"), f"--normalize {config.normalize}: choose std or none")
    check(config.n >= 2, f"--n {config.n}: a group needs at least 2 rollouts to compare")
    check(config.prompts % config.mini_batches == 0, f"--prompts {config.prompts} is not a multiple of --mini_batches {config.mini_batches}")
    check(config.temperature > 0, f"--temperature {config.temperature}: greedy rollouts of a group are all the same; give more than 0")


def main(config: Config) -> None:
    check_config(config)
    out = common.output_path(config, "rl")
    model, parent = common.open_parent(config)
    if common.is_finished(out, config, parent):
        return
    common.check_length(model, config.max_prompt + config.max_response)
    encoding = common.open_tokenizer(parent, model)
    problems = load_prompts(config, encoding)
    reference = common.open_parent(config)[0].requires_grad_(False) if config.kl else None
    optimizer = common.adamw(model, config.lr, (0.9, config.beta2), config.weight_decay)
    print0(
        f"{config.steps} steps of {config.prompts} prompts x {config.n} = {config.prompts * config.n} rollouts, {config.mini_batches} updates each; "
        f"{config.steps * config.prompts / len(problems):.1f} passes"
    )
    resume = common.Resume(out, config, model, optimizer)
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
        metrics = rollout_metrics(groups, config) | update(model, reference, optimizer, groups, config)
        clocks.append(time.time())

        done = step + 1
        seconds = {f"seconds_{name}": b - a for name, a, b in zip(("sample", "score", "update"), clocks, clocks[1:])}
        log.write(done, **metrics, **seconds, **({"samples": show_samples(groups)} if step % 10 == 0 else {}))
        if done % config.log_every == 0 or done == config.steps:
            print0(
                f"step {done:5d}/{config.steps} | reward {metrics['reward']:.3f} | right {metrics['accuracy']:.3f} | mixed {metrics['mixed']:.2f} | "
                f"length {metrics['length']:.1f} | cut {metrics['truncated']:.2f} | entropy {metrics['entropy']:.3f} | kl {metrics['kl']:.4f} | "
                f"{metrics['tokens'] / seconds['seconds_sample']:,.0f} tok/s sampled | {clocks[-1] - clocks[0]:.2f} s"
            )
        if done % config.save_every == 0 and done < config.steps:
            resume.save(done)
    resume.finish(out, common.make_facts(config, common.lineage(parent, "rl"), config.steps, parent))


if __name__ == "__main__":
    common.launch(main, Config, PRESETS, SETTINGS)
