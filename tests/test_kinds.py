"""How an answer is graded comes from its row or its named set, never from the name of a file."""

import json

import pytest

import evaluate
from data import UserError
from data.grader import reward
from data.problem import KINDS, Problem, with_kind
from data.problems import NAMES, is_toy, load_problems
from data.rows import row_to_problem
from data.sources import counted
from data.toy import FAMILIES


def write(tmp_path, *rows, name="rows.jsonl"):
    path = tmp_path / name
    path.write_text(
        "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows),
        encoding="utf-8",
    )
    return str(path)


WORKED = {"question": "What is 9 * 2?", "answer": "9*2=18\n#### 18"}


@pytest.mark.parametrize(
    "name", ["gsm8k_train.jsonl", "train.jsonl", "toys_for_sale.jsonl", "toy.jsonl", "math.jsonl"]
)
def test_the_name_of_a_file_decides_nothing(tmp_path, name):
    (problem,) = load_problems(write(tmp_path, WORKED, name=name))
    assert (problem.kind, problem.source) == ("gsm8k", name) and not is_toy(problem)
    assert reward("9*2=18\n#### 18", problem.answer, problem.kind) == 1.0
    (plain,) = load_problems(
        write(tmp_path, {"question": "Both roots of (x-2)(x-5)?", "answer": "2, 5"}, name=name)
    )
    assert plain.kind == "math" and not is_toy(plain)
    assert reward("\\boxed{5, 2}", plain.answer, plain.kind) == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_a_rows_own_kind_wins(tmp_path, kind):
    rows = [
        {**WORKED, "kind": kind},
        {"question": "q", "answer": "1, 2", "kind": kind, "source": "toy"},
        {"problem": "p", "solution": "\\boxed{1}", "kind": kind},
        {
            "problem": "o",
            "generated_solution": "s",
            "expected_answer": "2",
            "problem_source": "gsm8k",
            "kind": kind,
        },
    ]
    assert {p.kind for p in load_problems(write(tmp_path, *rows))} == {kind}


def test_a_row_without_a_kind(tmp_path):
    openmath = {"problem": "p", "generated_solution": "s", "expected_answer": "2"}
    expected = [
        ({**WORKED, "kind": None}, "gsm8k"),
        ({"question": "q", "answer": "18"}, "math"),
        ({"question": "q", "answer": 18, "source": "gsm8k"}, "math"),
        ({"problem": "p", "solution": "\\boxed{1}"}, "math"),
        ({**openmath, "problem_source": "augmented_gsm8k"}, "gsm8k"),
        ({**openmath, "problem_source": "augmented_math"}, "math"),
        (openmath, "math"),
    ]
    for row, kind in expected:
        assert row_to_problem(row, "train.jsonl").kind == kind, row


@pytest.mark.parametrize("kind", ["gsm", "", "GSM8K", 5, ["math"]])
def test_an_unknown_kind_is_one_line(tmp_path, kind):
    with pytest.raises(UserError) as error:
        load_problems(write(tmp_path, WORKED, {**WORKED, "kind": kind}))
    said = str(error.value)
    assert (
        said.endswith(f"line 2: kind {kind!r} is none of gsm8k, math, ordered") and "\n" not in said
    )


def test_with_kind():
    problems = load_problems("toy", "val")
    assert with_kind(problems, "") == problems
    for kind in KINDS:
        changed = with_kind(problems, kind)
        assert {p.kind for p in changed} == {kind} and [p.id for p in changed] == [
            p.id for p in problems
        ]
    with pytest.raises(UserError, match="--kind maths: choose gsm8k, math or ordered"):
        with_kind(problems, "maths")


def test_rows_of_the_difficulty_tool_keep_their_kind_and_source(tmp_path):
    problems = load_problems("toy", "val")[:3]
    fields = ("id", "question", "answer", "solutions", "source", "kind", "level")
    rows = []
    for p in problems:
        row = {field: getattr(p, field) for field in fields}
        rows.append({**row, "solutions": list(p.solutions), "right": 5, "n": 64})
    read = load_problems(write(tmp_path, *rows, name="4B.hard.jsonl"))
    assert read == problems and {p.kind for p in read} == {"ordered"} and all(map(is_toy, read))


def test_only_the_toy_world_is_the_toy_world():
    assert all(is_toy(load_problems(name, "val")[0]) for name in FAMILIES)
    assert not any(
        is_toy(Problem("1", "q", "2", (), source))
        for source in ("toy.jsonl", "toys", "", "toy-hard.jsonl", *NAMES[3:])
    )


def test_counts_say_how_answers_are_graded():
    problems = load_problems("toy", "val")
    assert counted("toy", "val", problems).endswith("; graded as ordered")
    mixed = with_kind(problems[:20], "math") + with_kind(problems[20:], "gsm8k")
    assert counted("x", "val", mixed).endswith("; graded as gsm8k (80) and math (20)")
    assert counted("x", "val", mixed + problems[:3]).endswith(
        "; graded as gsm8k (80), math (20) and ordered (3)"
    )
    assert counted("x", "val", []) == "x val: 0 problems, 0 solutions"


def test_evaluation_refuses_an_unknown_kind_before_it_starts():
    config = evaluate.Config(ckpt="nowhere.pt", task="general,toy", kind="maths")
    with pytest.raises(UserError, match="--kind maths: choose gsm8k, math or ordered"):
        evaluate.main(config)
