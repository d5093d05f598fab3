"""Keys and values on a CPU, where arithmetic is slow and memory is cheap: those of a prompt once.

The queries of all rollouts of a prompt meet its keys in one matrix product.
fast/sampling.py says what the sampler that uses it is worth.

The sampler asks a cache for room and gives it back slot by slot (has_room, open, reserve, close:
plain numbers on the host). The decoder gets an `attend(layer, q, k, v)` for one new token per slot.
A slot's "own" tokens are its response. S slots, R rows (prompts).
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence


class SharedPromptCache:
    """Rows, right-padded, per layer: of each prompt (R, n_kv_heads, Tp, head_dim), and of each
    slot's own tokens (S, n_kv_heads, columns, head_dim).

    Own tokens live in flat stores. Rows that stand far apart are slow to read, so a store is laid
    out with about as many columns as the longest response has, and again with more when that is too
    few. There is one store more than needed, and it is free. So that growing takes no second copy
    of all, each store moves into the free one before it, and the last one becomes free:

        free  k0  v0  k1  v1     ->     k0  v0  k1  v1  free     ->     the last is put in front
    """

    def __init__(self, config, slots: int, columns: int, device, dtype):
        self.heads = config.n_kv_heads
        self.D = config.head_dim
        self.device = device
        size = slots * columns * self.heads * self.D
        n_stores = 2 * config.n_layers + 1
        self.stores = [torch.zeros(size, device=device, dtype=dtype) for _ in range(n_stores)]

    def clear(self, slots: int, longest: int) -> None:
        """Forget everything; `slots` rows will decode, and no sequence passes `longest` tokens."""
        empty = self.stores[0].new_zeros(0, self.heads, 0, self.D)
        self.own = [(empty, empty) for _ in self.stores[1::2]]  # keys and values of each layer
        self.prompts = list(self.own)
        self.T = 0  # own tokens of the longest response
        self.lay_out(slots, 16, lambda old, new: new.zero_())
        self.rows: list[int] = []  # the prompt in each row
        self.lengths = torch.zeros(0, dtype=torch.int64, device=self.device)  # (R,)
        self.prompt_of = np.full(slots, -1)  # (S,)
        self.after: dict[
            int, torch.Tensor
        ] = {}  # prompts that rollouts wait for: next-token logits

    def has_room(self, p: int, length: int, spare: int = 0) -> bool:
        return True

    def open(self, slot: int, p: int, length: int) -> None:
        self.prompt_of[slot] = p

    def close(self, slot: int) -> None:
        self.prompt_of[slot] = -1

    def reserve(self, slots: np.ndarray, own: np.ndarray) -> bool:
        """Room for so many own tokens in each of the slots."""
        width, _, columns, _ = self.own[0][0].shape
        longest = int(own.max())
        if longest > columns:
            self.lay_out(width, max(2 * columns, longest), self.copy_columns)
        self.T = longest
        return True

    def lay_out(self, width: int, columns: int, fill) -> None:
        """Own tokens in `width` slots of `columns` tokens, or fewer where the stores end.

        `fill(old, new)` writes a tensor's new form.
        """
        columns = min(columns, len(self.stores[0]) // (width * self.heads * self.D))
        shape = (width, self.heads, columns, self.D)
        size = width * self.heads * columns * self.D
        views = [store[:size].view(shape) for store in self.stores[:-1]]
        old = [x for of_layer in self.own for x in of_layer]
        for before, after in zip(old, views):
            fill(before, after)
        self.own = list(zip(views[::2], views[1::2]))
        self.stores = self.stores[-1:] + self.stores[:-1]

    def copy_columns(self, old: torch.Tensor, new: torch.Tensor) -> None:
        new[:, :, : self.T] = old[:, :, : self.T]
        new[:, :, self.T :] = 0.0

    def publish(self) -> None:
        """Nothing to tell the device: the cache in pages has a table."""

    def used(self) -> str:
        return f"{len(self.rows)} prompts"

    def drop_prompts(self, prompts: list[int]) -> None:
        for p in prompts:
            del self.after[p]

    def write_prompts(self, prompts, lengths: list[int], keys_values, logits) -> None:
        """Add rows for these prompts; rows that nobody needs any more go.

        keys_values: per layer (N, n_kv_heads, head_dim) twice; logits: after each prompt, (V,).
        """
        needed = []
        for row, p in enumerate(self.rows):
            if p in self.after or p in self.prompt_of:
                needed.append(row)
        self.rows = [self.rows[row] for row in needed] + prompts
        self.lengths = torch.cat((self.lengths[needed], torch.tensor(lengths, device=self.device)))
        width = int(self.lengths.max())

        def join(old, new):  # -> (R, n_kv_heads, width, head_dim)
            new = pad_sequence(new.split(lengths), batch_first=True).transpose(1, 2)
            kept = pad_columns(old[needed, :, :width], width)
            return torch.cat((kept, pad_columns(new.to(old.dtype), width)))

        of_layers = []
        for (old_k, old_v), (k, v) in zip(self.prompts, keys_values):
            of_layers.append((join(old_k, k), join(old_v, v)))
        self.prompts = of_layers
        self.after.update(zip(prompts, logits))

    def begin(self, slots: torch.Tensor) -> None:
        """New rollouts in these slots: nothing of the last ones is left."""
        for keys, values in self.own:
            keys[slots] = 0.0
            values[slots] = 0.0
        self.arrange()

    def move_to_front(self, slots: np.ndarray, width: int) -> None:
        """These slots become the first; the others are dropped."""
        index = torch.from_numpy(slots).to(self.device)

        def fill(old, new):
            torch.index_select(old, 0, index, out=new[: len(slots)])
            new[len(slots) :] = 0.0

        self.lay_out(width, self.own[0][0].shape[2], fill)
        self.prompt_of = self.prompt_of[slots]
        self.arrange()

    def arrange(self) -> None:
        """Lay the slots out by prompt, G places in a row.

        `to_prompts` says which (slot, head) stands at each (row, head, place), `to_slots` the way
        back. Both index flattened tensors.
        """
        row_of = {p: row for row, p in enumerate(self.rows)}
        owner = torch.tensor([row_of.get(p, -1) for p in self.prompt_of.tolist()])  # (S,)
        owner = owner.to(self.device)
        slots = (owner >= 0).nonzero()[:, 0]
        rows, order = owner[slots].sort(stable=True)
        slots = slots[order]
        count = torch.bincount(rows, minlength=len(self.rows))  # (R,) slots of each prompt
        first = count.cumsum(0) - count
        place = torch.arange(len(rows), device=self.device) - first[rows]
        R = len(count)
        G = int(count.max())
        heads = torch.arange(self.heads, device=self.device)
        grid = torch.zeros(R, G, dtype=torch.int64, device=self.device)
        grid[rows, place] = slots
        to_prompts = grid[:, None] * len(heads) + heads[:, None]  # (R, n_kv_heads, G)
        row_of_slot = torch.zeros_like(owner)  # an empty slot looks anywhere
        place_of_slot = torch.zeros_like(owner)
        row_of_slot[slots] = rows
        place_of_slot[slots] = place
        to_slots = (row_of_slot[:, None] * len(heads) + heads) * G + place_of_slot[:, None]
        self.to_prompts = to_prompts.flatten()  # (R * n_kv_heads * G,) into S * n_kv_heads
        self.to_slots = to_slots.flatten()  # (S * n_kv_heads,) into R * n_kv_heads * G

    def attend(self, state, width: int):
        """`attend` for one new token per slot: it sees its prompt, and what the slot has so far.

        The two parts are attended to one by one. With sums of exp(score) a and b, the whole is
        a / (a + b) of the one's output and b / (a + b) of the other's, and
        a / (a + b) = sigmoid(log a - log b).
        """
        column = (state.column[:width] - 1).clamp(min=0)  # (S,) of the new token among the own ones
        device = column.device
        R = len(self.lengths)
        T = self.T
        heads = self.heads
        D = self.D
        columns = self.own[0][0].shape[2]
        slot_heads = torch.arange(width * heads, device=device).view(width, heads)
        new = (slot_heads * columns + column[:, None]).flatten()  # where the new token's rows stand
        in_prompt = torch.arange(self.prompts[0][0].shape[2], device=device)
        not_prompt = if_any(in_prompt >= self.lengths[:, None])  # (R, 1, 1, Tp)
        later = torch.arange(T, device=device) > column[:, None]
        # what a slot that has ended reads is nobody's, so its mask is left out
        not_own = if_any(later & state.alive[:width, None])  # (S, 1, 1, T)

        def attend(layer, q, k, v):  # q (S, n_heads, D); k, v (S, n_kv_heads, D)
            own_k, own_v = self.own[layer]
            if not_own is None:  # all slots are at the same column
                own_k[:, :, T - 1] = k
                own_v[:, :, T - 1] = v
            else:
                own_k.flatten(0, 2)[new] = k.flatten(0, 1).to(own_k.dtype)
                own_v.flatten(0, 2)[new] = v.flatten(0, 1).to(own_v.dtype)
            q = (q * D**-0.5).to(own_k.dtype).unflatten(1, (heads, -1))  # (S, n_kv_heads, group, D)
            group = q.shape[2]
            by_prompt = q.flatten(0, 1).index_select(0, self.to_prompts)
            by_prompt = by_prompt.view(R, heads, -1, D)  # (R, n_kv_heads, G * group, D)
            of_prompt, log_a = attend_part(by_prompt, *self.prompts[layer], not_prompt)
            of_own, log_b = attend_part(q, own_k[:, :, :T], own_v[:, :, :T], not_own)

            def by_slot(x):  # (R, n_kv_heads, G * group, .) -> (S, n_kv_heads, group, .)
                x = x.view(-1, group, x.shape[-1]).index_select(0, self.to_slots)
                return x.view(width, heads, group, -1)

            share = (by_slot(log_a) - log_b).sigmoid().to(of_own.dtype)
            return of_own.lerp(by_slot(of_prompt), share).flatten(1, 2)  # (S, n_heads, D)

        return attend


def attend_part(q, k, v, unseen):
    """(rows, n_kv_heads, queries, D) -> output, log of the sum of exp(score)."""
    scores = (q @ k.transpose(2, 3)).float()
    masked = scores if unseen is None else scores.masked_fill(unseen, float("-inf"))
    weights = masked.log_softmax(-1)
    log_sum = scores[..., :1] - weights[..., :1]  # the first token is always seen
    return weights.exp_().to(v.dtype) @ v, log_sum


def if_any(mask: torch.Tensor) -> torch.Tensor | None:
    """(rows, T) -> (rows, 1, 1, T); on a CPU None where nothing is masked."""
    if mask.is_cuda or mask.any():
        return mask[:, None, None]
    return None


def pad_columns(x: torch.Tensor, width: int) -> torch.Tensor:
    return F.pad(x, (0, 0, 0, width - x.shape[2]))
