r"""Answers of equal meaning in another form, and beside them those that only look like it."""

import pytest

from data.grader import grade

RIGHT, WRONG = True, False

# (content of the box, reference answer, verdict), for kind = math
FORMS = [
    # spelling
    ("7\\ ", "7", RIGHT),
    ("\\ 7\\,", "7", RIGHT),
    ("7,", "7", RIGHT),
    ("2, 4, \\ldots, 2n", "2, 4, \\dots, 2n", RIGHT),
    ("2, 4, ..., 2n", "2, 4, \\cdots, 2n", RIGHT),
    ("2, 4, \\ldots, 2m", "2, 4, \\dots, 2n", WRONG),
    ("\\dbinom{n}{3}", "\\tbinom n3", RIGHT),
    ("\\dbinom{n}{2}", "\\binom{n}{3}", WRONG),
    # relations from either side
    ("7 \\le t", "t \\geq 7", RIGHT),
    ("7 > t", "t < 7", RIGHT),
    ("9 \\ge t > 7", "7 < t \\le 9", RIGHT),
    ("7 = t", "t = 7", RIGHT),
    ("25 = u^2 + v^2", "v^2 + u^2 = 25", RIGHT),
    ("7 \\le t", "t \\le 7", WRONG),
    ("7 < t", "t \\ge 7", WRONG),
    ("7 = s", "t = 7", WRONG),
    # unions, sets and alternatives
    ("(3, 4) \\cup (-\\infty, 1]", "(-\\infty, 1] \\cup (3, 4)", RIGHT),
    ("(3, 4) \\cup (-\\infty, 1)", "(-\\infty, 1] \\cup (3, 4)", WRONG),
    ("(3, 4) \\cup (3, 4)", "(3, 4) \\cup (4, 5)", WRONG),
    ("t = 3 \\text{ or } t = -8", "-8, 3", RIGHT),
    ("t = 3 \\text{ or } t = -8", "t = -8 \\text{ or } t = 3", RIGHT),
    ("t = 3 \\text{ or } -8", "\\{-8, 3\\}", RIGHT),
    ("3, 5, \\text{ or } 8", "8, 5, 3", RIGHT),
    ("\\text{either } 3 \\text{ or } 5", "3, 5", RIGHT),
    ("3 \\lor 5", "5, 3", RIGHT),
    ("\\{5, 3\\}", "3, 5", RIGHT),
    ("3, 5", "\\{5, 3\\}", RIGHT),
    ("t = 5 \\text{ or } t = -5", "\\pm 5", RIGHT),
    ("t < 3 \\text{ or } t > 5", "t > 5 \\text{ or } 3 > t", RIGHT),
    ("\\frac52 \\text{ or } 2.5", "2.5", RIGHT),
    ("t = 3 \\text{ or } t = -8", "3", WRONG),
    ("t = 3 \\text{ or } t = -8", "-8", WRONG),
    ("3, 5 \\text{ or } 8", "3, 5", WRONG),
    ("3 \\text{ or } 5", "3, 5, 5", WRONG),
    ("3, 5 \\text{ or } 5, 3", "3, 5", WRONG),
    ("s = 3 \\text{ or } t = -8", "3, -8", WRONG),
    ("\\{3, 5\\}", "(3, 5)", WRONG),
    ("\\{3, 5\\}", "3", WRONG),
    # order in a product, coefficients
    ("7ba", "7ab", RIGHT),
    ("zyx", "xyz", RIGHT),
    ("7v^2u", "7uv^2", RIGHT),
    ("\\beta\\alpha", "\\alpha\\beta", RIGHT),
    ("\\frac{hb}{2}", "\\frac{1}{2}bh", RIGHT),
    ("0.25y", "\\frac{y}{4}", RIGHT),
    ("\\frac{1}{4}y", "y/4", RIGHT),
    ("\\frac{3}{6y}", "\\frac{1}{2y}", RIGHT),
    ("\\frac{y}{\\sqrt{2}}", "\\frac{\\sqrt{2}}{2}y", RIGHT),
    ("2\\sqrt{2}\\,y\\sqrt{2}", "4y", RIGHT),
    ("7u^2v", "7uv^2", WRONG),
    ("CBA", "ABC", WRONG),
    ("\\text{no}", "\\text{on}", WRONG),
    ("f(y)u", "f(u)y", WRONG),
    ("\\sin y \\cdot 2", "\\sin y2", WRONG),
    ("0.25y", "\\frac{y}{5}", WRONG),
    ("\\frac{1}{4y}", "\\frac{y}{4}", WRONG),
    ("5\\frac{0}{1}", "5 \\cdot \\frac{0}{1}", WRONG),
    ("7 xyz", "7", WRONG),
    ("y(012+\\sqrt{2})", "y", WRONG),  # of 012 there is no value
    # nothing is multiplied out or added up
    ("(y+3)^2", "y^2+6y+9", WRONG),
    ("2(y+3)", "2y+6", WRONG),
    ("y+y", "2y", WRONG),
    # qualifiers
    ("f(y) = 4y + 1 \\text{ for all real } y", "f(y) = 4y+1", RIGHT),
    ("4y + 1 \\text{ for every real number } y", "4y+1", RIGHT),
    ("k\\pi, \\text{ where } k \\text{ is an integer}", "k\\pi", RIGHT),
    ("k\\pi", "k\\pi \\text{ where } k \\text{ is an integer}", RIGHT),
    ("4y + 1 \\text{ for } y > 2", "4y+1", WRONG),
    ("4y + 1 \\text{ for all } y \\ne 2", "4y+1", WRONG),
    ("4y \\text{ where } y \\text{ is not real}", "4y", WRONG),
    ("4y \\text{ for all real } y", "4y \\text{ for all integers } y", WRONG),
    # computations with their result, words
    ("80 - 16 = 64", "64", RIGHT),
    ("t = 80 - 16 = 64", "t = 64", RIGHT),
    ("\\sqrt{9 + 16} = 5", "5", RIGHT),
    ("80 - 17 = 64", "64", WRONG),
    ("64 = 65", "65", WRONG),
    ("s = 80 - 16 = 64", "t = 64", WRONG),
    ("64 = 80 - 16", "80", WRONG),
    ("64 \\text{ (sixty-four)}", "64", RIGHT),
    ("64 \\text{ (cm)}", "64 \\text{ cm}", RIGHT),
    ("\\text{Day } 7", "7", RIGHT),
    ("\\text{Rs. } 750", "750", RIGHT),
    ("2.5 \\text{ million}", "2{,}500{,}000", RIGHT),
    ("64 \\text{ (sixty)}", "64", WRONG),
    ("64 \\text{ (meters)}", "64 \\text{ cm}", WRONG),
    ("101 \\text{ (binary)}", "101", WRONG),
    ("5 \\text{ (mod seven)}", "5", WRONG),
    ("8 (8)", "8", WRONG),
    ("8 (4+4)", "8", WRONG),
]


@pytest.mark.parametrize("content, answer, verdict", FORMS)
def test_forms(content, answer, verdict):
    assert grade(f"Hence it is $\\boxed{{{content}}}$.", answer) is verdict
