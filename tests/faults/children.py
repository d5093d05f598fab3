"""One command, in a child of this process: started in no time, watched, and ended on time.

A command of this project takes three seconds to import torch. The program imports everything once
and forks: the child sets sys.argv and runs the script's file as its main program, so that what runs
is the command as typed, with the lines under its main guard. It has a process group, a limit of
memory and a limit of time of its own.
"""

import atexit
import contextlib
import fcntl
import functools
import multiprocessing.util
import os
import resource
import select
import shutil
import signal
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.faults import ranks

ROOT = Path(__file__).resolve().parents[2]
MEMORY = 4 * 2**30  # bytes that a child may add to what this process has
SECONDS = 60.0  # after which a command counts as hanging
SETTLE = 5.0  # seconds in which what a killed command has started has to end
PIPE_BYTES = 2**20


def own_folder(scratch: Path, empty: bool = True) -> Path:
    """The folder of whatever this process tries next; what the last trial has left is removed.

    It has the same name each time: results may hold the path, or a hash of it.
    """
    folder = scratch / f"own-{os.getpid()}"
    if empty:
        shutil.rmtree(folder, ignore_errors=True)
        transcript.clear()
    return folder


transcript: list[str] = []  # of the commands since then: what they said, and how they ended


class Broken(Exception):
    """A command does not work, or not twice in the same way, though nothing is wrong with its files."""


@dataclass
class Outcome:
    """How a command ended."""

    argv: list[str]
    status: int | None  # exit status; -9 for SIGKILL; None where it hung and was ended
    stdout: str
    stderr: str
    seconds: float

    @property
    def hung(self) -> bool:
        return self.status is None

    @property
    def traceback(self) -> bool:
        """Whether it ended in a traceback, or in a signal that it gave itself, as a segfault."""
        crashes = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)
        crashed = self.status is not None and -self.status in crashes
        return crashed or "Traceback (most recent call last)" in self.stderr

    @property
    def lines(self) -> list[str]:
        """What it said on standard error, without progress bars and blank lines."""
        text = self.stderr.replace("\r", "\n")
        return [line for line in text.splitlines() if line.strip() and "B/s]" not in line]

    def end(self) -> str:
        """The last line that it said, for a table."""
        if self.hung:
            return f"still running after {self.seconds:.0f} s"
        said = self.lines or self.stdout.strip().splitlines() or ["(nothing)"]
        return f"status {self.status}: {said[-1]}"


class Running:
    """A command that has been started and not been waited for."""

    def __init__(
        self,
        argv: list[str],
        before: Callable[[], None] | None = None,
        memory: int = MEMORY,
        environment: dict | None = None,
    ):
        """`before()` is called in the child, before the command: it may install faults."""
        self.argv = [str(word) for word in argv]
        self.since = time.monotonic()
        self.text = {}  # the end of a pipe that we read -> the bytes that came through it
        pipes = [os.pipe(), os.pipe()]
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            be_the_child(self.argv, pipes, before, memory, environment or {})
        with contextlib.suppress(OSError):  # the child does the same; one of both is first
            os.setpgid(self.pid, self.pid)
        for ours, of_child in pipes:
            os.close(of_child)
            os.set_blocking(ours, False)
            self.text[ours] = b""
        self.open = set(self.text)
        self.status = None

    def signal(self, number: int) -> None:
        """Send a signal to the command and to all that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def signal_alone(self, number: int) -> None:
        """Send a signal to the command, and not to what it has started."""
        if self.status is None:
            os.kill(self.pid, number)

    def age(self) -> float:
        return time.monotonic() - self.since

    def poll(self, seconds: float = 0.0) -> bool:
        """Read what it says for at most so long -> whether it has ended."""
        if self.status is not None:
            return True
        if self.open:
            ready, _, _ = select.select(list(self.open), [], [], seconds)
            for pipe in ready:
                self.read(pipe)
        elif seconds:
            time.sleep(min(seconds, 0.001))
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0:
            return False
        self.status = os.waitstatus_to_exitcode(status)
        return True

    def read(self, pipe: int) -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(pipe, PIPE_BYTES)
            if data:
                self.text[pipe] += data
            else:
                self.open.discard(pipe)

    def wait(self, seconds: float = SECONDS, spare: bool = False) -> Outcome:
        """Wait until it ends; end it after so many seconds since its start.

        spare: what it has started may live on when it has ended.
        """
        hung = False
        while not self.poll(0.05):
            if self.age() > seconds:
                hung = True
                break
        took = self.age()
        if hung:
            self.signal(signal.SIGKILL)
            while not self.poll(0.05):
                pass
        self.drain(hung, spare)
        stdout, stderr = (text.decode(errors="replace") for text in self.text.values())
        status = None if hung else self.status
        transcript.append(f"$ {' '.join(self.argv)}\n{stdout}{stderr}[status {status}]\n")
        return Outcome(self.argv, status, stdout, stderr, took)

    def drain(self, hung: bool, spare: bool) -> None:
        """Read the rest, which ends when the last process that holds the pipes has ended."""
        until = time.monotonic() + (0.0 if hung or spare else SETTLE)
        while self.open and time.monotonic() < until:
            ready, _, _ = select.select(list(self.open), [], [], 0.05)
            for pipe in ready:
                self.read(pipe)
        if not spare:
            self.signal(signal.SIGKILL)  # what outlives its command would disturb the next one
        for pipe in self.text:
            os.close(pipe)


def run(argv: list[str], seconds: float = SECONDS, **how) -> Outcome:
    """Run a command to its end. how: before, memory, environment, as for Running."""
    return Running(argv, **how).wait(seconds)


# ------------------------------------------------------------------------------ in the child


def be_the_child(argv, pipes, before, memory, environment) -> None:
    """Become the command. Nothing of the parent is ended or cleaned up: this never returns."""
    status = 70
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # until there is a command to interrupt
    try:
        os.setpgid(0, 0)
        atexit._clear()  # the parent's
        atexit.register(multiprocessing.util._exit_function)
        for (ours, of_child), fd in zip(pipes, (1, 2)):
            fcntl.fcntl(of_child, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            os.dup2(of_child, fd)
            os.close(ours)
            os.close(of_child)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if memory:
            limit = size_of_this_process() + memory
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        os.environ.update(environment)
        if before:
            before()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        status = status_of(argv)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def size_of_this_process() -> int:
    """Bytes of its address space."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def status_of(argv: list[str]) -> int:
    """Run the command, then end as the interpreter does -> its exit status."""
    try:
        status = status_of_main(argv)
        threading._shutdown()  # the interpreter waits for threads, and so a thread can hang it
        atexit._run_exitfuncs()
        return status
    except KeyboardInterrupt:
        traceback.print_exc()
        return 130


def status_of_main(argv: list[str]) -> int:
    try:
        main_program(argv)
    except SystemExit as exit:
        if exit.code is None or isinstance(exit.code, int):
            return (exit.code or 0) & 0xFF
        print(exit.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main_program(argv: list[str]) -> None:
    """Run `grpo.py ...` or `-m tools.difficulty ...` as the interpreter would.

    `torchrun 2 grpo.py ...` runs two ranks of it.
    """
    words = list(argv)
    name = words.pop(0)
    if name == "torchrun":
        sys.exit(ranks.run(int(words.pop(0)), functools.partial(status_of, words)))
    if name == "-m":
        name = words.pop(0).replace(".", "/") + ".py"
    main = types.ModuleType("__main__")
    main.__file__ = str(ROOT / name)
    sys.modules["__main__"] = main
    sys.argv = [main.__file__, *words]
    exec(code_of(name), main.__dict__)


@functools.cache
def code_of(name: str):
    """A script's code. The parent reads all of them at its start, so that all children run one."""
    path = ROOT / name
    return compile(path.read_bytes(), str(path), "exec")
