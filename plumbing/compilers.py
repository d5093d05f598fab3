"""Which compilers a machine must have for code that is made while a program runs.

On a GPU that is Triton's: for --compile, and for the kernel that fast/paged_kernel.py samples with.
On a CPU --compile needs a C++ compiler. Needs no torch.
"""

import importlib.util
import os
import shutil
import sysconfig


def triton_lacks() -> str:
    """What Triton would need here and does not find, in words; "" if nothing is missing.

    The package compiles its kernels by itself, but what launches them is C that it writes and
    compiles on this machine, against Python's own headers.
    """
    if importlib.util.find_spec("triton") is None:
        return "triton, which comes with torch on CUDA"
    compilers = [os.environ["CC"]] if "CC" in os.environ else ["gcc", "clang"]
    if not any(shutil.which(compiler) for compiler in compilers):
        return f"a C compiler ({' or '.join(compilers)})"
    folders = [sysconfig.get_config_var("INCLUDEPY") or ""]
    for variable in ("CPATH", "C_INCLUDE_PATH"):
        folders += os.environ.get(variable, "").split(os.pathsep)
    if not any(os.path.exists(os.path.join(folder, "Python.h")) for folder in folders if folder):
        return f"Python.h in {folders[0]}, which the package python3-dev or its like brings"
    return ""


def cpp_lacks() -> str:
    """Likewise for torch's compiler on a CPU."""
    compilers = [os.environ.get("CXX", "g++"), "clang++"]
    if any(shutil.which(compiler) for compiler in compilers):
        return ""
    return f"a C++ compiler ({' or '.join(compilers)})"
