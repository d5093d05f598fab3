"""Batched sampling with a KV cache: what RL spends most of its time on.

A fixed number of slots decode together, one token per slot and step; a slot whose rollout ends is given the next one.
A prompt goes through the model once, and its keys and values are kept once, however many slots sample from it: decoding
is bound by reading them, and the queries of all its rollouts meet them in one matrix product.

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
    cache = Cache(model.config, S, int(budget.max()), device, model.lm_head.weight.dtype)
    waiting = Queue(model, prompts, n, cache)
    rollout = torch.full((S,), -1, device=device)  # (S,) index of the rollout in each slot; -1: empty
    length = torch.zeros(S, dtype=torch.int64, device=device)  # (S,) tokens of prompt and response so far
    logits = torch.zeros(S, model.config.vocab_size, device=device)  # (S, vocab_size) of each slot's next token
    bar = tqdm(total=total, desc="sampling", unit="rollout", disable=not progress, leave=False)
    while True:
        empty = (rollout < 0).nonzero()[:, 0]  # one wait for the device per step
        if len(waiting) and len(empty) >= min(len(waiting), max(1, S // 16)):  # a few at a time: prefills batch better
            admitted = empty[: len(waiting)]
            rollout[admitted], length[admitted], logits[admitted] = waiting.admit(admitted, rollout >= 0)
            empty = empty[len(admitted) :]
        if len(empty) == S:
            break
        if not len(waiting) and len(empty) > S // 5:  # nobody left to fill the empty slots: drop them
            live = (rollout >= 0).nonzero()[:, 0]
            rollout, length, logits, S = rollout[live], length[live], logits[live], len(live)
            cache.keep_slots(live, int(out_length[rollout].max()))
            empty = empty[:0]

        alive, row = rollout >= 0, rollout.clamp(min=0)  # empty slots compute along and write nothing
        column = out_length[row] * alive
        token, logp = draw(logits, uniform(keys[row], column), temperature, top_p)
        out_tokens[row[alive], column[alive]] = token[alive].int()
        out_logp[row[alive], column[alive]] = logp[alive]
        out_length[row[alive]] += 1
        ended = alive & (token == eos) if eos is not None else torch.zeros_like(alive)
        finished[row[ended]] = True
        done = ended | alive & (column + 1 >= budget[row])
        bar.update(int(done.sum()))
        rollout[done] = -1
        if bool((rollout >= 0).any()):
            hidden = model.trunk(token, length, cache.attend(column))  # (S, d_model)
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
    """Keys and values while decoding: of every live prompt once, and of every slot its response only.

    Prompts are rows (R, n_kv_heads, Tp, head_dim), responses are rows (S, n_kv_heads, columns, head_dim), both per layer
    and right-padded: the j-th token of a prompt or of a response is its column j.
    """

    def __init__(self, config, slots: int, columns: int, device, dtype):
        empty = lambda rows, width: torch.zeros(rows, config.n_kv_heads, width, config.head_dim, device=device, dtype=dtype)
        self.prompts = [(empty(0, 0), empty(0, 0)) for _ in range(config.n_layers)]
        self.responses = [(empty(slots, columns), empty(slots, columns)) for _ in range(config.n_layers)]
        self.prompt_length = torch.zeros(0, dtype=torch.int64, device=device)  # (R,)
        self.owner = torch.zeros(slots, dtype=torch.int64, device=device)  # (S,) the prompt row of each slot

    def add_prompts(self, new: list[tuple[torch.Tensor, torch.Tensor]], lengths: list[int]) -> None:
        """Append rows for prompts, new: per layer keys and values (P, T, n_kv_heads, head_dim)."""

        def join(old, rows):
            rows = rows.transpose(1, 2).to(old.dtype)  # (P, n_kv_heads, T, head_dim)
            width = max(old.shape[2], rows.shape[2])
            return torch.cat([torch.nn.functional.pad(x, (0, 0, 0, width - x.shape[2])) for x in (old, rows)])

        self.prompts = [tuple(map(join, old, layer)) for old, layer in zip(self.prompts, new)]
        self.prompt_length = torch.cat((self.prompt_length, torch.tensor(lengths, device=self.owner.device)))

    def keep_prompts(self, wanted: torch.Tensor) -> None:
        """Drop all prompt rows but `wanted`, sorted row numbers."""
        width = int(self.prompt_length[wanted].max()) if len(wanted) else 0
        self.prompts = [tuple(x[wanted, :, :width] for x in layer) for layer in self.prompts]
        new_row = torch.zeros(len(self.prompt_length) + 1, dtype=torch.int64, device=wanted.device)
        new_row[wanted] = torch.arange(len(wanted), device=wanted.device)
        self.prompt_length, self.owner = self.prompt_length[wanted], new_row[self.owner]

    def keep_slots(self, slots: torch.Tensor, used: int) -> None:
        """Drop all slots but these; no response has more than `used` tokens yet."""

        def keep(x):
            kept = x.new_zeros(len(slots), *x.shape[1:])
            kept[:, :, :used] = x[slots, :, :used]
            return kept

        self.responses = [tuple(map(keep, layer)) for layer in self.responses]
        self.owner = self.owner[slots]
        self.group(torch.ones_like(self.owner, dtype=torch.bool))

    def assign(self, slots: torch.Tensor, rows: torch.Tensor, alive: torch.Tensor) -> None:
        """Give prompt `rows` (A,) to `slots` (A,), whose responses begin anew; `alive` (S,) are the others in use."""
        self.owner[slots] = rows
        for x in sum(self.responses, ()):
            x[slots] = 0.0  # nothing of the slot's last rollout is left, not even behind the mask
        self.group(alive.index_fill(0, slots, True))

    def group(self, alive: torch.Tensor) -> None:
        """Lay the live slots out by prompt: grid (R, G) of slots, and where (S,) each slot stands in it."""
        slots = alive.nonzero()[:, 0]
        rows, order = self.owner[slots].sort(stable=True)
        slots, count = slots[order], torch.bincount(rows, minlength=len(self.prompt_length))  # (R,) slots of each prompt
        place = torch.arange(len(rows), device=rows.device) - (count.cumsum(0) - count)[rows]
        G = int(count.max())
        self.grid = torch.zeros(len(count), G, dtype=torch.int64, device=rows.device)
        self.grid[rows, place] = slots
        self.where = torch.zeros_like(self.owner)
        self.where[slots] = rows * G + place

    def attend(self, column: torch.Tensor):
        """`attend` for one new token per slot, the response's `column` (S,): it is stored, then sees its prompt and what
        the slot has so far. Softmax runs over both parts together, (S, n_kv_heads, group, Tp + T)."""
        S, T, Tp, G = len(column), int(column.max()) + 1, self.prompts[0][0].shape[2], self.grid.shape[1]
        at = lambda n: torch.arange(n, device=column.device)
        heads, columns = self.responses[0][0].shape[1:3]
        new = ((at(S)[:, None] * heads + at(heads)) * columns + column[:, None]).flatten()  # (S * n_kv_heads,) the new token's rows
        unseen = torch.cat((at(Tp) >= self.prompt_length[self.owner][:, None], at(T) > column[:, None]), 1)  # (S, Tp + T)
        by_prompt = lambda x: x[self.grid].transpose(1, 2).flatten(2, 3)  # (S, n_kv_heads, group, .) -> (R, n_kv_heads, G*group, .)
        by_slot = lambda x: x.unflatten(2, (G, -1)).transpose(1, 2).flatten(0, 1)[self.where]  # and back

        def attend(layer, q, k, v):  # q (S, n_heads, head_dim); k, v (S, n_kv_heads, head_dim)
            prompt_k, prompt_v = self.prompts[layer]
            own_k, own_v = self.responses[layer]
            own_k.flatten(0, 2).index_copy_(0, new, k.flatten(0, 1).to(own_k.dtype))
            own_v.flatten(0, 2).index_copy_(0, new, v.flatten(0, 1).to(own_v.dtype))
            q = q.unflatten(1, (k.shape[1], -1)) * q.shape[-1] ** -0.5  # (S, n_kv_heads, group, head_dim)
            scores = torch.cat((by_slot(by_prompt(q) @ prompt_k.transpose(2, 3)), q @ own_k[:, :, :T].transpose(2, 3)), -1).float()
            weights = scores.masked_fill_(unseen[:, None, None], float("-inf")).softmax(-1).to(own_v.dtype)
            of_prompt, of_own = weights.split((Tp, T), -1)
            return (by_slot(by_prompt(of_prompt) @ prompt_v) + of_own @ own_v[:, :, :T]).flatten(1, 2)  # (S, n_heads, head_dim)

        return attend


class Queue:
    """Rollouts that wait for a slot, prompt by prompt; a prompt is prefilled when its first rollout is admitted."""

    def __init__(self, model, prompts, n, cache):
        self.model, self.prompts, self.n, self.cache = model, prompts, n, cache
        self.next = 0  # the next rollout; its prompt is next // n
        self.logits = None  # (rows, vocab_size) after the prompts admitted last; only the last may have rollouts waiting

    def __len__(self) -> int:
        return len(self.prompts) * self.n - self.next

    def admit(self, slots: torch.Tensor, alive: torch.Tensor):
        """Fill `slots` (A,) with the next A rollouts -> their index, length and next-token logits."""
        cache = self.cache
        index = torch.arange(self.next, self.next + len(slots), device=slots.device)  # (A,)
        first, stop, begun = self.next // self.n, (self.next + len(slots) - 1) // self.n + 1, self.next % self.n > 0
        self.next += len(slots)
        wanted = cache.owner[alive]
        if begun:  # the last row's prompt has rollouts waiting: they come first
            wanted = torch.cat((wanted, wanted.new_tensor([len(cache.prompt_length) - 1])))
        cache.keep_prompts(wanted.unique())
        logits = [self.logits[-1:]] if begun else []
        if new := self.prompts[first + begun : stop]:
            keys_values, new_logits = self.prefill(new)
            cache.add_prompts(keys_values, [len(p) for p in new])
            logits.append(new_logits)
        self.logits = torch.cat(logits)  # (stop - first, vocab_size)
        row = index // self.n - first  # (A,) the prompt of each slot among those of this call, which are the cache's last
        rows = row + len(cache.prompt_length) - (stop - first)
        cache.assign(slots, rows, alive)
        return index, cache.prompt_length[rows], self.logits[row]

    def prefill(self, prompts: list[list[int]]):
        """-> per layer keys and values (P, T, n_kv_heads, head_dim), right-padded, and the logits after each prompt."""
        lengths, device = [len(p) for p in prompts], self.cache.owner.device
        causal, keys_values = causal_attention(lengths, device), []

        def attend(layer, q, k, v):
            keys_values.append(tuple(torch.nn.utils.rnn.pad_sequence(x.split(lengths), batch_first=True) for x in (k, v)))
            return causal(layer, q, k, v)

        tokens = torch.tensor([t for p in prompts for t in p], device=device)  # (N,)
        positions = torch.cat([torch.arange(n) for n in lengths]).to(device)
        hidden = self.model.trunk(tokens, positions, attend)  # (N, d_model)
        last = torch.tensor(lengths, device=device).cumsum(0) - 1
        return keys_values, self.model.logits(hidden[last])


def draw(logits: torch.Tensor, u: torch.Tensor, temperature: float, top_p: float):
    """One token per row of logits (S, V), by inverting the cumulative distribution at u (S,) in [0, 1).

    Returns the tokens and their log-probs (S,) in the whole distribution at the temperature, whatever top_p cuts.
    """
    if temperature > 0 and temperature != 1:
        logits = logits / temperature
    highest = logits.amax(-1, keepdim=True)
    weight = (logits - highest).exp_()  # (S, V) probabilities, not normalised yet
    total = weight.sum(-1, dtype=torch.float64)  # (S,)
    token = logits.argmax(-1) if temperature == 0 else invert(nucleus(weight, top_p) if top_p < 1 else weight, u)  # (S,)
    return token, (logits.gather(-1, token[:, None]) - highest)[:, 0] - total.log().float()


def invert(weight: torch.Tensor, u: torch.Tensor, width: int = 32) -> torch.Tensor:
    """weight (S, V), u (S,) -> the first token whose cumulative weight is above u * total, (S,).

    Sums are float64: in float32 they would miss the total by more than rare tokens of a large vocabulary weigh. First
    the block of `width` tokens is found, then the token in it, so that no (S, V) float64 is ever made.
    """
    S, V = weight.shape
    whole = V // width * width
    blocks = [weight[:, :whole].unflatten(1, (-1, width)).sum(-1, dtype=torch.float64), weight[:, whole:].sum(-1, keepdim=True, dtype=torch.float64)]
    cumulative = torch.cat(blocks, 1).cumsum(-1)  # (S, V / width + 1)
    target = u[:, None] * cumulative[:, -1:]  # (S, 1) below the total
    block = torch.searchsorted(cumulative, target, right=True).clamp_(max=(V - 1) // width)  # (S, 1)
    before = cumulative.gather(1, (block - 1).clamp_(min=0)) * (block > 0)  # (S, 1)
    index = block * width + torch.arange(width, device=u.device)  # (S, width)
    inside = weight.gather(1, index.clamp(max=V - 1)).double() * (index < V)
    found = (before + inside.cumsum(-1) > target) & (inside > 0)  # (S, width)
    # rounding may leave none: then the block's last token with any weight
    place = torch.where(found.any(-1), found.int().argmax(-1), width - 1 - (inside > 0).flip(-1).int().argmax(-1))
    return block[:, 0] * width + place


def nucleus(weight: torch.Tensor, top_p: float) -> torch.Tensor:
    """weight (S, V) with everything outside the smallest set of likeliest tokens that reaches top_p of it set to 0 (ties stay in)."""
    wanted = top_p * weight.sum(-1, keepdim=True)  # (S, 1)
    for width in (8, 64, weight.shape[-1]):  # the likeliest few nearly always do, and sorting 100k entries is slow
        top = weight.topk(min(width, weight.shape[-1])).values  # (S, width), descending
        before = top.cumsum(-1) - top  # (S, width) weight of the likelier ones
        if width >= weight.shape[-1] or bool((before[:, -1:] + top[:, -1:] >= wanted).all()):
            break
    last = (before < wanted).sum(-1, keepdim=True) - 1  # (S, 1)
    return weight.masked_fill(weight < top.gather(-1, last), 0.0)


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
