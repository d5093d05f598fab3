"""Reinforcement learning with verifiable rewards: GRPO from any checkpoint, M_t -> M_t^RL or M_t^SFT -> M_t^SFT,RL.

    python grpo.py --ckpt out/toy/3.6M.pt
    torchrun --nproc_per_node=8 grpo.py --ckpt out/4B.pt

A step: n rollouts of every prompt, a reward for each, the advantage of each against its group, and a few clipped
policy-gradient updates. Five functions, in this order: roll_out, score, group_advantages, policy_loss, update. What the
log says of a step is in metrics.py.

Settings. `written` is the paper's Table 1: advantage divided by the group's deviation, 0.1 for a well-formed wrong
answer, KL to the start. `run` is what the authors' code did: the format score never took effect, the loss was a mean per
micro-batch, and RL after SFT had other values than direct RL (AFTER_SFT; printed at the start as "after SFT").
`controlled` (default) drops the format score, which early checkpoints learn instead of the answer, and the KL, which the
authors had in direct RL but not in RL after SFT: here these two differ in their start and in nothing else.
"""

import time
from dataclasses import dataclass, replace

import torch

import common
from common import check, print0
from data.grader import load_reward, reward
from data.problems import Problem, answer_kind, counted, prompt_text, train_and_val
from metrics import StepLog, rollout_metrics, update_metrics
from sampler import Rollout, Sampler


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
    dynamic_sampling: int = 0  # draw so many more batches of prompts at most, until `prompts` groups have mixed rewards
    # reward and advantage
    reward: str = ""  # your own, FILE.py:FUNCTION with function(response, problem) -> float; default the grader
    format_score: float = 0.0  # for a wrong answer in one well-formed box
    normalize: str = "std"  # divide group advantages by their deviation: std or none
    # update
    loss: str = "token-mean"  # over a mini-batch: token-mean, sequence-mean, constant or micro-mean; see `denominator`
    mask_truncated: bool = False  # rollouts that were cut carry no loss; they still count in their group's mean
    mini_batches: int = 4  # optimizer steps per step, each on prompts / mini_batches groups
    lr: float = 1e-6  # constant
    beta2: float = 0.999  # AdamW; beta1 is 0.9
    weight_decay: float = 0.01  # on all weights
    grad_clip: float = 1.0  # global norm
    fp32_head: bool = False  # on a GPU: factors of the head's products in fp32, not bf16; exact and slow
    clip_low: float = 0.2  # the ratio of new to old probability counts down to 1 - clip_low
    clip_high: float = 0.2  # and up to 1 + clip_high
    dual_clip: float = 3.0  # bound on the ratio where the advantage is negative; 0 is off
    kl: float = 0.0  # weight of the k3 estimate of KL(policy || reference), in the loss; 0 is none
    ref_every: int = 0  # steps after which the policy becomes the reference; 0: it stays the start
    tis: float = 0.0  # weigh tokens by trainer / sampler probability, at most so much; 0 is off
    recompute_old: bool = True  # old log-probs by the training code; off: the sampler's (equal in fp32)
    # validation
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
        data="toy", steps=50, prompts=24, n=16, max_prompt=160, max_response=52, mini_batches=2, lr=2.5e-4, recompute_old=False,
        slots=512, micro_tokens=8192, save_every=10, log_every=10,
    ),
    "small": dict(data="toy", steps=80, prompts=128, n=16, max_prompt=256, max_response=128, mini_batches=2, lr=1e-4, slots=2048),
    "1B": dict(val_every=20, micro_tokens=8192, compile=True),
    "1B-60B": dict(data="openmath", val_every=20, micro_tokens=8192, compile=True),
    "4B": dict(data="openmath", val_every=20, micro_tokens=4096, kv_memory=0.3, compile=True),
}  # fmt: skip
SETTINGS = {
    "written": dict(normalize="std", format_score=0.1, kl=1e-3),
    "run": dict(normalize="std", format_score=0.0, kl=1e-3, loss="micro-mean"),
    "controlled": dict(normalize="std", format_score=0.0, kl=0.0),
}
# (setting, preset): what the authors' RL from SFT checkpoints had instead. Rate and lengths are their SFT script's (40 times
# direct RL's rate); the small scales have rates of their own, found for two updates per step, and keep them
AFTER_SFT = {
    ("run", "toy"): dict(kl=0.0, mini_batches=1),
    ("run", "small"): dict(kl=0.0, mini_batches=1),
    ("run", "1B"): dict(kl=0.0, mini_batches=1, lr=4e-5, max_prompt=512, max_response=512),
    ("run", "1B-60B"): dict(kl=0.0, mini_batches=1, lr=4e-5, max_prompt=2560, max_response=1024),
    ("run", "4B"): dict(kl=0.0, mini_batches=1, lr=4e-5, max_prompt=2560, max_response=1024),
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
    right: torch.Tensor | None = None  # (P, n) the grader's verdicts
    advantages: torch.Tensor | None = None  # (P, n)
    kept: int | None = None  # groups of the step over all ranks, where dynamic sampling chose them
    old_logp: list[list[torch.Tensor]] | None = None  # P x n x (response,); None: the policy has not moved yet


def roll_out(sampler: Sampler, problems: list[Problem], encoding, config: Config, step: int) -> Groups:
    """Sample n responses to each of this rank's share of the step's problems."""
    place = list(range(common.rank(), len(problems), common.world()))
    mine = [problems[i] for i in place]
    prompts = [encoding.encode_ordinary(prompt_text(p)) for p in mine]
    if not mine:
        return Groups([], [], [], [])
    keys = common.problem_keys(problems)
    rollouts = sampler.sample(
        prompts, config.n, config.max_response, config.temperature, eos=encoding.eot_token, seed=config.seed, step=step,
        problem_ids=[keys[i] for i in place],
    )  # fmt: skip
    return Groups(mine, prompts, rollouts, place)


def score(groups: Groups, encoding, config: Config, own_reward=None) -> None:
    """The evaluation's grader is the reward: 1 for the right answer, format_score for a wrong one in a box, else 0.

    With `own_reward` (--reward) that is learned from, and the grader's verdict is still kept.
    """
    eos = encoding.eot_token
    groups.texts = [[encoding.decode([t for t in r.tokens if t != eos]) for r in group] for group in groups.rollouts]
    rewards = [
        [reward(text, problem.answer, answer_kind(problem), config.format_score) for text in texts]
        for problem, texts in zip(groups.problems, groups.texts)
    ]
    groups.rewards = torch.tensor(rewards).view(len(groups.problems), config.n)  # a rank may have none
    groups.right = groups.rewards == 1
    if own_reward:
        rewards = [[own_reward(text, problem) for text in texts] for problem, texts in zip(groups.problems, groups.texts)]
        groups.rewards = torch.tensor(rewards, dtype=torch.float32).view(len(groups.problems), config.n)


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


def policy_loss(
    logp, old_logp, advantage, ref_logp=None, clip_low=0.2, clip_high=0.2, dual_clip=3.0, kl_coef=0.0, sampler_logp=None, tis=0.0
):  # fmt: skip
    """The clipped loss of every response token, all arguments (R,) -> (loss (R,), metrics of the tokens).

    ratio = exp(logp - old_logp);  loss = max(-A ratio, -A clip(ratio, 1 - clip_low, 1 + clip_high))   (PPO; DAPO: clip_high 0.28)
    where A < 0 also: loss <= -A dual_clip                                                 (Ye et al. 2020, dual clip)
    times min(exp(old_logp - sampler_logp), tis)                     (Yao et al. 2025, truncated importance sampling)
    plus kl_coef * k3, k3 = exp(d) - d - 1 with d = ref_logp - logp                        (Schulman 2020; as in GRPO)
    Differences of log-probs are cut at +-20 before exp and k3 at 10, as in the authors' trainer.
    """
    ratio = (logp - old_logp).clamp(-20, 20).exp()
    plain, clipped = -advantage * ratio, -advantage * ratio.clamp(1 - clip_low, 1 + clip_high)
    loss = torch.maximum(plain, clipped)
    if dual_clip:
        loss = torch.where(advantage < 0, torch.minimum(loss, -advantage * dual_clip), loss)
    if tis:
        loss = loss * (old_logp - sampler_logp).clamp(-20, 20).exp().clamp(max=tis)
    bites = clipped > plain
    metrics = {"clip_fraction": bites, "clipped_low": bites & (advantage < 0), "clipped_high": bites & (advantage > 0), "ratio": ratio}
    if ref_logp is not None:
        d = (ref_logp - logp).clamp(-20, 20)
        k3 = (d.exp() - d - 1).clamp(max=10)
        loss = loss + kl_coef * k3
        metrics["kl"] = k3
    return loss, {name: value.detach().float() for name, value in metrics.items()}


def denominator(kind: str, lengths, sequence, n_tokens: float, n_rollouts: float, max_response: int):
    """What the loss of each token is divided by before everything is summed: a number, or (R,) for the tokens of a pack.

    lengths (S,) response tokens of the pack's rollouts, sequence (R,) the rollout of each token. The two counts are of
    the whole mini-batch over all ranks, so neither micro_tokens nor the number of ranks matters, except to micro-mean.
    """
    if kind == "sequence-mean":  # every rollout weighs the same: GRPO (Shao et al. 2024)
        return n_rollouts * lengths[sequence]
    if kind == "constant":  # no length in it: Dr. GRPO (Liu et al. 2025)
        return n_rollouts * max_response
    if kind == "micro-mean":  # the authors' code: a token mean per pack, weighed by its rollouts; depends on micro_tokens
        return n_rollouts * lengths.sum() / len(lengths)
    return n_tokens  # every token weighs the same: DAPO (Yu et al. 2025)


def mismatch_sums(trainer_logp, sampler_logp) -> dict:
    """How far the sampler's log-probs of its tokens (R,) lie from the trainer's: sum and largest of the differences."""
    apart = (trainer_logp.detach() - sampler_logp).abs()
    return {"mismatch": float(apart.sum()), "mismatch_max": float(apart.max())}


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
            if not members:
                continue
            for (g, i), one in zip(members, logp.split([len(groups.rollouts[g][i].tokens) for g, i in members])):
                groups.old_logp[g][i] = one


def has_loss(rollout: Rollout, config: Config) -> bool:
    """Overlong filtering (Yu et al. 2025) leaves out the rollouts that were cut, in sums and in counts."""
    return rollout.finished or not config.mask_truncated


def to_compute(groups: Groups, g: int, config: Config) -> list[int]:
    """The rollouts of group g that go through the trainer. Without a KL term one of advantage 0 has no gradient: nothing to
    compute, unless the pack's own mean counts it."""
    silent = lambda i: not config.kl and groups.advantages[g, i] == 0 and config.loss != "micro-mean"
    return [i for i, rollout in enumerate(groups.rollouts[g]) if has_loss(rollout, config) and not silent(i)]


def micro_batches(groups: Groups, chosen, config: Config):
    """The chosen groups' rollouts in packs of at most micro_tokens -> (members [(group, rollout)], Packed), one by one.

    A prompt stands once in a pack, before all its rollouts: they share its hidden states, forward and backward. All ranks get
    the same number of packs; those without members are only passed through, to keep in step.
    """
    packs, size = [], 0
    for g in chosen:
        for i in to_compute(groups, g, config):
            tokens = len(groups.rollouts[g][i].tokens)
            new_prompt = not packs or not packs[-1] or packs[-1][-1][0] != g
            needs = tokens + new_prompt * len(groups.prompts[g])
            if not packs or size + needs > config.micro_tokens:
                packs.append([])
                needs, size = tokens + len(groups.prompts[g]), 0
            packs[-1].append((g, i))
            size += needs
    for members in common.in_step(packs):
        if members is None:  # other ranks have more
            yield [], common.pack([[0]], [[0]])
            continue
        there = sorted({g for g, _ in members})
        prompts, responses = [groups.prompts[g] for g in there], [groups.rollouts[g][i].tokens for g, i in members]
        yield members, common.pack(prompts, responses, [there.index(g) for g, _ in members])


def policy_backward(model, reference, groups: Groups, chosen: list[int], config: Config) -> dict:
    """Add the gradient of the policy loss on the `chosen` groups (indices on this rank) to the model's.

    Every token's loss is divided once, by a count over the whole mini-batch and all ranks (see `denominator`).
    -> sums and maxima over this rank's tokens.
    """
    counted = [len(r.tokens) for g in chosen for r in groups.rollouts[g] if has_loss(r, config)]
    n_tokens, n_rollouts = common.all_sum(sum(counted), len(counted))
    names = "loss clip_fraction clipped_low clipped_high ratio kl entropy mismatch scored ratio_max mismatch_max".split()
    sums = dict.fromkeys(names, 0.0)
    for members, packed in micro_batches(groups, chosen, config):
        if not members:
            common.idle_pass(model, reference if config.kl else None)
            continue
        to = packed.tokens.device
        advantage = torch.stack([groups.advantages[g, i] for g, i in members]).to(to)[packed.sequence]  # (R,)
        ref_logp = None
        if config.kl:
            with torch.no_grad():
                ref_logp = common.response_logprobs(reference, packed, config.temperature)[0]
        logp, _, entropy = common.response_logprobs(model, packed, config.temperature)  # (R,)
        old_logp = torch.cat([groups.old_logp[g][i] for g, i in members]).to(to) if groups.old_logp else logp.detach()
        sampled = torch.tensor([x for g, i in members for x in groups.rollouts[g][i].logprobs]).to(to)  # (R,)
        loss, metrics = policy_loss(
            logp, old_logp, advantage, ref_logp, config.clip_low, config.clip_high, config.dual_clip, config.kl, sampled, config.tis
        )
        lengths = torch.bincount(packed.sequence, minlength=len(members))  # (S,)
        loss = loss / denominator(config.loss, lengths, packed.sequence, n_tokens, n_rollouts, config.max_response)
        loss.sum().backward()
        apart = mismatch_sums(logp, sampled)
        metrics |= {"loss": loss.detach(), "entropy": entropy, "scored": torch.ones_like(logp)}
        for name, value in metrics.items():
            sums[name] += float(value.sum())
        sums["mismatch"] += apart["mismatch"]
        sums["mismatch_max"] = max(sums["mismatch_max"], apart["mismatch_max"])
        sums["ratio_max"] = max(sums["ratio_max"], float(metrics["ratio"].max()))
    return sums


def mini_batch(groups: Groups, m: int, config: Config) -> list[int]:
    """This rank's groups of mini-batch m: the step's groups are cut into equal stretches, each group stays whole."""
    stretch = stretch_of(m, groups, config)
    return [g for g, place in enumerate(groups.place) if place in stretch]


def stretch_of(m: int, groups: Groups, config: Config) -> range:
    total = config.prompts if groups.kept is None else groups.kept
    return range(total * m // config.mini_batches, total * (m + 1) // config.mini_batches)


def deal_out(groups: Groups, config: Config) -> Groups:
    """Before the update, whole groups change ranks so that each has about as many tokens to compute in every mini-batch; else
    all wait for the one whose responses came out longest. What only the log wanted stays behind."""
    if common.world() == 1:
        return groups
    costs = {}  # place -> tokens to compute
    for g, place in enumerate(groups.place):
        chosen = to_compute(groups, g, config)
        costs[place] = sum(len(groups.rollouts[g][i].tokens) for i in chosen) + bool(chosen) * len(groups.prompts[g])
    costs = {place: cost for share in common.gather_objects(costs) for place, cost in share.items()}
    to = {}  # place -> rank
    for m in range(config.mini_batches):
        stretch = stretch_of(m, groups, config)
        to.update(zip(stretch, common.deal([costs[place] for place in stretch], common.world())))
    rows = list(zip(groups.place, groups.prompts, groups.rollouts, groups.advantages))
    received = common.exchange([[row for row in rows if to[row[0]] == r] for r in range(common.world())])
    rows = sorted((row for share in received for row in share), key=lambda row: row[0])
    place, prompts, rollouts, advantages = map(list, zip(*rows)) if rows else ([], [], [], [torch.empty(0)])
    return Groups([], prompts, rollouts, place, advantages=torch.stack(advantages), kept=groups.kept)


def update(model, reference, optimizer, groups: Groups, config: Config) -> dict:
    """One optimizer step per mini-batch -> metrics of the step, over all ranks."""
    old_logprobs(model, groups, config)
    sums, norms = [], []
    for m in range(config.mini_batches):
        sums.append(policy_backward(model, reference, groups, mini_batch(groups, m, config), config))
        norms.append(common.clipped_step(model, optimizer, config.grad_clip))
    return update_metrics(sums, norms)


def collect(sampler: Sampler, problems: list[Problem], encoding, config: Config, step: int, own_reward=None) -> tuple[Groups, dict]:
    """A step's groups with rewards and advantages -> (groups, seconds of sampling and scoring).

    With dynamic sampling (DAPO, Yu et al. 2025) further batches follow until enough groups have mixed rewards. Each
    (step, round) has a stretch of the problems' order to itself, and the decision is on a count over all ranks.
    """
    rounds, seconds, most = [], {"sample": 0.0, "score": 0.0}, config.dynamic_sampling + 1
    for place in range(step * most, (step + 1) * most):
        clock = time.time()
        batch = [problems[i] for i in common.batch_indices(len(problems), config.prompts, place, config.seed, "grpo")]
        groups = roll_out(sampler, batch, encoding, config, place)
        seconds["sample"] += time.time() - clock
        clock = time.time()
        score(groups, encoding, config, own_reward)
        groups.advantages = group_advantages(groups.rewards, config.normalize)
        groups.place = [len(rounds) * config.prompts + i for i in groups.place]
        rounds.append(groups)
        seconds["score"] += time.time() - clock
        if common.all_sum(sum(int((g.advantages != 0).any(1).sum()) for g in rounds))[0] >= config.prompts:
            break
    return (join(rounds) if config.dynamic_sampling else rounds[0]), seconds


def join(rounds: list[Groups]) -> Groups:
    lists = {name: sum((getattr(g, name) for g in rounds), []) for name in ("problems", "prompts", "rollouts", "place", "texts")}
    tensors = {name: torch.cat([getattr(g, name) for g in rounds]) for name in ("rewards", "right", "advantages")}
    return Groups(**lists, **tensors)


def keep_mixed(groups: Groups, config: Config) -> Groups:
    """The first `prompts` groups of mixed rewards, in the step's order over all ranks; fewer where there are not so many."""
    mixed = [g for g, advantages in enumerate(groups.advantages) if (advantages != 0).any()]
    order = sorted(sum(common.gather_objects([groups.place[g] for g in mixed]), []))[: config.prompts]
    kept = [g for g in mixed if groups.place[g] in order]
    lists = {name: [getattr(groups, name)[g] for g in kept] for name in ("problems", "prompts", "rollouts", "texts")}
    tensors = {name: getattr(groups, name)[kept] for name in ("rewards", "right", "advantages")}
    return Groups(**lists, **tensors, place=[order.index(groups.place[g]) for g in kept], kept=len(order))


def validate(sampler: Sampler, problems: list[Problem], encoding, config: Config, step: int, own_reward=None) -> dict:
    """One greedy response to each held-out problem, as the authors validated."""
    greedy = replace(config, n=1, temperature=0.0)
    groups = roll_out(sampler, problems, encoding, greedy, step)
    score(groups, encoding, greedy, own_reward)
    rewards, right = common.all_sum(float(groups.rewards.double().sum()), int(groups.right.sum()))
    return {"val_reward": rewards / len(problems), "val_accuracy": right / len(problems)}


def load_prompts(config, encoding) -> tuple[list[Problem], list[Problem]]:
    """The problems to train on and the held-out ones, those whose prompts fit."""
    found = train_and_val(config.data, config.val if config.val_every else 0)
    train, val = ([p for p in some if len(encoding.encode_ordinary(prompt_text(p))) <= config.max_prompt] for some in found)
    check(bool(train), f"every prompt of {config.data} is over --max_prompt {config.max_prompt} tokens")
    check(bool(val) or not config.val_every, f"{config.data} has no problem to hold out for validation; give --val_every 0")
    print0(f"{counted(config.data, 'train', found[0])}; {len(found[0]) - len(train):,} over {config.max_prompt} prompt tokens left out")
    if val:
        print0(f"validation on {len(val):,} held-out problems every {config.val_every} steps")
    return train, val


def check_config(config) -> None:
    check(config.normalize in ("std", "none"), f"--normalize {config.normalize}: choose std or none")
    losses = ("token-mean", "sequence-mean", "constant", "micro-mean")
    check(config.loss in losses, f"--loss {config.loss}: choose {', '.join(losses)}")
    check(config.n >= 2, f"--n {config.n}: a group needs at least 2 rollouts to compare")
    check(config.prompts % config.mini_batches == 0, f"--prompts {config.prompts} is not a multiple of --mini_batches {config.mini_batches}")
    check(config.temperature > 0, f"--temperature {config.temperature}: greedy rollouts of a group are all the same; give more than 0")
    check(0 <= config.format_score < 1, f"--format_score {config.format_score}: a wrong answer pays less than a right one; give 0 up to below 1")
    check(not config.ref_every or config.kl > 0, f"--ref_every {config.ref_every}: there is no reference without --kl; give --kl 0.001")
    recomputed = config.recompute_old or config.mini_batches == 1
    check(not config.tis or recomputed, f"--tis {config.tis} compares the trainer's log-probs with the sampler's; give --recompute_old")
    check(config.tis >= 0, f"--tis {config.tis}: the largest weight of a token, usually 2; 0 is off")


def main(config: Config) -> None:
    check_config(config)
    out = common.output_path(config, "rl")
    model, parent = common.open_parent(config)
    if common.is_finished(out, config, parent):
        return
    common.check_length(model, config.max_prompt + config.max_response)
    encoding = common.open_tokenizer(parent, model)
    problems, held_out = load_prompts(config, encoding)
    own_reward = load_reward(config.reward, problems[0])
    reference = common.prepare(common.open_parent(config)[0].requires_grad_(False), config) if config.kl else None
    common.prepare(model, config)
    optimizer = common.adamw(model, config.lr, (0.9, config.beta2), config.weight_decay)
    print0(
        f"{config.steps} steps of {config.prompts} prompts x {config.n} = {config.prompts * config.n} rollouts, {config.mini_batches} updates each; "
        f"{config.steps * config.prompts / len(problems):.1f} passes"
    )
    resume = common.Resume(out, config, model, optimizer, reference=reference if config.ref_every else None)
    start = resume.load()
    log = StepLog(out, start, config)
    sampler = Sampler(model, config.slots, memory=config.kv_memory)
    for step in resume.steps(start, config.steps):
        common.phase(f"step {step + 1}, sampling")
        sampler.refresh(model)
        groups, seconds = collect(sampler, problems, encoding, config, step, own_reward)
        metrics, samples = rollout_metrics(groups, config), log.samples(groups, step)
        if config.dynamic_sampling:
            groups = keep_mixed(groups, config)
            metrics["kept"] = groups.kept
        common.phase(f"step {step + 1}, update")
        clock = time.time()
        metrics |= update(model, reference, optimizer, deal_out(groups, config), config)
        seconds["update"] = time.time() - clock

        done = step + 1
        if config.ref_every and done % config.ref_every == 0:
            common.put_weights(reference, common.own_weights(model))
        if config.val_every and (done % config.val_every == 0 or done == config.steps):
            common.phase(f"step {done}, validation")
            sampler.refresh(model)
            metrics |= validate(sampler, held_out, encoding, config, step, own_reward)
        log.write(done, metrics, seconds, samples)
    resume.finish(out, common.make_facts(config, common.lineage(parent, "rl"), config.steps, parent))


if __name__ == "__main__":
    common.launch(main, Config, PRESETS, SETTINGS, AFTER_SFT)
