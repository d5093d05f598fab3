"""Flags, batches, schedule, resume files, logs."""

import gc
import threading
import time
import weakref
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import common


@dataclass(frozen=True)
class Config:
    preset: str = "toy"  # scale
    setting: str = "plain"  # fidelity
    lr: float = 1.0  # peak learning rate, 100 % of it
    steps: int = 1  # optimizer steps
    save_every: int = 3  # steps
    top_p: float = 1.0  # nucleus
    progress: bool = True  # a bar
    out: str = ""  # output


PRESETS, SETTINGS = {"toy": {"lr": 2.0, "steps": 2}, "big": {"steps": 3}}, {"plain": {}, "odd": {"lr": 4.0}}


def parse(*argv):
    return common.parse_flags(Config, PRESETS, SETTINGS, list(argv))


def test_flags_override_settings_override_presets_override_defaults(capsys):
    assert parse() == Config(lr=2.0, steps=2)
    assert parse("--preset", "big") == Config(preset="big", steps=3)
    assert parse("--setting", "odd").lr == 4.0 and parse("--setting", "odd", "--lr", "8").lr == 8.0
    assert parse("--top-p", "0.5").top_p == parse("--top_p=0.5").top_p == 0.5
    assert parse("--no-progress").progress is parse("--no_progress").progress is False
    assert parse("--out", "a-b_c").out == "a-b_c" and parse("--out=--x-y").out == "--x-y"
    assert "steps            2                        preset toy" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--stps", "3"], "unknown flag --stps, did you mean --steps?"),
        (["--lr", "fast"], "invalid float value: 'fast'"),
        (["--preset", "huge"], "unknown preset huge; there are toy, big"),
        (["--setting", "x"], "unknown setting x; there are plain, odd"),
        (["3"], "unknown flag 3"),
        (["--steps", "0"], "--steps 0 must be 1 or more"),
    ],
)
def test_a_wrong_flag_is_one_line(argv, message):
    with pytest.raises(SystemExit) as error:
        parse(*argv)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_help_is_the_comment_on_the_line(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    assert "peak learning rate, 100 % of it (default 1.0)" in capsys.readouterr().out


def test_batches_are_passes_over_all_items():
    batches = [common.batch_indices(10, 4, step, 0, "x") for step in range(5)]
    stream = sum(batches, [])
    assert Counter(stream[:10]) == Counter(stream[10:]) == Counter(range(10)) and stream[:10] != stream[10:]
    assert common.batch_indices(10, 4, 3, 0, "x") == batches[3]  # no replay needed
    assert common.batch_indices(10, 4, 3, 1, "x") != batches[3] and common.batch_indices(10, 4, 3, 0, "y") != batches[3]
    assert common.batch_indices(3, 5, 1, 0, "x", shuffle=False) == [2, 0, 1, 2, 0]


def test_problem_keys_differ_also_for_a_repeated_problem_and_for_any_id():
    from data.problems import Problem

    make = lambda name: Problem(name, "q", "a", (), "mine")
    keys = common.problem_keys([make("gsm-1"), make("é"), make("gsm-1")])
    assert len(set(keys)) == 3 and all(0 <= k < 2**62 for k in keys) and keys[:2] == common.problem_keys([make("gsm-1"), make("é")])


def test_micro_batches_cover_and_fit():
    lengths = np.random.default_rng(0).integers(1, 50, 200).tolist()
    groups = common.micro_batches(lengths, 100)
    assert sorted(sum(groups, [])) == list(range(200)) and all(sum(lengths[i] for i in g) <= 100 for g in groups)
    assert common.micro_batches([500, 3], 100) == [[1], [0]] and common.micro_batches([], 100) == []


def test_schedule():
    assert [common.schedule("cosine", s, 10, warmup=4) for s in (0, 3)] == [0.25, 1.0]
    assert common.schedule("cosine", 4, 10, 4, 0.1) == 1.0 and common.schedule("cosine", 7, 10, 4, 0.1) == pytest.approx(0.55)
    assert common.schedule("constant", 9, 10) == 1.0


def test_gradient_norm_is_cut():
    layer = torch.nn.Linear(2, 1, bias=False)
    layer.weight.grad = torch.tensor([[3.0, 4.0]])
    assert common.sync_and_clip(layer, 1.0) == pytest.approx(5.0) and layer.weight.grad.norm() == pytest.approx(1.0, rel=1e-4)


def test_log_drops_what_comes_after_the_step_resumed_from(tmp_path):
    out = str(tmp_path / "a.pt")
    log = common.Log(out, 0)
    for step in (1, 2, 3):
        log.write(step, loss=step / 10)
    with open(log.path, "a") as f:
        f.write('{"step": 4, "lo')  # torn by a kill
    log = common.Log(out, 2)
    log.write(3, loss=9)
    assert [(r["step"], r["loss"]) for r in common.read_rows(log.path)] == [(1, 0.1), (2, 0.2), (3, 9)]


def test_rows_survive_a_torn_line(tmp_path):
    path = str(tmp_path / "results.jsonl")
    common.append_row(path, {"a": 1})
    with open(path, "a") as f:
        f.write('{"a": 2, "b"')
    assert common.read_rows(path) == [{"a": 1}]
    common.append_row(path, {"a": 3})
    assert common.read_rows(path) == [{"a": 1}, {"a": 3}]


def test_resume_refuses_another_configuration(tmp_path):
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    out = str(tmp_path / "a.pt")
    common.Resume(out, Config(), model, optimizer).save(5)
    assert common.Resume(out, Config(out="elsewhere"), model, optimizer).load() == 5  # where it is written changes nothing
    with pytest.raises(common.UserError, match="lr was 1.0 and is now 3.0"):
        common.Resume(out, Config(lr=3.0), model, optimizer).load()


def test_items_are_made_ahead_in_order_and_their_errors_come_in_their_turn():
    made = []

    def items():
        for i in range(4):
            made.append((i, threading.get_ident()))
            yield i
        raise common.UserError("the corpus ended")

    taken = []
    with pytest.raises(common.UserError, match="the corpus ended"):
        for i in common.ahead(items()):
            while len(made) < min(4, i + 2):  # the next one is made while this one is in use
                time.sleep(0.001)
            assert len(made) <= i + 2  # and no more than that
            taken.append(i)
    assert taken == [0, 1, 2, 3] and threading.get_ident() not in {thread for _, thread in made}
    before = threading.active_count()
    for _ in common.ahead(iter(int, 1)):  # without an end
        assert threading.active_count() == before + 1
        break
    gc.collect()
    assert threading.active_count() == before


class Cycle:
    pass


def test_between_two_steps_the_run_is_saved_and_garbage_collected(tmp_path, monkeypatch):
    resume, saved, alive = common.Resume(str(tmp_path / "a.pt"), Config(), None), [], []
    monkeypatch.setattr(resume, "save", saved.append)
    for step in resume.steps(1, 8):
        assert not gc.isenabled() and not any(ref() for ref in alive)
        cycle = Cycle()
        cycle.itself = cycle
        alive.append(weakref.ref(cycle))
        del cycle
        assert alive[-1]()
    assert saved == [3, 6] and step == 7  # not after the last one: the result is written instead
    assert gc.isenabled() and gc.get_freeze_count() == 0
