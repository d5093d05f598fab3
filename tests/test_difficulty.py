"""Problems by difficulty: the counts are those of the samples, a killed scoring goes on, RL takes the files."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import run
from test_recipes import ENCODING, RL, base, flags, log  # noqa: F401

import common
import difficulty
import evaluate
import grpo
import model as M
from data.grader import grade
from data.problems import load_problems, prompt_text
from sampler import sample


def config_of(ckpt, data, **more):
    return replace(
        evaluate.Config(ckpt=str(ckpt), preset="toy", **evaluate.PRESETS["toy"]), data=data, split_by_difficulty=True, **{"max_response": 8, **more}
    )


@pytest.fixture
def checkpoint(base, tmp_path):  # noqa: F811
    folder, data = base
    (tmp_path / "4K.pt").write_bytes((folder / "4K.pt").read_bytes())
    return tmp_path / "4K.pt", data


def rows_of(ckpt):
    names = {name: str(ckpt).replace(".pt", f".{name}.jsonl") for name in ("easy", "medium", "hard")}
    return {name: [json.loads(line) for line in open(path)] for name, path in names.items()}


def test_bands_are_the_papers():
    assert [difficulty.band(c, 64) for c in (0, 2, 8, 9, 15, 16, 64)] == ["hard"] * 3 + ["medium"] * 2 + ["easy"] * 2
    assert [difficulty.band(c, 8) for c in (1, 2)] == ["hard", "easy"]


def test_every_training_problem_is_counted_and_goes_to_one_file(checkpoint, capsys):
    ckpt, data = checkpoint
    config = config_of(ckpt, data)
    evaluate.main(config)
    found, problems = rows_of(ckpt), load_problems(data)
    assert sorted(row["id"] for rows in found.values() for row in rows) == sorted(p.id for p in problems)
    assert all(difficulty.band(row["right"], row["n"]) == name and row["n"] == 64 for name, rows in found.items() for row in rows)
    assert len({row["right"] for rows in found.values() for row in rows}) > 5
    model, _ = M.load_checkpoint(str(ckpt))  # the same counts from the sampler, at temperature 1 and without top_p
    prompts = [ENCODING.encode_ordinary(prompt_text(p)) for p in problems]
    groups = sample(model, prompts, 64, 8, 1.0, eos=ENCODING.eot_token, problem_ids=common.problem_keys(problems))
    text = lambda r: ENCODING.decode([t for t in r.tokens if t != ENCODING.eot_token])
    expected = {p.id: sum(grade(text(r), p.answer, "ordered") for r in group) for p, group in zip(problems, groups)}
    assert {row["id"]: row["right"] for rows in found.values() for row in rows} == expected
    for name, rows in found.items():  # what the row says of a problem is what the problem was
        again = {p.id: p for p in load_problems(str(ckpt).replace(".pt", f".{name}.jsonl"))} if rows else {}
        assert all(again[p.id] == p for p in problems if p.id in again) and len(again) == len(rows)
    evaluate.main(config)
    assert "are there already; nothing to do" in capsys.readouterr().out and not list(ckpt.parent.glob("*.tmp")) + list(ckpt.parent.glob("*.part.*"))
    with pytest.raises(common.UserError, match="seed was 0 and is now 1"):
        evaluate.main(replace(config, seed=1))
    name = max(found, key=lambda name: len(found[name]))
    grpo.main(flags(grpo, ckpt, ckpt.parent / "rl.pt", str(ckpt).replace(".pt", f".{name}.jsonl"), "controlled", **RL | dict(steps=1)))
    assert log(ckpt.parent / "rl.pt")[0]["tokens"] > 0


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
        evaluate.main(config)
    assert not [path for name in ("easy", "medium", "hard") for path in ckpt.parent.glob(f"*.{name}.jsonl*")]
    counted.clear()
    note = lambda model, encoding, problems, *rest: counted.append(len(problems)) or count(model, encoding, problems, *rest)
    monkeypatch.setattr(difficulty, "count_right", note)
    evaluate.main(config)
    assert counted == [12, 4] and "going on after 24 problems" in capsys.readouterr().out
    pieces = rows_of(ckpt)
    monkeypatch.setattr(difficulty, "CHUNK", 8192)
    evaluate.main(replace(config, again=True))
    assert rows_of(ckpt) == pieces and counted == [12, 4, 40]  # neither pieces nor kills change a count


def test_two_ranks_count_as_one(checkpoint, tmp_path):
    ckpt, data = checkpoint
    evaluate.main(config_of(ckpt, data, difficulty_samples=8))
    one = rows_of(ckpt)
    said = run(
        "evaluate.py", "--ckpt", ckpt, "--data", data, "--split_by_difficulty", "--difficulty_samples", "8", "--max_response", "8", "--again", ranks=2
    )
    assert "wrote" in said and rows_of(ckpt) == one


def test_it_takes_one_set_of_problems(checkpoint):
    with pytest.raises(common.UserError, match="takes the training problems of one set"):
        evaluate.main(config_of(checkpoint[0], "toy,toy-hard"))
    assert torch.is_grad_enabled()
