"""Speed, against the hardware's limits and against a peer: same machine, same weights, same work.

    python -m tools.bench sample                # a 1.3M-parameter model on a CPU
    python -m tools.bench sample --peer         # and transformers, where it is installed
    python -m tools.bench sample --preset 1B --prompts 512 --n 32 --new 2048 --mean 200 \\
        --work mix --slots 256,512 --compile --peer --peer_prompts 64 --batches 512     # on a GPU

`sample` is a load as in GRPO: n rollouts of each of some random prompts, with random weights. In
the work `same` every rollout has --new tokens. In `mix` lengths are drawn from an exponential with
mean --mean and cut at --new; the peer gets those of the first --peer_prompts. Speed counts the
tokens asked for, so work on rollouts that have ended is nobody's gain. All programs share one
process, and on a CPU the memory that it frees stays with it.

roofline: the time to read all weights but the embedding once per decode step, and the keys and
values of every live token once per step and layer, at the bandwidth that copying reaches; printed
is the share of it that the run reached. The peak is that of the run on a GPU, and that of the
process so far on a CPU.

    python -m tools.bench train --peer          # a step of pre-training, of SFT and of RL's update
    python -m tools.bench train --preset 1B --batch 8 --seq_len 4096 --peer --compile
    python -m tools.bench step                  # one whole GRPO step by phase

Each program of `train` has a process of its own. On a CPU they take steps in turn, so that a
machine whose speed varies is the same for all. There transformers runs twice: as its users have
it, and keeping freed memory in the process as fast/ does. --plain adds the program without fast/.

MFU: 6 FLOPs per multiplying weight and token, and attention counted over all pairs, of 989 TFLOP/s
(H100 and H200, bf16, dense), or of the matrix products measured in the same run on a CPU. In the RL
update fast/ computes a prompt once for all its rollouts. Speed counts it for each of them, as the
other programs compute it; MFU counts what was computed.

The peers of `sample` are transformers' generate, on a GPU also its continuous batching
(generate_batch) and nano-vllm. One that is not installed, or fails, has a line that says so and
what to install. The last line is one JSON object: what was measured, how many times as fast as
each peer ours is, the device, versions, the date.
"""

import argparse
import json

import numpy as np

from data import UserError
from plumbing.files import append_row
from plumbing.flags import OneLineParser, check, leave
from plumbing.version import code_version
from tools.bench_sample import bench_sample, sample_ratios
from tools.bench_train import bench_step, bench_train, train_ratios
from tools.measure import MODELS, where
from tools.summary import summary

PEERS = ["generate", "generate_batch", "nano-vllm"]


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def bench_flags() -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = OneLineParser(prog="bench.py", description=__doc__, formatter_class=layout)
    add = parser.add_argument
    add("what", choices=["sample", "train", "step"])
    add("--preset", default="bench", choices=[*MODELS], help="the model; random weights")
    add("--prompts", type=int, help="default 64; in train 16")
    add("--prompt_tokens", type=int, default=40)
    add("--n", type=int, help="rollouts per prompt; default 16; in train 8")
    add("--new", type=int, default=64, help="tokens per rollout, at most")
    add("--mean", type=float, default=0, help="of mix, before the cut; default a third of --new")
    add("--work", choices=["same", "mix", "both"], default="both", help="of sample")
    add(
        "--slots",
        type=numbers,
        default=[256, 512, 1024],
        help="rollouts decoded at a time; several joined by commas",
    )
    add("--batch", type=int, default=32, help="sequences of a pre-training step")
    add("--seq_len", type=int, default=256, help="their tokens")
    add("--micro_tokens", type=int, default=8192, help="tokens per forward pass in training")
    add("--peer", action="store_true", help="other programs on the same work as well")
    add(
        "--peers",
        type=lambda text: text.split(","),
        default=PEERS,
        help=f"which of them in sample; default {','.join(PEERS)}",
    )
    add("--plain", action="store_true", help="the program without fast/ as well; in step instead")
    add(
        "--compile",
        action="store_true",
        help="our regions compiled; in train a row more, and transformers' model compiled too",
    )
    add(
        "--peer_prompts",
        type=int,
        default=0,
        help="peers sample from the first so many prompts; default all",
    )
    add("--batches", type=numbers, default=[128, 256, 512], help="batch sizes of generate")
    add(
        "--repeats",
        type=int,
        default=0,
        help="runs of each: the fastest of 2 in sample, the median of 9 in train",
    )
    add("--seed", type=int, default=0)
    add("--progress", action="store_true")
    add("--out", default="", help="a jsonl to append the rows to")
    args = parser.parse_args()
    if args.prompts is None:
        args.prompts = 16 if args.what == "train" else 64
    if args.n is None:
        args.n = 8 if args.what == "train" else 16
    sizes = ("prompts", "prompt_tokens", "n", "new", "slots", "batch", "seq_len", "micro_tokens")
    for name in (*sizes, "batches"):
        check(np.min(getattr(args, name)) >= 1, f"--{name}: 1 or more")
    check(set(args.peers) <= set(PEERS), f"--peers: some of {','.join(PEERS)}")
    for name in ("mean", "peer_prompts", "repeats"):
        check(getattr(args, name) >= 0, f"--{name}: 0, which is the default, or more")
    return args


def main() -> None:
    args = bench_flags()
    bench = {"sample": bench_sample, "train": bench_train, "step": bench_step}[args.what]
    rows = bench(args)
    if args.out:
        about = {"what": args.what, "where": where(), "args": vars(args), "code": code_version()}
        for row in rows:
            append_row(args.out, row | about)
    ratios = {"sample": sample_ratios, "train": train_ratios, "step": lambda rows: {}}[args.what]
    print(json.dumps(summary(args.what, args.preset, rows, ratios(rows))))


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError, ImportError) as error:
        leave(f"bench.py: {error}")
