"""study/plan.py and its arithmetic: what is predicted is what autograd, AdamW and models hold.

Every --plan runs with nothing there. The memory is that of the program with fast/.
"""

import importlib
import os
import re
import subprocess
import sys
import weakref
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, tiny
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import fast
import model as M
from data.mixes import MIXES
from fast import compiled, cpu, head, packed, paged
from fast.sampling import weights_as_multiplied
from plumbing.batches import response_hidden
from plumbing.flags import launch
from study import budget, costs, memory, stages
from study.advice import advise
from study.plan import read_config, shape_of
from study.stages import plan_stage

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
                launch(module.main, module.Config, module.PRESETS, getattr(module, "SETTINGS", {}))
        except SystemExit as end:
            code = end.code
        assert not list(tmp_path.iterdir()), "a plan writes nothing"
        return code or capsys.readouterr().out

    return ask


def built(stage, *flags, **machine):
    config, shape = read_config(stage, list(flags))
    return plan_stage(stage, config, shape, costs.Machine(**machine)), config


# ---------------------------------------------------------------------------------------------- arithmetic


@pytest.mark.parametrize("preset", ["toy", "small"])
def test_parameters_are_the_models(preset):
    shape = shape_of(preset, "toy")
    counted = sum(p.numel() for p in M.Transformer(shape).parameters())
    assert costs.parameters(shape)["all"] == counted


def test_the_known_numbers_of_the_1B():
    shape = M.PRESETS["1B"]
    P = costs.parameters(shape)
    assert P["all"] == 1_484_916_736 and P["matmul"] == 1_279_262_720
    assert P["block"] == 67_117_056 and P["head"] == 205_520_896
    assert costs.parameters(M.PRESETS["4B"])["all"] == 4_014_246_912
    assert round(costs.training_flops(shape, 1, 4096) / 1e9, 2) == 9.29
    assert round(costs.training_flops(shape, 1, 1024) / 1e9, 2) == 8.08
    assert costs.kv_bytes_per_token(shape) == 128 * 1024


@pytest.mark.parametrize("fp32_head", [False, True])
def test_decoding_is_the_roofline(fp32_head):
    """256 slots at a context of 400 tokens: 2.56 GB of weights (0.41 more with the head in fp32) and 13.4 GB of keys and values."""
    flags = ["--slots", "256", "--max_prompt", "1200", *["--fp32_head"] * fp32_head]
    p, _ = built("grpo", *flags, bandwidth=1.0, expected_prompt=300, expected_length=200)
    seconds = next(seconds for name, *_, seconds in p.phases if name == "sampling: decode")
    tokens = next(tokens for name, tokens, *_ in p.phases if name == "sampling: decode")
    step = (2 * 1_279_262_720 + 2 * 205_520_896 * fp32_head + 256 * 400 * 131_072) / 3.35e12
    assert tokens == 1560 * 512 * 32 * 200 and seconds == pytest.approx(tokens / 256 * step)


def test_what_is_computed_twice_takes_time_only():
    """The head's logits, 2 per weight beside the 6; with --checkpoint_activations another forward pass of the blocks."""
    shape = M.PRESETS["1B"]
    plain, _ = built("pretrain", "--preset", "1B")
    checkpointed, _ = built("pretrain", "--preset", "1B", "--checkpoint_activations")
    (_, tokens, flops, seconds), (_, _, same, more) = *plain.phases, *checkpointed.phases
    per_second = 0.4 * 989e12
    assert flops == same == costs.training_flops(shape, tokens, 4096)
    assert seconds * per_second == pytest.approx(flops + 2 * 205_520_896 * tokens)
    blocks = costs.forward_flops(shape, tokens, 4096) - 2 * 205_520_896 * tokens
    assert (more - seconds) * per_second == pytest.approx(blocks)


# ---------------------------------------------------------------------------------------------- memory


def saved_bytes(model, forward) -> int:
    """What autograd keeps for the backward pass, each storage once, without the weights."""
    weights, seen = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

    def keep(x):
        if x.untyped_storage().data_ptr() not in weights:
            seen[x.untyped_storage().data_ptr()] = x  # held, so that no address is used twice
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        forward(model)
    return sum(x.untyped_storage().nbytes() for x in seen.values())


def hidden_of(lengths):
    """A forward pass over sequences of these lengths."""
    return lambda model: model.hidden(torch.zeros(sum(lengths), dtype=torch.int64), lengths)


def quick(config, **flags):
    """A model as the scripts train it."""
    model = M.Transformer(config)
    fast.install(model, **flags)
    return model


class Held(TorchDispatchMode):
    """The most bytes that tensors made inside have held at one time."""

    now = most = 0

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        def storages(tree):
            tensors = [x for x in tree_leaves(tree) if isinstance(x, torch.Tensor)]
            return {x.untyped_storage()._cdata: x.untyped_storage() for x in tensors}

        known, out = storages((args, kwargs)), op(*args, **(kwargs or {}))
        for key, storage in storages(out).items():
            if key not in known:
                self.now += storage.nbytes()
                weakref.finalize(storage, self.free, storage.nbytes())
        self.most = max(self.most, self.now)
        return out

    def free(self, bytes_):
        self.now -= bytes_


@pytest.mark.parametrize(
    "changes", [dict(n_layers=3), dict(d_model=64, d_ff=256), dict(n_kv_heads=2)]
)
@pytest.mark.parametrize("short", [True, False])
@pytest.mark.parametrize("lengths", [[64] * 4, [90, 70, 33, 20], [120], [200] * 3])
def test_activations_are_what_autograd_saves(lengths, changes, short, monkeypatch):
    if not short:
        monkeypatch.setattr(cpu, "SHORT", 10)
        monkeypatch.setattr(memory, "SHORT_ROW", 10)
    model = quick(replace(tiny().config, **changes))
    rows = (len(lengths), max(lengths))
    predicted = memory.activation_bytes(model.config, sum(lengths), "cpu", rows)
    assert predicted == pytest.approx(saved_bytes(model, hidden_of(lengths)), rel=0.01)


def wide(**flags):
    return quick(replace(tiny().config, d_model=128, d_ff=512, n_kv_heads=2, n_layers=3), **flags)


def casts(model) -> int:
    return 2 * sum(p.numel() for p in model.layers.parameters())


@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_activations_under_autocast(mode, monkeypatch):
    """In bf16 as on a GPU, and the casts of the weights.

    The regions of fast/compiled.py go through the partitioner that decides what is kept, without
    generating code.
    """
    for region in ("queries_keys_values", "add_branches"):
        plain = getattr(compiled, f"plain_{region}")
        part = torch.compile(plain, dynamic=True, backend="aot_eager_decomp_partition")
        monkeypatch.setattr(compiled, region, part)
    model = wide(compile=mode == "compiled")
    with torch.autocast("cpu", torch.bfloat16):
        saved = saved_bytes(model, hidden_of([64] * 4))
    predicted = memory.activation_bytes(model.config, 4 * 64, mode) + casts(model)
    assert predicted == pytest.approx(saved, rel=0.01)


class Flash(torch.autograd.Function):
    """Keeps what flash attention keeps."""

    @staticmethod
    def forward(ctx, q, k, v):
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[1], len(q), dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx, g):
        return None


def test_activations_of_responses_that_share_prompts(monkeypatch):
    """As on a GPU, where attention takes the pack and reads the prompt's keys and values once for each response."""
    monkeypatch.setattr(packed, "takes_packed", lambda q: True)
    monkeypatch.setattr(packed, "packed_attention", lambda q, k, v, *_: Flash.apply(q, k, v))
    model = quick(replace(wide().config, n_kv_heads=4))
    first = [0] * 50
    second = [0] * 30
    prompts = [first, first, second, second]
    responses = [[0] * n for n in (60, 20, 40, 80)]
    tokens = len(first) + len(second) + sum(map(len, responses))
    keys = sum(map(len, prompts)) + sum(map(len, responses))
    with torch.autocast("cpu", torch.bfloat16):
        saved = saved_bytes(model, lambda model: response_hidden(model, prompts, responses))
    predicted = memory.activation_bytes(model.config, tokens, "eager", keys=keys)
    assert predicted + casts(model) == pytest.approx(saved, rel=0.01)


def test_a_checkpointed_block_keeps_its_input():
    model = wide(checkpoint_activations=True)
    with torch.autocast("cpu", torch.bfloat16):
        saved = saved_bytes(model, hidden_of([64] * 4))
    # Nothing goes back here, so that no block keeps all.
    one = memory.block_bytes(model.config, 256, "eager", None, 0.0)
    predicted = memory.activation_bytes(model.config, 256, "eager", checkpoint=True) - one
    assert predicted == pytest.approx(saved, rel=0.01)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("tokens, d_model", [(100, 32), (256, 32), (1000, 32), (600, 256)])
def test_logits_are_what_the_head_holds(tokens, d_model, bf16, monkeypatch):
    """Forward and backward; 256 tokens are a chunk at this vocabulary."""
    if bf16:  # a GPU's product gives fp32 and makes no copies
        product = lambda a, b: a.new_zeros(len(a), b.shape[1], dtype=torch.float32)
        monkeypatch.setattr(head, "product", product)
    vocab = dict(vocab_size=20_000, padded_vocab_size=20_000)
    model = quick(replace(tiny().config, d_model=d_model, n_layers=1, **vocab))
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16), Held() as held:
        hidden = torch.randn(tokens, d_model, requires_grad=True)
        logp, lse, _ = model.logprobs(hidden, torch.zeros(tokens, dtype=torch.int64))
        (logp + lse).sum().backward()
    assert memory.head_chunk(model.config, on_cpu=True) == 256
    predicted = memory.logits_bytes(model.config, tokens, bf16, chunk=256)
    assert predicted == pytest.approx(held.most, rel=0.01)


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_the_chunk_is_the_models(kind, monkeypatch):
    found = []
    monkeypatch.setattr(head.LogProbs, "apply", lambda *args: found.append(args[4]))
    model = quick(replace(tiny().config, vocab_size=900, padded_vocab_size=900))
    hidden = SimpleNamespace(is_cuda=kind == "cuda", device=torch.device(kind))
    model.logprobs(hidden, None)
    assert found == [memory.head_chunk(model.config, kind == "cpu")]


def test_the_constants_of_fast():
    assert memory.SHORT_ROW == cpu.SHORT and memory.QUERIES == cpu.QUERIES
    assert memory.PAGE == paged.PAGE


def test_every_mix_has_its_tokens():
    assert stages.TOKENS_OF_MIX.keys() == MIXES.keys()


@pytest.mark.parametrize("fp32_head", [False, True])
def test_the_samplers_copy(fp32_head):
    copy = weights_as_multiplied(quick(tiny().config), fp32_head)
    held = sum(p.numel() * p.element_size() for p in copy.parameters())
    assert memory.sampling_copy_bytes(copy.config, fp32_head) == held


def test_weights_gradients_and_moments_are_exact():
    model = tiny()
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(2, 5, dtype=torch.int64)).sum().backward()
    optimizer.step()
    p = budget.Plan("sft", model.config, costs.Machine(gpu="cpu", gpus=1))
    budget.hold_training(p, 10, 10, 5)
    size = lambda tensors: sum(x.numel() * x.element_size() for x in tensors)
    moments = []
    for state in optimizer.state.values():
        moments += [state["exp_avg"], state["exp_avg_sq"]]
    assert list(p.memory.values()) == [size(model.parameters()), size(moments)]
    gradients = [weight.grad for weight in model.parameters()]
    assert p.peaks["updating"]["gradients, fp32, sharded"] == size(gradients)


@pytest.mark.parametrize("stage", ["pretrain", "sft", "grpo", "parallel"])
def test_4B_fits_on_eight_gpus_and_on_fewer_what_is_advised_fits(stage):
    assert built(stage, "--preset", "4B", gpus=8)[0].fits()
    for gpus in (1, 2, 4):
        p, config = built(stage, "--preset", "4B", gpus=gpus)
        while not p.fits():
            flags = re.search(r"give((?: --\w+(?: [\d.]+)?)+)", advise(p, config)[-1])[1].split()
            if "--gpus" in flags:
                gpus = int(flags.pop())
                flags.pop()
            p, config = built(stage, "--preset", "4B", *flags, gpus=gpus)
            assert p.fits()


def test_advice_names_checkpointing_and_what_it_saves():
    def give(*flags, gpus):
        warnings = advise(*built("pretrain", "--preset", "4B", *flags, gpus=gpus))
        return warnings[-1].partition("give ")[2]

    peak = lambda *flags, gpus: built("pretrain", "--preset", "4B", *flags, gpus=gpus)[0].peak()
    for flags, gpus, begins in (
        ([], 1, "--checkpoint_activations (c"),
        (["--micro_tokens", "32768"], 8, "--micro_tokens 16384, or --checkpoint_activations"),
    ):
        checkpointed = peak(*flags, "--checkpoint_activations", gpus=gpus)
        saved = (peak(*flags, gpus=gpus) - checkpointed) / costs.GIB
        advice = give(*flags, gpus=gpus)
        assert advice.startswith(begins) and f"saves {saved:.1f} GiB" in advice
    assert "checkpoint" not in advise(*built("evaluate", "--preset", "4B", gpu="4090"))[-1]


def test_what_settings_add():
    parts = lambda *flags: built("grpo", "--preset", "1B", *flags)[0]
    assert "reference, fp32, sharded" not in parts().memory
    assert "reference, fp32, sharded" in parts("--kl", "0.001").memory
    assert "old log-probs" not in [name for name, *_ in parts("--mini_batches", "1").phases]
    parallel, summed = built("parallel")[0], built("parallel", "--mode", "sum")[0]
    moments = "moments, fp32, sharded"
    assert parallel.memory[f"4 {moments}"] == 2 * summed.memory[f"2 {moments}"]
    after_sft = ["--setting", "run", "--ckpt", "x/1B/4B.sft.pt"]
    _, config = built("grpo", "--max_response", "1500", *after_sft)
    assert config.mini_batches == 1


def test_more_passes_and_probing_cost_more():
    phases = lambda *flags: {
        row[0]: row[1:] for row in built("grpo", "--preset", "1B", *flags)[0].phases
    }
    plain = phases()
    twice = phases("--epochs", "2")
    assert twice["update"][1] == 2 * plain["update"][1]  # FLOPs
    assert twice["sampling: decode"] == plain["sampling: decode"] and "probing: decode" not in twice
    probed = phases("--probe", "4")
    assert (
        probed["probing: decode"][0] == plain["sampling: decode"][0] * 2 * 4 / 32
    )  # tokens: twice the problems, 4 of 32 rollouts
    assert "old log-probs" in phases("--mini_batches", "1", "--epochs", "2")


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
    assert done.returncode == 0 and not done.stderr
    assert "in all" in done.stdout and not list(tmp_path.iterdir())


def test_other_ways_to_ask(ask):
    assert "fits" in ask("grpo.py", "--ckpt", "nowhere/toy/3.6M.sft.pt", "--plan")
    machine = ["--gpus", "1", "--gpu", "a100", "--price", "2"]
    assert "1 x a100 " in ask("evaluate.py", "--preset", "1B", "--shots", "8", "--plan", *machine)
    study = ["--preset", "1B", "--seeds", "3", "--only", "figure9"]
    assert "per seed" in ask("excursions.py", *study, "--plan", "--expected_length", "300")
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
    config, _ = read_config("grpo", ["--preset", "toy"])
    assert not {"plan", "gpus", "gpu", "mfu", "price"} & vars(config).keys()
