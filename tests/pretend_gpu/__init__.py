"""A GPU that is not there: tensors that say "cuda", with their numbers in the CPU's memory.

    python -m tests.pretend_gpu -m pytest -m gpu              the tests that need a GPU
    python -m tests.pretend_gpu grpo.py --ckpt out/4K.pt ...  any script
    python -m tests.pretend_gpu --children -m tools.first_gpu --out out/g --preset toy
                                                              and the processes that it starts

Every branch that asks for the GPU is taken, with real numbers: autocast("cuda"), bf16 copies of the
weights, pages, packed attention, pinned memory, recorded graphs. What a GPU punishes is seen:

  - tensors of two devices in one kernel raise an error
  - while a graph is recorded, whatever would wait for the device raises one
  - a replay runs the recorded kernels on the recorded memory, not the Python that recorded them
  - a pinned buffer that changes before a copy from it is known to be over raises one, and a buffer
    that is copied into holds something else until somebody has waited for the copy
  - memory that nobody has written is NaN

It takes g++, for a device guard that torch's CPU build lacks. It says nothing about speed, about
the numbers of a GPU's own kernels, about streams that run at the same time, or about memory.

    guard.py    compiles guard.cpp
    device.py   the tensors, and what the host may do with them
    graphs.py   streams, events, recorded graphs
    kernels.py  operators that only a GPU has
    children/   what a process does at its start to have such a GPU
    blocks.py   which lines only a GPU reaches, and whether they were reached
"""
