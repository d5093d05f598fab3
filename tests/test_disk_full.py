"""The disk is full, or refuses for another reason: one line, nothing torn stays, and the same command ends
afterwards."""

import contextlib
import errno
import os
import resource
import signal
import subprocess
import time

import numpy as np
import pytest
import torch
import zstandard
from conftest import ROOT, command, tiny
from corpus_files import jsonl, tree, write_files

import convert
from data import files
from data.files import write_aside
from data.prepare import prepare_corpus
from plumbing.checkpoint import load_checkpoint, save_checkpoint
from plumbing.files import append_row, read_rows
from plumbing.log import Log

FACTS = {"tokens": 4, "recipe": "base", "tokenizer": "toy", "id": "x", "preset": "toy"}


@contextlib.contextmanager
def small_disk(most: int):
    """No file may become larger than this, in bytes: the system refuses the rest of a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def line_of(call, *args) -> str:
    with pytest.raises(OSError) as caught:
        call(*args)
    said = str(caught.value)
    assert "\n" not in said
    return said


WRITERS = {
    "torch": lambda file: torch.save({"a": torch.ones(50_000), "b": torch.ones(50_000)}, file),
    "numpy": lambda file: np.save(file, np.ones(50_000)),
    "one write": lambda file: file.write(bytes(400_000)),
    "many": lambda file: [file.write(bytes(1000)) for _ in range(400)],
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("most", [0, 1, 5000, 200_000, 399_000])
def test_a_file_that_does_not_fit_is_not_there(tmp_path, writer, most):
    path = tmp_path / "a.pt"
    path.write_bytes(b"old")
    with small_disk(most):
        said = line_of(write_aside, path, WRITERS[writer])
    assert said.startswith(f"cannot write {path}: File too large (its disk has ")
    assert said.endswith("raise the limit on the size of files (ulimit -f) and repeat the command")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.pt"]
    write_aside(path, WRITERS[writer])
    assert path.stat().st_size >= 400_000


class FullFile:
    """A file on a disk that refuses one kind of call."""

    def __init__(self, file, call: str, number: int):
        self.file = file
        self.call = call
        self.number = number

    def __getattr__(self, name):
        if name == self.call:
            return self.fail
        return getattr(self.file, name)

    def fail(self, *args):
        if self.call == "close":
            self.file.close()
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("call", ["write", "flush", "close", "fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_every_step_of_a_write_may_fail(tmp_path, monkeypatch, call, number):
    def fail(*args):
        raise OSError(number, os.strerror(number))

    path = tmp_path / "a.pt"
    with monkeypatch.context() as patch:
        if call in ("fsync", "replace"):
            patch.setattr(os, call, fail)
        else:
            opened = lambda *args: FullFile(open(*args), call, number)
            patch.setattr(files, "open", opened, raising=False)
        said = line_of(write_aside, path, WRITERS["torch"])
    advice = "check the disk" if number == errno.EIO else "make room"
    assert said.startswith(f"cannot write {path}: {os.strerror(number)} (its disk has ")
    assert f" GB free); {advice} and repeat the command" in said
    assert not os.listdir(tmp_path)


def test_an_error_of_the_writer_itself_stays_what_it_is(tmp_path):
    def write(file):
        open(tmp_path / "missing")

    with pytest.raises(FileNotFoundError, match="missing"):
        write_aside(tmp_path / "a", write)


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path, reason in {
        tmp_path / "file" / "a.pt": "Not a directory; give another path",
        tmp_path / "folder": "Is a directory; give another path",
        tmp_path / ("a" * 250 + ".pt"): "File name too long; give a shorter name",
    }.items():
        said = line_of(write_aside, path, lambda file: file.write(b""))
        assert said == f"cannot write {path}: {reason}"
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


# --- the project's own files ----------------------------------------------------------------------


def test_a_row_that_does_not_fit_is_not_there(tmp_path):
    path = str(tmp_path / "rows.jsonl")
    append_row(path, {"a": 1})
    with open(path, "a") as file:
        file.write('{"a": 2}')  # without a line break
    before = open(path).read()
    with small_disk(30):
        said = line_of(append_row, path, {"a": "x" * 100})
    assert said.startswith(f"cannot write {path}: File too large (its disk has ")
    assert open(path).read() == before
    append_row(path, {"a": 3})
    assert read_rows(path) == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_a_log_names_its_file(tmp_path):
    log = Log(str(tmp_path / "a.pt"), 0)
    with small_disk(30):
        said = line_of(lambda: log.write(1, text="x" * 100))
    assert said.startswith(f"cannot write {log.path}: File too large (its disk has ")
    again = Log(str(tmp_path / "a.pt"), 1)
    again.write(1, text="y")
    assert read_rows(again.path) == [{"step": 1, "text": "y"}]


def test_checkpoints_and_directories_of_hugging_face(tmp_path):
    model = tiny(600)
    ckpt = tmp_path / "4B.pt"
    folder = tmp_path / "hf"
    back = tmp_path / "back" / "4B.pt"
    steps = [
        (ckpt, lambda: save_checkpoint(str(ckpt), model, FACTS)),
        (folder, lambda: convert.main(["to-hf", str(ckpt), str(folder)])),
        (back, lambda: convert.main(["from-hf", str(folder), "--out", str(back)])),
    ]
    for path, step in steps:
        for most in (3000, 100_000, 219_000):
            with small_disk(most):
                said = line_of(step)
            assert said.startswith("cannot write ") and "File too large (its disk has " in said
            assert str(path.parent) in said and not path.exists()
            assert not list(tmp_path.rglob("*.tmp"))
        step()
    loaded, _ = load_checkpoint(str(back))
    for a, b in zip(model.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_folder_of_somebody_elses_is_never_removed(tmp_path):
    """to-hf makes its directory aside, as NAME.tmp, and removes what a killed command left there."""
    ckpt = str(tmp_path / "4B.pt")
    save_checkpoint(ckpt, tiny(600), FACTS)
    aside = tmp_path / "hf.tmp"
    aside.mkdir()
    (aside / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="hf.tmp is in the way; move it"):
        convert.main(["to-hf", ckpt, str(tmp_path / "hf")])
    assert (aside / "thesis.txt").read_text() == "mine"
    (aside / "thesis.txt").unlink()
    (aside / "model.safetensors").write_text("torn")
    convert.main(["to-hf", ckpt, str(tmp_path / "hf")])
    assert not aside.exists()


@pytest.mark.parametrize("most", [500, 1500, 3000])
def test_preparing_a_corpus_leaves_no_torn_piece(tmp_path, most):
    source = write_files(tmp_path, 3)
    prepare_corpus(source, tmp_path / "straight", "toy", 1, piece_tokens=500)
    with small_disk(most):
        said = line_of(prepare_corpus, source, tmp_path / "full", "toy", 1, 500)
    assert said.startswith(f"cannot write {tmp_path / 'full' / 'pieces'}")
    assert not list(tmp_path.rglob("*.tmp"))
    prepare_corpus(source, tmp_path / "full", "toy", 1, piece_tokens=500)
    assert tree(tmp_path / "full") == tree(tmp_path / "straight")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("to_group", [False, True], ids=["to it", "to all"])
def test_sigterm_while_a_corpus_is_prepared(tmp_path, workers, to_group):
    (tmp_path / "a.txt").write_text("a")
    text = zstandard.compress(jsonl(["so many words"] * 10_000)) * 100
    (tmp_path / "long.jsonl.zst").write_bytes(text)
    flags = [f"{tmp_path}/a.txt,{tmp_path}/long.jsonl.zst", "--tokenizer", "toy"]
    flags += ["--out", tmp_path / "out", "--workers", workers]
    process = subprocess.Popen(
        command("data/corpus.py", *flags),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while process.poll() is None and not list(tmp_path.glob("out/*/pieces/*.json")):
        time.sleep(0.01)
    send = os.killpg if to_group else os.kill
    send(process.pid, signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert said == "stopped by SIGTERM; the same command goes on where it was stopped\n"
    assert process.returncode == 128 + signal.SIGTERM
    assert not list(tmp_path.rglob("*.tmp")) and not list(tmp_path.rglob("*.lock"))


def test_a_full_disk_ends_the_corpus_command_in_one_line(tmp_path):
    source = write_files(tmp_path, 3)
    (tmp_path / "9.jsonl").write_bytes(jsonl(["so many words"] * 10_000))
    flags = [source, "--tokenizer", "toy", "--out", tmp_path / "out", "--workers", "2"]

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    def ask(**more):
        asked = command("data/corpus.py", *flags)
        return subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, **more)

    done = ask(preexec_fn=limit)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"corpus.py: cannot write {tmp_path / 'out'}"), done.stderr
    assert "00-00003-0000.bin: File too large (its disk has " in done.stderr
    assert not list((tmp_path / "out").rglob("*.tmp"))
    assert ask().returncode == 0
