"""What grpo.py and parallel.py can do besides plain GRPO, each behind a flag of its own.

Validation (--val_every), and, with several ranks, groups that change ranks so that all have about
as much to compute. which_groups.py, copies.py and other_losses.py have the other flags.

Groups are those of grpo.py, and a run is plumbing/rl_setup.py's.
"""

from dataclasses import dataclass, replace

import torch

from data.held_out import train_and_val
from data.problem import Problem, with_kind
from data.problems import prompt_text
from plumbing.copies import keep_copy, steps_to_keep
from plumbing.examples import print_set
from plumbing.flags import check
from plumbing.metrics import StepLog, rollout_metrics
from plumbing.packs import cost_of, stretch_of
from plumbing.prepare import TrainingFlags
from plumbing.ranks import all_sums, deal, exchange, merge_dicts, print0, world
from plumbing.rl_checks import check_config
from plumbing.sharding import own_weights, put_weights, refresh
from plumbing.watchdog import phase
from plumbing.which_groups import draw_probed, draw_until_mixed, keep_mixed


@dataclass(frozen=True, kw_only=True)
class RLOptions(TrainingFlags):
    # rollouts
    dynamic_sampling: int = 0  # most extra batches drawn until `prompts` groups have mixed rewards
    probe: int = 0  # first so many rollouts of twice the problems; those of mixed rewards get n
    # reward
    kind: str = ""  # how answers are graded: gsm8k, math or ordered; default as the problems say
    reward: str = ""  # your own, FILE.py:FUNCTION of (response, problem); random, format: controls
    # loss
    ratio: str = "token"  # or sequence: one of new to old probability for the whole response (GSPO)
    entropy: float = 0.0  # weight of a bonus for the entropy of the next token; 0 is none
    mask_truncated: bool = False  # cut rollouts carry no loss; they count in their group's mean
    recompute_old: bool = True  # old log-probs by the trainer; off: the sampler's (equal in fp32)
    tis: float = 0.0  # weigh tokens by trainer / sampler probability, at most this; 0 is off
    ref_every: int = 0  # steps after which the policy becomes the reference; 0: it stays the start
    # optimizer
    epochs: int = 1  # passes over the rollouts of a step: updates = epochs x mini_batches
    # cost
    slots: int = 256  # rollouts decoded at a time, per rank
    kv_memory: float = 0.4  # share of a GPU's free memory for keys and values while sampling
    # log
    val: int = 1_000  # held-out problems, one greedy response each; at most a quarter of a set
    val_every: int = 0  # steps between validations; 0 is none, and holds nothing out
    keep: str = ""  # steps after which a copy is kept, as in 50,100 (<name>.step50.pt)
    samples_every: int = 10  # steps between decoded samples in the log
    save_rollouts: bool = False  # all rollouts, with log-probs, in <name>.rollouts.jsonl

    @property
    def updates(self) -> int:
        """Optimizer steps in a step."""
        return self.epochs * self.mini_batches

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
    elif config.probe:
        groups = draw_probed(draw_groups, run, step)
    else:
        groups = draw_groups(run, step)
    metrics = rollout_metrics(groups, config)
    samples = log.samples(groups, step)
    if config.dynamic_sampling:
        groups = keep_mixed(groups, config)
        metrics["kept"] = groups.kept
    phase(f"step {step + 1}, update")
    return balance_ranks(groups, config), metrics, samples


def after_update(run, sample_and_score, done: int) -> dict:
    """Every so many steps the policy becomes the reference, is kept or validated -> metrics."""
    config = run.config
    if done in steps_to_keep(config):
        keep_copy(run, done)
    if config.ref_every and done % config.ref_every == 0:
        put_weights(run.reference, own_weights(run.model))
    if config.val_every and (done % config.val_every == 0 or done == config.steps):
        phase(f"step {done}, validation")
        refresh(run.sampler.model, run.model)
        return validate(sample_and_score, run, done - 1)
    return {}


# ------------------------------------------------------------------------- balancing ranks


def balance_ranks(groups, config):
    """Before the update, whole groups change ranks, so that all have about as many tokens.

    They do in every mini-batch. Otherwise all would wait for the rank whose responses came out
    longest. What only the log wanted stays behind.
    """
    if world() == 1:
        return groups
    mine = {}  # place -> tokens to compute
    for g, place in enumerate(groups.places):
        mine[place] = cost_of(groups, g, config)
    costs = merge_dicts(mine)
    to = {}  # place -> rank
    for m in range(config.mini_batches):
        stretch = stretch_of(m, groups, config)
        to.update(zip(stretch, deal([costs[place] for place in stretch], world())))
    parcels = [[] for _ in range(world())]
    for row in zip(groups.places, groups.prompts, groups.rollouts, groups.advantages):
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
        places=[row[0] for row in received],
        prompts=[row[1] for row in received],
        rollouts=[row[2] for row in received],
        advantages=advantages,
    )


# ------------------------------------------------------------------------- validation


def validate(sample_and_score, run, step: int) -> dict:
    """One greedy response to each held-out problem, as the authors validated.

    `sample_and_score(run, problems, config, step)` is grpo.py's.
    """
    greedy = replace(run.config, n=1, temperature=0.0)
    groups = sample_and_score(run, run.held_out, greedy, step)
    rewards = float(groups.rewards.double().sum())
    total = all_sums({"rewards": rewards, "right": int(groups.right.sum())})
    n = len(run.held_out)
    return {"val_reward": total["rewards"] / n, "val_accuracy": total["right"] / n}
