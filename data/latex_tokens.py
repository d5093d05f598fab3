r"""LaTeX in pieces: brackets that belong together, tokens, and tokens that are one number."""

import re
from fractions import Fraction

MAX_DIGITS = 100  # in one number: int() of huge strings is quadratic, Python refuses 4,300 digits
MAX_EXPONENT = 30  # in 5 \times 10^{3}
MAX_NUMBER = 20  # tokens of one number
OPEN = ("(", "[", "{", "\\{")
CLOSE = (")", "]", "}", "\\}")


# --- brackets -------------------------------------------------------------------------------------


BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


def matching_braces(text: str, start: int = 0) -> dict[int, int]:
    r"""{position of each "{" from `start` on: position of its "}"}; \{ and \} do not count.

    They are counted, not parsed recursively, so that depth costs nothing.
    """
    closing = {}
    still_open = []
    for m in BRACE.finditer(text, start):
        if m[0] == "{":
            still_open.append(m.start())
        elif m[0] == "}" and still_open:
            closing[still_open.pop()] = m.start()
    return closing


def split_top(text: str, separator: str) -> list[str]:
    r"""Split at the separators (",", "=" or a command) that are outside of all brackets."""
    pieces = []
    depth = 0
    start = 0
    for m in re.finditer(r"\\[A-Za-z]+|\\.|[][(){},=]", text, re.S):
        if m[0] in OPEN:
            depth += 1
        elif m[0] in CLOSE:
            depth -= 1
        if m[0] == separator and depth == 0:
            pieces.append(text[start : m.start()])
            start = m.end()
    pieces.append(text[start:])
    return pieces


def brackets(tokens: list[str]) -> dict[int, int]:
    """{position of each opening bracket: position of its closing one}.

    The two may be of different kinds, as in [0,1).
    """
    closing = {}
    still_open = []
    for i, token in enumerate(tokens):
        if token in OPEN:
            still_open.append(i)
        elif token in CLOSE and still_open:
            closing[still_open.pop()] = i
    return closing


def encloses(tokens: list[str]) -> bool:
    """Is the first token a bracket that the last one closes? In (a)(b) it is not."""
    return brackets(tokens).get(0) == len(tokens) - 1


def top_level(tokens: list[str]) -> list[int]:
    """The positions of the tokens outside of all brackets."""
    closing = brackets(tokens)
    places = []
    i = 0
    while i < len(tokens):
        places.append(i)
        i = closing.get(i, i) + 1
    return places


# --- tokens ---------------------------------------------------------------------------------------

TOKEN = re.compile(
    r"""
    \\[A-Za-z]+                     # \frac
  | \\.                             # \{
  | [0-9]+ (?: \.[0-9]+ )?          # 12.5
  | \.[0-9]+                        # .5
  | \S
    """,
    re.VERBOSE | re.DOTALL,
)
ARGUMENTS = {"\\frac": 2, "\\binom": 2, "\\sqrt": 1, "\\overline": 1, "^": 1, "_": 1}


def tokenize(text: str) -> list[str]:
    r"""LaTeX tokens without blanks, with braces around arguments and nowhere else.

    \frac12 becomes \frac { 1 } { 2 }, and {x}^2 becomes x ^ { 2 }. A brace that is never closed
    leaves a "{" at the end, so that the text equals no other.
    """
    queue = TOKEN.findall(text)[::-1]  # the next token is the last one
    out = []
    owed = [0]  # arguments still to come, one count for each open brace around
    holds_argument = []  # for each open brace: is it the brace of an argument?
    while queue:
        token = queue.pop()
        if token == "{":
            holds_argument.append(owed[-1] > 0)
            owed.append(0)
            if holds_argument[-1]:
                out.append("{")
        elif token == "}" and holds_argument:
            owed.pop()
            if holds_argument.pop():
                owed[-1] -= 1
                out.append("}")
        elif token == "[" and owed[-1] and out[-1] == "\\sqrt":  # the 3 of \sqrt[3]{2}
            while token != "]" and queue:
                out.append(token)
                token = queue.pop()
            out.append(token)
        elif token in ARGUMENTS:  # in the rare \frac\sqrt32 nothing is put in braces
            owed[-1] = ARGUMENTS[token]
            out.append(token)
        elif not owed[-1]:
            out.append(token)
        elif token in ("+", "-") and out[-1] == "^" and queue:  # 10^-3
            out += ["{", token, queue.pop(), "}"]
            owed[-1] = 0
        else:  # an argument without braces
            one_digit = out[-1] not in ("^", "_", "\\sqrt")  # in \frac12, but not in x^10
            if one_digit and token[0].isdigit() and len(token) > 1:
                queue.append(token[1:])
                token = token[0]
            out += ["{", token, "}"]
            owed[-1] -= 1
    return out + ["{"] * len(holds_argument)


# --- numbers --------------------------------------------------------------------------------------

# Numbers as they look in tokens with one blank between them.
N = r"(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
SIGN = r"(?:(?P<sign>[+-]) )?"
WHOLE = r"(?:(?P<whole>[1-9][0-9]*) )?"
SIGN_TOP = r"(?:(?P<sign_top>[+-]) )?"
SIGN_BOTTOM = r"(?:(?P<sign_bottom>[+-]) )?"
EXPONENT = r"(?:(?P<sign_exponent>[+-]) )?(?P<exponent>[0-9]{1,2})"
PLAIN = re.compile(rf"{SIGN}(?P<value>{N})")
REPEATING = re.compile(  # 0.1\overline{6}
    SIGN + r"(?P<whole>[0-9]*) ?\.(?P<start>[0-9]*) ?\\overline { (?P<period>[0-9]+) }"
)
SLASH = re.compile(rf"{SIGN}{WHOLE}(?P<top>{N}) / {SIGN_BOTTOM}(?P<bottom>{N})")
FRAC = re.compile(
    rf"{SIGN}{WHOLE}\\frac {{ {SIGN_TOP}(?P<top>{N}) }} {{ {SIGN_BOTTOM}(?P<bottom>{N}) }}"
)
POWER = re.compile(  # 10^3, 5 \times 10^{-3}
    rf"{SIGN}(?:(?P<value>{N}) (?:\\times|\\cdot|\*|x) )?10 \^ {{ {EXPONENT} }}"
)
E_NOTATION = re.compile(rf"{SIGN}(?P<value>{N}) [eE] {EXPONENT}")  # 5e3


def number(tokens: list[str]) -> Fraction | None:
    r"""The exact value of the tokens if they are one number, else None.

    Numbers are decimals (also repeating), fractions, mixed numbers (2 1/2), small powers of ten
    (5 \times 10^3), and any of these in brackets behind a sign.
    """
    if len(tokens) > MAX_NUMBER or any(len(token) > MAX_DIGITS for token in tokens):
        return None
    if tokens[:2] in (["-", "("], ["+", "("]) and encloses(tokens[1:]):
        inner = number(tokens[2:-1])
        return None if inner is None else signed(tokens[0], inner)
    text = " ".join(tokens)
    m = PLAIN.fullmatch(text)
    if m:
        return signed(m["sign"], Fraction(m["value"]))
    m = REPEATING.fullmatch(text)
    if m:
        return signed(m["sign"], repeating(m["whole"], m["start"], m["period"]))
    m = SLASH.fullmatch(text) or FRAC.fullmatch(text)
    if m:
        return fraction(m)
    m = POWER.fullmatch(text) or E_NOTATION.fullmatch(text)
    if m and int(m["exponent"]) <= MAX_EXPONENT:
        exponent = int(signed(m["sign_exponent"], Fraction(m["exponent"])))
        return signed(m["sign"], Fraction(m["value"] or 1) * Fraction(10) ** exponent)
    return None


def signed(sign: str | None, value: Fraction) -> Fraction:
    return -value if sign == "-" else value


def repeating(whole: str, start: str, period: str) -> Fraction:
    r"""whole.start\overline{period}: repeating("0", "1", "6") == Fraction(1, 6)."""
    repeated = Fraction(int(period), 10 ** len(period) - 1)  # 0.666... = 6/9
    return Fraction(f"{whole or 0}.{start or 0}") + repeated / 10 ** len(start)


def fraction(m: re.Match) -> Fraction | None:
    r"""The value of what SLASH or FRAC matched; None for 1/0 and for 2\frac{3}{2}."""
    top = Fraction(m["top"])
    bottom = Fraction(m["bottom"])
    sign_top = m.groupdict().get("sign_top")  # in 3/4 a sign of the 3 is one of the whole
    if bottom == 0:
        return None
    value = signed(sign_top, signed(m["sign_bottom"], top / bottom))
    if m["whole"]:  # the 2 of 2\frac{1}{2}
        is_mixed_number = 0 <= value < 1 and not sign_top and not m["sign_bottom"]
        if not is_mixed_number:
            return None
        value += int(m["whole"])
    return signed(m["sign"], value)
