"""From hidden states to log-probs in chunks of tokens, with a backward pass of their own.

The plain form makes a chunk's logits again going back and lets autograd keep what it wants of them:
four tensors of the chunk's size, and on a GPU fp32 factors. Here one is kept, overwritten in place,
and the factors of the products are bf16 under autocast, like those of all layers; sums stay fp32.
A toy pre-training step takes 8 % longer with the plain form, SFT 5 % (one thread of an AMD EPYC,
Zen 4). On an H100 the head's bf16 products are a fifth of those of a 1B pre-training step.

A GPU multiplies with the head's padding rows, too. dolma2 has 100,278 ids, and rows of so many bf16
or fp32 numbers do not begin at multiples of 16 bytes, which the fast kernels of matrix products
ask for; those of 100,352 do. What is read are the first 100,278 columns of the result.
"""

import types

import torch
import torch.nn.functional as F

from fast.compiled import fused
from model import RMSNorm


def install(model, fp32_head: bool, compile: bool) -> None:
    model.fp32_head = fp32_head  # the head's factors stay fp32 under autocast
    model.compiled = compile
    model.logits = types.MethodType(logits, model)
    model.logprobs = types.MethodType(logprobs, model)


def install_norms(model) -> None:
    """On a GPU torch has a kernel for RMSNorm."""
    for module in model.modules():
        if isinstance(module, RMSNorm):
            module.forward = types.MethodType(norm, module)


def norm(self, x: torch.Tensor) -> torch.Tensor:
    weight = self.weight.float()
    return F.rms_norm(x.float(), weight.shape, weight, self.eps).to(x.dtype)


def logits(self, hidden: torch.Tensor, padding: bool = False) -> torch.Tensor:
    """Transformer.logits, with factors in the head's dtype."""
    weight = self.lm_head.weight if padding else rows_to_multiply(self)
    dtype = dtype_of_factors(self, hidden)
    with torch.autocast(hidden.device.type, enabled=False):
        all_logits = product(hidden.to(dtype), weight.to(dtype).T)
    return all_logits if padding else all_logits[:, : self.config.vocab_size]


def logprobs(self, hidden, targets, temperature: float = 1.0, chunk: int | None = None):
    """Transformer.logprobs; `chunk` is how many tokens have their logits at a time."""
    vocab = self.config.vocab_size  # padding rows have no probability
    chunk = chunk or chunk_size(vocab, hidden.is_cuda)
    how = (temperature, chunk, dtype_of_factors(self, hidden), self.compiled, vocab)
    return LogProbs.apply(hidden, rows_to_multiply(self), targets, *how)


def rows_to_multiply(model) -> torch.Tensor:
    """The head's rows, those of the vocabulary first. On a GPU all of them, which are aligned."""
    weight = model.lm_head.weight
    if weight.is_cuda:
        return weight
    return weight[: model.config.vocab_size]


def chunk_size(vocab: int, cuda: bool) -> int:
    """Tokens whose logits take 1 GB on a GPU, and 8 MB on a CPU, about the size of its cache."""
    return max(256, (2**28 if cuda else 2**21) // vocab)


def dtype_of_factors(model, hidden: torch.Tensor) -> torch.dtype:
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind) and not model.fp32_head:
        return torch.get_autocast_dtype(kind)
    return torch.float32


class LogProbs(torch.autograd.Function):
    """log_softmax(hidden @ weight.T / temperature) at the targets, in chunks of tokens.

    weight (rows, d_model): of the logits (chunk, rows) that it makes, the first `vocab` are read,
    and the gradient of the others is 0. A chunk's logits exist while it is worked on, in both
    passes: the backward pass makes them again. `dtype` is that of the factors of the three
    products; their sums and all else are fp32.
    """

    @staticmethod
    def forward(ctx, hidden, weight, targets, temperature, chunk, dtype, compile, vocab):
        logp = hidden.new_empty(len(hidden), dtype=torch.float32)
        lse = torch.empty_like(logp)
        entropy = torch.empty_like(logp)
        read = fused(read_logits) if compile else read_logits
        with torch.autocast(hidden.device.type, enabled=False):
            h = hidden.to(dtype)
            w = weight.to(dtype)
            for start in range(0, len(hidden), chunk):
                at = slice(start, start + chunk)
                of_vocab = product(h[at], w.T)[:, :vocab]  # (chunk, V)
                logp[at], lse[at], entropy[at] = read(of_vocab, targets[at], temperature)
        ctx.save_for_backward(hidden, weight, targets, lse)
        ctx.temperature = temperature
        ctx.chunk = chunk
        ctx.dtype = dtype
        ctx.compile = compile
        ctx.vocab = vocab
        ctx.mark_non_differentiable(entropy)
        return logp, lse, entropy

    @staticmethod
    def backward(ctx, grad_logp, grad_lse, _):
        hidden, weight, targets, lse = ctx.saved_tensors
        slope = fused(slope_of_logits) if ctx.compile else slope_of_logits
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        with torch.autocast(hidden.device.type, enabled=False):
            h = hidden.to(ctx.dtype)
            w = weight.to(ctx.dtype)
            for start in range(0, len(hidden), ctx.chunk):
                at = slice(start, start + ctx.chunk)
                of_chunk = (targets[at], lse[at], grad_logp[at], grad_lse[at])
                logits = product(h[at], w.T)  # (chunk, rows)
                slope(logits[:, : ctx.vocab], *of_chunk, ctx.temperature)
                logits[:, ctx.vocab :] = 0.0
                d = logits.to(ctx.dtype)
                del logits  # in fp32; where d is bf16, it is not needed any more
                grad_hidden[at] = product(d, w)
                add_product(grad_weight, d.T, h[at])
        return grad_hidden, grad_weight.to(weight.dtype), *[None] * 6


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(N, D) @ (D, M) in fp32, of factors in fp32 or bf16."""
    if a.is_cuda and a.dtype == torch.bfloat16:
        return ProductOfBf16.apply(a, b)
    return a.float() @ b.float()


def add_product(total: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    """Add `product` to total (N, M) fp32. A GPU does so without a place for the product."""
    if a.is_cuda and a.dtype == torch.bfloat16:
        torch.addmm(total, a, b, out_dtype=torch.float32, out=total)
    else:
        total += product(a, b)


class ProductOfBf16(torch.autograd.Function):
    """a @ b in fp32, by a kernel of the GPU for which torch knows no derivative.

    Going back, the gradient of the product is rounded to bf16, as autocast does for all layers.
    """

    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return torch.mm(a, b, out_dtype=torch.float32)

    @staticmethod
    def backward(ctx, grad):
        a, b = ctx.saved_tensors
        grad = grad.to(a.dtype)
        return grad @ b.T, a.T @ grad


def read_logits(logits, targets, temperature):
    """Logits (chunk, V), which are overwritten -> log-prob, logsumexp, entropy, (chunk,)."""
    if temperature != 1.0:
        logits = logits.div_(temperature)
    highest = logits.amax(-1, keepdim=True)  # (chunk, 1)
    at_target = logits.gather(-1, targets[:, None])  # (chunk, 1)
    p = (logits - highest).exp_()  # (chunk, V), not normalised
    total = p.sum(-1, keepdim=True)  # (chunk, 1)
    lse = highest + total.log()
    entropy = lse - p.mul_(logits).sum(-1, keepdim=True) / total
    return (at_target - lse)[:, 0], lse[:, 0], entropy[:, 0]


def slope_of_logits(logits, targets, lse, grad_logp, grad_lse, temperature) -> None:
    """Overwrite the logits (chunk, V) with the gradient of the loss by them.

    d logp = onehot(target) - p, and d logsumexp = p.
    """
    p = logits.div_(temperature).sub_(lse[:, None]).exp_()
    d = p.mul_(((grad_lse - grad_logp) / temperature)[:, None])
    d.scatter_add_(-1, targets[:, None], (grad_logp / temperature)[:, None])
