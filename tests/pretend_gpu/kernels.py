"""Operators that only a GPU has, computed on the CPU, with the rules that a GPU holds callers to."""

import os

import torch

from tests.pretend_gpu.device import State, aten, inner, instead_of

HALVES = (torch.bfloat16, torch.float16)


@instead_of(aten.mm.dtype)
def mm_with_another_dtype(a, b, out_dtype):
    assert a.dtype == b.dtype and a.dtype in HALVES and out_dtype == torch.float32
    return a.float() @ b.float()


@instead_of(aten.addmm.dtype_out)
def addmm_with_another_dtype(total, a, b, out_dtype, *, beta=1, alpha=1, out):
    assert total is out or total.data_ptr() == out.data_ptr()  # as we call it: nothing is copied
    assert out.dtype == out_dtype and beta == alpha == 1
    return out.add_(mm_with_another_dtype(a, b, out_dtype))


@instead_of(aten._fused_sdp_choice.default)
def which_attention(*args, **kwargs) -> int:
    return 0  # torch's formula, which is made of other operators


@instead_of(aten.index_add_.default)
def index_add_(target, dim, index, source, alpha=1):
    """A GPU adds row by row, in the dtype of the target and in any order."""
    assert dim == 0 and alpha == 1
    if target.dtype not in HALVES:
        return target.index_add_(0, index, source)
    for place, row in zip(index.tolist(), source):
        target[place] += row
    return target


@instead_of(aten.index_add.default)
def index_add(target, dim, index, source, alpha=1):
    return index_add_(target.clone(), dim, index, source, alpha)


# ---------------------------------------------------------------------------------- flash attention


def probabilities(given: dict):
    """Sequence by sequence: where its queries and its keys stand, p (heads, queries, keys), and the
    logsumexp of the scores (heads, queries). The last query sees all keys, the one before it one
    key less."""
    q, k, v = given["query"], given["key"], given["value"]
    ends_q, ends_k = given["cu_seq_q"], given["cu_seq_k"]
    assert q.dtype == k.dtype == v.dtype and q.dtype in HALVES
    assert ends_q.dtype == ends_k.dtype == torch.int32
    assert q.shape[2] % 8 == 0 and q.shape[2] <= 256 and q.shape[1] == k.shape[1] == v.shape[1]
    assert q.stride(2) == k.stride(2) == v.stride(2) == 1
    assert ends_q[0] == ends_k[0] == 0 and ends_q[-1] == len(q) and ends_k[-1] == len(k) == len(v)
    assert given["max_q"] == ends_q.diff().max() and given["max_k"] == ends_k.diff().max()
    assert tuple(given["window_size"]) == (-1, 0)
    for a, b, c, d in zip(ends_q[:-1], ends_q[1:], ends_k[:-1], ends_k[1:]):
        scores = torch.einsum("qhd,khd->hqk", q[a:b].float(), k[c:d].float()) * given["scale"]
        later = torch.ones(b - a, d - c, dtype=torch.bool).triu(int((d - c) - (b - a)) + 1)
        scores = scores.masked_fill(later, float("-inf"))
        yield slice(a, b), slice(c, d), scores.softmax(-1), scores.logsumexp(-1)


def arguments(operator, args, kwargs) -> dict:
    """By name, as the operator's schema has them."""
    names = [argument.name for argument in operator._schema.arguments]
    given = dict(zip(names, args)) | kwargs
    if given.get("scale") is None:
        given["scale"] = given["query"].shape[2] ** -0.5
    return given


def flash_attention(operator):
    def forward(*args, **kwargs):
        given = arguments(operator, args, kwargs)
        out = torch.empty_like(given["query"])
        sums = []
        for queries, keys, p, logsumexp in probabilities(given):
            out[queries] = torch.einsum("hqk,khd->qhd", p, given["value"][keys].float())
            sums.append(logsumexp)
        results = out, torch.cat(sums, 1), torch.zeros(2, dtype=torch.uint64)
        return results[: len(operator._schema.returns)]

    return forward


def flash_attention_backward(operator):
    def backward(*args, **kwargs):
        given = arguments(operator, args, kwargs)
        q, k, v = (given[name].float() for name in ("query", "key", "value"))
        dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for queries, keys, p, _ in probabilities(given):
            g = given["grad_out"][queries].float()
            dv[keys] += torch.einsum("hqk,qhd->khd", p, g)
            dp = torch.einsum("qhd,khd->hqk", g, v[keys])
            ds = p * (dp - (p * dp).sum(-1, keepdim=True)) * given["scale"]
            dq[queries] += torch.einsum("hqk,khd->qhd", ds, k[keys])
            dk[keys] += torch.einsum("hqk,qhd->khd", ds, q[queries])
        dtype = given["query"].dtype
        return dq.to(dtype), dk.to(dtype), dv.to(dtype)

    return backward


# ---------------------------------------------------------------------------------- Triton


class Kernel:
    """In the place of fast/paged_kernel.py's: its plain form in fp32, or the kernel itself in
    Triton's interpreter, which takes minutes where this takes seconds; recorded as a kernel is."""

    interpreted = False
    launches = 0

    def __init__(self, kernel):
        self.kernel = kernel

    def __getitem__(self, grid):
        def launch(q, keys, values, table, lengths, out, scale, limit, **sizes):
            tensors = [inner(x) for x in (q, keys, values, table, lengths, out)]
            check_launch(grid, *tensors, limit, sizes)

            def run():
                Kernel.launches += 1
                if self.interpreted:
                    self.kernel[grid](*tensors, scale, limit, **sizes)
                else:
                    gathered(*tensors)

            if State.recording is not None:
                State.recording.keep([tensors[-1]])
                State.recording.tape.append((run, (), {}, []))
            with torch._C._DisableTorchDispatch():
                run()

        return launch


def gathered(q, keys, values, table, lengths, out) -> None:
    from fast.paged import gathered_attention

    numbers = q.float(), keys.float(), values.float()
    out.copy_(gathered_attention(*numbers, table, lengths))


def check_launch(grid, q, keys, values, table, lengths, out, limit: int, sizes: dict) -> None:
    """What the kernel's pointers take for granted."""
    assert grid == (len(q), keys.shape[1]) == (len(table), sizes["KV"])
    assert sizes["GROUP"] * sizes["KV"] == q.shape[1] and sizes["D"] == q.shape[2]
    assert sizes["PAGE"] == keys.shape[2] and sizes["PAD"] >= sizes["GROUP"]
    assert sizes["DPAD"] >= sizes["D"]
    assert table.dtype == torch.int32 and limit == table.stride(0) and table.stride(1) == 1
    assert q.dtype == keys.dtype == values.dtype == out.dtype
    assert all(x.is_contiguous() for x in (q, keys, values, lengths, out))
    assert 0 <= table.min() and table.max() < len(keys) and lengths.max() <= table.shape[1] * 16


def install() -> None:
    os.environ["TRITON_INTERPRET"] = "1"  # Triton looks when it is imported, as torch's compiler is
    import torch.nn.attention.varlen  # it registers the operators

    from fast import paged_kernel

    ops = torch.ops.torch_attn
    forward = ops._varlen_attn.default
    backward = ops._varlen_attn_backward.default
    instead_of(forward)(flash_attention(forward))
    instead_of(backward)(flash_attention_backward(backward))
    paged_kernel.paged_kernel = Kernel(paged_kernel.paged_kernel)
