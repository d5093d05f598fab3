"""JSON lines that are appended and survive a kill. Needs no torch."""

import contextlib
import fcntl
import json
import os

from data import UserError
from data.files import FileError, file_errors
from data.jsonl import parse

MEND = "delete that line and make again what it held"


def read_rows(path: str, mend: str = MEND) -> list[dict]:
    """The JSON objects in the lines of a file; none where there is no file.

    A last line without a line break counts if it is whole; else a kill tore it, and it is left out.
    Raises OSError where another line is damaged: it names the line, and says what to do (`mend`).
    """
    if not os.path.exists(path):
        return []
    with file_errors("read", path):
        with open(path, "rb") as file:
            content = file.read()
    lines, last = split_lines(content)
    rows = parse_rows(path, lines, mend)
    with contextlib.suppress(UserError):
        if last.strip():
            rows.append(parse_object(last))
    return rows


def append_row(path: str, row: dict) -> None:
    """Add one JSON line, after cutting off a last line that a kill has torn.

    Raises OSError where the file holds anything else than JSON lines, and leaves it as it is then.
    Where the disk refuses the line, none of it stays.
    """
    line = json.dumps(row).encode() + b"\n"
    with file_errors("write", path):
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(path, "ab+", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # the study evaluates two checkpoints at a time
            file.seek(0)
            content = file.read()
            size = whole_bytes(path, content)
            if size < len(content):
                file.truncate(size)
            elif not content.endswith(b"\n") and content:
                line = b"\n" + line
            try:
                write_all(file, line)
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(size)
                raise


def split_lines(content: bytes) -> tuple[list[bytes], bytes]:
    """The lines that end in a line break, and what follows the last of them."""
    *lines, last = content.split(b"\n")
    return lines, last


def parse_rows(path: str, lines: list[bytes], mend: str) -> list[dict]:
    """The objects of all lines that are not blank. OSError names the first that holds none."""
    rows = []
    wrong = []  # (line number, why)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append(parse_object(line))
        except UserError as error:
            wrong.append((number, error))
    if not wrong:
        return rows
    number, reason = wrong[0]
    if not rows:
        raise FileError(f"{path} is not a file of JSON rows (line {number} {reason}); give another")
    raise FileError(f"{path}, line {number} is damaged ({reason}); {mend}")


def parse_object(line: bytes) -> dict:
    """The JSON object of a line; UserError says what is there instead."""
    value = parse(line)
    if not isinstance(value, dict):
        raise UserError("is not a JSON object")
    return value


def whole_bytes(path: str, content: bytes) -> int:
    """How many bytes of the file's content are whole rows: all, or all before a torn last line."""
    lines, last = split_lines(content)
    parse_rows(path, lines, MEND)
    size = len(content)
    if not last.strip():
        return size
    try:
        parse_object(last)
        return size
    except UserError as error:
        # A kill leaves the beginning of a row, a power cut may leave bytes of 0.
        if last.startswith(b"{") or not last.strip(b"\0"):
            return size - len(last)
        reason = f"{path} is not a file of JSON rows (its last line {error})"
        raise FileError(f"{reason}; give another") from None


def write_all(file, data: bytes) -> None:
    """Write to an unbuffered file, which may take a part at a time."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]
