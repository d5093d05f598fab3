"""Attention over packed sequences, and prompts that are computed once for all their responses.

Three ways lead to the same numbers. torch's flash attention takes a pack as it is, on a GPU in
bf16. On a CPU in fp32, short rows go through plain products (cpu.py). Everything else goes to
torch's scaled_dot_product_attention in right-padded rows.

A toy RL update takes 39 % longer when each response computes its prompt again, and a toy
pre-training step 9 % longer with the plain loop over sequences (one thread of an AMD EPYC, Zen 4).
With long prompts and many rollouts sharing decides what fits: see --plan.
"""

import functools
import inspect

import torch
import torch.nn.functional as F

from fast import cpu
from plumbing.transfer import send


def hidden(self, tokens: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """Transformer.hidden; the host does not wait until the positions are on the device."""
    positions = send(torch.cat([torch.arange(n) for n in lengths]), tokens.device)  # (N,)
    return self.trunk(tokens, positions, self.attention(lengths, tokens.device))


def causal_attention(lengths: list[int], device):
    """model.causal_attention: each token sees itself and what came before it in its own sequence.

    Sequences of one length are a plain (B, T) batch. Others go to flash attention as they are, or
    are laid out right-padded, for attention alone: the rest of the network never sees padding. A
    causal query never looks to its right, so the padding needs no mask.
    """
    B = len(lengths)
    T = max(lengths)
    if min(lengths) == T:
        return functools.partial(attend_equal_rows, (B, T))
    ends = ends_of_each(lengths, device)

    @functools.cache
    def padded():
        """Which of N tokens stands at each of B*T places, and which of these at each token."""
        to_padded, real = padded_index(start_of_each(lengths), torch.tensor(lengths))
        to_packed = real.flatten().nonzero()[:, 0]
        return to_padded.to(device), to_packed.to(device)  # (B*T,), (N,)

    def attend(layer, q, k, v):
        if takes_packed(q):
            return packed_attention(q, k, v, ends, ends, T, T)  # (N, n_heads, head_dim)
        to_padded, to_packed = padded()
        rows = [x.index_select(0, to_padded).unflatten(0, (B, T)) for x in (q, k, v)]
        return attention_of_rows(*rows).flatten(0, 1).index_select(0, to_packed)

    return attend


def attend_equal_rows(shape, layer, q, k, v):
    rows = [x.unflatten(0, shape) for x in (q, k, v)]  # (B, T, heads, head_dim) each
    return attention_of_rows(*rows).flatten(0, 1)


def attention_of_rows(q, k, v, mask=None, before: int = 0) -> torch.Tensor:
    """Rows of queries (B, Tq, n_heads, head_dim), keys and values (B, Tk, n_kv_heads, head_dim).

    Causal, or with a mask that is added to the scores. Then query j of a row must see none but its
    first `before` + j + 1 keys. -> like q
    """
    longest = max(q.shape[1], k.shape[1])
    if q.device.type == "cpu" and q.dtype == torch.float32 and longest <= cpu.SHORT:
        return cpu.attention_of_rows(q, k, v, mask, before)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, heads, T, head_dim)
    gqa = q.shape[1] != k.shape[1]
    causal = mask is None
    out = F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal, enable_gqa=gqa)
    return out.transpose(1, 2)


def takes_packed(q: torch.Tensor) -> bool:
    """Whether flash attention for packed sequences runs here."""
    return q.is_cuda and q.dtype == torch.bfloat16 and flash_attention() is not None


@functools.cache
def flash_attention():
    """torch's varlen_attn; None in a version of torch that lacks it.

    It is imported when it is first asked for. With it comes torch's compiler, which takes a second
    that a CPU need not spend.
    """
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    # window_size=(-1, 0) is causal; versions of torch without it are left alone
    known = "window_size" in inspect.signature(varlen_attn).parameters
    return varlen_attn if known else None


def packed_attention(q, k, v, ends_q, ends_k, longest_q: int, longest_k: int) -> torch.Tensor:
    """q (Nq, n_heads, head_dim), k and v (Nk, n_kv_heads, head_dim), causal.

    The queries of a sequence are the last of its keys.
    """
    per_kv = q.shape[1] // k.shape[1]
    if per_kv > 1:
        k = k.repeat_interleave(per_kv, 1)
        v = v.repeat_interleave(per_kv, 1)
    attention = flash_attention()
    return attention(q, k, v, ends_q, ends_k, longest_q, longest_k, window_size=(-1, 0))


# --------------------------------------------------------------- prompts shared by their responses


def shared_prompt_hidden(self, prompts, responses) -> torch.Tensor:
    """plumbing.batches.response_hidden; prompts that are the same list object are computed once.

    Two prompts with three responses, P1 P1 P2 and R1 R2 R3, travel as P1 P2 R1 R2 R3. R1 and R2
    continue P1, and R3 continues P2. The first token of a response is predicted by the last of its
    prompt.
    """
    distinct = list({id(prompt): prompt for prompt in prompts}.values())
    place = {id(prompt): i for i, prompt in enumerate(distinct)}
    prompt_of = [place[id(prompt)] for prompt in prompts]
    tokens = []
    lengths = []
    ends = []
    for part in (*distinct, *responses):
        tokens.extend(part)
        lengths.append(len(part))
        ends.append(len(tokens))
    predict = []  # which of the N tokens predict a response token
    for p, response, end in zip(prompt_of, responses, ends[len(distinct) :]):
        if response:
            predict.append(ends[p] - 1)
            predict.extend(range(end - len(response), end - 1))
    device = self.lm_head.weight.device
    starts = [0] * len(distinct) + [lengths[p] for p in prompt_of]
    positions = [torch.arange(start, start + n) for start, n in zip(starts, lengths)]
    attend = branching_attention(lengths, device, prompt_of)
    tokens = send(tokens, device)  # (N,)
    hidden = self.trunk(tokens, send(torch.cat(positions), device), attend)  # (N, d_model)
    return hidden[send(predict, device)]


def branching_attention(lengths: list[int], device, continues: list[int]):
    """`attend` where the last sequences continue earlier ones.

    Sequence n_roots + i is a branch: it goes on from root continues[i]. Its queries see the whole
    root, then what there is of the branch. The roots attend as packed sequences do. Example: roots
    of 2 and 1 tokens, branches of 2, 1 and 1 with continues = [0, 0, 1]. The tokens stand as

        place   0  1 | 2 | 3  4 | 5 | 6
                root 0  1   of 0  of 0 of 1       keys of the branches: 0 1 3 4, 0 1 5, 2 6
    """
    n_roots = len(lengths) - len(continues)
    roots = causal_attention(lengths[:n_roots], device)
    N = sum(lengths[:n_roots])  # tokens of the roots
    starts = start_of_each(lengths)
    sizes = torch.tensor(lengths)
    shared = sizes[continues]  # (C,) tokens of each branch's root
    own = sizes[n_roots:]  # (C,) tokens of each branch
    column = torch.arange(int((shared + own).max()))[None]  # (1, Tk)
    in_root = column < shared[:, None]  # (C, Tk)
    is_key = column < (shared + own)[:, None]  # (C, Tk)
    place_in_root = starts[continues][:, None] + column
    place_in_branch = starts[n_roots:, None] + column - shared[:, None]
    index = torch.where(in_root, place_in_root, place_in_branch)
    index = index.masked_fill(~is_key, 0)  # (C, Tk) where each key of a branch stands
    keys_packed = send(index[is_key], device)
    ends_q = ends_of_each(own, device)
    ends_k = ends_of_each(shared + own, device)
    longest_q = int(own.max())
    longest_k = column.shape[1]

    @functools.cache
    def padded():
        """Where queries and keys stand in right-padded rows, and what each query may not see."""
        to_queries, real = padded_index(starts[n_roots:] - N, own)  # (C*Tq,); (C, Tq)
        last_seen = shared[:, None] + torch.arange(real.shape[1])[None]  # (C, Tq)
        unseen = (column[:, None] > last_seen[:, :, None])[:, None].to(device)  # (C, 1, Tq, Tk)
        mask = torch.zeros(unseen.shape, device=device).masked_fill_(unseen, float("-inf"))
        to_packed = real.flatten().nonzero()[:, 0]
        return to_queries.to(device), index.flatten().to(device), to_packed.to(device), mask

    def attend(layer, q, k, v):
        of_roots = roots(layer, q[:N], k[:N], v[:N])  # (N, n_heads, head_dim)
        if takes_packed(q):
            keys = rows_of(k, keys_packed)
            values = rows_of(v, keys_packed)
            sizes_of_pack = (ends_q, ends_k, longest_q, longest_k)
            return torch.cat((of_roots, packed_attention(q[N:], keys, values, *sizes_of_pack)))
        to_queries, to_keys, to_packed, mask = padded()
        rows = (len(own), -1)
        queries = q[N:].index_select(0, to_queries).unflatten(0, rows)  # (C, Tq, n_heads, head_dim)
        keys = rows_of(k, to_keys).unflatten(0, rows)  # (C, Tk, n_kv_heads, head_dim)
        values = rows_of(v, to_keys).unflatten(0, rows)
        out = attention_of_rows(queries, keys, values, mask.to(q.dtype), int(shared.max()))
        return torch.cat((of_roots, out.flatten(0, 1).index_select(0, to_packed)))

    return attend


def rows_of(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """x (N, heads, head_dim) at index (M,), where a row of a shared prompt is asked for often."""
    if x.dtype == torch.float32:
        return x.index_select(0, index)
    return RowsOf.apply(x, index)


class RowsOf(torch.autograd.Function):
    """index_select, with a gradient that is summed in fp32 and rounded once.

    torch's own sums in the dtype of x. In bf16 each of a prompt's responses would then round what
    the others have added, and with 32 of them the smaller parts would be lost.
    """

    @staticmethod
    def forward(ctx, x, index):
        ctx.save_for_backward(index)
        ctx.shape = x.shape
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx, grad):
        (index,) = ctx.saved_tensors
        total = torch.zeros(ctx.shape, dtype=torch.float32, device=grad.device)
        return total.index_add_(0, index, grad.float()).to(grad.dtype), None


def start_of_each(lengths: list[int]) -> torch.Tensor:
    """Where each packed sequence begins, (B,)."""
    return torch.tensor([0, *lengths[:-1]]).cumsum(0)


def ends_of_each(lengths, device) -> torch.Tensor:
    """0, then where each packed sequence ends, (B + 1,) int32."""
    return send(F.pad(torch.as_tensor(lengths).cumsum(0), (1, 0)).int(), device)


def padded_index(starts: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequences at starts (B,), of lengths (B,) -> what lays them out right-padded.

    An index (B*T,) of the token at each place, 0 where there is none; and which are real, (B, T).
    """
    column = torch.arange(int(lengths.max()))[None]  # (1, T)
    real = column < lengths[:, None]  # (B, T)
    return torch.where(real, starts[:, None] + column, 0).flatten(), real
