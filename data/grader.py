r"""The only judge: does a response end in the right answer? Reward and verdict come from here.

    grade(r"So she makes \boxed{1,000} dollars.", "1000")    -> True
    grade("9 * 2 = 18\n#### 18", "18", kind="gsm8k")         -> True
    grade(r"\boxed{18 \text{ or } 20}", "18")                -> False

Which answers count. For math: `\boxed{...}`, in any form (data/boxes.py). For gsm8k: `\boxed{...}`,
`#### N`, the words "the answer is N" and a line "A: N", since base models often write neither mark.
The last answer counts: a model may correct itself. Empty and unclosed boxes are passed over. A
response may not hedge: nothing counts if its last answer is taken back ("Wait, that is wrong") or
an "or" with another value follows (data/second_thoughts.py). Boxes with only commas, "and" or "or"
between them are one list. A box or `#### N` still counts if a sentence or a heading without a
readable number follows it. Nothing is read after an end-of-text mark ("</s>"), or after a new
question that the model makes up ("Question:", "Q:", "Problem:").

What is equal. Numbers are compared as exact fractions: 0.5 = 1/2, but 0.25 is not 25%. All else is
compared form by form in data/latex.py: "18 or 20" is right only if the reference answer says so.
Constants are computed exactly (data/exact.py). Units are dropped, unless the two sides
name different ones. What cannot be read is wrong.
"""

import re
from fractions import Fraction

from data import answer_marks, latex
from data.answer_in_words import agree
from data.answer_marks import EITHER_OR, END_MARK, NEXT_QUESTION
from data.authors import authors_grade
from data.latex_tokens import MAX_DIGITS
from data.problem import KINDS
from data.second_thoughts import takes_back

MAX_RESPONSE = 20_000  # characters; of a longer response only the tail is read
PLAIN_NUMBER = re.compile(r"[+-]?(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?")


def grade(response: str, answer: str, kind: str = "math", rule: str = "ours") -> bool:
    """True if the last committed answer of `response` equals the reference `answer`.

    `kind` is "gsm8k", "math", or the toy world's "ordered": as math, but bare lists ("5, 4") keep
    their order, boxes need braces and are read one by one, and "</s>" does not end the text.
    """
    assert kind in KINDS, f"unknown kind {kind!r}"
    assert rule in ("ours", "authors"), f"unknown rule {rule!r}"
    if answer in (None, "", "None", "nan"):  # a missing reference answer never pays
        return False
    if rule == "authors":
        return authors_grade(response[-MAX_RESPONSE:], answer, kind)
    found = extract(response, kind)
    if found is None:
        return False
    number = plain_number(found)
    reference = plain_number(answer)
    if number is not None and reference is not None:
        return number == reference
    if kind == "ordered":
        return latex.equal(found, answer, any_order=False)
    return agree(found, answer, any_order=kind == "math")


def reward(
    response: str, answer: str, kind: str = "math", format_score: float = 0.0, rule: str = "ours"
) -> float:
    """1.0 if right; `format_score` if wrong but with exactly one readable final answer; else 0.0.

    `format_score` is 0.1 in the paper (its code in effect paid 0). A response that boxes many
    guesses would earn it easily, hence "exactly one". For gsm8k it must be made of numbers.
    """
    if grade(response, answer, kind, rule):
        return 1.0
    marked = committed(response, kind, claims=False)
    if len(marked) == 1 and latex.is_readable(marked[0], only_numbers=kind == "gsm8k"):
        return format_score
    return 0.0


def extract(response: str, kind: str = "math") -> str | None:
    """The last committed answer as text, or None. The top of this file says what counts."""
    answers = committed(response, kind)
    return answers[-1] if answers else None


def committed(response: str, kind: str, claims: bool = True) -> list[str]:
    """All answers in the response, in order; for gsm8k, `claims` adds those in plain words.

    If the last boxes form one list, that is appended. Nothing is committed if the last answer is
    taken back, or if "or" connects it with the one before, and the two are not such a list.
    """
    text = read_part(response, kind)
    if kind == "ordered":
        marks = answer_marks.boxes_alone(text)
    else:
        marks = answer_marks.boxed_marks(text)
    if kind == "gsm8k":
        marks += answer_marks.lines_with_hashes(text)
        if claims:
            marks += answer_marks.claims(text)
    marks = sorted(mark for mark in marks if mark.answer)
    marks = answer_marks.without_last_remarks(marks, text)
    if not marks or takes_back(marks[-1].answer, text[marks[-1].end + 1 : marks[-1].end + 200]):
        return []

    answers = [mark.answer for mark in marks]
    joined = answer_marks.joined_boxes(marks, text) if kind != "ordered" else None
    if joined:
        return [*answers, joined]
    if len(marks) > 1 and EITHER_OR.fullmatch(text[marks[-2].end + 1 : marks[-1].start]):
        return []
    return answers


def read_part(response: str, kind: str) -> str:
    """The response (if long, its tail) up to the first new question that the model makes up."""
    text = response[-MAX_RESPONSE:]
    repeated = NEXT_QUESTION.match(text.lstrip())  # a response may begin by repeating its question
    start = text.index(repeated[0]) + len(repeated[0]) if repeated else 0
    next_question = NEXT_QUESTION.search(text, start)
    if next_question:
        text = text[: next_question.start()]
    end = END_MARK.search(text, 1) if kind != "ordered" else None  # 1: not a mark at the very start
    return text[: end.start()] if end else text


def plain_number(text: str) -> Fraction | None:
    """The exact value of "18", "-1,000" or "2.50"; None for anything that is not so plain."""
    if len(text) > MAX_DIGITS or not PLAIN_NUMBER.fullmatch(text):
        return None
    return Fraction(text.replace(",", ""))
