"""Keys and values on a GPU, where memory is what decides: in pages of 16 tokens.

Memory holds what is alive: whole pages of a prompt are shared by its rollouts, and the last,
partial one is copied for each. A Triton kernel (paged_kernel.py) attends over the pages.
It decides how many rollouts a GPU decodes at a time. On an H100, for 256 rollouts of a 1B model
with some 100 tokens each, the kernel takes 34 % of a decode step, at 2.9 TB/s of 3.0
(results/gpu).

S slots, P pages; a slot's "own" tokens are its response. The methods are those of shared_cache.py.
"""

import importlib

import numpy as np
import torch

from data import UserError
from plumbing.compilers import triton_lacks
from plumbing.transfer import send

PAGE = 16  # tokens; on average half a page of each rollout stays empty


class PagedCache:
    """Keys and values in pages, (pages, n_kv_heads, PAGE, head_dim) per layer.

    A table (S, limit) says which page holds which stretch of a slot's tokens. Page 0 is where empty
    slots read and write.
    """

    def __init__(self, config, slots: int, pages: int | None, memory: float, device, dtype):
        limit = pages_for(config.max_seq_len)  # pages of the longest sequence
        if pages is None:
            token_width = config.n_layers * config.n_kv_heads * config.head_dim
            page_bytes = 2 * PAGE * token_width * torch.finfo(dtype).bits // 8
            free = 2**32
            if device.type == "cuda":
                unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
                free = torch.cuda.mem_get_info(device)[0] + unused
            most = slots * (limit + 1) + 1  # what all slots can fill
            pages = min(most, int(memory * free / page_bytes))
        shape = (pages, config.n_kv_heads, PAGE, config.head_dim)
        layers = range(config.n_layers)
        self.keys = [torch.zeros(shape, device=device, dtype=dtype) for _ in layers]
        self.values = [torch.zeros(shape, device=device, dtype=dtype) for _ in layers]
        self.table = torch.zeros(slots, limit, dtype=torch.int32, device=device)
        pinned = device.type == "cuda"
        # The host's table. numpy writes an entry of it in 0.1 us, and torch a row in 20.
        self.new_table = torch.zeros(slots, limit, dtype=torch.int32, pin_memory=pinned)
        self.entries = self.new_table.numpy()
        self.attention = attention_over_pages(device)

    def clear(self, slots: int, longest: int) -> None:
        """All pages free. UserError where one rollout of `longest` tokens may not fit."""
        pages = len(self.keys[0])
        needed = longest // PAGE + 4  # with the pages that it fills in part, and page 0
        if pages < needed:
            raise UserError(
                f"{pages} pages of {PAGE} tokens cannot hold a rollout of {longest} tokens, which "
                f"may take {needed}; give the sampler more memory, or fewer tokens per rollout"
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
        of_prompt = 0 if p in self.of_prompt else pages_for(length)
        return len(self.free) >= spare + 1 + of_prompt

    def open(self, slot: int, p: int, length: int) -> None:
        """The slot begins with prompt p: whole pages are shared, the rest is copied by `begin`."""
        if p not in self.of_prompt:
            self.of_prompt[p] = [self.get() for _ in range(pages_for(length))]
        shared = self.of_prompt[p][: length // PAGE]
        own = self.get()
        self.users[shared] += 1
        if length % PAGE:
            self.copies.append((self.of_prompt[p][-1], own))
        self.prompt_length[slot] = length
        self.set_pages(slot, [*shared, own])

    def set_pages(self, slot: int, pages: list[int]) -> None:
        self.entries[slot] = 0
        self.entries[slot, : len(pages)] = pages
        self.of_slot[slot] = pages
        self.count[slot] = len(pages)

    def add_pages(self, slot: int, more: int) -> None:
        for _ in range(more):
            page = self.get()
            self.entries[slot, self.count[slot]] = page
            self.of_slot[slot].append(page)
            self.count[slot] += 1

    def close(self, slot: int) -> None:
        self.release(self.of_slot[slot])
        self.set_pages(slot, [])

    def drop_prompts(self, prompts: list[int]) -> None:
        for p in prompts:
            self.release(self.of_prompt.pop(p))
            del self.after[p]

    def reserve(self, slots: np.ndarray, own: np.ndarray) -> bool:
        """Pages for `own` tokens in each of the slots, in this order; False if they run out."""
        needed = pages_for(self.prompt_length[slots] + own)  # (slots,)
        for slot, more in zip(slots.tolist(), (needed - self.count[slots]).tolist()):
            if more > len(self.free):
                return False
            self.add_pages(slot, more)
        return True

    def publish(self) -> None:
        self.table.copy_(self.new_table, non_blocking=True)

    def used(self) -> str:
        pages = len(self.users) - 1  # page 0 belongs to nobody
        return f"{1 - len(self.free) / pages:.0%} of {pages} pages"

    def write_prompts(self, prompts, lengths: list[int], keys_values, logits) -> None:
        """Fill the pages of prompts; keys_values: per layer (N, n_kv_heads, head_dim) twice."""
        places = []  # page and offset of each of the N tokens
        for p, length in zip(prompts, lengths):
            for i in range(length):
                places.append((self.of_prompt[p][i // PAGE], i % PAGE))
        page, offset = send(places, self.table.device).T  # (N,) each
        for layer, (k, v) in enumerate(keys_values):
            self.keys[layer][page, :, offset] = k.to(self.keys[layer].dtype)
            self.values[layer][page, :, offset] = v.to(self.values[layer].dtype)
        self.after.update(zip(prompts, logits))

    def begin(self, slots: torch.Tensor) -> None:
        if self.copies:
            source, target = send(self.copies, self.table.device).T
            for x in (*self.keys, *self.values):
                x[target] = x[source]
            self.copies = []

    def move_to_front(self, slots: np.ndarray, width: int) -> None:
        """These slots become the first; all others are closed already."""
        first = slots.tolist()
        order = first + sorted(set(range(len(self.of_slot))) - set(first))
        self.of_slot = [self.of_slot[i] for i in order]
        self.count = self.count[order]
        self.prompt_length = self.prompt_length[order]
        self.entries[:] = self.entries[order]

    def attend(self, state, width: int):
        """`attend` for one new token per slot, at position `length`: it is stored, then attends."""
        length = state.length[:width]  # (S,)
        table = self.table[:width]  # (S, limit)
        page = table.gather(1, (length // PAGE)[:, None])[:, 0].long()  # (S,)
        offset = length % PAGE  # (S,)
        lengths = length + 1  # (S,) with the new token

        def attend(layer, q, k, v):  # q (S, n_heads, head_dim); k, v (S, n_kv_heads, head_dim)
            keys = self.keys[layer]
            values = self.values[layer]
            keys[page, :, offset] = k.to(keys.dtype)
            values[page, :, offset] = v.to(values.dtype)
            return self.attention(q.to(keys.dtype), keys, values, table, lengths)

        return attend


def pages_for(length):
    """How many pages hold so many tokens; a number or an array."""
    return -(-length // PAGE)


def has_kernel(device) -> bool:
    """Whether the kernel can be built here; only with it is a decode step a CUDA graph."""
    return device.type == "cuda" and not triton_lacks()


def attention_over_pages(device):
    """The kernel where there is one, elsewhere its plain form."""
    if has_kernel(device):
        return importlib.import_module("fast.paged_kernel").paged_attention  # with it comes Triton
    return gathered_attention


def gathered_attention(q, keys, values, table, lengths):
    """q (S, n_heads, head_dim) over the first lengths (S,) tokens of each slot's pages -> like q.

    This is the plain form of the kernel in paged_kernel.py.
    """
    n_pages = pages_for(int(lengths.max()))
    T = n_pages * PAGE

    def rows(x):  # -> (S, n_kv_heads, T, head_dim)
        return x[table[:, :n_pages].long()].transpose(1, 2).flatten(2, 3)

    unseen = torch.arange(T, device=q.device) >= lengths[:, None]
    unseen = unseen[:, None, :, None]  # (S, 1, T, 1)
    q = q.unflatten(1, (keys.shape[1], -1)) * q.shape[-1] ** -0.5  # (S, n_kv_heads, group, ...)
    scores = (q @ rows(keys).transpose(2, 3)).float()
    scores = scores.masked_fill(unseen.transpose(2, 3), float("-inf"))  # (S, n_kv_heads, group, T)
    weights = scores.softmax(-1).to(q.dtype)
    return (weights @ rows(values).masked_fill(unseen, 0)).flatten(1, 2)
