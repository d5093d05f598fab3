"""Units, batches, learning rates, facts, resume files, logs."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from conftest import ROOT
from test_flags import Config

import data.files
from data import UserError
from plumbing import (
    batches,
    checkpoint,
    files,
    identity,
    log,
    optimizer,
    ranks,
    resume,
    sharding,
    units,
)


def test_token_counts():
    assert [units.count(text) for text in ("4B", "250K", "1.2m", "1000", "2T")] == [
        4_000_000_000,
        250_000,
        1_200_000,
        1000,
        2 * 10**12,
    ]
    for text in ("", "B", "four", "inf"):
        with pytest.raises(UserError, match="is not a token count; write 250K, 1.2M or 4B"):
            units.count(text)


def test_files_and_units_need_no_torch():
    code = "import sys, plumbing.files, plumbing.units; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    "words", ["excursions.py --only core --preset 1B --dry_run", "model.py docs/toy.pt"]
)
def test_a_reader_who_has_enough_is_no_error(words):
    """As in `excursions.py --list | head`."""
    process = subprocess.Popen(
        [sys.executable, *words.split()], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == -signal.SIGPIPE


def test_one_process_is_its_own_world():
    assert (ranks.rank(), ranks.world()) == (0, 1)
    assert (ranks.all_sum(2), ranks.all_max(3.5), ranks.all_min(-1)) == (2.0, 3.5, -1.0)
    assert (
        ranks.all_sums({"a": 1, "b": 2.5})
        == ranks.all_maxima({"b": 2.5, "a": 1})
        == {"a": 1.0, "b": 2.5}
    )
    assert ranks.all_sums({}) == {}
    assert ranks.gather_objects("x") == ["x"] and ranks.merge_dicts({"x": 1}) == {"x": 1}
    assert ranks.pad_to_longest_rank([[1], [2]]) == [[1], [2]]


def test_a_model_that_is_not_sharded_is_its_own_whole_copy(tiny_model):
    assert sharding.shard(tiny_model) is sharding.whole_copy(tiny_model) is tiny_model
    before = tiny_model.lm_head.weight.clone()
    sharding.refresh(tiny_model, tiny_model)
    assert torch.equal(before, tiny_model.lm_head.weight)


def test_packed_responses_are_pairs_with_their_prompts():
    packed = batches.pack([[1, 2], [1, 2], [3]], [[4, 5], [6], [7, 8, 9]])
    assert packed.targets.tolist() == [4, 5, 6, 7, 8, 9] and packed.sequence.tolist() == [
        0,
        0,
        1,
        2,
        2,
        2,
    ]
    assert packed.targets.dtype == packed.sequence.dtype == torch.int64


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_of_responses_are_those_of_the_plain_forward_pass(tiny_model, temperature):
    prompts, responses = [[1, 2, 3], [4]], [[5, 6], [7, 8, 9]]
    logp, _, _ = batches.response_logprobs(
        tiny_model, batches.pack(prompts, responses), temperature
    )
    expected = []
    for prompt, response in zip(prompts, responses):
        logits = tiny_model(torch.tensor([prompt + response]))[0] / temperature
        for t, token in enumerate(response):
            expected.append(logits[len(prompt) - 1 + t].log_softmax(-1)[token])
    assert torch.allclose(logp, torch.stack(expected), atol=1e-5)


def test_an_idle_pass_adds_gradients_of_zero(tiny_model):
    batches.idle_pass(tiny_model, reference=tiny_model)
    assert all(p.grad is not None and not p.grad.any() for p in tiny_model.parameters())


def test_batches_are_passes_over_all_items():
    steps = [batches.batch_indices(10, 4, step, 0, "x") for step in range(5)]
    stream = sum(steps, [])
    assert (
        Counter(stream[:10]) == Counter(stream[10:]) == Counter(range(10))
        and stream[:10] != stream[10:]
    )
    assert batches.batch_indices(10, 4, 3, 0, "x") == steps[3]  # no replay needed
    assert (
        batches.batch_indices(10, 4, 3, 1, "x") != steps[3]
        and batches.batch_indices(10, 4, 3, 0, "y") != steps[3]
    )
    assert batches.batch_indices(3, 5, 1, 0, "x", shuffle=False) == [2, 0, 1, 2, 0]


def test_problem_keys_differ_also_for_a_repeated_problem_and_for_any_id():
    from data.problems import Problem

    make = lambda name: Problem(name, "q", "a", (), "mine")
    keys = batches.problem_keys([make("gsm-1"), make("é"), make("gsm-1")])
    assert (
        len(set(keys)) == 3
        and all(0 <= k < 2**62 for k in keys)
        and keys[:2] == batches.problem_keys([make("gsm-1"), make("é")])
    )


def test_groups_of_sequences_cover_and_fit():
    lengths = np.random.default_rng(0).integers(1, 50, 200).tolist()
    groups = batches.split_by_tokens(lengths, 100)
    assert sorted(sum(groups, [])) == list(range(200)) and all(
        sum(lengths[i] for i in g) <= 100 for g in groups
    )
    assert (
        batches.split_by_tokens([500, 3], 100) == [[1], [0]]
        and batches.split_by_tokens([], 100) == []
    )


def test_learning_rate():
    assert [optimizer.lr_factor("cosine", s, 10, warmup=4) for s in (0, 3)] == [0.25, 1.0]
    assert optimizer.lr_factor("cosine", 4, 10, 4, 0.1) == 1.0 and optimizer.lr_factor(
        "cosine", 7, 10, 4, 0.1
    ) == pytest.approx(0.55)
    assert optimizer.lr_factor("constant", 9, 10) == 1.0


def test_gradient_norm_is_cut():
    layer = torch.nn.Linear(2, 1, bias=False)
    layer.weight.grad = torch.tensor([[3.0, 4.0]])
    assert optimizer.clip_gradients(layer, 1.0) == pytest.approx(
        5.0
    ) and layer.weight.grad.norm() == pytest.approx(1.0, rel=1e-4)


def test_log_drops_what_comes_after_the_step_resumed_from(tmp_path):
    out = str(tmp_path / "a.pt")
    lines = log.Log(out, 0)
    for step in (1, 2, 3):
        lines.write(step, loss=step / 10)
    with open(lines.path, "a") as f:
        f.write('{"step": 4, "lo')  # torn by a kill
    lines = log.Log(out, 2)
    lines.write(3, loss=9)
    assert [(r["step"], r["loss"]) for r in files.read_rows(lines.path)] == [
        (1, 0.1),
        (2, 0.2),
        (3, 9),
    ]


def test_rows_survive_a_torn_line(tmp_path):
    path = str(tmp_path / "results.jsonl")
    files.append_row(path, {"a": 1})
    with open(path, "a") as f:
        f.write('{"a": 2, "b"')
    assert files.read_rows(path) == [{"a": 1}]
    files.append_row(path, {"a": 3})
    assert files.read_rows(path) == [{"a": 1}, {"a": 3}]


def test_resume_refuses_another_configuration(tmp_path):
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    out = str(tmp_path / "a.pt")
    resume.Resume(out, Config(), model, optimizer).save(5)
    assert (
        resume.Resume(out, Config(out="elsewhere"), model, optimizer).load() == 5
    )  # where it is written changes nothing
    with pytest.raises(UserError, match="lr was 1.0 and is now 3.0"):
        resume.Resume(out, Config(lr=3.0), model, optimizer).load()


def test_a_flag_that_older_code_did_not_have_counts_as_its_default():
    before = identity.recorded(Config())
    del before["top_p"]
    assert identity.differences(Config(), before) == ""
    assert identity.differences(Config(top_p=0.5), before) == "top_p was 1.0 and is now 0.5"


@dataclass(frozen=True)
class RLConfig(Config):
    loss: str = "token-mean"  # or micro-mean
    micro_tokens: int = 8  # tokens per forward pass
    plain: bool = False  # without fast/
    seed: int = 0  # of all


def test_micro_tokens_is_a_part_of_the_objective_of_micro_mean(tmp_path):
    free, bound = RLConfig(), RLConfig(loss="micro-mean")
    assert "micro_tokens" not in identity.recorded(free)
    assert identity.recorded(bound)["micro_tokens"] == 8
    assert "plain" not in identity.recorded(free) and "plain" not in identity.recorded(bound)

    model = torch.nn.Linear(2, 2)
    for name, config in (("free", free), ("bound", bound)):
        resume.Resume(str(tmp_path / name), config, model).save(5)
    assert resume.Resume(str(tmp_path / "free"), replace(free, micro_tokens=16), model).load() == 5
    message = "micro_tokens was 8 and is now 16"
    with pytest.raises(UserError, match=message):
        resume.Resume(str(tmp_path / "bound"), replace(bound, micro_tokens=16), model).load()


def test_a_result_of_other_micro_tokens_is_not_taken_for_this_ones(tmp_path, tiny_model):
    for loss in ("token-mean", "micro-mean"):
        config, path = RLConfig(loss=loss), str(tmp_path / f"{loss}.pt")
        assert not identity.is_finished(path, config)
        checkpoint.save_checkpoint(path, tiny_model, identity.make_facts(config, "rl", 1, None))
        assert identity.is_finished(path, config)
    assert identity.is_finished(
        str(tmp_path / "token-mean.pt"), replace(RLConfig(), micro_tokens=16)
    )
    with pytest.raises(UserError, match="micro_tokens was 8 and is now 16"):
        identity.is_finished(path, replace(config, micro_tokens=16))


def test_items_are_made_ahead_in_order_and_their_errors_come_in_their_turn():
    made = []

    def items():
        for i in range(4):
            made.append((i, threading.get_ident()))
            yield i
        raise UserError("the corpus ended")

    taken = []
    with pytest.raises(UserError, match="the corpus ended"):
        for i in batches.ahead(items()):
            while len(made) < min(4, i + 2):  # the next one is made while this one is in use
                time.sleep(0.001)
            assert len(made) <= i + 2  # and no more than that
            taken.append(i)
    assert taken == [0, 1, 2, 3] and threading.get_ident() not in {thread for _, thread in made}
    before = threading.active_count()
    for _ in batches.ahead(iter(int, 1)):  # without an end
        assert threading.active_count() == before + 1
        break
    gc.collect()
    assert threading.active_count() == before


class Cycle:
    pass


def loop(run, start, config, compute):
    """The loop as the training scripts write it."""
    with resume.stop_signal() as stop, resume.collecting_by_hand():
        for step in range(start, config.steps):
            compute(step)
            done = step + 1
            stopping = stop.asked()
            if done < config.steps and (stopping or done % config.save_every == 0):
                run.save(done, leave=stopping)
            gc.collect()


def test_between_two_steps_the_run_is_saved_and_garbage_collected(tmp_path, monkeypatch):
    config = Config(steps=8)
    run, saved, alive, steps = resume.Resume(str(tmp_path / "a.pt"), config, None), [], [], []
    monkeypatch.setattr(run, "save", lambda done, leave: saved.append((done, leave)))

    def compute(step):
        assert not gc.isenabled() and not any(ref() for ref in alive)
        cycle = Cycle()
        cycle.itself = cycle
        alive.append(weakref.ref(cycle))
        del cycle
        assert alive[-1]()
        steps.append(step)

    loop(run, 1, config, compute)
    assert (
        saved == [(3, False), (6, False)] and steps[-1] == 7
    )  # not after the last one: the result is written instead
    assert gc.isenabled() and gc.get_freeze_count() == 0


def test_sigterm_ends_a_run_after_its_step_with_the_state_saved(tmp_path, capsys):
    config = Config(steps=8, save_every=100)
    run, steps = resume.Resume(str(tmp_path / "a.pt"), config, torch.nn.Linear(2, 2)), []

    def compute(step):
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        steps.append(step)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as left:
        loop(run, 0, config, compute)
    assert left.value.code == 143 and steps == [0, 1, 2, 3, 4]
    assert (
        capsys.readouterr().out.splitlines()[-1]
        == "stopped by SIGTERM after step 5; the same command goes on from there"
    )
    assert run.load() == 5
    assert (
        signal.getsignal(signal.SIGTERM) is before and gc.isenabled() and gc.get_freeze_count() == 0
    )


def test_sigterm_in_the_last_step_lets_the_run_end(tmp_path):
    config = Config(steps=3)
    run = resume.Resume(str(tmp_path / "a.pt"), config, torch.nn.Linear(2, 2))
    loop(run, 0, config, lambda step: os.kill(os.getpid(), signal.SIGTERM) if step == 2 else None)
    assert not os.path.exists(run.path)


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "folder" / "a.txt"
    data.files.write_aside(path, lambda file: file.write(b"first"))

    def fail(file):
        file.write(b"sec")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.files.write_aside(path, fail)
    assert path.read_bytes() == b"first" and [p.name for p in path.parent.iterdir()] == ["a.txt"]
