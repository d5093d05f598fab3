"""Numbers out of range, and numbers that are none: refused at the start, counted, or the end of a run."""

import json
import math
from dataclasses import replace

import pytest
import torch
from test_identity import place, rl_config, sft_config
from test_recipes import base, log

import evaluate
import grpo
import parallel
import pretrain
import sft
from data import UserError
from plumbing import optimizer as O
from plumbing.checkpoint import load_checkpoint
from plumbing.files import read_rows
from plumbing.flags import parse_flags
from plumbing.ranges import RANGES, check_number, lies_in

__all__ = ["base", "place"]  # fixtures

STAGES = (pretrain, sft, grpo, parallel, evaluate)


# ------------------------------------------------------------------------------------ flags


def parse(script, *argv):
    parent = {"preset": "toy", "recipe": "base"}
    settings = getattr(script, "SETTINGS", {})
    argv = [*argv] if script is pretrain else ["--ckpt", "x.pt", *argv]
    return parse_flags(script.Config, script.PRESETS, settings, argv, parent=parent)


@pytest.mark.parametrize("script", STAGES)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999"])
def test_flags_that_are_not_finite_are_refused(script, value):
    floats = {name for name in RANGES if name in script.Config.__dataclass_fields__}
    assert floats
    for name in floats:
        with pytest.raises(UserError, match=f"--{name} .* is not a finite number"):
            parse(script, f"--{name}={value}")


@pytest.mark.parametrize(
    "script, flag, good, bad",
    [
        (sft, "grad_clip", ["0", "0.5", "1e9"], ["-1", "-1e-9"]),
        (sft, "lr", ["0", "1e-6", "1"], ["-1e-3", "1e6"]),
        (sft, "weight_decay", ["0", "0.1", "1"], ["-0.1", "2"]),
        (sft, "beta2", ["0", "0.999"], ["1", "1.5", "-0.1"]),
        (grpo, "dual_clip", ["0", "1.01", "3"], ["1", "0.5", "-3"]),
        (grpo, "clip_low", ["0", "0.2", "1"], ["-0.2", "1.5"]),
        (grpo, "clip_high", ["0", "0.28", "5"], ["-0.2"]),
        (grpo, "kl", ["0", "0.001", "10"], ["-0.001"]),
        (grpo, "tis", ["0", "2"], ["-2"]),
        (grpo, "kv_memory", ["0.1", "1"], ["0", "1.1", "-1"]),
        (parallel, "sft_lr", ["0", "1e-5"], ["-1e-5", "11"]),
        (pretrain, "z_loss", ["0", "1e-5"], ["-1"]),
        (pretrain, "floor", ["0", "1"], ["-0.1", "1.1"]),
        (evaluate, "top_p", ["0.1", "1"], ["0", "1.1"]),
        (evaluate, "temperature", ["0", "0.6"], ["-0.6", "1e-320"]),
    ],
)
def test_ranges(script, flag, good, bad):
    for value in good:
        more = ["--recompute_old"] if flag == "tis" else []
        assert getattr(parse(script, f"--{flag}={value}", *more), flag) == float(value)
    for value in bad:
        with pytest.raises(UserError) as error:
            parse(script, f"--{flag}={value}")
        said = str(error.value)
        assert said.startswith(f"--{flag} {float(value)} must lie in {RANGES[flag]}")
        assert "\n" not in said and ("0 is off" in said) == (
            flag in ("grad_clip", "dual_clip", "kl", "tis", "z_loss")
        )


def test_intervals():
    assert lies_in(0, "[0, 1)") and not lies_in(1, "[0, 1)") and not lies_in(0, "(0, 1]")
    assert lies_in(1e300, "[0, inf)") and not lies_in(-1e-300, "[0, inf)")


def test_every_preset_lies_in_its_ranges():
    for script in STAGES:
        for values in [*script.PRESETS.values(), *getattr(script, "SETTINGS", {}).values()]:
            for name, value in values.items():
                if isinstance(value, float | int) and not isinstance(value, bool):
                    check_number(name, value)


@pytest.mark.parametrize(
    "script, flag, value",
    [(evaluate, "top_p", "1e-46"), (evaluate, "temperature", "1e300"), (grpo, "clip_high", "1e39")]
    + [(grpo, "dual_clip", "1e300"), (sft, "lr", "1e-320"), (pretrain, "grad_clip", "1e38")],
)
def test_what_fp32_does_not_know_is_refused(script, flag, value):
    with pytest.raises(UserError) as error:
        parse(script, f"--{flag}={value}")
    assert str(error.value).startswith(f"--{flag} {float(value)} is no number in fp32; give one")


@pytest.mark.parametrize(
    "script, flag",
    [
        (grpo, "prompts"),
        (grpo, "n"),
        (sft, "batch"),
        (parallel, "sft_batch"),
        (parallel, "interleave"),
    ]
    + [(parallel, "curriculum"), (evaluate, "n"), (evaluate, "shots"), (pretrain, "batch")],
)
def test_lists_that_no_memory_holds_are_refused(script, flag):
    with pytest.raises(UserError, match=f"^--{flag} 1e[+]12 is too large; give at most 10000000$"):
        parse(script, f"--{flag}={10**12}")


def test_whole_numbers_beyond_all_sums_are_refused():
    with pytest.raises(UserError, match="--seed 1e[+]30 is too large"):
        parse(sft, f"--seed={10**30}")
    assert parse(sft, "--seed=-1").seed == -1


@pytest.mark.parametrize("script", STAGES)
def test_a_wrong_value_is_said_before_the_settings_are_shown(script, capsys, tmp_path):
    flag = "--lr=-1" if script is not evaluate else "--top_p=2"
    with pytest.raises(UserError):
        parse(script, flag)
    assert capsys.readouterr().out == ""


# ------------------------------------------------------------------------------------ updates


def layer_with_gradient(value):
    layer = torch.nn.Linear(2, 2, bias=False)
    layer.weight.grad = torch.full_like(layer.weight, value)
    return layer


def test_a_clip_of_zero_is_off():
    layer = layer_with_gradient(100.0)
    assert O.clip_gradients(layer, 0.0) == pytest.approx(200.0)
    assert torch.equal(layer.weight.grad, torch.full((2, 2), 100.0))
    layer = layer_with_gradient(100.0)
    O.clip_gradients(layer, 1.0)
    assert layer.weight.grad.norm().item() == pytest.approx(1.0)


def test_skipped_updates_are_counted_in_a_row_and_end_the_run(capsys):
    layer = torch.nn.Linear(2, 2, bias=False)
    adam = O.adamw(layer, 1e-3, (0.9, 0.99), 0.0)

    def step(gradient):
        layer.weight.grad = torch.full_like(layer.weight, gradient)
        return O.logged_step(layer, adam, 1.0)

    before = layer.weight.detach().clone()
    for _ in range(19):
        assert step(math.nan)["skipped"] == 1
    assert torch.equal(layer.weight, before)
    assert (
        "an update was skipped, its gradient is not finite: 19 in a row" in capsys.readouterr().out
    )
    assert step(1.0)["skipped"] == 0 and not torch.equal(layer.weight, before)
    for _ in range(19):
        step(math.inf)
    with pytest.raises(UserError, match="20 updates in a row had no finite gradient; try") as error:
        step(math.nan)
    assert "\n" not in str(error.value)


def poison(monkeypatch, script, name, when):
    """The gradients of the calls `when` of a backward function become NaN -> the list of calls."""
    real = getattr(script, name)
    calls = []

    def backward(model, *args):
        result = real(model, *args)
        calls.append(True)
        if len(calls) in when:
            next(model.parameters()).grad.fill_(math.nan)
        return result

    monkeypatch.setattr(script, name, backward)
    return calls


CASES = {"sft": (sft, sft_config, "sft_backward", 1), "rl": (grpo, rl_config, "policy_backward", 4)}


@pytest.mark.parametrize("stage", CASES)
def test_a_step_without_a_gradient_is_skipped_and_counted(place, monkeypatch, capsys, stage):
    script, make_config, backward, updates = CASES[stage]
    config = replace(make_config(place), steps=6, log_every=1)
    if stage == "rl":
        updates = config.mini_batches
    poison(monkeypatch, script, backward, [2 * updates + 1])
    script.main(config)
    assert [row["skipped"] for row in log(place / "a.pt")] == [0, 0, 1, 0, 0, 0]
    assert capsys.readouterr().out.count("an update was skipped") == 1
    model, _ = load_checkpoint(str(place / "a.pt"))
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("stage", CASES)
def test_a_run_without_gradients_ends_with_its_last_good_state(place, monkeypatch, capsys, stage):
    """Not one state is written from the first skipped update on, and no result."""
    script, make_config, backward, updates = CASES[stage]
    config = (
        replace(make_config(place), steps=40, save_every=2, reward="")
        if stage == "rl"
        else (replace(make_config(place), steps=40, save_every=2))
    )
    if stage == "rl":
        updates = config.mini_batches
    with monkeypatch.context() as patch:
        poison(patch, script, backward, range(5 * updates + 1, 10_000))
        with pytest.raises(UserError, match="20 updates in a row"):
            script.main(config)
    assert not (place / "a.pt").exists()
    state = torch.load(place / "a.resume" / "state.pt", weights_only=True)
    assert state["step"] == 4
    assert all(x.isfinite().all() for x in state["model"].values())
    rows = log(place / "a.pt")
    assert len(rows) < 40 and sum(row["skipped"] for row in rows) <= 20
    capsys.readouterr()
    script.main(replace(config, steps=40))  # without the poison it goes on from there
    assert "going on from step 4" in capsys.readouterr().out and (place / "a.pt").exists()


def test_weights_that_turn_nan_are_not_saved_over_a_good_state(place, monkeypatch):
    """Of a token that never occurs, so that no loss and no gradient tells of it."""
    real = sft.logged_step
    steps = []

    def step(model, optimizer, max_norm):
        metrics = real(model, optimizer, max_norm)
        steps.append(True)
        if len(steps) == 4:
            next(model.parameters()).data[0, 0] = math.nan
        return metrics

    monkeypatch.setattr(sft, "logged_step", step)
    with pytest.raises(UserError, match="after step 4 the tensor embed_tokens.weight holds NaN"):
        sft.main(replace(sft_config(place), steps=40, save_every=2))
    state = torch.load(place / "a.resume" / "state.pt", weights_only=True)
    assert state["step"] == 2 and not (place / "a.pt").exists()


def test_a_run_that_ends_in_skipped_updates_has_no_result(place, monkeypatch):
    poison(monkeypatch, sft, "sft_backward", range(4, 100))
    with pytest.raises(UserError, match="the last 3 updates had no finite gradient"):
        sft.main(sft_config(place))
    assert not (place / "a.pt").exists()


# ------------------------------------------------------------------------------------ parents


def test_a_parent_that_is_not_finite_is_refused_by_every_stage(place):
    content = torch.load(place / "4K.pt", weights_only=True)
    content["model"]["layers.1.mlp.up_proj.weight"][3, 5] = math.nan
    torch.save(content, place / "4K.pt")
    for main, config in ((sft.main, sft_config(place)), (grpo.main, rl_config(place))):
        with pytest.raises((UserError, OSError), match="layers.1.mlp.up_proj.weight"):
            main(config)
    assert not (place / "a.pt").exists() and not (place / "a.log.jsonl").exists()


def test_a_log_of_numbers_that_are_none_is_still_json(place, monkeypatch):
    poison(monkeypatch, sft, "sft_backward", [2])
    sft.main(sft_config(place))
    text = (place / "a.log.jsonl").read_text()
    assert [json.loads(line)["step"] for line in text.splitlines()] == [1, 2, 3, 4, 5, 6]
    assert read_rows(str(place / "a.log.jsonl"))[1]["skipped"] == 1
