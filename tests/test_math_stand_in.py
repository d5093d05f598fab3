"""A stand-in for MATH, with bare and empty boxes among its rows as in the real one: it trains, evaluates, and says what it left out."""

import json
import sys

import pytest
from conftest import run, tiny
from test_recipes import flags

import evaluate
import grpo
import sft
from data.problems import load_problems
from data.tokenizer import get_tokenizer
from plumbing.checkpoint import save_checkpoint
from plumbing.examples import print_set
from plumbing.files import read_rows

TOY = get_tokenizer("toy")
LEFT_OUT = "left out 2 rows with an empty box"


def rows_of(split):
    """14 rows in MATH's shape: two bare boxes, two empty ones, one \\fbox, and others."""
    boxes = ["\\boxed 8", "\\boxed{}", "\\boxed\\frac12", "\\boxed{ }", "\\fbox{3}"]
    boxes += [f"\\boxed{{{i}}}" for i in range(9)]
    rows = []
    for i, box in enumerate(boxes):
        question = f"say ann has {i} cards in {split} . how many now ?"
        solution = f"first {i} + 2 . so ${box}$."
        rows.append(
            {
                "problem": question,
                "level": f"Level {i % 3}",
                "type": "Algebra",
                "solution": solution,
            }
        )
    return rows


class Hub:
    def load_dataset(self, repo, *config, split):
        assert repo == "DigitalLearningGmbH/MATH-lighteval"
        return rows_of(split)


@pytest.fixture
def checkpoint(tmp_path):
    facts = dict(
        id="x", base_id="x", recipe="base", tokens=4000, preset="toy", seed=0, code="", config={}, tokenizer="toy",
        corpus="toy",
    )  # fmt: skip
    save_checkpoint(str(tmp_path / "4K.pt"), tiny(TOY.n_vocab, max_seq_len=1024), facts)
    return tmp_path / "4K.pt"


def test_the_answers_of_the_stand_in(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", Hub())
    problems = load_problems("math", "train")
    answers = ["8", "\\frac12", "3", *map(str, range(9))]
    assert [p.answer for p in problems] == answers and problems.left_out == {"an empty box": [2, 4]}


def test_the_stand_in_as_a_set_of_the_hub(monkeypatch, checkpoint, capsys):
    monkeypatch.setitem(sys.modules, "datasets", Hub())
    out = checkpoint.parent
    lengths = dict(max_prompt=100, max_response=40)
    values = dict(steps=2, batch=4, **lengths, log_every=1)
    sft.main(flags(sft, checkpoint, out / "sft.pt", "math", "controlled", **values))
    said = capsys.readouterr().out
    line = next(
        line
        for line in said.splitlines()
        if line.startswith("math train: 12 problems, 12 solutions; ")
    )
    assert line.endswith(f"graded as math; {LEFT_OUT} (rows 2 and 4)")
    assert "math: prompts of " in said and "the grader accepts 12 of 12 first solutions" in said
    values = dict(steps=1, prompts=4, n=2, **lengths)
    grpo.main(flags(grpo, checkpoint, out / "rl.pt", "math", "controlled", **values))
    said = capsys.readouterr().out
    assert f"{LEFT_OUT} (rows 2 and 4); 0 over 100 prompt tokens left out" in said
    assert "the grader accepts 12 of 12 first solutions" in said and (out / "rl.pt").exists()
    config = evaluate.Config(
        ckpt=str(checkpoint), preset="toy", task="math", shots=8, n=2, k="1,2", max_response=8, progress=False,
    )  # fmt: skip
    evaluate.main(config)
    said = capsys.readouterr().out
    assert "math test: 12 problems" in said and said.count(f"{LEFT_OUT} (rows 2 and 4)") == 2
    assert "--shots 8: examples of math train: 12 problems, 12 solutions" in said
    (row,) = read_rows(str(out / "results.jsonl"))
    assert len(row["problems"]) == 12 and {p[1] for p in row["problems"]} == {
        "Level 0",
        "Level 1",
        "Level 2",
    }


def test_the_stand_in_as_a_file_in_commands(checkpoint):
    file = checkpoint.parent / "math.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows_of("train")))
    said = run("-m data.problems", file, "--tokenizer", "toy")
    assert f"{LEFT_OUT} (lines 2 and 4)" in said and "the grader accepts 12 of 12" in said
    more = (
        "--max_prompt",
        "100",
        "--max_response",
        "40",
        "--steps",
        "1",
        "--data",
        file,
        "--ckpt",
        checkpoint,
    )
    said = run("sft.py", *more, "--batch", "4")
    assert f"{LEFT_OUT} (lines 2 and 4)" in said
    asked = ("--task", file, "--shots", "8", "--samples", "2", "--k", "1", "--max_response", "8")
    said = run("evaluate.py", "--ckpt", checkpoint.parent / "4K.sft.pt", *asked)
    assert f"{LEFT_OUT} (lines 2 and 4)" in said
    assert f"the examples are other problems of {file} itself; give others with --examples" in said


def test_of_several_ranks_one_says_it(monkeypatch, capsys, tmp_path):
    file = tmp_path / "math.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows_of("train")))
    problems = load_problems(str(file))
    print_set("math.jsonl", problems, TOY)
    assert capsys.readouterr().out.count("\n") == 2
    monkeypatch.setattr("plumbing.examples.rank", lambda: 1)
    print_set("math.jsonl", problems, TOY)
    assert not capsys.readouterr().out
