r"""One answer in two forms: a choice and the text beside it, an inequality and its interval.

    same_choice("(C) 12", "C")                      -> True
    same_range("x < 3", r"(-\infty,3)")             -> True

Both texts have been through `clean` of latex_clean.py.
"""

import re

from data import latex
from data.latex_tokens import split_top

CHOICE = re.compile(  # "(C) 12", "C.", "Option C"
    r"(?: (?: option | choice | answer ) \s* \(? (?P<named> [A-H] ) \b \)? [.:]?"
    r" | \(? \s* (?P<letter> [A-H] ) \s* [).:] ) \s* (?P<text> .* )",
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)


def same_choice(found: str, answer: str) -> bool:
    """A letter of a multiple choice with the text beside it, where the answer is one of the two."""
    choice = CHOICE.fullmatch(found)
    if not choice:
        return False
    letter = (choice["named"] or choice["letter"]).upper()
    if re.fullmatch(r"\(?[A-H]\)?\.?", answer):
        return letter == answer.strip("().")
    return bool(choice["text"]) and latex.equal(choice["text"], answer, any_order=True)


SIGN = r"(<|>|\\le(?![A-Za-z])|\\ge(?![A-Za-z]))"
INEQUALITY = re.compile(
    rf"(?: ([^<>]+?) \s* {SIGN} \s* )? (?: [a-zA-Z] | \\[a-z]+ ) \s* {SIGN} \s* ([^<>]+)",
    re.VERBOSE,
)
ALL_REALS = re.compile(r"(?:[a-zA-Z] *\\in *)?\\mathbb *\{? *R *\}?|all real(?:s| numbers?)", re.I)


def same_range(found: str, answer: str) -> bool:
    """An inequality on one side, and the interval that it means on the other."""
    if ALL_REALS.fullmatch(found) and ALL_REALS.fullmatch(answer):
        return True
    range_found = as_interval(found)
    range_answer = as_interval(answer)
    if (range_found is None) == (range_answer is None):
        return False
    return latex.equal(range_found or found, range_answer or answer, any_order=True)


def as_interval(text: str) -> str | None:
    r""" "-2 \le x < 7" -> "[-2,7)", "x < 1 or x > 2" -> "(-\infty,1)\cup(2,\infty)"; else None."""
    if ALL_REALS.fullmatch(text):
        return r"(-\infty,\infty)"
    intervals = []
    for piece in split_top(text, "\\lor"):
        parts = INEQUALITY.fullmatch(piece.strip())
        if not parts:
            return None
        low, first, second, high = parts.groups()
        if low is None and second in (">", "\\ge"):  # x > 2
            intervals.append(f"{'(' if second == '>' else '['}{high},\\infty)")
            continue
        if second in (">", "\\ge") or first in (">", "\\ge"):
            return None
        start = "(-\\infty" if low is None else ("(" if first == "<" else "[") + low
        intervals.append(f"{start},{high}{')' if second == '<' else ']'}")
    return "\\cup".join(intervals)
