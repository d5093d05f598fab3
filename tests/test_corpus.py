"""Text in, rows of tokens out: formats, pieces, budgets, kills, workers, and every way in which a
file can be wrong. The command, the hub and pre-training are in test_corpus_command.py."""

import gzip
import hashlib
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zstandard
from conftest import ROOT
from corpus_files import (
    DOLMA2,
    GOOD,
    TEXTS,
    TOY,
    jsonl,
    needs_files,
    tokens_of,
    tree,
    write_files,
    zipped,
)

from data import UserError, corpus, mixes, prepare
from data.corpus import Corpus
from data.mixes import File, Source
from data.prepare import prepare_corpus
from data.text_files import lines, texts_of_file
from data.tokenizer import get_tokenizer


def stream(folder: Path) -> list[int]:
    return Corpus(folder, 1)[range(len(Corpus(folder, 1)))].ravel().tolist()


@pytest.mark.parametrize("kind", ["", ".gz", ".zst"])
def test_every_format_gives_the_tokens_of_direct_encoding(tmp_path, kind):
    files = {
        "a.txt": "\n".join(TEXTS).encode(),
        "b.jsonl": jsonl(TEXTS),
        "c.json": b"\n \n" + jsonl(TEXTS[:3]).rstrip(b"\n"),
    }
    for name, data in files.items():
        (tmp_path / f"{name}{kind}").write_bytes(zipped(kind, data))
    prepare_corpus(
        ",".join(str(tmp_path / f"{name}{kind}") for name in files),
        tmp_path / "out",
        "toy",
        piece_tokens=100,
    )
    expected = tokens_of(["\n".join(TEXTS)]) + tokens_of(TEXTS) + tokens_of(TEXTS[:3])
    for seq_len in (1, 7, 64, 1000):
        rows = Corpus(tmp_path / "out", seq_len)
        n = len(expected) // seq_len
        assert len(rows) == n and rows[range(n)].dtype == np.uint32
        assert np.array_equal(rows[range(n)], np.reshape(expected[: n * seq_len], (n, seq_len)))
    assert np.array_equal(rows[[1, 0]], rows[[0, 1]][::-1])


@needs_files
def test_text_stays_text_in_dolma2_too(tmp_path):
    encoding = get_tokenizer(DOLMA2)
    for text in [*TEXTS, "half a \ud83d pair", "|||EMAIL_ADDRESS||| <|im_end|>"]:
        assert prepare.encode(text, encoding).tolist() == encoding.encode_ordinary(text)
    blanks = "x" + " " * 1_100_000 + "y"
    assert encoding.decode(prepare.encode(blanks, encoding).tolist()) == blanks


def test_the_manifest_tells_what_is_there(tmp_path):
    source = write_files(tmp_path, 4)
    manifest = prepare_corpus(
        f"{source},{tmp_path / '1.jsonl.gz'}", tmp_path / "out", "toy", piece_tokens=500
    )
    assert (manifest["tokenizer"], manifest["n_vocab"], manifest["documents"]) == (
        "toy",
        TOY.n_vocab,
        150,
    )
    assert [len(row["files"]) for row in manifest["sources"]] == [4, 1] and not (
        tmp_path / "out" / "downloads"
    ).exists()
    assert (
        manifest["tokens"]
        == len(stream(tmp_path / "out"))
        == sum(row["tokens"] for row in manifest["sources"])
    )
    for row in manifest["sources"]:
        first = {}
        for piece in row["pieces"]:
            data = (tmp_path / "out" / "pieces" / piece["name"]).read_bytes()
            facts = json.loads(
                (tmp_path / "out" / "pieces" / piece["name"]).with_suffix(".json").read_text()
            )
            tokens = np.frombuffer(data, "<u4")
            assert (
                piece["sha256"] == facts["sha256"] == hashlib.sha256(data).hexdigest()
                and piece["file"] == facts["file"]
            )
            assert len(tokens) == piece["tokens"] == piece["used"] and tokens[-1] == TOY.eot_token
            assert (tokens == TOY.eot_token).sum() == facts["documents"] and facts[
                "first_document"
            ] == first.get(piece["file"], 0)
            assert facts["last"] or 500 <= len(tokens) < 500 + 470  # the longest document
            first[piece["file"]] = facts["first_document"] + facts["documents"]
        assert set(first.values()) == {30}


@pytest.fixture
def mix(tmp_path, monkeypatch):
    """A mix of three sources of local files: a budget within the first file, one within the third, and all."""
    write_files(tmp_path, 12)
    files = [File(str(path), path.stat().st_size) for path in sorted(tmp_path.glob("*.json*"))]
    found = [
        (Source("a", "", "", 700), files[:4]),
        (Source("b", "", "", 16_000), files[4:9]),
        (Source("c", "", ""), files[9:]),
    ]
    monkeypatch.setitem(mixes.MIXES, "mix", [source for source, _ in found])
    monkeypatch.setattr(prepare, "hub_files", lambda _: found)
    return found


def test_budgets_cut_and_the_number_of_workers_changes_no_byte(mix, tmp_path):
    manifest = prepare_corpus("mix", tmp_path / "one", "toy", workers=1, piece_tokens=300)
    rows = {row["name"]: row for row in manifest["sources"]}
    texts = {file.path: list(texts_of_file(file.path, "")) for _, files in mix for file in files}
    of_source = [
        tokens_of(text for file in files for text in texts[file.path])[: int(source.tokens) or None]
        for source, files in mix
    ]
    assert stream(tmp_path / "one") == sum(of_source, []) and [
        row["tokens"] for row in rows.values()
    ] == [700, 16_000, len(of_source[2])]
    for row, tokens in zip(rows.values(), of_source):
        assert row["documents"] == tokens.count(TOY.eot_token) + (tokens[-1] != TOY.eot_token)
    assert (
        len(rows["a"]["files"]) == 1
        and len(rows["b"]["files"]) == 3
        and rows["a"]["pieces"][-1]["used"] < rows["a"]["pieces"][-1]["tokens"]
    )
    for workers in (2, 4):
        prepare_corpus("mix", tmp_path / "more", "toy", workers, piece_tokens=300)
        assert tree(tmp_path / "more") == tree(tmp_path / "one")


PREPARE = """
import sys
from pathlib import Path
from data.prepare import prepare_corpus
if __name__ == "__main__":
    prepare_corpus(sys.argv[1], Path(sys.argv[2]), "toy", int(sys.argv[3]), piece_tokens=40)
"""


def start(source, folder, workers):
    arguments = [sys.executable, "-c", PREPARE, source, folder, str(workers)]
    return subprocess.Popen(
        arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_three_times_it_ends_in_the_same_bytes(tmp_path, workers):
    source, rng = write_files(tmp_path, 9), random.Random(workers)
    prepare_corpus(source, tmp_path / "straight", "toy", 1, piece_tokens=40)
    pieces, n = tmp_path / "killed" / "pieces", 0
    for _ in range(3):
        process, n = start(source, tmp_path / "killed", workers), n + rng.randrange(1, 60)
        while process.poll() is None and len(list(pieces.glob("*.json"))) < n:
            time.sleep(0.001)
        process.kill()
        process.communicate(timeout=60)  # ends when the last worker does
        n = max(n, len(list(pieces.glob("*.json"))))
    assert not (tmp_path / "killed" / "manifest.json").exists() and n < len(
        list((tmp_path / "straight" / "pieces").glob("*.json"))
    )
    (pieces / "08-00000-0000.bin.tmp").write_bytes(b"torn")
    process = start(source, tmp_path / "killed", workers)
    assert process.communicate(timeout=300)[0] == "" and process.returncode == 0
    assert tree(tmp_path / "killed") == tree(tmp_path / "straight")


def test_another_file_of_the_same_place_is_not_taken_for_it(tmp_path):
    """As when a data set on the hub has changed since the preparation was stopped."""
    (tmp_path / "a.jsonl").write_bytes(jsonl(TEXTS))
    prepare_corpus(str(tmp_path / "a.jsonl"), tmp_path / "out", "toy", piece_tokens=100)
    (tmp_path / "a.jsonl").write_bytes(jsonl(TEXTS[2:]))
    prepare_corpus(str(tmp_path / "a.jsonl"), tmp_path / "out", "toy", piece_tokens=100)
    assert stream(tmp_path / "out") == tokens_of(TEXTS[2:])


SHARED = Path(ROOT).parent / "shared" / "cases"


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfsay \xef\xbb\xbf hana")
    rows = b"\xef\xbb\xbf" + jsonl(["one"]) + b"\xef\xbb\xbf" + jsonl(["two"])  # two files in one
    (tmp_path / "b.jsonl").write_bytes(rows)
    source = f"{tmp_path / 'a.txt'},{tmp_path / 'b.jsonl'}"
    prepare_corpus(source, tmp_path / "out", "toy", 1)
    assert stream(tmp_path / "out") == tokens_of(["say \ufeff hana", "one", "two"])


@pytest.mark.skipif(not SHARED.exists(), reason=f"{SHARED} is not here")
def test_files_of_windows(tmp_path):
    for name in ("bom_corpus.txt", "bom_corpus.jsonl"):
        prepare_corpus(str(SHARED / name), tmp_path / name, "toy", 1)
        first = TOY.encode_ordinary("the cat sat on the mat .")
        assert stream(tmp_path / name)[: len(first)] == first


def test_odd_texts_are_texts(tmp_path):
    texts = ["a\0b", "half a \ud83d pair", "\u2028", "", " " * 3000]
    lines = "".join(json.dumps({"text": text}) + "\r\n" for text in texts)
    (tmp_path / "a.jsonl").write_text(lines, newline="")
    prepare_corpus(str(tmp_path / "a.jsonl"), tmp_path / "out", "toy", 1)
    expected = tokens_of(texts[:1]) + tokens_of(["half a \ufffd pair"]) + tokens_of(texts[2:])
    assert stream(tmp_path / "out") == expected


def test_a_long_line_is_read_in_linear_time():
    """Ten times the bytes take ten times the steps: no part of a line is copied for every chunk."""
    chunk = b"x" * 1000
    copied = []

    class Counted(bytes):
        def split(self, *args):
            copied.append(len(self))
            return super().split(*args)

    (line,) = list(lines(Counted(chunk) for _ in range(500)))
    assert len(line) == 500_000 and sum(copied) == 500_000


def test_pieces_of_a_stopped_preparation_are_looked_at_before_they_are_used(tmp_path):
    """A damaged piece, one of other bytes with the same size, or torn facts: it is made again."""
    (tmp_path / "a.jsonl").write_bytes(jsonl(TEXTS))
    source = str(tmp_path / "a.jsonl")
    prepare_corpus(source, tmp_path / "straight", "toy", 1, piece_tokens=100)
    pieces = tmp_path / "out" / "pieces"

    def damage(name, change):
        (pieces / name).write_bytes(change((pieces / name).read_bytes()))

    for name, change in {
        "00-00000-0001.bin": lambda content: content[:-4] + b"\1\0\0\0",
        "00-00000-0002.bin": lambda content: content[:-4],
        "00-00000-0001.json": lambda content: content[:30],
        "00-00000-0000.json": lambda content: content.replace(b'"tokens": ', b'"tokens": "'),
        "00-00000-0003.json": lambda content: b"[]",
    }.items():
        prepare_corpus(source, tmp_path / "out", "toy", 1, piece_tokens=100)
        (tmp_path / "out" / "manifest.json").unlink()
        damage(name, change)
        prepare_corpus(source, tmp_path / "out", "toy", 1, piece_tokens=100)
        assert tree(tmp_path / "out") == tree(tmp_path / "straight"), name
    (tmp_path / "out" / "manifest.json").unlink()
    other = ["say hana has 12 cards .", *TEXTS[1:]]  # of the same size
    (tmp_path / "a.jsonl").write_bytes(jsonl(other))
    prepare_corpus(source, tmp_path / "out", "toy", 1, piece_tokens=100)
    assert stream(tmp_path / "out") == tokens_of(other)


WRONG = {
    "no text": (
        "a.jsonl",
        GOOD + b'{"id": 1, "body": "x"}\n',
        'a.jsonl, line 46 has no field "text", but id, body',
    ),
    "a list": ("a.jsonl", b"[1]\n", 'a.jsonl, line 1 has no field "text"'),
    "not a string": (
        "a.json",
        b'{"text": null}\n',
        'a.json, line 1: "text" is not a string, but null',
    ),
    "not JSON": ("a.jsonl", GOOD + b"\n{text}\n", "a.jsonl, line 47 is not JSON"),
    "nested": ("a.jsonl", b"[" * 100_000, "a.jsonl, line 1 is not JSON (nested too deeply)"),
    "a long number": ("a.jsonl", b'{"text": ' + b"1" * 5000, "a.jsonl, line 1 is not JSON"),
    "a list of text": ("a.jsonl", b'{"text": ["a"]}', '"text" is not a string, but a list'),
    "zeros": ("a.jsonl", GOOD + bytes(100), "a.jsonl, line 46 is not JSON"),
    "UTF-16": ("a.jsonl", '{"text": "a"}'.encode("utf-16"), "a.jsonl, line 1 is not UTF-8"),
    "not UTF-8": (
        "a.jsonl",
        GOOD + '{"text": "é"}\n'.encode("latin-1"),
        "a.jsonl, line 46 is not UTF-8",
    ),
    "not UTF-8 text": ("a.txt", "é".encode("latin-1"), "a.txt is not UTF-8"),
    "empty": ("a.jsonl", b"", "a.jsonl is empty"),
    "empty text": ("a.txt.gz", gzip.compress(b""), "a.txt.gz is empty"),
    "only blank lines": ("a.jsonl.zst", zstandard.compress(b"\n \n"), "a.jsonl.zst is empty"),
    "half a gz": (
        "a.jsonl.gz",
        gzip.compress(GOOD)[:-9],
        "a.jsonl.gz is truncated or damaged; download it again",
    ),
    "half a zst": (
        "a.jsonl.zst",
        zstandard.compress(GOOD)[:-9],
        "a.jsonl.zst is truncated or damaged; download it again",
    ),
    "half a second zst": (
        "a.jsonl.zst",
        zstandard.compress(GOOD) + zstandard.compress(GOOD)[:30],
        "a.jsonl.zst is truncated or damaged",
    ),
    "a changed byte": (
        "a.jsonl.gz",
        gzip.compress(GOOD)[:-8] + b"12345678",
        "a.jsonl.gz is truncated or damaged",
    ),
    "not a gz": ("a.jsonl.gz", GOOD, "a.jsonl.gz is truncated or damaged"),
    "not a zst": ("a.jsonl.zst", GOOD, "a.jsonl.zst is truncated or damaged"),
    "another kind": ("a.parquet", b"PAR1", "a.parquet is not a .txt, .jsonl or .json file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_named_in_one_line_and_no_manifest_is_written(tmp_path, case):
    name, data, message = WRONG[case]
    (tmp_path / name).write_bytes(data)
    (tmp_path / "good.jsonl").write_bytes(GOOD)
    with pytest.raises((UserError, OSError)) as caught:
        prepare_corpus(
            f"{tmp_path / 'good.jsonl'},{tmp_path / name}",
            tmp_path / "out",
            "toy",
            piece_tokens=100,
        )
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_damaged_corpus_is_not_read(tmp_path):
    source = write_files(tmp_path, 1)
    prepare_corpus(source, tmp_path / "out", "toy", piece_tokens=500)
    with pytest.raises(UserError, match="less than one row of 9000; give more text"):
        Corpus(tmp_path / "out", 9000)
    piece = tmp_path / "out" / "pieces" / "00-00000-0001.bin"
    piece.write_bytes(piece.read_bytes()[:-4])
    with pytest.raises(
        UserError,
        match="0001.bin is missing or has another size than in manifest.json; delete .* and prepare it again",
    ):
        Corpus(tmp_path / "out", 8)


def test_a_corpus_of_another_tokenizer_is_not_read(tmp_path):
    opened = lambda: corpus.open_corpus(
        write_files(tmp_path, 1), str(tmp_path / "run"), "toy", 8, 0, 0
    )
    opened()
    (manifest,) = tmp_path.glob("corpus/*/manifest.json")
    manifest.write_text(manifest.read_text().replace(f'"n_vocab": {TOY.n_vocab}', '"n_vocab": 7'))
    with pytest.raises(
        UserError, match=f"made with a tokenizer of 7 ids, not with toy of {TOY.n_vocab}"
    ):
        opened()
