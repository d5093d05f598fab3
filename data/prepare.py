"""Making a corpus: text files, or a mix of the hub's -> a folder of tokens for data/corpus.py.

Each input file becomes pieces of about 2^24 tokens (uint32, little-endian), cut between documents,
with end-of-text after every document. manifest.json, written last, lists them. Pieces depend on
their input file and the tokenizer alone, so a preparation that was killed continues with the pieces
it has, and any number of workers makes the same bytes.
"""

import hashlib
import itertools
import json
import math
import os
import shutil
import signal
import sys
import threading
from concurrent.futures import FIRST_COMPLETED, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data import UserError, lock
from data.files import file_errors, read_json, write_aside
from data.manifest import hash_of_file, read_manifest
from data.mixes import MIXES, File, Source, download, hub_files, local_files
from data.text_files import texts_of_file
from data.tokenizer import get_tokenizer
from data.workers import note_progress, progress, worker_pool

PIECE_TOKENS = 2**24
BYTES_PER_TOKEN = 2  # a guess, until the first files of a source are done
WORKER_BYTES = 2**24  # 16 MB; less than that is not worth a process


@dataclass
class Part:
    """One part of the corpus: a source, its files, and the pieces of those taken so far."""

    source: Source
    files: list[File]
    # For each file that was taken, in order; a file's list is empty until the file is done.
    pieces: list[list[dict]] = field(default_factory=list)

    def expected_bytes(self) -> float:
        """How much will be read: all, or as much as the budget is expected to need."""
        n_bytes = size_of(self.files)
        if not self.source.tokens:
            return n_bytes
        n_read = 0
        n_tokens = 0
        for file, pieces in zip(self.files, self.pieces):
            if pieces:
                n_read += file.size
                n_tokens += total(pieces, "tokens")
        bytes_per_token = n_read / n_tokens if n_tokens else BYTES_PER_TOKEN
        return min(n_bytes, self.source.tokens * bytes_per_token)

    def needs_more(self) -> bool:
        """Is there a file left, and do those that were taken not fill the budget?"""
        taken = self.files[: len(self.pieces)]
        if len(taken) == len(self.files):
            return False
        if not self.source.tokens:
            return True
        return size_of(taken) < self.expected_bytes()


def size_of(files: list[File]) -> int:
    """Bytes of all these files."""
    return sum(file.size for file in files)


def total(rows: list[dict], key: str) -> int:
    """The sum of one field of all rows."""
    return sum(row[key] for row in rows)


def prepare_once(source: str, folder: Path, tokenizer: str, workers: int = 0) -> dict:
    """prepare_corpus, unless it is done. Of two commands the second waits -> the manifest."""
    if not (folder / "manifest.json").exists():
        with lock.claimed(folder), sigterm_ends_in_order():
            if not (folder / "manifest.json").exists():
                return prepare_corpus(source, folder, tokenizer, workers)
    return read_manifest(folder)


def prepare_corpus(
    source: str, folder: Path, tokenizer: str, workers: int = 0, piece_tokens: int = PIECE_TOKENS
) -> dict:
    """Make the folder of a corpus -> its manifest.

    `source` is the name of a mix, or files and globs joined by commas. 0 workers: one for each
    core, fewer if there is little to do.
    """
    encoding = get_tokenizer(tokenizer)
    found = hub_files(MIXES[source]) if source in MIXES else local_files(source)
    parts = [Part(one, files) for one, files in found]
    with file_errors("write", folder):
        (folder / "pieces").mkdir(parents=True, exist_ok=True)
    remove_torn(folder)
    try:
        encode_files(parts, folder, tokenizer, workers, piece_tokens)
    except BaseException:
        remove_torn(folder)  # of workers that were ended
        raise
    rows = [within_budget(part, folder, encoding.eot_token) for part in parts]
    manifest = {
        "source": source,
        "tokenizer": tokenizer,
        "n_vocab": encoding.n_vocab,
        "documents": total(rows, "documents"),
        "tokens": total(rows, "tokens"),
        "sources": rows,
    }
    remove_unused(folder, manifest)
    write_content(folder / "manifest.json", json.dumps(manifest, indent=1).encode())
    return manifest


@contextmanager
def sigterm_ends_in_order():
    """Within it SIGTERM ends the program as Ctrl-C does: workers are ended, nothing torn stays."""

    def stop(number, frame):
        print("stopped by SIGTERM; the same command goes on where it was stopped", file=sys.stderr)
        sys.exit(128 + signal.SIGTERM)

    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield  # somebody else cares for it
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def remove_torn(folder: Path) -> None:
    """Delete the pieces that a process was writing when it ended."""
    for path in (folder / "pieces").glob("*.tmp"):
        path.unlink(missing_ok=True)


def remove_unused(folder: Path, manifest: dict) -> None:
    """Delete what kills have left, what lies past a budget, and the downloads."""
    used = set()
    for row in manifest["sources"]:
        used.update(Path(piece["name"]).stem for piece in row["pieces"])
    for path in (folder / "pieces").iterdir():
        if path.stem not in used:
            path.unlink()
    shutil.rmtree(folder / "downloads", ignore_errors=True)


def within_budget(part: Part, folder: Path, eot: int) -> dict:
    """A source's row of the manifest.

    It lists the first pieces up to the budget, and how many tokens of each are used.
    """
    left = int(part.source.tokens) or math.inf
    n_documents = 0
    hashes = {}  # of the local files
    pieces = []
    for piece in itertools.chain(*part.pieces):
        if left == 0:
            break
        used = min(piece["tokens"], left)
        if used == piece["tokens"]:
            n_documents += piece["documents"]
        else:
            tokens = np.fromfile(folder / "pieces" / piece["name"], "<u4", used)  # (used,)
            is_cut = int(tokens[-1] != eot)  # the last document counts, though it has no end
            n_documents += int(np.sum(tokens == eot)) + is_cut
        row = {key: piece[key] for key in ("name", "file", "documents", "tokens", "sha256")}
        pieces.append({**row, "used": used})
        if piece["content"]:
            hashes[piece["file"]] = piece["content"]
        left -= used
    return {
        "name": part.source.name,
        "repo": part.source.repo,
        "revision": part.files[0].revision,
        "files": list(dict.fromkeys(piece["file"] for piece in pieces)),
        "hashes": hashes,
        "documents": n_documents,
        "tokens": total(pieces, "used"),
        "pieces": pieces,
    }


# --- files -> pieces ------------------------------------------------------------------------------


def encode_files(
    parts: list[Part], folder: Path, tokenizer: str, workers: int, piece_tokens: int
) -> None:
    """Fill the pieces of every part.

    A source's files are taken in order, until those that were taken hold the bytes that its budget
    is expected to need.
    """
    if not workers:
        files = []
        for part in parts:
            files += part.files
        workers = min(os.cpu_count(), len(files), 1 + size_of(files) // WORKER_BYTES)

    def total_bytes() -> float:
        return sum(part.expected_bytes() for part in parts)

    running = {}  # future -> the list that gets its pieces
    with progress(total_bytes, workers) as counters, worker_pool(workers, counters) as submit:
        while True:
            while len(running) < workers:
                number = next_part(parts)
                if number is None:
                    break
                part = parts[number]
                file = part.files[len(part.pieces)]
                stem = folder / "pieces" / f"{number:02d}-{len(part.pieces):05d}"
                part.pieces.append([])
                future = submit(encode_file, file, stem, tokenizer, piece_tokens)
                running[future] = part.pieces[-1]
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                running.pop(future).extend(future.result())


def next_part(parts: list[Part]) -> int | None:
    """The number of the first source that needs another file."""
    for number, part in enumerate(parts):
        if part.needs_more():
            return number
    return None


def encode_file(file: File, stem: Path, tokenizer: str, piece_tokens: int) -> list[dict]:
    """Write the pieces <stem>-0000.bin ... of one file that are not there yet.

    Returns the facts of them all.
    """
    content = None if file.repo else hash_of_file(file.path)
    pieces = finished_pieces(file, stem, content)
    note_progress(n_tokens=total(pieces, "tokens"))
    if pieces and pieces[-1]["last"]:
        note_progress(n_bytes=file.size)
        return pieces
    encoding = get_tokenizer(tokenizer)
    name = file.path
    path = file.path
    if file.repo:
        name = f"{file.repo}/{file.path}"
        path = download(file, stem.parents[1] / "downloads")
    arrays = []  # documents of the next piece
    n_tokens = 0  # in them
    n_done = total(pieces, "documents")
    try:
        for text in itertools.islice(texts_of_file(path, name), n_done, None):
            if n_tokens >= piece_tokens:
                pieces.append(write_piece(file, content, stem, pieces, arrays, last=False))
                arrays = []
                n_tokens = 0
            tokens = np.append(encode(text, encoding), np.uint32(encoding.eot_token))
            arrays.append(tokens)
            n_tokens += len(tokens)
            note_progress(n_tokens=len(tokens))
        if not arrays:
            raise UserError(f"{name} is empty: it holds no document")
        pieces.append(write_piece(file, content, stem, pieces, arrays, last=True))
        return pieces
    finally:
        if file.repo:
            os.remove(path)  # a damaged one too: the next run fetches it again


def encode(text: str, encoding) -> np.ndarray:
    """(n,) uint32: the ids of encode_ordinary, so that no text can inject a special token.

    encode_to_numpy is 15 % faster than encode_ordinary.
    """
    try:
        return encoding.encode_to_numpy(text, disallowed_special=())
    except UnicodeEncodeError:
        # Half of a surrogate pair, which JSON can write; encode_ordinary replaces it in this way.
        repaired = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return encode(repaired, encoding)
    except ValueError:  # dolma2's regular expression gives up on a million blanks in a row
        half = len(text) // 2
        return np.concatenate([encode(text[:half], encoding), encode(text[half:], encoding)])


def write_piece(
    file: File,
    content: str | None,
    stem: Path,
    before: list[dict],
    arrays: list[np.ndarray],
    last: bool,
) -> dict:
    """Write the piece, and then its facts as a .json, which says that the .bin is whole."""
    tokens = np.concatenate(arrays).astype("<u4", copy=False)  # (n,)
    name = f"{stem.name}-{len(before):04d}"
    facts = {
        "name": f"{name}.bin",
        "file": file.path,
        "size": file.size,
        "content": content,
        "first_document": total(before, "documents"),
        "documents": len(arrays),
        "tokens": len(tokens),
        "sha256": hashlib.sha256(tokens).hexdigest(),
        "last": last,
    }
    write_content(stem.with_name(f"{name}.bin"), tokens)
    write_content(stem.with_name(f"{name}.json"), json.dumps(facts).encode())
    return facts


def write_content(path: Path, content) -> None:
    write_aside(path, lambda file: file.write(content))


def finished_pieces(file: File, stem: Path, content: str | None) -> list[dict]:
    """The facts of the pieces that an earlier run wrote of this very file.

    The first that is not whole, or was made of other bytes, is made again, and all after it. To
    compare the checksum takes a hundredth of the time that it takes to make a piece.
    """
    pieces = []
    while True:
        name = f"{stem.name}-{len(pieces):04d}"
        facts = facts_of_piece(stem.with_name(f"{name}.json"))
        this_file = {"file": file.path, "size": file.size, "content": content}
        this_file["first_document"] = total(pieces, "documents")
        if any(facts.get(key) != value for key, value in this_file.items()):
            return pieces  # another file stood in this place, or nothing
        path = stem.with_name(f"{name}.bin")
        counts = [facts.get(key) for key in ("documents", "tokens")]
        is_whole = all(type(count) is int and count > 0 for count in counts)
        is_whole = is_whole and type(facts.get("last")) is bool and path.is_file()
        if not is_whole or facts.get("name") != path.name:
            return pieces
        if facts.get("sha256") != hash_of_file(path) or path.stat().st_size != 4 * counts[1]:
            return pieces
        pieces.append(facts)


def facts_of_piece(path: Path) -> dict:
    """What the .json says; nothing where it is missing or damaged."""
    try:
        return read_json(path, "", "")
    except (UserError, FileNotFoundError):
        return {}
