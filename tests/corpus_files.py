"""Text files for the tests of corpora, in every format, and what their tokens should be."""

import gzip
import json
import os
import random
from pathlib import Path

import pytest
import zstandard
from conftest import ROOT

from data.tokenizer import get_tokenizer

SHARED = os.path.join(ROOT, "..", "shared", "data")
DOLMA2 = os.path.join(SHARED, "tokenizer", "allenai_dolma2.json")
TEXT = [
    os.path.join(SHARED, f"general_text_{name}")
    for name in ("18f_guides.jsonl.gz", "c4_demo.jsonl", "tinyshakespeare.txt")
]
needs_files = pytest.mark.skipif(
    not all(map(os.path.exists, [*TEXT, DOLMA2])), reason="the text files are not at ../shared/data"
)
TOY = get_tokenizer("toy")
TEXTS = [
    "say hana has 11 cards .",
    "naïve 東京 🙂\r\n",
    "a <|endoftext|> in <|pad|> text",
    "",
    "x" * 300,
    *(f"{i} and {i * i}\n" * 5 for i in range(40)),
]


def tokens_of(texts, encoding=TOY):
    return [
        token for text in texts for token in [*encoding.encode_ordinary(text), encoding.eot_token]
    ]


def jsonl(texts) -> bytes:
    return "".join(
        json.dumps({"id": i, "text": text, "meta": {"text": 1}}, ensure_ascii=i % 2) + "\n"
        for i, text in enumerate(texts)
    ).encode()


def zipped(kind: str, data: bytes) -> bytes:
    """In two frames, as files grow that are written to twice."""
    squeeze = {".gz": gzip.compress, ".zst": zstandard.compress}.get(kind, bytes)
    return squeeze(data[: len(data) // 2]) + squeeze(data[len(data) // 2 :])


def write_files(folder: Path, n: int) -> str:
    """n files of all kinds -> the source that names them."""
    for i in range(n):
        kind = (".jsonl", ".jsonl.gz", ".json.zst")[i % 3]
        texts = [f"{i} {j} " + "word " * random.Random(f"{i} {j}").randrange(90) for j in range(30)]
        (folder / f"{i}{kind}").write_bytes(zipped(kind[-len(Path(kind).suffix) :], jsonl(texts)))
    return str(folder / "*.json*")


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


GOOD = jsonl(TEXTS)
