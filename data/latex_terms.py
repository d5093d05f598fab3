r"""Expressions, compared as sums of products: 2 + x is x + 2, and i\sqrt{3} is \sqrt{3}i.

`terms` turns the tokens of an expression into nested tuples. Two expressions are taken for equal if
their tuples are. Nothing is computed and nothing is moved that could change the value.
"""

from data.latex_tokens import CLOSE, OPEN, brackets, encloses

MAX_DEPTH = 8  # brackets inside of brackets that are read as structure; deeper ones stay tokens
RELATIONS = set(
    r", & \\ = < > : ; \le \ge \ne \approx \equiv \to \cup \cap \lor \land \vee \wedge "
    r"\implies \iff".split()
)


def terms(tokens: list[str], depth: int = 0) -> tuple:
    """An expression as its signed terms in a sorted order, so that 2 + x equals x + 2.

    Nothing is moved across an "=", "<", "," or another of RELATIONS: the result is the sides and
    the relations between them in turn, (terms,) or (terms, "=", terms) and so on.
    """
    if depth == MAX_DEPTH or "|" in tokens:
        return tuple(tokens)
    if tokens[:1] == ["("] and encloses(tokens):
        tokens = tokens[1:-1]
    result = []
    side = [["+"]]  # the terms of one side, each with its sign first
    level = 0  # of brackets
    for token in drop_times(tokens):
        if token in OPEN:
            level += 1
        elif token in CLOSE:
            level -= 1
        last_token = side[-1][-1]
        if level == 0 and token in RELATIONS:
            result += [sorted_terms(side, depth), token]
            side = [["+"]]
        elif level == 0 and token in ("+", "-") and last_token not in ("*", "/"):
            side.append([token])
        else:
            side[-1].append(token)
    result.append(sorted_terms(side, depth))
    return tuple(result)


def drop_times(tokens: list[str]) -> list[str]:
    r"""2 * \pi is 2\pi; a times stays before a number or a sign: 2 * 3 is not 23."""
    kept = []
    for i, token in enumerate(tokens):
        is_times = token in ("*", "\\cdot", "\\times")
        after = tokens[i + 1] if i + 1 < len(tokens) else ""
        if not is_times:
            kept.append(token)
        elif after[:1].isdigit() or after in ("", "+", "-"):
            kept.append("*")
    return kept


def sorted_terms(side: list[list[str]], depth: int) -> tuple:
    if side[0] == ["+"]:  # nothing stands before the first sign
        side = side[1:]
    return tuple(sorted([term(signed, depth) for signed in side], key=repr))


def term(tokens: list[str], depth: int) -> tuple:
    r"""One signed term, with its fraction spelled in one way.

    a/b is \frac{a}{b}, \frac{-a}{b} is -\frac{a}{b}, and \frac{2}{3}a is \frac{2a}{3}.
    """
    sign = tokens[0]
    body = slash_to_frac(tokens[1:])
    if body[:1] != ["\\frac"]:
        return sign, *factors_of(body, depth)
    closing = brackets(body)
    middle = closing.get(1, len(body)) + 1  # \frac { top } { bottom } rest: the second "{"
    if middle not in closing:
        return sign, *body
    end = closing[middle]
    top = body[2 : middle - 1]
    bottom = body[middle + 1 : end]
    rest = body[end + 1 :]

    if top[:1] == ["-"] and "+" not in top and "-" not in top[1:]:
        sign = "-" if sign == "+" else "+"
        top = top[1:]
    top_is_digit = len(top) == 1 and top[0].isdigit()
    if top_is_digit and rest and not rest[0].isdigit() and rest[0] not in "^_!" and "/" not in rest:
        top = rest if top == ["1"] else top + rest
        rest = []
    over = (terms(top, depth + 1), terms(bottom, depth + 1))
    return sign, "\\frac", *over, *factors_of(rest, depth)


def slash_to_frac(tokens: list[str]) -> list[str]:
    r"""x/2 as \frac { x } { 2 }, if it is clear what is divided by what."""
    if tokens.count("/") != 1:
        return tokens
    slash = tokens.index("/")
    top = tokens[:slash]
    bottom = tokens[slash + 1 :]
    argument = bottom
    if bottom[1:2] == ["^"]:
        argument = bottom[2:]
    elif bottom[:1] == ["\\sqrt"]:
        argument = bottom[1:]
    # x, 2^{9}, \sqrt{2} and (x+1) are clear; in 1/2x the x may belong above
    bottom_is_clear = len(bottom) == 1 or encloses(argument)
    if top and bottom_is_clear and top.count("(") == top.count(")"):
        return ["\\frac", "{", *top, "}", "{", *bottom, "}"]
    return tokens


def factors_of(tokens: list[str], depth: int) -> tuple:
    r"""The factors, each bracket read as a sum; roots, \pi and sums are sorted to the end.

    So i\sqrt{3} is \sqrt{3}i. Letters keep their order, since they may be a word. Nothing is moved
    if there is a function or a second number.
    """
    closing = brackets(tokens)
    factors = []
    i = 0
    while i < len(tokens):
        part = tokens[i]
        end = closing.get(i, i)
        if end > i:
            part = (tokens[i], terms(tokens[i + 1 : end], depth + 1), tokens[end])
        if factors and belongs_to_factor(part, factors[-1]):
            factors[-1] += (part,)
        else:
            factors.append((part,))
        i = end + 1
    ranks = [sort_class(factor[0]) for factor in factors]
    if None in ranks or 0 in ranks[1:]:
        return tuple(factors)
    return tuple(sorted(factors, key=place_in_product))


def belongs_to_factor(part: str | tuple, factor: tuple) -> bool:
    r"""Is `part` the exponent, index or argument that `factor`, such as ("x", "^"), waits for?"""
    if part in ("^", "_", "!", "'"):
        return True
    last = factor[-1]
    return last in ("^", "_", "\\sqrt") or last[0] == "["  # the 3 of \sqrt[3]


def place_in_product(factor: tuple) -> tuple[int, str]:
    """The key that factors are sorted by: only those of sort_class 2 have an order of their own."""
    place = sort_class(factor[0])
    return place, repr(factor) if place == 2 else ""


def sort_class(head: str | tuple) -> int | None:
    r"""Of a factor's first part: 0 for a number, 1 for a letter, 2 for what may be moved.

    None for all else, such as \sin, f(x) or (1,2).
    """
    if isinstance(head, tuple):  # a bracket: it may be moved if it is a sum, one side of many terms
        sides = head[1]
        is_sum = head[0] == "(" and len(sides) == 1 and len(sides[0]) > 1
        return 2 if is_sum else None
    if head in ("\\sqrt", "\\pi"):
        return 2
    if len(head) == 1 and head.islower() and head not in "fgh":
        return 1
    return 0 if head[0] in ".0123456789" else None
