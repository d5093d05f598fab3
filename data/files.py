"""Files that are either whole or not there."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_aside(path: str | Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write(file)` fill a temporary file, then give that file its real name in one step.

    A process that is killed in between leaves `path` as it was, never half of a file: the bytes go
    to `path.tmp`, reach the disk (fsync), and only then does a rename put them at `path`. Where
    `write` raises, the temporary file is removed and the exception goes on to the caller. The
    folder is made if it is missing.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:  # a Ctrl-C as well
        temporary.unlink(missing_ok=True)
        raise
