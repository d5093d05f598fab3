"""Arithmetic of a model on a machine: FLOPs, memory, seconds. Each formula names its source or how it comes about.

P parameters, L layers, d d_model, V rows of the head, T tokens of context, N GPUs. Weights, gradients and moments are fp32 and
sharded over the GPUs (FSDP2); the block being computed is gathered in fp32 and cast to bf16. Nothing runs: a model is built on the meta device.
plan.py says with it what a command would take.
"""

import functools
import math
from dataclasses import dataclass, field

import torch

from attention import SHORT
from kvcache import PAGE
from model import ModelConfig, Transformer

GIB = 2**30
STEP_SECONDS = 5e-4  # of one decoding step at least, however small the model: a recorded graph of some 300 kernels, an assumption
ROOM = 0.95  # share of a GPU's memory that a plan may fill: a prediction is not exact
COPY = "sampling copy, bf16, embedding fp32, whole"  # on every GPU, so that decoding has no collectives


@dataclass(frozen=True)
class Kind:
    flops: float  # per second: dense bf16 with fp32 sums, without sparsity, from the makers' data sheets
    memory: float  # GiB, as nvidia-smi shows it
    bandwidth: float  # bytes per second, data sheet
    price: float  # dollars per hour, about what clouds ask on demand; --price is yours


KINDS = {
    "h100": Kind(989e12, 79.6, 3.35e12, 3.0),  # SXM
    "h200": Kind(989e12, 140.4, 4.8e12, 4.0),
    "b200": Kind(2250e12, 178.0, 8.0e12, 6.0),
    "a100": Kind(312e12, 80.0, 2.04e12, 1.8),  # SXM, 80 GB
    "a100-40": Kind(312e12, 40.0, 1.56e12, 1.3),
    "l40s": Kind(362e12, 45.0, 0.86e12, 1.0),
    "4090": Kind(165e12, 24.0, 1.01e12, 0.5),
    "cpu": Kind(186e9, 16.0, 20e9, 0.0),  # two cores in fp32, measured; as memory and bandwidth are not the limit at toy scale, rough
}


@dataclass(frozen=True)
class Machine:
    """Where it would run, and the assumptions: these are flags, and the comments their help."""

    gpus: int = 8  # how many
    gpu: str = "h100"  # which
    mfu: float = 0.4  # share of the peak in training, model FLOPs; public PyTorch trainers of 1B models report 0.39 to 0.52
    bandwidth: float = 0.6  # share of the peak in decoding
    price: float = -1.0  # dollars per GPU and hour; default a rough one of the kind
    expected_length: int = 200  # tokens of a response; two thirds of the limit where that is less (the toy runs: 34 of 52)
    expected_prompt: int = 150  # tokens of a prompt; a quarter of the limit where that is less

    def dollars(self, gpu_seconds: float) -> float:
        return gpu_seconds / 3600 * (KINDS[self.gpu].price if self.price < 0 else self.price)

    def expected(self, max_prompt: int, max_response: int) -> tuple[int, int]:
        return min(self.expected_prompt, max_prompt // 4), min(self.expected_length, max_response * 2 // 3)

    def __str__(self) -> str:
        kind = KINDS[self.gpu]
        return (
            f"{self.gpus} x {self.gpu} ({kind.flops / 1e12:,.3g} TFLOP/s, {kind.memory} GiB, {kind.bandwidth / 1e12:.3g} TB/s), {self.mfu:.0%} of "
            f"the FLOP/s in training, {self.bandwidth:.0%} of the bandwidth in decoding, ${self.dollars(3600):.2f} per GPU and hour"
        )


# ---------------------------------------------------------------------------------------------- arithmetic


@functools.cache
def parameters(shape: ModelConfig) -> dict[str, int]:
    """Counts of a model that is never filled: all, those in matrix products, those of one block, of the head."""
    with torch.device("meta"):
        model = Transformer(shape)
    matrices = sum(p.numel() for p in model.parameters() if p.ndim == 2)
    embedding, head = model.embed_tokens.weight.numel(), model.lm_head.weight.numel()  # the embedding is looked up, not multiplied
    block = sum(p.numel() for p in model.layers[0].parameters())
    return {"all": model.num_parameters(), "matmul": matrices - embedding, "block": block, "head": head}


def forward_flops(shape: ModelConfig, tokens: float, context: float, predicted: float | None = None) -> float:
    """2 per weight and token, and for attention 4 L d T: q k^T and the weighted sum are 2 d T each (full-attention convention:
    no discount for the causal half). The head is applied to the `predicted` tokens only; default all."""
    P = parameters(shape)
    predicted = tokens if predicted is None else predicted
    return 2 * (P["matmul"] - P["head"]) * tokens + 2 * P["head"] * predicted + 4 * shape.n_layers * shape.d_model * context * tokens


def train_flops(*what) -> float:
    """The backward pass costs two forward ones, a gradient for the input and one for the weight: 6 P + 12 L d T per token."""
    return 3 * forward_flops(*what)


def repeated_flops(shape: ModelConfig, tokens: float, context: float, predicted: float | None = None, checkpoint: bool = False) -> float:
    """What a training step computes a second time: going back, the head's logits (LogProbs, model.py), and with
    --checkpoint_activations the blocks. It takes time and teaches nothing: hours count it, FLOPs and so the MFU do not."""
    head = 2 * parameters(shape)["head"] * (tokens if predicted is None else predicted)
    return head + checkpoint * forward_flops(shape, tokens, context, 0)


def kv_bytes_per_token(shape: ModelConfig, cpu: bool = False) -> int:
    return 2 * shape.n_layers * shape.n_kv_heads * shape.head_dim * (4 if cpu else 2)


def copy_bytes(shape: ModelConfig, fp32_head: bool = False) -> float:
    """The sampler's weights_as_multiplied: what is multiplied in bf16, the rest (embedding, norms) in fp32, with fp32_head the head too."""
    P = parameters(shape)
    return 4 * P["all"] - 2 * P["matmul"] + 2 * P["head"] * fp32_head


# What one block saves for its backward pass, each with its width per token and its bytes per number. On a CPU all is fp32. On a
# GPU in eager mode the stream is fp32, autocast casts it to bf16 once for each product that reads it, and norms keep their input
# in fp32. Where what surrounds attention is compiled one cast serves all, and norms read bf16; silu is computed again.
# tests/test_plan.py compares each column with what autograd holds.
SAVED = [
    ("x, read by q_proj, k_proj and v_proj", "d", 4, 6, 2), ("q before its norm", "q", 4, 4, 2), ("k before its norm", "kv", 4, 4, 2),
    ("q turned", "q, attention", 4, 2, 2), ("k turned", "keys, attention", 4, 2, 2), ("v", "keys, attention", 4, 2, 2),
    ("what attention gives, read by o_proj", "q, attention", 4, 2, 2), ("logsumexp of the scores", "heads, attention", 4, 4, 4),
    ("o_proj's output", "d", 4, 4, 2), ("x after attention, read by gate_proj and up_proj", "d", 4, 4, 2),
    ("gate", "f", 4, 2, 2), ("silu(gate)", "f", 4, 2, 0), ("up", "f", 4, 2, 2), ("silu(gate) * up, read by down_proj", "f", 4, 2, 2),
    ("down_proj's output", "d", 4, 4, 2), ("1/rms of the four norms", "four", 4, 4, 4),
]  # fmt: skip
MODES = ("cpu", "eager", "compiled")


def activation_bytes(shape: ModelConfig, tokens: float, mode="compiled", rows: tuple[float, int] | None = None, keys=0.0, checkpoint=False) -> float:
    """Saved for backward by all blocks and around them; with `checkpoint` the blocks' inputs, and all of the one gone back through.

    On a CPU sequences are padded to `rows` of one length for attention, (how many, their tokens). Short ones keep q, k and v for
    each head and the probabilities, but no logsumexp; of long ragged ones o_proj reads a packed copy of what attention gives. On
    a GPU attention takes packed sequences. Where responses continue shared prompts it reads their keys and values from a copy,
    `keys` tokens with the prompt's for each response, and o_proj again reads a packed copy."""
    padded = math.prod(rows) if rows and mode == "cpu" else tokens
    short = mode == "cpu" and rows is not None and rows[1] <= SHORT
    width = {"d": shape.d_model, "q": shape.d_model, "kv": shape.n_kv_heads * shape.head_dim, "f": shape.d_ff, "heads": shape.n_heads, "four": 4}
    width["keys"] = width["kv"]
    block = 4 * shape.d_model * tokens if padded != tokens or short else 0.0
    if short:
        width |= {"keys": width["q"], "heads": 0}
        seen = sum((min(end + 64, rows[1]) - end) * min(end + 64, rows[1]) for end in range(0, rows[1], 64))  # query-key pairs of a row
        block += 4 * shape.n_heads * rows[0] * seen - 4 * shape.d_model * padded  # what attention gives is kept packed alone
    if keys:
        block += 2 * shape.d_model * (tokens + 2 * keys)
    for _, what, *bytes_per_number in SAVED:
        name, _, attention = what.partition(", ")
        block += (padded if attention else tokens) * width[name] * bytes_per_number[MODES.index(mode)]
    around = tokens * (4 * shape.d_model + 2 * 4 * shape.head_dim)  # what the last norm reads; cos and sin
    return around + (4 * shape.d_model * tokens * shape.n_layers + block if checkpoint else shape.n_layers * block)


def logits_bytes(shape: ModelConfig, predicted: float, bf16: bool = True, compiled: bool = False, chunk: int = 0) -> float:
    """What LogProbs (model.py) holds at its fullest, with the hidden states that it reads. `bf16`: its factors, which are copies.

    Compiled, p is never whole, but the gradient is made beside the logits: read off a process's memory on a CPU; no test sees it."""
    V, d, chunk = shape.vocab_size, shape.d_model, chunk or head_chunk(shape)
    c, width = min(predicted, chunk), 2 if bf16 else 4
    forward = (4 if compiled else 8) * c * V  # logits and p
    # logits, which become their gradient, and its cast; until they are there, the gradient of the chunk before
    gradient = (8 if compiled else 6 if bf16 else 4) * c * V + width * min(c, predicted - c) * V
    backward = 4 * V * d + max(gradient, width * c * V + 4 * V * d)  # the weight's gradient; a chunk's part of it is added whole
    return max(forward, backward) + 2 * 4 * predicted * d + bf16 * 2 * d * (V + predicted)  # hidden states and their gradient


def head_chunk(shape: ModelConfig, cpu: bool = False) -> int:
    """Tokens whose logits exist at a time, as in Transformer.logprobs."""
    return max(256, (2**21 if cpu else 2**28) // shape.vocab_size)


# ---------------------------------------------------------------------------------------------- a plan


PAGES = "KV pages of the sampler"


@dataclass
class Plan:
    """What one command does and holds."""

    name: str
    shape: ModelConfig
    machine: Machine
    kv_memory: float = 0.4  # the sampler's share of what is free
    compile: bool = False
    checkpoint: bool = False  # --checkpoint_activations
    fp32_head: bool = False
    phases: list[tuple[str, float, float, float]] = field(default_factory=list)  # name, tokens, FLOPs, seconds of one GPU
    memory: dict[str, float] = field(default_factory=dict)  # bytes per GPU that are there all the time
    peaks: dict[str, dict[str, float]] = field(default_factory=dict)  # while sampling, while updating: what is there besides
    disk: dict[str, float] = field(default_factory=dict)  # bytes that stay
    passing: float = 0.0  # bytes on disk while it runs
    shared: float = 0.0  # bytes of token shards, the same for all seeds
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def gpu_seconds(self) -> float:
        return sum(seconds for *_, seconds in self.phases)

    def peak(self) -> float:
        return sum(self.memory.values()) + max(sum(parts.values()) for parts in self.peaks.values())

    def compute(self, name: str, tokens: float, flops: float, repeated: float = 0.0) -> None:
        """A phase bound by arithmetic; of what is computed a second time only the seconds count."""
        self.phases.append((name, tokens, flops, (flops + repeated) / (KINDS[self.machine.gpu].flops * self.machine.mfu)))

    def train(self, name: str, tokens: float, context: float, predicted: float | None = None) -> None:
        repeated = repeated_flops(self.shape, tokens, context, predicted, self.checkpoint)
        self.compute(name, tokens, train_flops(self.shape, tokens, context, predicted), repeated)


def hold_training(plan: Plan, tokens: float, predicted: float, longest: float, moments: int = 2, weight_copies: int = 0, keys: float = 0.0) -> None:
    """The parts of a training step's memory; `tokens` of one forward pass on one GPU, in sequences of `longest`, of which `predicted`
    go through the head."""
    shape, N, P, cpu = plan.shape, plan.machine.gpus, parameters(plan.shape), plan.machine.gpu == "cpu"
    plan.memory |= {"weights, fp32, sharded": 4 * P["all"] / N, f"{moments} moments, fp32, sharded": 4 * moments * P["all"] / N}
    if weight_copies:
        plan.memory["second copy of the weights, sharded"] = 4 * weight_copies * P["all"] / N
    around = {"gradients, fp32, sharded": 4 * P["all"] / N}  # freed by zero_grad
    if N > 1 and not cpu:
        # the block in use and the next one in fp32, and the whole gradient of one until it is reduced; embedding and head
        # likewise, once each. The head's whole gradient stands with the logits
        around["gathered: two blocks, embedding, head; gradients but the head's"] = (2 * 4 + 4) * P["block"] + (4 + 4 + 4) * P["head"]
    if not cpu:
        # a block's products keep autocast's casts for the backward pass. Checkpointed they do not, but autocast itself keeps all
        # that it made outside of compiled regions until the forward pass has ended: with compiled ones o_proj's
        casts = P["block"] + shape.d_model**2 * shape.n_layers if plan.checkpoint and plan.compile else P["block"] * shape.n_layers
        around["casts of the blocks' weights to bf16"] = 2 * casts
        # backward through the MLP: gradients of three d_ff-wide tensors and of a few of the stream (two of them fp32)
        around["gradients inside a block, bf16"] = tokens * (6 * shape.d_ff + 12 * shape.d_model)
    mode = "cpu" if cpu else "compiled" if plan.compile else "eager"  # a CPU's compiled regions keep less; memory is not its limit
    how = ", checkpointed" * plan.checkpoint + ("" if cpu else f", {mode}")
    around[f"activations of {tokens:,.0f} tokens{how}"] = activation_bytes(shape, tokens, mode, (tokens / longest, math.ceil(longest)), 0.0 if cpu else keys, plan.checkpoint)
    chunk = head_chunk(shape, cpu)
    head = logits_bytes(shape, predicted, not (cpu or plan.fp32_head), plan.compile, chunk)
    around[f"logits, {min(predicted, chunk):,.0f} tokens at a time, head's gradient"] = head
    plan.peaks["updating"] = around


def sample(plan: Plan, name: str, prompts: float, n: int, prompt: float, length: float, slots: int, longest: int, times: float = 1) -> None:
    """Add `times` rounds of n responses to each prompt, and the memory they take: prompts are read once, then every decoding step
    reads all weights and the keys and values of all that is alive, which is what it waits for
        tokens/s of a GPU = slots * share * bandwidth / (bytes of weights + slots * mean context * bytes of KV per token)
    unless the arithmetic takes longer."""
    shape, machine, P, cpu = plan.shape, plan.machine, parameters(plan.shape), plan.machine.gpu == "cpu"
    kv, page_limit = kv_bytes_per_token(shape, cpu), slots * (shape.max_seq_len // PAGE + 1) * PAGE
    free = KINDS[machine.gpu].memory * GIB - sum(plan.memory.values())
    pool = plan.memory.get(PAGES, max(0.0, min(page_limit * kv, plan.kv_memory * free)))  # at most what the slots can fill
    plan.memory[PAGES] = pool  # the sampler keeps it, with the graphs that hold its addresses
    stored = prompt / min(n, slots) + length / 2 + PAGE  # tokens per slot: a prompt's pages are shared, half of a response is there
    live = max(1.0, min(slots, math.ceil(prompts * n / machine.gpus), pool / kv / stored))
    context = prompt + length / 2  # mean, of a slot
    step_bytes = (4 * P["matmul"] if cpu else 2 * P["matmul"] + 2 * P["head"] * plan.fp32_head) + live * context * kv
    step_flops = forward_flops(shape, live, context)
    kind, least = KINDS[machine.gpu], 0.0 if cpu else STEP_SECONDS
    step_seconds = max(least, step_bytes / (kind.bandwidth * machine.bandwidth), step_flops / (kind.flops * machine.mfu))
    read, written = prompts * prompt * times, prompts * n * length * times
    if read:
        plan.compute(f"{name}: read prompts", read, forward_flops(shape, read, prompt, prompts * times))
    plan.phases.append((f"{name}: decode", written, forward_flops(shape, written, context), written / live * step_seconds))
    parts = {"prompts being read, their KV": min(16_384, prompts * prompt / machine.gpus) * kv}
    parts["logits of the slots, six fp32 or sorted copies"] = 6 * 4 * live * shape.vocab_size
    plan.peaks["sampling"] = max(plan.peaks.get("sampling", {}), parts, key=lambda peak: sum(peak.values()))
    if name != "validation":
        plan.notes.append(f"{name}: {live:,.0f} rollouts alive and {live / step_seconds:,.0f} tokens/s per GPU")
    if pool < longest * kv:
        plan.warnings.append(f"KV pages for {pool / kv:,.0f} tokens cannot hold a rollout of {longest:,}: lower --max_response, or take more --gpus")
    elif name != "validation" and live < 0.5 * min(slots, prompts * n / machine.gpus):
        plan.warnings.append(f"{name}: KV pages for {live:.0f} of --slots {slots}, which is slow; more --gpus, a larger --gpu or --kv_memory leave more room")


def store(plan: Plan, kept: int, moments: int, log_bytes: float, more: float = 0.0) -> None:
    """A checkpoint is fp32 weights. The state to resume from has the moments too, and stands there twice while it is written anew."""
    P = parameters(plan.shape)["all"]
    plan.disk = {f"{kept} checkpoint{'s' * (kept > 1)}, fp32": 4 * P * kept, "logs": log_bytes}
    plan.passing = 2 * (4 * (1 + moments) * P + more)
