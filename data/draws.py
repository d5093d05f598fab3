"""Random numbers that are keyed by what they are for, and what turns one into a token.

A draw is a function of (seed, step, problem, rollout, position) and of nothing else: whoever asks
for it, and whatever was drawn before, the number is the same. sampler.py says what that is good
for. L is the number of rows, V the size of the vocabulary.
"""

import torch

GOLDEN = -7046029254386353131  # 2^64 / golden ratio as a signed int64: the increment of splitmix64


def likeliest(probs: torch.Tensor, top_p: float) -> torch.Tensor:
    """probs (L, V) with all outside the nucleus set to 0 (Holtzman et al. 2020).

    The nucleus is the smallest set of likeliest tokens that together reach top_p. Ties stay in.
    """
    ordered = probs.sort(-1, descending=True).values  # (L, V)
    likelier = ordered.cumsum(-1) - ordered  # (L, V) what the likelier tokens weigh together
    wanted = top_p * probs.sum(-1, keepdim=True)
    last = (likelier < wanted).sum(-1, keepdim=True) - 1  # (L, 1)
    return probs.masked_fill(probs < ordered.gather(-1, last), 0.0)


def sums_of_neighbours(weight: torch.Tensor) -> list[torch.Tensor]:
    """Weights (L, V), the sums of 16 neighbours each (L, V / 16), and so on down to 16 or less.

    The sums are float64: in float32 those of a large vocabulary would miss the total by more than
    rare tokens weigh.
    """
    tree = [weight]
    while tree[-1].shape[1] > 16:
        fine = tree[-1]
        whole = fine.shape[1] // 16 * 16  # the columns that fill groups of 16
        sums = fine[:, :whole].unflatten(1, (-1, 16)).sum(-1)  # (L, whole / 16)
        if whole < fine.shape[1]:
            sums = torch.cat((sums, fine[:, whole:].sum(-1, keepdim=True)), 1)
        tree.append(sums.double())
    tree[-1] = tree[-1].double()
    return tree


def descend(tree: list[torch.Tensor], u: torch.Tensor) -> torch.Tensor:
    """u (L,), uniform in [0, 1) -> a token (L,), by the sums of neighbours from the coarsest down.

    To invert the cumulative weights of V tokens at once means V borders, and rounding that moves
    one of them across u gives another token: with 100,000 tokens, noise of 1e-6 in the logits
    changes one draw in 600. Here each level inverts those of 16 neighbours, at a uniform number of
    its own: the first is u, the others are made from it. That is disturbed a hundred times less
    often.
    """
    node = torch.zeros_like(u, dtype=torch.int64)[:, None]  # (L, 1)
    key = (u * 2.0**32).long()  # (L,)
    for level, weight in enumerate(reversed(tree)):
        children = 16 * node + torch.arange(16, device=u.device)  # (L, 16)
        there = children < weight.shape[1]
        inside = weight.gather(1, children.clamp(max=weight.shape[1] - 1)).double() * there
        cumulative = inside.cumsum(-1)  # (L, 16)
        if level > 0:
            u = uniform(key, torch.full_like(key, level))
        target = u[:, None] * cumulative[:, -1:]  # (L, 1) below the last
        node = children.gather(1, (cumulative > target).int().argmax(-1, keepdim=True))
    return node[:, 0]


# ---------------------------------------------------------------- random numbers keyed by their use


def rollout_keys(seed: int, step: int, problem_ids, n: int) -> list[int]:
    """One key for each rollout, those of a problem together: a hash of its four numbers."""
    problems = torch.tensor(list(problem_ids)).repeat_interleave(n)
    rollouts = torch.arange(n).repeat(len(problem_ids))
    return hash_key(seed, step, problems, rollouts).tolist()


def hash_key(seed: int, step: int, problem: torch.Tensor, rollout: torch.Tensor) -> torch.Tensor:
    """(seed, step, problem, rollout) -> one int64 key per rollout."""
    key = torch.zeros_like(problem)
    for part in (seed, step, problem, rollout):
        key = mix(key + GOLDEN + part)
    return key


def uniform(key: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """(key, position) -> a uniform number in [0, 1) of 32 bits, as float64."""
    return shift_right(mix(key + (position + 1) * GOLDEN), 32).double() * 2.0**-32


def mix(x: torch.Tensor) -> torch.Tensor:
    """The output function of splitmix64 (Steele, Lea & Flood 2014), on int64.

    Every bit of the input changes about half of the output.
    """
    x = (x ^ shift_right(x, 30)) * -4658895280553007687
    x = (x ^ shift_right(x, 27)) * -7723592293110705685
    return x ^ shift_right(x, 31)


def shift_right(x: torch.Tensor, bits: int) -> torch.Tensor:
    """A logical shift: int64's own is arithmetic, and copies the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
