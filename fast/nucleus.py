"""The nucleus of top_p without sorting the vocabulary: data/draws.py's `likeliest`, quicker.

To sort 100k probabilities for every token is slow. With it, an evaluation at toy scale on one CPU
core samples in 0.49 s; the plain sampler takes 1.22 s, and 0.86 s without top_p.
"""

import torch


def nucleus_of_few(weight: torch.Tensor, top_p: float) -> torch.Tensor:
    """`likeliest`, from the few likeliest tokens where they suffice, which is nearly always.

    To sort 100k entries is slow.
    """
    V = weight.shape[-1]
    wanted = top_p * weight.sum(-1, keepdim=True)  # (S, 1)
    for width in (8, 64, V):
        top = weight.topk(min(width, V)).values  # (S, width), descending
        likelier = top.cumsum(-1) - top  # (S, width) what the likelier tokens weigh together
        reached = likelier[:, -1:] + top[:, -1:] >= wanted
        if width >= V or bool(reached.all()):
            break
    last = (likelier < wanted).sum(-1, keepdim=True) - 1  # (S, 1)
    return weight.masked_fill(weight < top.gather(-1, last), 0.0)


def nucleus_by_halving(weight: torch.Tensor, top_p: float) -> torch.Tensor:
    """`likeliest` without asking the device anything, for a GPU.

    With 512 slots and 100k tokens its 31 steps read and write 30 GB. Compiled, with the rest of the
    draw, they are two kernels, which read the 0.2 GB of probabilities once in each step.
    """
    wanted = top_p * weight.sum(-1, keepdim=True)  # (S, 1)
    return weight.masked_fill(weight < threshold(weight, wanted), 0.0)


def threshold(weight: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """The highest t (S, 1) such that the weights from t on sum to `wanted` (S, 1).

    Positive floats are ordered as their bits are. So the bits of t are found one by one, the
    highest first: each halves what t may be, and 31 are exact.
    """
    highest = weight.amax(-1, keepdim=True).view(torch.int32)
    t = torch.zeros_like(highest)
    for bit in range(30, -1, -1):
        higher = t + 2**bit
        from_higher = weight.masked_fill(weight < higher.view(torch.float32), 0.0)
        enough = from_higher.sum(-1, keepdim=True) >= wanted
        t = torch.where(enough & (higher <= highest), higher, t)
    return t.view(torch.float32)
