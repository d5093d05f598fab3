"""Who waits for whom: what each rank is doing, for the messages when a collective gives up.

Neither nccl nor gloo says which rank is missing. So each rank notes its phase ("step 12,
sampling"), a thread writes it where the other ranks can read it, and the error message of a rank
that has waited too long names the ranks that do something else.
"""

import atexit
import functools
import sys
import threading
import time
from dataclasses import dataclass, field

import torch.distributed as dist


@dataclass
class Doing:
    """What this process does now, and where it reads what the others do."""

    phase: str = "start"
    since: float = field(default_factory=time.time)  # when the phase began, in seconds
    waiting: int = 0  # collectives that this rank is in
    store: dist.Store | None = None  # rank -> its status; None with one process
    rank: int = 0
    world: int = 1


DOING = Doing()


def phase(text: str) -> None:
    """Note what comes now, such as "step 12, sampling"."""
    DOING.phase = text
    DOING.since = time.time()


def status() -> str:
    """What this rank does, for a message."""
    return DOING.phase + (", waiting for other ranks" if DOING.waiting else "")


def waits(function):
    """Decorate a function in which every rank waits for all the others."""

    @functools.wraps(function)
    def marked(*args):
        DOING.waiting += 1
        result = function(*args)
        DOING.waiting -= 1  # where the function raises, the mark stays: the message shall say so
        return result

    return marked


def watch(store: dist.Store, rank: int, world: int, timeout: int) -> None:
    """Start the thread that reports this rank to the others, and long waits to standard error.

    `timeout`: the seconds after which a collective gives up.
    """
    DOING.store = store
    DOING.rank = rank
    DOING.world = world
    ends = threading.Event()
    thread = threading.Thread(target=keep_reporting, args=(timeout, ends), daemon=True)
    thread.start()
    atexit.register(stop, thread, ends)


def stop(thread: threading.Thread, ends: threading.Event, patience: float = 10.0) -> None:
    """End the thread before Python does: for at most so many seconds.

    A thread that comes back from the store (C++) while Python ends would abort the process, and a
    run whose work is done would be told as failed.
    """
    ends.set()
    thread.join(patience)


def keep_reporting(timeout: int, ends: threading.Event) -> None:
    reported = None  # the phase that standard error has heard of
    while dist.is_initialized() and not ends.is_set():
        phase_now = DOING.phase
        age = time.time() - DOING.since
        try:
            DOING.store.set(str(DOING.rank), status())
        except RuntimeError:  # the store went down with its node
            return
        if age > 0.7 * timeout and reported != phase_now:
            reported = phase_now
            print(
                f"rank {DOING.rank} has been in {status()!r} for {age:.0f} s{elsewhere()}; "
                f"ranks wait {timeout} s for each other (DIST_TIMEOUT)",
                file=sys.stderr,
                flush=True,
            )
        ends.wait(min(5, timeout / 20))


def elsewhere(most: int = 8) -> str:
    """The other ranks that do something else than this one, at most so many of them, as text."""
    text = ""
    named = 0
    for other in range(DOING.world):
        try:
            known = DOING.store.check([str(other)])
            doing = DOING.store.get(str(other)).decode() if known else "start"
        except RuntimeError:
            return ""
        if other != DOING.rank and doing != status() and named < most:
            text += f", rank {other} is in {doing!r}"
            named += 1
    return text


def leaves_first() -> bool:
    """Whether this rank is the first that ends because of a user's error."""
    try:
        return DOING.store.add("left", 1) == 1
    except RuntimeError:  # the store went down with its node
        return True


def has_left(patience: float = 3.0) -> bool:
    """Whether another rank has ended because of a user's error, within so many seconds."""
    if DOING.store is None:
        return False
    end = time.monotonic() + patience
    while time.monotonic() < end:
        try:
            if DOING.store.check(["left"]):
                return True
        except RuntimeError:
            return False
        time.sleep(0.1)
    return False
