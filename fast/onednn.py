"""Matrix products by oneDNN where every pass has the same number of tokens, as in pre-training.

On an x86 CPU oneDNN multiplies narrow matrices up to a quarter faster than MKL. For each number of
tokens that it has not seen it prepares code, which takes half a millisecond a shape. So ragged
packs stay with MKL.

On two cores of an AMD EPYC (Zen 4) a pre-training step of 1.3M parameters does 13,400 tokens/s with
this and 12,300 without, medians of four runs in turn. A step of the toy preset gains 1 %. By itself
that is less than a part of fast/ must save; together with cpu.py it is more.
"""

import types

import torch
import torch.nn.functional as F
from torch import nn

LIBRARY = torch.library.Library(
    "excursions", "DEF"
)  # what is registered the compiler calls as it is
LIBRARY.define("times_transposed(Tensor a, Tensor b) -> Tensor")


def expect_equal_rows(model, yes: bool = True) -> None:
    """Say whether every pass in training will have the same number of tokens.

    It changes something on a CPU whose torch has both libraries.
    """
    both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    on_cpu = model.lm_head.weight.device.type == "cpu"
    possible = both and on_cpu and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    for module in model.layers.modules():
        if isinstance(module, nn.Linear):
            module.__dict__.pop("forward", None)
            if yes and possible:
                module.forward = types.MethodType(linear, module)


def linear(self, x: torch.Tensor) -> torch.Tensor:
    """nn.Linear.forward without a bias."""
    if torch.is_grad_enabled():
        return LinearOfOneDNN.apply(x, self.weight)
    return F.linear(x, self.weight)


class LinearOfOneDNN(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return torch.ops.excursions.times_transposed(x, weight)

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        grad_x = torch.ops.excursions.times_transposed(g, weight.T)
        return grad_x, g.T @ x  # oneDNN is no quicker at the last one


@torch.library.impl(LIBRARY, "times_transposed", "CPU")
def times_transposed(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a (N, D) @ b (M, D).T by oneDNN."""
    return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")


@torch.library.register_fake("excursions::times_transposed", lib=LIBRARY)
def _(a, b):
    return a.new_empty(len(a), len(b))
