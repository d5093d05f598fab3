"""What one command does and holds: phases of work, memory of a GPU, disk.

Weights, gradients and moments are fp32 and sharded over the GPUs (FSDP2). The block that is being
computed is gathered in fp32 and cast to bf16.
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from model import ModelConfig
from study.costs import (
    GIB,
    Machine,
    forward_flops,
    kv_bytes_per_token,
    parameters,
    repeated_flops,
    training_flops,
)
from study.memory import PAGE, activation_bytes, block_bytes, head_chunk, logits_bytes

ROOM = 0.95  # share of a GPU's memory that a plan may fill, as a prediction is not exact

# Seconds of one decoding step at least, however small the model. An assumption: the time of a
# recorded graph of some 300 kernels.
STEP_SECONDS = 5e-4

COPY = "sampling copy, bf16, embedding fp32, whole"  # whole, so that decoding has no collectives
PAGES = "KV pages of the sampler"
MOMENTS = "moments, fp32, sharded"


class Phase(NamedTuple):
    name: str
    tokens: float
    flops: float
    gpu_seconds: float  # of all GPUs together


@dataclass
class Plan:
    """One command."""

    name: str  # of the stage
    shape: ModelConfig
    machine: Machine
    kv_memory: float = 0.4  # the sampler's share of what is free
    compile: bool = False
    checkpoint: bool = False  # --checkpoint_activations
    fp32_head: bool = False
    phases: list[Phase] = field(default_factory=list)
    memory: dict[str, float] = field(default_factory=dict)  # bytes per GPU, there all the time
    peaks: dict[str, dict[str, float]] = field(default_factory=dict)  # and while something runs
    disk: dict[str, float] = field(default_factory=dict)  # bytes that stay
    passing: float = 0.0  # bytes on disk while it runs
    shared: float = 0.0  # bytes of token shards, the same for all seeds
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def total(self) -> Phase:
        """All phases together."""
        tokens = 0.0
        flops = 0.0
        gpu_seconds = 0.0
        for phase in self.phases:
            tokens += phase.tokens
            flops += phase.flops
            gpu_seconds += phase.gpu_seconds
        return Phase("in all", tokens, flops, gpu_seconds)

    def peak(self) -> float:
        """Bytes of a GPU at its fullest."""
        passing = [sum(parts.values()) for parts in self.peaks.values()]
        return sum(self.memory.values()) + max(passing)

    def fits(self) -> bool:
        return self.peak() <= ROOM * self.machine.kind.memory * GIB

    def compute(self, name: str, tokens: float, flops: float, repeated: float = 0.0) -> None:
        """Add a phase bound by arithmetic. What is repeated counts in the seconds alone."""
        seconds = (flops + repeated) / (self.machine.kind.flops * self.machine.mfu)
        self.phases.append(Phase(name, tokens, flops, seconds))

    def train(
        self, name: str, tokens: float, context: float, predicted: float | None = None
    ) -> None:
        """Add forward and backward passes over so many tokens."""
        flops = training_flops(self.shape, tokens, context, predicted)
        again = repeated_flops(self.shape, tokens, context, predicted, self.checkpoint)
        self.compute(name, tokens, flops, again)


# ---------------------------------------------------------------------------------- training


def hold_training(
    plan: Plan,
    tokens: float,
    predicted: float,
    longest: float,
    moments: int = 2,
    weight_copies: int = 0,
    keys: float = 0.0,
    passes: float = 2.0,
) -> None:
    """Add the memory of training steps.

    One forward pass of one GPU has `tokens` in sequences of `longest`, of which `predicted` go
    through the head. keys: see activation_bytes. passes: of one update; from the second one on, the
    gradients of those before are there.
    """
    of_weights = 4 * parameters(plan.shape)["all"] / plan.machine.gpus  # bytes, fp32
    plan.memory["weights, fp32, sharded"] = of_weights
    plan.memory[f"{moments} {MOMENTS}"] = moments * of_weights
    if weight_copies:
        plan.memory["second copy of the weights, sharded"] = weight_copies * of_weights

    held = {}
    if passes > 1:
        held["gradients, fp32, sharded"] = of_weights  # zero_grad frees them
    if is_sharded(plan):
        held["gathered: embedding and head"] = 2 * 4 * parameters(plan.shape)["head"]
    if not plan.machine.on_cpu:
        held["casts of the blocks' weights to bf16"] = 2 * weights_cast(plan)
    # Two moments can be the fullest, and what each needs has gone when the other comes.
    head = held | at_the_head(plan, tokens, predicted, longest, keys)
    last_block = held | in_the_last_block(plan, tokens, predicted, longest, keys, passes)
    plan.peaks["updating"] = max(head, last_block, key=lambda parts: sum(parts.values()))


def is_sharded(plan: Plan) -> bool:
    return plan.machine.gpus > 1 and not plan.machine.on_cpu


def at_the_head(plan: Plan, tokens, predicted, longest, keys) -> dict[str, float]:
    """The head's backward pass, which comes first: all blocks have kept what they will need."""
    on_cpu = plan.machine.on_cpu
    name, activations = kept_by_blocks(plan, tokens, longest, keys)
    if plan.checkpoint:  # no block has been computed again
        activations -= block_of(plan, tokens, longest, keys)
    chunk = head_chunk(plan.shape, on_cpu)
    bf16 = not (on_cpu or plan.fp32_head)
    logits = f"logits, {min(predicted, chunk):,.0f} tokens at a time, head's gradient"
    bytes_of_logits = logits_bytes(plan.shape, predicted, bf16, plan.compile, chunk)
    return {name: activations, logits: bytes_of_logits}


def in_the_last_block(plan: Plan, tokens, predicted, longest, keys, passes) -> dict[str, float]:
    """The backward pass of the block before the head, when hardly anything was given back yet."""
    shape = plan.shape
    P = parameters(shape)
    name, activations = kept_by_blocks(plan, tokens, longest, keys)
    parts = {name: activations}
    if is_sharded(plan):
        # The block in use and the next one in fp32, and the whole gradient of one until it is
        # reduced.
        parts["gathered: two blocks, and the gradient of one"] = (2 * 4 + 4) * P["block"]
    if is_sharded(plan) or passes <= 1:
        parts["gradient of the head"] = 4 * P["head"]  # reduced when all blocks are
    if not plan.machine.on_cpu:
        # Backward through the MLP: gradients of three d_ff-wide tensors, and of a few as wide as
        # the stream, two of them fp32.
        inside = tokens * (6 * shape.d_ff + 12 * shape.d_model)
        parts["gradients inside a block, bf16"] = inside
    return parts


def kept_by_blocks(plan: Plan, tokens, longest, keys) -> tuple[str, float]:
    """Activations -> (what they are called in a plan, bytes)."""
    name = f"activations of {tokens:,.0f} tokens"
    if plan.checkpoint:
        name += ", checkpointed"
    if not plan.machine.on_cpu:
        name += f", {mode_of(plan)}"
    how = how_activated(plan, tokens, longest, keys)
    return name, activation_bytes(plan.shape, tokens, *how, plan.checkpoint)


def block_of(plan: Plan, tokens, longest, keys) -> float:
    """Bytes that one block keeps where it is not checkpointed."""
    return block_bytes(plan.shape, tokens, *how_activated(plan, tokens, longest, keys))


def how_activated(plan: Plan, tokens, longest, keys) -> tuple:
    """The arguments mode, rows and keys of activation_bytes."""
    rows = (tokens / longest, math.ceil(longest))
    return mode_of(plan), rows, 0.0 if plan.machine.on_cpu else keys


def mode_of(plan: Plan) -> str:
    if plan.machine.on_cpu:
        return "cpu"  # compiled it keeps less, but there memory is not the limit
    return "compiled" if plan.compile else "eager"


def weights_cast(plan: Plan) -> int:
    """How many weights of the blocks stay in bf16 from the forward to the backward pass.

    The products of a block keep autocast's casts. Checkpointed they do not, but autocast itself
    keeps what it cast outside of compiled regions until the forward pass has ended: with compiled
    ones, the weights of o_proj.
    """
    shape = plan.shape
    block = parameters(shape)["block"]
    if plan.checkpoint and plan.compile:
        return block + shape.d_model**2 * shape.n_layers
    return block * shape.n_layers


# ---------------------------------------------------------------------------------- sampling


def add_sampling(
    plan: Plan,
    name: str,
    prompts: float,
    n: int,
    prompt: float,
    length: float,
    slots: int,
    longest: int,
    times: float = 1,
) -> None:
    """Add `times` rounds of n responses to each of the prompts, and the memory they take.

    prompt and length are tokens, as expected; longest is what a rollout may have. Prompts are read
    once. Then every decoding step reads all weights, and the keys and values of all that is alive,
    and waits for them:
        tokens/s of a GPU = slots * share * bandwidth
                            / (bytes of weights + slots * mean context * bytes of KV per token)
    unless the arithmetic takes longer.
    """
    shape = plan.shape
    machine = plan.machine
    kv = kv_bytes_per_token(shape, machine.on_cpu)
    pool = pages_of_sampler(plan, slots)
    # Tokens per slot: a prompt's pages are shared, and half of a response is there.
    stored = prompt / min(n, slots) + length / 2 + PAGE
    of_gpu = prompts * n / machine.gpus  # rollouts of one GPU
    live = max(1.0, min(slots, math.ceil(of_gpu), pool / kv / stored))
    context = prompt + length / 2  # mean, of a slot
    step_seconds = seconds_of_step(plan, live, context)

    read = prompts * prompt * times
    if read:
        flops = forward_flops(shape, read, prompt, prompts * times)
        plan.compute(f"{name}: read prompts", read, flops)
    written = prompts * n * length * times
    flops = forward_flops(shape, written, context)
    plan.phases.append(Phase(f"{name}: decode", written, flops, written / live * step_seconds))

    parts = {
        "prompts being read, their KV": min(16_384, prompts * prompt / machine.gpus) * kv,
        "logits of the slots, six fp32 or sorted copies": 6 * 4 * live * shape.vocab_size,
    }
    before = plan.peaks.get("sampling", {})
    if sum(parts.values()) > sum(before.values()):
        plan.peaks["sampling"] = parts

    if pool < longest * kv:
        plan.warnings.append(
            f"KV pages for {pool / kv:,.0f} tokens cannot hold a rollout of {longest:,}: "
            "lower --max_response, or take more --gpus"
        )
    elif name != "validation" and live < 0.5 * min(slots, of_gpu):
        plan.warnings.append(
            f"{name}: KV pages for {live:.0f} of --slots {slots}, which is slow; "
            "more --gpus, a larger --gpu or --kv_memory leave more room"
        )
    if name != "validation":
        speed = live / step_seconds
        plan.notes.append(f"{name}: {live:,.0f} rollouts alive and {speed:,.0f} tokens/s per GPU")


def pages_of_sampler(plan: Plan, slots: int) -> float:
    """Bytes of the pages. The sampler keeps them, with the graphs that hold their addresses."""
    if PAGES not in plan.memory:
        machine = plan.machine
        kv = kv_bytes_per_token(plan.shape, machine.on_cpu)
        most = (
            slots * (plan.shape.max_seq_len // PAGE + 1) * PAGE * kv
        )  # all that the slots can fill
        free = machine.kind.memory * GIB
        for name, bytes_ in plan.memory.items():
            if not name.endswith(MOMENTS):  # the first update makes them, after the first rollouts
                free -= bytes_
        plan.memory[PAGES] = max(0.0, min(most, plan.kv_memory * free))
    return plan.memory[PAGES]


def seconds_of_step(plan: Plan, live: float, context: float) -> float:
    """Of one decoding step of `live` rollouts."""
    shape = plan.shape
    machine = plan.machine
    P = parameters(shape)
    if machine.on_cpu:
        weights = 4 * P["matmul"]  # bytes
        least = 0.0
    else:
        weights = 2 * P["matmul"]
        least = STEP_SECONDS
        if plan.fp32_head:
            weights += 2 * P["head"]
    cache = live * context * kv_bytes_per_token(shape, machine.on_cpu)
    reading = (weights + cache) / (machine.kind.bandwidth * machine.bandwidth)
    arithmetic = forward_flops(shape, live, context) / (machine.kind.flops * machine.mfu)
    return max(least, reading, arithmetic)


# ---------------------------------------------------------------------------------- disk


def store(plan: Plan, kept: int, moments: int, log_bytes: float, more: float = 0.0) -> None:
    """Add `kept` checkpoints of fp32 weights, and the state to resume from.

    The state has the moments and `more` bytes, too, and is there twice while it is written again.
    """
    weights = 4 * parameters(plan.shape)["all"]
    plural = "s" if kept > 1 else ""
    plan.disk = {f"{kept} checkpoint{plural}, fp32": weights * kept, "logs": log_bytes}
    plan.passing = 2 * ((1 + moments) * weights + more)
