"""The last line of a benchmark: one JSON object with what was measured, where and with what."""

import importlib.metadata
import platform
import time

import torch

from plumbing.ranks import device
from plumbing.version import code_version
from tools.measure import device_name

PACKAGES = ("torch", "triton", "transformers", "flash-attn", "nano-vllm", "numpy")


def summary(what: str, preset: str, rows: list[dict], ratios: dict) -> dict:
    """rows: as they are written to --out. ratios: work -> another program -> {ours: times}."""
    measured = []
    for row in rows:
        speed = row.get("tokens_per_s", row["tokens"] / row["seconds"])
        measured.append(row | {"tokens_per_s": speed})
    return {
        "what": what,
        "preset": preset,
        "device": device_name(),
        "kind": device().type,
        "date": time.strftime("%Y-%m-%d"),
        "code": code_version(),
        "versions": versions(),
        "measured": measured,
        "ratios": ratios,
    }


def versions() -> dict[str, str | None]:
    """Of Python, of torch's CUDA, which may be None, and of those packages that are installed."""
    found = {"python": platform.python_version(), "cuda": torch.version.cuda}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
