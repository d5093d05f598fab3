"""The toy world: same seed same bytes, no test content in training text, solutions that hold, a check that is strict."""

import itertools
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from data import UserError, benchmarks, toy, toy_text, toy_world
from data.corpus import open_corpus
from data.grader import grade
from data.held_out import train_and_val
from data.problem import question_id
from data.problems import is_toy, load_problems
from data.tokenizer import get_tokenizer

FAMILIES = list(toy.LIMITS)


def first_documents(n, seed=0):
    return list(itertools.islice(toy_text.documents(seed), n))


@pytest.fixture(scope="module")
def texts():
    return first_documents(20_000)


def contents_in(text: str) -> set[str]:
    """Contents of all problems written in a text, read from its words alone and not with toy.py's own code."""
    found = set()
    for first, second in re.findall(r"(\w+ has [^?]*?)(\w+ has [^?]*) how many now", text):
        found.add("|".join(sorted(person_content(part) for part in (first, second))))
    for lines, a, b in re.findall(r"((?: \w = [^.?]*\.)+) find (\w) and (\w) \?", text):
        defined = dict(line.strip().split(" = ") for line in lines.split(" . ") if "=" in line)
        found.add(
            "|".join(sorted(letter_content(defined, name).replace(" ", "") for name in (a, b)))
        )
    return found


def person_content(part: str) -> str:
    start = re.search(r"has (\d+)", part)[1]
    events = re.findall(r"(\w+) (\d+)", part.split(".", 1)[1])
    return start + "".join(("+" if verb in toy_world.GAINS else "-") + n for verb, n in events)


def letter_content(defined: dict, name: str) -> str:
    left, *rest = defined[name].rstrip(" .").split(" ")
    return " ".join([letter_content(defined, left) if left in defined else left, *rest])


def test_same_seed_same_bytes():
    assert first_documents(500) == first_documents(500)
    assert first_documents(50) != first_documents(50, seed=1)
    assert toy.problems("test", "toy", n=20) == toy.problems("test", "toy", n=20)
    assert benchmarks.skills(5) == benchmarks.skills(5) and benchmarks.heldout(
        5
    ) == benchmarks.heldout(5)


def test_problem_sets_never_change():
    """Results of different versions can be compared only while these hold; change them knowingly."""
    hashes = []
    for families in (["toy", "toy-hard"], ["toy-long"]):
        texts = [
            "".join([p.question, p.answer, *p.solutions])
            for f in families
            for split in toy.SPLITS
            for p in toy.problems(split, f)
        ]
        hashes.append(question_id("".join(texts)))
    assert hashes == ["c67ed8124a38", "908d67c4ea1b"]


@pytest.mark.parametrize("family", FAMILIES)
def test_splits_share_no_content(family):
    contents = {
        split: {c for p in toy.problems(split, family) for c in contents_in(p.question)}
        for split in toy.SPLITS
    }
    sizes = {"train": 600, "val": 100, "test": 200}
    if family == "toy-long":
        sizes = {"train": 1200, "val": 100, "test": 240}
    assert {split: len(c) for split, c in contents.items()} == sizes
    assert (
        not contents["train"] & contents["test"]
        and not contents["train"] & contents["val"]
        and not contents["val"] & contents["test"]
    )


def test_documents_hold_no_test_content(texts):
    tested = {
        c
        for f in FAMILIES
        for s in ("val", "test")
        for p in toy.problems(s, f)
        for c in contents_in(p.question)
    }
    written = {c for _, text in texts for c in contents_in(text)}
    assert len(tested) == 940 and len(written) > 5_000
    assert not tested & written


def test_heldout_texts_are_never_documents(texts):
    assert not {text for _, text in texts} & set(benchmarks.heldout(200))
    stories = {
        item.context + item.choices[0]
        for item in benchmarks.skills(100)
        if item.skill == "last word"
    }
    assert len(stories) == 100 and not {text for _, text in texts} & stories


def test_mix_by_tokens(texts):
    enc, tokens = get_tokenizer("toy"), Counter()
    for kind, text in texts:
        tokens[kind] += len(enc.encode_ordinary(text)) + 1
    for kind, share in toy_text.MIX.items():
        assert abs(tokens[kind] / tokens.total() - share) < 0.015
    assert (
        sum("Let's think" in text for kind, text in texts) > 1_000
    )  # the post-training format is part of pre-training


def test_rows_begin_with_a_document():
    enc = get_tokenizer("toy")
    rows = toy_text.rows(0, 4_000, 80, enc)
    assert rows.shape == (50, 80) and rows.dtype == np.uint16
    assert np.array_equal(rows, toy_text.rows(0, 4_000, 80, enc)) and not np.array_equal(
        rows, toy_text.rows(1, 4_000, 80, enc)
    )
    starts = set()
    for row in rows.tolist():
        documents = enc.decode(row).split("<|endoftext|>")
        starts |= {document.split(" ")[0] for document in documents if document}
    assert starts <= set(toy_world.STARTERS) and (rows == enc.eot_token).sum() > 50


@pytest.mark.parametrize("family", FAMILIES)
def test_solutions_hold(family):
    for problem in [p for split in toy.SPLITS for p in toy.problems(split, family)]:
        assert len(set(problem.solutions)) == toy.N_SOLUTIONS
        for solution in problem.solutions:
            assert toy.verify(solution, problem), (problem, solution)
            assert solution.endswith(f" \\boxed{{ {problem.answer}}}")


@pytest.mark.parametrize("family", FAMILIES)
def test_many_distinct_solutions(family):
    for i in range(50):
        rng = toy_world.random_for("test", i)
        task = toy.draw_task(rng, family, toy.SHAPES[family], "train")
        assert len({toy.solve(rng, task, "") for _ in range(64)}) >= 20


@pytest.mark.parametrize("family", FAMILIES)
def test_values_stay_single_tokens(family):
    top = toy.LIMITS[family][0]
    for problem in toy.problems("test", family):
        for text in (problem.question, *problem.solutions):
            assert max(map(int, re.findall(r"\d+", text))) <= top


@pytest.mark.parametrize("family", FAMILIES)
def test_guessing_does_not_pay(family):
    answers = Counter(p.answer for p in toy.problems("test", family))
    assert answers.most_common(1)[0][1] / answers.total() < 0.03


def test_unknown_split():
    with pytest.raises(UserError, match="choose train, val, test"):
        toy.problems("dev", "toy")


# --- verify ---------------------------------------------------------------------------------------------------------

EASY = replace(
    toy.problems("train", "toy", 1)[0],
    answer="13, 5",
    question="say hana has 11 cards . buys 2 . gail has 10 . loses 8 . finds 3 . how many now ?",
)
HARD = replace(
    toy.problems("train", "toy-hard", 1)[0],
    answer="7, 17",
    question="say p = 3 * 4 . t = 7 . q = 9 + 8 . r = p - 5 . find r and q ?",
)


@pytest.mark.parametrize("response", [
    r"first 11 + 2 = 13 . then 10 - 8 = 2 . then 2 + 3 = 5 . so \boxed{ 13, 5}",
    r"first 11 plus 2 gives 13 ; then 10 minus 8 plus 3 gives 5 ; so \boxed{ 13, 5}",
    r"10 - 8 = 2, 2 + 3 = 5 and 11 + 2 = 13. \boxed{13,5}",
    r"13 = 11 + 2 . 5 = 10 - 8 + 3 . \boxed{13, 5}",
    r"11 + 2 = 13 . 10 - 8 = 2 + 3 - 3 . 2 + 3 = 5 . \boxed{ 1, 2} no \boxed{ 13, 5}",
])  # fmt: skip
def test_verify_accepts(response):
    assert toy.verify(response, EASY)


@pytest.mark.parametrize("response", [
    r"so \boxed{ 13, 5}",  # a bare answer
    r"first 13 = 13 . then 5 = 5 . so \boxed{ 13, 5}",  # nothing worked out
    r"first 11 + 2 = 12 . then 10 - 8 = 2 . then 2 + 3 = 5 . so \boxed{ 13, 5}",  # a slip
    r"first 11 + 2 = 13 . then 10 - 8 = 3 . then 2 + 3 = 5 . so \boxed{ 13, 5}",  # right answer, false equation
    r"first 11 + 2 = 13 = 14 . then 2 + 3 = 5 . so \boxed{ 13, 5}",
    r"first 11 + 2 = 13 . so \boxed{ 13, 5}",  # 5 is guessed
    r"first 11 + 2 = 13 . then 2 + 3 = 5 . then 1 + 1 = 2 . so \boxed{ 13, 5}",  # ends elsewhere
    r"first 11 + 2 = 13 . then 10 - 8 = 2 . then 2 + 3 = 5 . so \boxed{ 5, 13}",
    r"first 11 + 2 = 13 . then 10 - 8 = 2 . then 2 + 3 = 5 . so 13, 5",
    r"first 11 + 2 = 13 . then 2 + 3 = 5 . so \boxed{ 13, 5} \boxed{ 1, 5}",
    r"first 11 + = 13 . then 11 + 2 = 13 . then 2 + 3 = 5 . so \boxed{ 13, 5}",
    r"first 11 + 2 = . then 11 + 2 = 13 . then 2 + 3 = 5 . so \boxed{ 13, 5}",
    r"first 11 + 2 = 13 2 + 3 = 5 . so \boxed{ 13, 5}",
    r"first x = 11 + 2 = 13 . then 2 + 3 = 5 . so \boxed{ 13, 5}",  # no x in the question
    "", r"\boxed{}", r"\boxed{ 13, 5", "= = =", r"__import__('os') = 13 \boxed{13, 5}",
])  # fmt: skip
def test_verify_rejects(response):
    assert not toy.verify(response, EASY)


def test_verify_checks_letters():
    assert toy.verify(
        r"first p = 3 * 4 = 12 . then r = p - 5 = 7 . then q = 9 + 8 = 17 . so \boxed{ 7, 17}", HARD
    )
    assert toy.verify(r"first 3 * 4 - 5 = 7 . then 9 + 8 = 17 . so \boxed{ 7, 17}", HARD)
    assert toy.verify(
        r"17 - 5 * 2 = 7 . then 9 + 8 = 17 . so \boxed{ 7, 17}", HARD
    )  # products first
    assert not toy.verify(
        r"first q = 3 * 4 = 12 . then 12 - 5 = 7 . then 9 + 8 = 17 . so \boxed{ 7, 17}", HARD
    )


def test_verify_is_bounded():
    box = r" = 13 \boxed{ 13, 5}"
    for attack in [
        "9" * 100_000,
        " * ".join(["999999"] * 50_000),
        "1 + " * 100_000,
        "= " * 100_000,
        "\\boxed{" * 50_000,
        "５ + ８",
    ]:
        assert not toy.verify(attack + box, EASY)


# --- skills -----------------------------------------------------------------------------------------------------------


def test_skills():
    items = benchmarks.skills(100)
    assert Counter(item.skill for item in items) == dict.fromkeys(
        ["last word", "next event", "fact", "two hops", "tool use", "inheritance"], 100
    )
    n_choices = {"last word": 1, "tool use": 2}
    for item in items:
        assert len(set(item.choices)) == len(item.choices) == n_choices.get(item.skill, 4)
        assert all(choice.startswith(" ") for choice in item.choices) and 0 <= item.gold < len(
            item.choices
        )
    assert len(set(items)) > 580


def test_last_word_is_in_the_story():
    for item in benchmarks.skills(50):
        if item.skill == "last word":
            assert item.choices[0] in item.context


def test_some_shapes_of_a_family_by_name():
    """ "toy:21+32" holds the problems of toy that have one of these shapes, and no other."""
    all_of_them = toy.problems("train")
    wanted = [problem for problem in all_of_them if problem.level in ("(2,1)", "(3,2)")]
    assert load_problems("toy:21+32") == wanted and 100 < len(wanted) < 300
    assert train_and_val("toy:32", 5)[1] == toy.named_problems("toy:32", "val")[:5]
    levels = {problem.level for problem in load_problems("toy-long:33+34+43", "test")}
    assert levels == {"(3,3)", "(3,4)", "(4,3)"}
    with pytest.raises(UserError, match="toy has no shape '33'; join some of 12, 21, 22, 23, 32"):
        load_problems("toy:21+33")


def test_long_problems_are_graded_and_verified():
    for problem in load_problems("toy-long", "test"):
        solution = problem.solutions[0]
        assert is_toy(problem) and grade(solution, problem.answer, problem.kind)
        assert toy.verify(solution, problem)


@pytest.mark.parametrize(
    "corpus, share", [("toy-edge-0", 0), ("toy-edge-1", 1), ("toy-edge-10", 10)]
)
def test_the_dial_of_five_operations(corpus, share):
    """The share of five operations among all problems, in percent; none has more than five."""
    operations = Counter()
    for _, text in itertools.islice(toy_text.documents(3, corpus), 20_000):
        if "how many now" in text:
            (found,) = contents_in(text)
            operations[len(re.findall(r"[+-]", found))] += 1
    assert max(operations) == (5 if share else 4)
    assert 100 * operations[5] / operations.total() == pytest.approx(share, abs=1.5)


def test_another_corpus_has_rows_of_its_own(tmp_path):
    rows = {}
    for corpus in ("toy", "toy-edge-0"):
        rows[corpus] = open_corpus(corpus, str(tmp_path), "toy", 80, 8_000, 0)
    assert rows["toy"].shape == rows["toy-edge-0"].shape
    assert (rows["toy"] != rows["toy-edge-0"]).any()
