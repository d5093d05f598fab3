r"""Constants are equal exactly if their values are, however they are written.

The values are computed here by decimal arithmetic with 60 digits, from the drawn numbers and not
from the LaTeX, so nothing of data/exact.py is used.
"""

import random
from decimal import Decimal, localcontext
from fractions import Fraction

import pytest

from data.exact import computed, constant
from data.grader import grade
from data.latex_tokens import tokenize

RIGHT, WRONG = True, False

CONSTANTS = [
    ("\\sqrt{45}", "3\\sqrt5", RIGHT),
    ("\\frac{1}{\\sqrt3}", "\\frac{\\sqrt3}{3}", RIGHT),
    ("3(2+\\sqrt7)", "6+3\\sqrt7", RIGHT),
    ("(2+\\sqrt7)^2", "11+4\\sqrt7", RIGHT),
    ("\\frac{1}{3-\\sqrt8}", "3+2\\sqrt2", RIGHT),
    ("\\frac{4}{1+\\sqrt2+\\sqrt3}", "2+\\sqrt2-\\sqrt6", RIGHT),
    ("\\sqrt6 \\cdot \\sqrt{10}", "2\\sqrt{15}", RIGHT),
    ("\\sqrt[3]{54}", "3\\sqrt[3]{2}", RIGHT),
    ("\\sqrt{\\frac{3}{8}}", "\\frac{\\sqrt6}{4}", RIGHT),
    ("\\sqrt{2\\sqrt2}", "\\sqrt[4]{8}", RIGHT),
    ("\\frac{\\pi\\sqrt{18}}{6}", "\\frac{\\pi}{\\sqrt2}", RIGHT),
    ("\\sqrt{-12}", "2i\\sqrt3", RIGHT),
    ("\\frac{1}{2-i}", "\\frac{2+i}{5}", RIGHT),
    ("2^{12}", "4096", RIGHT),
    ("3 \\cdot 2^{12}", "12288", RIGHT),
    ("6!", "720", RIGHT),
    ("\\frac{6!}{3!}", "120", RIGHT),
    ("\\binom{9}{2}", "36", RIGHT),
    ("\\sqrt{144}", "12", RIGHT),
    ("27^{1/3}", "3", RIGHT),
    ("2^{-3}", "\\frac18", RIGHT),
    ("y = \\frac{4}{\\sqrt2}", "2\\sqrt2", RIGHT),
    ("\\left(\\sqrt{12}, 2^3\\right)", "(2\\sqrt3, 8)", RIGHT),
    ("\\{\\sqrt{8}, \\sqrt{18}\\}", "\\{3\\sqrt2, 2\\sqrt2\\}", RIGHT),
    ("\\pm\\sqrt{12}", "\\pm2\\sqrt3", RIGHT),
    ("[\\sqrt8, 4!)", "[2\\sqrt2, 24)", RIGHT),
    # wrong
    ("\\sqrt{46}", "3\\sqrt5", WRONG),
    ("\\frac{1}{\\sqrt3}", "\\frac{\\sqrt3}{2}", WRONG),
    ("\\frac{1}{3+\\sqrt8}", "3+2\\sqrt2", WRONG),
    ("2^{12}", "4097", WRONG),
    ("6!", "721", WRONG),
    ("\\sqrt{144}", "-12", WRONG),
    ("1.4142135623730950488", "\\sqrt2", WRONG),
    ("\\frac{665857}{470832}", "\\sqrt2", WRONG),
    ("3\\sqrt5", "35", WRONG),
    # left open, or unclear
    ("80 - 16", "64", WRONG),
    ("8 \\cdot 8", "64", WRONG),
    ("\\frac12 + \\frac13", "\\frac56", WRONG),
    ("2!", "2", WRONG),
    ("1^2", "1", WRONG),
    ("1/2\\pi", "\\frac{\\pi}{2}", WRONG),
    ("1/2\\pi", "\\frac{1}{2\\pi}", WRONG),
    ("2\\frac{3}{2}", "3", WRONG),
    ("\\sqrt{3}2", "2\\sqrt3", WRONG),
    ("5!!", "15", WRONG),
    ("2^3!", "64", WRONG),
    ("\\sqrt4!", "2", WRONG),
    ("(-8)^{1/3}", "-2", WRONG),
    ("0^0", "1", WRONG),
    ("\\frac{\\sqrt2}{0}", "0", WRONG),
    ("\\frac{1}{\\sqrt{0}}", "0", WRONG),
]


@pytest.mark.parametrize("content, answer, verdict", CONSTANTS)
def test_constants(content, answer, verdict):
    assert grade(f"\\boxed{{{content}}}", answer) is verdict


def test_what_has_a_value():
    assert constant(tokenize("2^{10}")) == 1024
    assert constant(tokenize("9 + 9")) is None and computed(tokenize("9 + 9")) == 18
    assert constant(tokenize("18")) is None and constant(tokenize("x")) is None
    assert computed(tokenize("(\\frac{1}{2} + 0.25) \\cdot 4")) == 3
    assert computed(tokenize("1 8")) is None


# --- random constants -----------------------------------------------------------------------------

RADICANDS = [2, 3, 5, 6, 7, 10]
Terms = dict[int, Fraction]  # {radicand: factor of its root}; the radicand 1 stands for no root


def draw(rng: random.Random, most: int = 3) -> Terms:
    """A random sum of fractions times roots; no factor is 0."""
    radicands = rng.sample([1, *RADICANDS], rng.randrange(1, most + 1))
    drawn = {}
    for radicand in radicands:
        top = rng.choice([-1, 1]) * rng.randrange(1, 10)
        drawn[radicand] = Fraction(top, rng.choice([1, 1, 1, 2, 3, 4]))
    return drawn


def value(constant: Terms) -> Decimal:
    total = Decimal(0)
    for radicand, factor in constant.items():
        total += Decimal(factor.numerator) / factor.denominator * Decimal(radicand).sqrt()
    return total


def written(rng: random.Random, sum_of: Terms) -> str:
    """The sum in one of many spellings, its terms in any order."""
    text = ""
    terms = list(sum_of.items())
    rng.shuffle(terms)
    for radicand, factor in terms:
        sign = "-" if factor < 0 else "+" if text else ""
        text += sign + written_term(rng, radicand, abs(factor))
    return text


def written_term(rng: random.Random, radicand: int, factor: Fraction) -> str:
    top = factor.numerator
    bottom = factor.denominator
    if radicand == 1:
        return str(top) if bottom == 1 else f"\\frac{{{top}}}{{{bottom}}}"
    outside = rng.choice([1, 1, 2, 3])
    if top > 100:  # the root of a number beyond data/exact.py's bound has no value there
        return f"\\frac{{{top}\\sqrt{{{radicand}}}}}{{{bottom}}}"
    root = f"\\sqrt{{{radicand * outside**2}}}"  # which is the root of the radicand, times outside
    bottom *= outside
    spellings = [
        f"\\frac{{{top}{root}}}{{{bottom}}}",
        f"\\dfrac{{{root} \\cdot {top}}}{{{bottom}}}",
        f"\\frac{{{top}}}{{{bottom}}} \\cdot {root}",
        f"\\frac{{{top * radicand * outside**2}}}{{{bottom}{root}}}",
        f"\\frac{{\\sqrt{{{radicand * outside**2 * top**2}}}}}{{{bottom}}}",
        f"{top}{root}/{bottom}",
        f"{top}\\sqrt{{\\frac{{{radicand * outside**2}}}{{{bottom**2}}}}}",
    ]
    if bottom == 1:
        spellings = [f"{top}{root}", f"{top} \\cdot {root}", f"\\sqrt{{{radicand * top**2}}}"]
    return rng.choice(spellings)


def written_with_brackets(rng: random.Random, sum_of: Terms) -> str:
    """The sum divided by a number, and that number times the sum in brackets."""
    number = rng.choice([2, 3, Fraction(1, 2), Fraction(2, 3)])
    inside = {radicand: factor / number for radicand, factor in sum_of.items()}
    front = written_term(rng, 1, Fraction(number))
    return f"{front}\\left({written(rng, inside)}\\right)"


def changed(rng: random.Random, sum_of: Terms) -> Terms:
    """Another sum that looks much the same."""
    radicand = rng.choice(list(sum_of))
    other = dict(sum_of)
    way = rng.randrange(4)
    if way == 0:
        other[radicand] += rng.choice([1, -1, Fraction(1, 2)])
    elif way == 1:
        other[radicand] *= -1
    elif way == 2:
        other[radicand] *= rng.choice([2, 10])
    else:
        free = [n for n in RADICANDS if n not in other]
        other[rng.choice(free)] = other.pop(radicand)
    return {radicand: factor for radicand, factor in other.items() if factor}


def test_random_constants():
    """Two forms of one value are equal, and forms of two values are not."""
    rng = random.Random(7)
    with localcontext() as context:
        context.prec = 60
        for _ in range(1_500):
            gold = draw(rng)
            other = changed(rng, gold)
            forms = [written(rng, gold), written(rng, gold)]
            if len(gold) > 1:
                forms.append(written_with_brackets(rng, gold))
            for found in forms[1:]:
                assert grade(f"\\boxed{{{found}}}", forms[0]), (found, forms[0])
            if other and abs(value(other) - value(gold)) > Decimal(10) ** -30:
                found = written(rng, other)
                assert not grade(f"\\boxed{{{found}}}", forms[0]), (found, forms[0])


def test_random_quotients():
    r"""\frac{a}{b} is c exactly if a is bc, where b and c are sums of roots."""
    rng = random.Random(8)
    with localcontext() as context:
        context.prec = 60
        for _ in range(400):
            b = draw(rng, most=2)
            c = draw(rng, most=2)
            a = product(b, c)
            if not a or abs(value(b)) < Decimal(10) ** -30:
                continue
            assert abs(value(a) / value(b) - value(c)) < Decimal(10) ** -40
            found = f"\\frac{{{written(rng, a)}}}{{{written(rng, b)}}}"
            gold = written(rng, c)
            if is_open(b) and is_open(c):
                continue  # a fraction of plain numbers in several terms is no finished answer
            assert grade(f"\\boxed{{{found}}}", gold), (found, gold)
            other = changed(rng, c)
            if other and abs(value(other) - value(c)) > Decimal(10) ** -30:
                assert not grade(f"\\boxed{{{found}}}", written(rng, other)), (found, other)


def product(a: Terms, b: Terms) -> Terms:
    """The product of two sums; a radicand that has a square in it is made smaller."""
    total: Terms = {}
    for radicand, factor in a.items():
        for other, other_factor in b.items():
            inside = radicand * other
            outside = 1
            for prime in (2, 3, 5, 7):
                while inside % prime**2 == 0:
                    inside //= prime**2
                    outside *= prime
            total[inside] = total.get(inside, Fraction(0)) + factor * other_factor * outside
    return {radicand: factor for radicand, factor in total.items() if factor}


def is_open(constant: Terms) -> bool:
    return set(constant) == {1}


@pytest.mark.parametrize("letters", ["x", "xy", "x^2y", "x(y+1)", "\\frac{x}{y}"])
def test_random_coefficients(letters):
    """A constant in front of letters may have any form; another constant is another answer."""
    rng = random.Random(9)
    for _ in range(60):
        gold = draw(rng, most=1)
        other = changed(rng, gold)
        forms = [f"{written(rng, constant)}{letters}" for constant in (gold, gold, other)]
        clear = [form for form in forms if "/" not in form]  # of 3/2x nobody knows what it is
        if len(clear) < 3 or not other:
            continue
        assert grade(f"\\boxed{{{clear[0]}}}", clear[1]), clear
        assert not grade(f"\\boxed{{{clear[2]}}}", clear[1]), clear


# --- bounds ---------------------------------------------------------------------------------------

HEAVY = [
    "9^{9^{9}}",
    "2^{100000000}",
    "170!",
    "(10!)!",
    "\\binom{100000}{50000}",
    "\\sqrt{" + "9" * 90 + "}",
    "\\sqrt{99999989}\\cdot",
    "\\sqrt{99999989}+",
    "(1+\\sqrt2+\\sqrt3+\\sqrt5)^{8}",
    "(1+\\sqrt2+\\sqrt3+\\sqrt5)^{999}",
    "\\frac{1}{1+\\sqrt2+\\sqrt3+\\sqrt5+\\sqrt7}+",
    "\\frac{1}{",
    "\\sqrt{",
    "2^{",
    "(",
    "x(",
    "40!\\cdot ",
    "3,",
    "1=",
    " \\text{ or } ",
    " for all x",
    ", so",
    " (5)",
    "\\boxed{5}, ",
    "\\boxed 5,",
    "\\boxed",
]


@pytest.mark.parametrize("piece", HEAVY)
def test_work_stays_small(piece):
    """A verdict comes, however large the number and however often the piece is repeated."""
    texts = [piece, "\\sqrt2+" + piece]
    for size in (200, 990, 20_000):
        texts.append(piece * (size // len(piece) + 1))
    for text in texts:
        for response in (f"\\boxed{{{text}}}", f"#### 5{text}", f"\\boxed{{5}}{text}", text):
            for kind in ("math", "gsm8k"):
                assert grade(response, "7919\\sqrt{11}", kind=kind) is False
