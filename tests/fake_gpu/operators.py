"""Operators that a GPU has kernels of its own for, where torch's CPU build would take another way.

Each says which kernels run, what they read and write, and what is kept for the backward pass.
"""

import torch
import torch.nn.functional as F

from tests.fake_gpu.device import aten
from tests.fake_gpu.meter import Meter

PLAIN_ATTENTION = F.scaled_dot_product_attention
PLAIN_NORM = F.rms_norm


def attention(
    q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):
    """torch's choice on an H100 in bf16: flash attention."""
    if not q.is_cuda or q.dtype == torch.float32 or attn_mask is not None:
        rest = (attn_mask, dropout_p, is_causal)
        return PLAIN_ATTENTION(q, k, v, *rest, scale=scale, enable_gqa=enable_gqa)
    if enable_gqa:
        group = q.shape[1] // k.shape[1]
        k = k.repeat_interleave(group, 1)
        v = v.repeat_interleave(group, 1)
    flash = aten._scaled_dot_product_flash_attention
    return flash(q, k, v, dropout_p, is_causal, scale=scale)[0]


def norm(x, shape, weight=None, eps=None):
    """F.rms_norm is one kernel on a GPU; torch's compiler takes it apart."""
    if not x.is_cuda or torch.compiler.is_compiling():
        return PLAIN_NORM(x, shape, weight, eps)
    return Norm.apply(x, weight)


class Norm(torch.autograd.Function):
    """Keeps its input and 1 / rms, as the kernel does."""

    @staticmethod
    def forward(ctx, x, weight):
        out = torch.empty_like(x)
        inverse_rms = x.new_empty(*x.shape[:-1], 1, dtype=torch.float32)
        Meter.launched("_fused_rms_norm", x, weight, out, inverse_rms)
        ctx.save_for_backward(x, weight, inverse_rms)
        return out

    @staticmethod
    def backward(ctx, grad):
        x, weight, inverse_rms = ctx.saved_tensors
        of_x = torch.empty_like(x)
        of_weight = torch.empty_like(weight)
        Meter.launched("_fused_rms_norm_backward", grad, x, weight, inverse_rms, of_x)
        Meter.launched("_fused_rms_norm_backward", grad, x, inverse_rms, of_weight)
        return of_x, of_weight


class PagedKernel:
    """In the place of fast/paged_kernel.py's, whose bytes depend on how long the slots are."""

    context = 400  # tokens of each slot
    asked_for = {}  # the sizes of its last launch

    def __getitem__(self, grid):
        def launch(q, keys, values, table, lengths, out, *rest, **sizes):
            PagedKernel.asked_for = sizes
            of_token = 2 * keys.shape[1] * keys.shape[3] * keys.element_size()  # keys and values
            Meter.launched("paged_kernel", q, out, more=len(q) * self.context * of_token)

        return launch


def install() -> None:
    from fast import paged_kernel

    paged_kernel.paged_kernel = PagedKernel()
    F.scaled_dot_product_attention = attention
    F.rms_norm = norm
