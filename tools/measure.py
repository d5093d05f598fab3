"""What tools/bench.py measures with: a clock, the machine's limits, and models to run."""

import gc
import platform
import resource
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from model import PRESETS, ModelConfig, Transformer
from plumbing.prepare import ComputeFlags, prepare
from plumbing.ranks import device

BENCH = ModelConfig(1024, 1024, d_model=128, n_layers=4, n_heads=4, n_kv_heads=4, d_ff=512)
MODELS = {"bench": replace(BENCH, max_seq_len=2048), **PRESETS}  # 1.3M parameters, and real ones


def clocked(work: Callable[[], object]) -> float:
    """Seconds that work() takes, to the end of its last kernel."""
    wait_for_device()
    start = time.perf_counter()
    work()
    wait_for_device()
    return time.perf_counter() - start


def wait_for_device() -> None:
    if device().type == "cuda":
        torch.cuda.synchronize()


def free_bytes() -> int:
    """Of the GPU's memory."""
    return torch.cuda.mem_get_info()[0]


def copy_bandwidth() -> float:
    """Bytes per second that a large copy reads and writes."""
    numbers = 2**26  # fp32: 256 MB
    if device().type == "cuda":
        numbers = min(2**28, free_bytes() // 16)  # 1 GB, or a quarter of what is free
    x = torch.empty(numbers, device=device())
    y = torch.empty_like(x)
    y.copy_(x)
    seconds = min(clocked(lambda: y.copy_(x)) for _ in range(5))
    return 2 * x.numel() * x.element_size() / seconds


def matmul_rate() -> float:
    """FLOP/s of large matrix products, as the forward pass multiplies: bf16 on a GPU, else fp32."""
    size = 1024
    dtype = torch.float32
    if device().type == "cuda":
        size = 8192 if free_bytes() > 2**30 else 512
        dtype = torch.bfloat16
    a = torch.randn(size, size, device=device(), dtype=dtype)
    b = torch.randn(size, size, device=device(), dtype=dtype)
    a @ b
    seconds = min(clocked(lambda: a @ b) for _ in range(10))
    return 2 * size**3 / seconds


def reset_peak() -> None:
    """Forget the peak so far; that of a process on a CPU cannot be forgotten."""
    if device().type == "cuda":
        torch.cuda.reset_peak_memory_stats()


def give_memory_back() -> None:
    """What nobody holds any more goes back to the GPU, for a program with memory of its own."""
    if device().type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()


def peak_bytes() -> int:
    if device().type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def device_name() -> str:
    """The GPU, or the processor and how many threads compute on it."""
    if device().type == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def where() -> str:
    """The machine, torch's version and the date."""
    return f"{device_name()}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}"


def bench_shape(args) -> ModelConfig:
    """The shape of --preset. Where a tokenizer would decide the vocabulary, it has 1,024 ids."""
    shape = MODELS[args.preset]
    if shape.vocab_size:
        return shape
    return replace(shape, vocab_size=1024, padded_vocab_size=1024)


def bench_model(args, plain: bool = False, compile: bool = False) -> Transformer:
    """Random weights, the same ones each time, on the device; with fast/ unless `plain`.

    On a CPU fast/ also makes this process keep the memory that it frees.
    """
    model = Transformer(bench_shape(args))
    model.init_weights(args.seed)
    return prepare(model.to(device()), ComputeFlags(plain=plain, compile=compile))


def size_of_model(args) -> str:
    with torch.device("meta"):
        model = Transformer(bench_shape(args))
    return f"{model.num_parameters():,} parameters"


def load_of(args) -> str:
    return f"{args.prompts} prompts of {args.prompt_tokens} tokens x {args.n} rollouts"
