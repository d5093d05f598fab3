"""Checkpoints and resume states that are damaged, edited or something else: one line, and nothing built."""

import contextlib
import dataclasses
import json
import os
import random
import subprocess
import sys
import zipfile

import pytest
import torch
from conftest import ROOT, tiny
from test_damaged import FACTS, ckpt, line_of, made, saved_state

import convert
from plumbing import pt_file
from plumbing.checked_state import check_state, read_state
from plumbing.checkpoint import load_checkpoint, print_facts, read_facts, save_checkpoint, save_file
from plumbing.hashes import weights_hash

__all__ = ["ckpt", "made"]  # fixtures


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
