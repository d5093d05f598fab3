"""Problems by difficulty: the counts are those of the samples, a killed scoring goes on, RL takes the files."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import run
from test_recipes import ENCODING, RL, base, flags, log  # noqa: F401

import grpo
from data import UserError
from data.grader import grade
from data.problems import load_problems, prompt_text
from plumbing.batches import problem_keys
from plumbing.checkpoint import load_checkpoint
from sampler import sample
from tools import difficulty


def config_of(ckpt, data, **more):
    flags = {"ckpt": str(ckpt), "preset": "toy", **difficulty.PRESETS["toy"], "data": data}
    return difficulty.Config(**{**flags, "max_response": 8, **more})


@pytest.fixture
def checkpoint(base, tmp_path):  # noqa: F811
    folder, data = base
    (tmp_path / "4K.pt").write_bytes((folder / "4K.pt").read_bytes())
    return tmp_path / "4K.pt", data


def rows_of(ckpt):
    names = {
        name: str(ckpt).replace(".pt", f".{name}.jsonl") for name in ("easy", "medium", "hard")
    }
    return {name: [json.loads(line) for line in open(path)] for name, path in names.items()}


def test_bands_are_the_papers():
    assert [difficulty.band(c, 64) for c in (0, 2, 8, 9, 15, 16, 64)] == ["hard"] * 3 + [
        "medium"
    ] * 2 + ["easy"] * 2
    assert [difficulty.band(c, 8) for c in (1, 2)] == ["hard", "easy"]


def test_every_training_problem_is_counted_and_goes_to_one_file(checkpoint, capsys):
    ckpt, data = checkpoint
    config = config_of(ckpt, data)
    difficulty.main(config)
    found, problems = rows_of(ckpt), load_problems(data)
    assert sorted(row["id"] for rows in found.values() for row in rows) == sorted(
        p.id for p in problems
    )
    assert all(
        difficulty.band(row["right"], row["n"]) == name and row["n"] == 64
        for name, rows in found.items()
        for row in rows
    )
    assert len({row["right"] for rows in found.values() for row in rows}) > 5
    # the same counts from the plain sampler, at temperature 1 and without top_p
    model, _ = load_checkpoint(str(ckpt))
    prompts = [ENCODING.encode_ordinary(prompt_text(p)) for p in problems]
    groups = sample(
        model, prompts, 64, 8, 1.0, eos=ENCODING.eot_token, problem_ids=problem_keys(problems)
    )
    text = lambda r: ENCODING.decode([t for t in r.tokens if t != ENCODING.eot_token])
    expected = {
        p.id: sum(grade(text(r), p.answer, "ordered") for r in group)
        for p, group in zip(problems, groups)
    }
    assert {row["id"]: row["right"] for rows in found.values() for row in rows} == expected
    for name, rows in found.items():  # what the row says of a problem is what the problem was
        path = str(ckpt).replace(".pt", f".{name}.jsonl")
        again = {p.id: p for p in load_problems(path)} if rows else {}
        assert all(again[p.id] == p for p in problems if p.id in again) and len(again) == len(rows)
    difficulty.main(config)
    assert "are there already; nothing to do" in capsys.readouterr().out
    assert not list(ckpt.parent.glob("*.tmp")) + list(ckpt.parent.glob("*.part.*"))
    with pytest.raises(UserError, match="seed was 0 and is now 1"):
        difficulty.main(replace(config, seed=1))
    name = max(found, key=lambda name: len(found[name]))
    data = str(ckpt).replace(".pt", f".{name}.jsonl")
    grpo.main(flags(grpo, ckpt, ckpt.parent / "rl.pt", data, "controlled", **RL | dict(steps=1)))
    assert log(ckpt.parent / "rl.pt")[0]["tokens"] > 0


def test_rows_carry_the_kind_that_graded_them(checkpoint):
    """RL on such a file grades as the counting did, whatever the file is called."""
    ckpt, data = checkpoint
    for kind, expected in {"": load_problems(data)[0].kind, "gsm8k": "gsm8k"}.items():
        difficulty.main(config_of(ckpt, data, kind=kind, samples=4, again=True))
        rows = [row for rows in rows_of(ckpt).values() for row in rows]
        assert rows and {row["kind"] for row in rows} == {expected}
        for name, of_band in rows_of(ckpt).items():
            path = str(ckpt).replace(".pt", f".{name}.jsonl")
            kinds = {p.kind for p in load_problems(path)} if of_band else {expected}
            assert kinds == {expected}
    with pytest.raises(UserError, match="--kind gsm9k"):
        difficulty.main(config_of(ckpt, data, kind="gsm9k", samples=4, again=True))


def test_a_killed_scoring_goes_on_and_no_file_is_ever_half_written(checkpoint, monkeypatch, capsys):
    ckpt, data = checkpoint
    monkeypatch.setattr(difficulty, "CHUNK", 64 * 12)  # 12 problems at a time
    config, counted = config_of(ckpt, data), []
    count = difficulty.count_right

    def killed(model, encoding, problems, *rest):
        if len(counted) == 2:
            raise KeyboardInterrupt
        counted.append(len(problems))
        return count(model, encoding, problems, *rest)

    monkeypatch.setattr(difficulty, "count_right", killed)
    with pytest.raises(KeyboardInterrupt):
        difficulty.main(config)
    assert not [
        path for name in ("easy", "medium", "hard") for path in ckpt.parent.glob(f"*.{name}.jsonl*")
    ]
    counted.clear()
    note = lambda model, encoding, problems, *rest: (
        counted.append(len(problems)) or count(model, encoding, problems, *rest)
    )
    monkeypatch.setattr(difficulty, "count_right", note)
    difficulty.main(config)
    assert counted == [12, 4] and "going on after 24 problems" in capsys.readouterr().out
    pieces = rows_of(ckpt)
    monkeypatch.setattr(difficulty, "CHUNK", 8192)
    difficulty.main(replace(config, again=True))
    # neither pieces nor kills change a count
    assert rows_of(ckpt) == pieces and counted == [12, 4, 40]


def test_two_ranks_count_as_one(checkpoint, tmp_path):
    ckpt, data = checkpoint
    difficulty.main(config_of(ckpt, data, samples=8))
    one = rows_of(ckpt)
    said = run(
        "-m tools.difficulty",
        *("--ckpt", ckpt, "--data", data, "--samples", "8", "--max_response", "8", "--again"),
        ranks=2,
    )
    assert "wrote" in said and rows_of(ckpt) == one


def test_the_plain_program_counts_the_same(checkpoint):
    ckpt, data = checkpoint
    difficulty.main(config_of(ckpt, data, samples=8))
    quick = rows_of(ckpt)
    difficulty.main(config_of(ckpt, data, samples=8, plain=True, again=True))
    assert rows_of(ckpt) == quick


def test_it_takes_one_set_of_problems(checkpoint):
    with pytest.raises(UserError, match="takes the training problems of one set"):
        difficulty.main(config_of(checkpoint[0], "toy,toy-hard"))
    assert torch.is_grad_enabled()


def test_a_plan_is_asked_of_a_stage():
    said = run("-m tools.difficulty", "--ckpt", "out/toy/3.6M.pt", "--plan", ok=False)
    assert said.count("\n") == 1 and "python evaluate.py" in said
