"""What torchrun does, without its imports: the ranks of a command, which end together."""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable

from tests.faults import operations

GRACE = 5.0  # seconds that the others have to end, after one has failed


def run(n: int, command: Callable[[], int]) -> int:
    """Call command() in n forks -> the exit status of the first rank that failed, or 0."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # the ranks get them too; this waits for their end
    port = free_port()
    living = {start(i, n, port, command) for i in range(n)}
    failed = 0
    until = float("inf")
    while living:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid in living:
            living.remove(pid)
            code = os.waitstatus_to_exitcode(status)
            if code and not failed:
                failed = code if code > 0 else 128 - code
                until = time.monotonic() + GRACE
                signal_all(living, signal.SIGTERM)
        elif time.monotonic() > until:
            signal_all(living, signal.SIGKILL)
        else:
            time.sleep(0.002)
    return failed


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def signal_all(pids: set[int], number: int) -> None:
    for pid in pids:
        os.kill(pid, number)


def start(rank: int, n: int, port: int, command: Callable[[], int]) -> int:
    """-> the process that is this rank. Faults come at the operations of rank 0."""
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(n)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        if rank == 0:
            operations.continue_here()
        status = command()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status & 0xFF)
