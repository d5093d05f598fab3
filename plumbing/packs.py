"""Which rollouts go through the trainer, and in which packs, so that a pack fits in memory.

Rollouts are named by pairs (g, i): rollout i of group g on this rank.
"""

import torch

from plumbing.batches import Packed, idle_pass, pack, response_logprobs
from plumbing.ranks import pad_to_longest_rank
from plumbing.transfer import send
from sampler import Rollout


def packs_of_groups(groups, chosen, config) -> list[list[tuple[int, int]] | None]:
    """The chosen groups' rollouts in packs of at most micro_tokens tokens, of one rollout at least.

    A prompt counts once in a pack, however many of its rollouts are there, because fast/ computes
    it once. All ranks get the same number of packs; a None is one that other ranks have more.
    """
    packs = []
    size = 0  # tokens in the last pack
    for g in chosen:
        prompt = len(groups.prompts[g])
        for i in to_compute(groups, g, config):
            response = len(groups.rollouts[g][i].tokens)
            prompt_is_there = packs and packs[-1][-1][0] == g
            needs = response if prompt_is_there else response + prompt
            if not packs or size + needs > config.micro_tokens:
                packs.append([])
                size = 0
                needs = response + prompt
            packs[-1].append((g, i))
            size += needs
    return pad_to_longest_rank(packs)


def pack_members(groups, members: list[tuple[int, int]]) -> Packed:
    prompts = [groups.prompts[g] for g, _ in members]
    responses = [groups.rollouts[g][i].tokens for g, i in members]
    return pack(prompts, responses)


def token_values(groups, members: list[tuple[int, int]], packed: Packed):
    """What is known of each response token: (advantage, sampler's log-prob, old log-prob), (R,).

    The old log-probs are None where the policy has not moved since the rollouts.
    """
    device = packed.sequence.device
    of_rollouts = send(torch.stack([groups.advantages[g, i] for g, i in members]), device)
    advantage = of_rollouts[packed.sequence]
    sampled = []
    for g, i in members:
        sampled.extend(groups.rollouts[g][i].logprobs)
    old_logp = None
    if groups.old_logp:
        old_logp = send(torch.cat([groups.old_logp[g][i] for g, i in members]), device)
    return advantage, send(torch.tensor(sampled), device), old_logp


def to_compute(groups, g: int, config) -> list[int]:
    """The rollouts of group g that go through the trainer.

    Without a KL term or an entropy bonus, a rollout of advantage 0 has no gradient. There is
    nothing to compute then, unless the pack's own mean counts it.
    """
    everything = config.kl or config.entropy or config.loss == "micro-mean"
    chosen = []
    for i, rollout in enumerate(groups.rollouts[g]):
        if has_loss(rollout, config) and (everything or groups.advantages[g, i] != 0):
            chosen.append(i)
    return chosen


def has_loss(rollout: Rollout, config) -> bool:
    """Overlong filtering (Yu et al. 2025) leaves cut rollouts out, in sums and in counts."""
    return rollout.finished or not config.mask_truncated


def cost_of(groups, g: int, config) -> int:
    """Tokens that the trainer computes for group g."""
    chosen = to_compute(groups, g, config)
    if not chosen:
        return 0
    return len(groups.prompts[g]) + sum(len(groups.rollouts[g][i].tokens) for i in chosen)


def stretch_of(m: int, groups, config) -> range:
    """The places of mini-batch m in the step: the step's groups are cut into equal stretches."""
    total = config.prompts if groups.kept is None else groups.kept
    start = total * m // config.mini_batches
    return range(start, total * (m + 1) // config.mini_batches)


def old_logprobs(model, groups, config) -> None:
    """Log-probs of the responses before the first update: the denominator of the ratio.

    With one update per step they are the current ones, and nothing has to be computed.
    """
    if config.updates == 1:
        return
    if not config.recompute_old:
        groups.old_logp = [[torch.tensor(r.logprobs) for r in group] for group in groups.rollouts]
        return
    groups.old_logp = [[torch.empty(0)] * config.n for _ in groups.rollouts]
    for members in packs_of_groups(groups, range(len(groups.prompts)), config):
        with torch.no_grad():
            if members is None:
                idle_pass(model)
                continue
            packed = pack_members(groups, members)
            logp, _, _ = response_logprobs(model, packed, config.temperature)
        lengths = [len(groups.rollouts[g][i].tokens) for g, i in members]
        for (g, i), of_one in zip(members, logp.cpu().split(lengths)):
            groups.old_logp[g][i] = of_one
