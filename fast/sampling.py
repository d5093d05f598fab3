"""The sampler with its slots on the device: sampler.py's tokens, with little for the host to do.

A prompt goes through the model once, and its keys and values are kept once, however many slots
sample from it. On a GPU a decode step is a recorded CUDA graph, and the host looks at what has
ended every 8 steps.

On one CPU core a toy step of RL samples in 0.46 s, and in 0.86 s with the plain sampler; an
evaluation with top_p in 0.49 and 1.22 s. A model of 1.3M parameters on two cores: 26,900 tokens/s
against 10,400. On an H100 a 1B model samples 44,000 tokens/s, 72 % of what its memory's bandwidth
allows (results/gpu).

schedule.py decides which rollout is in which slot, in plain numbers. `Slots` is what the device
knows of each. `FastSampler` runs the model. S slots, V tokens in the vocabulary; a rollout's "own"
tokens are its response.
"""

import time

import numpy as np
import torch
from tqdm import tqdm

from data.draws import rollout_keys, uniform
from fast.compiled import fused
from fast.head import product, rows_to_multiply
from fast.nucleus import nucleus_by_halving, nucleus_of_few
from fast.paged import PagedCache, has_kernel
from fast.schedule import Schedule
from fast.shared_cache import SharedPromptCache
from model import Transformer
from plumbing.compilers import triton_lacks
from plumbing.ranks import print0
from plumbing.sharding import is_sharded, own_weights, refresh, whole
from plumbing.transfer import send
from sampler import Rollout, check_request, draw

# Widths of a decode step on a GPU: a graph is recorded for each. For a width of 1 torch's compiler
# would make code of its own.
WIDTHS = (2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024)


class Slots:
    """What the device knows of each slot.

    Decode steps read and write these tensors (S, ...) in place, which a CUDA graph can record.
    """

    def __init__(self, slots: int, columns: int, device):
        def integers(dtype=torch.int64):
            return torch.zeros(slots, dtype=dtype, device=device)

        self.token = integers()  # sampled last; not in the cache yet
        self.length = integers()  # tokens in the cache: the position of `token`
        self.column = integers()  # own tokens sampled so far
        self.key = integers()  # of the rollout's randomness
        self.budget = integers()  # own tokens it may have
        self.alive = integers(torch.bool)
        self.tokens = torch.zeros(slots, columns, dtype=torch.int32, device=device)  # the own ones
        self.logps = torch.zeros(slots, columns, device=device)

    def move_to_front(self, slots: torch.Tensor) -> None:
        """These slots become the first; the others are empty then."""
        for x in vars(self).values():
            x[: len(slots)] = x[slots]
        self.alive[len(slots) :] = False
        self.length[len(slots) :] = 0


class FastSampler:
    """Rollouts from one model, again and again.

    What outlives a call is the memory for keys and values and, on a GPU, the recorded graphs and a
    copy of the weights as they are multiplied. In fp32 the model itself is sampled from, unless it
    is sharded: then a whole copy is.

    memory: the share of a GPU's free memory for keys and values.
    bf16: as autocast multiplies (default: on a GPU).
    fp32_head: the head's factors stay fp32 (default: as the model trains).
    paged: keys and values in pages (default: on a GPU). `pages`: how many, instead of `memory`.
    """

    def __init__(
        self,
        model: Transformer,
        slots: int = 512,
        memory: float = 0.4,
        bf16: bool | None = None,
        fp32_head: bool | None = None,
        paged: bool | None = None,
        pages: int | None = None,
    ):
        self.device = model.lm_head.weight.device
        self.cuda = self.device.type == "cuda"
        self.bf16 = self.cuda if bf16 is None else bf16
        self.paged = self.cuda if paged is None else paged
        self.model = model
        if self.bf16 or is_sharded(model):
            fp32_head = model.fp32_head if fp32_head is None else fp32_head
            self.model = weights_as_multiplied(model, fp32_head, self.bf16)
        self.slots = slots
        self.pages = pages
        self.memory = memory
        self.interval = 8 if self.cuda else 1  # steps between two looks at what has ended
        self.use_graphs = self.paged and has_kernel(self.device)
        if self.cuda and self.paged and not self.use_graphs:
            print0(f"sampling is slow here, without CUDA graphs: its kernel needs {triton_lacks()}")
        self.graphs = {}  # by width and way to draw
        self.side = torch.cuda.Stream() if self.use_graphs else None  # where they are recorded
        self.nucleus = nucleus_by_halving if self.cuda else nucleus_of_few
        self.draw = fused(draw_keyed) if self.cuda and self.model.compiled else draw_keyed
        self.state = None

    def refresh(self, model: Transformer) -> None:
        """Take over the weights of `model`, in place, so that graphs stay valid."""
        refresh(self.model, model)

    @torch.inference_mode()
    def sample(
        self,
        prompts: list[list[int]],
        n: int = 1,
        max_new_tokens: int | list[int] = 256,
        temperature: float = 1.0,
        top_p: float = 1.0,
        eos: int | None = None,
        seed: int = 0,
        step: int = 0,
        problem_ids: list[int] | None = None,
        progress: bool = False,
    ) -> list[list[Rollout]]:
        """As `Sampler.sample`."""
        budget = np.asarray(check_request(self, prompts, n, max_new_tokens, problem_ids))
        total = len(budget)
        columns = int(budget.max())
        self.temperature = temperature
        self.top_p = top_p
        self.eos = eos
        self.prepare(min(self.slots, total), max(map(len, prompts)), columns)
        s = self.state
        schedule = Schedule(prompts, n, budget, self.width, self.cache)
        keys = rollout_keys(seed, step, problem_ids or range(len(prompts)), n)
        keys_there = self.index(keys)
        tokens = torch.zeros(total, columns, dtype=torch.int32, device=self.device)
        logps = torch.zeros(total, columns, device=self.device)
        lengths = torch.zeros(total, dtype=torch.int64, device=self.device)
        bar = tqdm(total=total, desc="sampling", unit="rollout", disable=not progress, leave=False)
        start = time.time()
        n_tokens = 0
        while True:
            slots, new = schedule.admit()
            if slots:
                self.prefill(prompts, new)
                self.begin(slots, schedule, keys_there)
            n_live = int((schedule.rollout >= 0).sum())
            if not n_live and not schedule.waiting:
                break
            if not schedule.waiting:
                self.compact(schedule)
            emptied = schedule.make_room(self.interval)
            if emptied:
                at = self.index(emptied)
                s.alive[at] = False
                s.length[at] = 0
            ended = self.decode(schedule)
            r = self.index(schedule.rollout[ended])
            at = self.index(ended)
            tokens[r] = s.tokens[at, :columns]
            logps[r] = s.logps[at, :columns]
            lengths[r] = s.column[at]
            s.length[at] = 0  # an empty slot computes along and reads nothing
            s.column[at] = 0
            schedule.vacate(ended)
            n_tokens += n_live * self.interval
            bar.update(len(ended))
            speed = n_tokens / max(time.time() - start, 1e-9)
            said = f"{speed:,.0f} tok/s, {n_live} live, {self.cache.used()}"
            bar.set_postfix_str(said, refresh=False)
        bar.close()
        rollouts = []
        rows = zip(tokens.cpu().numpy(), logps.cpu().numpy(), lengths.tolist(), keys)
        for of_one, logp, length, key in rows:
            finished = bool(of_one[length - 1] == eos)
            own = (of_one[:length].tolist(), logp[:length].tolist())
            rollouts.append(Rollout(*own, finished, key))
        return [rollouts[i : i + n] for i in range(0, total, n)]

    def index(self, numbers) -> torch.Tensor:
        return send(np.asarray(numbers, dtype=np.int64), self.device)

    def prepare(self, slots: int, longest: int, columns: int) -> None:
        """`slots` empty slots with room for `columns` own tokens.

        Memory and graphs stay while they are large enough.
        """
        config = self.model.config
        known = self.state
        if known is None or len(known.alive) < slots or known.tokens.shape[1] < columns:
            dtype = torch.bfloat16 if self.bf16 else torch.float32
            self.graphs = {}
            self.cache = None  # frees the old pages before there are new ones
            if self.paged:
                self.cache = PagedCache(config, slots, self.pages, self.memory, self.device, dtype)
            else:
                self.cache = SharedPromptCache(config, slots, columns, self.device, dtype)
            self.state = Slots(slots, columns, self.device)
            self.flags = torch.zeros(slots, dtype=torch.bool, pin_memory=self.cuda)
        self.width = slots  # the first `width` slots decode
        for x in vars(self.state).values():
            x.zero_()
        self.cache.clear(slots, longest + columns)

    def prefill(self, prompts: list[list[int]], new: list[int], most: int = 16_384) -> None:
        """Send the prompts with these numbers through the model, about `most` tokens at a time."""
        part = []
        size = 0
        for p in new:
            if part and size + len(prompts[p]) > most:
                self.read(part, [prompts[q] for q in part])
                part = []
                size = 0
            part.append(p)
            size += len(prompts[p])
        if part:
            self.read(part, [prompts[q] for q in part])

    def read(self, numbers: list[int], prompts: list[list[int]]) -> None:
        """One pass over packed prompts: keys, values and next-token logits go to the cache."""
        lengths = [len(p) for p in prompts]
        causal = self.model.attention(lengths, self.device)
        keys_values = []

        def attend(layer, q, k, v):
            keys_values.append((k, v))  # (N, n_kv_heads, head_dim) each
            return causal(layer, q, k, v)

        tokens = self.index([t for p in prompts for t in p])  # (N,)
        positions = send(torch.cat([torch.arange(n) for n in lengths]), self.device)
        with self.autocast():
            hidden = self.model.trunk(tokens, positions, attend)  # (N, d_model)
        last = self.index(np.cumsum(lengths) - 1)
        self.cache.write_prompts(numbers, lengths, keys_values, self.logits(hidden[last]))

    def begin(self, slots: list[int], schedule: Schedule, keys: torch.Tensor) -> None:
        """New rollouts in these slots: their first tokens are drawn."""
        rollouts = schedule.rollout[slots].tolist()
        prompts = [r // schedule.n for r in rollouts]
        s = self.state
        at = self.index(slots)
        self.cache.begin(at)
        s.length[at] = self.index([len(schedule.prompts[p]) for p in prompts])
        s.budget[at] = self.index(schedule.budget[rollouts])
        s.key[at] = keys[self.index(rollouts)]
        s.column[at] = 0
        s.alive[at] = True
        self.take(at, torch.stack([self.cache.after[p] for p in prompts]))
        done = [p for p in dict.fromkeys(prompts) if not schedule.to_come[p]]
        self.cache.drop_prompts(done)

    def take(self, at: torch.Tensor, logits: torch.Tensor) -> None:
        """Draw and keep one token in each of the slots `at` (L,), from logits (L, V).

        Slots that have ended keep nothing.
        """
        s = self.state
        column = s.column[at]
        alive = s.alive[at]
        how = (self.temperature, self.top_p, self.nucleus)
        token, logp = self.draw(logits, s.key[at], column, *how)
        place = column.clamp(max=s.tokens.shape[1] - 1)
        s.tokens[at, place] = torch.where(alive, token.int(), s.tokens[at, place])
        s.logps[at, place] = torch.where(alive, logp, s.logps[at, place])
        s.token[at] = token
        s.column[at] = column + alive
        ended = column + 1 >= s.budget[at]
        if self.eos is not None:
            ended = ended | (token == self.eos)
        s.alive[at] = alive & ~ended

    def step(self) -> None:
        """One token for every slot: `token` goes through the model, and the next one is drawn."""
        s = self.state
        w = self.width
        with self.autocast():
            attend = self.cache.attend(s, w)
            hidden = self.model.trunk(s.token[:w], s.length[:w], attend)  # (w, d_model)
        s.length[:w] += s.alive[:w]
        self.take(torch.arange(w, device=self.device), self.logits(hidden))

    def decode(self, schedule: Schedule) -> np.ndarray:
        """`interval` steps -> the slots seen to have ended.

        On a GPU the look is taken a little before the last step, so that the device still has work
        while the host decides what comes next.
        """
        self.cache.publish()
        look = None
        for i in range(self.interval):
            if self.use_graphs:
                self.recorded_step()
            else:
                self.step()
            if i == max(0, self.interval - 3):
                self.flags.copy_(self.state.alive, non_blocking=True)
                if self.cuda:
                    look = torch.cuda.Event()
                    look.record()
        schedule.age += self.interval
        if look:
            look.synchronize()
        return np.flatnonzero((schedule.rollout >= 0) & ~self.flags.numpy()[: self.width])

    def recorded_step(self) -> None:
        """`step` as one CUDA graph, recorded when a width is first met.

        To launch its kernels one by one takes longer than they do.
        """
        key = (self.width, self.temperature, self.top_p, self.eos)
        if key not in self.graphs:
            before = [x.clone() for x in vars(self.state).values()]
            self.side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.side):
                self.step()  # libraries set themselves up; what it writes, the real step writes too
            torch.cuda.current_stream().wait_stream(self.side)
            graph = torch.cuda.CUDAGraph()
            pool = None
            if self.graphs:  # all graphs share the memory of the first
                pool = next(iter(self.graphs.values())).pool()
            # One stream for all: a library keeps memory of its own for each that it meets.
            with torch.cuda.graph(graph, pool=pool, stream=self.side):
                self.step()
            self.graphs[key] = graph
            for x, old in zip(vars(self.state).values(), before):
                x.copy_(old)
        self.graphs[key].replay()

    def compact(self, schedule: Schedule) -> None:
        """Nobody waits any more: move the live slots together, so that fewer are computed."""
        live = np.flatnonzero(schedule.rollout >= 0)
        if self.cuda:
            width = min([w for w in WIDTHS if w >= len(live)], default=self.width)
            worth_it = width < self.width
        else:
            width = len(live)
            worth_it = width < 0.8 * self.width  # moving costs a copy
        if worth_it:
            self.width = width
            schedule.move_to_front(live, width)
            self.state.move_to_front(self.index(live))
            self.cache.move_to_front(live, width)

    def autocast(self):
        kind = self.device.type
        return torch.autocast(kind, torch.bfloat16, enabled=self.bf16, cache_enabled=False)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(L, d_model) -> (L, V) fp32."""
        head = rows_to_multiply(self.model)
        return product(hidden.to(head.dtype), head.T)[:, : self.model.config.vocab_size]


def draw_keyed(logits, key, column, temperature: float, top_p: float, nucleus):
    """`draw` for rollouts with these keys (L,), which have `column` (L,) own tokens already.

    These are some 200 small kernels, of which torch's compiler makes a few.
    """
    return draw(logits, uniform(key, column), temperature, top_p, nucleus)


def weights_as_multiplied(model: Transformer, fp32_head: bool, bf16: bool = True) -> Transformer:
    """A plain copy, with the matrices in bf16 that autocast would cast at each use.

    Embedding and norms stay fp32, with `fp32_head` the head too. Without `bf16` all do.
    """
    weights = {}
    for name, p in own_weights(model).items():
        stays = (
            p.ndim < 2 or name == "embed_tokens.weight" or (fp32_head and name == "lm_head.weight")
        )
        dtype = torch.bfloat16 if bf16 and not stays else torch.float32
        weights[name] = whole(p.detach()).to(dtype, copy=True)
    with torch.device("meta"):
        copy = Transformer(model.config)
    copy.load_state_dict(weights, assign=True)
    model.install_on(copy, fp32_head=fp32_head)
    return copy.requires_grad_(False)
