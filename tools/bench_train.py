"""`bench.py train` and `step`: optimizer steps of ours and of the peer, a GRPO step by phase."""

import contextlib
import functools
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

import grpo
from data import UserError
from model import ModelConfig
from plumbing.batches import generator
from plumbing.optimizer import adamw, clipped_step
from plumbing.packs import old_logprobs
from plumbing.prepare import make_sampler
from plumbing.ranks import autocast, device
from plumbing.sharding import refresh
from pretrain import next_token_loss
from sampler import Rollout
from sft import Example, sft_backward
from study.costs import PEAK_FLOPS, training_flops
from tools import peer
from tools.bench_sample import load
from tools.measure import (
    bench_model,
    bench_shape,
    clocked,
    load_of,
    matmul_rate,
    peak_bytes,
    reset_peak,
    size_of_model,
    where,
)

KEPT = "transformers, freed memory kept"
WITH_FAST = ("ours", "ours, compiled", KEPT)  # of the last, only the memory that is kept
SHARE_PROMPTS = ("ours", "ours, compiled")

# ---------------------------------------------------------------------------------- the work


@dataclass
class Work:
    """The work of one training step."""

    sequences: list[list[int]]
    backward: Callable  # backward(model) leaves the gradient of the loss in our model
    shared: int = 0  # tokens of prompts that fast/ does not compute again

    def tokens(self) -> int:
        return sum(len(sequence) for sequence in self.sequences)

    def flops(self, shape: ModelConfig, computed: int) -> float:
        """Of both passes over so many tokens, with attention over all pairs of each sequence."""
        pairs = sum(len(sequence) ** 2 for sequence in self.sequences)
        return training_flops(shape, computed, context=pairs / computed)


def training_work(args) -> dict[str, Work]:
    """The steps of `train` by name. They are the same in every process."""
    rng = generator(args.seed, "bench train")
    vocab = bench_shape(args).vocab_size

    def draw(n: int) -> list[int]:
        return rng.integers(0, vocab, n).tolist()

    rows = [draw(args.seq_len) for _ in range(args.batch)]
    examples = []
    n_examples = args.batch * args.seq_len // (args.prompt_tokens + args.new)
    for length in rng.integers(1, 2 * args.new, n_examples).tolist():
        examples.append(Example(draw(args.prompt_tokens), draw(length)))
    groups = random_groups(args, rng, draw)
    sampled = []
    for prompt, rollouts in zip(groups.prompts, groups.rollouts):
        sampled += [[*prompt, *rollout.tokens] for rollout in rollouts]

    def pretrain_step(model):
        rows_per_pass = max(1, args.micro_tokens // args.seq_len)
        n_targets = args.batch * (args.seq_len - 1)
        for i in range(0, len(rows), rows_per_pass):
            tokens = torch.tensor(rows[i : i + rows_per_pass], device=device())
            _, loss = next_token_loss(model, tokens, z_loss=1e-5)
            (loss / n_targets).backward()

    def sft_step(model):
        sft_backward(model, examples, args.micro_tokens)

    def rl_step(model):
        config = rl_config(args, mini_batches=1)
        grpo.policy_backward(model, None, groups, list(range(args.prompts)), config)

    return {
        "pretrain": Work(rows, pretrain_step),
        "sft": Work([[*e.prompt, *e.response] for e in examples], sft_step),
        "rl update": Work(sampled, rl_step, args.prompts * (args.n - 1) * args.prompt_tokens),
    }


def rl_config(args, mini_batches: int) -> grpo.Config:
    sizes = dict(prompts=args.prompts, n=args.n, micro_tokens=args.micro_tokens)
    return grpo.Config(ckpt="", mini_batches=mini_batches, **sizes)


def random_groups(args, rng, draw) -> grpo.Groups:
    """Rollouts of random lengths with random advantages."""
    prompts = [draw(args.prompt_tokens) for _ in range(args.prompts)]
    rollouts = []
    for _ in range(args.prompts):
        lengths = rng.integers(1, 2 * args.new, args.n).tolist()
        rollouts.append([Rollout(draw(length), [-5.0] * length, True) for length in lengths])
    groups = grpo.Groups([None] * args.prompts, prompts, rollouts, list(range(args.prompts)))
    advantages = rng.normal(size=(args.prompts, args.n)).astype(np.float32)
    groups.advantages = torch.from_numpy(advantages)
    return groups


# ---------------------------------------------------------------------------------- the programs


def programs_of(args) -> list[str]:
    """Which programs run. On a CPU transformers runs once more, with freed memory kept."""
    names = ["ours"]
    if args.plain:
        names.append("ours, plain")
    if args.compile:
        names.append("ours, compiled")
    if args.peer:
        names.append("transformers")
        if device().type == "cpu":
            names.append(KEPT)
        if args.compile:
            names.append("transformers, compiled")
    return names


def is_ours(name: str) -> bool:
    return name.startswith("ours")


def serve(pipe, name: str, args) -> None:
    """In a process of its own: take a step of each kind asked for -> (seconds, peak bytes)."""
    plain = name not in WITH_FAST
    program = bench_model(args, plain, compile=name == "ours, compiled")
    if not is_ours(name):
        program = peer.peer_of(program).float().train().requires_grad_(True)
    if name == "transformers, compiled":
        program.compile()
    optimizer = torch.optim.AdamW(program.parameters(), lr=1e-6, fused=True)
    work_of = training_work(args)

    def run(work: Work) -> None:
        if is_ours(name):
            work.backward(program)
        else:
            peer.backward(program, work.sequences, args.micro_tokens)
        clipped_step(program, optimizer, 1.0)

    while True:
        step = pipe.recv()
        if step is None:
            return
        if hasattr(program, "expect_equal_rows"):  # ours, with fast/
            program.expect_equal_rows(step == "pretrain")
        reset_peak()
        seconds = clocked(functools.partial(run, work_of[step]))
        pipe.send((seconds, peak_bytes()))


@contextlib.contextmanager
def processes(names: list[str], args):
    """-> ask(name, step): the seconds of one such step of that program, and its peak bytes."""
    context = multiprocessing.get_context("spawn")
    pipes = {}
    children = []
    for name in names:
        pipes[name], theirs = context.Pipe()
        child = context.Process(target=serve, args=(theirs, name, args), daemon=True)
        child.start()
        children.append(child)
        theirs.close()

    def ask(name: str, step: str) -> tuple[float, int]:
        time.sleep(0.05)  # the threads of the program before wait in a loop for some milliseconds
        try:
            pipes[name].send(step)
            return pipes[name].recv()
        except (EOFError, OSError):
            raise UserError(f"{name} ended within {step}; its own message is above") from None

    yield ask
    for pipe in pipes.values():
        pipe.send(None)
    for child in children:
        child.join()


# ---------------------------------------------------------------------------------- train


def bench_train(args) -> list[dict]:
    """One optimizer step of pre-training, SFT and the RL update: gradient, clipping, AdamW."""
    if args.peer and peer.what_is_missing():
        print(f"not measured: {peer.what_is_missing()}")
        args.peer = False
    names = programs_of(args)
    rate = matmul_rate()
    peak = PEAK_FLOPS if device().type == "cuda" else rate
    print(f"{size_of_model(args)}; {where()}")
    print(f"matrix products at {rate / 1e12:.3f} TFLOP/s; MFU of {peak / 1e12:.3f} TFLOP/s\n")
    print(
        f"{'step':<10} {'program':<32} {'tokens':>8} {'seconds':>8} {'tokens/s':>9} "
        f"{'MFU':>5} {'of matmul':>9} {'peak GB':>8}"
    )
    rows = []
    # A GPU's memory holds one program at a time.
    together = [names] if device().type == "cpu" else [[name] for name in names]
    for some in together:
        with processes(some, args) as ask:
            for step, work in training_work(args).items():
                for name, answers in take_turns(some, step, args.repeats or 9, ask).items():
                    rows.append(train_row(args, step, work, name, answers, rate, peak))
    print_ratios(train_ratios(rows))
    return rows


def take_turns(names: list[str], step: str, repeats: int, ask) -> dict[str, list[tuple]]:
    """Name -> its (seconds, peak bytes), after two steps that make moments and compile kernels."""
    for name in 2 * names:
        ask(name, step)
    answers = {name: [] for name in names}
    for name in repeats * names:
        answers[name].append(ask(name, step))
    return answers


def train_row(args, step: str, work: Work, name: str, answers, rate: float, peak: float) -> dict:
    """A program's row, which is printed: the median of its seconds, and its highest peak."""
    tokens = work.tokens()
    computed = tokens - work.shared if name in SHARE_PROMPTS else tokens
    seconds = float(np.median([seconds for seconds, _ in answers]))
    flops_per_s = work.flops(bench_shape(args), computed) / seconds
    row = {
        "step": step,
        "program": name,
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_s": tokens / seconds,
        "mfu": flops_per_s / peak,
        "of_matmul": flops_per_s / rate,
        "peak_bytes": float(max(memory for _, memory in answers)),
    }
    print(
        f"{step:<10} {name:<32} {tokens:>8,} {seconds:>8.3f} {row['tokens_per_s']:>9,.0f} "
        f"{row['mfu']:>5.0%} {row['of_matmul']:>9.0%} {row['peak_bytes'] / 1e9:>8.2f}",
        flush=True,
    )
    return row


def train_ratios(rows: list[dict]) -> dict[str, dict]:
    """How many times as fast as each other program ours are: step -> it -> {ours: times}."""
    speeds = {}  # step -> program -> tokens per second
    for row in rows:
        speeds.setdefault(row["step"], {})[row["program"]] = row["tokens_per_s"]
    ratios = {}
    for step, of_step in speeds.items():
        ratios[step] = {}
        for theirs, speed in of_step.items():
            if not is_ours(theirs):
                times = {name: of_step[name] / speed for name in filter(is_ours, of_step)}
                ratios[step][theirs] = times
    return ratios


def print_ratios(ratios: dict[str, dict]) -> None:
    for step, others in ratios.items():
        for theirs, times in others.items():
            parts = [f"{name} {value:.2f} x" for name, value in times.items()]
            print(f"{step}: {'; '.join(parts)} as fast as {theirs}")


# ---------------------------------------------------------------------------------- step


def bench_step(args) -> list[dict]:
    """One GRPO step on random prompts, phase by phase; grading is left out, as there is no text."""
    model = bench_model(args, args.plain, args.compile)
    optimizer = adamw(model, 1e-6, (0.9, 0.999), 0.01)
    config = rl_config(args, mini_batches=2)
    prompts, lengths = load(args, True, model.config.vocab_size)
    sampler = make_sampler(model, args.slots[-1])
    chance = generator(args.seed, "rewards").random((args.prompts, args.n))
    advantages = grpo.group_advantages(torch.from_numpy(chance < 0.5).float())
    groups = grpo.Groups([None] * args.prompts, prompts, [], list(range(args.prompts)))
    groups.advantages = advantages

    def sample() -> None:
        with autocast():
            groups.rollouts = sampler.sample(prompts, args.n, lengths, seed=args.seed)

    def update() -> None:
        half = args.prompts // 2
        for chosen in (range(half), range(half, args.prompts)):
            grpo.policy_backward(model, None, groups, list(chosen), config)
            clipped_step(model, optimizer, 1.0)

    seconds = {}
    for _ in range(2):  # the first makes moments, pages and graphs
        seconds["refresh"] = clocked(lambda: refresh(sampler.model, model))
        seconds["sample"] = clocked(sample)
        seconds["old log-probs"] = clocked(lambda: old_logprobs(model, groups, config))
        seconds["update"] = clocked(update)
    tokens = sum(lengths)
    print(f"{size_of_model(args)}, {load_of(args)}, {tokens:,} sampled tokens\n{where()}\n")
    rows = []
    for phase, value in seconds.items():
        share = value / sum(seconds.values())
        print(f"{phase:<14} {value:>8.2f} s {share:>5.0%} {tokens / value:>10,.0f} tokens/s")
        row = {"phase": phase, "seconds": value, "tokens": tokens, "peak_bytes": peak_bytes()}
        rows.append(row)
    return rows
