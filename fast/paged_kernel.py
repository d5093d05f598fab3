"""The Triton kernel that attends over pages of keys and values, for paged.py on a GPU.

Its plain form is `gathered_attention` there. tests/test_kernel.py holds it to that form in Triton's
interpreter, and assembles it for GPUs that need not be there.

A decode step reads every key and value once, and the memory should be all that it waits for. So the
two products run on the tensor cores, which take tiles of at least 16 by 16: few query heads are
padded to 16 rows, and a narrow head to 16 columns. docs/speed.md has the instructions of the loop.
"""

import torch

try:  # torch brings it along on CUDA
    import triton
    import triton.language as tl
except ImportError:  # then paged.py never calls what stands here
    triton = None

TILE = 16  # the least rows and columns that a product on the tensor cores takes


def paged_attention(q, keys, values, table, lengths):
    """As gathered_attention, but live tokens alone are read, each of them once."""
    S, n_heads, D = q.shape
    n_kv = keys.shape[1]
    group = n_heads // n_kv
    q = q.contiguous()
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    paged_kernel[(S, n_kv)](
        q,
        keys,
        values,
        table,
        lengths,
        out,
        D**-0.5,
        table.stride(0),
        KV=n_kv,
        GROUP=group,
        PAD=padded(group),
        D=D,
        DPAD=padded(D),
        PAGE=keys.shape[2],
        BLOCK=128 // q.element_size(),
        STAGES=3,
        num_warps=4,
    )
    return out


def padded(size: int) -> int:
    """Triton's arrays have sizes that are powers of 2."""
    return max(TILE, triton.next_power_of_2(size))


if triton:

    @triton.jit
    def paged_kernel(
        q,
        keys,
        values,
        table,
        lengths,
        out,
        scale,
        limit,
        KV: tl.constexpr,
        GROUP: tl.constexpr,
        PAD: tl.constexpr,
        D: tl.constexpr,
        DPAD: tl.constexpr,
        PAGE: tl.constexpr,
        BLOCK: tl.constexpr,
        STAGES: tl.constexpr,
    ):
        """One program: the GROUP query heads of one slot and one key head.

        It walks over the slot's tokens, BLOCK at a time, with a running softmax (Milakov &
        Gimelshein 2018): `top` is the highest score so far, `total` the sum of exp(score - top).
        While one block is worked on, the next is on its way from memory: STAGES says how far ahead
        page numbers, and then keys and values, are asked for.
        """
        slot = tl.program_id(0).to(tl.int64)
        head = tl.program_id(1)
        length = tl.load(lengths + slot).to(tl.int32)
        g = tl.arange(0, PAD)
        d = tl.arange(0, DPAD)
        t = tl.arange(0, BLOCK)
        at_q = (slot * KV + head) * GROUP * D + g[:, None] * D + d[None, :]  # (PAD, DPAD)
        real_q = (g[:, None] < GROUP) & (d[None, :] < D)
        query = tl.load(q + at_q, mask=real_q, other=0.0)
        top = tl.full((PAD,), float("-inf"), tl.float32)
        total = tl.zeros((PAD,), tl.float32)
        result = tl.zeros((PAD, DPAD), tl.float32)
        for start in tl.range(0, length, BLOCK, num_stages=STAGES):
            token = start + t  # (BLOCK,)
            here = token < length
            page = tl.load(table + slot * limit + token // PAGE, mask=here, other=0).to(tl.int64)
            row = ((page * KV + head) * PAGE + token % PAGE) * D  # (BLOCK,)
            real = here[:, None] & (d[None, :] < D)
            k = tl.load(keys + row[:, None] + d[None, :], mask=real, other=0.0)  # (BLOCK, DPAD)
            v = tl.load(values + row[:, None] + d[None, :], mask=real, other=0.0)
            score = tl.dot(query, tl.trans(k), input_precision="ieee") * scale  # (PAD, BLOCK)
            score = tl.where(here[None, :], score, float("-inf"))
            higher = tl.maximum(top, tl.max(score, 1))
            shrink = tl.exp(top - higher)
            weight = tl.exp(score - higher[:, None])
            rounded = weight.to(v.dtype)
            result = tl.dot(rounded, v, result * shrink[:, None], input_precision="ieee")
            total = total * shrink + tl.sum(weight, 1)
            top = higher
        tl.store(out + at_q, (result / total[:, None]).to(out.dtype.element_ty), mask=real_q)
