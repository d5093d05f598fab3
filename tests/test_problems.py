"""Every source gives the same kind of problem; what is wrong with a file is said in one line with the line number."""

import json
import sys
from pathlib import Path

import pytest

from data import UserError
from data.problems import INSTRUCTION, Problem, few_shot_text, last_boxed, load_problems, prompt_text, question_id, row_to_problem

SHARED = Path(__file__).parents[2] / "shared/data"


def shared(name):
    path = SHARED / name
    return str(path) if path.exists() else pytest.skip(f"{path} is not here")


def write(tmp_path, *rows):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return str(path)


def test_prompts():
    a = Problem("1", "1 + 1 ?", "2", ("It is \\boxed{2}",), "test")
    b = Problem("2", "2 + 1 ?", "3", (), "test")
    assert prompt_text(a) == f"1 + 1 ? {INSTRUCTION}\n"
    assert few_shot_text(b, [a]) == f"1 + 1 ? {INSTRUCTION}\nIt is \\boxed{{2}}\n\n2 + 1 ? {INSTRUCTION}\n"
    assert few_shot_text(b, []) == prompt_text(b)


@pytest.mark.parametrize("name", ["toy", "toy-hard"])
def test_toy(name):
    assert [len(load_problems(name, split)) for split in ("train", "val", "test")] == [600, 100, 200]
    assert load_problems(name)[0].source == name
    with pytest.raises(UserError, match="choose train, val, test"):
        load_problems(name, "dev")


def test_gsm8k_files():
    train, test = load_problems(shared("gsm8k_train.jsonl")), load_problems(shared("gsm8k_test.jsonl"), "any split")
    assert (len(train), len(test)) == (7473, 1319)
    assert train[0].answer == "72" and train[0].solutions == (
        "Natalia sold 48/2 = 24 clips in May.\nNatalia sold 48+24 = 72 clips altogether in April and May.\n\\boxed{72}",)  # fmt: skip
    assert len({p.id for p in train + test}) == 7473 + 1319 and train[0].source == "gsm8k_train"
    for p in train + test:
        (solution,) = p.solutions
        assert "<<" not in solution and "####" not in solution and last_boxed(solution) == p.answer
        int(p.answer)  # all golds are integers, commas are gone


def test_openmath_file():
    problems = load_problems(shared("openmathinstruct2_sample.jsonl"))
    assert len(problems) == 100 and {p.source for p in problems} == {"gsm8k", "augmented_gsm8k", "augmented_math"}
    assert all(last_boxed(p.solutions[0]) is not None for p in problems)


def test_openmath_rows_are_grouped(tmp_path):
    row = {"problem": "1 + 1 ?", "expected_answer": "2", "problem_source": "gsm8k"}
    path = write(tmp_path, {**row, "generated_solution": "a"}, {**row, "problem": "2 ?", "generated_solution": "b"}, {**row, "generated_solution": "c"})
    assert [(p.question, p.solutions) for p in load_problems(path)] == [("1 + 1 ?", ("a", "c")), ("2 ?", ("b",))]


def test_own_rows(tmp_path):
    path = write(tmp_path, {"question": "q1", "answer": 3}, "", {"question": "q2", "answer": "4", "id": 7, "solutions": ["a", "b"], "source": "s", "level": "l"})
    first, second = load_problems(path)
    assert first == Problem(question_id("q1"), "q1", "3", (), "rows")
    assert second == Problem("7", "q2", "4", ("a", "b"), "s", "l")


def test_math_rows():
    row = {"problem": "Half?", "solution": "First $\\boxed{1}$, then $\\boxed{\\frac{1}{2}}$.", "level": "Level 3", "type": "Algebra"}
    p = row_to_problem(row, "math")
    assert (p.answer, p.level, p.source) == ("\\frac{1}{2}", "Level 3", "math")
    with pytest.raises(UserError, match="empty"):
        row_to_problem({"problem": "?", "solution": "no box \\boxed{1"}, "math")


def test_last_boxed():
    assert last_boxed("\\boxed{a}\\boxed{{b}c}") == "{b}c"
    assert last_boxed("\\boxed{}") == "" and last_boxed("none") is None and last_boxed("\\boxed{{1}") is None
    assert last_boxed("\\boxed{" * 50_000) is None


def test_id_is_stable():
    assert question_id("1 + 1 ?") == "47d10e5c5a4f"


@pytest.mark.parametrize("rows, message", [
    ([""], "is empty; it needs one JSON object per line"),
    (['{"question": "q", "answer": "1"}', "{"], "line 2 is not JSON"),
    (["[1]"], "line 1: expected a JSON object, found list"),
    ([{"question": "q", "result": "1"}], "line 1: needs the fields question and answer, has question, result"),
    ([{"question": "q", "answer": ""}], "line 1: question or answer is empty"),
    ([{"question": 5, "answer": "1"}], "line 1: question or answer is empty or not text"),
])  # fmt: skip
def test_bad_files(tmp_path, rows, message):
    with pytest.raises(UserError) as error:
        load_problems(write(tmp_path, *rows))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_not_utf8(tmp_path):
    path = tmp_path / "latin.jsonl"
    path.write_bytes('{"question": "café", "answer": "1"}'.encode("latin-1"))
    with pytest.raises(UserError, match="line 1 is not JSON"):
        load_problems(str(path))


def test_unknown_names(tmp_path):
    with pytest.raises(FileNotFoundError, match="is missing; give the path"):
        load_problems(str(tmp_path / "none.jsonl"))
    with pytest.raises(UserError, match="unknown problem set 'gsm9k'"):
        load_problems("gsm9k")


def test_no_datasets_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)  # makes the import fail
    with pytest.raises(UserError, match="pip install datasets"):
        load_problems("gsm8k")


class FakeDatasets:
    """Rows of the hub's shapes, so that the loaders are tested without the hub."""

    ROWS = {
        "openai/gsm8k": [{"question": "q", "answer": "<<1=1>>one\n#### 1,000"}],
        "DigitalLearningGmbH/MATH-lighteval": [{"problem": "p", "solution": "\\boxed{7}", "level": "Level 1", "type": "Algebra"}],
    }

    def load_dataset(self, repo, *config, split):
        if split == "dev":
            raise ValueError("Unknown split\nmore")
        return self.ROWS[repo]


def test_hub_loaders(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", FakeDatasets())
    (gsm,) = load_problems("gsm8k", "test")
    assert (gsm.answer, gsm.solutions, gsm.source) == ("1000", ("one\n\\boxed{1000}",), "gsm8k")
    assert load_problems("math", "test")[0].answer == "7"
    with pytest.raises(UserError, match="cannot load openai/gsm8k, split dev .Unknown split.; check the network"):
        load_problems("gsm8k", "dev")
    with pytest.raises(UserError, match="train and val"):
        load_problems("openmath", "test")
