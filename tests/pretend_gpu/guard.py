"""Compiles guard.cpp, once for each version of torch and of the source."""

import ctypes
import hashlib
import importlib.util
import os
import runpy
import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("guard.cpp")
CACHE = Path(__file__).parents[2] / ".pytest_cache" / "pretend_gpu"


def compiler() -> str:
    return os.environ.get("CXX", "g++")


def what_is_missing() -> str:
    """Why a pretended GPU is not possible here, in words; "" if it is."""
    if shutil.which(compiler()) is None:
        return f"needs a C++ compiler ({compiler()})"
    built = runpy.run_path(str(torch_folder() / "version.py"))
    if built["cuda"] or built["hip"]:
        return "needs a CPU build of torch"
    if importlib.util.find_spec("triton") is None:
        return "needs triton, see tests/requirements.txt"
    return ""


def torch_folder() -> Path:
    return Path(importlib.util.find_spec("torch").origin).parent


def load() -> ctypes.CDLL:
    """The library, to be loaded before torch is imported; its use_guard() comes after that."""
    return ctypes.CDLL(str(build()))


def build() -> Path:
    """The library's file. It takes seconds to compile, and is kept beside pytest's own cache."""
    torch = torch_folder()
    made_from = SOURCE.read_text() + (torch / "version.py").read_text() + str(torch)
    name = hashlib.sha256(made_from.encode()).hexdigest()[:16]
    library = CACHE / f"{name}.so"
    if not library.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        unfinished = CACHE / f"{name}.{os.getpid()}.so"
        include = torch / "include"
        flags = ["-std=c++20", "-O1", "-w", "-shared", "-fPIC"]
        flags += [f"-I{include}", f"-I{include}/torch/csrc/api/include"]
        flags += [f"-L{torch}/lib", f"-Wl,-rpath,{torch}/lib", "-lc10", "-ltorch_cpu"]
        subprocess.run([compiler(), str(SOURCE), *flags, "-o", str(unfinished)], check=True)
        unfinished.replace(library)  # two processes may do this at once
    return library
