"""`python -m data.problems my.jsonl`, and the line on a set at the start of sft.py and grpo.py."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from data.problem import Problem
from data.problem_check import levels, look_at, repeated, summary, unknown_words
from data.problem_report import default_tokenizer, main
from data.problems import load_problems, prompt_text
from data.tokenizer import get_tokenizer

TOY = get_tokenizer("toy")
ROWS = [
    {"question": "say ann has 3 cards", "answer": "3", "solutions": ["so \\boxed{ 3}", "now \\boxed{ 3}"], "level": 1},
    {"question": "say bea has 4 cards", "answer": "4", "solutions": ["so \\boxed{ 5}"], "level": "Level 1"},
    {"question": "say bea has 6 litres", "answer": "notfound"},
    {"question": "say ann has 3 cards", "answer": "3", "solutions": ["so it has 3"]},
    {"question": "say bea has 7 cards", "answer": "7" * 200},
]  # fmt: skip


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "my.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(path)


def test_what_is_found(file):
    problems = load_problems(file)
    found = look_at(problems, TOY, all_solutions=True)
    assert found.prompts == [len(TOY.encode_ordinary(prompt_text(p))) for p in problems]
    assert found.solutions == [
        len(TOY.encode_ordinary(text)) for p in problems for text in p.solutions
    ]
    assert (found.accepted, found.wrong, found.unmarked, found.long_answers) == (2, [2], [4], [5])
    assert look_at(problems, TOY, all_solutions=False).accepted == 1
    assert repeated(problems) == 1 and levels(problems) == "none (2), 1 (1), Level 1 (1)"
    assert unknown_words(problems, TOY).endswith("letter by letter: it")


def test_the_summary_is_one_line(file):
    said = summary(load_problems(file), TOY)
    assert said == (
        "prompts of 7 tokens, solutions of 4 to 6; the grader accepts 1 of 3 first "
        "solutions, not lines 2 and 4"
    )
    assert summary(load_problems(file), TOY, most=1) == (
        "the first 1: prompts of 7 tokens, solutions of 4; the grader accepts 1 of 1 first solutions"
    )
    assert summary(load_problems("toy", "val"), TOY) == "" and summary([], TOY) == ""


def test_problems_without_solutions_or_levels(tmp_path, capsys):
    path = tmp_path / "bare.jsonl"
    path.write_text('{"question": "say 3", "answer": 3}')
    assert summary(load_problems(str(path)), TOY) == "prompts of 4 tokens"
    main(str(path), "--tokenizer", "toy")
    assert capsys.readouterr().out.splitlines() == [
        f"{path} train: 1 problems, 0 solutions; graded as math",
        "  tokens (toy): prompts 4, median 4",
    ]


def test_the_command_needs_no_network_and_says_all(file):
    environment = {**os.environ, "https_proxy": "http://127.0.0.1:1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "data.problems", file, "--tokenizer", "toy"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and not done.stderr
    assert done.stdout.splitlines() == [
        f"{file} train: 4 problems, 4 solutions; graded as math; left out 1 row with the answer 'notfound' (line 3)",
        "  levels: none (2), 1 (1), Level 1 (1)",
        "  1 ask the same as an earlier one",
        "  tokens (toy): prompts 7, median 7; solutions 4 to 6, median 5",
        "  solutions: the grader accepts 2 of 4",
        "  1 with another answer than the row's (line 2)",
        "  1 without an answer in a box (line 4)",
        "  1 answers of more than 100 characters, which hardly any response equals (line 5)",
        "  1 of 12 different words are unknown to the toy tokenizer, which writes them letter by letter: it",
    ]  # fmt: skip


def test_a_file_that_cannot_be_used_ends_with_status_1(tmp_path):
    (tmp_path / "bad.jsonl").write_text('{"question": "q", "answer": "1"}\n{')
    for name, said in (("bad.jsonl", "line 2 is not JSON"), ("none.jsonl", "is missing")):
        command = [sys.executable, "-m", "data.problems", str(tmp_path / name)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 1 and done.stderr.startswith("data.problems: ")
        assert said in done.stderr and done.stderr.count("\n") == 1 and not done.stdout


def test_words_that_the_toy_tokenizer_does_not_know():
    problem = Problem("1", "say ann has kiwis and kiwis", "1", ("so zebras \\boxed{ 1}",), "x")
    said = unknown_words([problem], TOY)
    assert said.startswith("2 of ") and said.endswith("letter by letter: kiwis, zebras")
    assert unknown_words(load_problems("toy", "val"), TOY) == ""


def test_the_tokenizer_is_one_that_is_here(monkeypatch, tmp_path):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    assert default_tokenizer() == "toy"
    (tmp_path / "9b5ad71b2ce5302211f9c61530b329a4922fc6a4").write_bytes(b"")  # as tiktoken names it
    assert default_tokenizer() == "dolma2"
