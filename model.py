"""The OLMo2 decoder, its sizes, and a checkpoint as one file.

Follow one batch from `Transformer.forward` down: tokens -> embedding -> n_layers x Block -> norm -> head.
Tokens travel as one flat list of N vectors, whatever sequences they belong to; only attention needs to know
which sequence is which, so it is passed in as a function `attend(layer, q, k, v)`. Training passes causal
attention over packed sequences (attention.py), the sampler passes attention over its KV cache (kvcache.py), and the
decoder itself is written once.

    python model.py out/4B.pt        prints the facts of a checkpoint
"""

import functools
import json
import os
import sys
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from attention import causal_attention

torch.set_float32_matmul_precision("highest")  # fp32 means fp32: parity and reproducibility before speed


@dataclass(frozen=True)
class ModelConfig:
    vocab_size: int = 100_278  # ids the tokenizer has; dolma2
    padded_vocab_size: int = 100_352  # rows of embedding and head; the rest is never trained and never sampled
    d_model: int = 2048
    n_layers: int = 16
    n_heads: int = 16
    n_kv_heads: int = 16  # fewer than n_heads is grouped-query attention
    d_ff: int = 8192  # SwiGLU hidden width
    max_seq_len: int = 4096  # tokens
    rope_theta: float = 500_000.0
    norm_eps: float = 1e-6
    # initialisation: normal, cut at 3 deviations (OLMo2: 0.02 everywhere, gains 1)
    embed_std: float = 0.02
    linear_std: float = 0.02  # 0 means 1/sqrt(fan in)
    head_std: float = 0.02
    post_norm_gain: float = 1.0  # gain of the two norms on the sublayers' outputs
    qk_norm_gain: float = 1.0

    @property
    def head_dim(self) -> int:
        return self.d_model // self.n_heads


_1B = ModelConfig()  # OLMo-2-0425-1B: 1,484,916,736 parameters
PRESETS = {
    # The toy model departs from OLMo2's initialisation on purpose. With 0.02 everywhere a model of width 64 learns
    # facts but no copying within minutes: norms after the sublayers make every branch as large as the stream, and
    # queries and keys of width 16 with unit gain cannot make an attention logit above 4. A large embedding keeps the
    # token readable through the stream, small output gains let branches grow into it, a larger QK gain and a short
    # RoPE period (rows are 80 tokens) let attention become sharp. `embed_std=0.02` etc. show the difference.
    "toy": ModelConfig(
        vocab_size=0, padded_vocab_size=0, d_model=64, n_layers=3, n_heads=4, n_kv_heads=4, d_ff=176, max_seq_len=2048,
        rope_theta=500.0, embed_std=1.0, linear_std=0.0, head_std=0.02, post_norm_gain=0.5, qk_norm_gain=2.0,
    ),  # 0.15M parameters besides embedding and head; vocabulary from the tokenizer
    "small": ModelConfig(
        vocab_size=0, padded_vocab_size=0, d_model=512, n_layers=6, n_heads=8, n_kv_heads=8, d_ff=1408, max_seq_len=2048,
        rope_theta=10_000.0, embed_std=1.0, linear_std=0.0, head_std=0.02, post_norm_gain=0.5, qk_norm_gain=2.0,
    ),  # 19M
    "1B": _1B,
    "1B-60B": _1B,  # the same model on 10B more tokens of mathematics
    "4B": ModelConfig(d_model=3072, n_layers=24, n_heads=24, n_kv_heads=24, d_ff=11_264),
    # the paper's 4B shape is not public; ours keeps head width 128 and untied heads, 4,014,246,912 parameters
}


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last dimension; computed in fp32, cast back at the end (OLMo2's order)."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide, weight = x.float(), self.weight.float()
        if x.is_cuda or torch.compiler.is_compiling():
            return F.rms_norm(wide, weight.shape, weight, self.eps).to(x.dtype)
        out = Normalise.apply(wide, weight, self.eps) if torch.is_grad_enabled() else Normalise.compute(wide, weight, self.eps)[0]
        return out.to(x.dtype)


class Normalise(torch.autograd.Function):
    """RMSNorm in half the passes over memory that torch takes on a CPU. With r = 1 / rms(x) and g the gradient of the result,
    d weight = sum over tokens of g x r, and dx = r (g weight - x r^2 mean(g weight x))."""

    @staticmethod
    def compute(x, weight, eps):
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()  # (N, 1)
        r = square.div_(x.shape[-1]).add_(eps).rsqrt_()
        return (x * r).mul_(weight), r

    @staticmethod
    def forward(ctx, x, weight, eps):
        out, r = Normalise.compute(x, weight, eps)
        ctx.save_for_backward(x, weight, r)
        return out

    @staticmethod
    def backward(ctx, g):
        x, weight, r = ctx.saved_tensors
        gx = g * x  # (N, width)
        mean = (gx @ weight)[:, None] / x.shape[-1]  # (N, 1)
        return (g * weight).addcmul_(x, mean * r.square(), value=-1).mul_(r), r[:, 0] @ gx, None


def rope_angles(positions: torch.Tensor, config: ModelConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """positions (N,) -> cos and signed sin (N, 1, head_dim), fp32. Pair i turns by position * theta^(-2i / head_dim).

    Rounded as OLMo2's: dividing the position instead moves logits by 1e-4 at position 4,000.
    """
    even = torch.arange(0, config.head_dim, 2, device=positions.device, dtype=torch.float32)  # (head_dim / 2,)
    frequency = 1.0 / config.rope_theta ** (even / config.head_dim)  # (head_dim / 2,) radians per position
    angles = positions[:, None].float() * frequency  # (N, head_dim / 2)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), -1)[:, None], torch.cat((-sin, sin), -1)[:, None]


def rope(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn the pairs (i, i + head_dim/2) of x (N, heads, head_dim): (a, b) -> (a cos - b sin, b cos + a sin). In fp32."""
    half = x.shape[-1] // 2
    if torch.compiler.is_compiling():  # the compiler vectorises halves; it would roll one element at a time
        (a, b), cos, sin = x.float().chunk(2, dim=-1), cos[..., :half], sin[..., half:]
        return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(x.dtype)
    halves_swapped = x.float().roll(half, dims=-1)  # (b, a); the sign of the first half is in `sin`
    return torch.addcmul(x.float() * cos, halves_swapped, sin).to(x.dtype)


class Linear(nn.Linear):
    """x @ weight.T. `through_onednn`: in training by oneDNN's products, not MKL's (Transformer.expect_equal_rows)."""

    through_onednn = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return LinearOfOneDNN.apply(x, self.weight) if self.through_onednn and torch.is_grad_enabled() else super().forward(x)


class LinearOfOneDNN(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return torch.ops.excursions.times_transposed(x, weight)

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        return torch.ops.excursions.times_transposed(g, weight.T), g.T @ x  # the last is no quicker there


LIBRARY = torch.library.Library("excursions", "DEF")  # what is registered here the compiler calls as it is
LIBRARY.define("times_transposed(Tensor a, Tensor b) -> Tensor")


@torch.library.impl(LIBRARY, "times_transposed", "CPU")
def times_transposed(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a (N, D) @ b (M, D).T by oneDNN."""
    return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")


@torch.library.register_fake("excursions::times_transposed", lib=LIBRARY)
def _(a, b):
    return a.new_empty(len(a), len(b))


class Attention(nn.Module):
    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.layer, self.head_dim = layer, config.head_dim
        q_width, kv_width = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        self.q_proj = Linear(config.d_model, q_width, bias=False)
        self.k_proj = Linear(config.d_model, kv_width, bias=False)
        self.v_proj = Linear(config.d_model, kv_width, bias=False)
        self.o_proj = Linear(q_width, config.d_model, bias=False)
        self.q_norm = RMSNorm(q_width, config.norm_eps)  # over all heads together, before the split
        self.k_norm = RMSNorm(kv_width, config.norm_eps)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, attend) -> torch.Tensor:
        q, k, v = self.queries_keys_values(x, cos, sin)
        out = attend(self.layer, q, k, v)  # (N, n_heads, head_dim)
        return self.o_proj(out.flatten(-2))  # (N, d_model)

    def queries_keys_values(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor):
        q = self.q_norm(self.q_proj(x)).unflatten(-1, (-1, self.head_dim))  # (N, n_heads, head_dim)
        k = self.k_norm(self.k_proj(x)).unflatten(-1, (-1, self.head_dim))  # (N, n_kv_heads, head_dim)
        v = self.v_proj(x).unflatten(-1, (-1, self.head_dim))  # (N, n_kv_heads, head_dim)
        return rope(q, cos, sin), rope(k, cos, sin), v


class MLP(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gate_proj = Linear(config.d_model, config.d_ff, bias=False)
        self.up_proj = Linear(config.d_model, config.d_ff, bias=False)
        self.down_proj = Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))  # (N, d_model)
        return self.down_proj(F.silu(self.gate_proj(x), inplace=True).mul_(self.up_proj(x)))  # in less memory, which a cache holds


class Block(nn.Module):
    """x + norm(attention(x)), then x + norm(mlp(x)): OLMo2 normalises what a sublayer writes, not what it reads."""

    recompute = False  # keep x alone for the backward pass, and compute the rest again there

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.self_attn = Attention(config, layer)
        self.mlp = MLP(config)
        self.post_attention_layernorm = RMSNorm(config.d_model, config.norm_eps)
        self.post_feedforward_layernorm = RMSNorm(config.d_model, config.norm_eps)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, attend) -> torch.Tensor:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self.compute, x, cos, sin, attend, use_reentrant=False, preserve_rng_state=False)
        return self.compute(x, cos, sin, attend)

    def compute(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, attend) -> torch.Tensor:
        return self.add(x, self.self_attn(x, cos, sin, attend))

    def add(self, x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        x = x + self.post_attention_layernorm(attended)
        return x + self.post_feedforward_layernorm(self.mlp(x))


class Transformer(nn.Module):
    """The decoder. Parameter names are Hugging Face's for OLMo2, without their `model.` prefix."""

    fp32_head = False  # under autocast the head's factors are bf16 like all others, unless this is set; sums are fp32 always
    compiled = False  # fuse() was called: what surrounds attention, and what follows the head's products, is compiled

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.padded_vocab_size, config.d_model)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.n_layers))
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        self.lm_head = nn.Linear(config.d_model, config.padded_vocab_size, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """tokens (B, T) int64 -> logits (B, T, vocab_size). The plain way in; training and sampling use `hidden`."""
        B, T = tokens.shape
        hidden = self.hidden(tokens.flatten(), [T] * B)  # (B*T, d_model)
        return self.logits(hidden).view(B, T, -1)

    def hidden(self, tokens: torch.Tensor, lengths: list[int], continues: list[int] | None = None) -> torch.Tensor:
        """Packed sequences: tokens (N,), one after another, of `lengths` summing to N -> last hidden states (N, d_model).

        `continues`: the last len(continues) sequences each go on from one of those before them, which they share.
        The responses to one prompt then need the prompt's hidden states once, not once each.
        """
        starts = [0] * (len(lengths) - len(continues or [])) + [lengths[i] for i in continues or []]
        positions = torch.cat([torch.arange(start, start + n) for start, n in zip(starts, lengths)]).to(tokens.device)  # (N,)
        return self.trunk(tokens, positions, causal_attention(lengths, tokens.device, continues))

    def trunk(self, tokens: torch.Tensor, positions: torch.Tensor, attend) -> torch.Tensor:
        """tokens, positions (N,) -> (N, d_model), with any `attend(layer, q, k, v)`."""
        x = self.embed_tokens(tokens)  # (N, d_model)
        cos, sin = rope_angles(positions, self.config)
        for block in self.layers:
            x = block(x, cos, sin, attend)
        return self.norm(x)

    def logits(self, hidden: torch.Tensor, padding: bool = False) -> torch.Tensor:
        """(N, d_model) -> (N, vocab_size) fp32. Rows past vocab_size are padding: no probability, no sample.

        With `padding` all rows are there, as in programs that do not know which are padding.
        """
        rows = self.config.padded_vocab_size if padding else self.config.vocab_size
        dtype = self.head_dtype(hidden)
        with torch.autocast(hidden.device.type, enabled=False):
            return product(hidden.to(dtype), self.lm_head.weight[:rows].to(dtype).T)

    def head_dtype(self, hidden: torch.Tensor) -> torch.dtype:
        kind = hidden.device.type
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) and not self.fp32_head else torch.float32

    def logprobs(self, hidden, targets, temperature: float = 1.0, chunk: int | None = None):
        """Of each target under logits / temperature: (log-prob, logsumexp, entropy), each (N,) fp32.

        The one place where logits become log-probs: every loss uses it, at the sampler's temperature. The entropy
        carries no gradient: it is a metric here, not a bonus. `chunk`: tokens whose logits exist at a time; by default 1 GB
        of them on a GPU, 8 MB on a CPU, of the size of its cache.
        """
        weight = self.lm_head.weight[: self.config.vocab_size]  # padding rows have no probability
        chunk = chunk or max(256, (2**28 if hidden.is_cuda else 2**21) // len(weight))
        return LogProbs.apply(hidden, weight, targets, temperature, chunk, self.head_dtype(hidden), self.compiled)

    def expect_equal_rows(self, yes: bool = True) -> None:
        """Every pass will have the same number of tokens, as in pre-training. On an x86 CPU oneDNN then multiplies narrow matrices up
        to a quarter faster than MKL; for each new number of tokens it prepares code, which takes half a millisecond a shape."""
        has_both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        for module in self.layers.modules():
            if isinstance(module, Linear):
                module.through_onednn = yes and has_both and module.weight.device.type == "cpu"

    def fuse(self) -> None:
        """Compile what surrounds attention, region by region, for any number of tokens: norms, RoPE, SwiGLU and residuals are
        then few passes over memory. All blocks share the compiled code."""
        for block in self.layers:
            block.self_attn.queries_keys_values = torch.compile(block.self_attn.queries_keys_values, dynamic=True)
            block.add = torch.compile(block.add, dynamic=True)
        self.compiled = True

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Every matrix from a normal cut at 3 deviations, in a fixed order from one generator: same seed, same bits."""
        config, generator = self.config, torch.Generator().manual_seed(seed)
        for name, p in self.named_parameters():
            if p.ndim == 2:
                std = {"embed_tokens.weight": config.embed_std, "lm_head.weight": config.head_std}.get(name, config.linear_std)
                std = std or p.shape[1] ** -0.5
                nn.init.trunc_normal_(p, std=std, a=-3 * std, b=3 * std, generator=generator)
            elif name.endswith(("q_norm.weight", "k_norm.weight")):
                p.fill_(config.qk_norm_gain)
            else:
                p.fill_(config.post_norm_gain if name.startswith("layers.") else 1.0)

    def num_parameters(self, embeddings: bool = True) -> int:
        return sum(p.numel() for n, p in self.named_parameters() if embeddings or n not in ("embed_tokens.weight", "lm_head.weight"))


class LogProbs(torch.autograd.Function):
    """log_softmax(hidden @ weight.T / temperature) at the targets, in chunks of tokens, with its own backward.

    Logits of 16k tokens and a 100k vocabulary are 6.6 GB in fp32, and their gradient as much again. Here they exist
    for `chunk` tokens at a time, in both passes: the backward pass computes a chunk's logits again. `dtype` is that of the
    factors of the three products; their sums and all else are fp32.
    """

    @staticmethod
    def forward(ctx, hidden, weight, targets, temperature, chunk, dtype, fuse):
        logp, lse, entropy = (hidden.new_empty(len(hidden), dtype=torch.float32) for _ in range(3))
        with torch.autocast(hidden.device.type, enabled=False):
            h, w, read = hidden.to(dtype), weight.to(dtype), fused(read_logits) if fuse else read_logits
            for start in range(0, len(hidden), chunk):
                at = slice(start, start + chunk)
                logp[at], lse[at], entropy[at] = read(product(h[at], w.T), targets[at], temperature)
        ctx.save_for_backward(hidden, weight, targets, lse)
        ctx.how = temperature, chunk, dtype, fuse
        ctx.mark_non_differentiable(entropy)
        return logp, lse, entropy

    @staticmethod
    def backward(ctx, grad_logp, grad_lse, _):
        (hidden, weight, targets, lse), (temperature, chunk, dtype, fuse) = ctx.saved_tensors, ctx.how
        grad_hidden, grad_weight = torch.empty_like(hidden), torch.zeros_like(weight, dtype=torch.float32)
        with torch.autocast(hidden.device.type, enabled=False):
            h, w, slope = hidden.to(dtype), weight.to(dtype), fused(slope_of_logits) if fuse else slope_of_logits
            for start in range(0, len(hidden), chunk):
                at = slice(start, start + chunk)
                d = slope(product(h[at], w.T), targets[at], lse[at], grad_logp[at], grad_lse[at], temperature).to(dtype)
                grad_hidden[at] = product(d, w)
                grad_weight += product(d.T, h[at])
        return grad_hidden, grad_weight.to(weight.dtype), None, None, None, None, None


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(N, D) @ (D, M) in fp32, of factors in fp32 or bf16."""
    if a.is_cuda and a.dtype == torch.bfloat16:
        return torch.mm(a, b, out_dtype=torch.float32)
    return a.float() @ b.float()


def read_logits(logits, targets, temperature):
    """(chunk, V), overwritten, and targets (chunk,) -> log-prob of the targets, logsumexp, entropy, (chunk,) each."""
    logits = logits.div_(temperature) if temperature != 1.0 else logits
    highest = logits.amax(-1, keepdim=True)  # (chunk, 1)
    at_target = logits.gather(-1, targets[:, None])  # (chunk, 1)
    p = (logits - highest).exp_()  # (chunk, V), not normalised
    total = p.sum(-1, keepdim=True)  # (chunk, 1)
    lse = highest + total.log()
    entropy = lse - p.mul_(logits).sum(-1, keepdim=True) / total
    return (at_target - lse)[:, 0], lse[:, 0], entropy[:, 0]


def slope_of_logits(logits, targets, lse, grad_logp, grad_lse, temperature):
    """The loss's gradient in the logits (chunk, V), which are overwritten: d logp = onehot(target) - p, d logsumexp = p."""
    p = logits.div_(temperature).sub_(lse[:, None]).exp_()
    d = p.mul_(((grad_lse - grad_logp) / temperature)[:, None])
    return d.scatter_add_(-1, targets[:, None], (grad_logp / temperature)[:, None])


@functools.cache
def fused(function):
    return torch.compile(function, dynamic=True)


# ---------------------------------------------------------------------------------------------- checkpoints


def save_checkpoint(path: str, model: Transformer, facts: dict, weights: dict | None = None) -> None:
    """Write weights, model config and facts to one file: aside first, then renamed, so a reader never sees half.

    `weights`: the whole ones, where the model has only a shard of each.
    """
    weights = weights or {k: v.detach().cpu() for k, v in model.state_dict().items()}
    write_aside(path, {"model": weights, "config": asdict(model.config), "facts": facts})


def write_aside(path: str, content: dict) -> None:
    """torch.save to `path`.tmp, synced to disk, then renamed over `path`."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    try:
        with open(path + ".tmp", "wb") as f:
            torch.save(content, f)
            f.flush()
            os.fsync(f.fileno())
        os.replace(path + ".tmp", path)
    except BaseException:
        if os.path.exists(path + ".tmp"):
            os.remove(path + ".tmp")  # a full disk or Ctrl-C leaves nothing behind
        raise


def read_file(path: str, mmap: bool = False) -> dict:
    """torch.load that runs no code from the file, with an error a user can act on."""
    if not os.path.exists(path):
        near = sorted(f for f in os.listdir(os.path.dirname(path) or ".") if f.endswith(".pt")) if os.path.isdir(os.path.dirname(path) or ".") else []
        raise FileNotFoundError(f"{path} is missing" + (f"; there are {', '.join(near)}" if near else "; run pretrain.py first"))
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # a damaged zip surfaces as many exception types
        raise OSError(f"{path} is damaged or not a checkpoint ({type(error).__name__}); delete it and make it again") from error


def load_checkpoint(path: str, mmap: bool = False) -> tuple[Transformer, dict]:
    """-> (model in fp32 on the CPU, facts). Raises FileNotFoundError, or OSError where the file is not whole."""
    content = read_file(path, mmap)
    if not {"model", "config", "facts"} <= content.keys():
        raise OSError(f"{path} is not a checkpoint of this project; convert.py brings others in")
    with torch.device("meta"):
        model = Transformer(ModelConfig(**content["config"]))
    model.load_state_dict(content["model"], assign=True)
    return model, content["facts"]


def read_facts(path: str) -> dict:
    """The facts of a checkpoint, without reading its weights."""
    content = read_file(path, mmap=True)
    if "facts" not in content:
        raise OSError(f"{path} is not a checkpoint of this project; convert.py brings others in")
    return {**content["facts"], "model": content["config"]}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python model.py CHECKPOINT.pt")
    try:
        print(json.dumps(read_facts(sys.argv[1]), indent=2))
    except OSError as error:
        sys.exit(f"model.py: {error}")
