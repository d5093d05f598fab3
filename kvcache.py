"""Keys and values while sampling: `DenseCache` where arithmetic is slow and memory cheap (a CPU), `PagedCache` where it is the
other way round (a GPU), with the kernel that attends over its pages.

Both keep the keys and values of a prompt once for all its rollouts, and forget them when no rollout needs them. The
sampler's schedule asks for room and gives it back slot by slot (has_room, open, reserve, close: plain numbers on the
host); the decoder gets an `attend(layer, q, k, v)` for one new token per slot (attend). A slot's "own" tokens are its
response. S slots, R prompts, P pages.
"""

import numpy as np
import torch

from data import UserError

try:  # torch brings it along on CUDA
    import triton
    import triton.language as tl
except ImportError:
    triton = None

PAGE = 16  # tokens; on average half a page of each rollout stays empty


class DenseCache:
    """Every prompt once, and every slot's own tokens: rows (R, n_kv_heads, Tp, head_dim) and (S, n_kv_heads, columns, head_dim)
    per layer, right-padded. The queries of all rollouts of a prompt meet its keys in one matrix product."""

    def __init__(self, config, slots: int, columns: int, device, dtype):
        self.heads, self.D, self.device = config.n_kv_heads, config.head_dim, device
        room = lambda: torch.zeros(slots * columns * self.heads * self.D, device=device, dtype=dtype)
        self.stores = [room() for _ in range(2 * config.n_layers + 1)]  # the first is free, so that the others can move

    def clear(self, slots: int, longest: int) -> None:
        empty = self.stores[0].new_zeros(0, self.heads, 0, self.D)
        self.own = [(empty, empty) for _ in self.stores[1::2]]
        self.prompts = list(self.own)
        self.T = 0  # own tokens of the longest response
        self.move(slots, 16, lambda old, new: new.zero_())
        self.rows: list[int] = []  # the prompt in each row
        self.lengths = torch.zeros(0, dtype=torch.int64, device=self.device)  # (R,)
        self.prompt_of = np.full(slots, -1)  # (S,)
        self.after: dict[int, torch.Tensor] = {}  # next-token logits (V,) after the prompts that rollouts wait for

    def has_room(self, p: int, length: int, spare: int = 0) -> bool:
        return True

    def open(self, slot: int, p: int, length: int) -> None:
        self.prompt_of[slot] = p

    def close(self, slot: int) -> None:
        self.prompt_of[slot] = -1

    def reserve(self, slots: np.ndarray, own: np.ndarray) -> bool:
        width, columns = self.own[0][0].shape[::2][:2]
        if own.max() > columns:
            self.move(width, max(2 * columns, int(own.max())), self.copy)
        self.T = int(own.max())
        return True

    def move(self, width: int, columns: int, fill) -> None:
        """Lay the own tokens out anew, in `width` slots of `columns` tokens each (or fewer, where the stores end), by `fill(old, new)`:
        not many more columns than needed, since rows that stand far apart are slow to read. Each store moves to the one before it."""
        columns = min(columns, len(self.stores[0]) // (width * self.heads * self.D))
        views = [store[: width * self.heads * columns * self.D].view(width, self.heads, columns, self.D) for store in self.stores[:-1]]
        for old, new in zip(sum(self.own, ()), views):
            fill(old, new)
        self.own = list(zip(views[::2], views[1::2]))
        self.stores = self.stores[-1:] + self.stores[:-1]

    def copy(self, old: torch.Tensor, new: torch.Tensor) -> None:
        new[:, :, : self.T] = old[:, :, : self.T]
        new[:, :, self.T :] = 0.0

    def publish(self) -> None:
        pass

    def used(self) -> str:
        return f"{len(self.rows)} prompts"

    def drop_prompts(self, prompts: list[int]) -> None:
        for p in prompts:
            del self.after[p]

    def write_prompts(self, prompts: list[int], lengths: list[int], keys_values, logits: torch.Tensor) -> None:
        """Append rows for prompts; keys_values: per layer (N, n_kv_heads, head_dim) twice. Rows that nobody needs go."""
        needed = [i for i, p in enumerate(self.rows) if p in self.after or p in self.prompt_of]
        self.rows = [self.rows[i] for i in needed] + prompts
        self.lengths = torch.cat((self.lengths[needed], torch.tensor(lengths, device=self.device)))
        width = int(self.lengths.max())

        def join(old, new):  # -> (R, n_kv_heads, width, head_dim)
            new = torch.nn.utils.rnn.pad_sequence(new.split(lengths), batch_first=True).transpose(1, 2)
            parts = (old[needed, :, :width], new.to(old.dtype))
            return torch.cat([torch.nn.functional.pad(x, (0, 0, 0, width - x.shape[2])) for x in parts])

        self.prompts = [tuple(map(join, old, new)) for old, new in zip(self.prompts, keys_values)]
        self.after.update(zip(prompts, logits))

    def begin(self, slots: torch.Tensor) -> None:
        """New rollouts in these slots: nothing of the last ones is left, not even behind the mask."""
        for x in sum(self.own, ()):
            x[slots] = 0.0
        self.arrange()

    def keep(self, slots: torch.Tensor, width: int) -> None:
        """Move these slots to the front and drop the others."""

        def fill(old, new):
            torch.index_select(old, 0, slots, out=new[: len(slots)])
            new[len(slots) :] = 0.0

        self.move(width, self.own[0][0].shape[2], fill)
        self.prompt_of = self.prompt_of[slots.numpy()]
        self.arrange()

    def arrange(self) -> None:
        """Lay the slots out by prompt, G places a row: which (slot, head) stands at each (row, head, place), and where each slot is."""
        row_of = {p: i for i, p in enumerate(self.rows)}
        owner = torch.tensor([row_of.get(p, -1) for p in self.prompt_of.tolist()], device=self.device)  # (S,)
        slots = (owner >= 0).nonzero()[:, 0]
        rows, order = owner[slots].sort(stable=True)
        slots, count = slots[order], torch.bincount(rows, minlength=len(self.rows))  # (R,) slots of each prompt
        place = torch.arange(len(rows), device=self.device) - (count.cumsum(0) - count)[rows]
        R, G, heads = len(count), int(count.max()), torch.arange(self.heads, device=self.device)
        grid = torch.zeros(R, G, dtype=torch.int64, device=self.device)
        grid[rows, place] = slots
        self.to_prompts = grid[:, None] * len(heads) + heads[:, None]  # (R, n_kv_heads, G) into S * n_kv_heads
        row, at = torch.zeros_like(owner), torch.zeros_like(owner)  # an empty slot looks anywhere
        row[slots], at[slots] = rows, place
        self.to_slots = (row[:, None] * len(heads) + heads) * G + at[:, None]  # (S, n_kv_heads) into R * n_kv_heads * G

    def attend(self, state, width: int):
        """`attend` for one new token per slot: it is stored, then sees its prompt and what the slot has so far.

        The two parts are attended to one by one: with sums of exp(score) a and b, the whole is a / (a + b) of the one's
        output and b / (a + b) of the other's, and a / (a + b) = sigmoid(log a - log b).
        """
        column = (state.column[:width] - 1).clamp(min=0)  # (S,) of the new token among the slot's own
        at = lambda n: torch.arange(n, device=column.device)
        T, R, heads, columns, D = self.T, len(self.lengths), self.heads, self.own[0][0].shape[2], self.D
        to_prompts, to_slots = self.to_prompts.flatten(), self.to_slots.flatten()
        new = ((at(width)[:, None] * heads + at(heads)) * columns + column[:, None]).flatten()  # (S * n_kv_heads,) the new token's rows
        if_any = lambda mask: mask[:, None, None] if mask.is_cuda or mask.any() else None  # a GPU would have to be waited for
        not_prompt = if_any(at(self.prompts[0][0].shape[2]) >= self.lengths[:, None])  # (R, 1, 1, Tp)
        not_own = if_any((at(T) > column[:, None]) & state.alive[:width, None])  # (S, 1, 1, T); what an ended slot reads is nobody's

        def part(q, k, v, unseen):  # (rows, n_kv_heads, queries, D) -> output, log of the sum of exp(score) (.., queries, 1)
            scores = (q @ k.transpose(2, 3)).float()
            weights = (scores if unseen is None else scores.masked_fill_(unseen, float("-inf"))).log_softmax(-1)
            lse = scores[..., :1] - weights[..., :1]  # the first token is always seen
            return weights.exp_().to(v.dtype) @ v, lse

        def attend(layer, q, k, v):  # q (S, n_heads, D); k, v (S, n_kv_heads, D)
            own_k, own_v = self.own[layer]
            if not_own is None:  # all slots are at the same column
                own_k[:, :, T - 1], own_v[:, :, T - 1] = k, v
            else:
                own_k.flatten(0, 2)[new], own_v.flatten(0, 2)[new] = k.flatten(0, 1).to(own_k.dtype), v.flatten(0, 1).to(own_v.dtype)
            q = (q * D**-0.5).to(own_k.dtype).unflatten(1, (heads, -1))  # (S, n_kv_heads, group, D)
            group = q.shape[2]
            by_prompt = q.flatten(0, 1).index_select(0, to_prompts).view(R, heads, -1, D)  # (R, n_kv_heads, G * group, D)
            of_prompt, log_a = part(by_prompt, *self.prompts[layer], not_prompt)
            of_own, log_b = part(q, own_k[:, :, :T], own_v[:, :, :T], not_own)  # (S, n_kv_heads, group, .)
            by_slot = lambda x: x.view(-1, group, x.shape[-1]).index_select(0, to_slots).view(width, heads, group, -1)
            share = (by_slot(log_a) - log_b).sigmoid().to(of_own.dtype)
            return of_own.lerp(by_slot(of_prompt), share).flatten(1, 2)  # (S, n_heads, D)

        return attend


class PagedCache:
    """Keys and values in pages of PAGE tokens, (pages, n_kv_heads, PAGE, head_dim) per layer; a table (S, limit) says which
    page holds which stretch of a slot's tokens. Memory is what is alive: whole pages of a prompt are shared by its
    rollouts, its last, partial page is copied for each. Page 0 is where empty slots read and write."""

    def __init__(self, config, slots: int, pages: int | None, memory: float, device, dtype):
        limit = -(-config.max_seq_len // PAGE)  # pages of the longest sequence
        if pages is None:
            page_bytes = 2 * config.n_layers * config.n_kv_heads * PAGE * config.head_dim * torch.finfo(dtype).bits // 8
            free = 2**32
            if device.type == "cuda":
                free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
            pages = min(slots * (limit + 1) + 1, int(memory * free / page_bytes))  # at most what all slots can fill
        shape = (pages, config.n_kv_heads, PAGE, config.head_dim)
        self.keys, self.values = ([torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.n_layers)] for _ in range(2))
        self.table = torch.zeros(slots, limit, dtype=torch.int32, device=device)
        self.new_table = torch.zeros(slots, limit, dtype=torch.int32, pin_memory=device.type == "cuda")  # the host's

    def clear(self, slots: int, longest: int) -> None:
        """All pages free. Raises UserError where one rollout of `longest` tokens, prompt and own, may not fit."""
        pages, needed = len(self.keys[0]), longest // PAGE + 4  # with the pages it fills in part, and page 0
        if pages < needed:
            raise UserError(
                f"{pages} pages of {PAGE} tokens cannot hold a rollout of {longest} tokens, which may take {needed}; "
                "give the sampler more memory, or fewer tokens per rollout"
            )
        self.free = list(range(pages - 1, 0, -1))
        self.users = np.zeros(pages, np.int64)  # slots and prompts that hold each page
        self.of_prompt: dict[int, list[int]] = {}  # the pages of prompts that rollouts wait for
        self.of_slot: list[list[int]] = [[] for _ in range(len(self.table))]
        self.count = np.zeros(len(self.table), np.int64)  # (S,) pages of each slot
        self.prompt_length = np.zeros(len(self.table), np.int64)  # (S,)
        self.after: dict[int, torch.Tensor] = {}  # next-token logits (V,) after these prompts
        self.copies: list[tuple[int, int]] = []  # partial pages to copy: from, to
        self.new_table.zero_()

    def get(self) -> int:
        page = self.free.pop()
        self.users[page] = 1
        return page

    def release(self, pages: list[int]) -> None:
        for page in pages:
            self.users[page] -= 1
            if not self.users[page]:
                self.free.append(page)

    def has_room(self, p: int, length: int, spare: int = 0) -> bool:
        """For one more rollout of prompt p, and `spare` pages beside."""
        return len(self.free) >= spare + 1 + (0 if p in self.of_prompt else -(-length // PAGE))

    def open(self, slot: int, p: int, length: int) -> None:
        """The slot's tokens begin with prompt p: its whole pages are shared, the rest of it is copied by `begin`."""
        if p not in self.of_prompt:
            self.of_prompt[p] = [self.get() for _ in range(-(-length // PAGE))]
        shared, own = self.of_prompt[p][: length // PAGE], self.get()
        self.users[shared] += 1
        if length % PAGE:
            self.copies.append((self.of_prompt[p][-1], own))
        self.prompt_length[slot] = length
        self.set_pages(slot, [*shared, own])

    def set_pages(self, slot: int, pages: list[int]) -> None:
        self.new_table[slot] = 0
        self.new_table[slot, : len(pages)] = torch.tensor(pages, dtype=torch.int32)
        self.of_slot[slot], self.count[slot] = pages, len(pages)

    def close(self, slot: int) -> None:
        self.release(self.of_slot[slot])
        self.set_pages(slot, [])

    def drop_prompts(self, prompts: list[int]) -> None:
        for p in prompts:
            self.release(self.of_prompt.pop(p))
            del self.after[p]

    def reserve(self, slots: np.ndarray, own: np.ndarray) -> bool:
        """Pages for `own` tokens after the prompt in each of the slots, in this order; False where they run out."""
        needed = -(-(self.prompt_length[slots] + own) // PAGE)
        for slot, more in zip(slots.tolist(), (needed - self.count[slots]).tolist()):
            if more > len(self.free):
                return False
            if more > 0:
                self.set_pages(slot, self.of_slot[slot] + [self.get() for _ in range(more)])
        return True

    def publish(self) -> None:
        self.table.copy_(self.new_table, non_blocking=True)

    def used(self) -> str:
        return f"{1 - len(self.free) / (len(self.users) - 1):.0%} of {len(self.users) - 1} pages"

    def write_prompts(self, prompts: list[int], lengths: list[int], keys_values, logits: torch.Tensor) -> None:
        """Fill the pages of prompts; keys_values: per layer (N, n_kv_heads, head_dim) twice."""
        place = [(page, i) for p, length in zip(prompts, lengths) for page in self.of_prompt[p] for i in range(PAGE)]
        real = [i < length for length in lengths for i in range(-(-length // PAGE) * PAGE)]
        page, offset = torch.tensor([at for at, there in zip(place, real) if there], device=self.table.device).T  # (N,) each
        for layer, (k, v) in enumerate(keys_values):
            self.keys[layer][page, :, offset] = k.to(self.keys[layer].dtype)
            self.values[layer][page, :, offset] = v.to(self.values[layer].dtype)
        self.after.update(zip(prompts, logits))

    def begin(self, slots: torch.Tensor) -> None:
        if self.copies:
            source, target = torch.tensor(self.copies, device=self.table.device).T
            for x in (*self.keys, *self.values):
                x[target] = x[source]
            self.copies = []

    def keep(self, slots: torch.Tensor, width: int) -> None:
        """Move these slots to the front; all others are closed already."""
        order = [*slots.tolist(), *sorted(set(range(len(self.of_slot))) - set(slots.tolist()))]
        self.of_slot = [self.of_slot[i] for i in order]
        self.count, self.prompt_length = self.count[order], self.prompt_length[order]
        self.new_table.copy_(self.new_table[order])

    def attend(self, state, width: int):
        """`attend` for one new token per slot, at position `length`: it is stored, then sees all up to itself."""
        length, table = state.length[:width], self.table[:width]
        page, offset = table.gather(1, (length // PAGE)[:, None])[:, 0].long(), length % PAGE  # (S,) each

        def attend(layer, q, k, v):  # q (S, n_heads, head_dim); k, v (S, n_kv_heads, head_dim)
            keys, values = self.keys[layer], self.values[layer]
            keys[page, :, offset] = k.to(keys.dtype)
            values[page, :, offset] = v.to(values.dtype)
            kernel = paged_attention if q.is_cuda and triton else gathered_attention
            return kernel(q.to(keys.dtype), keys, values, table, length + 1)

        return attend


def gathered_attention(q, keys, values, table, lengths):
    """q (S, n_heads, head_dim) over the first lengths (S,) tokens of each slot's pages -> (S, n_heads, head_dim): the reference."""
    n_pages = -(-int(lengths.max()) // PAGE)
    rows = lambda x: x[table[:, :n_pages].long()].transpose(1, 2).flatten(2, 3)  # (S, n_kv_heads, n_pages * PAGE, head_dim)
    unseen = (torch.arange(n_pages * PAGE, device=q.device) >= lengths[:, None])[:, None, :, None]  # (S, 1, n_pages * PAGE, 1)
    q = q.unflatten(1, (keys.shape[1], -1)) * q.shape[-1] ** -0.5  # (S, n_kv_heads, group, head_dim)
    scores = (q @ rows(keys).transpose(2, 3)).float().masked_fill(unseen.transpose(2, 3), float("-inf"))
    return (scores.softmax(-1).to(q.dtype) @ rows(values).masked_fill(unseen, 0)).flatten(1, 2)


def paged_attention(q, keys, values, table, lengths):
    """As gathered_attention, reading live tokens only, each once."""
    (S, n_heads, D), n_kv = q.shape, keys.shape[1]
    q, out = q.contiguous(), torch.empty_like(q, memory_format=torch.contiguous_format)
    paged_kernel[(S, n_kv)](
        q, keys, values, table, lengths, out, D**-0.5, table.stride(0),
        KV=n_kv, GROUP=n_heads // n_kv, PAD=triton.next_power_of_2(n_heads // n_kv), D=D, DPAD=triton.next_power_of_2(D),
        PAGE=PAGE, BLOCK=64, num_warps=4,
    )  # fmt: skip
    return out


if triton:

    @triton.jit
    def paged_kernel(
        q, keys, values, table, lengths, out, scale, limit, KV: tl.constexpr, GROUP: tl.constexpr, PAD: tl.constexpr,
        D: tl.constexpr, DPAD: tl.constexpr, PAGE: tl.constexpr, BLOCK: tl.constexpr,
    ):  # fmt: skip
        """One program: the GROUP query heads of one slot and key head. It walks over the slot's tokens, BLOCK at a time, with a
        running softmax (Milakov & Gimelshein 2018): `top` the highest score so far, `total` the sum of exp(score - top)."""
        slot, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
        length = tl.load(lengths + slot)
        g, d, t = tl.arange(0, PAD), tl.arange(0, DPAD), tl.arange(0, BLOCK)
        at_q = (slot * KV + head) * GROUP * D + g[:, None] * D + d[None, :]  # (PAD, DPAD)
        real_q = (g[:, None] < GROUP) & (d[None, :] < D)
        query = tl.load(q + at_q, mask=real_q, other=0.0).to(tl.float32) * scale
        top = tl.full((PAD,), float("-inf"), tl.float32)
        total = tl.zeros((PAD,), tl.float32)
        result = tl.zeros((PAD, DPAD), tl.float32)
        for start in range(0, length, BLOCK):
            here = start + t < length  # (BLOCK,)
            page = tl.load(table + slot * limit + (start + t) // PAGE, mask=here, other=0).to(tl.int64)
            row = ((page * KV + head) * PAGE + (start + t) % PAGE) * D  # (BLOCK,)
            real = here[:, None] & (d[None, :] < D)
            k = tl.load(keys + row[:, None] + d[None, :], mask=real, other=0.0).to(tl.float32)  # (BLOCK, DPAD)
            score = tl.sum(query[:, None, :] * k[None, :, :], 2)  # (PAD, BLOCK)
            score = tl.where(here[None, :], score, float("-inf"))
            higher = tl.maximum(top, tl.max(score, 1))
            shrink, weight = tl.exp(top - higher), tl.exp(score - higher[:, None])
            v = tl.load(values + row[:, None] + d[None, :], mask=real, other=0.0).to(tl.float32)
            result = result * shrink[:, None] + tl.sum(weight[:, :, None] * v[None, :, :], 1)
            total = total * shrink + tl.sum(weight, 1)
            top = higher
        tl.store(out + at_q, (result / total[:, None]).to(out.dtype.element_ty), mask=real_q)
