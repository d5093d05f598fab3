"""One command at a time for one output: a second one waits until the first has ended.

The lock of `out/4B.rl.pt` is an open file `out/.4B.rl.pt.lock`. The system drops it when the
process ends, however that comes about, so no lock outlives its command. Threads and child processes
share it.
"""

import contextlib
import errno
import fcntl
import functools
import os
import socket
from pathlib import Path

from data import UserError
from data.files import file_error

HELD = {}  # path of an output -> the open lock file, of the outputs that this process has claimed
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # a file system that has no locks


def claim(path: str | Path) -> None:
    """Wait until no other process works on this output, then keep it until `release`.

    A process that has it already goes on at once. Where it has to wait, it says for whom. Raises
    OSError, with the path, where the folder cannot be made or written.
    """
    path = Path(os.path.abspath(path))
    if str(path) in HELD:
        return
    lock_path = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        HELD[str(path)] = wait_for(lock_path, path)
    except OSError as error:
        raise file_error("write", path, error) from error


def wait_for(lock_path: Path, path: Path):
    """-> the open lock file, once it is ours."""
    told = False
    while True:
        file = open(lock_path, "a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not told:
                file.seek(0)
                holder = file.read().strip() or "another process"
                print(f"{path} is being made by {holder}; waiting for it to end", flush=True)
                told = True
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            print(f"{path.parent} knows no file locks; never start a command there twice")
        if is_at(file, lock_path):
            holder = f"process {os.getpid()} on {socket.gethostname()}"
            with contextlib.suppress(OSError):  # on a full disk the lock holds all the same
                os.ftruncate(file.fileno(), 0)
                os.write(file.fileno(), holder.encode())
            return file
        file.close()  # the one before removed its lock file: take the new one


def is_at(file, path: Path) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def release(path: str | Path) -> None:
    """Let another process have the output; nothing happens where it was not claimed."""
    path = Path(os.path.abspath(path))
    file = HELD.pop(str(path), None)
    if file is None:
        return
    with contextlib.suppress(OSError):
        path.with_name(f".{path.name}.lock").unlink()
    file.close()


def release_all() -> None:
    """At the end of a command, whatever ends it."""
    for path in list(HELD):
        release(path)


def exclusive(main):
    """Decorate a command: whatever ends it, the outputs that it has claimed are free again."""

    @functools.wraps(main)
    def alone(*args):
        try:
            return main(*args)
        finally:
            release_all()

    return alone


@contextlib.contextmanager
def claimed(path: str | Path):
    """Within it the output is this process's alone."""
    claim(path)
    try:
        yield
    finally:
        release(path)


def check_file(path: str | Path, flag: str = "--out") -> None:
    """Refuse a path that no file can be written to. Raises UserError before any work is done."""
    text = str(path)
    if text.endswith(("/", os.sep)) or os.path.isdir(text):
        raise UserError(f"{flag} {text} is a folder; give the name of a file in it")
    folder = os.path.dirname(os.path.abspath(text))
    while not os.path.exists(folder):
        folder = os.path.dirname(folder)
    if not os.path.isdir(folder):
        raise UserError(f"{flag} {text}: {folder} is a file, not a folder; give another path")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{flag} {text}: {folder} may not be written; give another path")
    if os.path.exists(text) and not os.access(text, os.W_OK):
        raise UserError(f"{flag} {text} may not be written; give another path")
