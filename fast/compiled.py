"""--compile: what surrounds attention becomes few passes over memory.

Norms, RoPE, SwiGLU and residuals are compiled region by region, for any number of tokens. All
blocks share the code. On a CPU it takes a C++ compiler and 20 seconds.
On two cores a pre-training step of 1.3M parameters gains 10 % (results/bench/cpu.jsonl).
"""

import functools
import types
import warnings

import torch


def install(model) -> None:
    for block in model.layers:
        block.self_attn.forward = types.MethodType(attention_forward, block.self_attn)
        block.forward = types.MethodType(forward, block)


def forward(self, x, cos, sin, attend) -> torch.Tensor:
    """Block.forward: attention itself is not compiled, it has kernels of its own."""
    return add_branches(self, x, self.self_attn(x, cos, sin, attend))


def attention_forward(self, x, cos, sin, attend) -> torch.Tensor:
    """Attention.forward."""
    q, k, v = queries_keys_values(self, x, cos, sin)
    return self.o_proj(attend(self.layer, q, k, v).flatten(-2))  # (N, d_model)


def plain_queries_keys_values(self, x, cos, sin):
    q = self.q_norm(self.q_proj(x)).unflatten(-1, (-1, self.head_dim))  # (N, n_heads, head_dim)
    k = self.k_norm(self.k_proj(x)).unflatten(-1, (-1, self.head_dim))  # (N, n_kv_heads, head_dim)
    v = self.v_proj(x).unflatten(-1, (-1, self.head_dim))  # (N, n_kv_heads, head_dim)
    return rope(q, cos, sin), rope(k, cos, sin), v


def rope(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """model.rope in halves, which the compiler vectorises. It would roll one element at a time."""
    half = x.shape[-1] // 2
    a, b = x.float().chunk(2, dim=-1)
    cos = cos[..., :half]
    sin = sin[..., half:]
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(x.dtype)


def plain_add_branches(self, x, attended):
    x = x + self.post_attention_layernorm(attended)
    return x + self.post_feedforward_layernorm(self.mlp(x))


def queries_keys_values(self, x, cos, sin):
    return fused(plain_queries_keys_values)(self, x, cos, sin)


def add_branches(self, x, attended):
    return fused(plain_add_branches)(self, x, attended)


@functools.cache
def fused(function):
    """The function compiled, once for all models and for any number of tokens.

    It is done when the function is first called, since torch's compiler takes a second to import,
    which a command without --compile need not spend. Trainer, reference and sampler, with and
    without gradients, for one token and for many, make some ten variants of a function; beyond
    torch's limit of 8 it would run as it is, without a word.
    """
    # On a GPU the compiler asks users to report this to its authors; it costs nothing here.
    warnings.filterwarnings("ignore", r"\s*Online softmax is disabled")
    compiled = torch.compile(function, dynamic=True)
    allow_variants(64)
    return compiled


def allow_variants(limit: int) -> None:
    """Let torch compile so many variants of a function, in every thread.

    What is assigned to a setting of torch's compiler holds in the thread that assigns it alone, in
    torch 2.13. Backward passes on a GPU run in threads of their own, where the head's gradient is
    computed and blocks are computed again. So torch's own default becomes the limit too; where
    torch keeps its settings otherwise, the assignment alone counts.
    """
    settings = torch._dynamo.config
    entry = getattr(settings, "_config", {}).get("recompile_limit")
    if hasattr(entry, "default"):
        entry.default = limit
    settings.recompile_limit = limit
