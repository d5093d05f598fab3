"""The Triton kernel assembled for GPUs that are not there, and what the assembler says of it.

    python -m tests.kernel_build 90              for sm_90 (H100, H200); 80 is the A100
    python -m tests.kernel_build 90 --preset 1B --registers 96

It prints a JSON line for each shape among the presets, for grouped queries, and for each type of
number: registers of a thread, shared memory and stack in bytes, the instructions that spill
registers to memory or load them from there, and those of the loop over a slot's tokens, by 64
tokens. The call is fast/paged_kernel.py's own; only the launch is left out. --registers says how
many a thread may have at most. One process assembles for one kind of GPU, since Triton asks for it
once.
"""

import argparse
import json
import os
import re
import subprocess
import tempfile

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.driver import GPUDriver

from fast import paged_kernel
from fast.paged import PAGE
from model import PRESETS

# Query heads, key heads, width: what no preset has, 4 and 8 query heads to a key head.
GROUPED = {"4 to 1": (32, 8, 128), "8 to 1": (64, 8, 128)}
TOOLS = os.path.join(os.path.dirname(triton.__file__), "backends", "nvidia", "bin")


class AbsentGPU(GPUDriver):
    """As much of a driver as Triton asks before it compiles."""

    def __init__(self, capability: int):
        self.capability = capability

    @classmethod
    def is_active(cls) -> bool:
        return True

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)  # threads of a warp

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device) -> int:
        return 0

    def get_device_capability(self, device=0) -> tuple[int, int]:
        return divmod(self.capability, 10)

    def get_active_torch_device(self):
        return torch.device("cpu")

    def get_device_interface(self):
        return torch.cpu

    def map_python_to_cpp_type(self, ty):
        return ty

    def get_benchmarker(self):
        return None

    def get_empty_cache_for_benchmark(self):
        return None

    def clear_cache(self, cache) -> None:
        pass


class CompiledOnly:
    """In the place of a kernel: a launch compiles it, and keeps what was made."""

    def __init__(self, kernel, **options):
        self.kernel = kernel
        self.options = options
        self.made = None
        self.sizes = None

    def __getitem__(self, grid):
        def compile(*args, **sizes):
            self.made = self.kernel.warmup(*args, grid=grid, **sizes, **self.options)
            self.sizes = sizes

        return compile


def assemble(kernel: CompiledOnly, n_heads: int, n_kv_heads: int, head_dim: int, dtype) -> dict:
    """What paged_attention asks for with such heads -> the resources that it takes."""
    q = torch.zeros(2, n_heads, head_dim, dtype=dtype)
    keys = torch.zeros(3, n_kv_heads, PAGE, head_dim, dtype=dtype)
    table = torch.zeros(2, 256, dtype=torch.int32)
    paged_kernel.paged_kernel = kernel
    paged_kernel.paged_attention(q, keys, keys.clone(), table, torch.ones(2, dtype=torch.int64))
    found = resources(kernel.made)
    found["loop"] = found["loop"] * 64 / kernel.sizes["BLOCK"]
    return found


def resources(made) -> dict:
    """Read off the assembled program, not off what Triton expects of it."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        usage = said_by("cuobjdump", "--dump-resource-usage", file.name)
        program = said_by("nvdisasm", "-c", file.name)
    found = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", usage))
    instructions = re.findall(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?\w+ )?([A-Z][A-Z0-9.]*)", program, re.M)
    return {
        "registers": int(found["REG"]),
        "stack": int(found["STACK"]) + int(found["LOCAL"]),
        "shared": made.metadata.shared,
        "spills": sum(name.startswith(("LDL", "STL")) for name in instructions),
        "instructions": len(instructions),
        "loop": longest_loop(program),
    }


def longest_loop(program: str) -> int:
    """The instructions from a label to the last branch back to it, of the loop that has most.

    .L_x_1:
            /*0a10*/                   HMMA.16816.F32.BF16 R4, ... ;
            /*0a20*/              @P0  BRA `(.L_x_1) ;
    """
    place_of = {}
    n = 0  # instructions so far
    longest = 0
    for line in program.splitlines():
        label = re.match(r"^(\.L\w+):", line)
        if label:
            place_of[label[1]] = n
        if not re.match(r"^\s+/\*[0-9a-f]{4,}\*/\s+\S", line):
            continue
        n += 1
        target = re.search(r"\bBRA\b.*?(\.L\w+)", line)
        if target and target[1] in place_of:
            longest = max(longest, n - place_of[target[1]])
    return longest


def said_by(tool: str, *args: str) -> str:
    command = [os.path.join(TOOLS, tool), *args]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.kernel_build")
    parser.add_argument("capability", type=int)
    parser.add_argument("--registers", type=int, help="a thread may have no more")
    parser.add_argument("--preset", choices=shapes(), help="this one alone")
    args = parser.parse_args()
    triton.runtime.driver.set_active(AbsentGPU(args.capability))
    options = {"maxnreg": args.registers} if args.registers else {}
    kernel = CompiledOnly(paged_kernel.paged_kernel, **options)
    done = set()
    for name, heads in shapes().items():
        # 1B and 1B-60B are one model
        if heads in done or (args.preset and name != args.preset):
            continue
        done.add(heads)
        for dtype in (torch.bfloat16, torch.float32):
            row = {"preset": name, "head_dim": heads[2], "dtype": str(dtype)}
            print(json.dumps(row | assemble(kernel, *heads, dtype)), flush=True)


def shapes() -> dict[str, tuple[int, int, int]]:
    """Query heads, key heads and width of each preset, and those of grouped queries."""
    found = {}
    for name, shape in PRESETS.items():
        found[name] = (shape.n_heads, shape.n_kv_heads, shape.head_dim)
    return found | GROUPED


if __name__ == "__main__":
    main()
