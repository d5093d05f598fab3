"""Rows of tokens to pre-train on: the toy world, the paper's two mixes, or local files.

    python data/corpus.py dolmino-50B --tokenizer dolma2     # hours, 206 GB; resumes if stopped
    rows = open_corpus("toy", "out/toy", "toy", seq_len=80, n_tokens=3_600_000, seed=0)
    rows[[7, 3]]                                             # (2, 80)

A prepared corpus is a folder of pieces (data/prepare.py makes it). All pieces in the manifest's
order are one stream, which is cut into rows only when it is read. The order of the rows in training
is one shuffle of all (plumbing/batches.py), so the sources are mixed throughout a run.
"""

import argparse
import functools
import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    # Python puts a script's own folder here, but imports start from the repository.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from data import UserError, toy_text
from data.files import file_errors, read_json, write_aside, write_text
from data.manifest import all_pieces, check_pieces, check_sources, content_of, read_manifest
from data.mixes import MIXES, local_files
from data.prepare import prepare_once
from data.tokenizer import get_tokenizer

TOKENS_PER_MINUTE = 60_000_000  # of the toy world, written by one core: half to all of it


def open_corpus(source: str, out: str, tokenizer: str, seq_len: int, n_tokens: int, seed: int):
    """Rows of a corpus: `len(rows)`, and `rows[a list of b numbers]` -> (b, seq_len).

    `out` is the run's folder. Prepared corpora lie in `corpus` beside it, where other runs find
    them, too. Local files are prepared here; a mix is not, since that takes hours. The toy world,
    made for (n_tokens, seed), lies in the run's folder.
    """
    if source in toy_text.CORPORA:
        return toy_rows(source, out, tokenizer, seq_len, n_tokens, seed)
    root = Path(out).parent / "corpus"
    folder = corpus_folder(source, root, tokenizer)
    if not (folder / "manifest.json").exists():
        if source in MIXES:
            raise UserError(
                f"{source} is not prepared; "
                f"run: python data/corpus.py {source} --tokenizer {tokenizer} --out {root}"
            )
    manifest = prepare_once(source, folder, tokenizer)
    n_vocab = get_tokenizer(tokenizer).n_vocab
    if manifest["n_vocab"] != n_vocab:
        raise UserError(
            f"{folder} was made with a tokenizer of {manifest['n_vocab']} ids, not with "
            f"{tokenizer} of {n_vocab}; delete it or give another --tokenizer"
        )
    check_sources(folder, manifest)
    return Corpus(folder, seq_len)


def corpus_folder(source: str, root: Path, tokenizer: str) -> Path:
    """Where a corpus lies, named by what decides its bytes.

    That is the table of a mix, or the files and their sizes; and the tokenizer.
    """
    files = MIXES.get(source)
    if files is None:
        files = []
        for _, files_of_part in local_files(source):
            files += files_of_part
    tokenizer_id = tokenizer
    if os.path.isfile(tokenizer):
        with file_errors("read", tokenizer):
            tokenizer_id = hashlib.sha256(Path(tokenizer).read_bytes()).hexdigest()
    name = source if source in MIXES else "files"
    return Path(root, f"{name}-{short_hash([files, tokenizer_id])}")


def short_hash(facts: object) -> str:
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=6).hexdigest()


def toy_rows(
    source: str, out: str, tokenizer: str, seq_len: int, n_tokens: int, seed: int
) -> np.ndarray:
    """(rows, seq_len) uint16, memory-mapped; the file is made first if it is not there yet."""
    if tokenizer != "toy":
        raise UserError(
            f"the toy world is written for the toy tokenizer, not {tokenizer}; "
            "give --tokenizer toy or other --data"
        )
    recipe = {
        "source": source,
        "tokenizer": tokenizer,
        "seq_len": seq_len,
        "seed": seed,
        "n_tokens": n_tokens,
        "generator": generator_version(),
    }
    path = Path(out, "corpus", f"{short_hash(recipe)}.npy")
    if not path.exists():
        minutes = n_tokens / TOKENS_PER_MINUTE
        if minutes > 1:
            how_long = f"{minutes:.0f} to {2 * minutes:.0f} minutes of one core"
            print(f"writing {n_tokens:,} tokens of the toy world, once: {how_long}", flush=True)
        rows = toy_text.rows(seed, n_tokens, seq_len, get_tokenizer(tokenizer), source)
        facts = {**recipe, "rows": len(rows), "tokens": rows.size, "sha256": sha256(rows)}
        write_text(path.with_suffix(".json"), json.dumps(facts, indent=2))
        write_aside(path, lambda file: np.save(file, rows))
    return open_rows(path, seq_len, get_tokenizer(tokenizer).n_vocab)


def generator_version() -> str:
    """A hash of the code that writes the toy world: edited code writes its rows anew."""
    digest = hashlib.blake2b(digest_size=6)
    for path in sorted(Path(__file__).parent.glob("toy*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def open_rows(path: Path, seq_len: int, n_vocab: int) -> np.ndarray:
    """The rows in a file of toy_rows. UserError where they are not those that were written."""
    facts_file = path.with_suffix(".json")
    again = f"delete {path}, and the same command makes it again"
    facts = {}
    if facts_file.exists():
        facts = read_json(facts_file, "", f"delete it and {path}")
    with file_errors("read", path):
        path.open("rb").close()
    try:
        rows = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # numpy has no common class for what is wrong with a file
        raise UserError(f"{path} is damaged ({type(error).__name__}); {again}") from None
    whole = rows.dtype == np.uint16 and rows.ndim == 2 and rows.shape[1] == seq_len and len(rows)
    whole = whole and int(rows.max()) < n_vocab
    if not whole or facts.get("sha256", "") not in ("", sha256(rows)):  # older code recorded none
        message = f"{path} is damaged: it holds other rows than {facts_file.name} says"
        raise UserError(f"{message}; {again}")
    return rows


def sha256(rows: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows)).hexdigest()


class Corpus:
    """The rows of a prepared folder.

    Row r is tokens [r * seq_len, (r + 1) * seq_len) of the stream of all pieces.
    """

    def __init__(self, folder: Path, seq_len: int):
        manifest = read_manifest(folder)
        if manifest["tokens"] < seq_len:
            raise UserError(
                f"{folder} holds {manifest['tokens']} tokens, less than one row of {seq_len}; "
                "give more text"
            )
        self.paths = check_pieces(folder, manifest)
        used = np.array([piece["used"] for piece in all_pieces(manifest)])  # (pieces,) tokens
        self.ends = np.cumsum(used)  # (pieces,) tokens of the stream up to each piece's end
        self.starts = self.ends - used
        self.seq_len = seq_len
        self.n_vocab = manifest["n_vocab"]
        self.content = content_of(manifest)  # a hash that stands for the stream

    def __len__(self) -> int:
        return int(self.ends[-1]) // self.seq_len

    def __getitem__(self, rows: list[int]) -> np.ndarray:
        """(b, seq_len) uint32"""
        return np.stack([self.row(r) for r in rows])

    def row(self, r: int) -> np.ndarray:
        """(seq_len,) uint32, put together from as many pieces as it takes."""
        start = r * self.seq_len
        end = start + self.seq_len
        parts = []
        while start < end:
            i = np.searchsorted(self.ends, start, side="right")  # the piece that `start` lies in
            n = min(end, self.ends[i]) - start
            first = start - self.starts[i]
            parts.append(map_piece(self.paths[i])[first : first + n])
            start += n
        return np.concatenate(parts)


@functools.lru_cache(maxsize=256)  # a mix has more pieces than a process may hold open
def map_piece(path: Path) -> np.ndarray:
    return np.memmap(path, "<u4", "r")


# --- command --------------------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        sys.exit(f"corpus.py: {message}; --help lists the flags")


def main(argv: list[str]) -> None:
    """Prepare a corpus, if that is not done yet, and print a table of its sources."""
    parser = Parser(
        prog="corpus.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "source",
        help=f"{', '.join(MIXES)}, or .txt, .jsonl, .json files (also .gz, .zst) and globs, "
        "joined by commas",
    )
    parser.add_argument(
        "--out",
        default="out/corpus",
        help="gets the corpus as a folder; pretrain.py looks in `corpus` beside its own --out",
    )
    parser.add_argument(
        "--tokenizer", default="dolma2", help="dolma2, toy, or the path of a tokenizer.json"
    )
    parser.add_argument(
        "--workers", type=int, default=0, help="processes; default one for each core"
    )
    flags = parser.parse_args(argv)
    folder = corpus_folder(flags.source, flags.out, flags.tokenizer)
    manifest = prepare_once(flags.source, folder, flags.tokenizer, max(flags.workers, 0))
    check_sources(folder, manifest)
    print_table(manifest)
    print(folder)


def print_table(manifest: dict) -> None:
    all_files = []
    for row in manifest["sources"]:
        all_files += row["files"]
    rows = [*manifest["sources"], {**manifest, "name": "all", "files": all_files}]
    width = max(len(row["name"]) for row in rows)
    print(f"{'source':<{width}}  {'files':>7}  {'documents':>12}  {'tokens':>15}  {'share':>7}")
    for row in rows:
        share = row["tokens"] / manifest["tokens"]
        print(
            f"{row['name']:<{width}}  {len(row['files']):>7,}  {row['documents']:>12,}  "
            f"{row['tokens']:>15,}  {share:>7.2%}"
        )


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (UserError, OSError) as error:
        sys.exit(f"corpus.py: {error}")
    except KeyboardInterrupt:
        sys.exit("corpus.py: interrupted; the same command goes on where it was stopped")
