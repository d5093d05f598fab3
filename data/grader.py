r"""The only judge: does a response end in the right answer?  The reward in training and the verdict in evaluation.

    grade(r"So she makes \boxed{1,000} dollars.", "1000")    -> True
    grade("9 * 2 = 18\n#### 18", "18", kind="gsm8k")         -> True
    grade(r"\boxed{18 \text{ or } 20}", "18")                -> False

Three steps: find the last committed answer (`extract`), read it (`read`: a number, pair, interval, set, matrix, text, or
else an expression kept as a string of LaTeX tokens), compare with the reference answer read the same way (`same`).

Which answers count.  math: `\boxed{...}`.  gsm8k: `\boxed{...}`, `#### N`, and the words "the answer is N" or a line "A: N",
since base models often write neither mark.  The last one counts, so a model may correct itself but not hedge; an empty or
unclosed box is no answer, nor is one taken back ("Wait, that is wrong") or followed by "or"; whatever follows a question
the model invents ("Question:", "Q:", "Problem:") is not read.

What is equal.  Numbers are compared as exact fractions, never as floats and without tolerance: 0.5 = 1/2 = \frac12, and
1,000 = 1000, but 0.25 is not 25%.  Everything that is not a number is compared form by form, so "18 or 20" or "[17, 19]"
is right only if the reference answer says the same.  Units are dropped ("18\text{ cm}" = "18") unless both sides name a
different one.  What cannot be read is wrong.

Safe on any string: nothing is evaluated, work is linear in the (bounded) input, recursion and digits are bounded.
The ways in which public graders were fooled (prefixes, commas, tolerance, unicode digits, brackets) are in the tests.
`rule="authors"` is the rule of the paper's code instead (data/authors.py), kept to measure the difference.
"""

import importlib.util
import inspect
import math
import os
import re
from fractions import Fraction
from functools import lru_cache, partial
from numbers import Real
from typing import NamedTuple

from data import UserError
from data.authors import authors_grade

MAX_RESPONSE = 20_000  # characters; of a longer response only the tail is read
MAX_ANSWER = 1_000  # characters; a longer "answer" is not read at all
MAX_DIGITS = 100  # in one number: int() of huge strings is quadratic, and Python refuses 4,300 digits
MAX_EXPONENT = 30  # in 5 \times 10^{3}
MAX_DEPTH = 8  # brackets inside brackets that are read as structure; deeper ones stay strings


def grade(response: str, answer: str, kind: str = "math", rule: str = "ours") -> bool:
    """True if the last committed answer of `response` equals the reference `answer`.

    kind is "gsm8k", "math", or "ordered": as math, but where the answer is a bare list ("5, 4") its order counts.
    """
    assert kind in ("gsm8k", "math", "ordered") and rule in ("ours", "authors"), f"unknown kind {kind!r} or rule {rule!r}"
    if answer in (None, "", "None", "nan"):  # a missing reference answer never pays
        return False
    if rule == "authors":
        return authors_grade(response[-MAX_RESPONSE:], answer, kind)
    found = extract(response, kind)
    gold = read(answer, merge=thousands_in_gold(answer))
    if found is None or gold is None:
        return False
    readings = (True, False) if "," in found else (True,)  # "1,234" is a number or a pair: whichever the reference answer is
    return any(same(gold, read(found, merge), any_order=kind == "math") for merge in readings)


def reward(response: str, answer: str, kind: str = "math", format_score: float = 0.0, rule: str = "ours") -> float:
    """1.0 if right; `format_score` if wrong but with exactly one readable final answer; else 0.0.

    The paper sets format_score to 0.1 (its code in effect paid 0). It is easily farmed, hence "exactly one".
    """
    if grade(response, answer, kind, rule):
        return 1.0
    marked = committed(response, kind, claims=False)
    value = read(marked[0], merge=True) if len(marked) == 1 else None
    if value is None:
        return 0.0
    parts = value.value if value.kind in (",", "()") else [value]  # a pair of numbers is as good as a number
    return format_score if kind != "gsm8k" or all(part.kind == "number" for part in parts) else 0.0


class NotAReward(TypeError):
    """A user's reward function gave no number. In the middle of a run it may be on any rank, so it is not a quiet UserError."""


def load_reward(spec: str, example):
    """`my_reward.py:score` -> that function of (response, problem), each value checked; "" -> None: the grader is the reward.

    It is tried on `example`, a problem, before any work. What it raises is its author's to see: it passes, with the problem named.
    """
    if not spec:
        return None
    path, _, name = spec.rpartition(":")
    if not path.endswith(".py") or not name.isidentifier():
        raise UserError(f"--reward {spec}: write FILE.py:FUNCTION, as in my_reward.py:score")
    if not os.path.isfile(path):
        raise UserError(f"--reward {spec}: {path} is missing")
    module_spec = importlib.util.spec_from_file_location("own_reward", path)
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"--reward {spec}: {path} does not load, {type(error).__name__}: {error}".replace("\n", " ")) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise UserError(f"--reward {spec}: {path} has no function {name}; write def {name}(response, problem) -> float")
    try:
        inspect.signature(function).bind("", example)
    except TypeError:
        raise UserError(f"--reward {spec}: {name}{inspect.signature(function)} must take two arguments, (response, problem)") from None

    def score(response: str, problem) -> float:
        try:
            value = function(response, problem)
        except Exception as error:
            error.add_note(f"in --reward {spec}, on problem {problem.id}: {problem.question}")
            raise
        if not isinstance(value, Real) or not math.isfinite(value):
            raise NotAReward(f"--reward {spec}: {name} gave {value!r} on problem {problem.id}; a reward is one finite number, a float")
        return float(value)

    try:
        score("", example)
    except NotAReward as error:
        raise UserError(str(error)) from None
    return score


def extract(response: str, kind: str = "math") -> str | None:
    """The last committed answer as text, or None. See the top of this file for what counts."""
    answers = committed(response, kind)
    return answers[-1] if answers else None


# ---------------------------------------------------------------- finding answers in a response

# Base models run on into a next question of their own, whose answer may fit by chance.
NEXT_QUESTION = re.compile(
    r"(?m)^[ \t*#>]*(?:(?i:(?:next |new |another )?(?:question|problem|exercise|user|human|instruction)) ?#?[0-9]{0,3}\**(?::|\s?$)"
    r"|(?:Question|Problem|Exercise) [0-9]{1,3}\b)"
    r"|(?<![\w:\\])(?<!and )(?<!, )(?:Question|Problem|Q) ?#?[0-9]{0,3}\**:"  # but not "the line through P and Q: y = x"
)
HASHES = re.compile(r"#{4,}((?:(?!####)[^\n])*)")
CLAIM = re.compile(  # to the end of the sentence: "18. She ..." is 18, but "1.5 miles" stays
    r"(?im)(?:\banswer\** {0,3}(?:is|=|:)|^[ \t]*A:)[ :]{0,3}(?=[-\u2212+$\\(* ]{0,5}[.0-9])"
    r"(?=((?:(?!\.\s|\s(?:because|since)\s)[^\n]){0,200}))"
)
TAKEN_BACK = re.compile(  # "\boxed{18} or 20", "#### 18\nWait, that is wrong"
    r"(?i)\A[^\w\n]*(?:text\{\s*)?or\b|(?:\A|[.!?;\n])\W*(?:(?:but|no|oh|hmm|sorry)\W+)*(?:wait|actually|oops|correction|scratch that)\b"
    r"|\b(?:that|this|it|which|answer|i)(?:'s| is| was| am)? (?:\w+ )?(?:wrong|incorrect|mistaken|not right|not correct)\b"
    r"|\bi made an? (?:\w+ )?(?:mistake|error)\b"
)
EITHER_OR = re.compile(r"(?i)\W*(?:text\{\s*)?or\b\W*(?:boxed\W*)?")  # all that is between two answers


def committed(response: str, kind: str, claims: bool = True) -> list[str]:
    """All non-empty answers in the response, in order; with `claims` also those in plain words (gsm8k only)."""
    text = response[-MAX_RESPONSE:]
    text = text[: question.start()] if (question := NEXT_QUESTION.search(text)) else text
    found = boxes(text)
    if kind == "gsm8k":
        for m in HASHES.finditer(text):  # a heading has no digit; a box or claim in the line is found as such
            if re.search("[0-9]", m[1]) and "\\boxed" not in m[1] and not CLAIM.search(m[1]):
                found.append(m.span(1))
        if claims:
            found += [m.span(1) for m in CLAIM.finditer(text)]
    found = sorted((start, end) for start, end in found if text[start:end].strip())
    if found and TAKEN_BACK.search(text[found[-1][1] + 1 : found[-1][1] + 200]):
        return []
    if len(found) > 1 and EITHER_OR.fullmatch(text[found[-2][1] + 1 : found[-1][0]]):
        return []
    return [text[start:end].strip() for start, end in found]


def boxes(text: str) -> list[tuple[int, int]]:
    r"""Where the content of each closed \boxed{...} starts and ends; of nested ones the outermost."""
    closing, found, end = matching_braces(text), [], 0
    for m in re.finditer(r"\\boxed\s*\{", text):
        opening = m.end() - 1
        if m.start() >= end and opening in closing:
            end = closing[opening]
            found.append((opening + 1, end))
    return found


def matching_braces(text: str) -> dict[int, int]:
    r"""{position of each "{": position of its "}"}, by counting, so that depth costs nothing; \{ and \} do not count."""
    closing, stack = {}, []
    for m in re.finditer(r"(?s)\\.|[{}]", text):
        if m[0] == "{":
            stack.append(m.start())
        elif m[0] == "}" and stack:
            closing[stack.pop()] = m.start()
    return closing


# ---------------------------------------------------------------- reading an answer


class Answer(NamedTuple):
    """One answer, read: "x = 18 cm" is Answer(name="x", unit="cm", kind="number", value=Fraction(18))."""

    name: str | None
    unit: str | None
    kind: str  # "number", "text", "expression", "matrix [2, 2]", "union", "," (bare list), "{}" (set), "+-", "()", "[)", ...
    value: object


def same(gold: Answer, found: Answer | None, any_order: bool = False) -> bool:
    """Equal in form and value. A bare pair may be put in parentheses; "+-" is the set of its two values.

    With any_order a bare list is one of solutions: -2, 1 is 1, -2.
    """
    if found is None:
        return False
    if gold.name and found.name and gold.name != found.name:
        return False
    if gold.unit and found.unit and any(a != b for a, b in zip(gold.unit.split("/"), found.unit.split("/"))):  # km may be km/h
        return False
    kinds = {gold.kind, found.kind}
    if "+-" in kinds and kinds <= {"+-", "{}", ","}:
        return len(gold.value) == len(found.value) and as_set(gold.value) == as_set(found.value)
    if gold.kind != found.kind and (gold.kind, found.kind) != (",", "()"):
        return False
    if isinstance(gold.value, list):
        pairs = any_order and gold.kind == found.kind == "," and several_names(gold.value) == several_names(found.value)
        return len(gold.value) == len(found.value) and (matched(gold.value, found.value) if pairs else all(map(same, gold.value, found.value)))
    if gold.kind == "text" and not (len(gold.value) == 1 and gold.value.islower()):  # x is not X, but c may be C
        return gold.value.lower() == found.value.lower()
    return gold.value == found.value


def several_names(answers: list[Answer]) -> bool:
    """x = 1, y = 2, which says which is which; not 1, 2 or x = 1, 2, which do not."""
    return len({a.name for a in answers if a.name}) > 1


def matched(gold: list[Answer], found: list[Answer]) -> bool:
    """Does each answer of one list have its own in the other?"""
    left = list(found)
    for answer in gold:
        partner = next((i for i, other in enumerate(left) if same(answer, other)), None)
        if partner is None:
            return False
        left.pop(partner)
    return True


def as_set(answers: list[Answer] | frozenset) -> frozenset:
    r"""Answers as a set, without their names and units; 1 \pm \sqrt{5} counts as two."""
    if isinstance(answers, frozenset):
        return answers
    return frozenset().union(*(a.value if a.kind == "+-" else {(a.kind, as_tuple(a.value))} for a in answers))


def as_tuple(value: object) -> object:
    return tuple((a.kind, as_tuple(a.value)) for a in value) if isinstance(value, list) else value


def thousands_in_gold(answer: str) -> bool:
    """Is "1,234" in this reference answer one number? Yes if bare or beside a ", "; in "(1,234)" it is a pair."""
    return not re.search(r"[(\[]|\\\{", answer) or bool(re.search(r",\s", answer))


@lru_cache(maxsize=1024)  # the rollouts of a group repeat their answers
def read(text: str, merge: bool, depth: int = 0) -> Answer | None:
    """Read one answer, None if there is nothing to read; `merge` joins 1,234 to 1234."""
    if len(text) > MAX_ANSWER:
        return None
    if depth == 0:
        text = clean(text)
        if merge:
            text = re.sub(r"(?<![0-9,.])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?!,?[0-9])", lambda m: m[0].replace(",", ""), text)
    text, name = split_name(unwrap(text))
    text, unit = split_unit(unwrap(text))
    text = unwrap(text)
    tokens = tokenize(text)
    if not tokens:
        return None
    answer = partial(Answer, name, unit)
    value = number(tokens)
    if value is not None:
        torn = depth > 0 and re.match("-?0[0-9]", text)  # the 000 of 13,000 is no element of a pair
        return None if torn else answer("number", value)
    if re.fullmatch(r"[A-Za-z][A-Za-z .']*(?:-[A-Za-z]{2}[A-Za-z .']*)*", text):
        return answer("text", " ".join(text.split()))
    if depth == MAX_DEPTH:
        return answer("expression", tuple(tokens))
    matrix = MATRIX.fullmatch(text)
    pieces = split_top(text, ",")
    if matrix and "\\begin" not in matrix[1]:
        rows = [row.split("&") for row in matrix[1].split("\\\\") if row.strip()]
        kind, pieces = f"matrix {[len(row) for row in rows]}", [cell for row in rows for cell in row]
    elif len(split_top(text, "\\cup")) > 1:
        kind, pieces = "union", split_top(text, "\\cup")
    elif len(pieces) > 1:
        kind = ","
    elif tokens[0] == "\\{" and tokens[-1] == "\\}" and encloses(tokens):
        kind, pieces = "{}", split_top(text[2:-2], ",") if text[2:-2].strip() else []
    elif tokens[0] in ("(", "[") and tokens[-1] in (")", "]") and encloses(tokens):
        kind, pieces = text[0] + text[-1], split_top(text[1:-1], ",")
        if kind == "()" and len(pieces) == 1:  # (5) is 5, (C) is C
            inner = read(text[1:-1], merge, depth + 1)
            return inner and inner._replace(name=inner.name or name, unit=inner.unit or unit)
    elif tokens.count("\\pm") == 1:
        signs = [read(re.sub(r"\\pm(?![A-Za-z])", sign, text), merge, depth + 1) for sign in "+-"]
        return None if None in signs else answer("+-", as_set(signs))
    else:
        return answer("expression", terms(tokens))
    values = [read(piece, merge, depth + 1) for piece in pieces]
    if None in values:
        return None
    return answer(kind, as_set(values) if kind == "{}" else values)


MATRIX = re.compile(  # pmatrix, or a matrix or an array in brackets
    r"(?s)[(\[]?\s*\\begin\{(?:(?:[pb]|small)?matrix\}|array\}\s*\{[clr| ]*\})(.*)\\end\{[a-z]+\}\s*[)\]]?"
)


def unwrap(text: str) -> str:
    """Drop blanks, quotes, markdown stars, a final full stop, and braces around the whole."""
    text = text.strip(' \t\r\n"`*')
    if text.endswith(".") and not text.endswith(".."):
        text = text[:-1].rstrip(" *")
    if text.startswith("{") and matching_braces(text).get(0) == len(text) - 1:
        text = text[1:-1].strip()
    return text


OPEN, CLOSE = ("(", "[", "{", "\\{"), (")", "]", "}", "\\}")


def split_top(text: str, separator: str) -> list[str]:
    """Split at the separators that are outside all brackets."""
    pieces, depth, start = [], 0, 0
    for m in re.finditer(r"\\[A-Za-z]+|\\.|[][(){},]", text, re.S):
        depth += (m[0] in OPEN) - (m[0] in CLOSE)
        if m[0] == separator and depth == 0:
            pieces.append(text[start : m.start()])
            start = m.end()
    return pieces + [text[start:]]


def brackets(tokens: list[str]) -> dict[int, int]:
    """{position of each opening bracket: position of its closing one}; the kinds may differ, as in [0,1)."""
    closing, stack = {}, []
    for i, token in enumerate(tokens):
        if token in OPEN:
            stack.append(i)
        elif token in CLOSE and stack:
            closing[stack.pop()] = i
    return closing


def encloses(tokens: list[str]) -> bool:
    """Is the first token a bracket closed by the last one? Not so in (a)(b)."""
    return brackets(tokens).get(0) == len(tokens) - 1


# ---------------------------------------------------------------- LaTeX

CHARACTERS = str.maketrans({
    "\u2212": "-", "\u2013": "-", "\u00a0": " ", "\u2009": "\\,", "\u202f": "\\,", "\u00d7": "\\times ", "\u00b7": "\\cdot ",
    "\u03c0": "\\pi ", "\u221e": "\\infty ", "\u221a": "\\sqrt ", "\u222a": "\\cup ", "\u00b1": "\\pm ", "\u00b0": "\\circ ",
    "\u2264": "\\le ", "\u2265": "\\ge ", "\u2260": "\\ne ", "\u20ac": " ", "\u00a3": " ", "\u00a2": " cents",
    "\u00b2": "^2", "\u00b3": "^3",
})  # fmt: skip
SYNONYMS = {
    "dfrac": "\\frac", "tfrac": "\\frac", "cfrac": "\\frac", "leq": "\\le", "geq": "\\ge", "neq": "\\ne", "lt": "<", "gt": ">",
    "leqslant": "\\le", "geqslant": "\\ge", "bar": "\\overline", "varnothing": "\\emptyset", "degree": "\\circ",
    "colon": ":", "lbrace": "\\{", "rbrace": "\\}", "bigcup": "\\cup", "quad": " ", "qquad": " ", "thinspace": " ",
}  # fmt: skip
DROPPED = "left right big Big bigg Bigg bigl bigr Bigl Bigr displaystyle textstyle limits boxed".split()
FUN = r"\\(?:arc)?(?:sin|cos|tan|cot|sec|csc|log|ln)"
FUNCTION = re.compile(  # \cos(2x) and \log_2(3), where no more can belong to the argument
    rf"({FUN}(?: ?[_^] ?(?:\{{[^{{}}]*\}}|[0-9a-z]))*) ?\(((?:(?!{FUN})[^()+\-=,/])*)\)(?= ?(?:$|[-+=.,)\]}}&]|\\\\|{FUN}))"
)
TEXT = re.compile(
    r"\\(?:text(?:bf|it|rm|normal|sf|tt|up)?|math(?:rm|bf|it|sf)|boldsymbol|bm|mbox|hbox|operatorname|emph|underline)\s*\{([^{}]*)\}"
)


def clean(text: str) -> str:
    """Spell the same thing the same way: spacing, synonyms, currency, text in words, percent and degrees as units."""
    if text.lstrip().startswith("~"):
        return "\\approx" + text  # "~18" is a guess; elsewhere ~ is LaTeX's blank
    text = text.translate(CHARACTERS)
    text = re.sub(r"<<[^<>]*>>", " ", text)  # GSM8K's calculator notes
    text = re.sub(r"(?<=[0-9])(?:\{,\}|,\\!\s*|\\,)(?=[0-9]{3}(?![0-9]))", ",", text)  # 10{,}000, 10,\!000, 10\,000
    text = re.sub(r"^\s*(-?)\s*\\\$\s*([0-9][0-9,]*(?:\.[0-9]+)?)\.?\s*$", r"\1\2 dollars", text)
    text = re.sub(r"\\\\|\\([A-Za-z]+)|\\([^A-Za-z])|~", spell, text, flags=re.S).replace("$", " ")  # a blank: 1$8 is not 18
    text = " ".join(text.split())
    text = TEXT.sub(r" \1 ", TEXT.sub(r" \1 ", text))
    text = text.replace(">=", "\\ge ").replace("<=", "\\le ")
    text = re.sub(r",?\s*\band\b", ", ", text)  # "1, 2, and 3"
    text = re.sub(r"(?i)(?<=[0-9])\s*([ap])\.?m\b\.?", lambda m: f" {m[1].lower()}m", text)  # 3:45 P.M.
    text = re.sub(r"(?<=[\])}])\s*U\s*(?=[\[({\\])", "\\\\cup ", text)
    text = re.sub(r"\^\s*\{\s*\\circ\s*\}|\^?\s*\\circ(?=[CF]?(?![A-Za-z]))", " degrees ", text).replace("%", " percent ")
    text = re.sub(r"(?<=degrees )\s*([CF])\b", lambda m: {"C": "Celsius", "F": "Fahrenheit"}[m[1]], text)
    text = re.sub(r"(?<![A-Za-z\\])inf(?:inity)?(?![A-Za-z])", "infty", text)
    text = re.sub(r"(?<![A-Za-z\\])(sqrt|pi|infty)(?![A-Za-z])", r"\\\1", text)
    text = FUNCTION.sub(r"\1 \2", re.sub(r"(\\sqrt|\^)\s*\(([^()]*)\)", r"\1{\2}", text))
    text = re.sub(r"(?i)^\W{0,3}(?:the )?(?:final )?answer(?: is|:| =)", "", text)
    return text.strip().replace("\\emptyset", "\\{\\}")


def spell(m: re.Match) -> str:
    """One LaTeX command in its common spelling."""
    word, sign = m[1], m[2]
    if word:
        return " " if word in DROPPED else SYNONYMS.get(word, m[0])
    if sign == "!":
        return ""
    if m[0] == "~" or sign and sign in ",;: \n()[]":
        return " "
    return sign if sign and sign in "%$&#" else m[0]


NAME = re.compile(  # x, \angle ABC, v_{20}, f(x), f^{-1}(x), (x, y)
    r"[A-Za-z\\ ]+(?:_\{?[A-Za-z0-9]+\}?)?'?(?:\^\{-1\})?(?:\([A-Za-z0-9]+\))?|\([A-Za-z, ]+\)"
)


def split_name(text: str) -> tuple[str, str | None]:
    r""" "x = 5" -> ("5", "x"), "x \in [0,1]" -> ("[0,1]", "x"); a computation before the "=" is not a name.

    Only one-letter names are compared: "x = 5" is not "y = 5", but "\text{Area} = 5" may be "A = 5".
    """
    m = re.fullmatch(r"([^=]{1,40}?)(?:=|\\in(?![A-Za-z]))([^=]*)", text, re.S)
    name = m[1].strip() if m else ""
    words = set(re.findall(r"\\?[a-z]+", name.lower()))
    if NAME.fullmatch(name) and not words & (HEDGES | RELATIONS | {"\\pm", "\\neg", "\\not", "\\sim"}):
        return m[2], name if len(name) == 1 else None
    return text, None


UNITS = {name: group.split()[0] for group in (
    "mm millimeter millimeters", "cm centimeter centimeters", "m meter meters metre metres", "km kilometer kilometers",
    "in inch inches", "ft foot feet", "yd yard yards", "mi mile miles", "mg", "g gram grams", "kg kgs kilogram kilograms",
    "lb lbs pound pounds", "oz ounce ounces", "ml mL", "l L liter liters litre litres", "s sec second seconds",
    "min mins minute minutes", "h hr hrs hour hours", "day days", "week weeks", "month months", "year years",
    "cent cents", "dollar dollars USD usd", "mi/h mph", "km/h kmh kph", "sq", "degree degrees", "radian radians", "percent", "Celsius",
    "Fahrenheit", "gal gallon gallons", "cup cups", "ton tons", "acre acres", "euro euros",
) for name in group.split()}  # fmt: skip
SMALL_WORDS = set("a an of at on by US".split())
HEDGES = set("and or not nor either neither maybe perhaps possibly probably approximately about around roughly".split())
NOT_UNITS = HEDGES | set(  # words that change the value, hedge, or take it back
    "between through until plus minus under above below than least most minimum maximum max beyond upto mod modulo base "
    "remainder point half halves third thirds quarter quarters fourth fourths fifth fifths sixth sixths seventh eighth ninth "
    "tenth tenths hundredth hundredths thousandth thousandths hundred thousand million billion trillion hundreds thousands "
    "millions billions trillions quadrillion mil bil lakh crore tens dozen dozens score grand double triple zero one two three "
    "four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty "
    "thirty forty fifty sixty seventy eighty ninety squared cubed factorial reciprocal inverse divided multiplied root power "
    "negative choose sin cos tan cot sec csc log exp sqrt alpha beta gamma theta phi infinity wrong incorrect false wait "
    "actually but instead except without unless versus something add added when where such with ish nope guess unsure itself".split()
)


def is_unit(word: str) -> bool:
    """May this word follow a number without changing it? "cm", "dollars", "km/h", "apples"; not "x", "or", "million", "pm"."""
    def part(w):
        return w.isascii() and w.isalpha() and (w in UNITS or w in SMALL_WORDS or len(w) > 2 and w.lower() not in NOT_UNITS)
    return all(part(w) for w in word.rstrip(".").split("/"))


def split_unit(text: str) -> tuple[str, str | None]:
    r""" "18 square cm" -> ("18", "cm2"), "60 mph" -> ("60", "mi/h"), "8\pi apples" -> ("8\pi", None): unknown, so not compared."""
    m = re.search(r"([A-Za-z])\s*\^\s*\{?\s*([23])\s*\}?$", text)
    power, body = (m[2], text[: m.end(1)]) if m else ("", text)
    body = re.sub(r"(?<=[A-Za-z])\s*/\s*(?=[A-Za-z])", "/", body)  # m / s
    body = re.sub(r"([0-9)}]) *(/?) *([A-Za-z]{2,})$", lambda m: f"{m[1]} {m[2] and 'per '}{m[3]}" if m[3] in UNITS else m[0], body)
    words, n = body.split(), 0
    while n < min(len(words) - 1, 6) and is_unit(words[-1 - n]):
        n += 1
    head = " ".join(words[: len(words) - n])
    sentence = re.search(r"(?<![\\A-Za-z])[A-Za-z]{3,}", head)  # "Team 5 wins"
    if n == 0 or sentence or words[-1] in SMALL_WORDS or not re.search(r"[0-9]|\\pi|\\sqrt", head):
        return text, None
    units = [w.rstrip(".") for w in words[len(words) - n :]]
    if units[0] in ("square", "sq", "cubic", "degrees", "US") and len(units) == 2:
        power, units = {"square": "2", "sq": "2", "cubic": "3"}.get(units[0], ""), units[1:]
    parts = [part.strip() for part in f" {' '.join(units)}".replace(" per ", "/").split("/")]
    known = all(part in UNITS or not part for part in parts)
    return head, "/".join(UNITS.get(part, "") for part in parts) + power if known else None


ARGUMENTS = {"\\frac": 2, "\\binom": 2, "\\sqrt": 1, "\\overline": 1, "^": 1, "_": 1}


def tokenize(text: str) -> list[str]:
    r"""LaTeX tokens without blanks; braces around arguments and nowhere else: \frac12 -> \frac { 1 } { 2 }, {x}^2 -> x ^ { 2 }."""
    queue = re.findall(r"\\[A-Za-z]+|\\.|[0-9]+(?:\.[0-9]+)?|\.[0-9]+|\S", text, re.S)[::-1]
    out, owed, kept = [], [0], []  # owed[-1]: arguments still to come at this depth; kept: is this brace an argument's?
    while queue:
        token = queue.pop()
        if token == "{":
            kept.append(owed[-1] > 0)
            owed.append(0)
            out += ["{"] * kept[-1]
        elif token == "}" and kept:
            owed.pop()
            owed[-1] -= kept[-1]
            out += ["}"] * kept.pop()
        elif token == "[" and owed[-1] and out[-1] == "\\sqrt":
            while token != "]" and queue:
                out.append(token)
                token = queue.pop()
            out.append(token)
        elif token in ARGUMENTS:  # \frac\sqrt32 is rare: leave it as it stands
            owed[-1] = ARGUMENTS[token]
            out.append(token)
        elif not owed[-1]:
            out.append(token)
        elif token in ("+", "-") and out[-1] == "^" and queue:  # 10^-3
            out += ["{", token, queue.pop(), "}"]
            owed[-1] = 0
        else:
            if token[0].isdigit() and len(token) > 1 and out[-1] not in ("^", "_", "\\sqrt"):  # \frac12, but x^10
                queue.append(token[1:])
                token = token[0]
            out += ["{", token, "}"]
            owed[-1] -= 1
    return out + ["{"] * len(kept)


# Numbers as they look in blank-separated tokens.
N, SIGN = r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)", r"([+-] )?"
PLAIN = re.compile(SIGN + N)
SLASH = re.compile(SIGN + rf"(?:([1-9][0-9]*) )?{N} / ([+-] )?{N}")
FRAC = re.compile(SIGN + rf"(?:([1-9][0-9]*) )?\\frac {{ ([+-] )?{N} }} {{ ([+-] )?{N} }}")
POWER = re.compile(SIGN + rf"(?:{N} (?:\\times|\\cdot|\*|x) )?10 \^ {{ ([+-] )?([0-9]{{1,2}}) }}")
REPEATING = re.compile(SIGN + r"([0-9]*) ?\.([0-9]*) ?\\overline { ([0-9]+) }")
E = re.compile(SIGN + N + r" [eE] ([+-] )?([0-9]{1,2})")


def number(tokens: list[str]) -> Fraction | None:
    r"""The exact value of a decimal, fraction, mixed number (2 1/2) or small power of ten (5 \times 10^3), else None."""
    if len(tokens) > 20 or any(len(token) > MAX_DIGITS for token in tokens):
        return None
    if tokens[:2] in (["-", "("], ["+", "("]) and encloses(tokens[1:]):
        value = number(tokens[2:-1])
        return value and signed(tokens[0], value)
    text = " ".join(tokens)
    if m := PLAIN.fullmatch(text):
        return signed(m[1], Fraction(m[2]))
    if m := REPEATING.fullmatch(text):
        start, period = Fraction(f"{m[2] or 0}.{m[3] or 0}"), Fraction(int(m[4]), 10 ** len(m[4]) - 1)
        return signed(m[1], start + period / 10 ** len(m[3]))
    if m := SLASH.fullmatch(text):
        sign, whole, top, sign_bottom, bottom = m.groups()
        sign_top = None
    elif m := FRAC.fullmatch(text):
        sign, whole, sign_top, top, sign_bottom, bottom = m.groups()
    elif m := POWER.fullmatch(text) or E.fullmatch(text):
        exponent = int(m[4])
        if exponent > MAX_EXPONENT:
            return None
        return signed(m[1], Fraction(m[2] or 1) * Fraction(10) ** int(signed(m[3], Fraction(exponent))))
    else:
        return None
    if Fraction(bottom) == 0:
        return None
    value = signed(sign_top, signed(sign_bottom, Fraction(top) / Fraction(bottom)))
    if whole:
        if not 0 <= value < 1 or sign_top or sign_bottom:  # 2\frac{3}{2} is no mixed number
            return None
        value += int(whole)
    return signed(sign, value)


def signed(sign: str | None, value: Fraction) -> Fraction:
    return -value if sign and sign.startswith("-") else value


RELATIONS = set(r", & \\ = < > : ; \le \ge \ne \approx \equiv \to \cup \cap \lor \land \vee \wedge \implies \iff".split())


def terms(tokens: list[str], depth: int = 0) -> tuple:
    """An expression as its sorted signed terms, so that 2 + x = x + 2, with nothing moved across an "=", "<" or ","."""
    if depth == MAX_DEPTH or "|" in tokens:
        return tuple(tokens)
    if tokens[:1] == ["("] and encloses(tokens):
        tokens = tokens[1:-1]
    tokens = [{"\\cdot": "*", "\\times": "*"}.get(token, token) for token in tokens]
    tokens = [t for t, after in zip(tokens, tokens[1:] + [""]) if t != "*" or after[:1].isdigit() or after in "+-"]
    sides, level = [[["+"]]], 0
    for token in tokens:
        level += (token in OPEN) - (token in CLOSE)
        if level == 0 and token in RELATIONS:
            sides += [token, [["+"]]]
        elif level == 0 and token in ("+", "-") and sides[-1][-1][-1] not in ("*", "/"):
            sides[-1].append([token])
        else:
            sides[-1][-1].append(token)
    for i in range(0, len(sides), 2):  # no term before a leading sign
        sides[i] = tuple(sorted((term(t, depth) for t in sides[i][sides[i][0] == ["+"] :]), key=repr))
    return tuple(sides)


def term(tokens: list[str], depth: int) -> tuple:
    r"""One signed term with its fraction spelled one way: a/b, \frac{-a}{b} = -\frac{a}{b}, \frac{2}{3}a = \frac{2a}{3}."""
    sign, body = tokens[0], tokens[1:]
    if body.count("/") == 1:
        top, bottom = body[: body.index("/")], body[body.index("/") + 1 :]
        argument = bottom[2:] if bottom[1:2] == ["^"] else bottom[1:] if bottom[:1] == ["\\sqrt"] else bottom
        single = len(bottom) == 1 or encloses(argument)  # x, 2^{9}, \sqrt{2}, (x+1); but in 1/2x the x may be above
        if top and single and top.count("(") == top.count(")"):
            body = ["\\frac", "{", *top, "}", "{", *bottom, "}"]
    if body[:1] != ["\\frac"]:
        return sign, *product(body, depth)
    closing = brackets(body)
    middle = closing.get(1, len(body)) + 1
    if middle not in closing:
        return sign, *body
    end = closing[middle] + 1
    top, bottom, rest = body[2 : middle - 1], body[middle + 1 : end - 1], body[end:]
    if top[:1] == ["-"] and not {"+", "-"} & set(top[1:]):
        sign, top = "-" if sign == "+" else "+", top[1:]
    if len(top) == 1 and top[0].isdigit() and rest and not rest[0].isdigit() and rest[0] not in "^_!" and "/" not in rest:
        top, rest = rest if top == ["1"] else top + rest, []
    return sign, "\\frac", terms(top, depth + 1), terms(bottom, depth + 1), *product(rest, depth)


def product(tokens: list[str], depth: int) -> tuple:
    r"""The factors, each bracket read as a sum; roots, \pi and sums are sorted to the end: i\sqrt{3} = \sqrt{3}i.

    Letters keep their order, since they may be a word. With a function or a second number nothing is moved.
    """
    closing, factors, i = brackets(tokens), [], 0
    while i < len(tokens):
        part, end = tokens[i], closing.get(i, i)
        if end > i:
            part = part, terms(tokens[i + 1 : end], depth + 1), tokens[end]
        if factors and (part in ("^", "_", "!", "'") or factors[-1][-1] in ("^", "_", "\\sqrt") or factors[-1][-1][0] == "["):
            factors[-1] += (part,)
        else:
            factors.append((part,))
        i = end + 1
    ranks = [rank(factor[0]) for factor in factors]
    if None in ranks or 0 in ranks[1:]:
        return tuple(factors)
    return tuple(sorted(factors, key=lambda f: (rank(f[0]), repr(f) if rank(f[0]) == 2 else "")))


def rank(head: str | tuple) -> int | None:
    """0 for a number, 1 for a letter, 2 for what may be moved; None for all else, such as \\sin, f(x) or (1,2)."""
    if isinstance(head, tuple):  # a sum: one side, several terms
        return 2 if head[0] == "(" and len(head[1]) == 1 and len(head[1][0]) > 1 else None
    if head in ("\\sqrt", "\\pi"):
        return 2
    return 1 if len(head) == 1 and head.islower() and head not in "fgh" else 0 if head[0] in ".0123456789" else None
