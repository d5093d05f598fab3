r"""One answer in two forms: a choice and the text beside it, an inequality and its interval.

    same_choice("(C) 12", "C")                      -> True
    same_range("x < 3", r"(-\infty,3)")             -> True

Both texts have been through `clean` of latex_clean.py.
"""

import re
from typing import NamedTuple

from data import latex
from data.latex_tokens import number, split_top, tokenize

CHOICE = re.compile(  # "(C) 12", "C.", "Option C"
    r"(?: (?: option | choice | answer ) \s* \(? (?P<named> [A-H] ) \b \)? [.:]?"
    r" | \(? \s* (?P<letter> [A-H] ) \s* [).:] ) \s* (?P<text> .* )",
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
ANOTHER_CHOICE = re.compile(  # "(C) or (D)", "(A), (C)", "(C) is false"
    r"\A \s* [,&/] | \\lor | (?<![A-Za-z\\]) [A-H] \s* [).] | \A \s* \( \s* [a-h] \s* \)"
    r" | \b (?: or | not | false | wrong | incorrect | maybe | perhaps | probably | eliminated"
    r" | excluded | impossible ) \b",
    re.VERBOSE,
)


def same_choice(found: str, answer: str) -> bool:
    """A letter of a multiple choice with the text beside it, where the answer is one of the two."""
    choice = CHOICE.fullmatch(found)
    if not choice or ANOTHER_CHOICE.search(choice["text"]):
        return False
    letter = choice["named"] or choice["letter"]
    if letter.islower() and re.match(r"[-+*/^=<>(]", choice["text"]):
        return False  # (h) - (k), (a)(x + 1)
    letter = letter.upper()
    if re.fullmatch(r"\(?[A-H]\)?\.?", answer):
        return letter == answer.strip("().")
    return bool(choice["text"]) and latex.equal(choice["text"], answer, any_order=True)


# --- ranges ---------------------------------------------------------------------------------------

SIGN = re.compile(r"(<|>|\\le(?![A-Za-z])|\\ge(?![A-Za-z])|\\ne(?![A-Za-z]))")
VARIABLE = re.compile(r"[a-zA-Z] | \\[a-z]+ | [a-zA-Z] \( [a-z] \)", re.VERBOSE)  # x, f(x)
MIRRORED = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}
REALS = r"\\mathbb\s*\{?\s*R\s*\}?"
ALL_REALS = re.compile(rf"(?:[a-zA-Z] *\\in *)?{REALS}|all real(?:s| numbers?)", re.IGNORECASE)
BUILDER = re.compile(  # \{x \in \mathbb{R} : x > 3\}
    rf"\\\{{ \s* ([a-zA-Z]) \s* (?: \\in \s* {REALS} \s* )? [|:] (.*) \\\}}", re.VERBOSE
)
WITHOUT = re.compile(  # \mathbb{R} \setminus \{2\}, all real numbers except 2
    rf"(?: [a-zA-Z] \s* \\in \s* )?"
    rf"(?: {REALS} \s* (?: \\setminus | \\backslash | - ) \s* \\\{{ (.*) \\\}}"
    r" | all \s real (?: s | \s numbers ) \s except \s (?: for \s )? (?: [a-z] \s* = )? (.*) )",
    re.VERBOSE | re.IGNORECASE,
)
IN_INTERVAL = re.compile(r"([a-zA-Z])\s*\\in\s*([(\[].*[)\]])")  # x \in (-\infty,-8)
INTERVAL = re.compile(r"[(\[][^()\[\],]*,[^()\[\],]*[)\]]")
OF_REALS = re.compile(rf"^(?:[a-zA-Z]\s*\\in\s*{REALS}\s*,\s*|all\s+(?=[a-z]\s*(?:[<>]|\\[gln]e)))")
THAN = re.compile(r"all real numbers? (greater|less) than (or equal to )?(.*)")
SIGN_OF = {("greater", False): ">", ("greater", True): "\\ge"}
SIGN_OF |= {("less", False): "<", ("less", True): "\\le"}
RATIO = re.compile(r"([0-9]+)\s*(?:-\s*to\s*-|to|:)\s*([0-9]+)")  # 3 to 4
INFINITE = "\\infty"


class Range(NamedTuple):
    variable: str  # "" where none is named
    intervals: str  # "(-\infty,1)\cup(2,\infty)"


def same_range(found: str, answer: str) -> bool:
    """An inequality or words on one side, and the interval that it means on the other."""
    if ALL_REALS.fullmatch(found) and ALL_REALS.fullmatch(answer):
        return True
    range_found = as_range(found)
    range_answer = as_range(answer)
    if range_found is None and range_answer is None:
        return False
    if range_found and range_answer:
        names = {range_found.variable, range_answer.variable} - {""}
        if len(names) > 1:
            return False
    intervals_found = range_found.intervals if range_found else found
    intervals_answer = range_answer.intervals if range_answer else answer
    return latex.equal(intervals_found, intervals_answer, any_order=True)


def same_ratio(found: str, answer: str) -> bool:
    """3 to 4 is 3:4, where the reference answer is a ratio."""
    ratio = RATIO.fullmatch(found)
    return bool(ratio) and ":" in answer and latex.equal(f"{ratio[1]}:{ratio[2]}", answer, False)


def as_range(text: str) -> Range | None:
    r"""The intervals of "-2 \le x < 7", "x < 1 or x > 2", \mathbb{R} \setminus \{2\}; else None."""
    text = OF_REALS.sub("", text.strip()).replace("\\land", ",")
    than = THAN.fullmatch(text)
    if than:
        word, or_equal, border = than.groups()
        return one_range(f"x {SIGN_OF[word, bool(or_equal)]} {border}")
    if ALL_REALS.fullmatch(text):
        return Range("", rf"(-{INFINITE},{INFINITE})")
    without = WITHOUT.fullmatch(text)
    if without:
        return all_but("", without[1] or without[2])
    builder = BUILDER.fullmatch(text)
    if builder:
        inside = as_range(builder[2])
        return inside if inside and inside.variable == builder[1] else None
    if "\\ne" in text:  # x \ne 1, 3
        return one_range(text)
    pieces = split_top(text, "\\lor")
    if len(pieces) == 1:
        pieces = split_top(text, ",")
        if len(pieces) == 2:  # x \ge -2 and x \le 7
            return between(*[one_range(piece.strip()) for piece in pieces])
    ranges = [one_range(piece.strip()) for piece in pieces]
    for i, piece in enumerate(pieces):
        if len(pieces) > 1 and INTERVAL.fullmatch(piece.strip()):
            ranges[i] = Range("", piece.strip())  # (-\infty,-8) or (-7,4)
    if None in ranges or len({one.variable for one in ranges}) > 1:
        return None
    return Range(ranges[0].variable, "\\cup".join(one.intervals for one in ranges))


def one_range(text: str) -> Range | None:
    r"""One inequality: x < 7, 7 > x, -2 \le x < 7, 7 > x \ge -2, x \ne 2, x \in (1,2)."""
    inside = IN_INTERVAL.fullmatch(text)
    if inside:
        return Range(*inside.groups())
    sides = [side.strip() for side in SIGN.split(text)]  # a, "<", x, "<", b
    if len(sides) == 3 and sides[1] == "\\ne":
        return all_but(sides[0], sides[2]) if VARIABLE.fullmatch(sides[0]) else None
    if len(sides) not in (3, 5) or "" in sides or "\\ne" in sides:
        return None
    if sides[1] in (">", "\\ge"):  # read from the right
        sides = [MIRRORED.get(side, side) for side in sides[::-1]]
    if len(sides) == 5:
        low, first, name, second, high = sides
        if not {first, second} <= {"<", "\\le"} or not VARIABLE.fullmatch(name):
            return None
        return Range(name, f"{'(' if first == '<' else '['}{low}, {high}{closing(second)}")
    left, sign, right = sides
    if VARIABLE.fullmatch(left):
        return Range(left, f"(-{INFINITE}, {right}{closing(sign)}")
    if VARIABLE.fullmatch(right):
        return Range(right, f"{'(' if sign == '<' else '['}{left}, {INFINITE})")
    return None


def closing(sign: str) -> str:
    return ")" if sign == "<" else "]"


def between(low: Range | None, high: Range | None) -> Range | None:
    """Two inequalities that hold together: x > 2 and x < 5, in either order."""
    if not low or not high or low.variable != high.variable:
        return None
    if not low.intervals.endswith(f", {INFINITE})"):
        low, high = high, low
    start = low.intervals.removesuffix(f", {INFINITE})")
    end = high.intervals.removeprefix(f"(-{INFINITE}, ")
    if start == low.intervals or end == high.intervals:
        return None
    return Range(low.variable, f"{start}, {end}")


def all_but(variable: str, points: str) -> Range | None:
    """All real numbers without these, which are numbers."""
    values = []
    for point in split_top(points, ","):
        value = number(tokenize(point.strip()))
        if value is None:
            return None
        values.append((value, point.strip()))
    ends = [f"-{INFINITE}", *[point for _, point in sorted(values)], INFINITE]
    intervals = [f"({low}, {high})" for low, high in zip(ends, ends[1:])]
    return Range(variable, "\\cup".join(intervals))
