"""The texts in a file: .txt, or JSON lines with a field `text`, either also as .gz or .zst."""

import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import zstandard

from data import UserError
from data.files import file_errors
from data.jsonl import BOM, quoted, type_name
from data.mixes import file_kind
from data.workers import note_progress

CHUNK = 2**18  # bytes read at a time


def texts_of_file(path: str, name: str) -> Iterator[str]:
    """The texts of one file: a whole .txt, or the fields `text` of JSON lines.

    `name` is the file's name in messages. A byte order mark at the beginning of a text, or of a
    line, is no part of it. Raises UserError, with the line, for what cannot be read.
    """
    chunks = unzipped(path, name)
    where = name
    try:
        if file_kind(path) == ".txt":
            text = b"".join(chunks).removeprefix(BOM).decode()
            if text:
                yield text
            return
        for number, line in enumerate(lines(chunks), start=1):
            where = f"{name}, line {number}"
            line = line.removeprefix(BOM)
            if line.strip():
                yield text_of_row(json.loads(line.decode()), where)
    except UnicodeDecodeError as error:
        reason = f"byte {error.start + 1} is {error.object[error.start]:#04x}"
        raise UserError(f"{where} is not UTF-8 ({reason}); convert it first") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise UserError(
            f"{where} is not JSON ({reason}); each line must be a JSON object"
        ) from None


def text_of_row(row: object, where: str) -> str:
    if not isinstance(row, dict) or "text" not in row:
        has = ", ".join(row) if isinstance(row, dict) else "no object"
        raise UserError(f'{where} has no field "text", but {quoted(has)[1:-1]}')
    if not isinstance(row["text"], str):
        raise UserError(f'{where}: "text" is not a string, but {type_name(row["text"])}')
    return row["text"]


def lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of all chunks, without their line breaks. The time is linear in the bytes."""
    parts = []  # of a line that has not ended yet
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        parts.append(first)
        for line in others:
            yield b"".join(parts)
            parts = [line]
    yield b"".join(parts)


# --- bytes ----------------------------------------------------------------------------------------


def chunks_of(path: str) -> Iterator[bytes]:
    with file_errors("read", path):
        file = open(path, "rb")
    with file:
        while True:
            with file_errors("read", path):
                data = file.read(CHUNK)
            if not data:
                return
            note_progress(n_bytes=len(data))
            yield data


def new_gzip_frame():
    return zlib.decompressobj(wbits=31)


def new_zstd_frame():
    return zstandard.ZstdDecompressor(max_window_size=2**31).decompressobj()


NEW_FRAME = {".gz": new_gzip_frame, ".zst": new_zstd_frame}


def unzipped(path: str, name: str) -> Iterator[bytes]:
    """The bytes of a file, decompressed as they are read.

    A file may be several compressed frames, one after the other. Raises UserError if it ends within
    one of them.
    """
    new_frame = NEW_FRAME.get(Path(path).suffix)
    if new_frame is None:
        yield from chunks_of(path)
        return
    frame = None  # the one that is being read
    try:
        for data in chunks_of(path):
            while data:
                if frame is None:
                    frame = new_frame()
                yield frame.decompress(data)
                data = frame.unused_data if frame.eof else b""
                if frame.eof:
                    frame = None
        is_damaged = frame is not None
    except (zlib.error, zstandard.ZstdError) as error:
        if "memory" in str(error):
            raise UserError(f"{name} needs more memory to decompress than there is") from None
        is_damaged = True
    if is_damaged:
        raise UserError(f"{name} is truncated or damaged; download it again")
