"""Rows of tokens to pre-train on: the toy world, the paper's two mixes, or local files.

    python data/corpus.py dolmino-50B --tokenizer dolma2     # hours, 206 GB; the same command goes on where it was stopped
    rows = open_corpus("toy", "out/toy", "toy", seq_len=80, n_tokens=3_600_000, seed=0)
    rows[[7, 3]]                                             # (2, 80)

A prepared corpus is a folder. Each input file becomes pieces of about 2^24 tokens (uint32, little-endian), cut between
documents, with end-of-text after every document; manifest.json, written last, lists them. Pieces depend on their input
file and the tokenizer alone, so a killed preparation goes on with those it has, and any number of workers ends in the
same bytes. All pieces in the manifest's order are one stream, which is cut into rows only when it is read. The order
of the rows is one shuffle of all (common.py): so the sources are mixed throughout a run.
"""

import argparse
import functools
import hashlib
import itertools
import json
import math
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import zlib
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import zstandard
from tqdm import tqdm

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # where a script has its own folder, which is not the repository

from data import UserError
from data.mixes import MIXES, File, Source, download, file_kind, hub_files, local_files
from data.tokenizer import get_tokenizer

PIECE_TOKENS = 2**24


# --- opening and reading ------------------------------------------------------------------------------------------


def open_corpus(source: str, out: str, tokenizer: str, seq_len: int, n_tokens: int, seed: int):
    """`len(rows)`, and `rows[a list of numbers]` -> (b, seq_len), of what is prepared; `out` is the run's folder.

    Prepared corpora lie in `corpus` beside the run's folder, where its neighbours find them too. Local files are
    prepared here; a mix is not: that takes hours. The toy world, made for (n_tokens, seed), lies in the run's folder.
    """
    if source == "toy":
        return toy_rows(out, tokenizer, seq_len, n_tokens, seed)
    root = Path(out).parent / "corpus"
    folder = corpus_folder(source, root, tokenizer)
    if not (folder / "manifest.json").exists():
        if source in MIXES:
            raise UserError(f"{source} is not prepared; run: python data/corpus.py {source} --tokenizer {tokenizer} --out {root}")
        prepare(source, folder, tokenizer)
    corpus, n_vocab = Corpus(folder, seq_len), get_tokenizer(tokenizer).n_vocab
    if corpus.n_vocab != n_vocab:
        raise UserError(f"{folder} was made with a tokenizer of {corpus.n_vocab} ids, not with {tokenizer} of {n_vocab}; delete it or give another --tokenizer")
    return corpus


def corpus_folder(source: str, root: Path, tokenizer: str) -> Path:
    """Named by what decides the bytes: the files and their sizes or the table of a mix, and the tokenizer."""
    files = MIXES.get(source) or [file for _, files in local_files(source) for file in files]
    ids = hashlib.sha256(Path(tokenizer).read_bytes()).hexdigest() if os.path.isfile(tokenizer) else tokenizer
    name = hashlib.blake2b(json.dumps([files, ids]).encode(), digest_size=6).hexdigest()
    return Path(root, f"{source if source in MIXES else 'files'}-{name}")


def toy_rows(out: str, tokenizer: str, seq_len: int, n_tokens: int, seed: int) -> np.ndarray:
    """-> (rows, seq_len) uint16, memory-mapped; made first where it is not there yet."""
    from data import toy

    if tokenizer != "toy":
        raise UserError(f"the toy world is written for the toy tokenizer, not {tokenizer}; give --tokenizer toy or other --data")
    recipe = {"source": "toy", "tokenizer": tokenizer, "seq_len": seq_len, "seed": seed, "n_tokens": n_tokens}
    path = Path(out, "corpus", f"{hashlib.blake2b(json.dumps(recipe).encode(), digest_size=6).hexdigest()}.npy")
    if not path.exists():
        rows = toy.rows(seed, n_tokens, seq_len, get_tokenizer(tokenizer))
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(f"{path}.tmp", "wb") as f:
            np.save(f, rows)
        os.replace(f"{path}.tmp", path)
        path.with_suffix(".json").write_text(json.dumps({**recipe, "rows": len(rows), "tokens": rows.size}, indent=2))
    return np.load(path, mmap_mode="r")


class Corpus:
    """The rows of a prepared folder: row r is tokens [r * seq_len, (r + 1) * seq_len) of the stream of all pieces."""

    def __init__(self, folder: Path, seq_len: int):
        manifest = json.loads((folder / "manifest.json").read_text())
        if manifest["tokens"] < seq_len:
            raise UserError(f"{folder} holds {manifest['tokens']} tokens, less than one row of {seq_len}; give more text")
        pieces = [piece for source in manifest["sources"] for piece in source["pieces"]]
        self.paths = [folder / "pieces" / piece["name"] for piece in pieces]
        for path, piece in zip(self.paths, pieces):
            if not path.exists() or path.stat().st_size != 4 * piece["tokens"]:
                raise UserError(f"{path} is missing or has another size than in manifest.json; delete {folder} and prepare it again")
        self.seq_len, self.n_vocab = seq_len, manifest["n_vocab"]
        self.ends = np.cumsum([piece["used"] for piece in pieces])  # (pieces,) tokens of the stream up to each end
        self.starts = self.ends - [piece["used"] for piece in pieces]

    def __len__(self) -> int:
        return int(self.ends[-1]) // self.seq_len

    def __getitem__(self, rows: list[int]) -> np.ndarray:
        """-> (b, seq_len) uint32"""
        return np.stack([self.row(r) for r in rows])

    def row(self, r: int) -> np.ndarray:
        """(seq_len,)"""
        start, end, parts = r * self.seq_len, (r + 1) * self.seq_len, []
        while start < end:
            i = np.searchsorted(self.ends, start, side="right")  # the piece that token `start` lies in
            n = min(end, self.ends[i]) - start
            parts.append(mapped(self.paths[i])[start - self.starts[i] :][:n])
            start += n
        return np.concatenate(parts)


@functools.lru_cache(maxsize=256)  # a mix has more pieces than a process may hold open
def mapped(path: Path) -> np.ndarray:
    return np.memmap(path, "<u4", "r")


# --- preparation --------------------------------------------------------------------------------------------------


def prepare(source: str, folder: Path, tokenizer: str, workers: int = 0, piece_tokens: int = PIECE_TOKENS) -> dict:
    """Make the folder of a corpus -> its manifest. 0 workers: one for each core, fewer where there is little to do."""
    encoding = get_tokenizer(tokenizer)
    found = hub_files(MIXES[source]) if source in MIXES else local_files(source)
    (folder / "pieces").mkdir(parents=True, exist_ok=True)
    made = encode_files(found, folder, tokenizer, workers, piece_tokens)
    rows = [within_budget(*at, pieces, folder, encoding.eot_token) for at, pieces in zip(found, made)]
    total = {key: sum(row[key] for row in rows) for key in ("documents", "tokens")}
    manifest = {"source": source, "tokenizer": tokenizer, "n_vocab": encoding.n_vocab, **total, "sources": rows}
    used = {Path(piece["name"]).stem for row in rows for piece in row["pieces"]}
    for path in (folder / "pieces").iterdir():  # what kills left, and what lies past a budget
        if path.stem not in used:
            path.unlink()
    shutil.rmtree(folder / "downloads", ignore_errors=True)
    write_aside(folder / "manifest.json", json.dumps(manifest, indent=1).encode())
    return manifest


def within_budget(source: Source, files: list[File], made: list[list[dict]], folder: Path, eot: int) -> dict:
    """A source's row of the manifest: its first pieces up to the budget, and how many tokens of each are used."""
    left, documents, pieces = int(source.tokens) or math.inf, 0, []
    for piece in itertools.chain(*made):
        used, n_documents = min(piece["tokens"], left), piece["documents"]
        if used == 0:
            break
        if used < piece["tokens"]:
            tokens = np.fromfile(folder / "pieces" / piece["name"], "<u4", used)  # (used,)
            n_documents = int(np.sum(tokens == eot)) + int(tokens[-1] != eot)  # the one that is cut counts
        pieces.append({key: piece[key] for key in ("name", "file", "documents", "tokens", "sha256")} | {"used": used})
        left, documents = left - used, documents + n_documents
    names = list(dict.fromkeys(piece["file"] for piece in pieces))
    facts = {"name": source.name, "repo": source.repo, "revision": files[0].revision, "files": names}
    return {**facts, "documents": documents, "tokens": sum(piece["used"] for piece in pieces), "pieces": pieces}


def encode_files(found: list, folder: Path, tokenizer: str, workers: int, piece_tokens: int) -> list[list[list[dict]]]:
    """-> of every source, of every file that was taken, the facts of its pieces.

    A source's files are taken in order, until those taken hold the bytes that its budget is expected to need.
    """
    made = [[] for _ in found]  # a file's place is empty until it is done

    def expected_bytes(source: Source, files: list[File], places: list[list[dict]]) -> float:
        """To be read: all, or what the budget needs at the bytes per token so far (2 before that)."""
        size, tokens = sum(file.size for file in files), sum(piece["tokens"] for pieces in places for piece in pieces)
        read = sum(file.size for file, pieces in zip(files, places) if pieces)
        return min(size, source.tokens * (read / tokens if tokens else 2)) if source.tokens else size

    def next_file():
        for s, ((source, files), places) in enumerate(zip(found, made)):
            f = len(places)
            if f < len(files) and (not source.tokens or sum(file.size for file in files[:f]) < expected_bytes(source, files, places)):
                places.append([])
                return files[f], folder / "pieces" / f"{s:02d}-{f:05d}", places[f]

    sizes = [file.size for _, files in found for file in files]
    workers = workers or min(os.cpu_count(), len(sizes), 1 + sum(sizes) // 2**24)  # less than 16 MB is not worth a process
    total_bytes = lambda: sum(expected_bytes(*at, places) for at, places in zip(found, made))
    running = {}  # future -> the place of its pieces
    with progress(total_bytes) as counters, worker_pool(workers, counters) as submit:
        while True:
            while len(running) < workers and (todo := next_file()):
                file, stem, place = todo
                running[submit(encode_file, file, stem, tokenizer, piece_tokens)] = place
            if not running:
                return made
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                running.pop(future).extend(future.result())


def encode_file(file: File, stem: Path, tokenizer: str, piece_tokens: int) -> list[dict]:
    """Write the pieces <stem>-0000.bin ... of one file that are not there yet -> the facts of them all."""
    pieces = finished_pieces(file, stem)
    count(0, sum(piece["tokens"] for piece in pieces))
    if pieces and pieces[-1]["last"]:
        count(file.size, 0)
        return pieces
    encoding, name = get_tokenizer(tokenizer), "/".join(filter(None, [file.repo, file.path]))
    path = download(file, stem.parents[1] / "downloads") if file.repo else file.path
    arrays, n = [], 0  # documents of the next piece, and their tokens
    try:
        for text in itertools.islice(documents(path, name), sum(piece["documents"] for piece in pieces), None):
            if n >= piece_tokens:
                pieces.append(write_piece(file, stem, pieces, arrays, last=False))
                arrays, n = [], 0
            arrays.append(np.append(encode(text, encoding), np.uint32(encoding.eot_token)))
            n += len(arrays[-1])
            count(0, len(arrays[-1]))
        if not arrays:
            raise UserError(f"{name} is empty: it holds no document")
        return [*pieces, write_piece(file, stem, pieces, arrays, last=True)]
    finally:
        if file.repo:
            os.remove(path)  # a damaged one too: the next run fetches it again


def encode(text: str, encoding) -> np.ndarray:
    """-> (n,) uint32: encode_ordinary's ids, so that no text can inject a special token, 15 % faster."""
    try:
        return encoding.encode_to_numpy(text, disallowed_special=())
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can write; encode_ordinary replaces it likewise
        return encode(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"), encoding)
    except ValueError:  # dolma2's regular expression gives up on a million blanks in a row
        half = len(text) // 2
        return np.concatenate([encode(text[:half], encoding), encode(text[half:], encoding)])


def write_piece(file: File, stem: Path, before: list[dict], arrays: list[np.ndarray], last: bool) -> dict:
    """The piece, then its facts in a .json, which says that the .bin is whole."""
    tokens = np.concatenate(arrays).astype("<u4", copy=False)  # (n,)
    name = f"{stem.name}-{len(before):04d}"
    facts = {
        "name": f"{name}.bin", "file": file.path, "size": file.size, "first_document": sum(piece["documents"] for piece in before),
        "documents": len(arrays), "tokens": len(tokens), "sha256": hashlib.sha256(tokens).hexdigest(), "last": last,
    }  # fmt: skip
    write_aside(stem.with_name(f"{name}.bin"), tokens)
    write_aside(stem.with_name(f"{name}.json"), json.dumps(facts).encode())
    return facts


def finished_pieces(file: File, stem: Path) -> list[dict]:
    """The facts of the pieces that an earlier run wrote of this very file."""
    pieces = []
    while True:
        path = stem.with_name(f"{stem.name}-{len(pieces):04d}.json")
        facts = json.loads(path.read_text()) if path.exists() else {}
        if (facts.get("file"), facts.get("size")) != (file.path, file.size):
            return pieces
        pieces.append(facts)


def write_aside(path: Path, content) -> None:
    with open(f"{path}.tmp", "wb") as f:
        f.write(content)
        f.flush()
        os.fsync(f.fileno())
    os.replace(f"{path}.tmp", path)


# --- workers ------------------------------------------------------------------------------------------------------

SPAWN = multiprocessing.get_context("spawn")  # a fork of a process with threads or a GPU may hang


@contextmanager
def worker_pool(workers: int, counters):
    """submit(function, *args) -> a future: in this process for one worker, else in processes that end when this one does."""
    if workers == 1:
        share(counters)
        yield at_once
        return

    def submit(*args) -> Future:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a worker that starts here inherits it: Ctrl-C is the parent's
        try:
            return executor.submit(*args)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    executor = ProcessPoolExecutor(workers, SPAWN, start_worker, (counters,))
    try:
        yield submit
    except BrokenProcessPool:
        raise UserError("a worker was killed, perhaps for want of memory; run the same command again, with fewer --workers") from None
    finally:
        for process in multiprocessing.active_children():
            process.terminate()
        executor.shutdown(cancel_futures=True)


def at_once(function, *args) -> Future:
    future = Future()
    future.set_result(function(*args))
    return future


def start_worker(counters) -> None:
    def end_with_parent():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    share(counters)


shared = None  # bytes read and tokens made by all workers; each process sets it


def share(counters) -> None:
    global shared
    shared = counters


def count(n_bytes: int, n_tokens: int) -> None:
    with shared.get_lock():
        shared[0] += n_bytes
        shared[1] += n_tokens


@contextmanager
def progress(expected_bytes):
    """The counters of all workers, and a bar over the bytes; a thread draws it, since the work may be in this process."""
    counters, end = SPAWN.Array("q", 2), threading.Event()
    bar = tqdm(desc="prepare", unit="B", unit_scale=True, delay=2, mininterval=0.5 if sys.stderr.isatty() else 30)

    def draw():
        while not end.wait(0.5):
            read, tokens = counters.get_obj()
            bar.total = max(read, int(expected_bytes()))
            bar.set_postfix_str(f"{tokens:,} tokens, {(bar.format_dict['rate'] or 0) * tokens / max(read, 1):,.0f}/s", refresh=False)
            bar.update(read - bar.n)

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        yield counters
    finally:
        end.set()
        thread.join()
        bar.close()


# --- documents ----------------------------------------------------------------------------------------------------

UNZIP = {".gz": lambda: zlib.decompressobj(wbits=31), ".zst": lambda: zstandard.ZstdDecompressor(max_window_size=2**31).decompressobj()}


def documents(path: str, name: str):
    """The texts of one file: a whole .txt, or the fields `text` of JSON lines. `name` is for messages."""
    chunks, where = unzipped(path, name), name
    try:
        if file_kind(path) == ".txt":
            text = b"".join(chunks).decode()
            yield from [text] if text else []
            return
        for number, line in enumerate(lines(chunks), start=1):
            where = f"{name}, line {number}"
            if not line.strip():
                continue
            row = json.loads(line.decode())
            if not isinstance(row, dict) or "text" not in row:
                raise UserError(f'{where} has no field "text", but {", ".join(row) if isinstance(row, dict) else "no object"}')
            if not isinstance(row["text"], str):
                raise UserError(f'{where}: "text" is not a string, but {json.dumps(row["text"])[:40]}')
            yield row["text"]
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8 ({error}); convert it first") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is not JSON ({error}); each line must be a JSON object") from None


def lines(chunks):
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
    yield rest


def unzipped(path: str, name: str):
    """The bytes of a file as they are read and counted; an error where they end within a compressed frame."""
    new, unzip = UNZIP.get(Path(path).suffix), None  # a file may be several frames, one after the other
    try:
        with open(path, "rb") as f:
            while data := f.read(2**18):
                count(len(data), 0)
                if not new:
                    yield data
                while new and data:
                    unzip = unzip or new()
                    yield unzip.decompress(data)
                    data, unzip = (unzip.unused_data, None) if unzip.eof else (b"", unzip)
        damaged = unzip is not None
    except (zlib.error, zstandard.ZstdError):
        damaged = True
    if damaged:
        raise UserError(f"{name} is truncated or damaged; download it again")


# --- command ------------------------------------------------------------------------------------------------------


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="corpus.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.error = lambda message: sys.exit(f"corpus.py: {message}; --help lists the flags")
    parser.add_argument("source", help=f"{', '.join(MIXES)}, or .txt, .jsonl, .json files (also .gz, .zst) and globs, joined by commas")
    parser.add_argument("--out", default="out/corpus", help="gets the corpus as a folder; pretrain.py looks in `corpus` beside its own --out")
    parser.add_argument("--tokenizer", default="dolma2", help="dolma2, toy, or the path of a tokenizer.json")
    parser.add_argument("--workers", type=int, default=0, help="processes; default one for each core")
    flags = parser.parse_args(argv)
    folder = corpus_folder(flags.source, flags.out, flags.tokenizer)
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text()) if path.exists() else prepare(flags.source, folder, flags.tokenizer, max(flags.workers, 0))
    rows = [*manifest["sources"], {**manifest, "name": "all", "files": [name for row in manifest["sources"] for name in row["files"]]}]
    width = max(len(row["name"]) for row in rows)
    print(f"{'source':<{width}}  {'files':>7}  {'documents':>12}  {'tokens':>15}  {'share':>7}")
    for row in rows:
        print(f"{row['name']:<{width}}  {len(row['files']):>7,}  {row['documents']:>12,}  {row['tokens']:>15,}  {row['tokens'] / manifest['tokens']:>7.2%}")
    print(folder)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (UserError, OSError) as error:
        sys.exit(f"corpus.py: {error}")
    except KeyboardInterrupt:
        sys.exit("corpus.py: interrupted; the same command goes on where it was stopped")
