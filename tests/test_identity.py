"""Identity is content: nothing is taken for finished, or goes on, that was made from other bytes."""

import json
import os
import shutil
import subprocess
import threading
import time
from dataclasses import replace

import pytest
import torch
from conftest import ROOT, command, run, tiny
from test_recipes import ENCODING, RL, SFT, base, flags, log, same_bits, write_problems

import evaluate
import grpo
import pretrain
import sft
from data import UserError, corpus, lock
from plumbing import identity, pretrain_run, resume, version
from plumbing.checkpoint import load_checkpoint, read_facts, save_checkpoint
from plumbing.files import read_rows

__all__ = ["base"]  # a fixture

SHORT_SFT = SFT | dict(steps=6, save_every=2)
SHORT_RL = RL | dict(steps=3, save_every=1)


@pytest.fixture
def place(base, tmp_path):
    """A folder of its own with a copy of the parent, problems and a reward."""
    folder, data = base
    shutil.copy(folder / "4K.pt", tmp_path / "4K.pt")
    shutil.copy(data, tmp_path / "five.jsonl")
    (tmp_path / "own.py").write_text(
        "def score(response, problem):\n    return len(response) % 3\n"
    )
    yield tmp_path
    lock.release_all()


def sft_config(place, **more):
    data = str(place / "five.jsonl")
    return flags(sft, place / "4K.pt", place / "a.pt", data, "controlled", **(SHORT_SFT | more))


def rl_config(place, **more):
    data = str(place / "five.jsonl")
    more = dict(reward=f"{place / 'own.py'}:score") | more
    return flags(grpo, place / "4K.pt", place / "a.pt", data, "controlled", **(SHORT_RL | more))


STAGES = {"sft": (sft, sft_config), "rl": (grpo, rl_config)}


def interrupt(monkeypatch, main, config):
    """Run it up to its end, but not over it: the state of the last save is left."""

    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(resume.Resume, "finish", stop)
        main(config)


def other_problems(place):
    with open(place / "five.jsonl", "a") as file:
        row = dict(question="say ann has 1 cards .", answer="1", solutions=[" so \\boxed{ 1}"])
        file.write(json.dumps(row | dict(source="toy", kind="ordered")) + "\n")


def other_reward(place):
    (place / "own.py").write_text("def score(response, problem):\n    return 0.5\n")


def other_weights(place):
    model, facts = load_checkpoint(str(place / "4K.pt"))
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    save_checkpoint(str(place / "4K.pt"), model, facts)


def other_parent(place):
    model, facts = load_checkpoint(str(place / "4K.pt"))
    save_checkpoint(str(place / "4K.pt"), model, facts | dict(id="another"))


@pytest.mark.parametrize("finished", [True, False], ids=["finished", "unfinished"])
@pytest.mark.parametrize(
    "stage, change, words",
    [
        ("sft", other_problems, "the content of --data .*five.jsonl has changed"),
        ("rl", other_problems, "the content of --data .*five.jsonl has changed"),
        ("rl", other_reward, "the content of --reward .*own.py:score has changed"),
        ("sft", other_weights, "weights .* have changed"),
        ("rl", other_weights, "weights .* have changed"),
        ("sft", other_parent, "another checkpoint"),
        ("rl", other_parent, "another checkpoint"),
    ],
)
def test_what_was_made_from_other_bytes_is_refused(
    place, monkeypatch, stage, change, words, finished
):
    script, make_config = STAGES[stage]
    config = make_config(place)
    if finished:
        script.main(config)
    else:
        interrupt(monkeypatch, script.main, config)
    change(place)
    with pytest.raises(UserError, match=words) as error:
        script.main(config)
    assert "\n" not in str(error.value)
    assert (place / "a.pt").exists() == finished


@pytest.mark.parametrize("stage", STAGES)
def test_what_was_not_changed_goes_on(place, monkeypatch, capsys, stage):
    """A parent that moved is the same parent, and a file with the same bytes is the same file."""
    script, make_config = STAGES[stage]
    config = make_config(place)
    script.main(config)
    os.rename(place / "a.pt", place / "whole.pt")
    interrupt(monkeypatch, script.main, config)
    os.rename(place / "4K.pt", place / "moved.pt")
    text = (place / "five.jsonl").read_text()
    (place / "five.jsonl").write_text(text)
    script.main(replace(config, ckpt=str(place / "moved.pt")))
    assert "going on from step" in capsys.readouterr().out
    assert same_bits(place / "a.pt", place / "whole.pt")
    a, whole = read_facts(str(place / "a.pt")), read_facts(str(place / "whole.pt"))
    assert a["id"] == whole["id"] and a["parent_weights"] == whole["parent_weights"]


def test_the_id_stands_for_the_bytes_that_a_result_was_made_from(place):
    ids = set()
    for change in (None, other_problems, other_weights):
        if change:
            change(place)
        out = place / f"{len(ids)}.pt"
        sft.main(replace(sft_config(place, steps=1), out=str(out)))
        ids.add(read_facts(str(out))["id"])
    assert len(ids) == 3
    config = read_facts(str(out))["config"]
    assert config["content of data"] == identity.content_of(str(place / "five.jsonl"))


def test_the_content_is_that_of_the_start(place, monkeypatch):
    """A file that changes while a run reads it no more is recorded as it was."""
    changed = []
    real = sft.sft_backward

    def backward(*args):
        if not changed:
            changed.append(identity.content_of(str(place / "five.jsonl")))
            other_problems(place)
        return real(*args)

    monkeypatch.setattr(sft, "sft_backward", backward)
    sft.main(sft_config(place))
    facts = read_facts(str(place / "a.pt"))
    assert [facts["config"]["content of data"]] == changed


# ------------------------------------------------------------------------------------ again


def test_again_makes_a_result_again_and_goes_on_with_that(place, monkeypatch, capsys):
    config = sft_config(place)
    sft.main(config)
    sft.main(config)
    assert "a.pt is finished; nothing to do\n" in capsys.readouterr().out
    shutil.copy(place / "a.pt", place / "first.pt")

    again = replace(config, again=True)
    interrupt(monkeypatch, sft.main, again)
    assert same_bits(place / "a.pt", place / "first.pt")  # the old one is there until the end
    with pytest.raises(UserError, match="a run with --again that replaces it is not finished"):
        sft.main(config)  # which would have thrown the unfinished run away
    capsys.readouterr()
    sft.main(again)
    said = capsys.readouterr().out
    assert "a.pt is made again" in said and "going on from step 4" in said
    assert same_bits(place / "a.pt", place / "first.pt")
    sft.main(again)
    assert "going on" not in capsys.readouterr().out


def test_a_state_older_than_the_result_is_not_what_again_goes_on_from(place, monkeypatch, capsys):
    """A kill between writing the result and dropping the state leaves such a state."""
    config = sft_config(place)
    monkeypatch.setattr(resume.Resume, "drop", lambda self: None)
    sft.main(config)
    assert (place / "a.resume" / "state.pt").exists()
    monkeypatch.undo()
    sft.main(replace(config, again=True))
    assert "going on" not in capsys.readouterr().out


def test_other_code_is_said(place, monkeypatch, capsys):
    config = sft_config(place)
    evaluation = evaluation_config(place)
    sft.main(config)
    evaluate.main(evaluation)
    monkeypatch.setattr(version, "code_version", lambda: "other")
    sft.main(config)
    before = read_facts(str(place / "a.pt"))["code"]
    remark = f"nothing to do (code {before} made it, this is other; --again makes it again)\n"
    assert f"a.pt is finished; {remark}" in capsys.readouterr().out
    evaluate.main(evaluation)
    assert remark in capsys.readouterr().out


def test_the_version_tells_edits_apart(tmp_path, monkeypatch):
    def git(*args):
        subprocess.run(["git", *args], cwd=tmp_path, check=True, capture_output=True)

    def now():
        version.code_version.cache_clear()
        return version.code_version()

    monkeypatch.setattr(version, "HOME", tmp_path)
    try:
        (tmp_path / "a.py").write_text("1\n")
        without_git = now()
        (tmp_path / "a.py").write_text("2\n")
        assert without_git.startswith("source-") and now() != without_git
        git("init")
        git("add", ".")
        git("-c", "user.name=n", "-c", "user.email=e", "commit", "-m", "first")
        clean = now()
        (tmp_path / "a.py").write_text("3\n")
        edited = now()
        (tmp_path / "a.py").write_text("4\n")
        assert "+" not in clean and edited.startswith(clean + "+")
        assert now().startswith(clean + "+") and now() != edited
    finally:
        version.code_version.cache_clear()


# ------------------------------------------------------------------------------------ evaluation


def evaluation_config(place, **more):
    argv = ["--ckpt", str(place / "4K.pt"), "--task", str(place / "five.jsonl"), "--n", "2"]
    argv += ["--k", "1", "--max_response", "8", "--out", str(place / "rows.jsonl")]
    argv += ["--problems", "3"]
    config = identity_of_flags(evaluate, argv)
    return replace(config, **more)


def identity_of_flags(script, argv):
    from plumbing.flags import parse_flags

    return parse_flags(script.Config, script.PRESETS, script.SETTINGS, argv)


def test_an_old_score_never_stands_for_new_weights_or_new_questions(place, capsys):
    config = evaluation_config(place)

    def rows_after():
        evaluate.main(config)
        return len(read_rows(str(place / "rows.jsonl")))

    assert rows_after() == 1 and rows_after() == 1
    assert "nothing to do" in capsys.readouterr().out
    other_weights(place)
    assert rows_after() == 2 and rows_after() == 2
    other_problems(place)
    assert rows_after() == 3 and rows_after() == 3
    rows = read_rows(str(place / "rows.jsonl"))
    assert len({json.dumps(row["key"], sort_keys=True) for row in rows}) == 3
    assert len({row["key"]["weights"] for row in rows}) == 2


def test_examples_count_by_their_content_too(place):
    write_problems(place / "shots.jsonl")
    config = evaluation_config(place, shots=1, examples=str(place / "shots.jsonl"))
    evaluate.main(config)
    evaluate.main(config)
    write_problems(place / "shots.jsonl", n=30)
    evaluate.main(config)
    assert len(read_rows(str(place / "rows.jsonl"))) == 2


@pytest.mark.parametrize(
    "text", ["not json\n", '{"question": "?"}\n', "[1]\n", '{"step": 1}\n{"step": 2}\n']
)
def test_rows_are_not_added_to_a_file_of_something_else(place, text):
    (place / "rows.jsonl").write_text(text)
    with pytest.raises((UserError, OSError), match="rows.jsonl"):
        evaluate.main(evaluation_config(place))
    assert (place / "rows.jsonl").read_text() == text


def test_a_file_of_rows_keeps_its_last_line(place):
    """An editor may leave the last line without its line break."""
    evaluate.main(evaluation_config(place))
    path = place / "rows.jsonl"
    path.write_text(path.read_text().rstrip("\n"))
    evaluate.main(evaluation_config(place, seed=1))
    assert [row["key"]["seed"] for row in read_rows(str(path))] == [0, 1]


# ------------------------------------------------------------------------------------ outputs


@pytest.mark.parametrize("out", ["folder/", "folder.pt", "file/a.pt", "/proc/none/a.pt", "a"])
def test_an_output_that_cannot_be_written_is_refused_before_any_step(place, monkeypatch, out):
    """A name without .pt, too: its log and state would be those of the name with it."""
    (place / "folder.pt").mkdir()
    (place / "folder").mkdir()
    (place / "file").write_text("")
    monkeypatch.setattr(sft, "sft_backward", None)
    path = out if out.startswith("/") else f"{place}/{out}"
    with pytest.raises((UserError, OSError), match=path.rstrip("/").split("/a.pt")[0]):
        sft.main(replace(sft_config(place), out=path))


def test_an_output_of_results_that_cannot_be_written_is_refused_before_sampling(place, monkeypatch):
    (place / "folder").mkdir()
    monkeypatch.setattr(evaluate, "evaluate_problems", None)
    for out in (f"{place}/folder", f"{place}/folder/", f"{place}/five.jsonl/x", "/proc/none/x"):
        with pytest.raises((UserError, OSError)):
            evaluate.main(evaluation_config(place, out=out))


def test_a_second_command_waits_for_the_first(tmp_path, capfd):
    path = tmp_path / "a.pt"
    code = f"from data import lock; lock.claim({str(path)!r}); print('has it'); lock.release_all()"
    lock.claim(path)
    lock.claim(path)  # a process that has it goes on
    other = subprocess.Popen(command("-c") + [code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    said = other.stdout.readline()
    assert said.startswith(f"{path} is being made by process {os.getpid()} on ")
    assert other.poll() is None
    lock.release(path)
    assert other.communicate(timeout=60)[0] == "has it\n"
    assert os.listdir(tmp_path) == []


def test_a_lock_ends_with_its_process(tmp_path):
    path = tmp_path / "a.pt"
    code = f"from data import lock; lock.claim({str(path)!r}); print('has it', flush=True); input()"
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    other = subprocess.Popen(command("-c") + [code], cwd=ROOT, **pipes)
    assert other.stdout.readline() == "has it\n"
    other.kill()
    other.wait()
    lock.claim(path)
    lock.release(path)


def test_two_equal_commands_at_once_give_what_one_gives(place):
    argv = ["--ckpt", place / "4K.pt", "--data", place / "five.jsonl", "--out", place / "a.pt"]
    for name, value in SHORT_SFT.items():
        argv += [f"--{name}", value]
    evaluation = ["--ckpt", place / "4K.pt", "--task", place / "five.jsonl", "--n", 2, "--k", 1]
    evaluation += ["--max_response", 8, "--out", place / "rows.jsonl"]
    said = []
    threads = []
    for script, arguments in (("sft.py", argv), ("evaluate.py", evaluation)) * 2:
        target = lambda s=script, a=arguments: said.append(run(s, *a))
        threads.append(threading.Thread(target=target))
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    for thread in threads:
        thread.join()
    assert len(said) == 4 and sum("nothing to do" in text for text in said) == 2
    assert [row["step"] for row in log(place / "a.pt")] == [1, 2, 3, 4, 5, 6]
    assert len(read_rows(str(place / "rows.jsonl"))) == 1
    assert sorted(os.listdir(place)) == sorted(
        ["4K.pt", "five.jsonl", "own.py", "a.pt", "a.log.jsonl", "rows.jsonl"]
    )


# ------------------------------------------------------------------------------------ pretrain


@pytest.fixture
def small_world(monkeypatch):
    """Pre-training of a tiny model for 21 steps, the last checkpoint in the middle."""
    monkeypatch.setattr(pretrain.pretrain_setup, "new_model", lambda config: tiny(ENCODING.n_vocab))
    yield
    lock.release_all()


def pretrain_config(folder, **more):
    values = pretrain.PRESETS["toy"] | dict(tokens="40K", keep="10K,20K", save_every=2)
    return pretrain.Config(out=str(folder), **(values | dict(warmup="4K", log_every=100) | more))


def interrupt_pretraining(monkeypatch, config):
    """Run it through its last step, but not over its end."""

    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pretrain_run, "end", stop)
        pretrain.main(config)


def test_pretraining_is_finished_when_it_has_ended(tmp_path, small_world, monkeypatch, capsys):
    """Not when its last checkpoint is there: it reads on, and its log with it."""
    config = pretrain_config(tmp_path / "a")

    interrupt_pretraining(monkeypatch, config)
    assert (tmp_path / "a" / "20K.pt").exists()
    capsys.readouterr()
    pretrain.main(config)
    assert "going on from step 20" in capsys.readouterr().out
    steps = [row["step"] for row in read_rows(str(tmp_path / "a" / "pretrain.log.jsonl"))]
    assert steps == list(range(1, 22))
    assert not (tmp_path / "a" / "pretrain.resume").exists()
    pretrain.main(config)
    assert "20K.pt is finished; nothing to do" in capsys.readouterr().out
    names = {"10K.pt", "20K.pt", "pretrain.log.jsonl", "pretrain.json", "corpus"}
    assert set(os.listdir(tmp_path / "a")) == names

    (tmp_path / "a" / "10K.pt").rename(tmp_path / "kept.pt")  # then all is made again
    pretrain.main(config)
    assert same_bits(tmp_path / "kept.pt", tmp_path / "a" / "10K.pt")


@pytest.mark.parametrize("more", [dict(keep="10K,30K"), dict(keep="5K,39K"), dict(lr=1e-3)])
def test_another_runs_checkpoints_and_log_are_not_overwritten(tmp_path, small_world, more):
    folder = tmp_path / "a"
    pretrain.main(pretrain_config(folder))
    before = {name: (folder / name).read_bytes() for name in os.listdir(folder) if "." in name}
    with pytest.raises(UserError, match="exists and differs"):
        pretrain.main(pretrain_config(folder, **(dict(seed=1) | more)))
    assert before == {name: (folder / name).read_bytes() for name in before}


def test_edited_generators_write_other_rows(tmp_path, small_world, monkeypatch):
    """And a checkpoint knows by a hash what it was trained on."""
    pretrain.main(pretrain_config(tmp_path / "a"))
    first = set(os.listdir(tmp_path / "a" / "corpus"))
    monkeypatch.setattr(corpus, "generator_version", lambda: "edited")
    pretrain.main(pretrain_config(tmp_path / "b"))
    assert len(first) == 2 and not first & set(os.listdir(tmp_path / "b" / "corpus"))
    facts = [read_facts(str(tmp_path / name / "20K.pt")) for name in "ab"]
    assert (
        facts[0]["corpus_content"] and facts[0]["id"] == facts[1]["id"]
    )  # the same bytes after all


def test_an_unfinished_run_does_not_go_on_with_other_rows(tmp_path, small_world, monkeypatch):
    config = pretrain_config(tmp_path / "a")

    interrupt_pretraining(monkeypatch, config)
    monkeypatch.setattr(pretrain.pretrain_setup, "identity_of", lambda corpus: {"id": "other"})
    with pytest.raises(UserError, match="began from another checkpoint or corpus"):
        pretrain.main(config)
