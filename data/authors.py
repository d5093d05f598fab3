r"""The rule of the paper's code, string against string, with its quirks: kept to measure what a grader is worth.

    authors_grade(r"\boxed{1,000}", "1000", "math")      -> False    nothing is compared as a number
    authors_grade(r"\boxed{5\text{ or }6}", "5", "math")  -> True     what follows a unit's beginning is cut off

data/grader.py calls it for rule="authors"; everything else is judged by the rules there.
"""

import re
from fractions import Fraction

MAX_DIGITS = 100  # in a number that is compared as one: int() of huge strings is quadratic
BOX = re.compile(r"\\boxed\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}")  # one level of braces inside: not \frac{\sqrt{3}}{2}
NUMBER = re.compile(r"-?\d+\.?\d*")


def authors_grade(response: str, answer: str, kind: str) -> bool:
    """As the authors' reward (math: string against string) and "flexible" GSM8K evaluation (gsm8k: also first numbers)."""
    boxed = BOX.findall(response)
    if kind != "gsm8k":  # equal after the first or after the second normalisation; "1,000" is not "1000"
        found = boxed[-1].strip() if boxed else ""
        if max(found.count("\\text{ "), answer.count("\\text{ ")) > 1:  # their code gives up on two units
            return found == answer
        one, two = normal(found), normal(answer)
        return bool(found) and (one == two or second(one) == second(two))
    line, numbers = re.search(r"####\s*(.+)", response), NUMBER.findall(response)
    found = line[1] if line else boxed[-1] if boxed and boxed[-1].strip() else numbers[-1] if numbers else ""
    one, two = second(found), second(answer)
    left, right = first_number(one), first_number(two)
    close = left is not None and right is not None and abs(left - right) <= abs(right) / 10_000 + Fraction(1, 10**8)
    return bool(one) and (one == two or close)


def first_number(text: str) -> Fraction | None:
    m = NUMBER.search(re.sub("[,$%]", "", text))
    return Fraction(m[0]) if m and len(m[0]) <= MAX_DIGITS else None


def normal(text: str) -> str:
    r"""Normalisation of Hendrycks et al. (MATH): spelling only. Quirks: a bare % stays, and \sqrt 3 becomes \sqrt{}3."""
    text = re.sub(r"\n|\\!|\\left|\\right|\^\{\\circ\}|\^\\circ|\\\$", "", re.sub("[td]frac", "frac", text.replace("\\\\", "\\")))
    text = text.split("\\text{ ")[0].replace("\\%", "")  # drops units, and hedges: "5\text{ or }6" is 5
    text = re.sub(r"(^|[ {])\.", r"\g<1>0.", text)
    if text.count("=") == 1 and len(text.split("=")[0]) <= 2:
        text = text.split("=")[1]
    text = re.sub(r"\\sqrt([^{])", r"\\sqrt{\1}", text).replace(" ", "")
    text = re.sub(r"\\frac([^{])(.)", lambda m: f"\\frac{{{m[1]}}}" + (m[2] if m[2] == "{" else f"{{{m[2]}}}"), text)
    text = "\\frac{1}{2}" if text == "0.5" else text
    return re.sub(r"^(0|-?[1-9][0-9]*)/(0|-?[1-9][0-9]*)$", r"\\frac{\1}{\2}", text)


def second(text: str) -> str:
    """Unwrap text and fonts, drop spacing and dollars, lower case, no final full stops."""
    text = re.sub(r"\\(?:text|mathrm|mathbf)\{([^}]{1,300})\}", r"\1", " ".join(text.split())).replace("\\%", "%")
    return re.sub(r"\\[,:;!]|\\?\$", "", text).lower().rstrip(".").strip()
