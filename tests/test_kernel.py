"""The Triton kernel without a GPU: right in Triton's interpreter, and assembled for two kinds of GPU without spilled registers."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

triton = pytest.importorskip("triton", reason="needs triton, see tests/requirements.txt")

from tests import kernel_cases

# Registers of a thread at most, by the width of a head. A thread can have 255, and spills what it
# needs beyond; a multiprocessor has 65,536, so two programs of 128 threads run on it at a time.
MOST_REGISTERS = {16: 80, 64: 200, 128: 216}
MOST_SHARED = 8192


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
    assert {row["dtype"] for row in rows} == {"torch.float32", "torch.bfloat16"}
    for row in rows:
        assert row["spills"] == 0 and row["stack"] == 0, row
        assert row["registers"] <= MOST_REGISTERS[row["head_dim"]], row
        assert row["shared"] <= MOST_SHARED and row["instructions"] > 100, row


def test_spilled_registers_are_seen(cache):
    """With fewer registers than the kernel asks for, the same program must count what is spilled."""
    said = said_by("kernel_build", 90, "--registers", 96, "--preset", "1B", TRITON_INTERPRET="0")
    for row in map(json.loads, said):
        assert row["spills"] > 50 and row["stack"] > 0 and row["registers"] <= 96, row
