"""AdamW, the learning rate's course, and an update with clipped gradients."""

import math

import numpy as np
import torch

from plumbing.flags import check
from plumbing.ranks import print0
from plumbing.sharding import own_weights, whole


def adamw(
    model: torch.nn.Module,
    lr: float,
    betas: tuple[float, float],
    weight_decay: float,
    decay_embedding: bool = True,
) -> torch.optim.AdamW:
    """AdamW over all weights of the model.

    OLMo2's pre-training decays every weight but the input embedding (decay_embedding=False); the
    authors' RL and SFT decay all.
    """
    embedding = []
    rest = []
    for name, p in model.named_parameters():
        if name == "embed_tokens.weight":
            embedding.append(p)
        else:
            rest.append(p)
    groups = [
        {"params": rest, "weight_decay": weight_decay},
        {"params": embedding, "weight_decay": weight_decay if decay_embedding else 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=1e-8, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give all weights this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def check_schedule(kind: str) -> None:
    """Refuse a schedule that lr_factor does not have."""
    check(kind in ("constant", "cosine"), f"schedule {kind}: choose constant or cosine")


def lr_factor(kind: str, step: int, steps: int, warmup: int = 0, floor: float = 0.0) -> float:
    """The factor on the peak learning rate in step 0 .. steps - 1.

    A linear warm-up over `warmup` steps, then `constant`, or a `cosine` from 1 down to `floor`.
    """
    if step < warmup:
        return (step + 1) / warmup
    if kind == "constant":
        return 1.0
    progress = (step - warmup) / max(1, steps - warmup)  # 0 .. 1
    return floor + (1 - floor) * 0.5 * (1 + float(np.cos(np.pi * progress)))


def clip_gradients(model: torch.nn.Module, max_norm: float) -> float:
    """Scale the gradients down to a global norm of max_norm; returns their norm before that.

    A max_norm of 0 leaves them as they are. The backward pass has summed them over the ranks
    already.
    """
    parameters = [p for p in own_weights(model).values() if p.requires_grad]
    for p in parameters:
        if p.grad is None:  # a batch with nothing to learn from, on all ranks
            p.grad = torch.zeros_like(p)
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm or math.inf)
    return whole(norm).item()


def clipped_step(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, max_norm: float
) -> float:
    """Clip the gradients, update the weights, clear the gradients; returns the gradients' norm.

    A norm that is not finite skips the update, and says so. All ranks have the same norm, so all
    skip it. Raises UserError after MOST_SKIPPED in a row.
    """
    norm = clip_gradients(model, max_norm)
    if math.isfinite(norm):
        optimizer.step()
        optimizer.skipped = 0
    else:
        optimizer.skipped = skipped_in_a_row(optimizer) + 1
        note_skipped(optimizer.skipped)
    optimizer.zero_grad()
    return norm


def logged_step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, max_norm: float) -> dict:
    """clipped_step -> what the log says of it."""
    norm = clipped_step(model, optimizer, max_norm)
    return {"grad_norm": norm, "skipped": count_skipped([norm])}


# ------------------------------------------------------------------------------------ skipped

MOST_SKIPPED = 20  # updates in a row without a finite gradient, after which a run gives up
ADVICE = "try a lower --lr, and look at the parent and the data"


def count_skipped(norms: list[float]) -> int:
    """How many updates were skipped, by the norms of their gradients."""
    return sum(not math.isfinite(norm) for norm in norms)


def mean_norm(norms: list[float]) -> float:
    """The mean of the finite ones; NaN where there are none."""
    finite = [norm for norm in norms if math.isfinite(norm)]
    return sum(finite) / len(finite) if finite else math.nan


def skipped_in_a_row(optimizer: torch.optim.Optimizer) -> int:
    """The updates that were skipped since the last one that was made."""
    return getattr(optimizer, "skipped", 0)


def note_skipped(n: int) -> None:
    """Say that an update was skipped, the n-th in a row. Raises UserError when they are too many.

    The run's last state is one from before the first of them (plumbing/resume.py sees to it).
    """
    check(
        n < MOST_SKIPPED,
        f"{n} updates in a row had no finite gradient; {ADVICE}. No result is written, and the "
        "last good state stays in the run's .resume folder",
    )
    print0(f"an update was skipped, its gradient is not finite: {n} in a row")


def check_last_update(optimizer: torch.optim.Optimizer) -> None:
    """Refuse to call a run finished whose last update could not be made."""
    n = skipped_in_a_row(optimizer)
    check(n == 0, f"the last {n} updates had no finite gradient; {ADVICE}. No result is written")
