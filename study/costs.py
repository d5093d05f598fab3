"""Arithmetic of a model on a machine: speeds and prices of GPUs, parameters, FLOPs.

d is d_model, L n_layers and T the tokens of context. Nothing runs here: parameters are counted on a
model of the meta device. memory.py has the bytes, budget.py what a command does with both.
"""

import functools
from dataclasses import dataclass

import torch

from model import ModelConfig, Transformer

GIB = 2**30
PEAK_FLOPS = 989e12  # per second, of an H100 SXM and an H200: dense bf16, without sparsity


@dataclass(frozen=True)
class Kind:
    flops: float  # per second: dense bf16 with fp32 sums, from the makers' data sheets
    memory: float  # GiB, as nvidia-smi shows it
    bandwidth: float  # bytes per second, data sheet
    price: float  # dollars per hour, about what clouds ask on demand; --price is yours


KINDS = {
    "h100": Kind(PEAK_FLOPS, 79.6, 3.35e12, 3.0),  # SXM
    "h200": Kind(PEAK_FLOPS, 140.4, 4.8e12, 4.0),
    "b200": Kind(2250e12, 178.0, 8.0e12, 6.0),
    "a100": Kind(312e12, 80.0, 2.04e12, 1.8),  # SXM, 80 GB
    "a100-40": Kind(312e12, 40.0, 1.56e12, 1.3),
    "l40s": Kind(362e12, 45.0, 0.86e12, 1.0),
    "4090": Kind(165e12, 24.0, 1.01e12, 0.5),
    # Two cores in fp32, measured. Memory and bandwidth are rough, as they do not limit a toy run.
    "cpu": Kind(186e9, 16.0, 20e9, 0.0),
}


@dataclass(frozen=True)
class Machine:
    """Where a command would run, and what is assumed. The fields are flags of --plan."""

    gpus: int = 8  # how many
    gpu: str = "h100"  # which
    mfu: float = 0.4  # share of the peak in training; trainers of 1B models report 0.39 to 0.52
    bandwidth: float = 0.6  # share of the peak in decoding
    price: float = -1.0  # dollars per GPU and hour; default a rough one of the kind
    expected_length: int = 200  # tokens of a response, at most 2/3 of the limit (toy: 34 of 52)
    expected_prompt: int = 150  # tokens of a prompt, at most a quarter of the limit

    @property
    def kind(self) -> Kind:
        return KINDS[self.gpu]

    @property
    def on_cpu(self) -> bool:
        return self.gpu == "cpu"

    def dollars(self, gpu_seconds: float) -> float:
        per_hour = self.kind.price if self.price < 0 else self.price
        return gpu_seconds / 3600 * per_hour

    def expected(self, max_prompt: int, max_response: int) -> tuple[int, int]:
        """Tokens of a prompt and of a response, where these are the limits."""
        prompt = min(self.expected_prompt, max_prompt // 4)
        response = min(self.expected_length, max_response * 2 // 3)
        return prompt, response

    def __str__(self) -> str:
        kind = self.kind
        return (
            f"{self.gpus} x {self.gpu} ({kind.flops / 1e12:,.3g} TFLOP/s, {kind.memory} GiB, "
            f"{kind.bandwidth / 1e12:.3g} TB/s), {self.mfu:.0%} of the FLOP/s in training, "
            f"{self.bandwidth:.0%} of the bandwidth in decoding, "
            f"${self.dollars(3600):.2f} per GPU and hour"
        )


# ---------------------------------------------------------------------------------- the model


@functools.cache
def parameters(shape: ModelConfig) -> dict[str, int]:
    """How many there are in all, in matrix products, in one block and in the head."""
    with torch.device("meta"):
        model = Transformer(shape)
    in_matrices = 0
    for weight in model.parameters():
        if weight.ndim == 2:
            in_matrices += weight.numel()
    in_block = 0
    for weight in model.layers[0].parameters():
        in_block += weight.numel()
    embedding = model.embed_tokens.weight.numel()  # it is looked up, not multiplied
    return {
        "all": model.num_parameters(),
        "matmul": in_matrices - embedding,
        "block": in_block,
        "head": model.lm_head.weight.numel(),
    }


def kv_bytes_per_token(shape: ModelConfig, on_cpu: bool = False) -> int:
    """Keys and values of all layers: fp32 on a CPU, bf16 on a GPU."""
    bytes_per_number = 4 if on_cpu else 2
    return 2 * shape.n_layers * shape.n_kv_heads * shape.head_dim * bytes_per_number


# ---------------------------------------------------------------------------------- FLOPs


def forward_flops(
    shape: ModelConfig, tokens: float, context: float, predicted: float | None = None
) -> float:
    """Of a forward pass over `tokens`, each with `context` tokens to attend to.

    2 per weight and token, and for attention 4 L d T per token: q k^T and the weighted sum are
    2 d T each (full-attention convention: no discount for the causal half). The head is applied to
    the `predicted` tokens only; by default to all.
    """
    P = parameters(shape)
    if predicted is None:
        predicted = tokens
    blocks = 2 * (P["matmul"] - P["head"]) * tokens
    head = 2 * P["head"] * predicted
    attention = 4 * shape.n_layers * shape.d_model * context * tokens
    return blocks + head + attention


def training_flops(
    shape: ModelConfig, tokens: float, context: float, predicted: float | None = None
) -> float:
    """Of a forward and a backward pass: 6 per weight and token, and 12 L d T per token.

    The backward pass costs two forward ones: a gradient for the input and one for the weight.
    """
    return 3 * forward_flops(shape, tokens, context, predicted)


def repeated_flops(
    shape: ModelConfig,
    tokens: float,
    context: float,
    predicted: float | None = None,
    checkpoint: bool = False,
) -> float:
    """What the backward pass computes a second time.

    That is the head's logits, and with --checkpoint_activations the blocks. It takes time and
    teaches nothing: hours count it, FLOPs and so the MFU do not.
    """
    if predicted is None:
        predicted = tokens
    head = 2 * parameters(shape)["head"] * predicted
    if not checkpoint:
        return head
    return head + forward_flops(shape, tokens, context, predicted=0)
