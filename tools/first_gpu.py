"""For the first day with a GPU: does everything run there, and how fast?

    python -m tools.first_gpu --out results/first_gpu                  # ten minutes at 1B
    python -m tools.first_gpu --out out/g --parts tests,train          # some parts
    python -m tools.first_gpu --out out/g --preset toy                 # small, for a try

One part after another, each in a process of its own with a limit in seconds:

    tests    pytest on the tests marked gpu
    sample   tools.bench sample: 512 rollouts at 256 and at 512 slots
    peers    the same beside transformers' continuous batching and nano-vllm, where installed
    train    tools.bench train: a step of pre-training, of SFT and of an RL update
    step     tools.bench step: a whole GRPO step by phase

Weights are random: nothing is downloaded, and the network is not asked. A part that fails or runs
out of time ends no other, and what it had printed stays in OUT/first_gpu.PART.txt. What is left of
a part's time goes to those that follow; together they end within --minutes.

OUT/first_gpu.jsonl gets the rows of the benchmarks and one row for each part. OUT/first_gpu.md,
written anew after each part, says what was found and which of EXPECTATIONS held. Without a GPU the
command says so in one line and exits with 1; it exits with 1 too where a part failed.
"""

import argparse
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from data import UserError
from plumbing.files import append_row
from plumbing.flags import OneLineParser, check, leave
from plumbing.version import code_version
from tools.first_gpu_page import SUMMARY, write_page
from tools.measure import MODELS, where

ROOT = Path(__file__).parents[1]
LARGE = ("1B", "4B")  # presets that are compiled, and have the work that EXPECTATIONS are about
SHARES = {"tests": 160, "sample": 120, "peers": 150, "train": 110, "step": 50}  # of the time
GRACE = 5.0  # seconds between the request to end and the end


@dataclass
class Part:
    """A command to run, and what came of it."""

    name: str
    command: list[str]
    share: float
    outcome: str = "not run"
    ok: bool = False
    seconds: float = 0.0
    limit: float = 0.0
    summary: dict | None = None  # the last line of a benchmark
    said: str = ""  # all that it printed


# ---------------------------------------------------------------------------------- the parts

SAMPLE = "--prompts 32 --n 16 --new 512"
TRAIN = "--batch 8 --seq_len 4096 --micro_tokens 16384 --prompts 8 --n 16 --new 512 --repeats 3"
STEP = "--prompts 16 --n 16 --new 512 --slots 256"
SMALL_SAMPLE = "--prompts 2 --n 2 --new 6 --prompt_tokens 5 --repeats 1"
SMALL_TRAIN = f"{SMALL_SAMPLE} --batch 2 --seq_len 16"


def parts_of(args) -> list[Part]:
    """The chosen parts with their commands, in the order in which they run."""
    large = args.preset in LARGE
    sample = SAMPLE if large else SMALL_SAMPLE
    slots = "256,512" if large else "2,4"
    most = "512" if large else "4"
    train = TRAIN if large else SMALL_TRAIN
    step = STEP if large else f"{SMALL_TRAIN} --slots 4"
    flags = {
        "sample": f"sample {sample} --slots {slots}",
        "peers": f"sample {sample} --slots {most} --work mix --peer "
        f"--peers generate_batch,nano-vllm --batches {most}",
        "train": f"train {train}",
        "step": f"step {step}",
    }
    parts = []
    for name in args.parts:
        if name == "tests":
            tests = ["-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider"]
            command = [sys.executable, *tests, *(args.tests or marked_tests())]
        else:
            rows = ["--preset", args.preset, "--out", f"{args.out}/first_gpu.jsonl"]
            rows += ["--compile"] if large else []
            command = [sys.executable, "-m", "tools.bench", *flags[name].split(), *rows]
        parts.append(Part(name, command, SHARES[name]))
    return parts


def marked_tests() -> list[str]:
    """The files that hold tests marked gpu: the others need not even be imported."""
    found = []
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        if "mark.gpu" in path.read_text(encoding="utf-8"):
            found.append(str(path.relative_to(ROOT)))
    return found


# ---------------------------------------------------------------------------------- running


def run_parts(parts: list[Part], out: Path, seconds: float, about: dict) -> None:
    """Run each, and write its row and the page after it. They end within so many seconds."""
    end = time.monotonic() + seconds
    for i, part in enumerate(parts):
        waiting = sum(later.share for later in parts[i:])
        left = max(0.0, end - time.monotonic())
        part.limit = max(0.0, left * part.share / waiting - GRACE)
        print(f"{part.name:<7} at most {part.limit:.0f} s: {shlex.join(part.command)}", flush=True)
        run(part, out / f"first_gpu.{part.name}.txt")
        print(f"{part.name:<7} {part.outcome} after {part.seconds:.0f} s", flush=True)
        row = {"part": part.name, "ok": part.ok, "outcome": part.outcome}
        row |= {"seconds": part.seconds, "limit": part.limit, "summary": part.summary}
        append_row(str(out / "first_gpu.jsonl"), row | about)
        write_page(out / "first_gpu.md", parts, about)


def run(part: Part, output: Path) -> None:
    """Run a part to its end or to its limit; what it prints goes to the file, line by line."""
    env = os.environ | {"PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
    start = time.monotonic()
    with open(output, "wb") as file:
        process = subprocess.Popen(
            part.command,
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that what it starts ends with it
        )
        try:
            status = process.wait(part.limit)
            part.outcome = "passed" if status == 0 else f"failed with exit status {status}"
            part.ok = status == 0
        except subprocess.TimeoutExpired:
            part.outcome = f"ran out of its {part.limit:.0f} s"
        finally:
            end_group(process)
    part.seconds = time.monotonic() - start
    part.said = output.read_text(encoding="utf-8", errors="replace")
    part.summary = summary_in(part.said)


def end_group(process: subprocess.Popen) -> None:
    """End a process and all that it has started."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, kind)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE - 1)


def summary_in(said: str) -> dict | None:
    """The JSON object that a benchmark ends with; behind it only warnings may follow."""
    for line in reversed(said.splitlines()[-20:]):
        if line.startswith(SUMMARY):
            with contextlib.suppress(ValueError):
                return json.loads(line)
    return None


# ---------------------------------------------------------------------------------- the program


def flags() -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = OneLineParser(prog="first_gpu.py", description=__doc__, formatter_class=layout)
    parser.add_argument("--out", required=True, help="a folder for the rows and the page")
    parser.add_argument("--preset", default="1B", choices=[*MODELS])
    parser.add_argument("--parts", default=",".join(SHARES), help="some of them, joined by commas")
    parser.add_argument("--minutes", type=float, default=9.5, help="for all parts together")
    parser.add_argument("--tests", nargs="*", help="files or tests, instead of all marked gpu")
    args = parser.parse_args()
    args.parts = args.parts.split(",")
    check(set(args.parts) <= set(SHARES), f"--parts: some of {','.join(SHARES)}")
    check(0 < args.minutes < 1e6, "--minutes: more than 0")
    return args


def main() -> None:
    args = flags()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # which ends the part that runs, too
    check(torch.cuda.is_available(), "there is no GPU here: torch.cuda.is_available() is False")
    out = Path(args.out).absolute()
    args.out = str(out)
    out.mkdir(parents=True, exist_ok=True)
    about = {
        "where": where(),
        "code": code_version(),
        "preset": args.preset,
        "command": shlex.join(["python", "-m", "tools.first_gpu", *sys.argv[1:]]),
    }
    parts = parts_of(args)
    run_parts(parts, out, 60 * args.minutes, about)
    print(f"the page: {out / 'first_gpu.md'}")
    sys.exit(0 if all(part.ok for part in parts) else 1)


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError) as error:
        leave(f"first_gpu.py: {error}")
