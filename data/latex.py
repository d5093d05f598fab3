r"""Answers that are more than a plain number: what they mean, and when two of them mean the same.

    equal("x = \\frac12", "0.5", any_order=True)      -> True
    read("x = 18 cm", merge=True)                     -> Answer("x", "cm", "number", Fraction(18))

An answer is read into an `Answer`: spelled in one way (latex_clean.py), without its name and unit
(latex_units.py), and then either a number (latex_tokens.py), words, a structure of several answers
(a pair, an interval, a set, a matrix), a constant such as 2^{10} (exact.py), or else an expression
(latex_terms.py). `same` compares two.
"""

import re
from fractions import Fraction
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

from data.exact import constant
from data.latex_clean import clean
from data.latex_factors import with_bars, with_times
from data.latex_terms import MAX_DEPTH, terms
from data.latex_tokens import encloses, matching_braces, number, split_top, tokenize
from data.latex_units import INDEXED, names_differ, split_name, split_scale, split_unit, usual_order

MAX_ANSWER = 1_000  # characters; a longer "answer" is not read at all


class Answer(NamedTuple):
    r"""One answer, read: "x = 18 cm" is Answer(name="x", unit="cm", kind="number", value=18).

    kind        value
    number      a Fraction
    text        the words
    expression  what `terms` makes of it
    +-          a \pm b: the frozenset of its two values
    {}          a set: the frozenset of its elements
    ,           a bare list: a list of Answers
    or          "x = 2 or x = 3": a list of Answers
    () [) ...   a pair or an interval: a list of Answers
    union       its intervals: a list of Answers
    matrix [2, 2]    its cells, row by row: a list of Answers
    """

    name: str | None
    unit: str | None
    kind: str
    value: object


GLUED = re.compile(r"[0-9][mglLsh](?![A-Za-z])")  # 4s
APART = re.compile(r"(?<=[0-9])\s+(?=[mglLsh](?![A-Za-z]))")  # the blank of 4 s


def equal(found: str, reference: str, any_order: bool) -> bool:
    """Does the answer `found` mean the same as the reference answer? See `same` for any_order."""
    gold = read(reference, merge=thousands_are_merged(reference))
    if gold is None:
        return False
    if same(gold, read(found, merge=True), any_order):
        return True
    if GLUED.search(reference) and same(gold, read(APART.sub("", found), merge=True), any_order):
        return True  # 4 s for 4s, where the letter is a side and no second
    # "1,234" is a number or a pair, whichever the reference answer is.
    return "," in found and same(gold, read(found, merge=False), any_order)


def is_readable(text: str, only_numbers: bool) -> bool:
    """Can this be read as an answer? With only_numbers: as a number, or a list or pair of them."""
    answer = read(text, merge=True)
    if answer is None:
        return False
    if not only_numbers:
        return True
    parts = answer.value if answer.kind in (",", "()") else [answer]
    return all(part.kind == "number" for part in parts)


@lru_cache(maxsize=1024)
def thousands_are_merged(reference: str) -> bool:
    """Is "1,234" in this reference answer one number?

    Yes if it stands alone or beside a ", ", since then a comma without a blank separates nothing.
    In "(1,234)" it is a pair.
    """
    is_in_brackets = re.search(r"[(\[]|\\\{", reference)
    has_comma_and_blank = re.search(r",\s", reference)
    return not is_in_brackets or bool(has_comma_and_blank)


# --- comparing ------------------------------------------------------------------------------------


def same(gold: Answer, found: Answer | None, any_order: bool = False) -> bool:
    r"""Equal in form and value. A bare pair may be put in parentheses.

    a \pm b is the set of its two values. The parts of a union and those around an "or" may come in
    any order. With any_order a bare list is one of solutions: -2, 1 is the same as 1, -2, as
    "x = 1 or x = -2", and as the set \{1, -2\}.
    """
    if found is None:
        return False
    if gold.name and found.name and names_differ(gold.name, found.name):
        return False
    if gold.unit and found.unit and not compatible(gold.unit, found.unit):
        return False
    kinds = {gold.kind, found.kind}
    if "+-" in kinds and kinds <= {"+-", "{}", ",", "or"}:
        same_size = len(gold.value) == len(found.value)
        return same_size and as_set(gold.value) == as_set(found.value)
    if any_order and len(kinds) == 2 and kinds <= {"or", ",", "{}"}:
        return same_solutions(gold, found)
    named = [several_names(a.value) for a in (gold, found) if isinstance(a.value, list)]
    if (
        any_order
        and kinds <= {",", "or", "{}"}
        and holds_two_values(gold, found)
        and not any(named)
    ):
        return as_set(gold.value) == as_set(found.value)
    in_parentheses = gold.kind == "," and found.kind == "()"
    are_named = gold.kind == "()" and found.kind == "," and all(e.name for e in found.value)
    if are_named:
        found = found._replace(value=in_order_of_names(found.value))
    if in_parentheses and all(e.name for e in gold.value):
        gold = gold._replace(value=in_order_of_names(gold.value))
    if gold.kind != found.kind and not in_parentheses and not are_named:
        return False
    if isinstance(gold.value, list):
        return same_elements(gold, found, any_order)
    if gold.kind == "text":
        is_small_letter = len(gold.value) == 1 and gold.value.islower()
        if not is_small_letter:  # "c" may be C, but x is not X
            return singular(gold.value) == singular(found.value)
    return gold.value == found.value


def in_order_of_names(answers: list[Answer]) -> list[Answer]:
    """y = 4, x = 3 as x = 3, y = 4; nothing if two have one name."""
    names = [answer.name for answer in answers]
    if len(set(names)) < len(names):
        return []
    order = usual_order(names) or names
    return sorted(answers, key=lambda answer: order.index(answer.name))


def singular(words: str) -> str:
    """ "No solutions" -> "no solution"."""
    words = re.sub(r"^(?:an?|the) (?=\w\w)", "", words.lower())  # an ellipse
    return words.removesuffix("s") if len(words) > 3 else words


def compatible(unit: str, other: str) -> bool:
    """Equal units; km may also be km/h."""
    return all(a == b for a, b in zip(unit.split("/"), other.split("/")))


def same_elements(gold: Answer, found: Answer, any_order: bool) -> bool:
    if len(gold.value) != len(found.value):
        return False
    both_are_bare = gold.kind == found.kind == ","
    any_order = any_order and both_are_bare or gold.kind in ("union", "or")
    if any_order and several_names(gold.value) == several_names(found.value):
        return matched(gold.value, found.value)
    return all(same(a, b) for a, b in zip(gold.value, found.value))


def same_solutions(gold: Answer, found: Answer) -> bool:
    """The same solutions, as a set on one side, or in a list on one side and with "or" between."""
    if len(gold.value) != len(found.value) and not holds_two_values(gold, found):
        return False
    for answer in (gold, found):
        if isinstance(answer.value, list) and several_names(answer.value):
            return False
    return as_set(gold.value) == as_set(found.value)


def holds_two_values(*answers: Answer) -> bool:
    r"""Is one of the parts a \pm?"""
    for answer in answers:
        if isinstance(answer.value, list) and any(part.kind == "+-" for part in answer.value):
            return True
    return False


def several_names(answers: list[Answer]) -> bool:
    """True of x = 1, y = 2, which says which is which; not of x = 1, 2 or x_1 = 1, x_2 = 2."""
    names = set()
    for answer in answers:
        if answer.name:
            names.add(INDEXED.sub(r"\1", answer.name))
    return len(names) > 1


def matched(gold: list[Answer], found: list[Answer]) -> bool:
    """Does each answer of one list have a partner of its own in the other?"""
    left = list(found)
    for answer in gold:
        for i, other in enumerate(left):
            if same(answer, other):
                left.pop(i)
                break
        else:  # none of those that are left is the same
            return False
    return True


def as_set(answers: list[Answer] | frozenset) -> frozenset:
    r"""Answers as a set, without their names and units; 1 \pm \sqrt{5} counts as two."""
    if isinstance(answers, frozenset):
        return answers
    values = set()
    for answer in answers:
        if answer.kind == "+-":
            values |= answer.value
        else:
            values.add((answer.kind, as_tuple(answer.value)))
    return frozenset(values)


def as_tuple(value: object) -> object:
    """A value that can be an element of a set: lists of Answers become tuples."""
    if not isinstance(value, list):
        return value
    return tuple((answer.kind, as_tuple(answer.value)) for answer in value)


# --- reading --------------------------------------------------------------------------------------

THOUSANDS = re.compile(r"(?<![0-9,.])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?!,?[0-9])")  # 1,234,567
WORDS = re.compile(r"[A-Za-z][A-Za-z .']*(?:-[A-Za-z]{2}[A-Za-z .']*)*")  # Evelyn, twenty-one
LETTERS = re.compile(  # xy, lwh, abc: a product, but no word such as "no"
    r"""
    [abcdhk-npq-z] [ ]? [abcdhk-npq-z]
  | [bcdhk-npq-tv-z] (?: [ ]? [bcdhk-npq-tv-z] ){2,3}
  | [abcd] (?: [ ]? [abcd] ){2,3}
    """,
    re.VERBOSE,
)
PLUS_MINUS = re.compile(r"\\pm(?![A-Za-z])")
MATRIX = re.compile(
    r"""
    [(\[]? \s*                                  # a matrix or an array may stand in brackets
    \\begin\{
    (?: (?: [pb] | small )? matrix \}
      | array \} \s* \{ [clr| ]* \}             # with its columns: {cc|r}
    )
    (.*)
    \\end\{ [a-z]+ \}
    \s* [)\]]?
    """,
    re.VERBOSE | re.DOTALL,
)


@lru_cache(maxsize=4096)  # the rollouts of a group repeat their answers
def read(text: str, merge: bool, depth: int = 0) -> Answer | None:
    """Read one answer; None if it cannot be read. `merge` joins 1,234 to 1234.

    `depth` counts the structures that this text is an element of.
    """
    if len(text) > MAX_ANSWER:
        return None
    if depth == 0:
        text = clean(text)
        if merge:
            text = THOUSANDS.sub(without_commas, text)
    text, name = split_name(unwrap(text))
    text, unit = split_unit(unwrap(text))
    text, scale = split_scale(unwrap(text))
    tokens = tokenize(text)
    if not tokens:
        return None
    value = number(tokens)
    if value is not None:
        is_torn = depth > 0 and re.match("-?0[0-9]", text)  # 13,000 is no pair of 13 and 000
        return None if is_torn else Answer(name, unit, "number", value * scale)
    if WORDS.fullmatch(text) and not LETTERS.fullmatch(text):
        return Answer(name, unit, "text", " ".join(text.split()))
    if depth == MAX_DEPTH:
        return Answer(name, unit, "expression", tuple(tokens))

    alternatives = read_alternatives(text, merge, depth)
    if alternatives:
        if all(same(alternatives[0], other) for other in alternatives[1:]):
            return alternatives[0]  # "\frac{3}{2} or 1.5" says one thing
        return Answer(name, unit, "or", alternatives)
    structure = split_structure(text, tokens)
    if structure is None:
        tokens = with_bars(with_times(tokens))
        if tokens.count("\\pm") == 1:
            plus = read(PLUS_MINUS.sub("+", text), merge, depth + 1)
            minus = read(PLUS_MINUS.sub("-", text), merge, depth + 1)
            if plus is None or minus is None:
                return None
            return Answer(name, unit, "+-", as_set([plus, minus]))
        value = constant(tokens)
        if isinstance(value, Fraction):
            return Answer(name, unit, "number", value)
        return Answer(name, unit, "expression", terms(tokens))

    kind, pieces = structure
    elements = [read(piece, merge, depth + 1) for piece in pieces]
    if None in elements:
        return None
    if kind == "()" and len(elements) == 1:  # (5) is 5, (C) is C
        (inner,) = elements
        return inner._replace(name=inner.name or name, unit=inner.unit or unit)
    return Answer(name, unit, kind, as_set(elements) if kind == "{}" else elements)


def without_commas(m: re.Match) -> str:
    return m[0].replace(",", "")


def read_alternatives(text: str, merge: bool, depth: int) -> list[Answer]:
    """The answers around "or", also as in "1, 2, or 3"; none if there is none, or one is unread."""
    pieces = split_top(text, "\\lor")
    if len(pieces) == 1:
        return []
    pieces = [piece.strip() for piece in pieces]
    first = pieces[0].removeprefix("either ").removesuffix(",")
    is_list = len(pieces) == 2 and len(split_top(pieces[1], ",")) == 1
    pieces[:1] = split_top(first, ",") if is_list else [first]
    answers = [read(piece, merge, depth + 1) for piece in pieces]
    return [] if None in answers else answers


def split_structure(text: str, tokens: list[str]) -> tuple[str, list[str]] | None:
    r"""(kind, pieces) if the text is made of several answers, else None.

    "1, 2" gives (",", ["1", " 2"]), "[0,1)" gives ("[)", ["0", "1"]); the kinds are Answer's.
    """
    matrix = MATRIX.fullmatch(text)
    if matrix and "\\begin" not in matrix[1]:
        rows = [row.split("&") for row in matrix[1].split("\\\\") if row.strip()]
        widths = [len(row) for row in rows]
        return f"matrix {widths}", list(chain.from_iterable(rows))
    intervals = split_top(text, "\\cup")
    if len(intervals) > 1:
        return "union", intervals
    pieces = split_top(text, ",")
    if len(pieces) > 1:
        return ",", pieces
    if not encloses(tokens):
        return None
    if tokens[0] == "\\{" and tokens[-1] == "\\}":
        inside = text[2:-2]
        return "{}", split_top(inside, ",") if inside.strip() else []
    if tokens[0] in ("(", "[") and tokens[-1] in (")", "]"):
        return text[0] + text[-1], split_top(text[1:-1], ",")
    return None


def unwrap(text: str) -> str:
    """Drop blanks, quotes, markdown stars, a final full stop, and braces around the whole."""
    text = text.strip(' \t\r\n"`*')
    if len(text) > 2 and text[0] == text[-1] == "'":
        text = text[1:-1].strip()
    if text.endswith(".") and not text.endswith(".."):
        text = text[:-1].rstrip(" *")
    if text.startswith("{") and matching_braces(text).get(0) == len(text) - 1:
        text = text[1:-1].strip()
    return text
