r"""What the paper's code did, with its quirks: its grading rule and its few-shot prompt.

    authors_grade(r"\boxed{1,000}", "1000", "math")      -> False    no number is compared as one
    authors_grade(r"\boxed{5\text{ or }6}", "5", "math")  -> True    a hedge is cut off like a unit

Kept to measure what a grader is worth: data/grader.py calls authors_grade for rule="authors" and
judges everything else by rules of its own.
"""

import re
from fractions import Fraction

from data.latex_tokens import MAX_DIGITS
from data.problem import INSTRUCTION, Problem

BOX = re.compile(  # one level of braces inside, so not \frac{\sqrt{3}}{2}
    r"\\boxed\{ ( [^{}]* (?: \{[^{}]*\} [^{}]* )* ) \}", re.VERBOSE
)
NUMBER = re.compile(r"-?\d+\.?\d*")
TOLERANCE = Fraction(1, 10_000)  # relative, and
LEAST_TOLERANCE = Fraction(1, 10**8)  # absolute, both added up


# --- grading --------------------------------------------------------------------------------------


def authors_grade(response: str, answer: str, kind: str) -> bool:
    """Is the response right by the authors' rule for this kind of answer?

    For gsm8k that is their "flexible" evaluation, which compares the first numbers; else it is
    their reward, which compares strings.
    """
    if kind == "gsm8k":
        return flexible_match(response, answer)
    return string_match(response, answer)


def string_match(response: str, answer: str) -> bool:
    """Equal after the first or after the second normalisation; "1,000" is not "1000"."""
    boxed = BOX.findall(response)
    found = boxed[-1].strip() if boxed else ""
    if max(found.count("\\text{ "), answer.count("\\text{ ")) > 1:  # their code gives up here
        return found == answer
    if not found:
        return False
    found = first_normalization(found)
    answer = first_normalization(answer)
    return found == answer or second_normalization(found) == second_normalization(answer)


def flexible_match(response: str, answer: str) -> bool:
    """Equal as strings, or in their first numbers, within a tolerance."""
    found = second_normalization(flexible_answer(response))
    answer = second_normalization(answer)
    if not found:
        return False
    if found == answer:
        return True
    number = first_number(found)
    reference = first_number(answer)
    if number is None or reference is None:
        return False
    return abs(number - reference) <= abs(reference) * TOLERANCE + LEAST_TOLERANCE


def flexible_answer(response: str) -> str:
    """What follows the first ####, else the last box, else the last number."""
    line = re.search(r"####\s*(.+)", response)
    if line:
        return line[1]
    boxed = BOX.findall(response)
    if boxed and boxed[-1].strip():
        return boxed[-1]
    numbers = NUMBER.findall(response)
    return numbers[-1] if numbers else ""


def first_number(text: str) -> Fraction | None:
    m = NUMBER.search(re.sub("[,$%]", "", text))
    return Fraction(m[0]) if m and len(m[0]) <= MAX_DIGITS else None


def first_normalization(text: str) -> str:
    r"""That of Hendrycks et al. (MATH): spelling only.

    Quirks: a bare % stays, and \sqrt 3 becomes \sqrt{}3.
    """
    text = text.replace("\\\\", "\\")
    text = re.sub("[td]frac", "frac", text)
    text = re.sub(r"\n|\\!|\\left|\\right|\^\{\\circ\}|\^\\circ|\\\$", "", text)
    text = text.split("\\text{ ")[0]  # drops units, and hedges: "5\text{ or }6" is 5
    text = text.replace("\\%", "")
    text = re.sub(r"(^|[ {])\.", r"\g<1>0.", text)  # .5 is 0.5
    if text.count("=") == 1:
        name, value = text.split("=")
        if len(name) <= 2:
            text = value
    text = re.sub(r"\\sqrt([^{])", r"\\sqrt{\1}", text)
    text = text.replace(" ", "")
    text = re.sub(r"\\frac([^{])(.)", frac_with_braces, text)
    if text == "0.5":
        text = "\\frac{1}{2}"
    return re.sub(r"^(0|-?[1-9][0-9]*)/(0|-?[1-9][0-9]*)$", r"\\frac{\1}{\2}", text)


def frac_with_braces(m: re.Match) -> str:
    r"""\frac12 and \frac1{2} as \frac{1}{2}."""
    top = m[1]
    bottom = m[2] if m[2] == "{" else f"{{{m[2]}}}"
    return f"\\frac{{{top}}}{bottom}"


def second_normalization(text: str) -> str:
    """Unwrap text and fonts, drop spacing and dollars, lower case, no final full stops."""
    text = " ".join(text.split())
    text = re.sub(r"\\(?:text|mathrm|mathbf)\{([^}]{1,300})\}", r"\1", text)
    text = text.replace("\\%", "%")
    text = re.sub(r"\\[,:;!]|\\?\$", "", text)
    return text.lower().rstrip(".").strip()


# --- prompts --------------------------------------------------------------------------------------


def authors_few_shot_text(problem: Problem, shots: list[Problem]) -> str:
    """The prompt by which the authors asked base checkpoints: "Question: ... Answer: ...".

    Every set gets shots from GSM8K. Their answers, and the instruction, ask for "####" where the
    problem is of kind gsm8k, else for a box. The shots keep GSM8K's calculator marks if they were
    loaded with marks=True.
    """
    with_hashes = problem.kind == "gsm8k"
    instruction = INSTRUCTION
    if with_hashes:
        instruction = INSTRUCTION.replace("within \\boxed{}", 'after "####"')
    text = ""
    for shot in shots:
        solution = shot.solutions[0]
        if with_hashes:
            solution = re.sub(r"\n\\boxed\{(.*)\}$", r"\n#### \1", solution)
        text += f"Question: {shot.question}\nAnswer: {solution}\n"
    return text + f"Question: {problem.question}\nAnswer: {instruction}\n"
