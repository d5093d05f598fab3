r"""One spelling for what LaTeX can spell in many ways: `clean` comes before an answer is read."""

import re

from data.latex_functions import functions
from data.latex_unicode import in_latex

# --- commands ------------------------------------------------------------------------------------

SYNONYMS = {
    "dfrac": "\\frac",
    "tfrac": "\\frac",
    "cfrac": "\\frac",
    "sfrac": "\\frac",
    "nicefrac": "\\frac",
    "leqq": "\\le",
    "geqq": "\\ge",
    "Bbb": "\\mathbb",
    "cr": "\\\\",
    "bmod": " mod ",
    "mod": " mod ",
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
    "tiny small normalsize large Large LARGE huge Huge bf rm it checkmark mathbf boldsymbol bm "
    "mathtt mathnormal pmb scriptstyle blacksquare"
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
DOLLARS = re.compile(  # \$18, \$18 per month; nothing else may stand behind
    r"^\s*(-?)\s*\\\$\s*([0-9][0-9,]*(?:\.[0-9]+)?)(\s*(?:\\text\s*\{)?\s*per\s[^0-9]*|\.?\s*)$"
)
SPACE = re.compile(r"\\(?:[hv]space\*?|[hv]?phantom)\s*\{[^{}]*\}|\\(?:left|right)\s*\.|\\\\\s*$")
MATH_IN_TEXT = re.compile(r"\\(?:text[a-z]*|mbox)\s*\{\s*\$([^$]*)\$\s*\}")  # \text{$x$}
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
TEXT_COMMAND = re.compile(r"\\(?:text(?:bf|it|rm)?|math(?:rm|it|sf)|mbox)(?=\s*\{)")
OVER = re.compile(r"\{([^{}]*)\\over(?![A-Za-z])([^{}]*)\}")  # {1 \over 6}
CHOOSE = re.compile(r"\{([^{}]*)\\choose(?![A-Za-z])([^{}]*)\}")
BASE = re.compile(r"\(([0-9A-Z]+)\)(?=_)")  # (204)_5
IN_BASE = re.compile(  # 2516 in base 8, 2516 (base 8), 2516_{\text{base }8}
    r"(?<=[0-9A-F])\s*(?:_\s*\{\s*base\s*([0-9]+)\s*\}|\(?\s*(?:in\s+)?base\s+([0-9]+)\s*\)?\s*$)"
)
BASES = {"two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7"}
BASES |= {"eight": "8", "nine": "9", "ten": "10", "twelve": "12", "sixteen": "16"}
BASE_WORD = re.compile(rf"(?<=_)\s*\{{\s*({'|'.join(BASES)})\s*\}}")  # 1101_{\text{two}}
PMOD = re.compile(r"\\pmod\s*(?:\{([^{}]*)\}|([0-9]))|\(\s*mod\s+([^()]*)\)")
NAME_IN_BRACES = re.compile(r"^\s*(?:\\vec\s*)?\{\s*([A-Za-z])\s*\}\s*(?==)")  # \mathbf{v} =
IN_FRONT = re.compile(  # there is no solution, the point (3,4)
    r"(?i)^(?:there (?:is|are) (?=no )|(?:the )?(?:point|vector|interval|pair)\s+(?=[(\[]))"
)
EMPTY_SET = re.compile(r"(?i)^(?:the )?(?:empty|null) set$")
MINUS = re.compile(r"(?i)^(?:negative|minus)\s+(?=[0-9.\\])")  # negative 18
DAY = re.compile(
    r"^([0-9]{1,2}) (January|February|March|April|May|June|July|August|September|October|November"
    r"|December)$"
)
EARLY = re.compile(r"(?<![0-9:])0(?=[1-9]:[0-9]{2}\s*[ap]m)")  # 04:30 pm
PER_CENT = re.compile(r"\bper cent\b")
MINUS_PLUS = re.compile(r"\\mp(?![A-Za-z])")
INCHES = re.compile(r"^([0-9.]+)''$")  # 6''
QUOTES = re.compile(r"``(.*?)''")
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
    r"""
    (?<=[0-9]) \s* \^ \s* (?: o (?![A-Za-z]) | \{ \s* o \s* \} )    # 120^o
  | \^ \s* \{ \s* \\circ \s* \}
  | \^? \s* \\circ (?= [CF]? (?![A-Za-z]) )
    """,
    re.VERBOSE,
)
CELSIUS = re.compile(r"(?<=degrees )\s*C\b")
FAHRENHEIT = re.compile(r"(?<=degrees )\s*F\b")
INFINITY = re.compile(r"(?<![A-Za-z\\])inf(?:inity)?(?![A-Za-z])")
LETTER_UNITS = {"m": "meters", "g": "grams", "l": "liters", "L": "liters", "s": "seconds"}
LETTER_UNITS["h"] = "hours"
ANSWER_IS = re.compile(r"(?i)^\W{0,3}(?:the )?(?:final )?answer(?: is|:| =)")


def rows_as_list(m: re.Match) -> str:
    r"""\begin{cases} x = 3 \\ y = 4 \end{cases} is x = 3, y = 4."""
    rows = [re.sub(r"&\s*(?==)|(?<==)\s*&", "", row).strip() for row in m[2].split("\\\\")]
    rows = [row for row in rows if row]
    is_list = len(rows) == 1 or all("=" in row for row in rows)
    if not is_list or "&" in "".join(rows):
        return m[0]  # values, each with its condition
    return ", ".join(rows)


def words_in_text(m: re.Match) -> str:
    r"""The words of \text{...}; a unit behind a number in full, since in algebra it is a letter."""
    before = m.string[: m.start()].rstrip()
    is_unit = m[0].startswith("\\text") and re.search(r"(?:[0-9})]|\\pi)$", before)
    return f" {LETTER_UNITS.get(m[1].strip(), m[1]) if is_unit else m[1]} "


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
    text = DOLLARS.sub(r"\1\2 dollars\3", text)
    text = MATH_IN_TEXT.sub(r"\1", text)
    text = SPACE.sub(" ", text)
    text = COLOR.sub(" ", text)
    text = COMMAND.sub(common_spelling, text)
    text = text.replace("$", " ")  # a blank, since 1$8 is not 18
    text = QUOTES.sub(r'"\1"', text)
    text = INCHES.sub(r"\1 inches", text)
    text = " ".join(text.split())
    text = TEXT.sub(words_in_text, text)
    text = TEXT.sub(words_in_text, text)  # once more, for \text{\textbf{C}}
    text = TEXT_COMMAND.sub(" ", text)  # \mathrm{\frac12}
    text = ROW_SPACE.sub(r"\\\\", text)
    text = ROWS.sub(rows_as_list, text)
    text = text.replace(";", ", ")
    text = OVER.sub(r"\\frac{\1}{\2}", text)
    text = CHOOSE.sub(r"\\binom{\1}{\2}", text)
    text = BASE.sub(r"\1", text)
    text = IN_BASE.sub(r"_{\1\2}", text)
    text = BASE_WORD.sub(lambda m: f"{{{BASES[m[1]]}}}", text)
    text = PMOD.sub(r" mod \1\2\3", text)
    text = NAME_IN_BRACES.sub(r"\1 ", text)
    text = IN_FRONT.sub("", text.strip())
    text = EMPTY_SET.sub(r"\\emptyset", text)
    text = MINUS.sub("-", text)
    text = DAY.sub(r"\2 \1", text)
    text = BOLD.sub(r"\1", text)
    text = ORDINAL.sub("", text)
    text = text.replace(">=", "\\ge ").replace("<=", "\\le ")
    text = AND.sub(", ", text)
    text = OR.sub(r" \\lor ", text)
    text = DOTS.sub(r" \\ldots ", text)
    text = AM.sub(" am", text)
    text = PM.sub(" pm", text)
    text = EARLY.sub("", FULL_HOUR.sub("", text))
    text = U_FOR_UNION.sub("\\\\cup ", text)
    text = DEGREES.sub(" degrees ", text)
    text = text.replace("%", " percent ").replace("+/-", "\\pm ")
    text = PER_CENT.sub("percent", text)
    if "\\pm" not in text:
        text = MINUS_PLUS.sub(r"\\pm", text)  # with a \pm beside it, it is the other sign
    text = CELSIUS.sub("Celsius", text)
    text = FAHRENHEIT.sub("Fahrenheit", text)
    text = INFINITY.sub("infty", text)
    text = functions(text)
    text = ANSWER_IS.sub("", text)
    return text.strip().replace("\\emptyset", "\\{\\}")
