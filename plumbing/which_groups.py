"""Which groups a step of RL learns from: those of its batch, or with a flag those with a signal.

    --dynamic_sampling 2       more batches are drawn until enough groups have mixed rewards
    --probe 4                  a few rollouts of many problems decide which of them get all n

Groups are those of grpo.py, `draw_groups(run, step)` is its function, and a run is
plumbing/rl_setup.py's.
"""

from dataclasses import replace

import torch

from plumbing.batches import batch_indices
from plumbing.ranks import all_sum, gather_objects

LISTS = ("problems", "prompts", "rollouts", "texts")  # what Groups hold of each group,
TENSORS = ("rewards", "right", "advantages")  # when they have been scored


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
        groups.places = [len(draws) * config.prompts + place for place in groups.places]
        draws.append(groups)
        n_mixed += int(is_mixed(groups).sum())
        if all_sum(n_mixed) >= config.prompts:
            break
    return join(draws)


def is_mixed(groups) -> torch.Tensor:
    """(P,) whether a group has a signal: an advantage that is not 0, as where rewards differ."""
    return (groups.advantages != 0).any(1)


def join(draws: list):
    """The groups of several draws as those of one."""
    first = draws[0]
    joined = {"places": [], **{name: [] for name in LISTS}}
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
    for places in gather_objects([groups.places[g] for g in mixed]):
        everywhere.extend(places)
    order = sorted(everywhere)[: config.prompts]
    kept = [g for g in mixed if groups.places[g] in order]
    chosen = {"places": [order.index(groups.places[g]) for g in kept]}
    for name in LISTS:
        values = getattr(groups, name)
        chosen[name] = [values[g] for g in kept]
    for name in TENSORS:
        chosen[name] = getattr(groups, name)[kept]
    return replace(groups, kept=len(order), **chosen)


# ------------------------------------------------------------------------- adaptive rollouts


PROBED = 2  # problems that are probed for each that gets all its rollouts


def draw_probed(draw_groups, run, step: int):
    """Groups of the problems whose outcomes are mixed, as a few rollouts of each have shown.

    Where they are too few, the first of the others fill up. The probing rollouts only choose: the
    n that are learned from are drawn anew, so that they are no chosen sample of the policy. A step
    samples prompts x (2 probe + n) rollouts.
    """
    config = run.config
    n_probed = PROBED * config.prompts
    wide = replace(config, n=config.probe, prompts=n_probed, normalize="none")
    probe = draw_groups(replace(run, config=wide), step)
    mixed = is_mixed(probe).nonzero()[:, 0].tolist()
    everywhere = []
    for places in gather_objects([probe.places[g] for g in mixed]):
        everywhere.extend(places)
    others = set(range(n_probed)) - set(everywhere)
    chosen = [*sorted(everywhere), *sorted(others)][: config.prompts]

    batch = batch_indices(len(run.problems), n_probed, step, config.seed, "grpo")
    problems = [run.problems[batch[place]] for place in chosen]
    # A step number that no other draw has, so that no draw is made twice.
    groups = draw_groups(replace(run, problems=problems), -1 - step)
    for name, seconds in probe.seconds.items():
        groups.seconds[name] += seconds
    return groups
