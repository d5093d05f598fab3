"""Batched sampling with a KV cache: what RL spends most of its time on.

A fixed number of slots decode together, one token per slot and step; a slot whose rollout ends is given the next one.
A prompt goes through the model once, and its keys and values are kept once, however many slots sample from it.

Every draw is a function of (seed, step, problem, rollout, position) and nothing else. Slots, order, restarts and
ranks therefore do not change which tokens are sampled.

In reading order: `Schedule` decides which rollout is in which slot; `Sampler` runs the model, a step at a time; `draw`
turns logits into tokens. Keys and values are kvcache.py's. S slots, V tokens in the vocabulary; a rollout's "own" tokens
are its response.
"""

import time
from collections import Counter, deque
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

import kvcache
from attention import causal_attention
from distributed import is_sharded, own_weights, whole
from kvcache import DenseCache, PagedCache
from model import Transformer, product

WIDTHS = (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024)  # of a decode step on a GPU: a graph each
GOLDEN = -7046029254386353131  # 2^64 / golden ratio as a signed int64: the increment of splitmix64


@dataclass
class Rollout:
    tokens: list[int]  # the response, with its eos where it ended by itself
    logprobs: list[float]  # of these tokens at the sampling temperature, before any top_p cut
    finished: bool  # False where max_new_tokens cut it


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
    Raises ValueError where prompts are empty or too long. Who samples again and again keeps a `Sampler`.
    """
    return Sampler(model, slots).sample(prompts, n, max_new_tokens, temperature, top_p, eos, seed, step, problem_ids, progress)


class Schedule:
    """Which rollout is in which slot: the host's side, plain numbers. The prompt of rollout r is r // n."""

    def __init__(self, prompts: list[list[int]], n: int, budget: np.ndarray, slots: int, cache):
        self.prompts, self.n, self.budget, self.cache = prompts, n, budget, cache
        self.waiting = deque(range(len(budget)))  # rollouts without a slot
        self.to_come = Counter({p: n for p in range(len(prompts))})  # how many of a prompt's rollouts wait
        self.rollout = np.full(slots, -1)  # (S,) the rollout in each slot; -1: empty
        self.age = np.zeros(slots, np.int64)  # (S,) tokens it has sampled, or would have, had it not ended unseen
        self.arrival = np.zeros(slots, np.int64)  # (S,) its number in the order of admission
        self.arrivals = 0

    def live(self) -> np.ndarray:
        """The slots in use, the oldest rollout first."""
        live = np.flatnonzero(self.rollout >= 0)
        return live[np.argsort(self.arrival[live])]

    def admit(self) -> tuple[list[int], list[int]]:
        """Give empty slots to waiting rollouts, as far as the cache has room -> (the slots, prompts to be read first)."""
        empty, cache, slots, new = np.flatnonzero(self.rollout < 0), self.cache, [], []
        n_live = len(self.rollout) - len(empty)
        if len(empty) < min(len(self.waiting), max(1, len(self.rollout) // 16)):  # a few at a time: prompts are read in batches
            return [], []
        for slot in empty[: len(self.waiting)].tolist():
            r = self.waiting[0]
            p, length = r // self.n, len(self.prompts[r // self.n])
            if not slots and not n_live and not cache.has_room(p, length):
                cache.drop_prompts(list(cache.after))  # prompts of rollouts that were sent back: they are read again
            if not cache.has_room(p, length, spare=n_live + len(slots)):  # a page for each of the others to go on
                break
            if p not in cache.after and p not in new:
                new.append(p)
            cache.open(slot, p, length)
            self.waiting.popleft()
            self.to_come[p] -= 1
            self.rollout[slot], self.age[slot], self.arrival[slot] = r, 1, self.arrivals
            self.arrivals += 1
            slots.append(slot)
        return slots, new

    def make_room(self, steps: int) -> list[int]:
        """See that every live rollout can go on for `steps` -> the slots that had to be emptied for that.

        Where pages run out the youngest rollouts wait again. They start anew and draw the same tokens, since draws are
        keyed; the oldest always goes on, so this ends.
        """
        emptied = []
        while len(live := self.live()):
            own = np.minimum(self.age[live] - 1 + steps, self.budget[self.rollout[live]])
            if self.cache.reserve(live, own):
                break
            if len(live) == 1 and self.cache.after:
                self.cache.drop_prompts(list(self.cache.after))  # they are read again
                continue
            r, slot = int(self.rollout[live[-1]]), int(live[-1])
            self.waiting.appendleft(r)
            self.to_come[r // self.n] += 1
            self.vacate([slot])
            emptied.append(slot)
        return emptied

    def vacate(self, slots) -> None:
        for slot in slots:
            self.cache.close(slot)
        self.rollout[slots] = -1

    def keep(self, slots: np.ndarray, width: int) -> None:
        """Move these slots to the front and forget all slots from `width` on."""
        for name in ("rollout", "age", "arrival"):
            old = getattr(self, name)
            setattr(self, name, np.concatenate((old[slots], np.full(width - len(slots), -1))))


class Slots:
    """What the device knows of each slot. Decode steps read and write these tensors (S, ...) in place: a CUDA graph can record that."""

    def __init__(self, slots: int, columns: int, device):
        integers = lambda *shape: torch.zeros(slots, *shape, dtype=torch.int64, device=device)
        self.token = integers()  # sampled last; not in the cache yet
        self.length = integers()  # tokens in the cache: the position of `token`
        self.column = integers()  # own tokens sampled so far
        self.key = integers()  # of the rollout's randomness
        self.budget = integers()  # own tokens it may have
        self.alive = torch.zeros(slots, dtype=torch.bool, device=device)
        self.tokens = torch.zeros(slots, columns, dtype=torch.int32, device=device)  # its own tokens
        self.logps = torch.zeros(slots, columns, device=device)

    def keep(self, slots: torch.Tensor) -> None:
        """Move these slots to the front; the others are empty then."""
        for x in vars(self).values():
            x[: len(slots)] = x[slots]
        self.alive[len(slots) :] = False
        self.length[len(slots) :] = 0


class Sampler:
    """Rollouts from one model, again and again: what outlives a call is the memory for keys and values and, on a GPU, a
    copy of the weights as they are multiplied and the recorded CUDA graphs. In fp32 the model itself is sampled from, unless
    it is sharded: then a whole copy is.

    bf16: as autocast multiplies (default: on a GPU). fp32_head: the head's factors stay fp32 (default: as the model trains).
    paged: keep keys and values in pages (default: on a GPU); their number is `pages`, or what fits into `memory`, a
    share of the GPU's free memory.
    """

    def __init__(self, model: Transformer, slots: int = 512, bf16=None, fp32_head=None, paged=None, pages: int | None = None, memory: float = 0.4):
        self.device = model.lm_head.weight.device
        self.cuda = self.device.type == "cuda"
        self.bf16, self.paged = (self.cuda if x is None else x for x in (bf16, paged))
        fp32_head = model.fp32_head if fp32_head is None else fp32_head
        self.model = weights_as_multiplied(model, fp32_head, self.bf16) if self.bf16 or is_sharded(model) else model
        self.slots, self.pages, self.memory = slots, pages, memory
        self.interval = 8 if self.cuda else 1  # steps between two looks at which rollouts have ended
        self.use_graphs, self.graphs = self.cuda and self.paged and kvcache.triton is not None, {}  # by width and way to draw
        self.state = None

    @torch.no_grad()
    def refresh(self, model: Transformer) -> None:
        """Take over the weights of `model`, in place, so that graphs stay valid. Sharded ones are gathered one by one, by all ranks
        together; sampling itself then needs no other rank."""
        for mine, theirs in zip(self.model.parameters(), own_weights(model).values()):
            if mine is not theirs:
                mine.copy_(whole(theirs))

    @torch.inference_mode()
    def sample(self, prompts, n=1, max_new_tokens=256, temperature=1.0, top_p=1.0, eos=None, seed=0, step=0, problem_ids=None, progress=False):
        """As the function `sample`."""
        check_lengths(self.model, prompts, max_new_tokens)
        total, self.how = len(prompts) * n, (temperature, top_p, eos)
        budget = np.broadcast_to(np.asarray(max_new_tokens), total)
        self.prepare(min(self.slots, total), max(map(len, prompts)), int(budget.max()))
        s, schedule = self.state, Schedule(prompts, n, budget, self.width, self.cache)
        ids = torch.tensor(problem_ids if problem_ids is not None else range(len(prompts)), device=self.device)
        keys = hash_key(seed, step, ids.repeat_interleave(n), torch.arange(n, device=self.device).repeat(len(prompts)))  # (total,)
        tokens = torch.zeros(total, int(budget.max()), dtype=torch.int32, device=self.device)
        logps = torch.zeros(total, int(budget.max()), device=self.device)
        lengths = torch.zeros(total, dtype=torch.int64, device=self.device)
        bar = tqdm(total=total, desc="sampling", unit="rollout", disable=not progress, leave=False)
        start, n_tokens = time.time(), 0
        while True:
            slots, new = schedule.admit()
            if slots:
                self.prefill(prompts, new)
                self.begin(slots, schedule, keys)
            if not (n_live := int((schedule.rollout >= 0).sum())) and not schedule.waiting:
                break
            if not schedule.waiting:
                self.close_ranks(schedule)
            if emptied := schedule.make_room(self.interval):
                s.alive[self.index(emptied)], s.length[self.index(emptied)] = False, 0
            ended = self.decode(schedule)
            r, at = self.index(schedule.rollout[ended]), self.index(ended)
            tokens[r], logps[r], lengths[r] = s.tokens[at, : tokens.shape[1]], s.logps[at, : tokens.shape[1]], s.column[at]
            s.length[at], s.column[at] = 0, 0  # an empty slot computes along and reads nothing
            schedule.vacate(ended)
            n_tokens += n_live * self.interval
            bar.update(len(ended))
            bar.set_postfix_str(f"{n_tokens / (time.time() - start):,.0f} tok/s, {n_live} live, {self.cache.used()}", refresh=False)
        bar.close()
        tokens, logps, lengths = tokens.cpu().numpy(), logps.cpu().numpy(), lengths.tolist()
        flat = [Rollout(t[:end].tolist(), p[:end].tolist(), bool(t[end - 1] == eos)) for t, p, end in zip(tokens, logps, lengths)]
        return [flat[i : i + n] for i in range(0, total, n)]

    def index(self, numbers) -> torch.Tensor:
        return torch.as_tensor(np.asarray(numbers, dtype=np.int64), device=self.device)

    def prepare(self, slots: int, longest: int, columns: int) -> None:
        """`slots` empty slots with room for `columns` own tokens. Memory and graphs stay while they are large enough."""
        config = self.model.config
        if self.state is None or len(self.state.alive) < slots or self.state.tokens.shape[1] < columns:
            dtype = torch.bfloat16 if self.bf16 else torch.float32
            self.graphs, self.cache = {}, None  # frees the old pages before there are new ones
            if self.paged:
                self.cache = PagedCache(config, slots, self.pages, self.memory, self.device, dtype)
            else:
                self.cache = DenseCache(config, slots, columns, self.device, dtype)
            self.state = Slots(slots, columns, self.device)
            self.flags = torch.zeros(slots, dtype=torch.bool, pin_memory=self.cuda)
        self.width = slots  # the first `width` slots decode
        for x in vars(self.state).values():
            x.zero_()
        self.cache.clear(slots, longest + columns)

    def prefill(self, prompts: list[list[int]], new: list[int], most: int = 16_384) -> None:
        """Send the prompts with these numbers through the model, about `most` tokens at a time."""
        part, size = [], 0
        for p in new:
            if part and size + len(prompts[p]) > most:
                self.read(part, [prompts[q] for q in part])
                part, size = [], 0
            part.append(p)
            size += len(prompts[p])
        if part:
            self.read(part, [prompts[q] for q in part])

    def read(self, numbers: list[int], prompts: list[list[int]]) -> None:
        """One forward pass over packed prompts: their keys, values and next-token logits go to the cache."""
        lengths = [len(p) for p in prompts]
        causal, keys_values = causal_attention(lengths, self.device), []

        def attend(layer, q, k, v):
            keys_values.append((k, v))  # (N, n_kv_heads, head_dim) each
            return causal(layer, q, k, v)

        tokens = torch.tensor([t for p in prompts for t in p], device=self.device)  # (N,)
        positions = torch.cat([torch.arange(n) for n in lengths]).to(self.device)
        with self.autocast():
            hidden = self.model.trunk(tokens, positions, attend)  # (N, d_model)
        last = torch.tensor(lengths, device=self.device).cumsum(0) - 1
        self.cache.write_prompts(numbers, lengths, keys_values, self.logits(hidden[last]))

    def begin(self, slots: list[int], schedule: Schedule, keys: torch.Tensor) -> None:
        """The slots' new rollouts: their first tokens are drawn from the logits after their prompts."""
        rollouts, s, at = schedule.rollout[slots], self.state, self.index(slots)
        self.cache.begin(at)
        s.length[at] = self.index([len(schedule.prompts[r // schedule.n]) for r in rollouts])
        s.budget[at] = self.index(schedule.budget[rollouts])
        s.key[at], s.column[at], s.alive[at] = keys[self.index(rollouts)], 0, True
        self.take(at, torch.stack([self.cache.after[r // schedule.n] for r in rollouts.tolist()]))
        self.cache.drop_prompts([p for p in dict.fromkeys(r // schedule.n for r in rollouts.tolist()) if not schedule.to_come[p]])

    def take(self, at: torch.Tensor, logits: torch.Tensor) -> None:
        """Draw and keep one token in each of the slots `at` (A,), from logits (A, V). Slots that have ended keep nothing."""
        s, (temperature, top_p, eos) = self.state, self.how
        column, alive = s.column[at], s.alive[at]
        token, logp = draw(logits, uniform(s.key[at], column), temperature, top_p)
        place = column.clamp(max=s.tokens.shape[1] - 1)
        s.tokens[at, place] = torch.where(alive, token.int(), s.tokens[at, place])
        s.logps[at, place] = torch.where(alive, logp, s.logps[at, place])
        s.token[at], s.column[at] = token, column + alive
        ended = column + 1 >= s.budget[at]
        s.alive[at] = alive & ~(ended | (token == eos) if eos is not None else ended)

    def step(self) -> None:
        """One token for every slot: `token` goes through the model at position `length`, and the next one is drawn."""
        s, w = self.state, self.width
        with self.autocast():
            hidden = self.model.trunk(s.token[:w], s.length[:w], self.cache.attend(s, w))  # (w, d_model)
        s.length[:w] += s.alive[:w]
        self.take(torch.arange(w, device=self.device), self.logits(hidden))

    def decode(self, schedule: Schedule) -> np.ndarray:
        """`interval` steps -> the slots seen to have ended. On a GPU the look is taken a little before the last step, so
        that the device still has work while the host decides what comes next."""
        self.cache.publish()
        for i in range(self.interval):
            self.recorded_step() if self.use_graphs else self.step()
            if i == max(0, self.interval - 3):
                self.flags.copy_(self.state.alive, non_blocking=True)
                look = torch.cuda.Event() if self.cuda else None
                if look:
                    look.record()
        schedule.age += self.interval
        if look:
            look.synchronize()
        return np.flatnonzero((schedule.rollout >= 0) & ~self.flags.numpy()[: self.width])

    def recorded_step(self) -> None:
        """`step` as one CUDA graph, recorded when a width is first met. Launching its kernels one by one takes longer than they do."""
        key = (self.width, *self.how)
        if key not in self.graphs:
            before = [x.clone() for x in vars(self.state).values()]
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                self.step()  # libraries set themselves up; what it writes to the cache is what the real step writes
            torch.cuda.current_stream().wait_stream(side)
            graph, pool = torch.cuda.CUDAGraph(), next(iter(self.graphs.values())).pool() if self.graphs else None
            with torch.cuda.graph(graph, pool=pool):
                self.step()
            self.graphs[key] = graph
            for x, old in zip(vars(self.state).values(), before):
                x.copy_(old)
        self.graphs[key].replay()

    def close_ranks(self, schedule: Schedule) -> None:
        """Nobody waits any more: move the live slots together, so that fewer are computed."""
        live = np.flatnonzero(schedule.rollout >= 0)
        width = min([w for w in WIDTHS if w >= len(live)], default=self.width) if self.cuda else len(live)
        if width < (self.width if self.cuda else 0.8 * self.width):  # moving costs a copy on a CPU
            self.width = width
            schedule.keep(live, width)
            self.state.keep(self.index(live))
            self.cache.keep(self.index(live), width)

    def autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16, cache_enabled=False)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(A, d_model) -> (A, V) fp32."""
        head = self.model.lm_head.weight[: self.model.config.vocab_size]
        return product(hidden.to(head.dtype), head.T)


def weights_as_multiplied(model: Transformer, fp32_head: bool, bf16: bool = True) -> Transformer:
    """A plain copy with the matrices in bf16 that autocast would cast at each use. Embedding and norms stay fp32, with
    `fp32_head` the head too; without `bf16` all do."""
    stays = lambda name, p: not bf16 or p.ndim < 2 or name == "embed_tokens.weight" or name == "lm_head.weight" and fp32_head
    with torch.device("meta"):
        copy = Transformer(model.config)
    cast = lambda name, p: whole(p.detach()).to(torch.float32 if stays(name, p) else torch.bfloat16, copy=True)
    weights = {name: cast(name, p) for name, p in own_weights(model).items()}
    copy.load_state_dict(weights, assign=True)
    if model.compiled:
        copy.fuse()
    return copy.requires_grad_(False)


def check_lengths(model: Transformer, prompts: list[list[int]], max_new_tokens) -> None:
    """Refuse at once what would end in nonsense later."""
    if not prompts or not all(prompts):
        raise ValueError("sample() needs prompts, each of at least one token")
    if int(torch.as_tensor(max_new_tokens).min()) < 1:
        raise ValueError("max_new_tokens must be 1 or more for every rollout")
    longest = max(map(len, prompts)) + int(torch.as_tensor(max_new_tokens).max())
    if longest > model.config.max_seq_len:
        raise ValueError(f"a prompt and its response may reach {longest} tokens, the model's limit is {model.config.max_seq_len}")


# ---------------------------------------------------------------------------------------------- from logits to tokens


def draw(logits: torch.Tensor, u: torch.Tensor, temperature: float, top_p: float):
    """One token per row of logits (S, V), a function of u (S,) in [0, 1), of 32 bits; up to 16 tokens: the inverse of the
    cumulative distribution at u.

    Returns the tokens and their log-probs (S,) in the whole distribution at the temperature, whatever top_p cuts.
    """
    if temperature > 0 and temperature != 1:
        logits = logits / temperature
    weight = logits.softmax(-1)  # (S, V)
    tree = sums_of_neighbours(weight)
    total = tree[-1].sum(-1)  # (S,) 1, but for rounding
    if temperature == 0:
        token = logits.argmax(-1)
    else:
        token = descend(tree if top_p == 1 else sums_of_neighbours(nucleus(weight, top_p)), u)  # (S,)
    return token, weight.gather(-1, token[:, None])[:, 0].log() - total.log().float()


def sums_of_neighbours(weight: torch.Tensor) -> list[torch.Tensor]:
    """(S, V) -> itself, the sums of 16 neighbours each (S, ceil(V / 16)), of 16 of these, and so on down to at most 16. The sums are
    float64: in float32 those of a large vocabulary would miss the total by more than rare tokens weigh."""
    tree = [weight]
    while (V := tree[-1].shape[1]) > 16:
        fine, whole = tree[-1], V // 16 * 16
        rest = [fine[:, whole:].sum(-1, keepdim=True)] if whole < V else []
        tree.append(torch.cat([fine[:, :whole].unflatten(1, (-1, 16)).sum(-1), *rest], 1).double())
    return tree[:-1] + [tree[-1].double()]


def descend(tree: list[torch.Tensor], u: torch.Tensor) -> torch.Tensor:
    """From the coarsest sums to a token (S,): at each level one of 16 neighbours, by inverting their cumulative weight at a uniform
    number of its own, the first of which is u (S,).

    One inversion over V tokens has V borders, and rounding that moves any of them across u gives another token: of 100,000
    tokens, noise of 1e-6 in the logits changes one draw in 600. Sixteen have few borders, and noise elsewhere does not move them.
    """
    node = torch.zeros_like(u, dtype=torch.int64)[:, None]  # (S, 1)
    for level, weight in enumerate(reversed(tree)):
        children = 16 * node + torch.arange(16, device=u.device)  # (S, 16)
        inside = weight.gather(1, children.clamp(max=weight.shape[1] - 1)).double() * (children < weight.shape[1])
        cumulative = inside.cumsum(-1)  # (S, 16)
        own = uniform((u * 2.0**32).long(), torch.full_like(node[:, 0], level)) if level else u  # (S,)
        target = own[:, None] * cumulative[:, -1:]  # (S, 1) below the last
        node = children.gather(1, (cumulative > target).int().argmax(-1, keepdim=True))
    return node[:, 0]


def nucleus(weight: torch.Tensor, top_p: float) -> torch.Tensor:
    """weight (S, V) with everything outside the smallest set of likeliest tokens that reaches top_p of it set to 0 (ties stay in)."""
    wanted = top_p * weight.sum(-1, keepdim=True)  # (S, 1)
    if weight.is_cuda:
        return weight.masked_fill(weight < threshold(weight, wanted), 0.0)
    for width in (8, 64, weight.shape[-1]):  # the likeliest few nearly always do, and sorting 100k entries is slow
        top = weight.topk(min(width, weight.shape[-1])).values  # (S, width), descending
        before = top.cumsum(-1) - top  # (S, width) weight of the likelier ones
        if width >= weight.shape[-1] or bool((before[:, -1:] + top[:, -1:] >= wanted).all()):
            break
    last = (before < wanted).sum(-1, keepdim=True) - 1  # (S, 1)
    return weight.masked_fill(weight < top.gather(-1, last), 0.0)


def threshold(weight: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """The highest t (S, 1) such that the weights from t on sum to `wanted` (S, 1): by halving the interval, without asking the
    device anything. Positive floats are ordered as their bits are, so 31 halvings are exact."""
    low, high = torch.zeros_like(wanted, dtype=torch.int32), weight.amax(-1, keepdim=True).view(torch.int32)
    for _ in range(31):
        middle = low + (high - low + 1) // 2
        enough = weight.masked_fill(weight < middle.view(torch.float32), 0.0).sum(-1, keepdim=True) >= wanted
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle - 1)
    return low.view(torch.float32)


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
