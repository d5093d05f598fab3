"""From the kernels of a decode step to the share of the bandwidth that is expected of it.

Nothing here was timed on a GPU. A kernel takes the longest of three times: its bytes at the rate
that such a kernel is expected to reach, its products at theirs, and the least that a small kernel
takes in a recorded graph. The limit is what no program can do without: weights and live keys and
values, once each, as quickly as an H100 copies memory.
"""

from model import ModelConfig
from study.costs import KINDS, kv_bytes_per_token, parameters
from tests.fake_gpu.meter import Kernel
from tests.fake_gpu.operators import PagedKernel

COPIES = 3.0e12  # bytes per second that copies reach on an H100, measured by others
NOMINAL = KINDS["h100"].bandwidth  # 3.35e12, the data sheet
REACHED = 0.9  # share of COPIES that a kernel reaches which is bound by memory
PRODUCTS = 0.65  # share of the peak FLOP/s that cuBLAS reaches on large products
MISALIGNED = 1 / 3  # of that, where rows do not begin at multiples of 16 bytes
LEAST = 2e-6  # seconds of a kernel in a recorded graph, with the gap to the next one

# The kernel over the pages was bound by its instructions: 2,481 for 64 tokens of a head, at best 3.0
# TB/s if every issue slot were used, of which 60 % are expected. On tensor cores it is some 460.
FEW_INSTRUCTIONS = 1_000
BOUND_BY_INSTRUCTIONS = 0.6 * 3.04e12  # bytes per second


def seconds_of(kernel: Kernel, on_tensor_cores: bool) -> float:
    rate = REACHED * COPIES
    if kernel.name == "paged_kernel" and not on_tensor_cores:
        rate = BOUND_BY_INSTRUCTIONS
    flops = KINDS["h100"].flops * PRODUCTS
    if not kernel.aligned:
        flops *= MISALIGNED
    return max(LEAST, kernel.moved / rate, kernel.flops / flops)


def least_bytes(shape: ModelConfig, slots: int, context: int) -> float:
    """Weights in bf16 and the keys and values of all slots."""
    return 2 * parameters(shape)["matmul"] + slots * context * kv_bytes_per_token(shape)


def expected(shape: ModelConfig, slots: int, kernels: list[Kernel], on_tensor_cores: bool) -> dict:
    """What a decode step is expected to take, by kinds of kernels, and its share of the limit."""
    seconds = {"pages": 0.0, "products": 0.0, "small": 0.0, "others": 0.0}
    for kernel in kernels:
        took = seconds_of(kernel, on_tensor_cores)
        seconds[kind_of(kernel, took)] += took
    limit = least_bytes(shape, slots, PagedKernel.context) / COPIES
    return {
        "limit_ms": 1e3 * limit,
        "expected_ms": 1e3 * sum(seconds.values()),
        "of_which_ms": {kind: 1e3 * value for kind, value in seconds.items()},
        "share": limit / sum(seconds.values()),
        "share_of_nominal": limit * COPIES / NOMINAL / sum(seconds.values()),
    }


def kind_of(kernel: Kernel, took: float) -> str:
    if kernel.name == "paged_kernel":
        return "pages"
    if kernel.flops:
        return "products"
    return "small" if took == LEAST else "others"
