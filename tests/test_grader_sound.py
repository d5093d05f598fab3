r"""Random expressions that the grader takes for equal have equal values.

Each is built as LaTeX together with its value at two points; expressions of one spelling
(latex_terms.terms) must agree at both.
"""

import cmath
import random

import pytest

from data.latex_terms import terms
from data.latex_tokens import tokenize

POINTS = [{"x": 1.37, "y": 2.71, "n": 3.13}, {"x": 0.83, "y": 1.91, "n": 2.2}]
POWERS = [("2", 2), ("3", 3), ("-1", -1), ("-2", -2), ("1/2", 0.5), ("\\frac13", 1 / 3)]
POWERS += [("-\\frac12", -0.5), ("0.5", 0.5)]
FUNCTIONS = [("\\sin", cmath.sin), ("\\cos", cmath.cos)]


def expression(draw: random.Random, depth: int):
    """-> (LaTeX, its values at POINTS, is it one factor without brackets?)"""
    if depth == 0:
        if draw.random() < 0.5:
            name = draw.choice("xyn")
            return name, [complex(point[name]) for point in POINTS], True
        number = draw.choice([1, 2, 3, 5])
        return str(number), [complex(number)] * 2, True
    kind = draw.choice(["sum", "difference", "product", "fraction", "power", "root", "functions"])
    a, a_values, a_is_factor = expression(draw, draw.randint(0, depth - 1))
    b, b_values, b_is_factor = expression(draw, draw.randint(0, depth - 1))
    a_factor = a if a_is_factor else f"({a})"
    b_factor = b if b_is_factor and not b.isdigit() else f"({b})"
    pairs = list(zip(a_values, b_values))
    if kind == "sum":
        return f"{a}+{b}", [u + v for u, v in pairs], False
    if kind == "difference":
        text = draw.choice([f"{a}-{b_factor}", f"-({b}-({a}))", f"{a}+-{b_factor}"])
        return text, [u - v for u, v in pairs], False
    if kind == "product":
        return a_factor + b_factor, [u * v for u, v in pairs], False
    if kind == "fraction":
        return f"\\frac{{{a}}}{{{b}}}", [u / v for u, v in pairs], False
    if kind == "root":
        return f"\\sqrt{{{a}}}", [cmath.sqrt(u) for u in a_values], False
    if kind == "power":
        text, power = draw.choice(POWERS)
        return f"{a_factor}^{{{text}}}", [u**power for u in a_values], False
    (f, f_of), (g, g_of) = draw.choice(FUNCTIONS), draw.choice(FUNCTIONS)
    return f"{f}({a}){g}({b})", [f_of(u) * g_of(v) for u, v in pairs], False


@pytest.mark.parametrize("seed", range(3))
def test_what_is_taken_for_equal_has_equal_values(seed):
    draw = random.Random(seed)
    first_of = {}
    n_equal = 0
    for _ in range(10_000):
        try:
            text, values, _ = expression(draw, draw.randint(1, 3))
        except (ZeroDivisionError, OverflowError):
            continue
        spelling = terms(tokenize(text))
        other, others = first_of.setdefault(spelling, (text, values))
        n_equal += other != text
        for u, v in zip(values, others):
            assert abs(u - v) <= 1e-7 * (1 + abs(u)) or abs(u) > 1e9, (text, other)
    assert n_equal > 1_000
