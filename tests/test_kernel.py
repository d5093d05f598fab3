"""The Triton kernel without a GPU: right in Triton's interpreter, and assembled for two kinds of GPU without spilled registers."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

triton = pytest.importorskip("triton", reason="needs triton, see tests/requirements.txt")

from tests import kernel_cases

# By the width of a head, at most: registers of a thread, and for bf16 instructions of the loop by 64 tokens. A multiprocessor
# has 65,536 registers and an A100's 164 KB of shared memory, so four programs of 128 threads with a head of width 128 run on it
# at a time in bf16, and three in fp32: each has the next block of keys and values under way.
MOST_REGISTERS = {16: 96, 64: 80, 128: 128}
MOST_IN_LOOP = {16: 550, 64: 400, 128: 550}
MOST_SHARED = 45_056


def said_by(module, *args, **environment):
    """The lines that a test program prints, in a process of its own: Triton looks at its environment once."""
    env = {**os.environ, **environment}
    command = [sys.executable, "-m", f"tests.{module}", *map(str, args)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    if "only 0-dimensional arrays" in done.stderr:
        pytest.skip("the interpreter of Triton up to 3.6 does not run with numpy from 2.4 on")
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def test_the_kernel_equals_its_plain_form():
    """In Triton's interpreter; NaN in page 0, in foreign pages and behind the last token would show."""
    lines = said_by("kernel_cases", "cpu", TRITON_INTERPRET="1")
    assert len(lines) == 2 * len(kernel_cases.HEADS)
    for line in lines:
        assert float(line.split()[-1]) < 1e-5, line


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", kernel_cases.DTYPES)
def test_the_kernel_on_a_gpu(dtype):
    for heads in kernel_cases.HEADS:
        assert kernel_cases.error("cuda", heads, kernel_cases.DTYPES[dtype]) < 1e-5, heads


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Nothing that an earlier run has compiled is taken."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


@pytest.mark.parametrize("capability", [80, 90], ids=["A100", "H100"])
def test_the_kernel_fits_its_gpu(capability, cache):
    rows = [json.loads(line) for line in said_by("kernel_build", capability, TRITON_INTERPRET="0")]
    assert {row["head_dim"] for row in rows} == MOST_REGISTERS.keys()
    assert {"4 to 1", "8 to 1"} < {row["preset"] for row in rows}
    assert {row["dtype"] for row in rows} == {"torch.float32", "torch.bfloat16"}
    for row in rows:
        assert row["spills"] == 0 and row["stack"] == 0, row
        assert row["registers"] <= MOST_REGISTERS[row["head_dim"]], row
        assert row["shared"] <= MOST_SHARED and row["instructions"] > 100, row
        if row["dtype"] == "torch.bfloat16":
            assert 100 < row["loop"] <= MOST_IN_LOOP[row["head_dim"]], row


def test_the_instructions_of_a_loop_are_counted():
    """Of the longest one: a branch forward is none, and no label and no comment is an instruction."""
    from tests.kernel_build import longest_loop

    program = """
.text.kernel:
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_0:
        /*0010*/                   IADD3 R1, R1, 1 ;
        /*0020*/              @P0  BRA `(.L_x_0) ;
        /*0030*/              @!P1 BRA `(.L_x_2) ;
.L_x_1:
        /*0040*/                   HMMA.16816.F32.BF16 R4, R4, R8, R4 ;
.L_x_2:
        /*0050*/                   BAR.SYNC 0x0 ;
        /*0060*/              @P2  BRA `(.L_x_1) ;
        /*0070*/              @P3  BRA `(.L_x_1) ;
        /*0080*/                   EXIT ;
"""
    assert longest_loop(program) == 4
    assert longest_loop(program.replace("(.L_x_1)", "(.L_x_2)")) == 3
    assert longest_loop("        /*0000*/                   EXIT ;") == 0


def test_spilled_registers_are_seen(cache):
    """With fewer registers than the kernel asks for, the same program must count what is spilled."""
    said = said_by("kernel_build", 90, "--registers", 40, "--preset", "1B", TRITON_INTERPRET="0")
    for row in map(json.loads, said):
        assert row["spills"] > 50 and row["stack"] > 0 and row["registers"] <= 40, row
