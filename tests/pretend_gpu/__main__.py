"""The program: python -m tests.pretend_gpu. See the package's docstring."""

import os
import runpy
import sys
from pathlib import Path

from tests.pretend_gpu import blocks, device

USAGE = (
    "usage: python -m tests.pretend_gpu [--reached FILE] [--children] script.py ... | -m module ..."
)
CHILDREN = Path(__file__).with_name("children")


def main() -> None:
    argv = sys.argv[1:]
    out = None
    if argv[:1] == ["--reached"]:  # a file for the GPU blocks that were reached, one a line
        out = Path(argv[1])
        argv = argv[2:]
    if argv[:1] == ["--children"]:  # the Python processes that this one starts have the GPU too
        os.environ["PYTHONPATH"] = f"{CHILDREN}{os.pathsep}{os.getcwd()}"
        argv = argv[1:]
    if not argv:
        sys.exit(USAGE)
    sys.path.insert(0, os.getcwd())
    reached = blocks.install()
    device.install()
    try:
        run(argv)
    finally:
        if out is not None:
            out.write_text("\n".join(sorted(reached)))


def run(argv: list[str]) -> None:
    if argv[0] == "-m":
        sys.argv = argv[1:]
        runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
        return
    sys.argv = argv
    runpy.run_path(argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
