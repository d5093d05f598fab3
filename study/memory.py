"""Bytes that training and sampling hold: activations, logits, the sampler's copy of the weights.

They are those of the program with fast/, which is what runs unless --plain is given; plain keeps
more. Three constants of fast/ are repeated here because nothing outside that folder imports it.
tests/test_plan.py compares them with fast/, and every formula with what autograd holds.
"""

from typing import NamedTuple

from model import ModelConfig
from study.costs import parameters

SHORT_ROW = (
    512  # tokens: up to here a CPU keeps the probabilities of attention (fast/cpu.py, SHORT)
)
QUERIES = 64  # of a row, that meet the keys at a time there (fast/cpu.py, QUERIES)
PAGE = 16  # tokens of a page of keys and values (fast/paged.py, PAGE)


def head_chunk(shape: ModelConfig, on_cpu: bool = False) -> int:
    """Tokens whose logits exist at a time (fast/head.py, chunk_size)."""
    return max(256, (2**21 if on_cpu else 2**28) // shape.vocab_size)


def sampling_copy_bytes(shape: ModelConfig, fp32_head: bool = False) -> float:
    """The sampler's weights: bf16 what is multiplied, fp32 the rest (embedding and norms).

    With fp32_head the head is fp32, too.
    """
    P = parameters(shape)
    narrow = P["matmul"]
    if fp32_head:
        narrow -= P["head"]
    return 4 * P["all"] - 2 * narrow


# ---------------------------------------------------------------------------------- activations


class Saved(NamedTuple):
    """A tensor that a block saves for its backward pass, and its bytes per number."""

    what: str
    width: str  # numbers per token; a key of `widths`
    cpu: int
    eager: int
    compiled: int
    in_attention: bool = False  # on a CPU it has the tokens that pad sequences to one length


# On a CPU all is fp32. On a GPU in eager mode the stream is fp32, autocast casts it to bf16 once
# for each product that reads it, and norms keep their input in fp32. Where what surrounds attention
# is compiled, one cast serves all, norms read bf16, and silu is computed again.
SAVED = [
    Saved("x, read by q_proj, k_proj and v_proj", "d", 4, 6, 2),
    Saved("q before its norm", "q", 4, 4, 2),
    Saved("k before its norm", "kv", 4, 4, 2),
    Saved("q turned", "q", 4, 2, 2, in_attention=True),
    Saved("k turned", "keys", 4, 2, 2, in_attention=True),
    Saved("v", "keys", 4, 2, 2, in_attention=True),
    Saved("what attention gives, read by o_proj", "q", 4, 2, 2, in_attention=True),
    Saved("logsumexp of the scores", "heads", 4, 4, 4, in_attention=True),
    Saved("o_proj's output", "d", 4, 4, 2),
    Saved("x after attention, read by gate_proj and up_proj", "d", 4, 4, 2),
    Saved("gate", "f", 4, 2, 2),
    Saved("silu(gate)", "f", 4, 2, 0),
    Saved("up", "f", 4, 2, 2),
    Saved("silu(gate) * up, read by down_proj", "f", 4, 2, 2),
    Saved("down_proj's output", "d", 4, 4, 2),
    Saved("1/rms of the four norms", "four", 4, 4, 4),
]


def activation_bytes(
    shape: ModelConfig,
    tokens: float,
    mode: str = "compiled",
    rows: tuple[float, int] | None = None,
    keys: float = 0.0,
    checkpoint: bool = False,
) -> float:
    """What all blocks save for the backward pass of `tokens`, and what is saved around them.

    mode: cpu, eager or compiled. rows: on a CPU, where sequences are padded to one length for
    attention, how many they are and that length. keys: on a GPU, where responses continue shared
    prompts, the tokens of all responses, each with its prompt. With `checkpoint` each block keeps
    its input alone, but the one whose backward pass runs keeps all.
    """
    block = block_bytes(shape, tokens, mode, rows, keys)
    last_norm = 4 * shape.d_model * tokens  # its input
    angles = 2 * 4 * shape.head_dim * tokens  # cos and sin of RoPE
    if not checkpoint:
        return last_norm + angles + shape.n_layers * block
    inputs = 4 * shape.d_model * tokens * shape.n_layers
    return last_norm + angles + inputs + block


def block_bytes(
    shape: ModelConfig, tokens: float, mode: str, rows: tuple[float, int] | None, keys: float
) -> float:
    """What one block saves."""
    kv = shape.n_kv_heads * shape.head_dim
    widths = {
        "d": shape.d_model,
        "q": shape.d_model,
        "kv": kv,
        "keys": kv,
        "f": shape.d_ff,
        "heads": shape.n_heads,
        "four": 4,
    }
    padded = tokens  # of attention
    total = 0.0
    if mode == "cpu" and rows is not None:
        n_rows, row_tokens = rows
        padded = n_rows * row_tokens
        packed_output = 4 * shape.d_model * tokens  # what attention gives, without padding
        if row_tokens <= SHORT_ROW:
            # Short rows keep q, k and v for each head and the probabilities, but no logsumexp. What
            # attention gives is kept without padding only.
            widths["keys"] = shape.d_model
            widths["heads"] = 0
            total += 4 * shape.n_heads * n_rows * pairs_of_row(row_tokens)
            total += packed_output - 4 * shape.d_model * padded
        elif padded != tokens:
            total += packed_output
    for saved in SAVED:
        n_tokens = padded if saved.in_attention else tokens
        total += n_tokens * widths[saved.width] * getattr(saved, mode)
    if keys:
        # Attention reads keys and values from a copy, and o_proj a packed copy of its result.
        total += 2 * shape.d_model * (tokens + 2 * keys)
    return total


def pairs_of_row(row_tokens: int) -> int:
    """Query-key pairs of a short row: QUERIES at a time meet the keys that the last one sees."""
    pairs = 0
    for start in range(0, row_tokens, QUERIES):
        end = min(start + QUERIES, row_tokens)
        pairs += (end - start) * end
    return pairs


# ---------------------------------------------------------------------------------- logits


def logits_bytes(
    shape: ModelConfig, predicted: float, bf16: bool = True, compiled: bool = False, chunk: int = 0
) -> float:
    """What the head (fast/head.py) holds at its fullest, with the hidden states that it reads.

    bf16: the factors of its products, which are copies. Compiled, the probabilities are never
    whole, but the gradient is made beside the logits. That was read off a process's memory on a
    CPU; no test sees it.
    """
    V = shape.vocab_size
    d = shape.d_model
    chunk = chunk or head_chunk(shape)
    c = min(predicted, chunk)  # tokens of a chunk
    width = 2 if bf16 else 4  # bytes of a factor
    if compiled:
        per_logit = 8  # the logits and their gradient
        forward = 4 * c * V  # the logits
    else:
        per_logit = 6 if bf16 else 4  # the logits, which become their gradient, and its cast
        forward = 8 * c * V  # the logits and the probabilities
    # Until a chunk's logits are there, the gradient of the chunk before still is.
    gradient = per_logit * c * V + width * min(c, predicted - c) * V
    # The gradient of the weight. In fp32 the part of a chunk is whole before it is added.
    weight_gradient = 4 * V * d
    if not bf16:
        gradient = max(gradient, width * c * V + 4 * V * d)
    backward = weight_gradient + gradient
    hidden = 2 * 4 * predicted * d  # and their gradient
    copies = 2 * d * (V + predicted) if bf16 else 0
    return max(forward, backward) + hidden + copies
