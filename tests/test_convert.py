"""Hugging Face directories in and out: bits, shards, both spellings, a hub, and every way in which a source can be wrong."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import ROOT, fake_hub, tiny
from safetensors.torch import load_file, save_file

import convert
import model as M
from data import UserError
from data.tokenizer import get_tokenizer
from plumbing.checkpoint import load_checkpoint, save_checkpoint, tokenizer_of
from plumbing.hub import revision_facts

VOCAB = 600  # of the toy tokenizer


@pytest.fixture
def checkpoint(tmp_path):
    path = str(tmp_path / "ours" / "4B.pt")
    facts = {"tokenizer": "toy", "preset": "toy", "tokens": 4, "id": "x", "recipe": "base"}
    save_checkpoint(path, tiny(VOCAB, n_kv_heads=2, rope_theta=1234.5, norm_eps=1e-6), facts)
    return path


@pytest.fixture
def source(tmp_path, checkpoint):
    """A Hugging Face directory as transformers 5 would write it."""
    folder = tmp_path / "hf"
    convert.main(["to-hf", checkpoint, str(folder)])
    return folder


def from_hf(source, out, *flags):
    convert.main(["from-hf", str(source), "--out", str(out), *flags])
    return load_checkpoint(str(out))


def same_weights(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(
        torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a
    )


def edit(folder, **changes):
    """Change config.json; a value of ... drops the key."""
    path = Path(folder) / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))


def shard(folder, parts=3):
    """Split model.safetensors into several files with an index, as the hub's larger models have."""
    tensors = load_file(folder / "model.safetensors")
    names, weight_map = sorted(tensors), {}
    for i in range(parts):
        file = f"model-{i + 1:05d}-of-{parts:05d}.safetensors"
        save_file({name: tensors[name] for name in names[i::parts]}, folder / file)
        weight_map |= dict.fromkeys(names[i::parts], file)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )
    (folder / "model.safetensors").unlink()


def rewrite(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_out_and_in_again_is_bit_equal(checkpoint, source, tmp_path):
    start = load_checkpoint(checkpoint)[0]
    loaded, facts = from_hf(source, tmp_path / "in" / "4B.pt", "--tokens", "21B", "--seed", "7")
    assert same_weights(start, loaded)
    shape = lambda c: replace(
        c, embed_std=0, linear_std=0, head_std=0, post_norm_gain=0, qk_norm_gain=0
    )  # initialisation is not part of a decoder
    assert shape(loaded.config) == shape(start.config) and loaded.config.vocab_size == VOCAB
    assert (facts["tokens"], facts["seed"], facts["recipe"], facts["preset"], facts["corpus"]) == (
        21_000_000_000,
        7,
        "base",
        "toy",
        str(source),
    )
    tokens = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
    assert torch.equal(start(tokens), loaded(tokens))
    assert sorted(p.name for p in (tmp_path / "in").iterdir()) == ["4B.pt", "tokenizer.json"]
    convert.main(["to-hf", str(tmp_path / "in" / "4B.pt"), str(tmp_path / "again")])
    for name in (
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
    ):  # config.json: another initializer_range
        assert (tmp_path / "again" / name).read_bytes() == (source / name).read_bytes(), name


def test_the_tokenizer_travels_with_the_checkpoint(source, tmp_path):
    out = tmp_path / "in" / "4B.pt"
    facts = from_hf(source, out)[1]
    toy, kept = get_tokenizer("toy"), get_tokenizer(facts["tokenizer"])
    for text in ("say hana has 11 cards . buys 2 .", " \\boxed{ 13, 5}", "naïve 東京 🙂\n"):
        assert kept.encode_ordinary(text) == toy.encode_ordinary(text)
    assert kept.eot_token == toy.eot_token and kept.n_vocab == toy.n_vocab
    moved = tmp_path / "moved"
    (tmp_path / "in").rename(moved)
    assert tokenizer_of(facts, str(moved / "4B.pt")) == str(moved / "tokenizer.json")
    (moved / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="put it beside the checkpoint"):
        tokenizer_of(facts, str(moved / "4B.pt"))


def test_a_shard_more_or_less_is_the_same_model(source, tmp_path):
    whole = from_hf(source, tmp_path / "whole.pt")[0]
    shard(source)
    assert same_weights(whole, from_hf(source, tmp_path / "parts.pt")[0])
    (source / "model.safetensors.index.json").unlink()
    assert same_weights(whole, from_hf(source, tmp_path / "no_index.pt")[0])


def test_both_spellings_of_the_rope_are_read(source, tmp_path):
    theta = 1234.5
    for name, changes in {
        "both": {},
        "hub": {"rope_parameters": ...},
        "hub_null": {"rope_parameters": ..., "rope_scaling": None},
        "five": {
            "rope_theta": ...,
            "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        },
        "five_wins": {
            "rope_theta": 1.0,
            "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        },
    }.items():
        folder = shutil.copytree(source, tmp_path / name)
        edit(folder, **changes)
        assert from_hf(folder, tmp_path / f"{name}.pt")[0].config.rope_theta == theta, name


def test_half_precision_becomes_fp32(checkpoint, source, tmp_path):
    def halve(tensors):
        for name in tensors:
            tensors[name] = tensors[name].to(torch.float16 if "norm" in name else torch.bfloat16)

    rewrite(source, halve)
    start, loaded = load_checkpoint(checkpoint)[0], from_hf(source, tmp_path / "half.pt")[0]
    for name, p in loaded.state_dict().items():
        assert p.dtype == torch.float32 and torch.equal(
            p,
            start.state_dict()[name]
            .to(torch.float16 if "norm" in name else torch.bfloat16)
            .float(),
        )


def test_what_was_done_is_not_done_again(source, tmp_path, capsys):
    from_hf(source, tmp_path / "4B.pt")
    before = (tmp_path / "4B.pt").stat().st_mtime_ns
    from_hf(source, tmp_path / "4B.pt")
    assert (
        "is finished; nothing to do" in capsys.readouterr().out
        and (tmp_path / "4B.pt").stat().st_mtime_ns == before
    )
    for wrong in ("-5", "1e30B"):
        with pytest.raises(UserError, match=f"--tokens {wrong}: give how many"):
            from_hf(source, tmp_path / "4B.pt", "--tokens", wrong)
    with pytest.raises(UserError, match="tokens was 0 and is now 5"):
        from_hf(source, tmp_path / "4B.pt", "--tokens", "5")


def test_the_preset_is_the_nearest_in_size():
    shapes = {
        "toy": tiny().config,
        "1B": M.PRESETS["1B"],
        "4B": M.ModelConfig(d_model=4096, n_layers=32, n_heads=32, n_kv_heads=32, d_ff=11008),
    }
    shapes["small"] = replace(
        M.PRESETS["small"], vocab_size=100_278, padded_vocab_size=100_352, d_model=640
    )
    for name, shape in shapes.items():
        assert convert.nearest_preset(shape) == name


# --- wrong sources ------------------------------------------------------------------------------------------------


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def truncate_a_shard(folder):
    shard(folder)
    path = folder / "model-00002-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def lose_a_shard(folder):
    shard(folder)
    (folder / "model-00003-of-00003.safetensors").unlink()


def lose_a_shard_and_the_index(folder):
    lose_a_shard(folder)
    (folder / "model.safetensors.index.json").unlink()


def write(name, content):
    return lambda folder: (folder / name).write_text(content)


def tensor(name, change):
    return lambda folder: rewrite(
        folder, lambda tensors: tensors.update({name: change(tensors[name])})
    )


def only_bin(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


Q = "model.layers.1.self_attn.q_proj.weight"
WRONG = {
    "truncated": (truncate, "model.safetensors is truncated or damaged"),
    "truncated shard": (truncate_a_shard, "model-00002-of-00003.safetensors is truncated or damaged"),
    "empty file": (write("model.safetensors", ""), "truncated or damaged"),
    "no tensors file": (lambda folder: (folder / "model.safetensors").unlink(), "holds no safetensors file"),
    "pickled weights": (only_bin, "only pytorch_model.bin); load and save_pretrained"),
    "missing shard": (lose_a_shard, "lacks model-00003-of-00003.safetensors of 3 shards"),
    "missing shard, no index": (lose_a_shard_and_the_index, "lacks 8 of 25 tensors"),
    "index points outside": (write("model.safetensors.index.json", '{"weight_map": {"a": "../b.safetensors"}}'), "index.json is damaged"),
    "wrong shape": (tensor(Q, lambda t: t[:-1].clone()), f"{Q} has shape (31, 32), config.json asks for (32, 32)"),
    "transposed": (tensor("model.layers.0.mlp.up_proj.weight", lambda t: t.T.contiguous()), "up_proj.weight has shape"),
    "per-head norm": (tensor("model.layers.0.self_attn.q_norm.weight", lambda t: t[:8].clone()), "q_norm.weight has shape (8,)"),
    "wrong type": (tensor(Q, lambda t: t.to(torch.int8)), "q_proj.weight has type I8; only F32, BF16 and F16"),
    "missing tensor": (lambda folder: rewrite(folder, lambda t: t.pop("model.norm.weight")), "lacks 1 of 25 tensors: model.norm.weight"),
    "unknown tensor": (lambda folder: rewrite(folder, lambda t: t.update(extra=torch.ones(2))), "holds 1 tensors that OLMo2 has not: extra"),
    "other architecture": (lambda folder: edit(folder, model_type="llama", architectures=["LlamaForCausalLM"]), "architecture llama LlamaForCausalLM; only olmo2"),
    "classifier": (lambda folder: edit(folder, architectures=["Olmo2ForSequenceClassification"]), "architecture olmo2 Olmo2ForSequenceClassification"),
    "no architecture": (lambda folder: edit(folder, model_type=...), "architecture None"),
    "tied": (lambda folder: edit(folder, tie_word_embeddings=True), "tie_word_embeddings is True; this decoder has False only"),
    "biases": (lambda folder: edit(folder, attention_bias=True), "attention_bias is True"),
    "activation": (lambda folder: edit(folder, hidden_act="gelu"), "hidden_act is gelu; this decoder has silu only"),
    "scaled rope, hub": (lambda folder: edit(folder, rope_parameters=..., rope_scaling={"type": "linear", "factor": 2.0}), "rope_scaling is"),
    "scaled rope, five": (lambda folder: edit(folder, rope_parameters={"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}), "rope_type is yarn"),
    "no theta": (lambda folder: edit(folder, rope_parameters=..., rope_theta=...), "rope_theta is None"),
    "no eps": (lambda folder: edit(folder, rms_norm_eps=...), "rms_norm_eps is None; it must be a positive number"),
    "no width": (lambda folder: edit(folder, hidden_size=...), "hidden_size is None; it must be a positive number"),
    "odd heads": (lambda folder: edit(folder, num_attention_heads=3), "width 32, 3 heads and 2 key-value heads do not divide"),
    "wide heads": (lambda folder: edit(folder, head_dim=16), "head_dim is 16; this decoder has 8 only"),
    "window": (lambda folder: edit(folder, sliding_window=4096), "sliding_window is 4096"),
    "config is a list": (write("config.json", "[]"), "config.json is not a JSON object"),
    "config is torn": (write("config.json", '{"model_type": "ol'), "config.json is not JSON"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json is missing; give --tokenizer"),
    "other tokenizer": (write("tokenizer.json", '{"model": {"type": "Unigram"}}'), "not a byte-level BPE"),
    "too large a tokenizer": (lambda folder: (edit(folder, vocab_size=300), rewrite(folder, cut_vocabulary)), "has 600 ids, the model only 300 rows"),
}  # fmt: skip


def cut_vocabulary(tensors):
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = tensors[name][:300].clone()


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_source_is_named_and_nothing_is_written(source, tmp_path, case):
    change, message = WRONG[case]
    change(source)
    with pytest.raises((UserError, OSError)) as caught:
        from_hf(source, tmp_path / "out" / "4B.pt")
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_another_tokenizer_in_the_folder_is_not_overwritten(source, tmp_path):
    from_hf(source, tmp_path / "out" / "1B.pt")
    other = json.loads((source / "tokenizer.json").read_text())
    other["added_tokens"][0]["lstrip"] = True
    (source / "tokenizer.json").write_text(json.dumps(other))
    with pytest.raises(
        UserError, match="is another tokenizer than .*; give an --out in another folder"
    ):
        from_hf(source, tmp_path / "out" / "2B.pt")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["1B.pt", "tokenizer.json"]
    assert (
        from_hf(source, tmp_path / "out" / "2B.pt", "--tokenizer", "toy")[1]["tokenizer"] == "toy"
    )


def test_to_hf_leaves_what_is_there(checkpoint, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="exists and is not an empty directory"):
        convert.main(["to-hf", checkpoint, str(full)])
    with pytest.raises(FileNotFoundError, match="there are 4B.pt"):
        convert.main(["to-hf", str(Path(checkpoint).with_name("5B.pt")), str(tmp_path / "new")])
    assert [p.name for p in full.iterdir()] == ["notes.txt"] and not (tmp_path / "new").exists()


def command(*args, **env):
    return subprocess.run(
        [sys.executable, "convert.py", *map(str, args)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **env},
    )


def one_line(done, *parts):
    said = done.stderr.strip()
    assert (
        done.returncode != 0
        and "\n" not in said
        and said.startswith("convert.py")
        and all(part in said for part in parts)
    ), done.stdout + done.stderr


def test_the_command_ends_in_one_line(source, tmp_path):
    offline = {
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HOME": str(tmp_path / "cache"),
    }  # nobody listens on port 9
    out = tmp_path / "out" / "4B.pt"
    truncate(source)
    one_line(command("from-hf", source, "--out", out), "truncated or damaged")
    one_line(
        command("from-hf", "allenai/OLMo-2-0425-1B", "--out", out, **offline),
        "the hub does not answer",
        "check the network or give a directory",
    )
    one_line(command("list", "allenai/OLMo-2-0425-1B", **offline), "the hub does not answer")
    one_line(
        command("from-hf", tmp_path / "nowhere", "--out", out),
        "nowhere is missing: neither a directory nor owner/name",
    )
    one_line(command("from-hf", source), "--out")
    one_line(command("from-hf", source, "--out", tmp_path / "out"), "ends in .pt")
    one_line(command("from-hf", source, "--out", out, "--preset", "2B"), "unknown preset 2B")
    one_line(
        command("from-hf", source, "--out", out, "--revision", "main"),
        "--revision is for repositories on the hub",
    )
    one_line(
        command("from-hf", source, "--out", out, "--tokens", "many"), "'many' is not a token count"
    )
    one_line(command("to-hf", tmp_path / "none.pt", tmp_path / "x"), "none.pt is missing")
    one_line(command("to_hf"), "invalid choice")
    assert not out.parent.exists()


# --- the hub ------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(source, tmp_path):
    """What the real hub answers to the four requests that listing and downloading make, for one repository."""
    revisions = [
        "main",
        "stage2-ingredient3-step23852-tokens51B",
        "stage1-step10000-tokens21B",
        "stage1-step300-tokens1B",
        "stage1-step1907359-tokens4001B",
    ]
    sha, repo = "0" * 39 + "1", "some/olmo2"

    def answer(method, path):
        files = [p.name for p in sorted(source.iterdir())]
        if path == f"/api/models/{repo}/refs":
            return (
                200,
                {
                    "branches": [
                        {"name": n, "ref": f"refs/heads/{n}", "targetCommit": sha}
                        for n in revisions
                    ],
                    "tags": [],
                    "converts": [],
                },
                {},
            )
        if (
            path in [f"/api/models/{repo}/revision/{n}" for n in [*revisions, sha]]
            or path == f"/api/models/{repo}"
        ):
            return (
                200,
                {
                    "_id": "1",
                    "id": repo,
                    "modelId": repo,
                    "sha": sha,
                    "private": False,
                    "siblings": [{"rfilename": f} for f in files],
                },
                {},
            )
        if path in [f"/api/models/{repo}/tree/{n}" for n in [*revisions, sha]]:
            return (
                200,
                [
                    {"type": "file", "path": f, "oid": "2", "size": (source / f).stat().st_size}
                    for f in files
                ],
                {},
            )
        if path in [f"/{repo}/resolve/{sha}/{f}" for f in files]:
            name = path.rsplit("/", 1)[1]
            return (
                200,
                (source / name).read_bytes(),
                {"ETag": f'"{name}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"},
            )
        what = "Revision" if path.startswith(f"/api/models/{repo}/") else "Repo"
        return 404, {"error": f"{what} not found"}, {"X-Error-Code": f"{what}NotFound"}

    with fake_hub(answer, tmp_path / "cache") as env:
        yield env


def test_listing_and_bringing_in_from_a_hub(hub, checkpoint, tmp_path):
    listed = command("list", "some/olmo2", **hub)
    lines = [line.split() for line in listed.stdout.splitlines()]
    assert lines[0] == ["revision", "step", "tokens"], listed.stderr
    assert lines[1:] == [
        ["stage1-step300-tokens1B", "300", "1B"],
        ["stage1-step10000-tokens21B", "10000", "21B"],
        ["stage1-step1907359-tokens4001B", "1907359", "4,001B"],
        ["stage2-ingredient3-step23852-tokens51B", "23852", "51B"],
        ["main", "-", "-"],
    ]
    out = tmp_path / "out" / "21B.pt"
    done = command(
        "from-hf", "some/olmo2", "--revision", "stage1-step10000-tokens21B", "--out", out, **hub
    )
    assert done.returncode == 0, done.stderr
    loaded, facts = load_checkpoint(str(out))
    assert same_weights(loaded, load_checkpoint(checkpoint)[0])
    assert (facts["tokens"], facts["step"], facts["corpus"], facts["commit"]) == (
        21_000_000_000,
        10_000,
        "some/olmo2",
        "0" * 39 + "1",
    )
    one_line(
        command(
            "from-hf", "some/olmo2", "--revision", "step7", "--out", out.with_name("7.pt"), **hub
        ),
        "no revision step7",
        "convert.py list some/olmo2",
    )
    one_line(
        command("from-hf", "some/other", "--out", out.with_name("8.pt"), **hub),
        "neither a directory here nor a public repository",
    )
    assert sorted(p.name for p in out.parent.iterdir()) == ["21B.pt", "tokenizer.json"]


def test_revision_names_are_read_tolerantly():
    assert revision_facts("stage1-step10000-tokens21B") == {
        "stage": 1,
        "step": 10_000,
        "tokens": 21 * 10**9,
    }
    assert revision_facts("step1000-tokens5B") == {"step": 1000, "tokens": 5 * 10**9}
    assert revision_facts("stage2-ingredient1-step9000-tokens19B")["ingredient"] == 1
    assert revision_facts("main") == {} and revision_facts("step-1.5T") == {}


# --- memory -------------------------------------------------------------------------------------------------------

PEAK = """
import os, sys, torch, convert
with torch.device("meta"):
    convert.Transformer(convert.ModelConfig())  # makes torch load 70 MB of code, whatever the size of the checkpoint
peak = lambda: next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak()
convert.main(sys.argv[1:])
print("peak", (peak() - before) * 1024)
"""


@pytest.mark.skipif(
    not os.path.exists("/proc/self/status"), reason="the peak of memory is read from /proc"
)
def test_memory_is_below_one_and_a_third_of_the_weights(tmp_path):
    """Both ways and from bf16, where most weights lie in two large tensors."""
    big = M.Transformer(
        replace(
            tiny(VOCAB).config,
            padded_vocab_size=80_000,
            d_model=384,
            n_heads=4,
            n_kv_heads=4,
            d_ff=1024,
        )
    )
    big.init_weights(0)
    size = 4 * big.num_parameters()
    assert size > 250e6
    save_checkpoint(str(tmp_path / "a.pt"), big, {"tokenizer": "toy"})
    del big

    def peak(*args):
        done = subprocess.run(
            [sys.executable, "-c", PEAK, *map(str, args)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return int(done.stdout.split()[-1])

    assert peak("to-hf", tmp_path / "a.pt", tmp_path / "hf") < 1.3 * size
    assert peak("from-hf", tmp_path / "hf", "--out", tmp_path / "b" / "b.pt") < 1.3 * size
    shutil.copytree(tmp_path / "hf", tmp_path / "bf16")
    rewrite(
        tmp_path / "bf16",
        lambda tensors: tensors.update({k: v.bfloat16() for k, v in tensors.items()}),
    )
    assert peak("from-hf", tmp_path / "bf16", "--out", tmp_path / "c" / "c.pt") < 1.3 * size
