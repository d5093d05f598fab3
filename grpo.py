"""Reinforcement learning with verifiable rewards: GRPO from any checkpoint, M_t -> M_t^RL.

    python grpo.py --ckpt out/toy/3.6M.pt
    torchrun --nproc_per_node=8 grpo.py --ckpt out/1B/4B.pt

A step of `train` samples n rollouts of every prompt, grades each and compares each with its own
group (draw_groups: roll_out, score, group_advantages), and makes a few clipped policy-gradient
updates (update: policy_backward, policy_loss). Other flags are in plumbing/rl_options.py
and prepare.py. `--setting written` is the paper's Tables 1 and 2, and `run` the authors' code;
`controlled` has neither format score nor KL, which confound the comparison (docs/settings.md).
"""

import gc
import time
from dataclasses import dataclass, field
from functools import partial

import torch

from data.grader import reward
from data.lock import exclusive
from data.problems import Problem, prompt_text
from plumbing import packs, presets
from plumbing.batches import batch_indices, idle_pass, reference_logprobs, response_logprobs
from plumbing.flags import launch
from plumbing.identity import lineage, make_facts
from plumbing.metrics import StepLog, TokenSums, update_metrics
from plumbing.optimizer import adamw, clipped_step
from plumbing.other_losses import has_other_loss, other_advantages, other_loss
from plumbing.ranks import all_sums
from plumbing.resume import Resume, collecting_by_hand, stop_signal
from plumbing.rl_options import RLOptions, after_update, collect
from plumbing.rl_setup import Run, print_plan, set_up
from plumbing.rollouts import sample_my_share, text_of
from sampler import Rollout


@dataclass(frozen=True, kw_only=True)
class Config(RLOptions):
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
    # reward
    format_score: float = 0.0  # for a wrong answer in exactly one box (gsm8k: or one line ####)
    normalize: str = "std"  # group advantages are divided by: std, mean, none; or loo, pass@4, ...
    # loss
    loss: str = "token-mean"  # or sequence-mean, constant, micro-mean, see `denominator`; or cispo
    clip_low: float = 0.2  # a ratio of new to old probability below 1 - clip_low is clipped
    clip_high: float = 0.2  # and one above 1 + clip_high
    dual_clip: float = 3.0  # bound on the ratio where the advantage is negative; 0 is off
    kl: float = 0.0  # weight of k3, an estimate of KL(policy || reference = ckpt); 0 is none
    # optimizer
    mini_batches: int = 4  # updates in one pass over a step's rollouts, which they share evenly
    lr: float = 1e-6  # constant


PRESETS = presets.RL  # other scales; the defaults above are 1B's
SETTINGS = presets.RL_SETTINGS
AFTER_SFT = presets.RL_AFTER_SFT  # the authors' RL after SFT had other values


@dataclass
class Groups:
    """The groups of one step on this rank, P problems x n rollouts, and what each stage adds."""

    problems: list[Problem]
    prompts: list[list[int]]  # P token lists
    rollouts: list[list[Rollout]]  # P x n
    places: list[int]  # P positions in the step's whole batch, which decide the mini-batch
    texts: list[list[str]] | None = None  # P x n decoded responses
    rewards: torch.Tensor | None = None  # (P, n)
    right: torch.Tensor | None = None  # (P, n) the grader's verdicts
    advantages: torch.Tensor | None = None  # (P, n)
    kept: int | None = None  # how many dynamic sampling kept, over all ranks; None without it
    old_logp: list[list[torch.Tensor]] | None = None  # P x n tensors (tokens,); None: one update
    seconds: dict[str, float] = field(default_factory=dict)  # what took how long


def roll_out(sampler, problems: list[Problem], encoding, config: Config, step: int) -> Groups:
    """Sample n responses to each of this rank's share of the problems."""
    prompts = [encoding.encode_ordinary(prompt_text(problem)) for problem in problems]
    sampling = dict(n=config.n, max_new_tokens=config.max_response, temperature=config.temperature)
    sampling |= dict(seed=config.seed, step=step)
    places, rollouts = sample_my_share(sampler, problems, prompts, encoding, **sampling)
    return Groups([problems[i] for i in places], [prompts[i] for i in places], rollouts, places)


def score(groups: Groups, encoding, config: Config, own_reward=None) -> None:
    """Grade every response: 1 if right, format_score if wrong but in the only box, else 0.

    `own_reward` (--reward) replaces these as the rewards; `right` stays the grader's verdict.
    """
    groups.texts = []
    rewards = []
    own_rewards = []
    for problem, rollouts in zip(groups.problems, groups.rollouts):
        texts = [text_of(rollout, encoding) for rollout in rollouts]
        groups.texts.append(texts)
        for text, rollout in zip(texts, rollouts):
            rewards.append(reward(text, problem.answer, problem.kind, config.format_score))
            if own_reward:
                own_rewards.append(own_reward(text, problem, rollout))
    shape = (len(groups.problems), config.n)  # a rank may have no problem
    groups.right = torch.tensor(rewards, dtype=torch.float64).view(shape) == 1
    to_learn = own_rewards if own_reward else rewards
    groups.rewards = torch.tensor(to_learn, dtype=torch.float32).view(shape)


def group_advantages(rewards: torch.Tensor, normalize: str = "std") -> torch.Tensor:
    """rewards (P, n) -> advantages (P, n): how much better than its own group each rollout was.

    "std": (r - mean) / (unbiased std + 1e-6), as in GRPO (Shao et al. 2024).
    "none": r - mean, as in Dr. GRPO (Liu et al. 2025).
    "mean": (r - mean) / (mean + 1e-6), as in MaxRL (2602.02710): rare successes weigh most.
    A group whose rewards are all equal gets exactly 0, except with "pass@1" (other_advantages).
    """
    if normalize not in ("std", "none", "mean"):  # "loo", "pass@4"
        return other_advantages(rewards, normalize)
    centred = rewards - rewards.mean(1, keepdim=True)
    centred[(rewards == rewards[:, :1]).all(1)] = 0.0  # not the rounding error of the mean
    if normalize == "std" and rewards.shape[1] > 1 and len(rewards):
        centred = centred / (rewards.std(1, keepdim=True) + 1e-6)
    if normalize == "mean":
        centred = centred / (rewards.mean(1, keepdim=True) + 1e-6)
    return centred


def policy_loss(
    logp, old_logp, advantage, ref_logp=None, clip_low=0.2, clip_high=0.2, dual_clip=3.0,
    kl_coef=0.0, sampler_logp=None, tis=0.0,
):  # fmt: skip
    """The clipped loss of every response token; tensors are (R,) -> (loss, metrics), all (R,).

    ratio = exp(logp - old_logp)
    loss = max(-A ratio, -A clip(ratio, 1 - clip_low, 1 + clip_high))      PPO; DAPO: clip_high 0.28
    where A < 0 also: loss <= -A dual_clip                          dual clip (Ye et al. 2020)
    times min(exp(old_logp - sampler_logp), tis)     truncated importance sampling (Yao et al. 2025)
    plus kl_coef * k3, k3 = exp(d) - d - 1, d = ref_logp - logp     (Schulman 2020), as in GRPO
    Differences of log-probs are cut at +-20 before exp, and k3 at 10, as in the authors' trainer.
    """
    ratio = (logp - old_logp).clamp(-20, 20).exp()
    unclipped = -advantage * ratio
    clipped = -advantage * ratio.clamp(1 - clip_low, 1 + clip_high)
    loss = torch.maximum(unclipped, clipped)
    if dual_clip:
        loss = torch.where(advantage < 0, torch.minimum(loss, -advantage * dual_clip), loss)
    if tis:
        loss = loss * (old_logp - sampler_logp).clamp(-20, 20).exp().clamp(max=tis)
    bites = clipped > unclipped
    metrics = {"clipped_low": bites & (advantage < 0), "clipped_high": bites & (advantage > 0)}
    metrics |= {"ratio": ratio, "clip_fraction": bites}
    if ref_logp is not None:
        d = (ref_logp - logp).clamp(-20, 20)
        k3 = (d.exp() - d - 1).clamp(max=10)
        loss = loss + kl_coef * k3
        metrics["kl"] = k3
    return loss, {name: value.detach().float() for name, value in metrics.items()}


def denominator(kind: str, lengths, sequence, n_tokens, n_rollouts, max_response):
    """What the loss of each token is divided by before all are summed: a number, or (R,).

    lengths (S,) tokens of a pack's responses, sequence (R,) the response of each token. The counts
    are of the mini-batch over all ranks, so only micro-mean depends on ranks and micro_tokens.
    """
    if kind == "sequence-mean":  # every rollout weighs the same: GRPO (Shao et al. 2024)
        return n_rollouts * lengths[sequence]
    if kind == "constant":  # it has no length in it: Dr. GRPO (Liu et al. 2025)
        return n_rollouts * max_response
    if kind == "micro-mean":  # the authors' code: a token mean per pack, weighed by its rollouts
        return n_rollouts * lengths.sum() / len(lengths)
    return n_tokens  # every token weighs the same: DAPO (Yu et al. 2025)


def update(run: Run, optimizer, step: int, groups: Groups) -> dict:
    """One optimizer step per mini-batch -> metrics of the step, over all ranks."""
    config = run.config
    packs.old_logprobs(run.model, groups, config)  # sets groups.old_logp, where it is needed
    sums = []  # of each update: a metric's name -> its sum over this rank's tokens
    highest = []  # of each update: a metric's name -> its largest value
    norms = []
    for m in range(config.updates):
        chosen = mini_batch(groups, m, config)
        token_sums, largest = policy_backward(run.model, run.reference, groups, chosen, config)
        sums.append(token_sums)
        highest.append(largest)
        norms.append(clipped_step(run.model, optimizer, config.grad_clip))
    return update_metrics(sums, highest, norms)


def mini_batch(groups: Groups, m: int, config: Config) -> list[int]:
    """This rank's groups (indices) for update m, one of `mini_batches` equal parts of the step."""
    stretch = packs.stretch_of(m % config.mini_batches, groups, config)
    return [g for g, place in enumerate(groups.places) if place in stretch]


def policy_backward(model, reference, groups: Groups, chosen: list[int], config: Config):
    """Add the gradient of the loss on the `chosen` groups (indices on this rank) to the model's.

    The loss of every token is divided once, by a count over the whole mini-batch and all ranks.
    -> (sums over this rank's tokens, largest values among them), two dicts.
    """
    counted = [r for g in chosen for r in groups.rollouts[g] if packs.has_loss(r, config)]
    n_tokens = sum(len(r.tokens) for r in counted)
    total = all_sums({"tokens": n_tokens, "rollouts": len(counted)})
    token_sums = TokenSums()
    # A rollout with advantage 0 counts above, but is computed only where KL and the like need it.
    for members in packs.packs_of_groups(groups, chosen, config):  # pairs (group, rollout)
        if members is None:  # other ranks go on, and FSDP needs all of them
            idle_pass(model, reference)
            continue
        packed = packs.pack_members(groups, members)
        ref_logp = reference_logprobs(reference, packed, config.temperature)  # (R,) or None
        logp, _, entropy = response_logprobs(model, packed, config.temperature)  # (R,)
        advantage, sampler_logp, old_logp = packs.token_values(groups, members, packed)  # (R,) each
        if old_logp is None:  # the policy has not moved since the rollouts: the ratio is 1
            old_logp = logp.detach()
        loss, metrics = policy_loss(
            logp, old_logp, advantage, ref_logp, config.clip_low, config.clip_high,
            config.dual_clip, config.kl, sampler_logp, config.tis,
        )  # fmt: skip
        if has_other_loss(config):  # GSPO, CISPO, an entropy bonus
            loss, clipping = other_loss(loss, logp, old_logp, advantage, entropy, packed, config)
            metrics |= clipping
        loss = loss / denominator(
            config.loss, packed.lengths, packed.sequence, total["tokens"], total["rollouts"],
            config.max_response,
        )  # fmt: skip
        loss.sum().backward()
        mismatch = (logp.detach() - sampler_logp).abs()  # of trainer and sampler
        metrics |= {"loss": loss, "entropy": entropy, "mismatch": mismatch}
        token_sums.add(metrics | {"scored": torch.ones_like(logp)})
    return token_sums.read()


def sample_and_score(run: Run, problems: list[Problem], config: Config, step: int) -> Groups:
    """Sample responses to these problems, grade them, and time both."""
    start = time.time()
    groups = roll_out(run.sampler, problems, run.encoding, config, step)
    groups.seconds["sample"] = time.time() - start
    score(groups, run.encoding, config, run.own_reward)
    groups.seconds["score"] = time.time() - start - groups.seconds["sample"]
    return groups


def draw_groups(run: Run, step: int) -> Groups:
    """A batch of problems, as a function of (seed, step), with rewards and advantages."""
    config = run.config
    batch = batch_indices(len(run.problems), config.prompts, step, config.seed, "grpo")
    groups = sample_and_score(run, [run.problems[i] for i in batch], config, step)
    groups.advantages = group_advantages(groups.rewards, config.normalize)
    return groups


def train(run: Run, recipe: str, optimizers: list, update_of_step, before_step=None) -> None:
    """The steps of a run: sample and score, update, log, save.

    `collect` (plumbing/rl_options.py) hands the weights to the sampler and calls draw_groups.
    update_of_step(step, groups) -> metrics: `update` above, or the one of parallel.py.
    before_step(step) -> seconds taken: the SFT steps of parallel.py's other modes.
    """
    config = run.config
    moving = run.reference if config.ref_every else None  # a reference to save with the policy
    resume = Resume(run.out, config, run.model, *optimizers, origin=run.parent, reference=moving)
    start = resume.load()
    log = StepLog(run.out, start, config)
    with stop_signal() as stop, collecting_by_hand():
        for step in range(start, config.steps):
            sft_seconds = before_step(step) if before_step else 0.0
            groups, metrics, samples = collect(run, draw_groups, step, log)
            clock = time.time()
            metrics |= update_of_step(step, groups)
            seconds = groups.seconds | {"update": sft_seconds + time.time() - clock}

            done = step + 1
            metrics |= after_update(run, sample_and_score, done)
            log.write(done, metrics, seconds, samples)
            stopping = stop.asked()
            if done < config.steps and (stopping or done % config.save_every == 0):
                resume.save(done, leave=stopping)
            gc.collect()  # only here, on all ranks at once: each waits for the slowest
    facts = make_facts(config, lineage(run.parent, recipe), config.steps, run.parent)
    resume.finish(run.out, facts)


@exclusive
def main(config: Config) -> None:
    run = set_up(config, "rl")
    if run is None:
        return
    optimizer = adamw(run.model, config.lr, (0.9, config.beta2), config.weight_decay)
    print_plan(run)
    train(run, "rl", [optimizer], partial(update, run, optimizer))


if __name__ == "__main__":
    launch(main, Config, PRESETS, SETTINGS, AFTER_SFT)
