r"""Factors in one spelling: x^{1/2} is \sqrt{x}, x^{-1} stands below, 1 - x is -(x - 1).

latex_terms.py reads an expression as a sum of products, and asks here for what a factor may look
like. All of it keeps the value and is a matter of writing; nothing is multiplied out.
"""

from fractions import Fraction

from data.exact import MAX_ROOT, is_number
from data.latex_tokens import brackets, encloses, top_level
from data.latex_tokens import number as number_of

GREEK = set(
    r"\alpha \beta \gamma \delta \epsilon \zeta \eta \theta \kappa \lambda \mu \nu \xi \rho "
    r"\sigma \tau \phi \chi \psi \omega".split()
)
NAMES = {"f", "g", "h"}  # of functions: f^{-1} is not 1/f
ELEMENTARY = set(
    r"\sin \cos \tan \cot \sec \csc \sinh \cosh \tanh \arcsin \arccos \arctan \ln \log".split()
)


def is_letter(head: str) -> bool:
    return head in GREEK or len(head) == 1 and head.isascii() and head.islower()


def factors_of(tokens: list[str]) -> list[list[str]]:
    r"""The tokens of each factor: 2x^{n}\sqrt{3} has the factors 2, x^{n} and \sqrt{3}."""
    closing = brackets(tokens)
    factors = []
    waits = False  # for an exponent, an index or an argument
    i = 0
    while i < len(tokens):
        token = tokens[i]
        end = closing.get(i, i)
        part = tokens[i : end + 1]
        if factors and (waits or token in ("^", "_", "!", "'")):
            factors[-1] += part
        else:
            factors.append(part)
        is_index = waits and token == "["  # the 3 of \sqrt[3]
        waits = token in ("^", "_", "\\sqrt", "\\overline", "\\abs") or is_index
        i = end + 1
    return factors


def with_times(tokens: list[str]) -> list[str]:
    r"""2\frac{a}{b} as 2 * \frac{a}{b}; 2\frac12 stays, a mixed number."""
    closing = brackets(tokens)
    found = []
    for i, token in enumerate(tokens):
        if token == "\\frac" and i > 0 and is_number(tokens[i - 1]):
            top_end = closing.get(i + 1, i)
            end = closing.get(top_end + 1, i)
            parts = [tokens[i - 1], *tokens[i + 2 : top_end], *tokens[top_end + 2 : end]]
            is_mixed = len(parts) == 3 and all(part.isdigit() for part in parts)
            if end > i and not is_mixed:
                found.append("*")
        found.append(token)
    return found


def with_bars(tokens: list[str]) -> list[str]:
    r"""|x - 3| as \abs { x - 3 }, if the bars are no part of a set."""
    bars = [i for i, token in enumerate(tokens) if token == "|"]
    if not bars or len(bars) % 2 or "\\{" in tokens:
        return tokens
    for start, end in zip(bars[::2], bars[1::2]):
        if not encloses(["(", *tokens[start + 1 : end], ")"]) or end == start + 1:
            return tokens
    found = []
    for i, token in enumerate(tokens):
        if token != "|":
            found.append(token)
        else:
            found += ["\\abs", "{"] if i in bars[::2] else ["}"]
    return found


def without_brackets(factors: list[list[str]]) -> list[list[str]]:
    """3(x)(y^2) as 3xy^2, (2)^{n} as 2^{n}: brackets that hold letters or one number."""
    found = []
    before = "1"
    for factor in factors:
        inner = factors_of(factor[1:-1]) if factor[0] == "(" and encloses(factor) else []
        if inner and is_multiplied(before) and all(is_letter(part[0]) for part in inner):
            found += inner
        elif is_multiplied(before) and is_power_of_one(factor):
            found.append([factor[1], *factor[3:]])
        else:
            found.append(factor)
        before = factor[0]
    return found


def is_multiplied(before: str) -> bool:
    """Is what stands behind it, in brackets, a factor and no argument? Not so in f(x)."""
    return is_number(before) or before in ("(", "*")


def is_power_of_one(factor: list[str]) -> bool:
    """(2)^{n} and (x)^{2}: a power of one number or letter, in brackets."""
    in_brackets = factor[0] == "(" and factor[2:4] == [")", "^"]
    return in_brackets and (is_number(factor[1]) or is_letter(factor[1]))


# --- powers ---------------------------------------------------------------------------------------


def split_power(factor: list[str]) -> tuple[list[str], list[str]] | None:
    """x^{2n} as x and 2n; None for what is no power of a letter, a number or a bracket."""
    head = factor[0]
    if not (is_letter(head) or is_number(head) or head == "("):
        return None
    powers = [i for i in top_level(factor) if factor[i] == "^"]
    if not powers or brackets(factor).get(powers[0] + 1) != len(factor) - 1:
        return None  # the brace behind the ^ has to close at the end
    return factor[: powers[0]], factor[powers[0] + 2 : -1]


def below(factor: list[str]) -> list[str] | None:
    r"""What stands below the line: x for x^{-1}, e^{2x} for e^{-2x}; None for other factors."""
    power = split_power(factor)
    if power is None or power[1][:1] != ["-"] or factor[0] in NAMES:
        return None
    base, exponent = power
    exponent = exponent[1:]
    if any(exponent[i] in ("+", "-") for i in top_level(exponent)):
        return None  # e^{-x+1} is e^{1-x}, and stays above
    if not exponent or encloses(exponent) or is_number(base[0]) and number_of(exponent):
        return None  # e^{-(x-1)} is e^{1-x}; 2^{-3} is a number
    return base if exponent == ["1"] else [*base, "^", "{", *exponent, "}"]


def as_root(factor: list[str]) -> list[str]:
    r"""x^{1/2} as \sqrt{x}, (x+1)^{2/3} as \sqrt[3]{(x+1)^2}; other factors as they are."""
    power = split_power(factor)
    exponent = number_of(power[1]) if power else None
    if exponent is None or exponent <= 0 or not 2 <= exponent.denominator <= MAX_ROOT:
        return factor
    base = power[0]
    if exponent.numerator > 1:  # x^{2/3} is \sqrt[3]{x^2}
        base = [*base, "^", "{", str(exponent.numerator), "}"]
    if base[0] == "(" and encloses(base):
        base = base[1:-1]
    # exact.py has the roots of constants; those of negative ones mean different things to people.
    if base[:1] == ["-"] or not any(is_letter(token) for token in base):
        return factor
    index = ["[", str(exponent.denominator), "]"] if exponent.denominator > 2 else []
    return ["\\sqrt", *index, "{", *base, "}"]


# --- signs ----------------------------------------------------------------------------------------


def with_sign(form: tuple) -> tuple[int, tuple]:
    """A sum in brackets with the sign of its first term taken out: 1 - x is -1 and (x - 1).

    `form` is a factor as latex_terms.py has it: ("(", sides, ")") and perhaps a power.
    """
    side = only_side(form[0])
    exponent = 1 if len(form) == 1 else whole_exponent(form[1:])
    if side is None or exponent is None:
        return 1, form
    first = min(side, key=lambda term: repr(term[1:]))
    if not is_negative(first[0]):
        return 1, form
    turned = ("(", (scaled(side, -1),), ")")
    return (-1 if exponent % 2 else 1), (turned, *form[1:])


def only_side(group) -> tuple | None:
    """The terms of a sum in round brackets, if that is all there is in them."""
    if not isinstance(group, tuple) or len(group) != 3 or group[0] != "(":
        return None
    sides = group[1]
    if len(sides) != 1 or not isinstance(sides[0], tuple) or len(sides[0]) < 2:
        return None
    is_read = all(len(term) == 3 and not isinstance(term[0], str) for term in sides[0])
    return sides[0] if is_read else None


def whole_exponent(parts: tuple) -> int | None:
    """The 2 of ("^", a brace with 2 in it)."""
    if len(parts) != 2 or parts[0] != "^" or not isinstance(parts[1], tuple):
        return None
    sides = parts[1][1]
    if len(sides) != 1 or not isinstance(sides[0], tuple) or len(sides[0]) != 1:
        return None
    number, *rest = sides[0][0]
    if not isinstance(number, Fraction) or rest != [(), ()] or number.denominator != 1:
        return None
    return int(number)


def is_negative(number) -> bool:
    r"""Of a fraction, or of the first part of one such as 1 + \sqrt2."""
    return (number[0][1] if isinstance(number, tuple) else number) < 0


def scaled(side: tuple, factor: int | Fraction) -> tuple:
    """The terms of a sum, each times the factor."""
    terms = []
    for number, over, under in side:
        if isinstance(number, tuple):
            number = tuple((product, part * factor) for product, part in number)
        else:
            number = number * factor
        terms.append((number, over, under))
    return tuple(sorted(terms, key=repr))


# --- functions ------------------------------------------------------------------------------------


def applied_functions(factors: list[list[str]]) -> tuple[list, list] | None:
    r"""2\sin x\cos y as what stands in front, 2, and each function with its argument.

    None if there are fewer than two, or if it is unclear where an argument ends.
    """
    starts = [i for i, factor in enumerate(factors) if factor[0] in ELEMENTARY]
    if len(starts) < 2:
        return None
    applied = []
    for start, end in zip(starts, [*starts[1:], len(factors)]):
        if not is_clear_argument(factors[start + 1 : end]):
            return None
        applied.append(factors[start:end])
    return factors[: starts[0]], applied


def is_clear_argument(factors: list[list[str]]) -> bool:
    """One bracket, or letters with perhaps a number in front: of sin (x+1) and sin 2x."""
    heads = [factor[0] for factor in factors]
    if heads == ["("]:
        return encloses(factors[0])
    letters = heads[1:] if heads and is_number(heads[0]) else heads
    is_capital = [len(head) == 1 and "A" <= head <= "Z" for head in letters]
    return bool(heads) and all(map(is_letter, letters)) or is_capital == [True]
