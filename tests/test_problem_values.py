"""Rows of problems with odd values in any field, very long lines, and rows of the hub."""

import datetime
import decimal
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from test_problem_rows import CASES, refused, write

from data import UserError
from data.jsonl import parse, read_jsonl
from data.problems import is_toy, load_problems
from data.rows import read_rows
from data.sources import counted, load_openmath
from plumbing.batches import problem_keys

# --- the damaged inputs that are kept -----------------------------------------------------------------------------


def case(name):
    path = CASES / f"{name}.jsonl"
    return str(path) if path.exists() else pytest.skip(f"{path} is not here")


@pytest.mark.parametrize(
    "name, answers",
    [
        ("math_bare_box", ["7", "8"]),
        ("math_fbox", ["7", "\\frac{5}{6}"]),
        ("math_empty_box", ["7"]),
        ("math_earlier_box", ["7", "7"]),
        ("numina_answer_field", ["42"]),
        ("answer_nan", ["2"]),
        ("gsm8k_pair", ["13, 5"]),
        ("gsm8k_point", ["(2,3)"]),
        ("gsm8k_no_work", ["18"]),
        ("gsm8k_blank_after", ["18", "27"]),
        ("nulls_in_list", ["2", "3"]),
        ("nulls_level_only", ["2", "3"]),
        ("nulls_math_solution", ["7"]),
        ("nulls_openmath", ["3"]),
        ("nulls_solutions", ["2", "3"]),
        ("nulls_source", ["2"]),
        ("level_mixed", ["2", "3"]),
        ("math500_shape", [str(2 * i) for i in range(10)]),
        ("bom", ["2", "3"]),
        ("dup_ids", ["2", "4", "4"]),
        ("toys", ["2, 5"]),
        ("surrogate_id", ["5"]),
        ("surrogate_question", ["5"]),
        ("surrogate_solution", ["5"]),
    ],
)
def test_the_answers_of_damaged_files(name, answers):
    problems = load_problems(case(name))
    assert [p.answer for p in problems] == answers
    assert sorted(p.level for p in problems) and len(set(problem_keys(problems))) == len(answers)
    assert not any(map(is_toy, problems))
    for problem in problems:
        json.dumps([problem.id, problem.question, *problem.solutions], ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "name, said",
    [
        ("answer_bool", "line 1: has true as its answer"),
        ("answer_list", "line 1: has a list as its answer"),
        ("numina_sentinel", "line 1: has the answer 'proof'"),
        ("numbers_solutions", "line 1: field solutions holds a number"),
    ],
)
def test_damaged_files_that_hold_nothing(name, said):
    assert said in refused(case(name))


def test_what_is_left_out_of_damaged_files_is_said():
    for name, line in (("math_empty_box", 2), ("nulls_math_solution", 2), ("answer_nan", 1)):
        problems = load_problems(case(name))
        assert f"left out 1 row with {list(problems.left_out)[0]} (line {line})" in counted(
            name, "train", problems
        )


# --- every field of every shape, with every odd value -------------------------------------------------------------

SHAPES = [
    {"question": "How many?", "answer": "5", "id": "a", "solutions": ["\\boxed{5}", "s"], "source": "s", "kind": "math",
     "level": "l"},
    {"question": "How many?", "answer": "5 <<2+3=5>>\n#### 5", "id": 3, "level": 2},
    {"problem": "How many?", "generated_solution": "\\boxed{5}", "expected_answer": "5", "problem_source": "gsm8k"},
    {"problem": "How many?", "solution": "\\boxed{5}", "level": "Level 1", "type": "Algebra"},
    {"problem": "How many?", "solution": "\\boxed{5}", "answer": "5", "source": "olympiads", "uuid": "x"},
    {"question": "How many?", "solution": "\\boxed{5}", "answer": 5.0, "right": 3, "n": 64},
]  # fmt: skip
ODD = [
    None, True, False, 0, -1, 10**4_000, 1.5, math.nan, math.inf, 1e300, "", " ", "\n\n", [], [None], ["a", None], [[]],
    [1], {}, {"a": [None]}, "\ud800", ["\udfff"], "a\x00b", "x" * 100_000, "####", "\n####", "#### " * 1_000, "\\boxed",
    "\\boxed{" * 1_000, "\\boxed{}", "<<" * 10_000, "b'bytes'", "\u2028", "nan", "NotFound", "1,000", "-" * 50, "\r",
    "\\fbox", "\\boxed{\x00}", [["deep"] * 3] * 3, {"question": "q"}, "\ufeff", "0" * 5_000, "math", "toy", "gsm8k",
]  # fmt: skip
NOT_JSON = [b"bytes", datetime.date(2024, 1, 1), decimal.Decimal("1.5"), np.arange(3), np.float32(2), object(), (1, 2),
            complex(1, 2), {1, 2}]  # fmt: skip


def outcome(rows):
    """The problems, all of them whole, or the one line of an error that names the row."""
    try:
        problems = read_rows(rows, "odd.jsonl", "line", "odd.jsonl")
    except UserError as error:
        said = str(error)
        assert said.startswith("odd.jsonl, line 1: ") and "\n" not in said and len(said) < 500, said
        said.encode()
        return said
    for problem in problems:
        texts = [
            problem.id,
            problem.question,
            problem.answer,
            problem.source,
            problem.level,
            *problem.solutions,
        ]
        assert (
            all(isinstance(text, str) for text in texts)
            and problem.question.strip()
            and problem.answer.strip()
        )
        json.dumps(texts, ensure_ascii=False).encode()
        hash(problem)
    counted("odd.jsonl", "train", problems).encode()
    return problems


def test_odd_values_give_problems_or_one_line():
    n = 0
    for shape in SHAPES:
        for name in [*shape, "kind", "question", "problem", "solution"]:
            for value in [*ODD, *NOT_JSON]:
                outcome([(1, {**shape, name: value})])
                outcome([(1, {**shape, name: value}), (2, shape)])
                n += 2
        for name in shape:
            without = {key: value for key, value in shape.items() if key != name}
            outcome([(1, without)])
    for value in [*ODD, *NOT_JSON]:
        outcome([(1, value)])
    assert n > 4_000


def test_odd_values_as_json():
    """What Python writes for NaN and for halves of characters is read again."""
    for shape in SHAPES:
        for name in shape:
            for value in ODD:
                outcome([(1, parse(json.dumps({**shape, name: value}).encode()))])


def test_odd_bytes_in_a_line():
    line = json.dumps(SHAPES[0]).encode()
    rng = np.random.default_rng(0)
    n_refused = 0
    for _ in range(3_000):
        damaged = bytearray(line)
        for _ in range(rng.integers(1, 4)):
            damaged[rng.integers(len(damaged))] = rng.integers(256)
        try:
            row = parse(bytes(damaged[: rng.integers(1, len(damaged) + 1)]))
        except UserError as error:
            n_refused += 1
            assert "\n" not in str(error)
            continue
        outcome([(1, row)])
    assert n_refused > 1_000


# --- long lines ---------------------------------------------------------------------------------------------------


def seconds_of(tmp_path, row):
    import time

    path = write(tmp_path, json.dumps(row))
    start = time.perf_counter()
    try:
        load_problems(path)
    except UserError:
        pass
    return time.perf_counter() - start


@pytest.mark.parametrize(
    "make",
    [
        lambda n: {"question": "q", "answer": "<<" * n + "\n#### 1"},
        lambda n: {"question": "q", "answer": ">><<" * n + "\n#### 1"},
        lambda n: {"question": "q", "answer": "1\n####" + " " * n + "x" + " " * n + "x"},
        lambda n: {"question": "q", "answer": "####\n" * n + "x"},
        lambda n: {"question": "q", "answer": "#" * n + "x\n"},
        lambda n: {"question": "q", "answer": "a\n#### " + "1,000," * n},
        lambda n: {"problem": "q", "solution": "\\boxed{" * n},
        lambda n: {"problem": "q", "solution": "\\boxed" * n},
        lambda n: {"problem": "q", "solution": "\\boxed{" + "{" * n + "}" * n},
        lambda n: {"question": "\ud800" * n, "answer": "1"},
    ],
)
def test_reading_takes_time_in_proportion_to_the_length(tmp_path, make):
    """Twenty times the length: a quadratic reader would take 400 times as long."""
    seconds_of(tmp_path, make(100))
    short = min(seconds_of(tmp_path, make(20_000)) for _ in range(3))
    long = min(seconds_of(tmp_path, make(400_000)) for _ in range(2))
    assert long < 100 * max(short, 1e-3)


def test_read_jsonl_numbers_lines_from_1_and_skips_blank_ones(tmp_path):
    path = Path(write(tmp_path, "1", "", "  ", '{"a": [1.5, null]}'))
    assert list(read_jsonl(path)) == [(1, 1), (4, {"a": [1.5, None]})]


# --- the hub ------------------------------------------------------------------------------------------------------


class DatasetGenerationError(Exception):
    """Like those of the library, it is no OSError and no ValueError."""


class FakeDatasets:
    """A hub whose sets, or whose third row, cannot be read."""

    def __init__(self, fails_at_once):
        self.fails_at_once = fails_at_once

    def load_dataset(self, repo, *config, split):
        if self.fails_at_once:
            raise DatasetGenerationError("An error occurred\nmore") from KeyError("column")
        return self.rows()

    def rows(self):
        yield {"problem": "p", "solution": "\\boxed{7}", "level": "Level 1", "type": "Algebra"}
        yield {"problem": "p", "solution": "\\boxed{}", "level": "Level 1", "type": "Algebra"}
        raise DatasetGenerationError("")


def test_errors_of_the_library_are_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", FakeDatasets(True))
    said = refused("math")
    assert (
        "cannot load DigitalLearningGmbH/MATH-lighteval, split train (An error occurred: KeyError"
        in said
    )
    monkeypatch.setitem(sys.modules, "datasets", FakeDatasets(False))
    assert "MATH-lighteval, row 3 (DatasetGenerationError); check the network" in refused("math")


def test_every_kind_of_error_of_the_real_library_is_one_line(monkeypatch):
    exceptions = pytest.importorskip("datasets.exceptions")

    class Hub:
        def load_dataset(self, *args, split):
            raise self.error

    hub = Hub()
    monkeypatch.setitem(sys.modules, "datasets", hub)
    for kind in vars(exceptions).values():
        if isinstance(kind, type) and issubclass(kind, exceptions.DatasetsError):
            hub.error = (
                kind("gone") if kind is not exceptions.DatasetGenerationCastError else kind("gone")
            )
            assert "cannot load openai/gsm8k, split train (gone)" in refused("gsm8k")


def test_rows_of_the_hub_are_checked_like_lines(monkeypatch):
    class Hub:
        def load_dataset(self, repo, *config, split):
            return [
                {"question": "a", "answer": "x\n#### 5"},
                {"question": 5, "answer": "x\n#### 5"},
            ]

    monkeypatch.setitem(sys.modules, "datasets", Hub())
    assert refused("gsm8k").startswith(
        "openai/gsm8k, row 2: question or answer is empty or not text"
    )


def test_openmath_of_the_hub_leaves_out_rows_without_an_answer(monkeypatch):
    datasets = pytest.importorskip("datasets")
    rows = []
    for i in range(1_010):
        row = {"problem": f"q{i}", "expected_answer": str(i), "problem_source": "gsm8k"}
        rows.append({**row, "generated_solution": f"so {i}"})
    rows[1] |= {"expected_answer": None}
    rows[3] |= {"expected_answer": "notfound"}
    rows += [{**rows[3], "expected_answer": "3", "generated_solution": "later"}]
    table = datasets.Dataset.from_list(rows)
    monkeypatch.setattr("data.sources.hub_rows", lambda *args, **kwargs: table)
    load_openmath.cache_clear()
    train = load_problems("openmath-gsm8k", "train")
    val = load_problems("openmath-gsm8k", "val")
    assert len(val) == 1_000 and len(train) == 9
    assert train.left_out == {
        "neither an answer nor a closed box": [2],
        "the answer 'notfound'": [4],
    }
    by_question = {p.question: p for p in train + val}
    assert "q1" not in by_question and tuple(by_question["q3"].solutions) == ("later",)
    assert by_question["q3"].answer == "3" and "rows" not in counted("o", "train", list(train))
    table = datasets.Dataset.from_list([{**rows[0], "problem": None}, *rows])
    load_openmath.cache_clear()
    assert refused("openmath").startswith(
        "nvidia/OpenMathInstruct-2, row 1: question or answer is empty"
    )
    table = datasets.Dataset.from_list([{"question": "a"}])
    assert refused("openmath").startswith("cannot load nvidia/OpenMathInstruct-2 (")
    load_openmath.cache_clear()
