r"""Expressions, compared as sums of products: 2 + x is x + 2, and 0.5yx is \frac{xy}{2}.

`terms` turns the tokens of an expression into nested tuples. Two expressions are taken for equal if
their tuples are. What is constant is computed (exact.py): \frac{x}{\sqrt2} is \frac{\sqrt2}{2}x.
Each factor has one spelling (latex_factors.py): x^{-1} is \frac1x. Beyond that, brackets are not
multiplied out and equal terms are not added up, so that x^2 + 2x + 1 is no answer to "factor it".
"""

import re
from fractions import Fraction
from typing import NamedTuple

from data.exact import (
    NotExact,
    Sum,
    Value,
    as_sum,
    as_value,
    constant,
    inverse,
    is_number,
    minus,
    times,
)
from data.latex_factors import (
    ELEMENTARY,
    GREEK,
    NAMES,
    applied_functions,
    as_root,
    below,
    factors_of,
    is_letter,
    only_side,
    scaled,
    with_sign,
    without_brackets,
)
from data.latex_fractions import before_fraction, has_slash, number_in_front, slash_to_frac
from data.latex_tokens import CLOSE, OPEN, brackets, encloses
from data.latex_tokens import number as number_of

MAX_DEPTH = 8  # brackets inside of brackets that are read as structure; deeper ones stay tokens
MAX_LETTERS = 4  # in a product that may be reordered; more of them in a row may be words
RELATIONS = set(
    r", & \\ = < > : ; \le \ge \ne \approx \equiv \to \cup \cap \lor \land \vee \wedge "
    r"\implies \iff".split()
)
MIRRORED = {">": "<", "\\ge": "\\le"}
FUNCTIONS = GREEK | NAMES  # if a bracket follows: \phi(n) and f(x)
LETTERS_TOO = {"e", "i"}  # beside a letter they are letters; alone they are constants
LEADING_ZERO = re.compile(r"0[0-9]")


class Parts(NamedTuple):
    """One product: number * over / under.

    If it is fixed, it holds a function or the like, and `over` stands in the order of the text.
    """

    number: Sum
    over: list[tuple]
    under: list[tuple]
    is_fixed: bool = False


ONE = as_sum(Fraction(1))


def terms(tokens: list[str], depth: int = 0) -> tuple:
    """An expression as its signed terms in a sorted order, so that 2 + x equals x + 2.

    Nothing is moved across an "=", "<", "," or another of RELATIONS: the result is the sides and
    the relations between them in turn, (side,) or (side, "=", side) and so on.
    """
    if depth >= MAX_DEPTH or "|" in tokens:
        return tuple(tokens)
    if tokens[:1] == ["("] and encloses(tokens):
        tokens = tokens[1:-1]
    sides = [[]]
    relations = []
    level = 0  # of brackets
    for token in tokens:
        if token in OPEN:
            level += 1
        elif token in CLOSE:
            level -= 1
        if level == 0 and token in RELATIONS:
            relations.append(token)
            sides.append([])
        else:
            sides[-1].append(token)
    return in_order([sum_of(side, depth) for side in sides], relations)


def in_order(sides: list[tuple], relations: list[str]) -> tuple:
    r"""Sides and relations in turn: x \ge 4 as 4 \le x, and of x = y and y = x always the same."""
    if relations in (["="], ["\\ne"]):
        sides = sorted(sides, key=repr)
    elif relations and set(relations) <= set(MIRRORED):
        sides = sides[::-1]
        relations = [MIRRORED[relation] for relation in relations[::-1]]
    result = [sides[0]]
    for relation, side in zip(relations, sides[1:]):
        result += [relation, side]
    return tuple(result)


def sum_of(tokens: list[str], depth: int) -> tuple:
    """One side as its terms (number, over, under), sorted; a constant is one term."""
    value = value_of(tokens)
    if value is not None:
        return ((value, (), ()),)
    result = []
    for sign, body in signed_terms(drop_times(tokens)):
        result.append(term(sign, body, depth))
    if len(result) == 1:
        return opened(result[0])
    return tuple(sorted(result, key=repr))


def opened(one: tuple) -> tuple:
    r"""The terms of a sum with a sign or a denominator: -(x - 5) is 5 - x, \frac{x+1}{2} is
    \frac{x}{2} + \frac12. Other terms stay alone.
    """
    if len(one) == 3 and isinstance(one[0], Fraction) and len(one[1]) == 1 and not one[2]:
        number, (factor,), _ = one
        side = only_side(factor[0]) if len(factor) == 1 else None
        if side is not None and abs(number.numerator) == 1:
            return scaled(side, number)
    return (one,)


def value_of(tokens: list[str]) -> Value | None:
    r"""The value of a number or a constant.

    There is none of 05, since 3:05 is not 3:5, nor of 2\frac12, which may have been 2 * \frac12.
    """
    if any(LEADING_ZERO.match(token) for token in tokens):
        return None
    for before, token in zip(tokens, tokens[1:]):
        if token == "\\frac" and is_number(before):
            return None
    value = number_of(tokens)
    return constant(tokens) if value is None else value


def signed_terms(tokens: list[str]) -> list[tuple[str, list[str]]]:
    """The terms of one side, each with its sign: x - 2y gives ("+", x) and ("-", 2y).

    Of two signs in a row the second turns the first: x + -2y is x - 2y.
    """
    side = [["+"]]
    level = 0  # of brackets
    for token in tokens:
        if token in OPEN:
            level += 1
        elif token in CLOSE:
            level -= 1
        is_sign = level == 0 and token in ("+", "-")
        if is_sign and len(side) > 1 and len(side[-1]) == 1:
            side[-1] = ["+" if side[-1] == [token] else "-"]
        elif is_sign and side[-1][-1] not in ("*", "/"):
            side.append([token])
        else:
            side[-1].append(token)
    if side[0] == ["+"]:  # nothing stands before the first sign
        side = side[1:]
    return [(signed[0], signed[1:]) for signed in side]


def drop_times(tokens: list[str]) -> list[str]:
    r"""2 * \pi is 2\pi; a times stays before a number or a sign: 2 * 3 is not 23."""
    kept = []
    is_function = False  # does one stand in front, whose argument would go on?
    for i, token in enumerate(tokens):
        is_function = token in ELEMENTARY or is_function and token not in ("+", "-")
        is_times = token in ("*", "\\cdot", "\\times")
        after = tokens[i + 1] if i + 1 < len(tokens) else ""
        # With 2\frac12 a mixed number, 2 * \frac12 has to keep its times.
        is_mixed = after == "\\frac" and i > 0 and is_number(tokens[i - 1])
        if not is_times:
            kept.append(token)
        elif (
            is_function
            and after not in ELEMENTARY
            or is_number(after)
            or after in ("", "+", "-")
            or is_mixed
        ):
            kept.append("*")
    return kept


def term(sign: str, body: list[str], depth: int) -> tuple:
    r"""One signed term as (number, over, under): -\frac{2x}{y} is (-2, x, y)."""
    if not body:  # a sign without a term
        return (sign,)
    try:
        parts = parts_of(body, depth)
    except NotExact:  # its number exceeds a bound of exact.py
        return sign, *body
    value = minus(parts.number) if sign == "-" else parts.number
    return as_value(value), tuple(parts.over), tuple(parts.under)


def parts_of(body: list[str], depth: int) -> Parts:
    r"""The parts of one term: its fraction and what stands behind that are one product.

    x/2, \frac{x}{2} and \frac{1}{2}x are all (1/2, x, nothing).
    """
    body = slash_to_frac(body)
    number, rest = number_in_front(body)
    if number is not None:
        first = Parts(as_sum(number), [], [])
        return multiplied(first, parts_of(rest, depth)) if rest else first
    front = before_fraction(body) if depth < MAX_DEPTH else []
    if front:
        first = parts_of_side(front, depth + 1)
        if not first.is_fixed:
            n = len(front) + (body[len(front)] == "*")
            return multiplied(first, parts_of(body[n:], depth + 1))
    closing = brackets(body)
    middle = closing.get(1, len(body)) + 1  # \frac { top } { bottom } rest: the second "{"
    if body[:1] != ["\\frac"] or middle not in closing or depth >= MAX_DEPTH:
        return product(body, depth)
    end = closing[middle]
    top = parts_of_side(body[2 : middle - 1], depth + 1)
    bottom = parts_of_side(body[middle + 1 : end], depth + 1)
    rest = body[end + 1 :]
    fraction = divided(top, bottom)
    if not rest:
        return fraction
    is_clear = not has_slash(rest) and not is_number(rest[0]) and rest[0] not in "^_!"
    if rest[0] == "*":
        rest = rest[1:]
    behind = parts_of_side(rest, depth + 1)
    if fraction.is_fixed or not is_clear:  # in \frac{\sin x}{2}y the y is not under the \sin
        return Parts(ONE, [("\\frac", as_tuple(fraction), as_tuple(behind))], [], True)
    return multiplied(fraction, behind)


def multiplied(first: Parts, second: Parts) -> Parts:
    """The product of two products, of which the first is not fixed."""
    over = first.over + second.over
    return Parts(
        times(first.number, second.number),
        over if second.is_fixed else sorted(over, key=place_in_product),
        sorted(first.under + second.under, key=repr),
        second.is_fixed,
    )


def divided(top: Parts, bottom: Parts) -> Parts:
    if bottom.is_fixed:
        bottom = Parts(ONE, [("\\frac", as_tuple(bottom))], [])
    try:
        number = inverse(bottom.number)
    except NotExact:  # 0, or one such as 1 + \\pi
        bottom.over.append(("\\frac", as_value(bottom.number)))
        number = ONE
    over = bottom.under + top.over
    return Parts(
        times(top.number, number),
        over if top.is_fixed else sorted(over, key=place_in_product),
        sorted(top.under + bottom.over, key=repr),
        top.is_fixed,
    )


def as_tuple(parts: Parts) -> tuple:
    return as_value(parts.number), tuple(parts.over), tuple(parts.under)


def parts_of_side(tokens: list[str], depth: int) -> Parts:
    r"""The parts of what stands over or under a \frac; a sum is one factor."""
    if tokens[:1] == ["("] and encloses(tokens):
        tokens = tokens[1:-1]
    value = value_of(tokens) if LETTERS_TOO.isdisjoint(tokens) else None
    if value is not None:
        return Parts(as_sum(value), [], [])
    signed = signed_terms(drop_times(tokens))
    is_product = len(signed) == 1 and not RELATIONS & set(tokens) and "|" not in tokens
    if not is_product:
        sign, factor = with_sign((("(", terms(tokens, depth), ")"),))
        return Parts(minus(ONE) if sign < 0 else ONE, [factor], [])
    ((sign, body),) = signed
    parts = parts_of(body, depth)
    return parts._replace(number=minus(parts.number)) if sign == "-" else parts


# --- products -------------------------------------------------------------------------------------


def product(tokens: list[str], depth: int) -> Parts:
    r"""The factors: constants are multiplied, letters, roots and sums are sorted.

    So i\sqrt{3} is \sqrt{3}i, and 6yx is 6xy. If there is a function or a second number, only the
    constants in front are multiplied, and all else keeps its order; but \sin x\cos y is
    \cos y\sin x.
    """
    parts = without_brackets(factors_of(tokens))
    functions = applied_functions(parts)
    if functions:
        return product_of_functions(*functions, depth)
    factors = []
    is_clear = [True]  # is it the first one, or does a times stand in front?
    for i, factor in enumerate(parts):
        if factor == ["*"] and 0 < i < len(parts) - 1:
            is_clear[-1] = True
        else:
            factors.append(as_root(factor))
            is_clear.append(False)
    forms = []
    places = []
    for i, factor in enumerate(factors):
        after = factors[i + 1][0] if i + 1 < len(factors) else ""
        forms.append(form(factor, depth))
        places.append(place_of(factor, forms[-1], after, is_clear[i]))
    n_letters = 0
    for factor, place in zip(factors, places):
        n_letters += place == 1 and len(factor) == 1
    if None in places or n_letters > MAX_LETTERS:
        return product_in_order(factors, forms, places, is_clear)

    total = ONE
    over = []
    under = []
    for factor, one_form, place in zip(factors, forms, places):
        if place == 0:
            total = times(total, as_sum(value_of(factor)))
            continue
        lower = below(factor)
        if lower:
            one_form = form(as_root(lower), depth)
        sign, one_form = with_sign(one_form)
        total = minus(total) if sign < 0 else total
        (under if lower else over).append(one_form)
    return Parts(total, sorted(over, key=place_in_product), sorted(under, key=repr))


def product_in_order(factors: list, forms: list, places: list, is_clear: list) -> Parts:
    """The constants in front are multiplied, and all else keeps its order."""
    total = ONE
    kept = []
    for i, factor in enumerate(factors):
        if places[i] == 0 and not kept:
            total = times(total, as_sum(value_of(factor)))
            continue
        if kept and is_clear[i]:  # \sin x * 2 is not \sin x2
            kept.append(("*",))
        kept.append(forms[i])
    return Parts(total, kept, [], True)


def product_of_functions(front: list, applied: list, depth: int) -> Parts:
    """What stands in front, then the functions in a sorted order."""
    tokens = [token for factor in front for token in factor]
    first = product(tokens, depth) if tokens else Parts(ONE, [], [])
    forms = []
    for function in applied:
        forms.append(tuple(form(factor, depth) for factor in function))
    return first._replace(over=first.over + sorted(forms, key=repr), is_fixed=True)


def form(factor: list[str], depth: int) -> tuple:
    """One factor, each bracket in it read as a sum."""
    if factor[0] == "\\overline":  # of digits, or a segment: nothing is moved
        return tuple(factor)
    closing = brackets(factor)
    parts = []
    i = 0
    while i < len(factor):
        end = closing.get(i, i)
        if end > i:
            parts.append((factor[i], terms(factor[i + 1 : end], depth + 1), factor[end]))
        else:
            parts.append(factor[i])
        i = end + 1
    if parts[0] == "\\abs" and 1 in closing:  # |3 - x| is |x - 3|
        _, (inner,) = with_sign((("(", parts[1][1], ")"),))
        parts[1] = inner
    return tuple(parts)


def place_of(factor: list[str], one_form: tuple, after: str, is_clear: bool) -> int | None:
    r"""0 for a constant, 1 for a letter, 2 for a root or a sum.

    None for what may not be moved, such as \sin, f(x), (1,2), or a number behind another factor
    without a times.
    """
    head = factor[0]
    is_digits = is_number(head)
    if is_digits and not is_clear:
        return None
    if "'" in factor or head in FUNCTIONS and after == "(":
        return None
    if is_letter(head):
        return 1
    is_plain = is_digits and len(factor) == 1
    is_constant = LETTERS_TOO.isdisjoint(factor) and constant(factor) is not None
    if (is_plain or is_constant) and value_of(factor) is not None:
        return 0
    if head == "(" and len(one_form[0]) == 3:  # it is closed; a sum is one side of many terms
        sides = one_form[0][1]
        is_sum = len(sides) == 1 and len(sides[0]) > 1 or constant(factor) is not None
        return 2 if is_sum else None
    return 2 if is_digits or head in ("\\sqrt", "\\pi", "\\abs") else None


def place_in_product(one_form: tuple) -> tuple[bool, str]:
    """The key that factors are sorted by: letters before roots and sums."""
    head = one_form[0]
    return not (isinstance(head, str) and is_letter(head)), repr(one_form)
