"""Rows of tokens to pre-train on: made once, kept in one file, memory-mapped.

    rows = open_corpus("toy", "out/toy", "toy", seq_len=80, n_tokens=3_600_000, seed=0)   # (rows, seq_len)

A corpus is the embedded toy world, or local text and jsonl (field `text`) files: documents in the files' order,
separated by the end-of-text token, cut into rows. Which rows a step reads is decided by (seed, step) in common.py.
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np

from data import UserError
from data.tokenizer import get_tokenizer


def open_corpus(source: str, folder: str, tokenizer: str, seq_len: int, n_tokens: int, seed: int) -> np.ndarray:
    """-> (rows, seq_len) uint16 or uint32, memory-mapped; made first where it is not there yet.

    Every process may call it: the file is written aside and renamed, and the same arguments make the same bytes.
    """
    recipe = {"source": source, "tokenizer": tokenizer, "seq_len": seq_len, "seed": seed}
    if source == "toy":
        recipe["n_tokens"] = n_tokens
    else:
        recipe["files"] = [[name, checked_size(name)] for name in source.split(",")]
    name = hashlib.blake2b(json.dumps(recipe).encode(), digest_size=6).hexdigest()
    path = os.path.join(folder, "corpus", f"{name}.npy")
    if not os.path.exists(path):
        encoding = get_tokenizer(tokenizer)
        if source == "toy":
            from data import toy

            check_toy(tokenizer)
            rows = toy.rows(seed, n_tokens, seq_len, encoding)
        else:
            rows = rows_of_files(source.split(","), encoding, seq_len)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        aside = f"{path}.{os.environ.get('RANK', 0)}.tmp"  # every rank may be writing the same
        with open(aside, "wb") as f:
            np.save(f, rows)
        os.replace(aside, path)
        Path(path).with_suffix(".json").write_text(json.dumps({**recipe, "rows": len(rows), "tokens": rows.size}, indent=2))
    return np.load(path, mmap_mode="r")


def checked_size(name: str) -> int:
    if not os.path.isfile(name):
        raise FileNotFoundError(f"{name} is missing; --data takes `toy` or text and jsonl files joined by commas")
    return os.path.getsize(name)


def check_toy(tokenizer: str) -> None:
    if tokenizer != "toy":
        raise UserError(f"the toy world is written for the toy tokenizer, not {tokenizer}; give --tokenizer toy or other --data")


def documents(name: str):
    """The texts of one file: a jsonl's `text` fields, or a whole text file as one document."""
    with open(name, encoding="utf-8") as f:
        if not name.endswith(".jsonl"):
            yield f.read()
            return
        for number, line in enumerate(f, start=1):
            try:
                yield json.loads(line)["text"]
            except (ValueError, KeyError, TypeError):
                raise UserError(f'{name}, line {number} is not a JSON object with a field "text"') from None


def rows_of_files(names: list[str], encoding, seq_len: int) -> np.ndarray:
    stream = []
    for name in names:
        for text in documents(name):
            stream.extend(encoding.encode_ordinary(text))
            stream.append(encoding.eot_token)
    n_rows = len(stream) // seq_len
    if not n_rows:
        raise UserError(f"{','.join(names)} holds {len(stream)} tokens, less than one row of {seq_len}; give more text")
    dtype = np.uint16 if encoding.n_vocab <= 65536 else np.uint32
    return np.array(stream[: n_rows * seq_len], dtype).reshape(n_rows, seq_len)
