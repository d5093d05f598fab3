"""Files that are either whole or not there, and one line for what a disk refuses to do."""

import contextlib
import errno
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from data import UserError
from data.jsonl import parse

ROOM = "make room and repeat the command"
PERMISSION = "change its permissions or give another path"
ANOTHER = "give another path"
OPEN_FILES = "raise the limit on open files (ulimit -n) and repeat the command"
ADVICE = {
    errno.ENOSPC: ROOM,
    errno.EDQUOT: ROOM,
    errno.EFBIG: "raise the limit on the size of files (ulimit -f) and repeat the command",
    errno.EIO: "check the disk and repeat the command",
    errno.EACCES: PERMISSION,
    errno.EPERM: PERMISSION,
    errno.EROFS: ANOTHER,
    errno.EISDIR: ANOTHER,
    errno.ENOTDIR: ANOTHER,
    errno.EEXIST: ANOTHER,
    errno.ENOTEMPTY: ANOTHER,
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EMFILE: OPEN_FILES,
    errno.ENFILE: OPEN_FILES,
    errno.ENOMEM: "free memory or use a machine with more",
}
OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
JSON_BYTES = 2**29  # no JSON file that is read as a whole is nearly so large


def only_print() -> None:
    """From here on the command only prints: it ends without a word where a reader has enough, as
    `head` has. (A command that trains must not end so.)"""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)


class FileError(OSError):
    """An OSError whose message is one line: the file, what failed, and what to do."""


def file_error(verb: str, path: str | Path, error: OSError) -> FileError:
    """`verb` is "read" or "write"; the error is the system's."""
    if isinstance(error, FileError):
        return error
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in OF_THE_DISK:
        reason += f" (its disk has {free_bytes(path) / 1e9:.1f} GB free)"
    advice = ADVICE.get(error.errno)
    message = f"cannot {verb} {path}: {reason}" + (f"; {advice}" if advice else "")
    named = FileError(message)
    named.errno = error.errno
    return named


def free_bytes(path: str | Path) -> int:
    """What is free on the disk where the file is, or would be."""
    for folder in Path(os.path.abspath(path)).parents:
        with contextlib.suppress(OSError):
            return shutil.disk_usage(folder).free
    return 0


@contextlib.contextmanager
def file_errors(verb: str, path: str | Path) -> Iterator[None]:
    """Within it an OSError is about this file, and becomes one line (file_error)."""
    try:
        yield
    except OSError as error:
        raise file_error(verb, path, error) from error


# --- writing --------------------------------------------------------------------------------------


class CheckedFile:
    """A file that remembers the first error of the disk, or a Ctrl-C while it was written to.

    Libraries that are given it (torch.save) may end in an exception of their own instead.
    """

    def __init__(self, file):
        self.file = file
        self.name = file.name
        self.error = None

    def keep_error(self, call: Callable, *args):
        try:
            return call(*args)
        except BaseException as error:
            self.error = self.error or error
            raise

    def write(self, data) -> int:
        return self.keep_error(self.file.write, data)

    def flush(self) -> None:
        self.keep_error(self.file.flush)

    def finish(self) -> None:
        """Bring all bytes to the disk, then close the file."""
        self.flush()
        self.keep_error(os.fsync, self.file.fileno())
        self.keep_error(self.file.close)

    def discard(self) -> None:
        with contextlib.suppress(OSError):  # what is still in the buffer cannot be written either
            self.file.close()


def write_aside(path: str | Path, write: Callable[[CheckedFile], object]) -> None:
    """Let `write(file)` fill a temporary file, then give that file its real name in one step.

    A process that is killed in between leaves `path` as it was, never half of a file: the bytes go
    to `path.tmp`, reach the disk (fsync), and only then does a rename put them at `path`. Where
    `write` raises, the temporary file is removed and the exception goes on to the caller. The
    folder is made if it is missing. What the disk refuses is an OSError of one line (file_error).
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.tmp")
    with file_errors("write", path):
        if not path.parent.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
        file = CheckedFile(open(temporary, "wb"))
    try:
        write(file)
        file.finish()
        with file_errors("write", path):
            os.replace(temporary, path)
    except BaseException as error:  # a Ctrl-C as well
        file.discard()
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(file.error, OSError) and isinstance(error, Exception):
            raise file_error("write", path, file.error) from error
        if isinstance(file.error, KeyboardInterrupt | SystemExit):
            raise file.error from None
        raise


def write_text(path: str | Path, text: str) -> None:
    """A text file in UTF-8, which is whole or as it was before."""
    write_aside(path, lambda file: file.write(text.encode()))


# --- reading --------------------------------------------------------------------------------------


def read_json(path: Path, missing: str, advice: str) -> dict:
    """The object in a JSON file.

    Raises FileNotFoundError that ends in `missing`, UserError that ends in `advice` where it is no
    JSON object, and OSError where it cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; {missing}")
    with file_errors("read", path):
        size = path.stat().st_size
        if size > JSON_BYTES:
            raise UserError(f"{path} has {size:,} bytes, too many for what it should be; {advice}")
        content = path.read_bytes()
    try:
        value = parse(content)
    except UserError as error:
        raise UserError(f"{path} {error}; {advice}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} is not a JSON object; {advice}")
    return value
