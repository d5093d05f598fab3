r"""Mathematics that is written in Unicode, in LaTeX: "2½" -> "2\frac{1}{2}", "x⁴" -> "x^{4}".

What stays as it is cannot be read as an answer. That holds for 5², on purpose: after a digit nobody
knows that a raised 2 is not a misread 52.
"""

import re
import unicodedata

CHARACTERS = {
    "\u2212": "-",  # minus
    "\u2013": "-",  # en dash
    "\u2011": "-",  # no-break hyphen
    "\u00a0": " ",  # no-break space
    "\u2009": "\\,",  # thin space
    "\u202f": "\\,",  # narrow no-break space
    "\u00d7": "\\times ",
    "\u00b7": "\\cdot ",
    "\u221e": "\\infty ",
    "\u221a": "\\sqrt ",
    "\u221b": "\\sqrt[3]",
    "\u222a": "\\cup ",
    "\u2229": "\\cap ",
    "\u2208": "\\in ",
    "\u2205": "\\emptyset ",
    "\u00b1": "\\pm ",
    "\u00b0": "\\circ ",  # degree sign
    "\u2220": "\\angle ",
    "\u2264": "\\le ",
    "\u2265": "\\ge ",
    "\u2260": "\\ne ",
    "\u2248": "\\approx ",
    "\u20ac": " ",  # euro
    "\u00a3": " ",  # pound
    "\u20b9": " ",  # rupee
    "\u00a5": " ",  # yen
    "\u00a2": " cents",
    "\u00f7": "\\div ",
    "\u25b3": "\\triangle ",
    "\u230a": "\\lfloor ",
    "\u230b": "\\rfloor ",
    "\u2308": "\\lceil ",
    "\u2309": "\\rceil ",
    "\u2044": "/",  # fraction slash
    "\u2026": "\\ldots ",
    "\u201c": '"',
    "\u201d": '"',
    "\u2018": "'",
    "\u2019": "'",
}
CHARACTERS |= dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff", "")  # no width: nothing is seen
CHARACTERS |= dict.fromkeys("\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u200a\u3000", " ")
CHARACTERS |= {chr(0xFF10 + digit): str(digit) for digit in range(10)}  # as wide as Chinese
CHARACTERS |= {letter: f"\\mathbb{{{name}}}" for letter, name in zip("ℂℕℚℝℤ", "CNQRZ")}
for fraction in "¼½¾⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞":
    above, below = unicodedata.normalize("NFKC", fraction).split("\u2044")
    CHARACTERS[fraction] = f"\\frac{{{above}}}{{{below}}}"
for letter in "αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩ":
    kind, name = unicodedata.name(letter).split()[1::2]  # GREEK SMALL LETTER ALPHA
    name = name.lower().replace("lamda", "lambda")
    CHARACTERS[letter] = f"\\{name} " if kind == "SMALL" else f"\\{name.capitalize()} "
TABLE = str.maketrans(CHARACTERS)

RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ"
LOWERED = "₀₁₂₃₄₅₆₇₈₉ₙ"
MATHEMATICAL = re.compile("[\U0001d400-\U0001d7ff]")  # letters of Unicode's own alphabets
EXPONENT = re.compile(f"(?<![0-9{RAISED}])([{RAISED}]+)")
INDEX = re.compile(f"(?<=[A-Za-z0-9)}}])([{LOWERED}]+)")


def in_latex(text: str) -> str:
    if text.isascii():
        return text
    text = MATHEMATICAL.sub(lambda m: unicodedata.normalize("NFKC", m[0]), text)
    text = EXPONENT.sub(lambda m: f"^{{{plain(m[1])}}}", text)
    text = INDEX.sub(lambda m: f"_{{{plain(m[1])}}}", text)
    return text.translate(TABLE)


def plain(digits: str) -> str:
    """ "⁻¹" -> "-1"."""
    return unicodedata.normalize("NFKC", digits).replace("\u2212", "-")
