"""Rows of every published shape, whole and damaged: the right problem, a row that is left out and said, or one line."""

import json
import math
from pathlib import Path

import pytest

from data import UserError, toy
from data.held_out import train_and_val
from data.problem import Problem, Problems, like, places, question_id, with_kind
from data.problems import is_toy, load_problems
from data.rows import last_boxed, row_to_problem, split_worked, without_thousands
from data.sources import counted
from data.tokenizer import get_tokenizer
from plumbing.batches import problem_keys

CASES = Path(__file__).parents[2] / "shared/cases"


def write(tmp_path, *rows, name="rows.jsonl"):
    path = tmp_path / name
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    return str(path)


def refused(path):
    """The one line by which a file is refused."""
    with pytest.raises((UserError, OSError)) as error:
        load_problems(path)
    said = str(error.value)
    assert "\n" not in said and len(said) < 600
    return said


# --- the shapes ---------------------------------------------------------------------------------------------------

MATH = {"problem": "What is 3 + 4?", "level": "Level 1", "type": "Prealgebra"}


@pytest.mark.parametrize(
    "solution, answer",
    [
        ("We add: $\\boxed{7}$.", "7"),
        ("There are $\\boxed{6}$ pairs, so our answer is $\\boxed{\\frac{1}{2}}$.", "\\frac{1}{2}"),
        ("$\\boxed{ 7 }$", "7"),
        ("so \\boxed 8.", "8"),
        ("There are $\\boxed{6}$ pairs, so our answer is $\\boxed 7$.", "7"),
        ("It is \\fbox{\\frac{5}{6}}.", "\\frac{5}{6}"),
        ("First \\fbox{2}, then \\boxed{3}.", "3"),
        ("First \\boxed{2}, then \\fbox{3}.", "3"),
        ("$\\boxed\\frac12$", "\\frac12"),
    ],
)
def test_the_last_box_of_any_form_is_the_answer(solution, answer):
    problem = row_to_problem({**MATH, "solution": solution}, "math")
    assert (problem.answer, problem.solutions) == (answer, (solution,))


@pytest.mark.parametrize(
    "solution", ["", " ", None, "none", "\\boxed{}", "\\boxed{ }", "\\boxed{1", "\\boxed"]
)
def test_without_a_box_the_rows_answer_counts(solution):
    row = {**MATH, "solution": solution, "answer": "42", "source": "olympiads"}
    assert row_to_problem(row, "numina").answer == "42"
    with pytest.raises(UserError, match="empty|box"):
        row_to_problem({**MATH, "solution": solution}, "math")
    with pytest.raises(UserError, match="empty|box"):
        row_to_problem({**MATH, "solution": solution, "answer": None}, "math")


def test_an_unclosed_last_box_is_not_replaced_by_an_earlier_one():
    assert last_boxed("\\boxed{7} and then \\boxed{8") is None
    assert last_boxed("\\boxed{7} and then \\boxed{}") == ""
    assert last_boxed("\\boxedtext{7}") is None
    assert last_boxed("\\boxed{x = \\boxed{8}}") == "8"


@pytest.mark.parametrize(
    "answer, expected",
    [
        ("9 * 2 = 18\n#### 18", "18"),
        ("9 * 2 = 18\n#### 18\n\n", "18"),
        ("9 * 3 = 27\r\n#### 27\r\n", "27"),
        ("#### 18", "18"),
        ("####18", "18"),
        ("a\n#### 1,000", "1000"),
        ("a\n#### $1,234,567.50", "$1234567.50"),
        ("a\n#### 1,000, 2,000", "1000, 2000"),
        ("a\n#### 13, 5", "13, 5"),
        ("a\n#### 13,5", "13,5"),
        ("a\n#### 1,5000", "1,5000"),
        ("a\n#### (2,3)", "(2,3)"),
        ("a\n#### (2,300)", "(2,300)"),
        ("a\n#### -1,000", "-1000"),
        ("#### Step 1\nfirst\n#### 18", "18"),
        ("a\n#### 18\nSo she has them all.", "18"),
        ("a = 18 #### 18", "18"),
        ("a\n#### \\boxed{18}", "18"),
        ("a\n#### yes", "yes"),
    ],
)
def test_what_stands_behind_the_mark(answer, expected):
    problem = row_to_problem({"question": "How many?", "answer": answer}, "x")
    assert (problem.answer, problem.kind) == (expected, "gsm8k")
    for solution in problem.solutions:
        assert solution.endswith(f"\n\\boxed{{{expected}}}") and "####  " not in solution
        assert "\r" not in solution


def test_the_work_before_the_mark_is_the_solution():
    row = {"question": "q", "answer": "It is 48/2 = <<48/2=24>>24.\n#### 24"}
    assert row_to_problem(row, "x").solutions == ("It is 48/2 = 24.\n\\boxed{24}",)
    assert row_to_problem(row, "x", marks=True).solutions == (
        "It is 48/2 = <<48/2=24>>24.\n\\boxed{24}",
    )
    alone = {"question": "q", "answer": "#### 24", "solutions": ["half of 48 \\boxed{24}"]}
    assert row_to_problem(alone, "x").solutions == ("half of 48 \\boxed{24}",)
    assert row_to_problem({**alone, "solutions": None}, "x").solutions == ()
    with pytest.raises(UserError, match="nothing behind ####"):
        split_worked("half of 48\n####\n")


def test_only_thousands_lose_their_commas():
    for text in ("0,500", "1,00", "12,34,567", "1,2", "x,100", "[1,000]", "1,000,5"):
        assert without_thousands(text) == text
    assert without_thousands("1,000 dollars") == "1000 dollars"


def test_other_shapes(tmp_path):
    rows = [
        {"problem": "0", "answer": "a = 1\n#### 1", "solution": None},
        {"question": "a", "solution": "so \\boxed{1}", "answer": "2"},  # the row's own word
        {"question": "b", "solutions": ["so \\boxed{1}"]},
        {"problem": "c", "answer": 3},
        {
            "problem": "d",
            "solution": "so \\boxed{4}",
            "answer": "5",
            "source": "olympiads",
            "uuid": 7,
        },
        {
            "problem": "e",
            "generated_solution": None,
            "expected_answer": "3",
            "problem_source": "gsm8k",
        },
        {"question": "f", "answer": 0.00001},
        {"question": "g", "answer": -2.5, "solutions": "text"},
        {"problem": "h", "solution": None, "solutions": ["so \\boxed{9}"]},
        {
            "problem": "i",
            "question": None,
            "solution": None,
            "generated_solution": None,
            "answer": "6",
        },
        {
            "problem": None,
            "question": "j",
            "solution": "so \\boxed{7}",
            "expected_answer": None,
            "answer": None,
        },
    ]
    problems = load_problems(write(tmp_path, *rows))
    answers = ["1", "2", "1", "3", "4", "3", "0.00001", "-2.5", "9", "6", "7"]
    assert [p.answer for p in problems] == answers
    assert [len(p.solutions) for p in problems] == [1, 1, 1, 0, 1, 0, 0, 1, 1, 0, 1]
    assert problems[5].kind == "gsm8k" and problems[4].source == "olympiads"


# --- left out and said --------------------------------------------------------------------------------------------

NO_ANSWERS = {
    "notfound": "'notfound'", "Proof": "'proof'", "nan": "'nan'", "None": "'none'", "n/a": "'n/a'", "": "empty",
    "  ": "empty",
}  # fmt: skip


@pytest.mark.parametrize("answer, said", NO_ANSWERS.items())
def test_words_for_no_answer_are_said(tmp_path, answer, said):
    path = write(tmp_path, {"question": "a", "answer": answer}, {"question": "b", "answer": "1"})
    problems = load_problems(path)
    assert [p.question for p in problems] == ["b"] and list(problems.left_out.values()) == [[1]]
    assert said in counted("rows.jsonl", "train", problems) and "(line 1)" in counted(
        "r", "train", problems
    )
    assert said in refused(write(tmp_path, {"question": "a", "answer": answer}, name="alone.jsonl"))


@pytest.mark.parametrize(
    "answer", [True, False, [2, 3], {"a": 1}, math.nan, math.inf, -math.inf, None, "x" * 20_001]
)
def test_values_that_are_no_answer_are_said(tmp_path, answer):
    rows = [{"question": "b", "answer": 1}, {"question": "a", "answer": answer}]
    problems = load_problems(write(tmp_path, *rows))
    assert [p.question for p in problems] == ["b"] and list(problems.left_out.values()) == [[2]]
    assert "left out 1 row with" in counted("rows.jsonl", "train", problems)
    assert "line 1" in refused(write(tmp_path, rows[1], name="alone.jsonl"))


def test_many_rows_that_are_left_out_are_one_short_line(tmp_path):
    rows = []
    for i in range(2_000):
        rows.append({"question": f"q{i}", "answer": "1" if i % 2 else "notfound"})
    problems = load_problems(write(tmp_path, *rows))
    said = counted("my.jsonl", "train", problems)
    assert len(problems) == 1_000 and len(said) < 200
    assert said.endswith("1,000 rows with the answer 'notfound' (lines 1, 3, 5, 7, 9 and 995 more)")
    assert with_kind(problems, "ordered").left_out == problems.left_out
    assert with_kind(problems, "ordered").numbers == problems.numbers
    train, val = train_and_val(write(tmp_path, *rows), 10)
    assert train.left_out == problems.left_out and len(train) == 990 and train.numbers == []
    assert "left out" not in counted("my.jsonl", "val", val)


def test_rows_that_are_left_out_do_not_make_a_set_another(monkeypatch):
    problems = Problems([Problem(str(i), "q", "1", (), "math") for i in range(7_498)], "row")
    problems.left_out = {"an empty box": [5, 1_200]}
    assert counted("math", "train", problems) == (
        "math train: 7,498 problems, 0 solutions, as documented; graded as math; "
        "left out 2 rows with an empty box (rows 5 and 1,200)"
    )
    assert like([], [1]) == [1] and not isinstance(like([], [1]), Problems)


def test_places():
    assert places("line", [3]) == "line 3" and places("row", [3, 9]) == "rows 3 and 9"
    assert places("line", [1, 2, 3, 4, 5]) == "lines 1, 2, 3, 4 and 5"
    assert places("line", range(1, 1_007)) == "lines 1, 2, 3, 4, 5 and 1,001 more"


def test_openmath_rows_without_an_answer_leave_the_next_one_of_the_question(tmp_path):
    row = {"problem": "1 + 1 ?", "problem_source": "gsm8k"}
    path = write(
        tmp_path,
        {**row, "generated_solution": "a", "expected_answer": None},
        {**row, "generated_solution": "b", "expected_answer": 2},
        {**row, "generated_solution": None, "expected_answer": "2"},
        {**row, "generated_solution": "c", "expected_answer": "2"},
    )
    (problem,) = load_problems(path)
    assert (problem.answer, problem.solutions) == ("2", ("b", "c"))


# --- what is wrong with a file is one line ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row, said",
    [
        ({"question": None, "answer": "1"}, "question or answer is empty: the question must be text"),
        ({"problem": None, "solution": "\\boxed{1}"}, "question or answer is empty: the question must be text"),
        ({"question": ["a"], "answer": "1"}, "field question is a list, must be text"),
        ({"problem": 5, "solution": "\\boxed{1}"}, "field problem is a number, must be text"),
        ({"question": "q", "answer": 1, "solutions": [2, 3]}, "field solutions holds a number, must hold texts"),
        ({"question": "q", "answer": 1, "solutions": {"a": 1}}, "field solutions is an object, must be text or a list"),
        ({"question": "q", "answer": 1, "solutions": True}, "field solutions is true, must be text or a list"),
        ({"problem": "q", "solution": 5}, "field solution is a number, must be text or a list of texts"),
        ({"question": "q", "answer": 1, "level": [1]}, "field level is a list, must be text or a number"),
        ({"question": "q", "answer": 1, "id": False}, "field id is false, must be text or a number"),
        ({"question": "q", "answer": 1, "source": 3}, "field source is a number, must be text"),
        ({"problem": "q", "expected_answer": 1, "problem_source": {}}, "field problem_source is an object"),
        ({"text": "q", "label\n": 1}, "needs the fields question and answer, has text, label"),
        ([], "expected a JSON object, found list"),
        ("null", "expected a JSON object, found NoneType"),
        ('"text"', "expected a JSON object, found str"),
        ('{"question": "q", "answer": "1"', "is not JSON: Expecting ',' delimiter (character 32)"),
        ("[" * 100_000, "is nested too deeply for a row of data"),
        ('{"question": "q", "answer": ' + "[" * 100_000 + "]" * 100_000 + "}", "is nested too deeply"),
        ('{"question": "q", "answer": ' + "1" * 5_000 + "}", "holds a number of too many digits"),
        ('{"question": "q", "answer": "1", "kind": ' + "[" * 500 + "]" * 500 + "}", "is none of gsm8k, math, ordered"),
    ],
)  # fmt: skip
def test_one_line_names_the_line_and_the_field(tmp_path, row, said):
    path = write(tmp_path, {"question": "b", "answer": "1"}, "", row)
    line = refused(path)
    assert line.startswith(f"{path}, line 3") and said in line


def test_files_that_are_no_jsonl_files(tmp_path):
    folder = tmp_path / "folder.jsonl"
    folder.mkdir()
    assert refused(str(folder)).endswith("is a folder; give the path of a .jsonl file")
    utf_16 = tmp_path / "utf16.jsonl"
    utf_16.write_text('{"question": "q", "answer": "1"}\n', encoding="utf-16")
    assert refused(str(utf_16)).endswith("is UTF-16; save it as UTF-8")
    binary = tmp_path / "binary.jsonl"
    binary.write_bytes(bytes(range(256)) * 10)
    assert "line 1 is not JSON" in refused(str(binary))
    only_blank = write(tmp_path, "", " ", name="blank.jsonl")
    assert "is empty; it needs one JSON object per line" in refused(only_blank)


def test_the_mark_before_utf_8_is_dropped(tmp_path):
    path = tmp_path / "bom.jsonl"
    line = json.dumps({"question": "1 + 1?", "answer": "2"}).encode()
    path.write_bytes(b"\xef\xbb\xbf" + line + b"\r\n\xef\xbb\xbf" + line + b"\r\n")
    assert [p.id for p in load_problems(str(path))] == [question_id("1 + 1?")] * 2
    path.write_bytes(b"\xef\xbb\xbf")
    assert refused(str(path)).startswith(f"{path} is empty")


def test_halves_of_characters_are_replaced_before_hashing_and_tokenizing(tmp_path):
    half = "\ud83d"
    row = {
        "question": f"How many {half} ?", "answer": f"5{half}", "solutions": [f"{half} \\boxed{{5}}"],
        "id": f"a{half}", "level": half, "source": f"s{half}",
    }  # fmt: skip
    (problem,) = load_problems(write(tmp_path, json.dumps(row)))
    assert problem == Problem("a\ufffd", "How many \ufffd ?", "5\ufffd", ("\ufffd \\boxed{5}",), "s\ufffd", "math", "\ufffd")  # fmt: skip
    (without_id,) = load_problems(write(tmp_path, json.dumps({**row, "id": None})))
    assert without_id.id == question_id("How many \ufffd ?")
    assert problem_keys([problem, without_id])
    encoding = get_tokenizer("toy")
    assert encoding.encode_ordinary(problem.question) == encoding.encode_ordinary(row["question"])
    whole = json.dumps(
        {**row, "question": "How many \U0001f44d ?"}
    )  # two halves that belong together
    assert (
        "\\ud83d\\udc4d" in whole
        and load_problems(write(tmp_path, whole))[0].question == "How many \U0001f44d ?"
    )
    worked = {"question": "q", "answer": f"{half}\n#### 5"}
    assert load_problems(write(tmp_path, json.dumps(worked)))[0].solutions == (
        "\ufffd\n\\boxed{5}",
    )


def test_levels_and_ids_are_text(tmp_path):
    values = ["Level 1", 5, None, 2.0, 1.5, "", math.nan, 0]
    rows = [{"question": f"q{i}", "answer": "2", "level": v, "id": v} for i, v in enumerate(values)]
    problems = load_problems(write(tmp_path, *rows))
    assert [p.level for p in problems] == ["Level 1", "5", "", "2", "1.5", "", "", "0"]
    assert sorted(p.level for p in problems)
    hashed = [question_id(f"q{i}") for i in range(len(values))]
    assert [p.id for p in problems] == [
        "Level 1",
        "5",
        hashed[2],
        "2",
        "1.5",
        hashed[5],
        hashed[6],
        "0",
    ]


def test_the_toy_world_is_what_the_toy_world_made(tmp_path):
    real = toy.problems("train", n=1)[0]
    rows = []
    for source in ("toy", "toy-hard"):
        for question, answer in (
            (real.question, real.answer),
            ("Both roots of (x-2)(x-5)?", "2, 5"),
        ):
            rows.append(
                {"question": question, "answer": answer, "source": source, "kind": "ordered"}
            )
    problems = load_problems(write(tmp_path, *rows))
    assert [is_toy(p) for p in problems] == [True, False, False, False]
    assert problems[1].source == "toy (not the toy world)"
    file = write(tmp_path, {"question": "q", "answer": "1, 2"}, name="toy")  # a file of that name
    assert not is_toy(load_problems(file)[0])
