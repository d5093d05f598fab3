"""Files that are damaged, strangers' or edited: the right value or one clear line, never anything else."""

import contextlib
import hashlib
import io
import json
import os
import random
import resource
import shutil

import numpy as np
import pytest
import torch
from conftest import tiny
from corpus_files import write_files

import convert
from data import UserError
from data.corpus import Corpus, open_corpus
from data.prepare import prepare_corpus
from data.tokenizer import get_tokenizer
from plumbing import checkpoint, pt_file
from plumbing.checked_state import check_state, read_state
from plumbing.checkpoint import load_checkpoint, read_facts, save_checkpoint, save_file
from plumbing.files import append_row, read_rows
from plumbing.hashes import weights_hash
from plumbing.log import Log
from plumbing.optimizer import adamw
from plumbing.sharding import full_state, full_weights

FACTS = {"tokens": 4, "recipe": "base", "tokenizer": "toy", "id": "x", "preset": "toy", "seed": 0}
FACTS |= {"config": {"lr": 1e-3, "data": "toy"}, "code": "abc", "base_id": None}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A whole checkpoint, and a Hugging Face directory made of it."""
    folder = tmp_path_factory.mktemp("made")
    save_checkpoint(str(folder / "4K.pt"), tiny(600), FACTS)
    convert.main(["to-hf", str(folder / "4K.pt"), str(folder / "hf")])
    return folder


@pytest.fixture
def ckpt(made, tmp_path):
    """A copy that a test may damage."""
    return shutil.copy(made / "4K.pt", tmp_path / "4K.pt")


def value_of(path, mmap=False):
    """All that a checkpoint says."""
    model, facts = load_checkpoint(str(path), mmap)
    return weights_hash(model.state_dict()), dict(facts), model.config


def line_of(call, *args) -> str:
    """The one line in which a call ends."""
    with pytest.raises((UserError, OSError)) as caught:
        call(*args)
    said = str(caught.value)
    assert said and "\n" not in said and len(said) < 600, said
    return said


def saved_state(folder):
    """A state as plumbing/resume.py writes it -> its path, the model and its optimizers."""
    model = tiny(600)
    optimizer = adamw(model, 1e-3, (0.9, 0.95), 0.1)
    model(torch.tensor([[1, 2, 3]])).sum().backward()
    optimizer.step()
    path = folder / "a.resume" / "state.pt"
    state = {"step": 3, "config": {"lr": 1e-3}, "origin": {"id": None}}
    state |= {"model": full_weights(model), "optimizers": [full_state(optimizer)]}
    save_file(str(path), state)
    return path, model, [optimizer]


# --- any bytes ------------------------------------------------------------------------------------


def mutated(content: bytes, rng: random.Random) -> bytes:
    """The content with one accident, more often near its ends, where headers and tables stand."""
    near = rng.choice([rng.randrange(len(content)), rng.randrange(3000), -rng.randrange(1, 3000)])
    at = near % len(content)
    n = rng.choice([1, 4, 16, 300])
    kind = rng.choice(["flip", "byte", "cut", "insert", "zero", "delete", "repeat"])
    damaged = bytearray(content)
    if kind == "flip":
        damaged[at] ^= 1 << rng.randrange(8)
    elif kind == "byte":
        damaged[at] = rng.randrange(256)
    elif kind == "cut":
        del damaged[at:]
    elif kind == "insert":
        damaged[at:at] = rng.randbytes(n)
    elif kind == "zero":
        damaged[at : at + n] = bytes(len(damaged[at : at + n]))
    elif kind == "delete":
        del damaged[at : at + n]
    else:
        damaged[at:at] = damaged[at : at + n]
    return bytes(damaged)


def try_mutations(path, read, n: int, may_differ: bool = False) -> None:
    """`read()` of a file with n accidents: what it was before, or one line that names the file.

    may_differ: the format has no checksum, so that another value may be read of other bytes.
    """
    content = path.read_bytes()
    right = read()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(n):
        path.write_bytes(mutated(content, random.Random(seed)))
        try:
            assert read() == right or may_differ, f"another value after accident {seed}"
        except (UserError, OSError) as error:
            said = str(error)
            assert "\n" not in said and path.name in said and len(said) < 600, (seed, said)
    path.write_bytes(content)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory  # kB
    assert grown < 200_000


@pytest.mark.parametrize("mmap", [False, True])
def test_a_checkpoint_of_any_bytes(ckpt, mmap):
    try_mutations(ckpt, lambda: value_of(ckpt, mmap), 150)


def test_facts_of_any_bytes(ckpt):
    try_mutations(ckpt, lambda: dict(read_facts(str(ckpt))), 150)


def test_a_checkpoint_cut_anywhere(ckpt):
    content = ckpt.read_bytes()
    for size in [*range(0, 400, 13), *range(400, len(content), 3001), len(content) - 1]:
        ckpt.write_bytes(content[:size])
        assert "4K.pt is damaged or not a checkpoint" in line_of(read_facts, str(ckpt))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_hugging_face_directory_of_any_bytes(made, tmp_path, name):
    folder = shutil.copytree(made / "hf", tmp_path / "hf")
    out = tmp_path / "out"

    def read():
        get_tokenizer.cache_clear()
        shutil.rmtree(out, ignore_errors=True)
        with contextlib.redirect_stdout(io.StringIO()):
            convert.main(["from-hf", str(folder), "--out", str(out / "a.pt")])
        return read_facts(str(out / "a.pt"))["weights"]

    try_mutations(folder / name, read, 50, may_differ=name != "model.safetensors")
    get_tokenizer.cache_clear()


def test_a_corpus_of_any_bytes(tmp_path):
    prepare_corpus(write_files(tmp_path, 1), tmp_path / "c", "toy", 1, piece_tokens=500)

    def read():
        return Corpus(tmp_path / "c", 8)[[0, 5, 9]].tolist()

    try_mutations(tmp_path / "c" / "pieces" / "00-00000-0000.bin", read, 60)
    # A number of documents is not used, so that another one does no harm.
    try_mutations(tmp_path / "c" / "manifest.json", read, 100)


def test_toy_rows_of_any_bytes(tmp_path):
    def read():
        return open_corpus("toy", str(tmp_path), "toy", 80, 8_000, 0)[[0, 7]].tolist()

    right = read()
    (rows,) = tmp_path.glob("corpus/*.npy")
    try_mutations(rows, read, 60)
    about = rows.with_suffix(".json")
    try_mutations(about, read, 30)
    about.unlink()  # as older code might have left it
    assert read() == right
    rows.unlink()
    assert read() == right


def test_rows_of_any_bytes(tmp_path):
    path = tmp_path / "results.jsonl"
    rows = [{"name": f"{i}", "key": {"n": i}} for i in range(30)]
    for row in rows:
        append_row(str(path), row)
    try_mutations(path, lambda: len(read_rows(str(path))), 150, may_differ=True)
    try_mutations(path, lambda: append_row(str(path), {"name": "more"}), 150)


def test_a_resume_state_of_any_bytes(tmp_path):
    path, model, optimizers = saved_state(tmp_path)

    def read():
        state = read_state(str(path))
        check_state(str(path), state, model, optimizers)
        return state["step"], state["config"], weights_hash(state["model"])

    try_mutations(path, read, 150)


# --- rows of JSON ---------------------------------------------------------------------------------


def test_a_whole_last_line_counts_and_a_torn_one_does_not(tmp_path):
    path = str(tmp_path / "rows.jsonl")
    for last, rows in {
        '{"a": 2}': [{"a": 1}, {"a": 2}],
        '{"a": 2, "b': [{"a": 1}],
        "\0\0\0": [{"a": 1}],
        "  ": [{"a": 1}],
    }.items():
        with open(path, "w") as file:
            file.write('{"a": 1}\n' + last)
        assert read_rows(path) == rows
        append_row(path, {"a": 3})
        assert read_rows(path) == [*rows, {"a": 3}]


def test_a_only_line_without_a_line_break_is_kept(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}')
    append_row(str(path), {"a": 2})
    assert path.read_text() == '{"a": 1}\n{"a": 2}\n'


@pytest.mark.parametrize(
    "line, reason",
    [
        (b'{"a": 1', "is not JSON"),
        (b"[1]", "is not a JSON object"),
        (b"null", "is not a JSON object"),
        (b'{"a": "\xff"}', "is not UTF-8"),
        (b'{"a": \0}', "is not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"1" * 5000 + b"}", "too many digits"),
    ],
)
def test_a_damaged_line_is_named_and_nothing_is_lost(tmp_path, line, reason):
    path = tmp_path / "rows.jsonl"
    content = b'{"a": 1}\n\n' + line + b'\n{"a": 2}\n'
    path.write_bytes(content)
    for call in (read_rows, lambda path: append_row(path, {"a": 3})):
        said = line_of(call, str(path))
        assert f"{path}, line 3 is damaged (" in said and reason in said
        assert "delete that line" in said
    assert path.read_bytes() == content
    said = line_of(read_rows, str(path), "begin again")
    assert said.endswith("; begin again")


@pytest.mark.parametrize("content", ["my notes\n", "my notes", "a,b\n1,2", "[1]\n[2]\n", '"text"'])
def test_a_file_of_something_else_is_left_alone(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_text(content)
    said = line_of(append_row, str(path), {"a": 1})
    assert f"{path} is not a file of JSON rows (" in said and "delete" not in said
    assert path.read_text() == content


def test_a_log_line_without_a_step_is_named(tmp_path):
    out = str(tmp_path / "a.pt")
    log = Log(out, 0)
    log.write(1, loss=0.5)
    with open(log.path, "a") as file:
        file.write('{"step": "2"}\n')
    assert "row 2 has no number of a step; delete that line" in line_of(Log, out, 1)
    with open(log.path, "w") as file:
        file.write('{"step": 1}\n{"st\n')
    assert "a.log.jsonl, line 2 is damaged" in line_of(Log, out, 1)


# --- corpora --------------------------------------------------------------------------------------


def test_damaged_pieces_and_ids_beyond_the_vocabulary(tmp_path):
    prepare_corpus(write_files(tmp_path, 1), tmp_path / "c", "toy", 1, piece_tokens=500)
    piece = tmp_path / "c" / "pieces" / "00-00000-0001.bin"
    manifest = tmp_path / "c" / "manifest.json"
    whole = piece.read_bytes()
    tokens = np.frombuffer(whole, "<u4").copy()
    tokens[7] = 600
    piece.write_bytes(tokens.tobytes())
    said = line_of(Corpus, tmp_path / "c", 8)
    assert f"{piece} is damaged: its checksum is not manifest.json's" in said
    assert f"delete {tmp_path / 'c'} and prepare it again" in said
    about = json.loads(manifest.read_text())
    about["sources"][0]["pieces"][1]["sha256"] = hashlib.sha256(tokens).hexdigest()
    manifest.write_text(json.dumps(about))
    said = line_of(Corpus, tmp_path / "c", 8)
    assert f"{piece} holds the id 600, its tokenizer has 600 ids" in said


def test_a_large_corpus_is_hashed_where_it_was_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr("data.manifest.SMALL", 0)
    prepare_corpus(write_files(tmp_path, 1), tmp_path / "c", "toy", 1, piece_tokens=500)
    piece = tmp_path / "c" / "pieces" / "00-00000-0001.bin"
    hashed = []
    monkeypatch.setattr("data.manifest.hash_and_largest", lambda path: hashed.append(path))
    Corpus(tmp_path / "c", 8)
    assert not hashed
    monkeypatch.undo()
    monkeypatch.setattr("data.manifest.SMALL", 0)
    damaged = bytearray(piece.read_bytes())
    damaged[5] ^= 1
    piece.write_bytes(damaged)
    os.utime(piece, (os.stat(tmp_path / "c" / "manifest.json").st_mtime + 1,) * 2)
    assert "its checksum is not manifest.json's" in line_of(Corpus, tmp_path / "c", 8)


WRONG_MANIFESTS = {
    "n_vocab": ("600", "n_vocab is '600', not a number from 1 on"),
    "tokens": (5.0, "tokens is 5.0"),
    "documents": (None, "documents is None"),
    "source": (3, "source is 3"),
    "sources": ({}, "sources is {}"),
    "sources.0.pieces": ([], "sources[0].pieces is empty"),
    "sources.0.files": ([1], "sources[0].files holds something else than text"),
    "sources.0.tokens": (7, "sources[0].tokens is not the sum"),
    "sources.0.pieces.0": (None, "sources[0].pieces[0] is None"),
    "sources.0.pieces.0.name": ("../a.bin", "pieces[0].name is '../a.bin'"),
    "sources.0.pieces.1.name": ("00-00000-0000.bin", "a piece is listed twice"),
    "sources.0.pieces.0.used": (10**9, "pieces[0].used is more than its tokens"),
    "sources.0.pieces.0.sha256": (1, "pieces[0].sha256 is 1"),
}


def test_a_manifest_of_wrong_types_is_named_by_field(tmp_path):
    prepare_corpus(write_files(tmp_path, 1), tmp_path / "c", "toy", 1, piece_tokens=500)
    path = tmp_path / "c" / "manifest.json"
    content = path.read_text()
    for place, (value, message) in WRONG_MANIFESTS.items():
        manifest = json.loads(content)
        *parents, name = [int(key) if key.isdigit() else key for key in place.split(".")]
        part = manifest
        for key in parents:
            part = part[key]
        part[name] = value
        path.write_text(json.dumps(manifest))
        said = line_of(Corpus, tmp_path / "c", 8)
        assert f"{path} is damaged (" in said and message in said, (place, said)
    for content in ("", "{", "[]", "nul\0"):
        path.write_text(content)
        assert str(path) in line_of(Corpus, tmp_path / "c", 8)


def test_a_text_that_was_changed_is_noticed(tmp_path):
    """Also where its size is the same, as the folder's name knows names and sizes alone."""
    (tmp_path / "a.txt").write_text("say hana has 11 cards . " * 20)
    wanted = (str(tmp_path / "a.txt"), str(tmp_path / "run"), "toy", 8, 0, 0)
    first = open_corpus(*wanted)
    (tmp_path / "a.txt").write_text("say hana has 11 cards . " * 20)  # written again, the same
    assert open_corpus(*wanted).content == first.content
    (tmp_path / "a.txt").write_text("say hana has 12 cards . " * 20)
    said = line_of(open_corpus, *wanted)
    assert "a.txt has changed since" in said and "delete" in said


def test_checkpoint_and_reader_are_the_same_function():
    assert checkpoint.read_file is pt_file.read_file
