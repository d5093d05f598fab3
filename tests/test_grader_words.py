r"""What stands around an answer: ends of sentences, labels, remarks, several boxes, later marks.

Each kind of harmless words has its harmful twins beside it: words that name another number.
"""

import json
from pathlib import Path

import pytest

from data.boxes import boxes
from data.grader import committed, extract, grade, reward

RIGHT, WRONG = True, False

# Sentences and lines. (response, reference answer, verdict), kind = gsm8k
SENTENCES = [
    # where a claim ends
    ("The answer is 64!", "64", RIGHT),
    ("So the answer is 64; that is all he needs.", "64", RIGHT),
    ("The answer is 64 (8 * 8).", "64", RIGHT),
    ("The answer is 64 marbles, all told.", "64", RIGHT),
    ("The answer is $1,250, which leaves $50 for the bus.", "1250", RIGHT),
    ("The answer is 64, since every row holds 8.", "64", RIGHT),
    ("#### 64,", "64", RIGHT),
    ("#### 64;", "64", RIGHT),
    ("#### 64 marbles, as the problem asks", "64", RIGHT),
    ("The answer is 64, 65", "64", WRONG),
    ("The answer is 64, or 65", "64", WRONG),
    ("The answer is 64, maybe 65", "64", WRONG),
    ("The answer is 64, maybe.", "64", WRONG),
    ("The answer is 64; 65 if you count him.", "64", WRONG),
    ("The answer is 64, and 65", "64", WRONG),
    ("The answer is 64, minus the 4 that broke", "64", WRONG),
    ("The answer is 64, at least", "64", WRONG),
    ("The answer is 64, about", "64", WRONG),
    ("The answer is 64! No, 65.", "64", WRONG),
    ("The answer is 5! = 120", "5", WRONG),
    ("#### 64!", "64", WRONG),
    ("#### Mia 5, Leo 3", "5", WRONG),
    ("#### 5 cats, 3 dogs", "5", WRONG),
    ("#### x = 5, y = 3", "5", WRONG),
    ("#### 64, if it rains", "64", WRONG),
    # a remark in brackets
    ("#### 64 (sixty-four)", "64", RIGHT),
    ("#### 120 (one hundred and twenty)", "120", RIGHT),
    ("#### 64 (marbles)", "64", RIGHT),
    ("#### 64 (out of 80 marbles)", "64", RIGHT),
    ("#### 64 (80 - 16 = 64)", "64", RIGHT),
    ("#### 64 (65)", "64", WRONG),
    ("#### 64 (or 65)", "64", WRONG),
    ("#### 64 (sixty-five)", "64", WRONG),
    ("#### 64 (not sixty-four)", "64", WRONG),
    ("#### 64 (65 with the lid)", "64", WRONG),
    ("#### 64 (that is 65)", "64", WRONG),
    ("#### 64 (8 * 9)", "64", WRONG),
    ("#### 64 (a hundred)", "64", WRONG),
    ("#### 8(8)", "8", WRONG),
    # an equation and its result
    ("#### 80 - 16 = 64", "64", RIGHT),
    ("The answer is 80 - 16 = 64.", "64", RIGHT),
    ("#### 8 x 8 = 64 marbles", "64", RIGHT),
    ("#### $8 * 8 = $64", "64", RIGHT),
    ("#### 128 \u00f7 2 = 64", "64", RIGHT),
    ("#### (10 + 6) * 4 = 64", "64", RIGHT),
    ("#### 1,000 + 250 = 1,250", "1250", RIGHT),
    ("#### 8 rows * 8 marbles = 64 marbles", "64", RIGHT),
    ("#### Total = 8 * 8 = 64", "64", RIGHT),
    ("#### 80 - 17 = 64", "64", WRONG),
    ("#### 64 = 65", "64", WRONG),
    ("#### 64 = 65", "65", WRONG),
    ("#### 80 - 16", "64", WRONG),
    ("#### 64 = 80 - 16", "80", WRONG),
    # words of scale
    ("#### 2.5 million", "2500000", RIGHT),
    ("#### $2.5 million dollars", "2500000", RIGHT),
    ("#### 4 dozen rolls", "48", RIGHT),
    ("#### 3 hundred", "300", RIGHT),
    ("#### 7 thousand", "7,000", RIGHT),
    ("#### 2.5 million", "2.5", WRONG),
    ("#### 4 dozen", "4", WRONG),
    ("#### 4 dozen or so", "48", WRONG),
    ("#### 0 million", "0", WRONG),
    ("#### 4 hundredths", "400", WRONG),
    # labels in front
    ("#### Week 7", "7", RIGHT),
    ("#### page 7", "7", RIGHT),
    ("#### Rs. 750", "750", RIGHT),
    ("#### INR 750", "750", RIGHT),
    ("#### US$750", "750", RIGHT),
    ("#### \u20b9750", "750", RIGHT),
    ("#### = 7", "7", RIGHT),
    ("The answer is Rs. 750.", "750", RIGHT),
    ("The answer is Day 7.", "7", RIGHT),
    ("#### Nearly 7", "7", WRONG),
    ("#### Over 7", "7", WRONG),
    ("#### Twice 7", "7", WRONG),
    ("#### Minus 7", "7", WRONG),
    ("#### Step 7", "7", WRONG),
    ("#### Seven 7", "7", WRONG),
    ("#### >= 7", "7", WRONG),
    # end marks of tokenizers
    ("#### 64</s>", "64", RIGHT),
    ("#### 64<|im_end|>", "64", RIGHT),
    ("#### 64 <|endoftext|>", "64", RIGHT),
    ("\\boxed{64}<|eot_id|>", "64", RIGHT),
    ("The answer is 64.</s>", "64", RIGHT),
    ("<|endoftext|>#### 64", "64", RIGHT),
    ("#### 64</s>#### 65", "64", RIGHT),
    ("#### 64</s>#### 65", "65", WRONG),
]

# A weak mark after a strong one. kind = gsm8k
LATER_MARKS = [
    ("\\boxed{64}. Thus the answer is 64, as was to be shown.", "64", RIGHT),
    ("#### 64\nThe answer is 64 marbles for each of the 5 children in class.", "64", RIGHT),
    ("#### 64\nThe answer is 8 * 8.", "64", RIGHT),
    ("\\boxed{64}\nThe answer is 64!", "64", RIGHT),
    ("#### 64\n#### Check: 8 * 8 = 64", "64", RIGHT),
    ("#### 64\n#### Why 3 steps are enough", "64", RIGHT),
    ("\\boxed{64}\n#### Note 2", "64", RIGHT),
    ("The answer is 64.\n#### 64\n#### Proof for n = 8 and k = 8", "64", RIGHT),
    # a readable one still counts, and one that hedges takes the answer away
    ("#### 64\nThe answer is 65.", "64", WRONG),
    ("#### 64\nThe answer is 65.", "65", RIGHT),
    ("\\boxed{64}\nThe answer is 65, as was to be shown.", "64", WRONG),
    ("#### 64\nThe answer is 64 or 65.", "64", WRONG),
    ("#### 64\nThe answer is 64 or sixty-five.", "64", WRONG),
    ("#### 64\nThe answer is 64-66.", "64", WRONG),
    ("#### 64\nThe answer is 64 to 66.", "64", WRONG),
    ("#### 64\n#### Either 64 or 65", "64", WRONG),
    ("#### 64\n#### not 64", "64", WRONG),
    ("#### 64\n#### 64 65", "64", WRONG),
    ("#### 64\n#### 65", "64", WRONG),
    ("\\boxed{64}, maybe 65", "64", WRONG),
    ("\\boxed{64}. No, it's 65", "64", WRONG),
    ("\\boxed{64}. Perhaps it helps to draw this.", "64", RIGHT),
]

# Boxes of any form, and several of them. kind = math
BOXES = [
    ("the angle is \\boxed{50}. So this is not right-angled.", "50", RIGHT),
    ("so \\boxed{50}. This is not right.", "50", WRONG),
    ("so $x=\\boxed 7$.", "7", RIGHT),
    ("so \\[\\boxed 7\\]", "7", RIGHT),
    ("it is $\\boxed 42$", "42", RIGHT),
    ("it is $\\boxed 42$", "4", WRONG),
    ("it is $\\boxed\\frac37$", "\\frac{3}{7}", RIGHT),
    ("it is $\\boxed\\frac 3 7$", "3/7", RIGHT),
    ("it is $\\boxed -7$", "-7", RIGHT),
    ("it is $\\boxed 7x$", "7", WRONG),
    ("it is $\\boxed 7 \\text{ or } 8$", "7", WRONG),
    ("it is \\boxed{7}, and I wrote it in \\boxed form", "7", RIGHT),
    ("it is \\boxed{7}. Use \\boxed a lot.", "7", RIGHT),
    ("\\boxed\n {7}", "7", RIGHT),
    ("\\fbox{7}", "7", RIGHT),
    ("\\fbox{$\\frac{\\sqrt{3}}{2}$}", "\\frac{\\sqrt3}{2}", RIGHT),
    ("\\fbox 7", "7", RIGHT),
    ("\\boxed{7} then \\fbox{8}", "7", WRONG),
    ("\\fbox{7", "7", WRONG),
    ("Put it in \\fbox{}.", "", WRONG),
    # one list
    ("$\\boxed{2}$, $\\boxed{5}$, and $\\boxed{9}$", "2, 5, 9", RIGHT),
    ("$\\boxed{5}$, $\\boxed{2}$ and $\\boxed{9}$", "2, 5, 9", RIGHT),
    ("$\\boxed{2}$; $\\boxed{5}$", "\\{2, 5\\}", RIGHT),
    ("\\[\\boxed{2} \\text{ and } \\boxed{5}\\]", "2,5", RIGHT),
    ("\\(\\boxed{2}\\),\\quad \\(\\boxed{5}\\)", "2,5", RIGHT),
    ("$\\boxed 2$ and $\\boxed 5$", "2,5", RIGHT),
    ("$x_1 = \\boxed{2}$ and $x_2 = \\boxed{5}$", "2, 5", RIGHT),
    ("$y=\\boxed{2}$, $z=\\boxed{5}$", "z=5, y=2", RIGHT),
    ("$y=\\boxed{2}$, $z=\\boxed{5}$", "5, 2", WRONG),
    ("$\\boxed{2}$ or $\\boxed{5}$", "2, 5", RIGHT),
    ("$\\boxed{2}$, $\\boxed{5}$, and $\\boxed{9}$", "9", WRONG),
    ("$\\boxed{2}$, $\\boxed{5}$, and $\\boxed{9}$", "2, 5", WRONG),
    ("$t=\\boxed{2}$ and $t=\\boxed{5}$", "5", WRONG),
    ("$t=\\boxed{2}$ and $t=\\boxed{5}$", "2", WRONG),
    ("\\boxed{2}, \\boxed{5}", "5", WRONG),
    ("\\boxed{2}, and finally \\boxed{5}", "5", WRONG),
    ("\\boxed{2} as well as \\boxed{5}", "5", WRONG),
    ("\\boxed{2} or \\boxed{5}", "5", WRONG),
    # one answer all the same
    ("$\\boxed{2\\frac{1}{2}}$, or $\\boxed{2.5}$ inches", "\\frac52", RIGHT),
    ("\\boxed{7} and \\boxed{7}", "7", RIGHT),
    ("$a=\\boxed{2}$, $b=\\boxed{5}$, hence $a+b$ is $\\boxed{7}$", "7", RIGHT),
    ("\\boxed{2}. Let me check: \\boxed{5}", "5", RIGHT),
    ("\\boxed{2}\n\n\\boxed{5}", "5", RIGHT),
]


@pytest.mark.parametrize("response, answer, verdict", SENTENCES + LATER_MARKS)
def test_sentences_and_lines(response, answer, verdict):
    assert grade(response, answer, kind="gsm8k") is verdict


@pytest.mark.parametrize("response, answer, verdict", BOXES)
def test_boxes(response, answer, verdict):
    assert grade(response, answer) is verdict


ROWS = Path(__file__).parents[2] / "shared/cases/grader.jsonl"


@pytest.mark.skipif(not ROWS.exists(), reason=f"{ROWS} is missing (32 verdicts, made by hand)")
def test_rows_that_were_misjudged():
    wrong = []
    for line in ROWS.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if grade(row["response"], row["answer"], row["kind"]) is not row["verdict"]:
            wrong.append(row)
    assert not wrong


@pytest.mark.parametrize(
    "text, contents",
    [
        ("\\boxed{3}, then \\fbox{\\frac{1}{2}}", ["3", "\\frac{1}{2}"]),
        ("$\\boxed 8$, or $\\boxed\\frac12x$.", ["8", "\\frac12x"]),
        ("\\boxed 1,250 dollars, \\boxed{}", ["1,250", ""]),
        ("\\boxed(3, 4)$ and \\boxed\\text{(A)}.", ["(3, 4)", "\\text{(A)}"]),
        ("\\boxed{a \\boxed{b}} \\boxed{c", ["a \\boxed{b}"]),
        ("in \\boxed form, `\\boxed`, \\boxedx 5, (it is \\boxed 6)", ["6"]),
    ],
)
def test_contents_of_boxes(text, contents):
    assert boxes(text) == contents


def test_what_is_committed():
    """The texts that a vote among responses counts, without what is around them."""
    assert extract("#### 80 - 16 = 64 marbles", "gsm8k") == "64 marbles"
    assert extract("The answer is 64, as required.", "gsm8k") == "64"
    assert extract("$x=\\boxed{3}$ and $x=\\boxed{5}$") == "x=3, x=5"
    assert committed("\\boxed{3}, \\boxed{5}", "math") == ["3", "5", "3, 5"]
    assert committed("#### 64\n#### Check 2", "gsm8k") == ["64"]


def test_several_boxes_earn_no_format_score():
    assert reward("\\boxed{3} and \\boxed{5}", "7", format_score=0.1) == 0.0
    assert reward("\\boxed{3} or \\boxed{5}", "7", format_score=0.1) == 0.0
    assert reward("\\boxed{3} and \\boxed{5}", "3, 5", format_score=0.1) == 1.0


@pytest.mark.parametrize(
    "response, verdict",
    [
        ("hence \\boxed{ 13, 5}", RIGHT),
        ("hence \\boxed{ 5, 13}", WRONG),
        ("hence \\boxed{ 13} and \\boxed{ 5}", WRONG),
        ("hence \\boxed{ 13, 5} and \\boxed{ 13, 5}", RIGHT),
        ("hence \\boxed{ 6, 5} and \\boxed{ 13, 5}", RIGHT),  # the last box, as it always was
        ("hence \\boxed{ 13 or 5}", WRONG),
        ("hence \\boxed{ \\{13, 5\\}}", WRONG),
        ("hence \\boxed{ 13, 5,}", WRONG),
        ("hence \\boxed{ 9 + 4 = 13, 5}", WRONG),
        ("hence \\boxed{ 13, 5 = x}", WRONG),
    ],
)
def test_the_toy_worlds_pairs_stay_as_they_were(response, verdict):
    assert grade(response, "13, 5", kind="ordered") is verdict
