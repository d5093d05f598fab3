"""What saves time on a CPU: fewer passes over memory, and pages that are cleared once.

Without the norms here a toy step takes 2 to 4 % longer, in pre-training, SFT, the RL update and
sampling alike. With the plain loop of torch's attention, sequence by sequence, a toy pre-training
step takes 9 % longer (one thread of an AMD EPYC, Zen 4; medians of steps in turn). Kept memory is
worth 5 to 10 % (docs/log.md). Together they save more than the 10 % that fast/ asks for.
"""

import ctypes
import functools
import types

import torch
import torch.nn.functional as F

from model import RMSNorm


def install(model) -> None:
    keep_freed_memory()
    for module in model.modules():
        if isinstance(module, RMSNorm):
            module.forward = types.MethodType(norm, module)


# ---------------------------------------------------------------------------------- RMSNorm


def norm(self, x: torch.Tensor) -> torch.Tensor:
    """RMSNorm.forward."""
    wide = x.float()
    weight = self.weight.float()
    if torch.compiler.is_compiling():
        return F.rms_norm(wide, weight.shape, weight, self.eps).to(x.dtype)
    if torch.is_grad_enabled():
        return Normalise.apply(wide, weight, self.eps).to(x.dtype)
    return Normalise.compute(wide, weight, self.eps)[0].to(x.dtype)


class Normalise(torch.autograd.Function):
    """RMSNorm in half the passes over memory that torch takes on a CPU.

    With r = 1 / rms(x) and g the gradient of the result: d weight = sum over tokens of g x r, and
    dx = r (g weight - x r^2 mean(g weight x)).
    """

    @staticmethod
    def compute(x, weight, eps):
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()  # (N, 1)
        r = square.div_(x.shape[-1]).add_(eps).rsqrt_()
        return (x * r).mul_(weight), r

    @staticmethod
    def forward(ctx, x, weight, eps):
        out, r = Normalise.compute(x, weight, eps)
        ctx.save_for_backward(x, weight, r)
        return out

    @staticmethod
    def backward(ctx, g):
        x, weight, r = ctx.saved_tensors
        gx = g * x  # (N, width)
        mean = (gx @ weight)[:, None] / x.shape[-1]  # (N, 1)
        grad_x = (g * weight).addcmul_(x, mean * r.square(), value=-1).mul_(r)
        return grad_x, r[:, 0] @ gx, None


# ---------------------------------------------------------------------------------- attention

SHORT = 512  # tokens: up to here the probabilities of a row are kept for the backward pass
QUERIES = 64  # that meet the keys at a time


def attention_of_rows(q, k, v, mask=None, before: int = 0) -> torch.Tensor:
    """Rows of queries (B, Tq, n_heads, head_dim), keys and values (B, Tk, n_kv_heads, head_dim).

    Causal, or with a mask that is added to the scores. Then query j of a row must see none but its
    first `before` + j + 1 keys. -> like q
    """
    if mask is None:
        mask = torch.full((q.shape[1], k.shape[1]), float("-inf")).triu_(1)  # (Tq, Tk)
    return InProducts.apply(q, k, v, mask, before)


class InProducts(torch.autograd.Function):
    """Attention written out as matrix products, for short rows.

    torch's kernel computes the scores again going back, and there also those that a causal mask
    hides. Here the probabilities p are kept, and 64 queries at a time meet the keys that their last
    one sees.

    With g the gradient of out = p v, and p = softmax(s):
    dv = p.T g, dp = g v.T, ds = p (dp - sum(p dp)), dq = ds k, dk = ds.T q.
    """

    @staticmethod
    def forward(ctx, q, k, v, mask, before):
        B, Tq, H, D = q.shape
        per_kv = H // k.shape[2]
        q = by_head(q * D**-0.5)  # (B*H, Tq, D)
        k = by_head(k, per_kv)  # (B*H, Tk, D)
        v = by_head(v, per_kv)
        outs = []
        kept = []
        for start in range(0, Tq, QUERIES):
            end = min(start + QUERIES, Tq)
            seen = min(before + end, k.shape[1])
            scores = torch.bmm(q[:, start:end], k[:, :seen].transpose(1, 2))  # (B*H, 64, seen)
            scores.view(B, H, end - start, seen).add_(mask[..., start:end, :seen])
            p = scores.softmax(-1)
            outs.append(torch.bmm(p, v[:, :seen]))
            if any(ctx.needs_input_grad):
                kept.append(p)
        ctx.save_for_backward(q, k, v, *kept)
        ctx.shape = B, H, D, per_kv
        return torch.cat(outs, 1).view(B, H, Tq, D).transpose(1, 2)  # (B, Tq, H, D)

    @staticmethod
    def backward(ctx, g):
        q, k, v, *kept = ctx.saved_tensors
        B, H, D, per_kv = ctx.shape
        g = by_head(g)  # (B*H, Tq, D)
        dk = torch.zeros_like(k)
        dv = torch.zeros_like(v)
        dqs = []
        end = q.shape[1]
        for p in reversed(kept):
            start = end - p.shape[1]
            seen = p.shape[2]
            dp = torch.bmm(g[:, start:end], v[:, :seen].transpose(1, 2))  # (B*H, 64, seen)
            ds = torch._softmax_backward_data(dp, p, -1, p.dtype)
            dqs.append(torch.bmm(ds, k[:, :seen]))
            dk[:, :seen] += torch.bmm(ds.transpose(1, 2), q[:, start:end])
            dv[:, :seen] += torch.bmm(p.transpose(1, 2), g[:, start:end])
            end = start
        dq = torch.cat(dqs[::-1], 1).mul_(D**-0.5).view(B, H, -1, D)
        dk = sum_of_heads(dk, B, per_kv)
        dv = sum_of_heads(dv, B, per_kv)
        return dq.transpose(1, 2), dk.transpose(1, 2), dv.transpose(1, 2), None, None


def by_head(x: torch.Tensor, times: int = 1) -> torch.Tensor:
    """(B, T, heads, D) -> (B * heads * times, T, D), each head so many times in a row."""
    x = x.transpose(1, 2)[:, :, None].expand(-1, -1, times, -1, -1)  # (B, heads, times, T, D)
    return x.reshape(-1, *x.shape[3:])


def sum_of_heads(x: torch.Tensor, B: int, times: int) -> torch.Tensor:
    """Back from by_head, summed over `times`: (B * heads * times, T, D) -> (B, heads, T, D)."""
    x = x.view(B, -1, times, *x.shape[1:])
    return x.sum(2) if times > 1 else x[:, :, 0]


# ---------------------------------------------------------------------------------- memory


@functools.cache
def keep_freed_memory() -> None:
    """With glibc, keep freed memory in the process.

    By default large blocks go back to the system, and every page is cleared again when it is next
    touched: 5 to 10 % of a toy training step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    M_TRIM_THRESHOLD = -1
    M_MMAP_THRESHOLD = -3
    if not mallopt(M_MMAP_THRESHOLD, 2**30):
        mallopt(M_MMAP_THRESHOLD, 2**25)  # older versions take no more than 32 MB
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
