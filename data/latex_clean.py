r"""One spelling for what LaTeX can spell in many ways: `clean` comes before an answer is read."""

import re

from data.latex_unicode import in_latex

# --- commands ------------------------------------------------------------------------------------

SYNONYMS = {
    "dfrac": "\\frac",
    "tfrac": "\\frac",
    "cfrac": "\\frac",
    "leq": "\\le",
    "geq": "\\ge",
    "neq": "\\ne",
    "lt": "<",
    "gt": ">",
    "leqslant": "\\le",
    "geqslant": "\\ge",
    "bar": "\\overline",
    "varnothing": "\\emptyset",
    "degree": "\\circ",
    "dbinom": "\\binom",
    "tbinom": "\\binom",
    "dots": "\\ldots",
    "cdots": "\\ldots",
    "dotsc": "\\ldots",
    "dotsb": "\\ldots",
    "vee": "\\lor",
    "colon": ":",
    "lbrace": "\\{",
    "rbrace": "\\}",
    "bigcup": "\\cup",
    "quad": " ",
    "qquad": " ",
    "thinspace": " ",
    "mid": "|",
    "vert": "|",
    "lvert": "|",
    "rvert": "|",
    "lbrack": "[",
    "rbrack": "]",
    "to": "\\rightarrow",
    "langle": "(",
    "rangle": ")",
    "forall": "for all",
}
DROPPED = (
    "left right big Big bigg Bigg bigl bigr Bigl Bigr displaystyle textstyle limits boxed fbox "
    "tiny small normalsize large Large LARGE huge Huge bf rm it checkmark mathbf boldsymbol bm"
).split()

COMMAND = re.compile(
    r"""
    \\\\                # a new row
  | \\ ([A-Za-z]+)      # a word
  | \\ ([^A-Za-z])      # a sign
  | ~                   # LaTeX's blank
    """,
    re.VERBOSE | re.DOTALL,
)


def common_spelling(command: re.Match) -> str:
    """One LaTeX command (a match of COMMAND) in its common spelling."""
    word = command[1]
    sign = command[2]
    if word:
        return " " if word in DROPPED else SYNONYMS.get(word, command[0])
    if command[0] == "~":
        return " "
    if not sign:  # a new row
        return command[0]
    if sign == "!":  # a negative space
        return ""
    if sign in ",;: \n()[]":
        return " "
    if sign in "%$&#":
        return sign
    return command[0]


# --- patterns, in the order of their use ----------------------------------------------------------

CALCULATOR_NOTE = re.compile(r"<<[^<>]*>>")  # GSM8K's
LATEX_COMMA = re.compile(  # the thousands of 10{,}000, 10,\!000 and 10\,000
    r"(?<=[0-9]) (?: \{,\} | ,\\!\s* | \\, ) (?= [0-9]{3} (?![0-9]) )", re.VERBOSE
)
DOLLARS = re.compile(r"^\s*(-?)\s*\\\$\s*([0-9][0-9,]*(?:\.[0-9]+)?)\.?\s*$")  # only \$18
COLOR = re.compile(r"\\(?:text)?color\s*\{[A-Za-z]+\}")  # \textcolor{red}{5}
TEXT = re.compile(
    r"""
    \\ (?: text (?: bf | it | rm | normal | sf | tt | up )?
         | math (?: rm | it | sf )
         | mbox | hbox | operatorname | emph | underline | ensuremath
       )
    \s* \{ ([^{}]*) \}
    """,
    re.VERBOSE,
)
ROW_SPACE = re.compile(r"\\\\\s*\[[0-9.]+\s*[a-z]{2}\]")  # \\[4pt]
ROWS = re.compile(r"\\begin\{(cases|aligned|align\*?|gathered)\}(.*?)\\end\{\1\}")
OVER = re.compile(r"\{([^{}]*)\\over(?![A-Za-z])([^{}]*)\}")  # {1 \over 6}
CHOOSE = re.compile(r"\{([^{}]*)\\choose(?![A-Za-z])([^{}]*)\}")
BASE = re.compile(r"\(([0-9A-Z]+)\)(?=_)")  # (204)_5
IN_BASE = re.compile(r"(?<=[0-9A-F])\s+in\s+base\s+([0-9]+)")  # 2516 in base 8
PMOD = re.compile(r"\\pmod\s*(?:\{([^{}]*)\}|([0-9]))")
NAME_IN_BRACES = re.compile(r"^\s*(?:\\vec\s*)?\{\s*([A-Za-z])\s*\}\s*(?==)")  # \mathbf{v} =
THERE_IS = re.compile(r"(?i)^there (?:is|are) (?=no )")  # there is no solution
FULL_HOUR = re.compile(r"(?<=[0-9]):00(?= [ap]m\b)")
ORDINAL = re.compile(  # 7th, also with a raised end
    r"""
    (?<=[0-9]) \s*
    (?: \^ \s* \{ \s* (?: st | nd | rd | th ) \s* \} | (?: st | nd | rd | th ) (?![A-Za-z]) )
    """,
    re.VERBOSE,
)
BOLD = re.compile(r"\*\*([A-Za-z ]+)\*\*")  # 18 **dollars**
AND = re.compile(r",?\s*\band\b")  # "1, 2, and 3"
OR = re.compile(r"(?<![A-Za-z\\])or(?![A-Za-z])")  # "x = 2 or x = 3"
DOTS = re.compile(r"\.\.\.+")
AM = re.compile(r"(?i)(?<=[0-9])\s*a\.?m\b\.?")  # 3:45 A.M.
PM = re.compile(r"(?i)(?<=[0-9])\s*p\.?m\b\.?")
U_FOR_UNION = re.compile(r"(?<=[\])}])\s*U\s*(?=[\[({\\])")  # [0,1] U [2,3]
DEGREES = re.compile(
    r"(?<=[0-9])\s*\^\s*(?:o(?![A-Za-z])|\{\s*o\s*\})|\^\s*\{\s*\\circ\s*\}|\^?\s*\\circ(?=[CF]?(?![A-Za-z]))"
)
CELSIUS = re.compile(r"(?<=degrees )\s*C\b")
FAHRENHEIT = re.compile(r"(?<=degrees )\s*F\b")
INFINITY = re.compile(r"(?<![A-Za-z\\])inf(?:inity)?(?![A-Za-z])")
BARE_COMMAND = re.compile(r"(?<![A-Za-z\\])(sqrt|pi|infty)(?![A-Za-z])")
BARE_FUNCTION = re.compile(  # sin(x), ln 2, 2 cos^2 x; but not "tan" or "log" as words
    r"""
    (?<![A-Za-z\\]) ( (?:arc)? (?: sin | cos | tan ) | cot | csc | ln | log | exp )
    (?= \s* [(_^0-9\\] | \s+ [a-z] (?![A-Za-z]) )
    """,
    re.VERBOSE,
)
FLOOR = re.compile(r"(?<![A-Za-z\\])(floor|ceil)\s*\(([^()]*)\)")  # floor(x)
CUBE_ROOT = re.compile(r"(?<![A-Za-z\\])cbrt\s*\(([^()]*)\)")  # cbrt(2)
STARS = re.compile(r"(?<=[A-Za-z0-9)])\*\*(?=[A-Za-z0-9(])")  # x**2
NUMBER_ABOVE = re.compile(r"\(\s*(-?[0-9]+)\s*\)(?=\s*/)")  # (-5)/6
EXP = re.compile(r"\\exp\s*(?:\(([^()]*)\)|\{([^{}]*)\})")  # \exp(2x)
ABS = re.compile(r"(?<![A-Za-z\\])abs\s*\(([^()]*)\)")  # abs(x-3)
ARGUMENT_IN_PARENTHESES = re.compile(r"(\\sqrt|\^)\s*\(([^()]*)\)")  # \sqrt(3), 2^(n+1)
FUN = r"\\ (?:arc)? (?: sin | cos | tan | cot | sec | csc | log | ln )"
FUNCTION = re.compile(  # \cos(2x) becomes \cos 2x
    rf"""
    ( {FUN} (?: [ ]? [_^] [ ]? (?: \{{[^{{}}]*\}} | [0-9a-z] ) )* )     # \cos^2, \log_{{2}}
    [ ]? \( ( (?: (?!{FUN}) [^()+\-=,/] )* ) \)                         # (2x): no sum, no function
    (?= [ ]? (?: $ | [-+=.,)\]}}&] | \\\\ | {FUN} ) )                   # no more of the argument
    """,
    re.VERBOSE,
)
LETTER_UNITS = {"m": "meters", "g": "grams", "l": "liters", "L": "liters", "s": "seconds"}
LETTER_UNITS["h"] = "hours"
POWER_OF_FUNCTION = re.compile(  # (\cos x)^2 becomes \cos^2 x
    rf"\( \s* ({FUN}) \s* ( [a-zA-Z0-9\\ ]+? ) \s* \) \s* \^ \s* \{{? \s* ([0-9]+) \s* \}}?",
    re.VERBOSE,
)
INVERSE_FUNCTION = re.compile(r"\\(sin|cos|tan)\s*\^\s*\{\s*-\s*1\s*\}")  # \sin^{-1}
SLASH_IN_FUNCTION = re.compile(  # \arcsin(1/3)
    rf"({FUN}) \s* \( \s* ([0-9]+) \s* / \s* ([0-9]+) \s* \)", re.VERBOSE
)
ANSWER_IS = re.compile(r"(?i)^\W{0,3}(?:the )?(?:final )?answer(?: is|:| =)")


def rows_as_list(m: re.Match) -> str:
    r"""\begin{cases} x = 3 \\ y = 4 \end{cases} is x = 3, y = 4."""
    rows = [row.replace("&", " ").strip() for row in m[2].split("\\\\")]
    return ", ".join(row for row in rows if row)


def words_in_text(m: re.Match) -> str:
    r"""The words of \text{...}; a unit of one letter in full, since in algebra it is a letter."""
    return f" {LETTER_UNITS.get(m[1].strip(), m[1])} "


def clean(text: str) -> str:
    """Spell the same thing the same way.

    Covers spacing, synonyms, currency, text in words, and percent and degrees as units.
    """
    if text.lstrip().startswith("~"):  # "~18" is a guess; elsewhere ~ is LaTeX's blank
        return "\\approx" + text
    if re.search(r"(?<!\\)\\$", text):  # it was "\ ", whose blank is gone
        text = text[:-1]
    text = in_latex(text)
    text = CALCULATOR_NOTE.sub(" ", text)
    text = LATEX_COMMA.sub(",", text)
    text = DOLLARS.sub(r"\1\2 dollars", text)
    text = COLOR.sub(" ", text)
    text = COMMAND.sub(common_spelling, text)
    text = text.replace("$", " ")  # a blank, since 1$8 is not 18
    text = " ".join(text.split())
    text = TEXT.sub(words_in_text, text)
    text = TEXT.sub(words_in_text, text)  # once more, for \text{\textbf{C}}
    text = ROW_SPACE.sub(r"\\\\", text)
    text = ROWS.sub(rows_as_list, text)
    text = text.replace(";", ",")
    text = OVER.sub(r"\\frac{\1}{\2}", text)
    text = CHOOSE.sub(r"\\binom{\1}{\2}", text)
    text = BASE.sub(r"\1", text)
    text = IN_BASE.sub(r"_{\1}", text)
    text = PMOD.sub(r"(mod \1\2)", text)
    text = NAME_IN_BRACES.sub(r"\1 ", text)
    text = THERE_IS.sub("", text)
    text = BOLD.sub(r"\1", text)
    text = ORDINAL.sub("", text)
    text = text.replace(">=", "\\ge ").replace("<=", "\\le ")
    text = AND.sub(", ", text)
    text = OR.sub(r" \\lor ", text)
    text = DOTS.sub(r" \\ldots ", text)
    text = AM.sub(" am", text)
    text = PM.sub(" pm", text)
    text = FULL_HOUR.sub("", text)
    text = U_FOR_UNION.sub("\\\\cup ", text)
    text = DEGREES.sub(" degrees ", text)
    text = text.replace("%", " percent ")
    text = CELSIUS.sub("Celsius", text)
    text = FAHRENHEIT.sub("Fahrenheit", text)
    text = INFINITY.sub("infty", text)
    text = BARE_COMMAND.sub(r"\\\1", text)
    text = BARE_FUNCTION.sub(r"\\\1", text)
    text = EXP.sub(r"e^{\1\2}", text)
    text = ABS.sub(r"|\1|", text)
    text = FLOOR.sub(r"\\l\1 \2 \\r\1", text)
    text = CUBE_ROOT.sub(r"\\sqrt[3]{\1}", text)
    text = STARS.sub("^", text)
    text = NUMBER_ABOVE.sub(r"\1", text)
    text = POWER_OF_FUNCTION.sub(r"\1^{\3} \2", text)
    text = INVERSE_FUNCTION.sub(r"\\arc\1 ", text)
    text = SLASH_IN_FUNCTION.sub(r"\1 \\frac{\2}{\3}", text)
    text = ARGUMENT_IN_PARENTHESES.sub(r"\1{\2}", text)
    text = FUNCTION.sub(r"\1 \2", text)
    text = ANSWER_IS.sub("", text)
    return text.strip().replace("\\emptyset", "\\{\\}")
