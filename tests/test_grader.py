r"""The grader against a table of verdicts, random strings, and 5,276 labelled GSM8K solutions.

The tables are in grader_cases.py and grader_cases_math.py.
"""

import json
import random
import sys
import time
from fractions import Fraction
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from grader_cases import AUTHORS, BOXES, GSM8K, ORDER
from grader_cases_math import MATH

from data.grader import extract, grade, reward


@pytest.mark.parametrize("response, answer, verdict", GSM8K)
def test_gsm8k(response, answer, verdict):
    assert grade(response, answer, kind="gsm8k") is verdict


@pytest.mark.parametrize("content, answer, free, ordered", ORDER)
def test_the_order_of_a_bare_list(content, answer, free, ordered):
    assert grade(f"\\boxed{{{content}}}", answer, kind="math") is free
    assert grade(f"\\boxed{{{content}}}", answer, kind="ordered") is ordered


@pytest.mark.parametrize("content, answer, verdict", MATH)
def test_math(content, answer, verdict):
    assert grade(f"So the answer is $\\boxed{{{content}}}$.", answer, kind="math") is verdict
    assert grade(f"\\boxed{{{content}}}", answer, kind="gsm8k") is verdict


@pytest.mark.parametrize("response, answer, verdict", BOXES)
def test_boxes(response, answer, verdict):
    assert grade(response, answer) is verdict


@pytest.mark.parametrize("response, answer, kind, verdict", AUTHORS)
def test_authors_rule(response, answer, kind, verdict):
    assert grade(response, answer, kind=kind, rule="authors") is verdict


def test_every_right_answer_equals_itself():
    for _, answer, _ in MATH + GSM8K:
        assert grade(f"\\boxed{{{answer}}}", answer) is (answer not in ("", "None")), answer


def test_extract():
    assert extract("\\boxed{3} then \\boxed{ \\frac{1}{2} }") == "\\frac{1}{2}"
    assert extract("within \\boxed{}") is None
    assert extract("#### 18 dollars\n", kind="gsm8k") == "18 dollars"
    assert extract("The answer is 1.5 miles. She walks.", kind="gsm8k") == "1.5 miles"


@pytest.mark.parametrize(
    "response, kind, score",
    [
        ("\\boxed{18}", "math", 1.0),
        ("\\boxed{20}", "math", 0.1),
        ("\\boxed{20}", "gsm8k", 0.1),
        ("#### 20", "gsm8k", 0.1),
        ("#### 20, 5", "gsm8k", 0.1),  # the toy problems ask for pairs
        ("The answer is 20.\n#### 20", "gsm8k", 0.1),
        ("\\boxed{20} \\boxed{21}", "math", 0.0),
        ("#### 20\n" * 50, "gsm8k", 0.0),
        ("#### 18 or 20", "gsm8k", 0.0),
        ("#### nothing", "gsm8k", 0.0),
        ("The answer is 20.", "gsm8k", 0.0),
        ("\\boxed{}", "math", 0.0),
        ("\\boxed{ \\; }", "math", 0.0),
        ("\\boxed{20", "math", 0.0),
        ("within \\boxed{} or ####", "gsm8k", 0.0),
        ("", "math", 0.0),
    ],
)
def test_reward(response, kind, score):
    assert reward(response, "18", kind=kind, format_score=0.1) == score
    assert reward(response, "18", kind=kind) == float(score == 1.0)


def test_unknown_kind_is_refused():
    with pytest.raises(AssertionError, match="kind"):
        grade("#### 18", "18", kind="gsm")


def spellings(value: Fraction) -> list[str]:
    """Ways to write one number."""
    sign, top, bottom = "-" * (value < 0), abs(value.numerator), value.denominator
    out = [
        f"{sign}{top}/{bottom}",
        f"{sign}\\frac{{{top}}}{{{bottom}}}",
        f"\\dfrac{{{sign}{3 * top}}}{{{3 * bottom}}}",
    ]
    if bottom == 1:
        out += [
            f"{sign}{top}",
            f"{sign}{top:,}",
            f"{sign}{top}.00",
            f"{sign}\\${top:,}",
            f"{sign}{top} apples",
            f"x = {sign}{top}",
        ]
    elif top > bottom:
        out += [
            f"{sign}{top // bottom}\\frac{{{top % bottom}}}{{{bottom}}}",
            f"{sign}{top // bottom} {top % bottom}/{bottom}",
        ]
    if bottom in (2, 4, 8):
        out += [f"{sign}{top / bottom}", f"{top / bottom:.3f}".join((sign, "\\text{ cm}"))]
    return out


def test_spellings_of_numbers():
    """Two numbers are equal exactly if their fractions are, however they are written."""
    rng = random.Random(2)
    for _ in range(1_000):
        a, b = (
            Fraction(rng.randrange(-2_000, 2_000), rng.choice([1, 1, 1, 2, 3, 4, 7, 8]))
            for _ in range(2)
        )
        for gold, written in ((a, a), (a, b), (a, -a), (a, a * 100), (a, a / 10), (a, a + 1)):
            pair = rng.choice(spellings(gold)), rng.choice(spellings(written))
            assert grade(f"\\boxed{{{pair[1]}}}", pair[0]) is (gold == written), pair


CHANGES = [
    "-{}", "{}3", "2{}", "{}^2", "{}x", "{}!", "{}+1", "{}, 71", "({}, 71)", "[{}]", "\\sqrt{{{}}}", "\\frac{{1}}{{{}}}", "\\pm {}", "\\ne {}",
    "{} \\text{{ or }} 71", "71 \\text{{ or }} {}", "\\text{{not }} {}", "{} \\text{{ million}}", "{}}} or \\boxed{{71", "{}}} \\boxed{{71",
]  # fmt: skip
SAMPLE = Path(__file__).parents[2] / "shared/data/openmathinstruct2_sample.jsonl"


@pytest.mark.skipif(
    not SAMPLE.exists(),
    reason=f"{SAMPLE} is missing (NVIDIA/NeMo-Skills, tests/data/openmathinstruct2.test)",
)
def test_answers_of_openmathinstruct():
    """Real reference answers: each equals itself in other spellings, none equals another or itself with a change."""
    answers = sorted(
        {json.loads(line)["expected_answer"] for line in SAMPLE.read_text().splitlines()}
    )
    for answer in answers:
        plain = (
            answer.replace("\\text", "\\mathrm")
            .replace("\\frac", "\\dfrac")
            .replace("pmatrix", "bmatrix")
        )
        bigger = plain.replace("(", "\\left(").replace(")", "\\right)")
        for spelling in (
            plain,
            bigger,
            f"{{{answer}}}",
            f"${answer}$.",
            answer.replace("-", "\u2212"),
        ):
            assert grade(f"\\boxed{{{spelling}}}", answer), (spelling, answer)
        for change in CHANGES:
            if (answer, change) not in {
                ("0", "-{}"),
                ("1", "\\frac{{1}}{{{}}}"),
            } and "\\\\" not in answer:
                assert not grade(f"\\boxed{{{change.format(answer)}}}", answer), (change, answer)
        for other in answers:
            if other != answer and {answer, other} not in ({"90", "90^\\circ"}, {"40", "40\\%"}):
                assert not grade(f"\\boxed{{{other}}}", answer), (other, answer)


SOUP = (
    r"\boxed{ \boxed } { } ( ) [ ] \{ \} \frac \dfrac \sqrt \sqrt[ ^ _ \text{ \left \right \pm \cup , . ; : = + - * / ! % $ \$ \% & \\ | "
    r"\pi \infty \circ ^\circ \begin{pmatrix} \end{pmatrix} \times \cdot \sin \log_ \overline 10^ 0 1 2 12 345 1,234 0.5 .5 1e9 1e1000000000 "
    r"9^{9^{9}} e x y (x+1) {x} or and cm dollars m/s #### Question: Q: A: answer is wait, \! \, ~ | < > \le ' "
    r"\fbox{ \fbox \lor \binom \ldots ... \div </s> <|im_end|> million dozen Rs. Day (five) (5) 5! 2^{10} \sqrt{20} for where real 5=5 "
).split() + [
    " ",
    "\n",
    "\t",
    "\0",
    "\x1b",
    "\u2212",
    "\u00bd",
    "\u00b2",
    "\uff11",
    "\u200b",
    "\u2009",
    "\U0001d7d9",
    "\ud800",
]
SOUP += ["9" * 120, "(" * 60, "{" * 60]
FRAMES = [
    "{}",
    "\\boxed{{{}}}",
    "\\boxed{{{}}}",
    "\\boxed{{{}",
    "#### {}",
    "the answer is {}",
    "\\boxed{{5}} {} \\boxed{{6}}",
]


def soup(rng: random.Random) -> str:
    """A short random string: mostly pieces of LaTeX, sometimes any characters, sometimes one piece up to 10,000 times."""
    dice = rng.random()
    if dice < 0.94:
        text = "".join(rng.choices(SOUP, k=rng.randrange(1, 9)))
    elif dice < 0.98:
        text = "".join(
            chr(rng.randrange(0x300) if rng.random() < 0.9 else rng.randrange(0x110000))
            for _ in range(40)
        )
    else:
        piece = "".join(rng.choices(SOUP, k=rng.choice([1, 1, 2, 3])))
        text = piece * rng.choice([30, 900 // len(piece), 10_000])
        text = text[: rng.choice([960, 20_000, 200_000])]
    return rng.choice(FRAMES).format(text)


def fuzz(count: int, seed: int) -> tuple[float, str]:
    """Grade `count` random strings; the longest time of one call in seconds of processor time, and its response."""
    rng, slowest = random.Random(f"fuzz {seed}"), (0.0, "")
    for i in range(count):
        response, kind = soup(rng), ("math", "gsm8k")[i % 2]
        calls = [lambda: reward(response, "7919", kind=kind, format_score=0.1) in (0.0, 0.1)]
        if i % 4 == 0:
            calls.append(lambda: grade(response, "7919", kind=kind, rule="authors") is False)
        if i % 8 == 0:  # any string as reference answer
            answer, rule = soup(rng), ("ours", "authors")[i // 8 % 2]
            calls.append(lambda: grade(response, answer, kind=kind, rule=rule) in (False, True))
        for call in calls:
            start = time.process_time()
            assert call(), response
            slowest = max(slowest, (time.process_time() - start, response))
    return slowest


def test_random_strings_never_raise():
    seconds, response = fuzz(20_000, seed=0)
    assert seconds < 1, response  # about 0.01; generous because machines stall


REPEATED = [
    "\\boxed{5}",
    "\\boxed{5} or ",
    "\\sin(",
    "\\text{a}",
    ". wait",
    "m / ",
    "#### 5 ",
    "\n",
    "  ",
    "answer is 5 ",
    "1,",
    "\\text{a",
    "<<",
    "a ",
]


@pytest.mark.parametrize("piece", [piece for piece in SOUP if piece.strip()] + REPEATED)
def test_work_is_bounded(piece):
    """No repeated piece makes grading slow; the bound is generous because machines stall."""
    for form in ("{}", "\\boxed{{{}}}", "#### {}", "\\boxed{{{}"):
        response = form.format(piece * (20_000 // len(piece)))
        short = form.format(piece * (990 // len(piece)))  # short enough to be read as an answer
        start = time.process_time()
        for kind in ("math", "gsm8k"):
            for rule in ("ours", "authors"):
                grade(response, "7", kind=kind, rule=rule), grade(short, "7", kind=kind, rule=rule)
                (
                    grade(short, short, kind=kind, rule=rule),
                    grade("\\boxed{7}", short, kind=kind, rule=rule),
                )
        assert time.process_time() - start < 2.0


SOLUTIONS = Path(__file__).parents[2] / "shared/data/gsm8k_example_model_solutions.jsonl"


@pytest.mark.skipif(
    not SOLUTIONS.exists(),
    reason=f"{SOLUTIONS} is missing (openai/grade-school-math, example_model_solutions)",
)
def test_labelled_solutions():
    """5,276 model solutions of GSM8K test problems, labelled by the data set's authors."""
    agree, disagree = 0, []
    for line in SOLUTIONS.read_text().splitlines():
        row = json.loads(line)
        answer = row["ground_truth"].rsplit("A: ", 1)[1]
        for model, solution in row.items():
            if isinstance(solution, dict):
                text = solution["solution"]
                marked = "####".join(
                    text.rsplit("A:", 1)
                )  # the same solution with GSM8K's own marker
                verdicts = {grade(text, answer, kind="gsm8k"), grade(marked, answer, kind="gsm8k")}
                if verdicts == {solution["is_correct"]}:
                    agree += 1
                else:
                    disagree.append((answer, solution["is_correct"], text[-60:]))
    print(f"agreement {agree} of {agree + len(disagree)}", *disagree, sep="\n")
    assert (agree, disagree) == (5276, [])
