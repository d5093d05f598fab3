"""Alternatives to GRPO's loss and advantages that others have proposed, each a few lines.

    --normalize loo            RLOO: compared with the mean of the other rollouts
    --normalize pass@8         what a rollout adds to the best of 8; pass@1 is RFT
    --ratio sequence           GSPO: one ratio for a whole response
    --loss cispo               CISPO: the weight is cut, the gradient never
    --entropy 0.01             a bonus for the entropy of the next token
    --epochs 2                 GRPO's mu: passes over the rollouts of a step (grpo.py's `update`)

Three more need no code: Dr. GRPO is `--normalize none --loss constant`, DAPO is `--clip_high 0.28
--dynamic_sampling 2` with the reward of tools/overlong.py, and MaxRL is `--normalize mean`.
R is the number of response tokens, S of responses, P of prompts, n of rollouts of each.
"""

import math
import re

import torch

from data import UserError
from plumbing.batches import Packed
from plumbing.flags import check

LOSSES = ("token-mean", "sequence-mean", "constant", "micro-mean", "cispo")
NORMALIZE = ("std", "mean", "none", "loo")


# ---------------------------------------------------------------------------------- advantages


def other_advantages(rewards: torch.Tensor, normalize: str) -> torch.Tensor:
    """rewards (P, n) -> advantages (P, n), by "loo" or by "pass@8" for any number up to n.

    Raises UserError for another name.
    """
    if normalize == "loo":
        return leave_one_out(rewards)
    return of_best(rewards, k_of(normalize, rewards.shape[1]))


def leave_one_out(rewards: torch.Tensor) -> torch.Tensor:
    """r - mean of the n - 1 other rewards (RLOO, Ahmadian et al. 2024, 2402.14740).

    It is n / (n - 1) times what "none" gives, a factor that AdamW takes out again.
    """
    n = rewards.shape[1]
    others = (rewards.sum(1, keepdim=True) - rewards) / max(1, n - 1)
    advantages = rewards - others
    advantages[(rewards == rewards[:, :1]).all(1)] = 0.0  # not the rounding error of the mean
    return advantages


def of_best(rewards: torch.Tensor, k: int) -> torch.Tensor:
    """k times what each rollout adds to the best of k, (P, n): k E[max(r, M) - M].

    M is the best of k - 1 of the other n - 1 rollouts, averaged over all ways to choose them
    (pass@k policy optimization, Walder and Karkhanis 2025, 2505.15201). Its mean over rollouts is
    an unbiased gradient of the expected best of k, which is pass@k where rewards are 0 and 1. With
    k = 1 there is no M, and the advantage is the reward: the gradient of SFT on the rollouts that
    are right (RFT, Yuan et al. 2023, 2308.01825), drawn anew in every step.
    """
    if k == 1:
        return rewards.clone()
    n = rewards.shape[1]
    columns = []
    for i in range(n):
        others = torch.cat([rewards[:, :i], rewards[:, i + 1 :]], 1)
        columns.append(others.sort(1).values)
    others = torch.stack(columns, 1)  # (P, n, n - 1), ascending
    # How likely others[j] is the best of k - 1: the other k - 2 then come from the j below it.
    ways = [math.comb(j, k - 2) / math.comb(n - 1, k - 1) for j in range(n - 1)]
    chance = torch.tensor(ways, dtype=rewards.dtype)  # (n - 1,), its sum is 1
    more = (rewards[:, :, None] - others).clamp(min=0.0)  # (P, n, n - 1)
    return k * (more * chance).sum(-1)


def k_of(normalize: str, n: int) -> int:
    """ "pass@8" -> 8. Raises UserError for other words, and where k is not 1 to n."""
    match = re.fullmatch(r"pass@([0-9]{1,6})", normalize)
    choices = f"choose {', '.join(NORMALIZE)}, or pass@1 to pass@{n}"
    check(bool(match), f"--normalize {normalize}: {choices}")
    k = int(match[1])
    check(1 <= k <= n, f"--normalize {normalize} needs groups of {k} rollouts or more; {choices}")
    return k


# ---------------------------------------------------------------------------------- the loss


def has_other_loss(config) -> bool:
    return config.ratio == "sequence" or config.loss == "cispo" or config.entropy > 0


def other_loss(loss, logp, old_logp, advantage, entropy, packed: Packed, config):
    """What stands in place of grpo.py's `policy_loss`, whose loss is `loss`; all of them (R,).

    -> (loss (R,), its metrics of clipping, {} where they are those of `policy_loss`).
    GSPO (Zheng et al. 2025, 2507.18071) has the mean log ratio of a response for each of its
    tokens, and clips that. CISPO (MiniMax-M1, 2506.13585) weighs the gradient of log p by a ratio
    that is cut from above: so no token drops out of the gradient. Neither has the dual clip.
    The bonus is added to either.
    """
    log_ratio = logp - old_logp
    if config.ratio == "sequence":
        log_ratio = mean_of_responses(log_ratio, packed)[packed.sequence]
    ratio = log_ratio.clamp(-20, 20).exp()
    metrics = {}
    if config.loss == "cispo":
        loss = -advantage * ratio.clamp(max=1 + config.clip_high).detach() * logp
        is_cut = ratio > 1 + config.clip_high
        metrics = clipping(ratio, is_cut, torch.zeros_like(is_cut), is_cut)
    elif config.ratio == "sequence":
        unclipped = -advantage * ratio
        clipped = -advantage * ratio.clamp(1 - config.clip_low, 1 + config.clip_high)
        loss = torch.maximum(unclipped, clipped)
        bites = clipped > unclipped
        metrics = clipping(ratio, bites, bites & (advantage < 0), bites & (advantage > 0))
    if config.entropy:
        loss = loss - config.entropy * entropy_bonus(logp, old_logp, entropy)
    return loss, metrics


def clipping(ratio, bites, low, high) -> dict[str, torch.Tensor]:
    """The metrics that `policy_loss` has, all (R,)."""
    metrics = {"ratio": ratio, "clip_fraction": bites, "clipped_low": low, "clipped_high": high}
    return {name: value.detach().float() for name, value in metrics.items()}


def mean_of_responses(values: torch.Tensor, packed: Packed) -> torch.Tensor:
    """(R,) -> (S,) the mean over the tokens of each response."""
    sums = values.new_zeros(len(packed.lengths))
    sums = sums.index_add(0, packed.sequence, values)
    return sums / packed.lengths


def entropy_bonus(logp, old_logp, entropy) -> torch.Tensor:
    """A term (R,) whose gradient is, on average over sampled tokens, that of the entropy H (R,).

    grad H = -E[(log p + H) grad log p], as the expected grad log p is 0. So the tokens that were
    drawn are enough, and nothing but them needs a gradient. They were drawn from the old policy,
    which the ratio corrects.
    """
    ratio = (logp - old_logp).clamp(-20, 20).exp()  # its gradient is ratio * grad log p
    return -(logp + entropy).detach() * ratio


# ---------------------------------------------------------------------------------- flags


def check_losses(config) -> None:
    """Refuse names that nothing is called by, and what does not go together."""
    if config.normalize not in NORMALIZE:
        k_of(config.normalize, config.n)
    check(config.loss in LOSSES, f"--loss {config.loss}: choose {', '.join(LOSSES)}")
    ratios = ("token", "sequence")
    check(config.ratio in ratios, f"--ratio {config.ratio}: choose {' or '.join(ratios)}")
    if config.ratio == "sequence" or config.loss == "cispo":
        which = "--loss cispo" if config.loss == "cispo" else "--ratio sequence"
        for name in ("kl", "tis"):
            value = getattr(config, name)
            if value:
                raise UserError(f"{which} has no {name} term; leave out --{name} {value}")
