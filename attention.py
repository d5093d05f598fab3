"""Attention over packed sequences: what `Transformer.hidden` passes to the decoder as `attend(layer, q, k, v)`.

Tokens are one flat list of N vectors, sequence after sequence. `causal_attention` knows where each begins; responses that
share a prompt are sequences that continue it. Three ways lead to the same numbers: torch's flash attention takes a pack as it
is (a GPU in bf16); its scaled_dot_product_attention takes padded rows; on a CPU short rows go through plain products.
"""

import functools
import inspect

import torch
import torch.nn.functional as F

try:
    from torch.nn.attention.varlen import varlen_attn

    HAS_VARLEN = "window_size" in inspect.signature(varlen_attn).parameters  # (-1, 0) is causal; versions without it are left alone
except ImportError:
    HAS_VARLEN = False

SHORT = 512  # tokens: up to here the probabilities of a CPU's rows are kept for the backward pass


def causal_attention(lengths: list[int], device, continues: list[int] | None = None):
    """`attend` for packed sequences: each token sees itself and what came before it in its own sequence.

    Sequences of one length are a plain (B, T) batch. Otherwise flash attention takes the pack as it is, on a GPU in bf16;
    elsewhere q, k, v are laid out right-padded for attention alone (the rest of the network never sees padding): a causal
    query never looks right, so the padding needs no mask.
    """
    if continues:
        return branching_attention(lengths, device, continues)
    B, T = len(lengths), max(lengths)
    if min(lengths) == T:
        return lambda layer, q, k, v: of_rows(*(x.unflatten(0, (B, T)) for x in (q, k, v))).flatten(0, 1)
    ends = ends_of_each(lengths, device)
    to_padded, real = padded_index(start_of_each(lengths), torch.tensor(lengths))
    to_padded, to_packed = to_padded.to(device), real.flatten().nonzero()[:, 0].to(device)  # (B*T,) into N, (N,) into B*T

    def attend(layer, q, k, v):
        if takes_packed(q):
            return packed_attention(q, k, v, ends, ends, T, T)  # (N, n_heads, head_dim)
        q, k, v = (x.index_select(0, to_padded).unflatten(0, (B, T)) for x in (q, k, v))  # (B, T, heads, head_dim)
        return of_rows(q, k, v).flatten(0, 1).index_select(0, to_packed)

    return attend


def branching_attention(lengths: list[int], device, continues: list[int]):
    """`attend` where the last sequences continue earlier ones: their queries see the shared beginning, then their own."""
    n_roots = len(lengths) - len(continues)
    roots = causal_attention(lengths[:n_roots], device)
    N, starts, sizes = sum(lengths[:n_roots]), start_of_each(lengths), torch.tensor(lengths)
    shared, own = sizes[continues], sizes[n_roots:]  # (C,) tokens of each branch's beginning, and its own
    column = torch.arange(int((shared + own).max()))[None]  # (1, Tk)
    of_shared, of_own = starts[continues][:, None] + column, starts[n_roots:, None] + column - shared[:, None]  # (C, Tk)
    is_key = column < (shared + own)[:, None]  # (C, Tk)
    index = torch.where(column < shared[:, None], of_shared, torch.where(is_key, of_own, 0))  # (C, Tk) into N
    keys_packed, ends_q, ends_k = index[is_key].to(device), ends_of_each(own, device), ends_of_each(shared + own, device)
    longest_q, longest_k = int(own.max()), column.shape[1]

    @functools.cache
    def padded():
        to_queries, real = padded_index(starts[n_roots:] - N, own)  # (C*Tq,) into the branches' tokens; (C, Tq)
        last_seen = shared[:, None] + torch.arange(real.shape[1])[None]  # (C, Tq) query j sees the beginning and own 0 .. j
        unseen = (column[:, None] > last_seen[:, :, None])[:, None].to(device)  # (C, 1, Tq, Tk)
        mask = torch.zeros(unseen.shape, device=device).masked_fill_(unseen, float("-inf"))
        return to_queries.to(device), index.flatten().to(device), real.flatten().nonzero()[:, 0].to(device), mask

    def attend(layer, q, k, v):
        of_roots = roots(layer, q[:N], k[:N], v[:N])  # (N, n_heads, head_dim)
        if takes_packed(q):
            keys, values = (x.index_select(0, keys_packed) for x in (k, v))
            return torch.cat((of_roots, packed_attention(q[N:], keys, values, ends_q, ends_k, longest_q, longest_k)))
        to_queries, to_keys, to_packed, mask = padded()
        queries = q[N:].index_select(0, to_queries).unflatten(0, (len(own), -1))  # (C, Tq, n_heads, head_dim)
        keys, values = (x.index_select(0, to_keys).unflatten(0, (len(own), -1)) for x in (k, v))  # (C, Tk, n_kv_heads, head_dim)
        out = of_rows(queries, keys, values, mask.to(q.dtype), int(shared.max())).flatten(0, 1)  # (C*Tq, n_heads, head_dim)
        return torch.cat((of_roots, out.index_select(0, to_packed)))

    return attend


def takes_packed(q: torch.Tensor) -> bool:
    """Whether flash attention for packed sequences runs here."""
    return HAS_VARLEN and q.is_cuda and q.dtype == torch.bfloat16


def packed_attention(q, k, v, ends_q, ends_k, longest_q: int, longest_k: int) -> torch.Tensor:
    """q (Nq, n_heads, head_dim), k and v (Nk, n_kv_heads, head_dim): each sequence's queries are the last of its keys, and causal."""
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) if q.shape[1] > k.shape[1] else x for x in (k, v))
    return varlen_attn(q, k, v, ends_q, ends_k, longest_q, longest_k, window_size=(-1, 0))


def of_rows(q, k, v, mask=None, before: int = 0) -> torch.Tensor:
    """Rows of queries (B, Tq, n_heads, head_dim), of keys and values (B, Tk, n_kv_heads, head_dim) -> like q. Causal, or with a
    mask that is added to the scores; query j of a row then sees none but its first `before` + j + 1 keys."""
    if q.device.type != "cpu" or q.dtype != torch.float32 or max(q.shape[1], k.shape[1]) > SHORT:
        return sdpa(q, k, v, mask)
    if mask is None:
        mask = torch.full((q.shape[1], k.shape[1]), float("-inf"), device=q.device).triu_(1)  # (Tq, Tk)
    return InProducts.apply(q, k, v, mask, before)


def sdpa(q, k, v, mask=None) -> torch.Tensor:
    """torch's kernel, (B, T, heads, head_dim) each."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, heads, T, head_dim)
    gqa = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=gqa).transpose(1, 2)


class InProducts(torch.autograd.Function):
    """Attention written out, for short rows on a CPU. torch's kernel computes the scores again going back, and there also those that
    a causal mask hides. Here the probabilities p are kept, and 64 queries at a time meet the keys that their last one sees.

    With g the gradient of out = p v and p = softmax(s): dv = p.T g, dp = g v.T, ds = p (dp - sum(p dp)), dq = ds k, dk = ds.T q.
    """

    @staticmethod
    def forward(ctx, q, k, v, mask, before):
        (B, Tq, H, D), per_kv = q.shape, q.shape[2] // k.shape[2]
        q, k, v = by_head(q * D**-0.5), by_head(k, per_kv), by_head(v, per_kv)  # (B*H, T, D)
        outs, kept = [], []
        for start in range(0, Tq, 64):
            end = min(start + 64, Tq)
            seen = min(before + end, k.shape[1])
            s = torch.bmm(q[:, start:end], k[:, :seen].transpose(1, 2))  # (B*H, 64, seen)
            s.view(B, H, end - start, seen).add_(mask[..., start:end, :seen])
            p = s.softmax(-1)
            outs.append(torch.bmm(p, v[:, :seen]))
            kept += [p] if any(ctx.needs_input_grad) else []
        ctx.save_for_backward(q, k, v, *kept)
        ctx.shape = B, H, D, per_kv
        return torch.cat(outs, 1).view(B, H, Tq, D).transpose(1, 2)  # (B, Tq, H, D)

    @staticmethod
    def backward(ctx, g):
        (q, k, v, *kept), (B, H, D, per_kv) = ctx.saved_tensors, ctx.shape
        g, end, dqs = by_head(g), q.shape[1], []
        dk, dv = torch.zeros_like(k), torch.zeros_like(v)
        for p in reversed(kept):
            start, seen = end - p.shape[1], p.shape[2]
            dp = torch.bmm(g[:, start:end], v[:, :seen].transpose(1, 2))  # (B*H, 64, seen)
            ds = torch._softmax_backward_data(dp, p, -1, p.dtype)
            dqs.append(torch.bmm(ds, k[:, :seen]))
            dk[:, :seen] += torch.bmm(ds.transpose(1, 2), q[:, start:end])
            dv[:, :seen] += torch.bmm(p.transpose(1, 2), g[:, start:end])
            end = start
        dq = torch.cat(dqs[::-1], 1).mul_(D**-0.5).view(B, H, -1, D)
        dk, dv = (x.view(B, H // per_kv, per_kv, -1, D).sum(2) if per_kv > 1 else x.view(B, H, -1, D) for x in (dk, dv))
        return dq.transpose(1, 2), dk.transpose(1, 2), dv.transpose(1, 2), None, None


def by_head(x: torch.Tensor, times: int = 1) -> torch.Tensor:
    """(B, T, heads, D) -> (B * heads * times, T, D), each head so many times in a row."""
    x = x.transpose(1, 2)[:, :, None].expand(-1, -1, times, -1, -1)  # (B, heads, times, T, D)
    return x.reshape(-1, *x.shape[3:])


def start_of_each(lengths: list[int]) -> torch.Tensor:
    """Where each packed sequence begins, (B,)."""
    return torch.tensor([0, *lengths[:-1]]).cumsum(0)


def ends_of_each(lengths, device) -> torch.Tensor:
    """0, then where each packed sequence ends, (B + 1,) int32."""
    return F.pad(torch.as_tensor(lengths).cumsum(0), (1, 0)).int().to(device)


def padded_index(starts: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequences at starts (B,) of lengths (B,) -> index (B*T,) that lays them out right-padded, and which are real (B, T)."""
    column = torch.arange(int(lengths.max()))[None]  # (1, T)
    real = column < lengths[:, None]  # (B, T)
    return torch.where(real, starts[:, None] + column, 0).flatten(), real
