"""What a prepared corpus says of itself, and whether its pieces are those that were written.

A piece is a file of token ids (uint32, little-endian). Its size is compared whenever a corpus is
opened. Its checksum is, too, in a corpus of at most SMALL bytes (0.6 s on one core), and in a
larger one if the piece is newer than the manifest, which is written last. So terabytes are not read
twice, but a piece that was written to is found out.
"""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from data import UserError
from data.files import file_errors, read_json
from data.jsonl import quoted

SMALL = 2**30  # bytes of all pieces
BLOCK = 2**22  # bytes hashed at a time


def read_manifest(folder: Path) -> dict:
    """manifest.json, every field checked. UserError names the field."""
    path = folder / "manifest.json"
    again = f"delete {folder} and prepare it again"
    manifest = read_json(path, f"prepare {folder} first", again)
    try:
        check_fields(manifest, "", source=str, tokenizer=str, sources=list)
        check_counts(manifest, "", "n_vocab", "documents", "tokens")
        names = set()
        for number, source in enumerate(manifest["sources"]):
            where = f"sources[{number}]."
            check_source(source, where)
            names.update(piece["name"] for piece in source["pieces"])
        n_pieces = sum(len(source["pieces"]) for source in manifest["sources"])
        if len(names) < n_pieces:
            raise UserError("a piece is listed twice")
        if manifest["tokens"] != sum(source["tokens"] for source in manifest["sources"]):
            raise UserError("tokens is not the sum of the sources' tokens")
    except UserError as error:
        raise UserError(f"{path} is damaged ({error}); {again}") from None
    return manifest


def check_source(source, where: str) -> None:
    check_fields(source, where, name=str, files=list, pieces=list)
    check_counts(source, where, "documents", "tokens")
    if any(type(file) is not str for file in source["files"]):
        raise UserError(f"{where}files holds something else than text")
    if not source["pieces"]:
        raise UserError(f"{where}pieces is empty")
    for number, piece in enumerate(source["pieces"]):
        check_piece(piece, f"{where}pieces[{number}].")
    if source["tokens"] != sum(piece["used"] for piece in source["pieces"]):
        raise UserError(f"{where}tokens is not the sum of what is used of its pieces")


def check_piece(piece, where: str) -> None:
    check_fields(piece, where, name=str, file=str, sha256=str)
    check_counts(piece, where, "documents", "tokens", "used")
    if piece["used"] > piece["tokens"]:
        raise UserError(f"{where}used is more than its tokens")
    name = piece["name"]
    if name != os.path.basename(name) or not name.endswith(".bin") or not name.isprintable():
        raise UserError(f"{where}name is {quoted(name)}")


def check_fields(values, where: str, **types: type) -> None:
    """These fields are there, and of these types."""
    if not isinstance(values, dict):
        raise UserError(f"{where.rstrip('.')} is {quoted(values)}")
    for name, kind in types.items():
        if type(values.get(name)) is not kind:
            raise UserError(f"{where}{name} is {quoted(values.get(name))}")


def check_counts(values: dict, where: str, *names: str) -> None:
    for name in names:
        value = values.get(name)
        if type(value) is not int or not 1 <= value < 2**50:
            raise UserError(f"{where}{name} is {quoted(value)}, not a number from 1 on")


# --- the pieces -----------------------------------------------------------------------------------


def check_pieces(folder: Path, manifest: dict) -> list[Path]:
    """The paths of all pieces in the stream's order, after a look at their sizes and bytes.

    Raises UserError where a piece is missing or damaged, or has an id that its tokenizer has not.
    """
    pieces = all_pieces(manifest)
    again = f"delete {folder} and prepare it again"
    paths = []
    for piece in pieces:
        path = folder / "pieces" / piece["name"]
        if not path.exists() or path.stat().st_size != 4 * piece["tokens"]:
            raise UserError(f"{path} is missing or has another size than in manifest.json; {again}")
        paths.append(path)
    is_small = 4 * sum(piece["tokens"] for piece in pieces) <= SMALL
    written = (folder / "manifest.json").stat().st_mtime_ns
    to_read = []
    for path, piece in zip(paths, pieces):
        if is_small or path.stat().st_mtime_ns > written:
            to_read.append((path, piece["sha256"]))
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        found = pool.map(hash_and_largest, [path for path, _ in to_read])
        for (path, sha256), (hashed, largest) in zip(to_read, found):
            if hashed != sha256:
                raise UserError(f"{path} is damaged: its checksum is not manifest.json's; {again}")
            if largest >= manifest["n_vocab"]:
                has = f"{path} holds the id {largest}, its tokenizer has {manifest['n_vocab']} ids"
                raise UserError(f"{has}; {again}")
    return paths


def all_pieces(manifest: dict) -> list[dict]:
    """In the order of the stream."""
    pieces = []
    for source in manifest["sources"]:
        pieces += source["pieces"]
    return pieces


def hash_and_largest(path: Path) -> tuple[str, int]:
    """The sha256 of a piece, and the largest id in it."""
    digest = hashlib.sha256()
    largest = 0
    with file_errors("read", path), open(path, "rb") as file:
        while block := file.read(BLOCK):  # a multiple of 4 bytes, but perhaps the last
            digest.update(block)
            ids = np.frombuffer(block, "<u4", len(block) // 4)
            largest = max(largest, int(ids.max(initial=0)))
    return digest.hexdigest(), largest


def hash_of_file(path: str | Path) -> str:
    """The sha256 of a file."""
    with file_errors("read", path), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_of(manifest: dict) -> str:
    """A hash that stands for the stream of tokens, wherever the corpus lies."""
    parts = [(piece["sha256"], piece["used"]) for piece in all_pieces(manifest)]
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()


# --- the files that it was made of ----------------------------------------------------------------


def check_sources(folder: Path, manifest: dict) -> None:
    """Refuse a corpus of local files that hold something else since then.

    Only those that were written after the manifest are read again.
    """
    written = (folder / "manifest.json").stat().st_mtime_ns
    for source in manifest["sources"]:
        for path, sha256 in hashes_of(source).items():
            if os.path.isfile(path) and os.stat(path).st_mtime_ns > written:
                if hash_of_file(path) != sha256:
                    made = f"{path} has changed since {folder} was made of it"
                    raise UserError(f"{made}; delete {folder} and run the command again")


def hashes_of(source: dict) -> dict[str, str]:
    """File -> sha256. Older code did not record it, and files of the hub have a revision."""
    hashes = source.get("hashes")
    return hashes if isinstance(hashes, dict) else {}
