"""The peers of tools/bench.py that are for a GPU: their interfaces, on a CPU, as far as that goes; and a peer that fails."""

import argparse
import functools
import importlib.util
import json
import os
import subprocess
import sys
import threading

import pytest
import torch
from conftest import ROOT, run, tiny

from plumbing.files import read_rows
from tools import bench_sample, nano_vllm, peer
from tools.bench_train import train_ratios
from tools.summary import summary

BENCH = "-m tools.bench"
SIZES = "--prompts 3 --n 2 --new 4 --slots 6 --batches 4 --repeats 1 --work mix".split()
needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="needs transformers"
)


def last_line(said):
    return json.loads(said.strip().splitlines()[-1])


# ---------------------------------------------------------------------------------- the last line


def test_the_last_line_says_what_was_measured(tmp_path):
    out = tmp_path / "rows.jsonl"
    done = subprocess.run(
        [sys.executable, "-m", "tools.bench", "sample", *SIZES, "--plain", "--out", out],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    got = last_line(done.stdout)
    assert got["what"] == "sample" and got["preset"] == "bench" and got["kind"] == "cpu"
    assert got["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert len(got["date"]) == 10 and got["code"] and "threads" in got["device"]
    ours, plain = got["measured"]
    rows = read_rows(str(out))
    for measured, row in zip((ours, plain), rows):
        assert {key: row[key] for key in measured} == measured
        assert row["args"]["n"] == 2 and row["where"]
    times = got["ratios"]["mix"]["ours, plain"]["ours"]
    assert times == pytest.approx(ours["tokens_per_s"] / plain["tokens_per_s"])


def test_ratios_by_hand():
    row = lambda program, speed: {"work": "mix", "program": program, "tokens_per_s": speed}
    rows = [row("ours, 4 slots", 6.0), row("ours, 8 slots", 12.0), row("generate, batch 4", 3.0)]
    rows += [row("generate_batch, up to 8", 2.0), row("generate, batch 8", 4.0)]
    wanted = {"generate": {"ours": 3.0}, "generate_batch": {"ours": 6.0}}
    assert bench_sample.sample_ratios(rows) == {"mix": wanted}
    step = lambda program, speed: {"step": "sft", "program": program, "tokens_per_s": speed}
    rows = [step("ours", 6.0), step("ours, compiled", 9.0), step("transformers", 3.0)]
    assert train_ratios(rows) == {"sft": {"transformers": {"ours": 2.0, "ours, compiled": 3.0}}}
    phase = {"phase": "sample", "seconds": 2.0, "tokens": 10}
    assert summary("step", "toy", [phase], {})["measured"] == [phase | {"tokens_per_s": 5.0}]


# ---------------------------------------------------------------------------------- what is missing


def test_what_is_not_installed_is_said_in_one_line(tmp_path):
    """transformers and nano-vllm hidden, on a machine that says it has a GPU: a line for each, the rows of ours, exit status 0."""
    program = (
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        "hidden = ('transformers', 'nanovllm')\n"
        "importlib.util.find_spec = lambda name, *more: None if name in hidden else find(name, *more)\n"
        "import torch\n"
        "from tools import bench, bench_sample\n"
        "if sys.argv[1] == 'sample':\n"
        "    bench_sample.device = lambda: torch.device('cuda')\n"
        "bench.main()\n"
    )
    how = dict(cwd=ROOT, capture_output=True, text=True, check=True)
    start = [sys.executable, "-c", program]
    said = subprocess.run([*start, "sample", *SIZES, "--peer"], **how).stdout
    missing = [line for line in said.splitlines() if line.startswith("not measured: ")]
    assert [line.split(", which is not installed: pip install ")[0] for line in missing] == [
        "not measured: transformers", "not measured: nano-vllm",
    ]  # fmt: skip
    assert len(last_line(said)["measured"]) == 1
    small = "--prompts 2 --n 2 --new 4 --prompt_tokens 5 --batch 2 --seq_len 8 --repeats 1 --peer"
    said = subprocess.run([*start, "train", *small.split()], **how).stdout
    assert said.count("not measured: transformers, which is not installed: pip install") == 1
    assert {row["program"] for row in last_line(said)["measured"]} == {"ours"}


def test_only_peers_that_there_are():
    said = run(BENCH, "sample", *SIZES, "--peer", "--peers", "vllm", ok=False).strip()
    assert said.splitlines()[-1].startswith("bench.py: --peers: some of generate,generate_batch,")


@needs_transformers
def test_a_peer_that_fails_ends_nothing_but_itself(monkeypatch, capsys):
    args = argparse.Namespace(**dict(seed=0, prompts=3, prompt_tokens=5, n=2, new=6, mean=0))
    vars(args).update(preset="bench", slots=[4], compile=False, plain=False, peer=True, repeats=1)
    vars(args).update(peer_prompts=0, work="mix", progress=False, batches=[2, 4])
    args.peers = ["generate", "generate_batch", "nano-vllm"]
    monkeypatch.setattr(bench_sample, "peers_here", lambda args: args.peers)

    def refuse(*given, **how):
        raise TypeError("an argument\nthat it does not know")

    monkeypatch.setattr(peer, "batching", refuse)
    monkeypatch.setattr(nano_vllm, "measure", refuse)
    rows = bench_sample.bench_sample(args)
    said = capsys.readouterr().out
    programs = [row["program"] for row in rows]
    assert programs == ["ours, 4 slots", "generate, batch 2", "generate, batch 4"]
    for program in ("generate_batch", "nano-vllm"):
        line = f"not measured: {program}, up to 4: TypeError: an argument that it does not know\n"
        assert line in said


# ---------------------------------------------------------------------------------- transformers


@needs_transformers
def test_continuous_batching_samples_what_is_asked_for(monkeypatch):
    """transformers' own manager, on a CPU; its memory is small here, where a GPU's is as much as there is. Two runs of one manager."""
    import transformers

    few = dict(num_blocks=64, max_batch_tokens=64)
    small = functools.partial(transformers.ContinuousBatchingConfig, **few)
    monkeypatch.setattr(transformers, "ContinuousBatchingConfig", small)
    lengths, ended = [3, 1, 4, 2], []
    collect = peer.collect

    def noted(manager, asked, patience):
        ended.append(sorted(asked.values()))
        collect(manager, asked, patience)

    monkeypatch.setattr(peer, "collect", noted)
    with peer.batching(peer.peer_of(tiny()), ([[1, 2, 3], [4, 5, 6]], 2, lengths), 2) as ask:
        ask()
        ask()
    assert ended == [sorted(lengths)] * 2
    assert not [thread for thread in threading.enumerate() if "_run_generation_loop" in thread.name]


class Manager:
    """Ends each request with what it is given."""

    def __init__(self, *results):
        self.results = list(results)

    def get_result(self, timeout):
        return self.results.pop(0) if self.results else None

    def is_running(self):
        return True


def result(name, tokens, error=None):
    return argparse.Namespace(
        request_id=name, generated_tokens=tokens, error=error, is_finished=lambda: True
    )


def test_requests_that_end_otherwise_are_no_measurement():
    peer.collect(Manager(result("a", [1, 2]), None, result("b", [1])), {"a": 2, "b": 1}, 9.0)
    with pytest.raises(RuntimeError, match="1 tokens instead of 2"):
        peer.collect(Manager(result("a", [1])), {"a": 2}, 9.0)
    with pytest.raises(RuntimeError, match="a request failed: no memory"):
        peer.collect(Manager(result("a", [1, 2], "no memory")), {"a": 2}, 9.0)
    with pytest.raises(RuntimeError, match="no request has ended for 0 seconds"):
        peer.collect(Manager(), {"a": 2}, 0.0)


# ---------------------------------------------------------------------------------- nano-vllm

# What its README and its bench.py call, with the checks of its Config: it opens the folder as that does.
STAND_IN = """
import os
from dataclasses import dataclass

@dataclass
class SamplingParams:
    temperature: float = 1.0
    max_tokens: int = 64
    ignore_eos: bool = False

class LLM:
    def __init__(self, model, max_num_seqs=512, max_model_len=4096):
        from transformers import AutoConfig, AutoTokenizer
        assert os.path.isdir(model)
        self.config = AutoConfig.from_pretrained(model)
        assert self.config.model_type == "qwen3" and str(self.config.dtype) == "torch.bfloat16"
        assert not self.config.tie_word_embeddings and self.config.hidden_act == "silu"
        self.longest = min(max_model_len, self.config.max_position_embeddings)
        self.tokenizer = AutoTokenizer.from_pretrained(model, use_fast=True)
        assert isinstance(self.tokenizer.eos_token_id, int) and max_num_seqs == 4

    def generate(self, prompts, sampling_params, use_tqdm=True):
        if not isinstance(sampling_params, list):
            sampling_params = [sampling_params] * len(prompts)
        outputs = []
        for prompt, params in zip(prompts, sampling_params):
            assert max(prompt) < self.config.vocab_size
            tokens = [self.config.vocab_size - 1] * (params.max_tokens - LESS)
            assert len(prompts) == 1 or len(prompt) + len(tokens) <= self.longest
            outputs.append({"text": self.tokenizer.decode(tokens), "token_ids": tokens})
        return outputs
"""
LOADS = {"mix": ([[1, 2, 3], [4, 5]], 2, [3, 1, 4, 2]), "same": ([[6, 7]], 1, [5])}


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """-> put(less): a nanovllm to import, whose rollouts are shorter by that."""

    def put(less):
        (tmp_path / "nanovllm").mkdir(exist_ok=True)
        (tmp_path / "nanovllm" / "__init__.py").write_text(STAND_IN.replace("LESS", str(less)))
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")

    return put


@needs_transformers
def test_nano_vllm_gets_a_model_of_the_same_sizes_and_the_same_work(stand_in):
    stand_in(0)
    shape = tiny().config
    answers = nano_vllm.measure(shape, LOADS, 4, 2, seconds=120)
    assert answers.keys() == LOADS.keys()
    assert all(answer["seconds"] > 0 == answer["peak_bytes"] for answer in answers.values())


@needs_transformers
def test_what_nano_vllm_does_wrong_is_one_line(stand_in):
    stand_in(1)
    shape = tiny().config
    with pytest.raises(RuntimeError, match="^RuntimeError: the rollouts have other lengths"):
        nano_vllm.measure(shape, LOADS, 4, 1, seconds=120)
    with pytest.raises(RuntimeError, match="^it took longer than 0 seconds"):
        nano_vllm.measure(shape, LOADS, 4, 1, seconds=0.01)


@needs_transformers
def test_its_model_is_as_large_as_ours(tmp_path):
    """The same products and caches: as many numbers, but for norms, which are narrower in each head."""
    import transformers

    model = tiny()
    nano_vllm.write_model(model.config, str(tmp_path))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    matrices = lambda model: sorted(tuple(p.shape) for p in model.parameters() if p.ndim == 2)
    assert matrices(theirs) == matrices(model)
    names = set(theirs.state_dict())
    # its loader puts these three in one matrix, and looks for them by these names
    assert {f"model.layers.1.self_attn.{x}_proj.weight" for x in "qkv"} <= names
    assert theirs.lm_head.weight.std() > 0
