"""Which rollout is in which slot: the host's side of fast/sampling.py, in plain numbers.

Rollouts are admitted as far as the cache has room. When pages run out, the youngest are evicted and
restart later, to the same tokens. S slots; a rollout's "own" tokens are its response.
"""

from collections import Counter, deque

import numpy as np


class Schedule:
    """Which rollout is in which slot. The prompt of rollout r is r // n."""

    def __init__(self, prompts: list[list[int]], n: int, budget: np.ndarray, slots: int, cache):
        self.prompts = prompts
        self.n = n
        self.budget = budget
        self.cache = cache
        self.waiting = deque(range(len(budget)))  # rollouts without a slot
        self.to_come = Counter(
            {p: n for p in range(len(prompts))}
        )  # rollouts of a prompt that wait
        self.rollout = np.full(slots, -1)  # (S,) the rollout in each slot; -1: empty
        self.age = np.zeros(
            slots, np.int64
        )  # (S,) tokens it has, or would have if it had not ended
        self.arrival = np.zeros(slots, np.int64)  # (S,) its number in the order of admission
        self.arrivals = 0

    def live(self) -> np.ndarray:
        """The slots in use, the oldest rollout first."""
        live = np.flatnonzero(self.rollout >= 0)
        return live[np.argsort(self.arrival[live])]

    def admit(self) -> tuple[list[int], list[int]]:
        """Give empty slots to waiting rollouts, as far as the cache has room.

        -> the slots, and the prompts that must be read first.
        """
        empty = np.flatnonzero(self.rollout < 0)
        n_live = len(self.rollout) - len(empty)
        at_least = max(1, len(self.rollout) // 16)  # a few at a time: prompts are read in batches
        if len(empty) < min(len(self.waiting), at_least):
            return [], []
        slots = []
        new = []
        for slot in empty[: len(self.waiting)].tolist():
            r = self.waiting[0]
            p = r // self.n
            length = len(self.prompts[p])
            if not slots and not n_live and not self.cache.has_room(p, length):
                # these are prompts of rollouts that were sent back: they will be read again
                self.cache.drop_prompts(list(self.cache.after))
            # each of the others needs a page to continue
            if not self.cache.has_room(p, length, spare=n_live + len(slots)):
                break
            if p not in self.cache.after and p not in new:
                new.append(p)
            self.cache.open(slot, p, length)
            self.waiting.popleft()
            self.to_come[p] -= 1
            self.rollout[slot] = r
            self.age[slot] = 1
            self.arrival[slot] = self.arrivals
            self.arrivals += 1
            slots.append(slot)
        return slots, new

    def make_room(self, steps: int) -> list[int]:
        """See that every live rollout can decode for `steps` -> the slots emptied for that.

        When pages run out, the youngest rollouts are evicted and wait again. They restart later and
        draw the same tokens, since draws are keyed. The oldest always continues, so this ends.
        """
        emptied = []
        live = self.live()
        while len(live):
            own = np.minimum(self.age[live] - 1 + steps, self.budget[self.rollout[live]])
            if self.cache.reserve(live, own):
                break
            if len(live) == 1 and self.cache.after:
                self.cache.drop_prompts(list(self.cache.after))  # they will be read again
                continue
            slot = int(live[-1])
            r = int(self.rollout[slot])
            self.waiting.appendleft(r)
            self.to_come[r // self.n] += 1
            self.vacate([slot])
            emptied.append(slot)
            live = self.live()
        return emptied

    def vacate(self, slots) -> None:
        for slot in slots:
            self.cache.close(slot)
        self.rollout[slots] = -1

    def move_to_front(self, slots: np.ndarray, width: int) -> None:
        """These slots become the first, and all slots from `width` on are forgotten."""
        nothing = np.full(width - len(slots), -1)
        self.rollout = np.concatenate((self.rollout[slots], nothing))
        self.age = np.concatenate((self.age[slots], nothing))
        self.arrival = np.concatenate((self.arrival[slots], nothing))
