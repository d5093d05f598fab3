"""What grpo.py and parallel.py can do besides plain GRPO, each behind a flag of its own.

Dynamic sampling (--dynamic_sampling), validation (--val_every), and, with several ranks, groups
that change ranks so that all have about as much to compute.

Groups are those of grpo.py, and a run is plumbing/rl_setup.py's.
"""

from dataclasses import dataclass, replace

import torch

from data.held_out import train_and_val
from data.problems import Problem, prompt_text, with_kind
from plumbing.examples import print_set
from plumbing.flags import check
from plumbing.metrics import StepLog, rollout_metrics
from plumbing.packs import cost_of, stretch_of
from plumbing.prepare import TrainingFlags
from plumbing.ranks import (
    all_sum,
    all_sums,
    deal,
    exchange,
    gather_objects,
    merge_dicts,
    print0,
    world,
)
from plumbing.rl_checks import check_config
from plumbing.sharding import own_weights, put_weights, refresh
from plumbing.watchdog import phase

LISTS = ("problems", "prompts", "rollouts", "texts")  # what Groups hold of each group,
TENSORS = ("rewards", "right", "advantages")  # when they have been scored


@dataclass(frozen=True, kw_only=True)
class RLOptions(TrainingFlags):
    kind: str = ""  # how answers are graded: gsm8k, math or ordered; default as the problems say
    reward: str = ""  # your own, FILE.py:FUNCTION of (response, problem); random, format: controls
    dynamic_sampling: int = 0  # most extra batches drawn until `prompts` groups have mixed rewards
    mask_truncated: bool = False  # cut rollouts carry no loss; they count in their group's mean
    recompute_old: bool = True  # old log-probs by the trainer; off: the sampler's (equal in fp32)
    tis: float = 0.0  # weigh tokens by trainer / sampler probability, at most this; 0 is off
    ref_every: int = 0  # steps after which the policy becomes the reference; 0: it stays the start
    val: int = 1_000  # held-out problems, one greedy response each; at most a quarter of a set
    val_every: int = 0  # steps between validations; 0 is none, and holds nothing out
    # cost only
    slots: int = 256  # rollouts decoded at a time, per rank
    kv_memory: float = 0.4  # share of a GPU's free memory for keys and values while sampling
    samples_every: int = 10  # steps between decoded samples in the log
    save_rollouts: bool = False  # all rollouts, with log-probs, in <name>.rollouts.jsonl

    def check(self) -> None:
        """Raise UserError for what cannot work."""
        check_config(self)


def load_prompts(config, encoding) -> tuple[list[Problem], list[Problem]]:
    """The problems to train on and the held-out ones, those whose prompts fit."""

    def fits(problem: Problem) -> bool:
        return len(encoding.encode_ordinary(prompt_text(problem))) <= config.max_prompt

    n_held_out = config.val if config.val_every else 0
    all_train, all_val = train_and_val(config.data, n_held_out)
    all_train = with_kind(all_train, config.kind)
    train = [problem for problem in all_train if fits(problem)]
    val = [problem for problem in with_kind(all_val, config.kind) if fits(problem)]
    too_long = f"every prompt of {config.data} is over --max_prompt {config.max_prompt} tokens"
    check(bool(train), too_long)
    nothing_held_out = (
        f"{config.data} has no problem to hold out for validation; give --val_every 0"
    )
    check(bool(val) or not config.val_every, nothing_held_out)
    left_out = f"; {len(all_train) - len(train):,} over {config.max_prompt} prompt tokens left out"
    print_set(config.data, all_train, encoding, left_out)
    if val:
        print0(f"validation on {len(val):,} held-out problems every {config.val_every} steps")
    return train, val


def collect(run, draw_groups, step: int, log: StepLog):
    """The groups that this rank learns from -> (groups, metrics of all rollouts, samples to log).

    `draw_groups(run, step)` is grpo.py's.
    """
    config = run.config
    phase(f"step {step + 1}, sampling")
    refresh(run.sampler.model, run.model)
    if config.dynamic_sampling:
        groups = draw_until_mixed(draw_groups, run, step)
    else:
        groups = draw_groups(run, step)
    metrics = rollout_metrics(groups, config)
    samples = log.samples(groups, step)
    if config.dynamic_sampling:
        groups = keep_mixed(groups, config)
        metrics["kept"] = groups.kept
    phase(f"step {step + 1}, update")
    return balance_ranks(groups, config), metrics, samples


def after_update(run, score_rollouts, done: int) -> dict:
    """Every so many steps the policy becomes the reference, or is validated -> more metrics."""
    config = run.config
    if config.ref_every and done % config.ref_every == 0:
        put_weights(run.reference, own_weights(run.model))
    if config.val_every and (done % config.val_every == 0 or done == config.steps):
        phase(f"step {done}, validation")
        refresh(run.sampler.model, run.model)
        return validate(score_rollouts, run, done - 1)
    return {}


# ------------------------------------------------------------------------- dynamic sampling


def draw_until_mixed(draw_groups, run, step: int):
    """Draw more batches until enough groups have mixed rewards (DAPO, Yu et al. 2025).

    `draw_groups(run, draw)` is grpo.py's, and each step has --dynamic_sampling + 1 draws to itself:
    so each draw has its own stretch of the problems' order, and its own random numbers. The
    decision is on a count over all ranks. -> the groups of all draws together
    """
    config = run.config
    most = config.dynamic_sampling + 1
    draws = []
    n_mixed = 0
    for draw in range(step * most, (step + 1) * most):
        groups = draw_groups(run, draw)
        groups.place = [len(draws) * config.prompts + place for place in groups.place]
        draws.append(groups)
        n_mixed += int(is_mixed(groups).sum())
        if all_sum(n_mixed) >= config.prompts:
            break
    return join(draws)


def is_mixed(groups) -> torch.Tensor:
    """(P,) whether the rewards of a group differ: only such groups teach anything."""
    return (groups.advantages != 0).any(1)


def join(draws: list):
    """The groups of several draws as those of one."""
    first = draws[0]
    joined = {"place": [], **{name: [] for name in LISTS}}
    seconds = dict.fromkeys(first.seconds, 0.0)
    for groups in draws:
        for name in joined:
            joined[name].extend(getattr(groups, name))
        for name in seconds:
            seconds[name] += groups.seconds[name]
    for name in TENSORS:
        joined[name] = torch.cat([getattr(groups, name) for groups in draws])
    return replace(first, seconds=seconds, **joined)


def keep_mixed(groups, config):
    """The first `prompts` groups of mixed rewards, in the step's order over all ranks.

    They are fewer where there are not so many. Their places are counted anew.
    """
    mixed = is_mixed(groups).nonzero()[:, 0].tolist()
    everywhere = []
    for places in gather_objects([groups.place[g] for g in mixed]):
        everywhere.extend(places)
    order = sorted(everywhere)[: config.prompts]
    kept = [g for g in mixed if groups.place[g] in order]
    chosen = {"place": [order.index(groups.place[g]) for g in kept]}
    for name in LISTS:
        values = getattr(groups, name)
        chosen[name] = [values[g] for g in kept]
    for name in TENSORS:
        chosen[name] = getattr(groups, name)[kept]
    return replace(groups, kept=len(order), **chosen)


# ------------------------------------------------------------------------- balancing ranks


def balance_ranks(groups, config):
    """Before the update, whole groups change ranks, so that all have about as many tokens.

    They do in every mini-batch. Otherwise all would wait for the rank whose responses came out
    longest. What only the log wanted stays behind.
    """
    if world() == 1:
        return groups
    mine = {}  # place -> tokens to compute
    for g, place in enumerate(groups.place):
        mine[place] = cost_of(groups, g, config)
    costs = merge_dicts(mine)
    to = {}  # place -> rank
    for m in range(config.mini_batches):
        stretch = stretch_of(m, groups, config)
        to.update(zip(stretch, deal([costs[place] for place in stretch], world())))
    parcels = [[] for _ in range(world())]
    for row in zip(groups.place, groups.prompts, groups.rollouts, groups.advantages):
        parcels[to[row[0]]].append(row)
    received = []
    for parcel in exchange(parcels):
        received.extend(parcel)
    received.sort(key=lambda row: row[0])
    advantages = torch.empty(0, config.n)
    if received:
        advantages = torch.stack([row[3] for row in received])
    return replace(
        groups,
        problems=[],
        texts=None,
        rewards=None,
        right=None,
        place=[row[0] for row in received],
        prompts=[row[1] for row in received],
        rollouts=[row[2] for row in received],
        advantages=advantages,
    )


# ------------------------------------------------------------------------- validation


def validate(score_rollouts, run, step: int) -> dict:
    """One greedy response to each held-out problem, as the authors validated.

    `score_rollouts(run, problems, config, step)` is grpo.py's.
    """
    greedy = replace(run.config, n=1, temperature=0.0)
    groups = score_rollouts(run, run.held_out, greedy, step)
    rewards = float(groups.rewards.double().sum())
    total = all_sums({"rewards": rewards, "right": int(groups.right.sum())})
    n = len(run.held_out)
    return {"val_reward": total["rewards"] / n, "val_accuracy": total["right"] / n}
