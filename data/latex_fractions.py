r"""Where the fraction of a term begins and ends: x/2 is \frac{x}{2}, and (1/2)x is 1/2 and x."""

from fractions import Fraction

from data.exact import is_number
from data.latex_factors import is_letter, split_power
from data.latex_tokens import brackets, encloses, top_level
from data.latex_tokens import number as number_of


def slash_to_frac(tokens: list[str]) -> list[str]:
    r"""x/2 as \frac { x } { 2 }, if it is clear what is divided by what."""
    slashes = [i for i in top_level(tokens) if tokens[i] == "/"]
    if len(slashes) != 1:
        return tokens
    (slash,) = slashes
    top = tokens[:slash]
    bottom = tokens[slash + 1 :]
    argument = bottom
    if bottom[1:2] == ["^"]:
        argument = bottom[2:]
    elif bottom[:1] == ["\\sqrt"]:
        argument = bottom[1:]
    elif bottom[:1] == ["("] and split_power(bottom):
        argument = bottom[: -len(split_power(bottom)[1]) - 3]
    # x, 2^{9}, \sqrt{2}, (x+1) and (x+1)^{2} are clear; in 1/2x the x may belong above
    bottom_is_clear = len(bottom) == 1 or encloses(argument)
    if top and bottom_is_clear and top.count("(") == top.count(")"):
        return ["\\frac", "{", *top, "}", "{", *bottom, "}"]
    return tokens


def has_slash(tokens: list[str]) -> bool:
    return any(tokens[i] == "/" for i in top_level(tokens))


def number_in_front(body: list[str]) -> tuple[Fraction | None, list[str]]:
    """The 1/2 of (1/2)x, and x; None if there is none, or if only numbers are multiplied."""
    end = brackets(body).get(0, 0) if body[:1] == ["("] else 0
    number = number_of(body[1:end]) if end else None
    rest = body[end + 1 :]
    if rest[:1] == ["*"]:
        rest = rest[1:]
    is_unclear = rest and (rest[0] in ("^", "_", "!", "/", "'") or not any(map(is_letter, rest)))
    return (None, body) if number is None or is_unclear else (number, rest)


def before_fraction(body: list[str]) -> list[str]:
    r"""What stands in front of the first \frac outside of all brackets; nothing if it is unclear.

    It is in 2\frac12, which is a mixed number, and in 1/2\frac{x}{y}.
    """
    fractions = [i for i in top_level(body) if body[i] == "\\frac"]
    front = body[: fractions[0]] if fractions else []
    if not front or has_slash(body):
        return []
    if front[-1] == "*":
        return front[:-1]
    return [] if is_number(front[-1]) or front[-1] in ("^", "_", "\\sqrt") else front
