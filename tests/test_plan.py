"""costs.py and plan.py: what they predict is what autograd, AdamW and the models hold; every --plan runs with nothing there."""

import importlib
import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from conftest import ROOT, tiny

import common
import costs
import model as M
import plan

SCRIPTS = ["pretrain.py", "sft.py", "grpo.py", "parallel.py", "evaluate.py", "excursions.py"]


@pytest.fixture
def ask(tmp_path, monkeypatch, capsys):
    """A script's command line in an empty folder, without a network -> what it prints, or its last words where it refuses."""

    def no_network(*_):
        raise AssertionError("a plan needs no network")

    def ask(script, *args):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [script, *args])
        monkeypatch.setattr("socket.socket.connect", no_network)
        module, code = importlib.import_module(script.removesuffix(".py")), None
        try:
            if script == "excursions.py":
                module.main(list(args))
            else:
                common.launch(module.main, module.Config, module.PRESETS, getattr(module, "SETTINGS", {}))
        except SystemExit as end:
            code = end.code
        assert not list(tmp_path.iterdir()), "a plan writes nothing"
        return code or capsys.readouterr().out

    return ask


def built(stage, *flags, **machine):
    config, shape = plan.read_config(stage, list(flags))
    return plan.build(stage, config, shape, costs.Machine(**machine)), config


# ---------------------------------------------------------------------------------------------- arithmetic


@pytest.mark.parametrize("preset", ["toy", "small"])
def test_parameters_are_the_models(preset):
    shape = plan.shape_of(preset, "toy")
    assert costs.parameters(shape)["all"] == sum(p.numel() for p in M.Transformer(shape).parameters())


def test_the_known_numbers_of_the_1B():
    shape = M.PRESETS["1B"]
    P = costs.parameters(shape)
    assert (P["all"], P["matmul"], P["block"], P["head"]) == (1_484_916_736, 1_279_262_720, 67_117_056, 205_520_896)
    assert costs.parameters(M.PRESETS["4B"])["all"] == 4_014_246_912
    assert round(costs.train_flops(shape, 1, 4096) / 1e9, 2) == 9.29 and round(costs.train_flops(shape, 1, 1024) / 1e9, 2) == 8.08
    assert costs.kv_bytes_per_token(shape) == 128 * 1024


def test_decoding_is_the_roofline():
    """256 slots at a context of 400 tokens: 2.56 GB of weights (0.41 more with the head in fp32) and 13.4 GB of keys and values."""
    p, _ = built("grpo", "--slots", "256", "--max_prompt", "1200", bandwidth=1.0, expected_prompt=300, expected_length=200)
    seconds = next(seconds for name, *_, seconds in p.phases if name == "sampling: decode")
    tokens = next(tokens for name, tokens, *_ in p.phases if name == "sampling: decode")
    step = (2 * 1_279_262_720 + 2 * 205_520_896 + 256 * 400 * 131_072) / 3.35e12
    assert tokens == 1560 * 512 * 32 * 200 and seconds == pytest.approx(tokens / 256 * step)


# ---------------------------------------------------------------------------------------------- memory


def saved_bytes(model, lengths) -> int:
    """What autograd keeps for the backward pass, each storage once, without the weights."""
    weights, seen = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

    def keep(x):
        if x.untyped_storage().data_ptr() not in weights:
            seen[x.untyped_storage().data_ptr()] = x  # held, so that no address is used twice
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        model.hidden(torch.zeros(sum(lengths), dtype=torch.int64), lengths)
    return sum(x.untyped_storage().nbytes() for x in seen.values())


@pytest.mark.parametrize("changes", [dict(n_layers=3), dict(d_model=64, d_ff=256), dict(n_kv_heads=2)])
@pytest.mark.parametrize("lengths", [[64] * 4, [90, 70, 33, 20], [120]])
def test_activations_are_what_autograd_saves(lengths, changes):
    model = tiny()
    model = M.Transformer(replace(model.config, **changes))
    predicted = costs.activation_bytes(model.config, sum(lengths), "cpu", len(lengths) * max(lengths))
    assert predicted == pytest.approx(saved_bytes(model, lengths), rel=0.05)


def test_activations_of_compiled_blocks():
    """The partitioner that torch.compile uses decides what is kept; here without generating code, in bf16 as on a GPU."""
    model = M.Transformer(replace(tiny().config, d_model=128, d_ff=512, n_layers=3)).bfloat16()
    for block in model.layers:
        block.compile(backend="aot_eager_decomp_partition")
    predicted = costs.activation_bytes(model.config, 4 * 64, "compiled") + 4 * 64 * 4 * 128  # on a CPU the last norm keeps two tensors
    assert predicted == pytest.approx(saved_bytes(model, [64] * 4), rel=0.05)


def test_weights_gradients_and_moments_are_exact():
    model = tiny()
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(2, 5, dtype=torch.int64)).sum().backward()
    optimizer.step()
    p = costs.Plan("sft", model.config, costs.Machine(gpu="cpu", gpus=1))
    costs.hold_training(p, 10, 10)
    size = lambda tensors: sum(x.numel() * x.element_size() for x in tensors)
    moments = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    assert list(p.memory.values()) == [size(model.parameters()), size(moments)]
    assert p.peaks["updating"]["gradients, fp32, sharded"] == size(p.grad for p in model.parameters())


@pytest.mark.parametrize("stage", ["pretrain", "sft", "grpo", "parallel"])
def test_4B_does_not_fit_on_one_gpu_and_what_is_advised_fits(stage):
    one, config = built(stage, "--preset", "4B", gpus=1)
    assert not plan.fits(one) and "--gpus" in plan.advise(one, config)[-1]
    eight, config = built(stage, "--preset", "4B", gpus=8)
    flags = [] if plan.fits(eight) else re.search(r"give (--micro_tokens \d+)$", plan.advise(eight, config)[-1])[1].split()
    assert plan.fits(built(stage, "--preset", "4B", *flags, gpus=8)[0])


def test_what_settings_add():
    parts = lambda *flags: built("grpo", "--preset", "1B", *flags)[0]
    assert "reference, fp32, sharded" not in parts().memory
    assert "reference, fp32, sharded" in parts("--kl", "0.001").memory
    assert "old log-probs" not in [name for name, *_ in parts("--mini_batches", "1").phases]
    parallel, summed = built("parallel")[0], built("parallel", "--mode", "sum")[0]
    assert parallel.memory["4 moments, fp32, sharded"] == 2 * summed.memory["2 moments, fp32, sharded"]
    assert built("grpo", "--max_response", "1500", "--setting", "run", "--ckpt", "x/1B/4B.sft.pt")[1].mini_batches == 1  # RL after SFT


# ---------------------------------------------------------------------------------------------- the flag


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("preset", ["toy", "4B"])
def test_a_plan_needs_nothing_and_writes_nothing(script, preset, ask):
    text = ask(script, "--preset", preset, "--plan")
    assert re.search(r"^\s*in all ", text, re.M) and ("peak" in text or script == "excursions.py")


@pytest.mark.parametrize("script", ["grpo.py", "excursions.py"])
def test_as_a_command(script, tmp_path):
    start = [sys.executable, os.path.join(ROOT, script), "--preset", "1B", "--plan"]
    done = subprocess.run(start, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and "in all" in done.stdout and not done.stderr and not list(tmp_path.iterdir())


def test_other_ways_to_ask(ask):
    assert "fits" in ask("grpo.py", "--ckpt", "nowhere/toy/3.6M.sft.pt", "--plan")
    assert "1 x a100 " in ask("evaluate.py", "--preset", "1B", "--shots", "8", "--plan", "--gpus", "1", "--gpu", "a100", "--price", "2")
    assert "per seed" in ask("excursions.py", "--preset", "1B", "--seeds", "3", "--only", "figure9", "--plan", "--expected_length", "300")
    assert "--mfu" in ask("sft.py", "--plan", "--help")


@pytest.mark.parametrize(
    "args, says",
    [
        (["pretrain.py", "--plan", "--gpus", "0"], "--gpus 0 must be 1 or more"),
        (["sft.py", "--plan", "--mfu", "1.5"], "share of the peak"),
        (["grpo.py", "--plan", "--gpu", "abacus"], "choose from"),
        (["grpo.py", "--plan", "--bandwidth", "0"], "share of the peak"),
        (["grpo.py", "--plan", "--n", "1"], "at least 2 rollouts"),
        (["parallel.py", "--plan", "--mode", "both"], "choose parallel"),
        (["evaluate.py", "--plan", "--slotz", "3"], "did you mean --slots"),
        (["pretrain.py", "--plan", "--tokens", "many"], "is not a token count"),
        (["pretrain.py", "--plan", "--keep", "1M,9B"], "--keep 9B lies beyond --tokens 3.6M"),
        (["grpo.py", "--plan", "--max_response", "4000"], "the model's limit is 4096"),
        (["evaluate.py", "--plan", "--task", "gsm9k"], "unknown task 'gsm9k'"),
        (["pretrain.py", "--gpus", "8"], "unknown flag"),
        (["excursions.py", "--plan", "--gpus", "no"], "invalid int"),
        (["excursions.py", "--plan", "--mfu", "0"], "share of the peak"),
        (["excursions.py", "--gpus", "8"], "unrecognized"),
    ],
)
def test_impossible_flags_end_in_one_line(args, says, ask):
    error = ask(*args)
    assert says in error and error.startswith(args[0] + ": ") and "\n" not in error


def test_a_plan_is_no_part_of_a_run():
    """The values of a run and what a checkpoint records stay as they are."""
    config, _ = plan.read_config("grpo", ["--preset", "toy"])
    assert not {"plan", "gpus", "gpu", "mfu", "price"} & vars(config).keys()
