"""Files that are damaged, strangers' or edited: the right value or one clear line, never anything else."""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from conftest import ROOT, tiny
from corpus_files import write_files

import convert
from data import UserError
from data.corpus import Corpus, open_corpus
from data.prepare import prepare_corpus
from data.tokenizer import get_tokenizer
from plumbing import checkpoint, pt_file
from plumbing.checked_state import check_state, read_state
from plumbing.checkpoint import load_checkpoint, print_facts, read_facts, save_checkpoint, save_file
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


# --- checkpoints, field by field ------------------------------------------------------------------


UP = "layers.0.mlp.up_proj.weight"


def edited(path, change) -> str:
    """Write a checkpoint as an editing script would: whole, with right checksums."""
    model = tiny(600)
    content = {
        "model": dict(model.state_dict()),
        "config": dataclasses.asdict(model.config),
        "facts": dict(FACTS),
    }
    change(content)
    torch.save(content, path)
    return str(path)


def put(part, name, value):
    def change(content):
        content[part][name] = value

    return change


def drop(part, name):
    return lambda content: content[part].pop(name)


def replaced(part, value):
    return lambda content: content.update({part: value})


def cycle(content):
    content["facts"]["facts"] = content["facts"]


def laughs(content):
    """A billion values that take a kilobyte."""
    value = ["ha"]
    for _ in range(30):
        value = [value, value]
    content["facts"]["laughs"] = value


def huge_views(content):
    """Sizes that no memory holds, and tensors of these shapes that share four bytes."""
    content["config"] |= {"d_model": 2**18, "d_ff": 2**20, "padded_vocab_size": 2**24}
    for name, p in content["model"].items():
        content["model"][name] = torch.zeros(1).expand([2**18] * p.ndim)


WEIGHT = torch.zeros(48, 32)
WRONG = {
    "a size as text": (put("config", "d_model", "32"), "config has d_model '32'; it must be a whole number"),
    "a size as a fraction": (put("config", "d_ff", 48.0), "config has d_ff 48.0"),
    "a size of true": (put("config", "n_layers", True), "config has n_layers True"),
    "no heads": (put("config", "n_heads", 0), "n_heads 0; it must be a whole number from 1"),
    "heads that do not divide": (put("config", "n_heads", 3), "d_model 32 is no multiple of n_heads 3"),
    "odd heads": (put("config", "n_heads", 32), "heads of odd width 1"),
    "key-value heads": (put("config", "n_kv_heads", 3), "n_heads 4 is no multiple of n_kv_heads 3"),
    "a small vocabulary": (put("config", "padded_vocab_size", 10), "vocab_size 600 is more than padded_vocab_size 10"),
    "a huge width": (put("config", "d_model", 10**12), "config has d_model 1000000000000"),
    "huge views": (huge_views, "has shape"),
    "huge layers": (put("config", "n_layers", 10**9), "config has n_layers 1000000000"),
    "more layers": (put("config", "n_layers", 4), "its config has n_layers 4, its tensors are of 2"),
    "theta of NaN": (put("config", "rope_theta", float("nan")), "config has rope_theta nan"),
    "theta of text": (put("config", "rope_theta", "1e4"), "config has rope_theta '1e4'"),
    "negative eps": (put("config", "norm_eps", -1e-6), "norm_eps -1e-06; it must be a positive number"),
    "an unknown field": (put("config", "rotary", 1), "config has 'rotary', which no model has"),
    "no width": (drop("config", "d_model"), "its config lacks d_model"),
    "a list for a config": (replaced("config", [1]), "its config is a list, not a dict"),
    "tokens as text": (put("facts", "tokens", "4B"), "its fact tokens is '4B', not of type int"),
    "a recipe of None": (put("facts", "recipe", None), "its fact recipe is None, not of type str"),
    "flags as a list": (put("facts", "config", []), "its fact config is [], not of type dict"),
    "a flag of lists": (put("facts", "config", {"tokens": [[]]}), "the flag 'tokens' in its facts is [[]]"),
    "a set": (put("facts", "mine", {1}), "its facts hold a set"),
    "a tensor among facts": (put("facts", "mine", torch.ones(1)), "its facts hold a Tensor"),
    "facts in facts": (cycle, "its facts are too many or nested too deeply"),
    "a billion facts": (laughs, "its facts are too many or nested too deeply"),
    "facts as text": (replaced("facts", "base"), "its facts are a str, not a dict"),
    "no facts": (lambda content: content.pop("facts"), "is not a checkpoint of this project"),
    "a short tensor": (put("model", UP, WEIGHT[1:].clone()), f"tensor {UP} has shape (47, 32), the config says (48, 32)"),
    "a turned tensor": (put("model", UP, WEIGHT.T), f"tensor {UP} has shape (32, 48)"),
    "whole numbers": (put("model", UP, WEIGHT.int()), f"tensor {UP} has type int32"),
    "a tensor of nothing": (put("model", UP, WEIGHT.to("meta")), f"tensor {UP} has type float32 on meta"),
    "one number for all": (put("model", UP, torch.zeros(1, 1).expand(48, 32)), f"tensor {UP} repeats the same bytes"),
    "no tensor": (put("model", UP, [1.0]), "which is no named tensor"),
    "a tensor less": (drop("model", UP), f"lacks the tensor {UP}"),
    "a tensor more": (put("model", "bias\n", WEIGHT), "has the tensor bias\\n, unlike the model of its config"),
    "no weights": (replaced("model", None), "its weights are a NoneType"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_checkpoint_that_does_not_fit_is_refused_by_field(tmp_path, case):
    change, message = WRONG[case]
    path = edited(tmp_path / "a.pt", change)
    for read in (load_checkpoint, read_facts):
        said = line_of(read, path)
        assert message in said and said.startswith(path) and "delete" not in said


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_parent_that_is_not_finite_is_refused_by_tensor(tmp_path, value):
    def change(content):
        content["model"][UP] = content["model"][UP].clone()
        content["model"][UP][3, 5] = value

    path = edited(tmp_path / "a.pt", change)
    message = f"{path}: tensor {UP} holds NaN or infinite numbers"
    assert message in line_of(load_checkpoint, path)
    assert message in line_of(convert.main, ["to-hf", path, str(tmp_path / "hf")])
    assert not (tmp_path / "hf").exists()
    assert read_facts(path)["recipe"] == "base"  # it does not look at the weights
    model = tiny(600)
    model.layers[0].mlp.up_proj.weight.data[3, 5] = value
    new = str(tmp_path / "new.pt")
    assert f"{new} is not written: tensor {UP}" in line_of(save_checkpoint, new, model, FACTS)
    assert sorted(os.listdir(tmp_path)) == ["a.pt"]


def test_facts_of_older_code_and_of_none(tmp_path):
    path = edited(tmp_path / "a.pt", lambda content: content["facts"].pop("base_id"))
    facts = load_checkpoint(path)[1]
    assert facts["base_id"] is None and facts["corpus"] is None and "base_id" not in facts
    path = edited(tmp_path / "b.pt", lambda content: content["facts"].pop("preset"))
    message = f"{path}: its facts have no preset"
    assert message in line_of(lambda: read_facts(path)["preset"])


def test_the_hash_is_that_of_the_weights_that_are_read(made, tmp_path, capsys):
    path = str(made / "4K.pt")
    written = read_facts(path)["weights"]
    model, facts = load_checkpoint(path, mmap=True)
    assert facts["weights"] == written == weights_hash(model.state_dict())
    content = pt_file.read_file(path)
    content["model"][UP] = content["model"][UP] + 1
    torch.save(content, tmp_path / "edited.pt")
    capsys.readouterr()
    again = load_checkpoint(str(tmp_path / "edited.pt"))[1]["weights"]
    assert again != written and "note: the weights in" in capsys.readouterr().out


def test_the_hash_knows_names_types_shapes_and_bytes():
    x = torch.arange(12.0).reshape(3, 4)
    hashes = [
        weights_hash(tensors)
        for tensors in (
            {"a": x},
            {"b": x},
            {"a": x.reshape(4, 3)},
            {"a": x.T},
            {"a": x.bfloat16()},
            {"a": -x},
            {"a": x, "b": x},
            {},
        )
    ]
    assert len(set(hashes)) == len(hashes) and all(len(h) == 16 for h in hashes)
    assert weights_hash({"b": -x, "a": x.T}) == weights_hash({"a": x.T.contiguous(), "b": -x})


def test_half_precision_is_read_as_fp32(tmp_path):
    path = edited(tmp_path / "a.pt", put("model", UP, torch.ones(48, 32, dtype=torch.bfloat16)))
    model, _ = load_checkpoint(path)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


# --- what is no checkpoint ------------------------------------------------------------------------


def test_what_is_no_checkpoint_is_called_what_it_is(made, tmp_path):
    """Only what was shown to be damaged is to be deleted."""
    (tmp_path / "notes.pt").write_text("my notes\n")
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "weights.bin").write_bytes(b"\x80\x02}q\x00.")
    (tmp_path / "random.pt").write_bytes(random.Random(0).randbytes(5000))
    torch.save(torch.ones(3), tmp_path / "tensor.pt")
    torch.save({"weights": 1}, tmp_path / "dict.pt")
    torch.save({"code": print_facts}, tmp_path / "code.pt")
    with zipfile.ZipFile(tmp_path / "other.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(10**7))
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "run.resume").mkdir()
    (tmp_path / "nothing").mkdir()
    cases = {
        "none.pt": "is missing; there are code.pt",
        "notes.pt": "is damaged or not a checkpoint (it does not begin as one)",
        "random.pt": "is damaged or not a checkpoint (it does not begin as one)",
        "empty.pt": "is damaged or not a checkpoint (it is empty)",
        "weights.bin": "is not a checkpoint of this project, but weights in another format",
        "tensor.pt": "is not a checkpoint of this project; convert.py brings others in",
        "dict.pt": "is not a checkpoint of this project; convert.py brings others in",
        "code.pt": "is not a checkpoint of this project (UnpicklingError)",
        "other.zip": "is damaged or not a checkpoint (it is a zip file of another kind)",
        "pipe.pt": "is not a file",
        "run.resume": "is a folder, not a checkpoint; it holds the state of a run",
        "nothing": "is a folder, not a checkpoint; give the path of a .pt file",
        ".": "is a folder, not a checkpoint; it holds code.pt",
        "notes.pt/a.pt": "is missing",
        "a\0b.pt": "is missing",
    }
    for name, message in cases.items():
        path = f"{tmp_path}/{name}"
        said = line_of(read_facts, path)
        assert said.startswith(path) and message in said
        assert ("delete" in said) == (name == "empty.pt")
    said = line_of(load_checkpoint, str(made / "hf"))
    assert f"it holds Hugging Face files: python convert.py from-hf {made / 'hf'} --out" in said
    said = line_of(load_checkpoint, str(made / "hf" / "model.safetensors"))
    assert (
        f"is a safetensors file, not a checkpoint; python convert.py from-hf {made / 'hf'}" in said
    )


def test_the_command_prints_facts_or_one_line(made, tmp_path):
    def ask(*paths):
        command = [sys.executable, "model.py", *map(str, paths)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    done = ask(made / "4K.pt")
    assert done.returncode == 0 and json.loads(done.stdout)["recipe"] == "base"
    damaged = bytearray((made / "4K.pt").read_bytes())
    damaged[700] ^= 4
    (tmp_path / "a.pt").write_bytes(damaged)
    for paths, message in {
        (tmp_path / "a.pt",): "a.pt is damaged or not a checkpoint",
        (made / "hf",): "python convert.py from-hf",
        (): "usage: python model.py CHECKPOINT.pt",
    }.items():
        done = ask(*paths)
        assert done.returncode == 1 and done.stdout == ""
        assert message in done.stderr and done.stderr.count("\n") == 1


def test_a_whole_file_that_cannot_be_read_is_not_called_damaged(ckpt, monkeypatch):
    """Permissions, open files, the disk, memory: deleting it would help nobody."""

    def fails(error):
        def fail(*args, **more):
            raise error

        return fail

    path = str(ckpt)
    errors = {
        OSError(5, "Input/output error"): "Input/output error",
        OSError(24, "Too many open files"): "Too many open files",
        OSError(13, "Permission denied"): "Permission denied",
        MemoryError(): "Cannot allocate memory",
        RuntimeError("unable to mmap 9 bytes from file <a>: Cannot allocate memory (12)"): "memory",
        RuntimeError("unable to open file <a> in read-only mode: Too many open files (24)"): "open files",
    }  # fmt: skip
    for error, reason in errors.items():
        with monkeypatch.context() as patch:
            patch.setattr(torch, "load", fails(error))
            said = line_of(load_checkpoint, path)
        assert said.startswith(f"cannot read {path}: ") and reason in said
        assert "damaged" not in said and "delete" not in said
        if isinstance(error, OSError):
            with monkeypatch.context() as patch:
                patch.setattr("builtins.open", fails(error))
                assert line_of(read_facts, path).startswith(f"cannot read {path}: {reason}")


@contextlib.contextmanager
def somebody():
    """Root may read every file, so it is somebody else for a while."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_file_that_nobody_may_read(ckpt):
    ckpt.chmod(0)
    with somebody():
        said = line_of(read_facts, str(ckpt))
    assert f"cannot read {ckpt}: Permission denied; change its permissions" in said
    assert "delete" not in said


# --- resume states --------------------------------------------------------------------------------


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


def state_with(change):
    def make(state):
        change(state)
        return state

    return make


def moment(state, name, value):
    state["optimizers"][0]["state"][2][name] = value


def group(state, name, value):
    state["optimizers"][0]["param_groups"][0][name] = value


WRONG_STATES = {
    "no step": (lambda s: s.pop("step"), "step is missing"),
    "step as text": (lambda s: s.update(step="3"), "step is a str, not a int"),
    "before the start": (lambda s: s.update(step=-1), "step is -1"),
    "no flags": (lambda s: s.update(config=None), "config is a NoneType"),
    "strange flags": (lambda s: s["config"].update(lr={1}), "hold a set"),
    "no optimizers": (lambda s: s.update(optimizers=[]), "it has 0 optimizers, this run has 1"),
    "no groups": (lambda s: s["optimizers"][0].pop("param_groups"), "optimizer 1 has no state and param_groups"),
    "other betas": (lambda s: group(s, "betas", (0.5, 0.5)), "other betas in group 0"),
    "other parameters": (lambda s: group(s, "params", [0]), "other params in group 0"),
    "moments of few": (lambda s: s["optimizers"][0]["state"].pop(2), "has moments of other parameters"),
    "no second moment": (lambda s: s["optimizers"][0]["state"][2].pop("exp_avg_sq"), "lacks exp_avg_sq"),
    "a moment of half precision": (lambda s: moment(s, "exp_avg", torch.zeros(16, dtype=torch.half)), "type torch.float16, this run's"),
    "a short moment": (lambda s: moment(s, "exp_avg", torch.zeros(3)), "parameter 2: exp_avg has shape (3,)"),
    "a moment of NaN": (lambda s: moment(s, "exp_avg", s["optimizers"][0]["state"][2]["exp_avg"] * float("nan")), "exp_avg holds NaN"),
    "a moment of text": (lambda s: moment(s, "exp_avg", "x"), "which is no named tensor"),
    "a weight less": (lambda s: s["model"].pop(UP), f"model lacks the tensor '{UP}'"),
    "a weight more": (lambda s: s["model"].update(x=torch.ones(1)), "model has the tensor 'x'"),
    "a short weight": (lambda s: s["model"].update({UP: torch.ones(2)}), f"{UP} has shape (2,) and type torch.float32, this run's (48, 32)"),
    "a weight of inf": (lambda s: s["model"].update({UP: torch.full((48, 32), float("inf"))}), "holds NaN or infinite"),
}  # fmt: skip


def test_a_state_that_does_not_fit_is_refused_by_field(tmp_path):
    path, model, optimizers = saved_state(tmp_path)
    for change, message in WRONG_STATES.values():
        state = pt_file.read_file(str(path))
        change(state)
        wrong = tmp_path / "wrong.resume" / "state.pt"
        save_file(str(wrong), state)

        def read():
            check_state(str(wrong), read_state(str(wrong)), model, optimizers)

        said = line_of(read)
        assert message in said and f"delete {wrong.parent}, and the same command" in said
    check_state(str(path), read_state(str(path), mmap=True), model, optimizers)


def test_a_state_of_another_model_is_refused(tmp_path):
    path, model, optimizers = saved_state(tmp_path)
    other = tiny(600, n_kv_heads=2)
    said = line_of(check_state, str(path), read_state(str(path)), other, optimizers)
    assert (
        "model's layers.0.self_attn.k_proj.weight has shape (32, 32) and type torch.float32, this run's (16, 32)"
        in said
    )
    said = line_of(check_state, str(path), read_state(str(path)), model, optimizers, model)
    assert "the tensors of reference are a NoneType" in said


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
