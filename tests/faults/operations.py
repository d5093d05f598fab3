"""What a command does to the files of a folder, one operation after the other, and a fault in one.

Opening for writing, each write, fsync, rename, removal, new folder: each is an operation with a
number. `watch` is called in the child. It notes them, and at one number it lets something happen:
the process kills itself right before, or within a write of which a part is on the disk already, or
the disk is full from there on. A kill right after an operation is the one right before the next.
So all the windows between two operations can be visited, one by one.

What is written by code that is not Python's (safetensors) is not seen here; limit_sizes reaches it.
"""

import builtins
import contextlib
import errno
import functools
import io
import os
import resource
import signal
import sys
from dataclasses import dataclass

# Python's audit event -> (the operation, the place of dir_fd among its arguments)
AUDITED = {
    "os.rename": ("rename", 2),
    "os.remove": ("remove", 1),
    "os.mkdir": ("mkdir", 2),
    "os.rmdir": ("rmdir", 1),
    "os.truncate": ("truncate", None),
}
NEEDS_SPACE = ("open", "write", "fsync", "mkdir")
FREES_SPACE = ("remove", "rmdir", "truncate")


@dataclass(frozen=True)
class Fault:
    """What happens at operation number `at`, counted from 1."""

    kind: str  # signal (before it), within (a write, SIGKILL) or full (an error)
    at: int
    number: int = signal.SIGKILL  # of the signal, or of the error
    share: float = 0.5  # of a write that still reaches the disk


class Watch:
    """Counts operations below a folder, writes them down, and lets the fault happen."""

    def __init__(self, folder: str, fault: Fault | None, note: str | None):
        self.folder = os.path.join(os.path.realpath(folder), "")
        self.fault = fault
        self.note = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if note else None
        self.count = 0
        self.full = False
        self.process = os.getpid()

    def concerns(self, path) -> bool:
        if isinstance(path, int):
            path = f"/proc/self/fd/{path}"
        with contextlib.suppress(TypeError, ValueError):
            return os.path.realpath(os.fsdecode(path)).startswith(self.folder)
        return False

    def operation(self, kind: str, path) -> bool:
        """Count one -> whether a fault is due that only the caller can make: part of a write."""
        if os.getpid() != self.process or not self.concerns(path):
            return False
        self.count += 1
        if self.note is not None:
            os.write(self.note, f"{kind} {path}\n".encode())
        fault = self.fault
        if fault is None:
            return False
        if fault.kind == "full":
            return self.no_space(kind, path)
        if self.count != fault.at:
            return False
        if fault.kind == "within" and kind == "write":
            return True
        os.kill(os.getpid(), fault.number)  # a Python handler runs at the next instruction
        return False

    def no_space(self, kind: str, path) -> bool:
        """From the fault on all that needs space fails, until something is removed."""
        if self.count == self.fault.at:
            self.full = True
        if kind in FREES_SPACE and self.count > self.fault.at:
            self.full = False
        if not self.full or kind not in NEEDS_SPACE:
            return False
        if kind == "write":
            return True
        error = OSError(self.fault.number, os.strerror(self.fault.number))
        if kind != "fsync":  # as the system says it: only these know a name
            error.filename = os.fspath(path)
        raise error

    def part_of_write(self, file: "WatchedFile", data) -> None:
        """Write a part, and then be killed, or say that the disk is full."""
        part = bytes(data)[: int(len(data) * self.fault.share)]
        if self.count == self.fault.at:
            io.FileIO.write(file, part)
        if self.fault.kind == "within":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(self.fault.number, os.strerror(self.fault.number))


class WatchedFile(io.FileIO):
    """An unbuffered file whose writes are operations."""

    watch: Watch

    def write(self, data):
        if self.watch.operation("write", self.name):
            self.watch.part_of_write(self, memoryview(data).cast("B"))
        return super().write(data)

    def truncate(self, size=None):
        self.watch.operation("truncate", self.name)
        return super().truncate(size)


watching_now: list[Watch] = []  # of this process: one or none


def continue_here() -> None:
    """In a fork of the process that is watched: it is this one now."""
    for watching in watching_now:
        watching.process = os.getpid()


def watch(folder: str, fault: Fault | None = None, note: str | None = None) -> None:
    """Watch this process from now on. note: a file that gets a line for each operation."""
    watching = Watch(folder, fault, note)
    watching_now.append(watching)
    plain_open = io.open

    @functools.wraps(plain_open)
    def watched_open(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, **how):
        writes = any(letter in mode for letter in "wax+")
        if not writes or isinstance(file, int) or not watching.concerns(file):
            return plain_open(file, mode, buffering, encoding, errors, newline, **how)
        raw = WatchedFile(file, mode.replace("b", "").replace("t", ""), **how)
        raw.watch = watching
        return dressed(raw, mode, buffering, encoding, errors, newline)

    io.open = watched_open
    builtins.open = watched_open
    plain_fsync = os.fsync

    def watched_fsync(fd):
        number = fd if isinstance(fd, int) else fd.fileno()
        watching.operation("fsync", number)
        return plain_fsync(fd)

    os.fsync = watched_fsync

    def audit(event: str, args: tuple) -> None:
        if event == "open":
            path, _, flags = args
            if not isinstance(path, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                watching.operation("open", path)
        elif event in AUDITED:
            kind, place = AUDITED[event]
            path = args[0]
            folder = -1 if place is None else args[place]
            if folder != -1 and isinstance(path, (str, bytes)):
                path = os.path.join(f"/proc/self/fd/{folder}", os.fsdecode(path))
            watching.operation(kind, path)

    sys.addaudithook(audit)


def dressed(raw: WatchedFile, mode: str, buffering: int, encoding, errors, newline):
    """The raw file as open() gives it: buffered, and as text where the mode says so."""
    if buffering == 0:
        return raw
    size = buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE
    buffered = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw, size)
    if "b" in mode:
        return buffered
    text = io.TextIOWrapper(buffered, encoding, errors, newline, line_buffering=buffering == 1)
    text.mode = mode
    return text


def limit_sizes(n_bytes: int, kill: bool) -> None:
    """No file of this process may grow beyond so many bytes, whoever writes it.

    The write that would do so writes what still fits. Then it fails (EFBIG), or kills the process.
    """
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL if kill else signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))


ERRORS_OF_A_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
