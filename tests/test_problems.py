"""Every source gives the same kind of problem; what is wrong with a file is said in one line with the line number."""

import json
import sys
from pathlib import Path

import pytest

from data import UserError
from data.authors import authors_few_shot_text
from data.held_out import train_and_val
from data.problem import question_id
from data.problem_report import report
from data.problems import INSTRUCTION, Problem, load_problems, prompt_text
from data.rows import last_boxed, row_to_problem
from data.sources import contamination, counted, load_openmath
from plumbing.few_shot import few_shot_text

SHARED = Path(__file__).parents[2] / "shared/data"


def shared(name):
    path = SHARED / name
    return str(path) if path.exists() else pytest.skip(f"{path} is not here")


def write(tmp_path, *rows, name="rows.jsonl"):
    path = tmp_path / name
    path.write_text(
        "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows),
        encoding="utf-8",
    )
    return str(path)


def test_prompts():
    a = Problem("1", "1 + 1 ?", "2", ("It is \\boxed{2}",), "test")
    b = Problem("2", "2 + 1 ?", "3", (), "test")
    assert prompt_text(a) == f"1 + 1 ? {INSTRUCTION}\n"
    assert (
        few_shot_text(b, [a])
        == f"1 + 1 ? {INSTRUCTION}\nIt is \\boxed{{2}}\n\n2 + 1 ? {INSTRUCTION}\n"
    )
    assert few_shot_text(b, []) == prompt_text(b)


@pytest.mark.parametrize("name", ["toy", "toy-hard"])
def test_toy(name):
    assert [len(load_problems(name, split)) for split in ("train", "val", "test")] == [
        600,
        100,
        200,
    ]
    assert load_problems(name)[0].source == name and load_problems(name)[0].kind == "ordered"
    with pytest.raises(UserError, match="choose train, val, test"):
        load_problems(name, "dev")


def test_gsm8k_files():
    train, test = (
        load_problems(shared("gsm8k_train.jsonl")),
        load_problems(shared("gsm8k_test.jsonl"), "any split"),
    )
    assert (len(train), len(test)) == (7473, 1319)
    assert train[0].answer == "72" and train[0].solutions == (
        "Natalia sold 48/2 = 24 clips in May.\nNatalia sold 48+24 = 72 clips altogether in April and May.\n\\boxed{72}",)  # fmt: skip
    assert (
        len({p.id for p in train + test}) == 7473 + 1319 and train[0].source == "gsm8k_train.jsonl"
    )
    assert {p.kind for p in train + test} == {"gsm8k"}
    for p in train + test:
        (solution,) = p.solutions
        assert "<<" not in solution and "####" not in solution and last_boxed(solution) == p.answer
        int(p.answer)  # all golds are integers, commas are gone


def test_openmath_file():
    problems = load_problems(shared("openmathinstruct2_sample.jsonl"))
    assert len(problems) == 100 and {p.source for p in problems} == {
        "gsm8k",
        "augmented_gsm8k",
        "augmented_math",
    }
    assert all(last_boxed(p.solutions[0]) is not None for p in problems)
    assert all((p.kind == "gsm8k") == ("gsm8k" in p.source) for p in problems)


def test_openmath_rows_are_grouped(tmp_path):
    row = {"problem": "1 + 1 ?", "expected_answer": "2", "problem_source": "gsm8k"}
    path = write(
        tmp_path,
        {**row, "generated_solution": "a"},
        {**row, "problem": "2 ?", "generated_solution": "b"},
        {**row, "generated_solution": "c"},
    )
    assert [(p.question, p.solutions) for p in load_problems(path)] == [
        ("1 + 1 ?", ("a", "c")),
        ("2 ?", ("b",)),
    ]


def test_own_rows(tmp_path):
    path = write(
        tmp_path,
        {"question": "q1", "answer": 3},
        "",
        {
            "question": "q2",
            "answer": "4",
            "id": 7,
            "solutions": ["a", "b"],
            "source": "s",
            "level": "l",
        },
    )
    first, second = load_problems(path)
    assert first == Problem(question_id("q1"), "q1", "3", (), "rows.jsonl", "math", "")
    assert second == Problem("7", "q2", "4", ("a", "b"), "s", "math", "l")


def test_math_rows():
    row = {
        "problem": "Half?",
        "solution": "First $\\boxed{1}$, then $\\boxed{\\frac{1}{2}}$.",
        "level": "Level 3",
        "type": "Algebra",
    }
    p = row_to_problem(row, "math")
    assert (p.answer, p.level, p.source) == ("\\frac{1}{2}", "Level 3", "math")
    with pytest.raises(UserError, match="empty"):
        row_to_problem({"problem": "?", "solution": "no box \\boxed{1"}, "math")


def test_last_boxed():
    assert last_boxed("\\boxed{a}\\boxed{{b}c}") == "{b}c"
    assert (
        last_boxed("\\boxed{}") == ""
        and last_boxed("none") is None
        and last_boxed("\\boxed{{1}") is None
    )
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
        "DigitalLearningGmbH/MATH-lighteval": [
            {"problem": "p", "solution": "\\boxed{7}", "level": "Level 1", "type": "Algebra"}
        ],
    }

    def load_dataset(self, repo, *config, split):
        if split == "dev":
            raise ValueError("Unknown split\nmore")
        return self.ROWS[repo]


def test_hub_loaders(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", FakeDatasets())
    (gsm,) = load_problems("gsm8k", "test")
    assert (gsm.answer, gsm.solutions, gsm.source) == ("1000", ("one\n\\boxed{1000}",), "gsm8k")
    assert gsm.kind == "gsm8k"
    (math,) = load_problems("math", "test")
    assert (math.answer, math.kind) == ("7", "math")
    with pytest.raises(
        UserError, match="cannot load openai/gsm8k, split dev .Unknown split.; check the network"
    ):
        load_problems("gsm8k", "dev")
    with pytest.raises(UserError, match="train and val"):
        load_problems("openmath", "test")


def openmath_rows(n_gsm=1_300, n_math=1_200):
    """Rows of OpenMathInstruct-2's schema: one to three solutions a question, sources mixed."""
    rows = []
    for i in range(n_gsm + n_math):
        source = ("gsm8k", "augmented_gsm8k", "math", "augmented_math")[i % 2 + 2 * (i >= n_gsm)]
        rows += [
            {
                "problem": f"question {i} ?",
                "generated_solution": f"solution {j} of {i}",
                "expected_answer": str(i),
                "problem_source": source,
            }
            for j in range(1 + i % 3)
        ]
    return sorted(rows, key=lambda row: hash_of(row["problem"] + row["generated_solution"]))


def hash_of(text):
    return question_id("order " + text)


@pytest.fixture
def openmath_hub(monkeypatch):
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_list(openmath_rows())
    monkeypatch.setattr("data.sources.hub_rows", lambda *args, **kwargs: rows)
    load_openmath.cache_clear()
    yield rows
    load_openmath.cache_clear()


def test_openmath_is_grouped_and_split_as_the_authors_did(openmath_hub):
    """Against their steps written out with their library: first row of each question, filter, shuffle(seed=42), 1,000 apart."""
    seen = set()
    unique = openmath_hub.filter(
        lambda row: not (row["problem"] in seen or seen.add(row["problem"]))
    )
    theirs = unique.filter(
        lambda row: row["problem_source"] in ("gsm8k", "augmented_gsm8k")
    ).shuffle(seed=42)
    val, train = load_problems("openmath-gsm8k", "val"), load_problems("openmath-gsm8k", "train")
    assert (
        [p.question for p in val + train] == theirs["problem"][:]
        and len(val) == 1_000
        and len(train) == 300
    )
    assert [p.solutions[0] for p in val + train] == theirs["generated_solution"][
        :
    ]  # `one` is the first row
    first = train[0]
    expected = [
        row["generated_solution"] for row in openmath_hub if row["problem"] == first.question
    ]  # `all`, in the rows' order
    assert (
        list(first.solutions) == expected
        and first.solutions[:1] == (expected[0],)
        and first.answer in first.question
    )
    assert {p.kind for p in val + train} == {"gsm8k"}


def test_all_of_openmath(openmath_hub):
    val, train = load_problems("openmath", "val"), load_problems("openmath", "train")
    assert (
        len(val) == 2_000 and len(train) == 500 and not {p.id for p in val} & {p.id for p in train}
    )
    assert {p.question for p in val[:1_000]} == {
        p.question for p in load_problems("openmath-gsm8k", "val")
    }
    assert {(p.source, p.kind) for p in val + train} == {
        ("gsm8k", "gsm8k"),
        ("augmented_gsm8k", "gsm8k"),
        ("math", "math"),
        ("augmented_math", "math"),
    }
    order = list(dict.fromkeys(openmath_hub["problem"][:]))
    assert [order.index(p.question) for p in train] == sorted(
        order.index(p.question) for p in train
    )  # the rows' order


def test_counts_are_compared_with_the_documented_ones():
    train = load_problems(shared("gsm8k_train.jsonl"))
    assert (
        counted("gsm8k", "train", train)
        == "gsm8k train: 7,473 problems, 7,473 solutions, as documented; graded as gsm8k"
    )
    assert (
        "documented are 7,473: the set has changed, compare with care; graded as gsm8k"
        in counted("gsm8k", "train", train[1:])
    )
    assert (
        counted("my.jsonl", "train", train[:2])
        == "my.jsonl train: 2 problems, 2 solutions; graded as gsm8k"
    )


def test_contamination_is_found(tmp_path, capsys):
    long = "A farmer has twelve cows and eight goats and sells three of the cows to a man from the next village"
    train = [
        Problem(str(i), q, "1", (), "s")
        for i, q in enumerate(
            [
                long + " ?",
                "How  many?",
                "again: " + long.upper() + ", how many now?",
                "a farmer has twelve cows",
            ]
        )
    ]
    tests = [Problem("t", long + ".", "1", (), "s"), Problem("u", "how many", "1", (), "s")]
    assert contamination(train, tests) == (2, 2)
    path = write(tmp_path, {"question": long, "answer": "1"})
    report(path, path)
    assert (
        f"contamination: of 1 training questions 1 stand in {path} test, 1 share 13 words"
        in capsys.readouterr().out
    )


def test_the_authors_few_shot_prompt(tmp_path):
    path = write(
        tmp_path, {"question": "Half of 48?", "answer": "It is 48/2 = <<48/2=24>>24.\n#### 24"}
    )
    shot = load_problems(path, marks=True)
    gsm, math = (
        Problem("1", "1 + 1 ?", "2", (), "gsm8k", "gsm8k"),
        Problem("2", "2 + 1 ?", "3", (), "math", "math"),
    )
    assert authors_few_shot_text(gsm, shot) == (
        "Question: Half of 48?\nAnswer: It is 48/2 = <<48/2=24>>24.\n#### 24\n"
        'Question: 1 + 1 ?\nAnswer: Let\'s think step by step and output the final answer after "####".\n'
    )
    assert authors_few_shot_text(math, shot) == (
        "Question: Half of 48?\nAnswer: It is 48/2 = <<48/2=24>>24.\n\\boxed{24}\n"
        "Question: 2 + 1 ?\nAnswer: Let's think step by step and output the final answer within \\boxed{}.\n"
    )


def test_train_and_val_share_no_question(tmp_path):
    rows = [{"question": f"q{i // 2}", "answer": i} for i in range(40)]  # every question twice
    path = write(tmp_path, *rows)
    train, val = train_and_val(path, 3)
    assert (
        len(val) == 3
        and len(train) == 34
        and not {p.question for p in train} & {p.question for p in val}
    )
    assert [p.answer for p in val] == [
        str(2 * int(p.question[1:])) for p in val
    ]  # the first row of each
    assert len(train_and_val(path, 100)[1]) == 5 and train_and_val(path, 0) == (
        load_problems(path),
        [],
    )
    assert train_and_val("toy", 7)[1] == load_problems("toy", "val")[:7]
