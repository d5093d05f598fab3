"""Batched sampling with a KV cache: what reinforcement learning spends most of its time on.

A fixed number of slots decode together, one token per slot in each pass. A slot whose rollout has
ended takes the next one in line. Each random number depends on (seed, training step, problem,
rollout, position) alone, so slots, order, restarts and ranks change tokens only through rounding.

Read `Sampler.sample` first, then `Cache`, which makes a pass cheap, and `draw`, which turns logits
into a token. L is the number of rollouts in a pass, V the size of the vocabulary.
"""

from collections import deque
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from tqdm import tqdm

from data.draws import descend, likeliest, rollout_keys, sums_of_neighbours, uniform
from model import Transformer


@dataclass
class Rollout:
    tokens: list[int]  # the response, with its eos where it ended by itself
    logprobs: list[float]  # of these tokens at the sampling temperature, as if top_p were 1
    finished: bool  # False where max_new_tokens cut it
    key: int = 0  # of its randomness


@dataclass(eq=False)
class Request:
    """One rollout on its way: what was asked for, and what there is so far."""

    prompt: list[int]
    budget: int  # the most tokens it may have
    key: int  # of its randomness
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    slot: int = -1  # where it decodes

    def has_ended(self, eos: int | None) -> bool:
        return self.tokens[-1] == eos or len(self.tokens) == self.budget


def sample(model: Transformer, prompts, *args, slots: int = 512, **kwargs) -> list[list[Rollout]]:
    """Rollouts of every prompt, as `Sampler.sample` explains: sample(model, [[5, 7], [9]], n=4)."""
    sampler_class = getattr(model, "sampler_class", Sampler)  # fast/ installs its own
    return sampler_class(model, slots).sample(prompts, *args, **kwargs)


class Sampler:
    """Rollouts from one model, `slots` of them at a time."""

    def __init__(self, model: Transformer, slots: int = 512):
        self.model = model
        self.slots = slots

    @torch.inference_mode()
    def sample(
        self, prompts: list[list[int]], n=1, max_new_tokens: int | list[int] = 256, temperature=1.0,
        top_p=1.0, eos=None, seed=0, step=0, problem_ids: list[int] | None = None, progress=False,
    ) -> list[list[Rollout]]:  # fmt: skip
        """n rollouts of every prompt (token ids): a list of n per prompt, in the prompts' order.

        Temperature 0 is greedy, and its log-probs are those at temperature 1. `max_new_tokens` is
        one number, or one per rollout in the order of the result. `problem_ids` key the randomness
        of each prompt (default: its index), so that a rank which samples a part of a batch draws
        what one process would have drawn. ValueError where a prompt is empty or too long.
        """
        budgets = check_request(self, prompts, n, max_new_tokens, problem_ids)
        random_keys = rollout_keys(seed, step, problem_ids or range(len(prompts)), n)
        repeated = [prompt for prompt in prompts for _ in range(n)]
        parts = zip(repeated, budgets, random_keys)
        requests = [Request(prompt, budget, key) for prompt, budget, key in parts]
        waiting = deque(requests)
        empty = list(range(min(self.slots, len(requests))))
        live = []  # the requests that decode
        longest = max(map(len, prompts)) + max(budgets)
        cache = Cache(self.model, len(empty), longest)
        bar = tqdm(total=len(requests), desc="sampling", unit="rollout", disable=not progress)
        while waiting or live:
            admitted = []
            while waiting and empty:
                request = waiting.popleft()
                request.slot = empty.pop()
                admitted.append(request)
            if admitted:
                draw_tokens(admitted, self.read_prompts(admitted, cache), temperature, top_p)
            if live:
                draw_tokens(live, self.read_tokens(live, cache), temperature, top_p)
            live += admitted
            ended = [request for request in live if request.has_ended(eos)]
            live = [request for request in live if not request.has_ended(eos)]
            empty += [request.slot for request in ended]
            bar.update(len(ended))
        bar.close()
        rollouts = [Rollout(r.tokens, r.logprobs, r.tokens[-1] == eos, r.key) for r in requests]
        return [rollouts[i : i + n] for i in range(0, len(rollouts), n)]

    def read_prompts(self, requests: list[Request], cache: "Cache") -> torch.Tensor:
        """Prefill: one pass over the packed prompts fills the cache -> next-token logits (L, V)."""
        lengths = [len(request.prompt) for request in requests]
        tokens = [token for request in requests for token in request.prompt]
        slots = [request.slot for request in requests for _ in request.prompt]
        positions = [position for length in lengths for position in range(length)]
        device = self.model.lm_head.weight.device
        slots, positions = torch.tensor([slots, positions], device=device)  # (N,) each
        causal = self.model.attention(lengths, device)

        def attend(layer, q, k, v):
            cache.write(layer, slots, positions, k, v)
            return causal(layer, q, k, v)

        hidden = self.model.trunk(torch.tensor(tokens, device=device), positions, attend)
        last = torch.tensor(lengths, device=device).cumsum(0) - 1  # (L,)
        return self.model.logits(hidden[last])

    def read_tokens(self, requests: list[Request], cache: "Cache") -> torch.Tensor:
        """Decode: each newest token goes through the model -> next-token logits (L, V)."""
        slots = [request.slot for request in requests]
        tokens = [request.tokens[-1] for request in requests]
        positions = [len(request.prompt) + len(request.tokens) - 1 for request in requests]
        device = self.model.lm_head.weight.device
        slots, tokens, positions = torch.tensor([slots, tokens, positions], device=device)
        hidden = self.model.trunk(tokens, positions, cache.attend(slots, positions))  # (L, d_model)
        return self.model.logits(hidden)


class Cache:
    """Per layer, the keys and the values of all slots, (slots, limit, n_kv_heads, head_dim) each.

    A token's keys and values depend only on the text up to it, which never changes. So they are
    kept, and a decode pass sends one token per slot through the model, not the whole text.
    """

    def __init__(self, model: Transformer, slots: int, limit: int):
        config = model.config
        shape = (slots, limit, config.n_kv_heads, config.head_dim)
        like = model.lm_head.weight
        self.keys = [like.new_zeros(shape) for _ in range(config.n_layers)]
        self.values = [like.new_zeros(shape) for _ in range(config.n_layers)]

    def write(self, layer: int, slots, positions, k, v) -> None:
        """k, v (N, n_kv_heads, head_dim) of tokens at these slots and positions, (N,) each."""
        self.keys[layer][slots, positions] = k.to(self.keys[layer].dtype)
        self.values[layer][slots, positions] = v.to(self.values[layer].dtype)

    def attend(self, slots, positions):
        """`attend` for one new token in each of these slots, at these positions, (L,) each."""
        longest = int(positions.max()) + 1
        column = torch.arange(longest, device=positions.device)
        seen = column <= positions[:, None]  # (L, longest); hides what an earlier rollout left

        def attend(layer, q, k, v):  # q (L, n_heads, head_dim); k, v (L, n_kv_heads, head_dim)
            self.write(layer, slots, positions, k, v)
            k = self.keys[layer][slots, :longest].transpose(1, 2)  # (L, n_kv_heads, longest, ...)
            v = self.values[layer][slots, :longest].transpose(1, 2)
            q = q[:, :, None].to(k.dtype)  # (L, n_heads, 1, head_dim)
            mask = seen[:, None, None]  # (L, 1, 1, longest)
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
            return out[:, :, 0]  # (L, n_heads, head_dim)

        return attend


def draw_tokens(requests: list[Request], logits: torch.Tensor, temperature, top_p) -> None:
    """Give each request its next token, drawn from its row of logits (L, V)."""
    keys = torch.tensor([request.key for request in requests], device=logits.device)
    positions = torch.tensor([len(request.tokens) for request in requests], device=logits.device)
    tokens, logprobs = draw(logits, uniform(keys, positions), temperature, top_p)
    for request, token, logprob in zip(requests, tokens.tolist(), logprobs.tolist()):
        request.tokens.append(token)
        request.logprobs.append(logprob)


def check_request(sampler, prompts, n: int, max_new_tokens, problem_ids) -> list[int]:
    """The budget of each of the len(prompts) * n rollouts; ValueError for what cannot work."""
    if sampler.slots < 1:
        raise ValueError("slots must be 1 or more")
    if not prompts or not all(prompts):
        raise ValueError("sample() needs prompts, each of at least one token")
    if problem_ids and len(problem_ids) != len(prompts):
        raise ValueError("problem_ids must be one number for every prompt")
    total = len(prompts) * n
    budgets = [max_new_tokens] * total if isinstance(max_new_tokens, int) else list(max_new_tokens)
    if len(budgets) != total or min(budgets, default=0) < 1:
        raise ValueError("n must be 1 or more; max_new_tokens too, one number or one per rollout")
    longest = max(map(len, prompts)) + max(budgets)
    limit = sampler.model.config.max_seq_len
    if longest > limit:
        reached = f"a prompt and its response may reach {longest} tokens"
        raise ValueError(f"{reached}, the model's limit is {limit}")
    return budgets


def draw(logits, u, temperature: float, top_p: float, nucleus=None):
    """Draw one token from each row of logits (L, V), given a uniform number u (L,) in [0, 1).

    The textbook way is the first token whose cumulative probability exceeds u. A tree of sums
    (data/draws.py) gives the same distribution, and rounding changes a token far less often.

    -> (tokens, their log-probs), (L,) each. The log-probs are those of the whole distribution at
    the temperature, whatever top_p cuts. `nucleus`: fast/'s quicker `likeliest`, or None.
    """
    if temperature not in (0, 1):
        logits = logits / temperature
    probs = logits.softmax(-1)  # (L, V)
    sums = sums_of_neighbours(probs)
    if temperature == 0:
        token = logits.argmax(-1)
    elif top_p == 1:
        token = descend(sums, u)
    else:
        kept = (nucleus or likeliest)(probs, top_p)  # (L, V)
        token = descend(sums_of_neighbours(kept), u)
    total = sums[-1].sum(-1)  # (L,) 1, but for rounding
    return token, probs.gather(-1, token[:, None])[:, 0].log() - total.log().float()
