"""The Triton kernel and its plain form on the same pages, with NaN wherever neither may look.

TRITON_INTERPRET=1 python -m tests.kernel_cases cpu       in Triton's interpreter
python -m tests.kernel_cases cuda                         on a GPU
"""

import sys

import torch

from fast.paged import PAGE, gathered_attention, pages_for
from fast.paged_kernel import paged_attention
from model import PRESETS

LENGTHS = [1, 15, 16, 17, 64, 65, 250]  # tokens of each slot
LIMIT = 16  # pages of a slot
# Query heads, key heads, width: the presets' widths, shared keys, and what is no power of 2.
HEADS = {(4, 2, 32), (6, 2, 24), (3, 1, 128)}
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
    """How far the kernel is from the plain form in fp32, beyond the last rounding to dtype.

    A GPU rounds to the nearest number; Triton's interpreter cuts the last bits of a bf16 off.
    """
    q, keys, values, table, lengths = (x.to(device) for x in case(*heads, dtype))
    got = paged_attention(q, keys, values, table, lengths).float()
    wanted = gathered_attention(q.float(), keys.float(), values.float(), table, lengths)
    cuts = device == "cpu" and dtype == torch.bfloat16
    rounding = torch.finfo(dtype).eps * wanted.abs() * (1.0 if cuts else 0.5)
    return float(((got - wanted).abs() - rounding).max())  # NaN if there is one anywhere


if __name__ == "__main__":
    for _heads in sorted(HEADS):
        for _name, _dtype in DTYPES.items():
            print(*_heads, _name, error(sys.argv[1], _heads, _dtype), flush=True)
