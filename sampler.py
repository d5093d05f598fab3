"""Batched sampling with a KV cache: what RL spends most of its time on.

A fixed number of slots decode together, one token per slot and step. A prompt goes through the model once, and its
keys and values are copied to every slot that samples from it; a slot whose rollout ends is given the next one.
Each slot's row of the cache is right-padded: position p of its sequence is column p, so no position ids to get wrong.

Every draw is a function of (seed, step, problem, rollout, position) and nothing else. Slots, order, restarts and
ranks therefore do not change which tokens are sampled.
"""

from dataclasses import dataclass

import torch
from tqdm import tqdm

from model import Transformer, causal_attention

GOLDEN = -7046029254386353131  # 2^64 / golden ratio as a signed int64: the increment of splitmix64


@dataclass
class Rollout:
    tokens: list[int]  # the response, with its eos where it ended by itself
    logprobs: list[float]  # of these tokens at the sampling temperature, before any top_p cut
    finished: bool  # False where max_new_tokens cut it


@torch.inference_mode()
def sample(
    model: Transformer,
    prompts: list[list[int]],
    n: int = 1,
    max_new_tokens: int | list[int] = 256,
    temperature: float = 1.0,
    top_p: float = 1.0,
    eos: int | None = None,
    seed: int = 0,
    step: int = 0,
    problem_ids: list[int] | None = None,
    slots: int = 512,
    progress: bool = False,
) -> list[list[Rollout]]:
    """n rollouts of every prompt (lists of token ids): one list of n `Rollout`s per prompt, in the prompts' order.

    temperature 0 is greedy (log-probs are then those at temperature 1). `problem_ids` key the randomness of each
    prompt, so that a rank that samples a part of a batch draws what one process would have drawn; default: its index.
    `max_new_tokens` is one number, or one per rollout in the order of the result.
    """
    check_lengths(model, prompts, max_new_tokens)
    device = model.lm_head.weight.device
    total = len(prompts) * n
    budget = torch.as_tensor(max_new_tokens, device=device).expand(total)  # (total,) tokens each rollout may have
    ids = torch.tensor(problem_ids if problem_ids is not None else range(len(prompts)), device=device)
    keys = hash_key(seed, step, ids.repeat_interleave(n), torch.arange(n, device=device).repeat(len(prompts)))  # (total,)

    out_tokens = torch.zeros(total, int(budget.max()), dtype=torch.int32, device=device)
    out_logp = torch.zeros(total, int(budget.max()), device=device)
    out_length = torch.zeros(total, dtype=torch.int64, device=device)
    finished = torch.zeros(total, dtype=torch.bool, device=device)

    S = min(slots, total)
    cache = Cache(model.config, S, max(map(len, prompts)) + int(budget.max()), device, model.lm_head.weight.dtype)
    waiting = Queue(model, prompts, n, cache)
    rollout = torch.full((S,), -1, device=device)  # (S,) index of the rollout in each slot; -1: empty
    length = torch.zeros(S, dtype=torch.int64, device=device)  # (S,) tokens of prompt and response so far
    logits = torch.zeros(S, model.config.vocab_size, device=device)  # (S, vocab_size) of each slot's next token
    bar = tqdm(total=total, desc="sampling", unit="rollout", disable=not progress, leave=False)
    while True:
        empty = (rollout < 0).nonzero()[:, 0]  # one wait for the device per step
        if len(waiting) and len(empty) >= min(len(waiting), max(1, S // 16)):  # a few at a time: prefills batch better
            admitted = empty[: len(waiting)]
            rollout[admitted], length[admitted], logits[admitted] = waiting.admit(admitted)
            empty = empty[len(admitted) :]
        if len(empty) == S:
            break
        if not len(waiting) and len(empty) > S // 5:  # nobody left to fill the empty slots: drop them
            live = (rollout >= 0).nonzero()[:, 0]
            rollout, length, logits, S = rollout[live], length[live], logits[live], len(live)
            cache.keep(live)
            empty = empty[:0]

        row = rollout.clamp(min=0)  # empty slots compute along and write nothing
        column = out_length[row]
        token, logp = draw(logits, uniform(keys[row], column), temperature, top_p)
        alive = rollout >= 0
        out_tokens[row[alive], column[alive]] = token[alive].int()
        out_logp[row[alive], column[alive]] = logp[alive]
        out_length[row[alive]] += 1
        ended = alive & (token == eos) if eos is not None else torch.zeros_like(alive)
        finished[row[ended]] = True
        done = ended | alive & (column + 1 >= budget[row])
        bar.update(int(done.sum()))
        rollout[done] = -1
        if bool((rollout >= 0).any()):
            hidden = model.trunk(token, length, cache.attend(length))  # (S, d_model)
            logits = model.logits(hidden)
            length += rollout >= 0
    bar.close()
    tokens, logps, ends = out_tokens.tolist(), out_logp.tolist(), out_length.tolist()
    flat = [Rollout(t[:end], p[:end], bool(f)) for t, p, end, f in zip(tokens, logps, ends, finished.tolist())]
    return [flat[i : i + n] for i in range(0, total, n)]


def check_lengths(model: Transformer, prompts: list[list[int]], max_new_tokens) -> None:
    """Refuse at once what would end in nonsense later."""
    if not prompts or not all(prompts):
        raise ValueError("sample() needs prompts, each of at least one token")
    if int(torch.as_tensor(max_new_tokens).min()) < 1:
        raise ValueError("max_new_tokens must be 1 or more for every rollout")
    longest = max(map(len, prompts)) + int(torch.as_tensor(max_new_tokens).max())
    if longest > model.config.max_seq_len:
        raise ValueError(f"a prompt and its response may reach {longest} tokens, the model's limit is {model.config.max_seq_len}")


class Cache:
    """Keys and values of every slot, right-padded: layer x (S, n_kv_heads, columns, head_dim)."""

    def __init__(self, config, slots: int, columns: int, device, dtype):
        shape = (slots, config.n_kv_heads, columns, config.head_dim)
        self.keys = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.n_layers)]
        self.values = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.n_layers)]

    def attend(self, length: torch.Tensor):
        """`attend` for one new token per slot at column `length` (S,): it is stored, then sees its own slot's columns."""
        S, T = len(length), int(length.max()) + 1
        slot = torch.arange(S, device=length.device)
        unseen = torch.arange(T, device=length.device) > length[:, None]  # (S, T)

        def attend(layer, q, k, v):  # q (S, n_heads, head_dim); k, v (S, n_kv_heads, head_dim)
            keys, values = self.keys[layer], self.values[layer]  # (S, n_kv_heads, columns, head_dim)
            keys[slot, :, length], values[slot, :, length] = k.to(keys.dtype), v.to(values.dtype)
            keys, values = keys[:, :, :T], values[:, :, :T]
            grouped = q.unflatten(1, (k.shape[1], -1)) * q.shape[-1] ** -0.5  # (S, n_kv_heads, group, head_dim)
            scores = (grouped @ keys.transpose(2, 3)).float()  # (S, n_kv_heads, group, T)
            weights = scores.masked_fill_(unseen[:, None, None], float("-inf")).softmax(-1).to(values.dtype)
            return (weights @ values).flatten(1, 2)  # (S, n_heads, head_dim)

        return attend

    def fill(self, slots: torch.Tensor, layer: int, k: torch.Tensor, v: torch.Tensor) -> None:
        """Put prompts' k, v (len(slots), T, n_kv_heads, head_dim) at the left of the slots' rows."""
        self.keys[layer][slots, :, : k.shape[1]] = k.transpose(1, 2).to(self.keys[layer].dtype)
        self.values[layer][slots, :, : v.shape[1]] = v.transpose(1, 2).to(self.values[layer].dtype)

    def keep(self, slots: torch.Tensor) -> None:
        self.keys = [x[slots] for x in self.keys]
        self.values = [x[slots] for x in self.values]


class Queue:
    """Rollouts that wait for a slot, prompt by prompt; a prompt is prefilled when its first rollout is admitted."""

    def __init__(self, model, prompts, n, cache):
        self.model, self.prompts, self.n, self.cache = model, prompts, n, cache
        self.next = 0  # the next rollout; its prompt is next // n
        self.last = None  # (prompt, k of each layer, v of each layer, logits) of the prompt admitted last, maybe in part

    def __len__(self) -> int:
        return len(self.prompts) * self.n - self.next

    def admit(self, slots: torch.Tensor):
        """Fill `slots` (A,) with the next A rollouts -> their index, length and next-token logits."""
        index = torch.arange(self.next, self.next + len(slots), device=slots.device)  # (A,)
        self.next += len(slots)
        first, stop = int(index[0]) // self.n, int(index[-1]) // self.n + 1
        known = self.last if self.last and self.last[0] == first else None
        wanted = list(range(first + (known is not None), stop))
        keys, values, logits = self.prefill([self.prompts[p] for p in wanted]) if wanted else ([], [], None)
        if known:  # the prompt that the last admission began is the first row of this one
            join = lambda old, new: torch.nn.utils.rnn.pad_sequence([old, *new], batch_first=True)
            keys = [join(old, keys[i] if wanted else []) for i, old in enumerate(known[1])]
            values = [join(old, values[i] if wanted else []) for i, old in enumerate(known[2])]
            logits = torch.cat([known[3][None], logits]) if wanted else known[3][None]
        row = index // self.n - first  # (A,) the prompt of each slot, as a row of keys, values and logits
        for layer, (k, v) in enumerate(zip(keys, values)):
            self.cache.fill(slots, layer, k[row], v[row])
        self.last = (stop - 1, [k[-1] for k in keys], [v[-1] for v in values], logits[-1])
        lengths = torch.tensor([len(p) for p in self.prompts[first:stop]], device=slots.device)
        return index, lengths[row], logits[row]

    def prefill(self, prompts: list[list[int]]):
        """-> per layer keys and values (P, T, n_kv_heads, head_dim), right-padded, and the logits after each prompt."""
        lengths, device = [len(p) for p in prompts], self.cache.keys[0].device
        causal = causal_attention(lengths, device)
        keys, values = [], []

        def attend(layer, q, k, v):
            keys.append(torch.nn.utils.rnn.pad_sequence(k.split(lengths), batch_first=True))
            values.append(torch.nn.utils.rnn.pad_sequence(v.split(lengths), batch_first=True))
            return causal(layer, q, k, v)

        tokens = torch.tensor([t for p in prompts for t in p], device=device)  # (N,)
        positions = torch.cat([torch.arange(n) for n in lengths]).to(device)
        hidden = self.model.trunk(tokens, positions, attend)  # (N, d_model)
        last = torch.tensor(lengths, device=device).cumsum(0) - 1
        return keys, values, self.model.logits(hidden[last])


def draw(logits: torch.Tensor, u: torch.Tensor, temperature: float, top_p: float):
    """One token per row of logits (S, V), by inverting the cumulative distribution at u (S,) in [0, 1).

    Returns the tokens and their log-probs (S,) in the whole distribution at the temperature, whatever top_p cuts.
    """
    logp = (logits / temperature if temperature > 0 and temperature != 1 else logits).log_softmax(-1)  # (S, V)
    if temperature == 0:
        token = logp.argmax(-1)
        return token, logp.gather(-1, token[:, None])[:, 0]
    p = logp.exp()
    if top_p < 1:
        p = nucleus(p, top_p)
    cumulative = p.double().cumsum(-1)  # in float32 it would miss 1 by more than rare tokens of a large vocabulary weigh
    token = torch.searchsorted(cumulative, u[:, None] * cumulative[:, -1:], right=True)  # (S, 1) first entry above u
    return token[:, 0], logp.gather(-1, token)[:, 0]


def nucleus(p: torch.Tensor, top_p: float) -> torch.Tensor:
    """p (S, V) with everything outside the smallest set of likeliest tokens that reaches top_p set to 0 (ties stay in)."""
    for width in (8, 64, p.shape[-1]):  # the likeliest few nearly always do, and sorting 100k entries is slow
        top = p.topk(min(width, p.shape[-1])).values  # (S, width), descending
        before = top.cumsum(-1) - top  # (S, width) probability of the likelier ones
        if width >= p.shape[-1] or bool((before[:, -1] + top[:, -1] >= top_p).all()):
            break
    last = (before < top_p).sum(-1, keepdim=True) - 1  # (S, 1)
    return p.masked_fill(p < top.gather(-1, last), 0.0)


def mix(x: torch.Tensor) -> torch.Tensor:
    """splitmix64's output function on int64 (Steele, Lea & Flood 2014): every input bit changes about half the output."""
    shift = lambda y, by: (y >> by) & ((1 << (64 - by)) - 1)  # logical, not arithmetic
    x = (x ^ shift(x, 30)) * -4658895280553007687
    x = (x ^ shift(x, 27)) * -7723592293110705685
    return x ^ shift(x, 31)


def hash_key(seed: int, step: int, problem: torch.Tensor, rollout: torch.Tensor) -> torch.Tensor:
    """(seed, step, problem, rollout) -> one int64 key per rollout."""
    key = torch.zeros_like(problem)
    for part in (seed, step, problem, rollout):
        key = mix(key + GOLDEN + part)
    return key


def uniform(key: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """(key, position) -> a uniform number in [0, 1), 32 bits fine, float64."""
    return ((mix(key + (position + 1) * GOLDEN) >> 32) & 0xFFFFFFFF).double() * 2.0**-32
