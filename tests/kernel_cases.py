"""The Triton kernel and its plain form on the same pages, with NaN wherever neither may look.

TRITON_INTERPRET=1 python -m tests.kernel_cases cpu       in Triton's interpreter
python -m tests.kernel_cases cuda                         on a GPU
"""

import sys

import numpy as np
import torch

from fast.paged import PAGE, gathered_attention, pages_for
from fast.paged_kernel import paged_attention
from model import PRESETS

LENGTHS = [1, 15, 16, 17, 64, 65, 250]  # tokens of each slot
LIMIT = 16  # pages of a slot
# Query heads, key heads, width: the presets' widths, shared keys, what is no power of 2, and what
# is less than a product on the tensor cores takes, or more rows than that.
HEADS = {(4, 2, 32), (6, 2, 24), (3, 1, 128), (4, 2, 8), (8, 2, 64), (8, 1, 16), (20, 1, 16)}
for _shape in PRESETS.values():
    HEADS.add((2, 2, _shape.head_dim))
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def case(n_heads: int, n_kv_heads: int, head_dim: int, dtype) -> list[torch.Tensor]:
    """q, keys, values, table and lengths of seven slots. No two of them have a page in common."""
    g = torch.Generator().manual_seed(n_heads * head_dim)
    slots = len(LENGTHS)
    shape = (slots * LIMIT + 1, n_kv_heads, PAGE, head_dim)
    keys = torch.randn(shape, generator=g)
    values = torch.randn(shape, generator=g)
    table = 1 + torch.randperm(slots * LIMIT, generator=g).view(slots, LIMIT)
    for x in (keys, values):
        x[0] = float("nan")
        for length, pages in zip(LENGTHS, table):
            for i, page in enumerate(pages.tolist()):
                x[page, :, max(0, length - i * PAGE) :] = float("nan")
    for length, pages in zip(LENGTHS, table):
        pages[pages_for(length) :] = 0
    q = torch.randn(slots, n_heads, head_dim, generator=g)
    numbers = [x.to(dtype) for x in (q, keys, values)]
    return [*numbers, table.int(), torch.tensor(LENGTHS)]


def error(device: str, heads: tuple[int, int, int], dtype) -> float:
    """How far the kernel is from the plain form in fp32, beyond what is rounded to dtype.

    That is the result and, before the product with the values, each weight of the softmax. A GPU
    rounds to the nearest number; Triton's interpreter cuts the last bits of a bf16 off.
    """
    q, keys, values, table, lengths = (x.to(device) for x in case(*heads, dtype))
    got = paged_attention(q, keys, values, table, lengths).float()
    q, keys, values = q.float(), keys.float(), values.float()
    wanted = gathered_attention(q, keys, values, table, lengths)
    cuts = device == "cpu" and dtype == torch.bfloat16
    eps = torch.finfo(dtype).eps * (1.0 if cuts else 0.5)
    of_weights = eps * gathered_attention(q, keys, values.abs(), table, lengths)
    of_result = eps * (wanted.abs() + of_weights)
    return float(((got - wanted).abs() - of_weights - of_result).max())  # NaN if there is one


def let_the_interpreter_multiply_bf16() -> None:
    """Triton's interpreter keeps a bf16 as its 16 bits, and multiplies these as if they were integers.

    From here on it multiplies the numbers, as a GPU does: exactly, with sums in fp32.
    """
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle, tl

    product = InterpreterBuilder.create_dot

    def numbers(x):
        if x.dtype.scalar != tl.bfloat16:
            return x
        bits = x.data.astype(np.uint32) << 16  # an fp32 begins with the bits of its bf16
        return TensorHandle(bits.view(np.float32), tl.float32)

    def create_dot(self, a, b, *more):
        return product(self, numbers(a), numbers(b), *more)

    InterpreterBuilder.create_dot = create_dot


if __name__ == "__main__":
    if sys.argv[1] == "cpu":
        let_the_interpreter_multiply_bf16()
    for _heads in sorted(HEADS):
        for _name, _dtype in DTYPES.items():
            print(*_heads, _name, error(sys.argv[1], _heads, _dtype), flush=True)
