"""Work for several processes, with one progress bar, that ends when the command ends."""

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from tqdm import tqdm

from data import UserError
from data.files import file_errors

SHARED_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir()
SPAWN = multiprocessing.get_context("spawn")  # a fork of a process with threads or a GPU may hang


@contextmanager
def worker_pool(workers: int, counters) -> Iterator[Callable[..., Future]]:
    """submit(function, *args) -> a future.

    One worker is this process itself; more are processes of their own, which end when this one
    does. `counters` are those of `progress`.
    """
    share(counters)
    if workers == 1:
        yield do_at_once
        return

    def submit(*args) -> Future:
        # A worker that starts here inherits the mask, so that Ctrl-C reaches the parent alone.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return executor.submit(*args)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    executor = ProcessPoolExecutor(workers, SPAWN, start_worker, (counters,))
    try:
        yield submit
    except BrokenProcessPool:
        raise UserError(
            "a worker was killed, perhaps for want of memory; "
            "run the same command again, with fewer --workers"
        ) from None
    finally:
        for process in multiprocessing.active_children():
            process.terminate()
        executor.shutdown(cancel_futures=True)


def do_at_once(function: Callable, *args) -> Future:
    future = Future()
    future.set_result(function(*args))
    return future


def start_worker(counters) -> None:
    threading.Thread(target=end_with_parent, daemon=True).start()
    share(counters)


def end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


# --- progress -------------------------------------------------------------------------------------

shared = None  # [bytes read, tokens made] by all workers; each process sets it once


def share(counters) -> None:
    global shared
    shared = counters


def note_progress(n_bytes: int = 0, n_tokens: int = 0) -> None:
    """Add to the counters of all workers."""
    with shared.get_lock():
        shared[0] += n_bytes
        shared[1] += n_tokens


class OwnCounters(list):
    """The counters where this process is the only one, with the methods of shared ones."""

    def __init__(self):
        super().__init__([0, 0])
        self.lock = threading.Lock()

    def get_lock(self):
        return self.lock

    def get_obj(self):
        return self


def new_counters(workers: int):
    if workers == 1:
        return OwnCounters()
    with file_errors("write", SHARED_MEMORY):  # a file of a few bytes
        return SPAWN.Array("q", 2)


@contextmanager
def progress(expected_bytes: Callable[[], float], workers: int):
    """The counters of all workers, and a bar over the bytes up to expected_bytes().

    A thread draws it, since the work may be done in this process.
    """
    counters = new_counters(workers)
    end = threading.Event()
    seconds = 0.5 if sys.stderr.isatty() else 30  # between two lines; a log file gets few
    bar = tqdm(desc="prepare", unit="B", unit_scale=True, delay=2, mininterval=seconds)

    def draw() -> None:
        while not end.wait(0.5):
            read, tokens = counters.get_obj()
            bar.total = max(read, int(expected_bytes()))
            bytes_per_second = bar.format_dict["rate"] or 0
            tokens_per_second = bytes_per_second * tokens / max(read, 1)
            bar.set_postfix_str(f"{tokens:,} tokens, {tokens_per_second:,.0f}/s", refresh=False)
            bar.update(read - bar.n)

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        yield counters
    finally:
        end.set()
        thread.join()
        bar.close()
