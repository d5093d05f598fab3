"""OLMo2, the decoder that the paper trains, as one would write it on a board.

Start at `Transformer.trunk` (embedding, n_layers blocks, a norm), then `logits`, which is the head.
Tokens travel as one flat list of N vectors, whatever sequences they belong to. Only attention has
to know which sequence is which, so it is passed in as a function `attend(layer, q, k, v)`: training
passes `causal_attention` over packed sequences, sampling passes attention over its cache.

B sequences of T tokens, N tokens in all, V ids in the vocabulary, R response tokens.

    python model.py out/1B/4B.pt        prints what a checkpoint says of itself
"""

import sys
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

torch.set_float32_matmul_precision("highest")  # fp32 means fp32: parity comes before speed


@dataclass(frozen=True)
class ModelConfig:
    vocab_size: int = 100_278  # ids that the tokenizer has; dolma2
    padded_vocab_size: int = 100_352  # rows of embedding and head, padding rows included
    d_model: int = 2048
    n_layers: int = 16
    n_heads: int = 16
    n_kv_heads: int = 16  # fewer than n_heads is grouped-query attention
    d_ff: int = 8192  # hidden width of the SwiGLU
    max_seq_len: int = 4096  # tokens
    rope_theta: float = 500_000.0
    norm_eps: float = 1e-6
    # Initialisation: normal, cut at 3 deviations. OLMo2 has 0.02 everywhere and gains of 1.
    embed_std: float = 0.02
    linear_std: float = 0.02  # 0 means 1 / sqrt(fan in)
    head_std: float = 0.02
    post_norm_gain: float = 1.0  # gain of the two norms on what the sublayers write
    qk_norm_gain: float = 1.0

    @property
    def head_dim(self) -> int:
        return self.d_model // self.n_heads


# The toy scales depart from OLMo2's initialisation on purpose: with it, a model of width 64 learns
# facts within minutes, but not to copy. A large embedding, and half the gain on what blocks add,
# keep the token readable in the residual stream. With unit gains q.k / sqrt(16) seldom exceeds 4,
# so attention stays flat; gains of 2 make it 16, so it can be sharp. A short RoPE period helps too.
TOY_INIT = dict(embed_std=1.0, linear_std=0.0, head_std=0.02, post_norm_gain=0.5, qk_norm_gain=2.0)
OLMO2_1B = ModelConfig()  # OLMo-2-0425-1B: 1,484,916,736 parameters
PRESETS = {
    # vocab, padded (0: the tokenizer's), d_model, layers, heads, kv heads, d_ff, max_seq_len, ...;
    # then how many parameters that makes.
    "toy": ModelConfig(0, 0, 64, 3, 4, 4, 176, 2048, rope_theta=500.0, **TOY_INIT),  # 0.23M
    "toy-large": ModelConfig(0, 0, 128, 3, 8, 8, 352, 2048, rope_theta=500.0, **TOY_INIT),  # 0.77M
    # 19M, and embedding and head
    "small": ModelConfig(0, 0, 512, 6, 8, 8, 1408, 2048, rope_theta=10_000.0, **TOY_INIT),
    "1B": OLMO2_1B,
    "1B-60B": OLMO2_1B,  # 1B weights, 60B tokens: 10B more, of mathematics
    # The paper's 4B shape is not public. Ours has 4,014,246,912 parameters, and heads of 128.
    "4B": ModelConfig(d_model=3072, n_layers=24, n_heads=24, n_kv_heads=24, d_ff=11_264),
}


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last dimension. In fp32, cast back at the end, as OLMo2 does."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        inverse_rms = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)  # (..., 1)
        return (wide * inverse_rms * self.weight.float()).to(x.dtype)


def rope_angles(positions: torch.Tensor, config: ModelConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """positions (N,) -> cos and signed sin, (N, 1, head_dim) in fp32.

    Pair i of a head turns by position * theta^(-2i / head_dim) radians, rounded as OLMo2 does it.
    """
    even = torch.arange(0, config.head_dim, 2, device=positions.device, dtype=torch.float32)
    frequency = 1.0 / config.rope_theta ** (even / config.head_dim)  # (head_dim / 2,)
    angles = positions[:, None].float() * frequency  # (N, head_dim / 2)
    cos = angles.cos()
    sin = angles.sin()
    return torch.cat((cos, cos), -1)[:, None], torch.cat((-sin, sin), -1)[:, None]


def rope(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """x (N, heads, head_dim): turn each pair (a, b) = (x[i], x[i + head_dim / 2]) by its angle."""
    swapped = x.float().roll(x.shape[-1] // 2, dims=-1)  # (b, a); sin is negative in the first half
    return torch.addcmul(x.float() * cos, swapped, sin).to(x.dtype)


def causal_attention(lengths: list[int], device: torch.device):  # fast/ needs device
    """`attend` for packed sequences: a token sees itself and what came before in its sequence."""

    def attend(layer, q, k, v):  # q (N, n_heads, head_dim); k, v (N, n_kv_heads, head_dim)
        outputs = []
        for qkv in zip(q.split(lengths), k.split(lengths), v.split(lengths)):  # of one sequence
            q1, k1, v1 = (x.transpose(0, 1)[None] for x in qkv)  # (1, heads, T, head_dim)
            out = F.scaled_dot_product_attention(q1, k1, v1, is_causal=True, enable_gqa=True)
            outputs.append(out[0].transpose(0, 1))  # (T, n_heads, head_dim)
        return torch.cat(outputs)

    return attend


class Attention(nn.Module):
    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        q_width = config.n_heads * config.head_dim
        kv_width = config.n_kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.d_model, q_width, bias=False)
        self.k_proj = nn.Linear(config.d_model, kv_width, bias=False)
        self.v_proj = nn.Linear(config.d_model, kv_width, bias=False)
        self.o_proj = nn.Linear(q_width, config.d_model, bias=False)
        self.q_norm = RMSNorm(q_width, config.norm_eps)  # over all heads together, before the split
        self.k_norm = RMSNorm(kv_width, config.norm_eps)

    def forward(self, x, cos, sin, attend) -> torch.Tensor:
        q = self.q_norm(self.q_proj(x)).unflatten(-1, (-1, self.head_dim))  # (N, n_heads, head_dim)
        k = self.k_norm(self.k_proj(x)).unflatten(-1, (-1, self.head_dim))  # (N, n_kv_heads, ...)
        v = self.v_proj(x).unflatten(-1, (-1, self.head_dim))
        out = attend(self.layer, rope(q, cos, sin), rope(k, cos, sin), v)  # (N, n_heads, head_dim)
        return self.o_proj(out.flatten(-2))  # (N, d_model)


class MLP(nn.Module):  # SwiGLU
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gate_proj = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.up_proj = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.down_proj = nn.Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))  # (N, d_model)


class Block(nn.Module):  # OLMo2 normalises what a sublayer writes, not what it reads
    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.self_attn = Attention(config, layer)
        self.mlp = MLP(config)
        self.post_attention_layernorm = RMSNorm(config.d_model, config.norm_eps)
        self.post_feedforward_layernorm = RMSNorm(config.d_model, config.norm_eps)

    def forward(self, x, cos, sin, attend) -> torch.Tensor:
        x = x + self.post_attention_layernorm(self.self_attn(x, cos, sin, attend))
        return x + self.post_feedforward_layernorm(self.mlp(x))  # (N, d_model)


class Transformer(nn.Module):
    """The decoder. Parameter names are Hugging Face's for OLMo2, without their prefix `model.`."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.padded_vocab_size, config.d_model)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.n_layers))
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        self.lm_head = nn.Linear(config.d_model, config.padded_vocab_size, bias=False)
        self.attention = causal_attention  # makes `attend`; fast/ puts a quicker maker here

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """tokens (B, T) int64 -> logits (B, T, vocab_size)."""
        B, T = tokens.shape
        hidden = self.hidden(tokens.flatten(), [T] * B)  # (B*T, d_model)
        return self.logits(hidden).view(B, T, -1)

    def hidden(self, tokens: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        """Packed sequences: tokens (N,), of these lengths -> last hidden states (N, d_model)."""
        positions = torch.cat([torch.arange(n) for n in lengths]).to(tokens.device)  # (N,)
        return self.trunk(tokens, positions, self.attention(lengths, tokens.device))

    def trunk(self, tokens: torch.Tensor, positions: torch.Tensor, attend) -> torch.Tensor:
        """tokens, positions (N,) -> (N, d_model), with any `attend(layer, q, k, v)`."""
        x = self.embed_tokens(tokens)  # (N, d_model)
        cos, sin = rope_angles(positions, self.config)
        for block in self.layers:
            x = block(x, cos, sin, attend)
        return self.norm(x)

    def logits(self, hidden: torch.Tensor, padding: bool = False) -> torch.Tensor:
        """(N, d_model) -> (N, vocab_size) in fp32; with `padding`, (N, padded_vocab_size).

        Padding rows are never trained or sampled, but lm-evaluation-harness counts them, too.
        """
        rows = self.config.padded_vocab_size if padding else self.config.vocab_size
        with torch.autocast(hidden.device.type, enabled=False):
            return hidden.float() @ self.lm_head.weight[:rows].float().T

    def logprobs(self, hidden, targets, temperature: float = 1.0, chunk: int = 1024):
        """hidden (R, d_model), targets (R,) -> (log-prob, logsumexp, entropy), (R,) each.

        All three are of softmax(logits / temperature), in fp32. Every loss gets its log-probs here;
        the sampler gets its own from `draw` in sampler.py. With a vocabulary of 100k, the logits of
        16k tokens take 6.6 GB, and their gradient as much again. So logits exist for `chunk` tokens
        at a time, and the backward pass recomputes them. The entropy is a metric: no gradient.
        """
        parts = []
        for h, t in zip(hidden.split(chunk), targets.split(chunk)):
            parts.append(checkpoint(self.chunk_logprobs, h, t, temperature, use_reentrant=False))
        logp, lse, entropy = (torch.cat(column) for column in zip(*parts))
        return logp, lse, entropy

    def chunk_logprobs(self, hidden, targets, temperature):  # (chunk, d_model), (chunk,)
        logits = self.logits(hidden) / temperature  # (chunk, V)
        log_probs = logits.log_softmax(-1)  # logits - logsumexp
        logp = log_probs.gather(-1, targets[:, None])[:, 0]  # (chunk,)
        lse = logits[:, 0] - log_probs[:, 0]  # the same in every column
        with torch.no_grad():
            entropy = -(log_probs.exp() * log_probs).sum(-1)
        return logp, lse, entropy

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """All matrices in a fixed order from one generator: the same seed gives the same bits."""
        config = self.config
        generator = torch.Generator().manual_seed(seed)
        stds = {"embed_tokens.weight": config.embed_std, "lm_head.weight": config.head_std}
        for name, p in self.named_parameters():
            if p.ndim == 2:
                std = stds.get(name, config.linear_std)
                std = std or p.shape[1] ** -0.5  # 0 means 1 / sqrt(fan in)
                drawn = torch.empty(p.shape)  # on the CPU: the same bits wherever the model is
                nn.init.trunc_normal_(drawn, std=std, a=-3 * std, b=3 * std, generator=generator)
                p.copy_(drawn)
            elif name.endswith(("q_norm.weight", "k_norm.weight")):
                p.fill_(config.qk_norm_gain)
            elif name.startswith("layers."):
                p.fill_(config.post_norm_gain)
            else:
                p.fill_(1.0)

    def num_parameters(self, embeddings: bool = True) -> int:  # or without embedding and head
        outer = 0 if embeddings else self.embed_tokens.weight.numel() + self.lm_head.weight.numel()
        return sum(p.numel() for p in self.parameters()) - outer


if __name__ == "__main__":
    from plumbing.checkpoint import print_facts

    print_facts(*sys.argv[1:])
