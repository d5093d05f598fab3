r"""Functions as people type them, in LaTeX's spelling: "sin(x)" -> "\sin x"."""

import re

BARE_COMMAND = re.compile(r"(?<![A-Za-z\\])(sqrt|pi|infty)(?![A-Za-z])")
BARE_FUNCTION = re.compile(  # sin(x), ln 2, 2 cos^2 x; but not "tan" or "log" as words
    r"""
    (?<![A-Za-z\\])
    ( (?:arc)? (?: sin | cos | tan ) | cot | csc | ln | log | exp | sec (?= \s* [(^] ) )
    (?= \s* [(_^0-9\\|] | \s+ [a-z] (?![A-Za-z]) )
    """,
    re.VERBOSE,
)
FLOOR = re.compile(r"(?<![A-Za-z\\])(floor|ceil)\s*\(([^()]*)\)")  # floor(x)
CUBE_ROOT = re.compile(r"(?<![A-Za-z\\])cbrt\s*\(([^()]*)\)")  # cbrt(2)
STARS = re.compile(r"(?<=[A-Za-z0-9)])\*\*(?=[A-Za-z0-9(])")  # x**2
NUMBER_ABOVE = re.compile(r"(^|[=,(\[{+])\s*\(\s*(-?[0-9]+)\s*\)(?=\s*/)")  # (-5)/6
EXP = re.compile(r"\\exp\s*(?:\(([^()]*)\)|\{([^{}]*)\})")  # \exp(2x)
ABS = re.compile(  # abs(x-3), \abs{x-3}
    r"(?<![A-Za-z\\])abs\s*\(((?:[^()]|\([^()]*\))*)\)|\\abs\s*\{([^{}]*)\}"
)
ARGUMENT_IN_PARENTHESES = re.compile(r"(\\sqrt|\^)\s*\(([^()]*)\)")  # \sqrt(3), 2^(n+1)
FUN = r"\\ (?:arc)? (?: sin | cos | tan | cot | sec | csc | log | ln )"
FUNCTION = re.compile(  # \cos(2x) becomes \cos 2x
    rf"""
    ( {FUN} (?: [ ]? [_^] [ ]? (?: \{{[^{{}}]*\}} | [0-9]+ | [a-z] ) )* )     # \cos^2, \log_{{2}}
    [ ]? \( ( (?: (?!{FUN}) [^()+\-=,/] )* ) \)                         # (2x): no sum, no function
    (?= [ ]? (?: $ | [-+=.,)\]}}&] | \\\\ | {FUN} ) )                   # no more of the argument
    """,
    re.VERBOSE,
)
END = r"(?= \s* (?: $ | [-+=.,)\]}] ) )"  # no more of the argument
SIMPLE = r"[0-9]* \s* (?: [a-zA-Z] | \\(?: pi | theta | alpha | beta | phi ) )?"
POWER_OF_FUNCTION = re.compile(  # (\cos x)^2 becomes \cos^2 x
    rf"\( \s* ({FUN}) \s* ({SIMPLE}) \s* \) \s* \^ \s* \{{? \s* ([0-9]+) \s* \}}? {END}", re.VERBOSE
)
INVERSE_FUNCTION = re.compile(  # \sin^{-1}, tan^-1
    r"\\(sin|cos|tan)\s*\^\s*(?:\{\s*-\s*1\s*\}|-1(?![0-9]))"
)
SLASH_IN_FUNCTION = re.compile(  # \arcsin(1/3), \sin(x/2)
    rf"({FUN}) \s* \( \s* ({SIMPLE}) \s* / \s* ([0-9]+) \s* \) {END}", re.VERBOSE
)

OF_SIMPLE = rf"""
    {FUN} (?: _ (?: \{{[^{{}}]*\}} | [0-9] ) )? \s* (?: \( {SIMPLE} \) | (?! \s*/ ) {SIMPLE} )
"""
BY_FUNCTION = re.compile(  # \ln 5 / \ln 2
    rf"(^|[=,(\[{{+-]) \s* ([0-9]* \s* {OF_SIMPLE}) \s* / \s* ({OF_SIMPLE}) {END}", re.VERBOSE
)


def functions(text: str) -> str:
    r"""Roots, powers and functions in one spelling: 2(\cos x)^2 and 2 cos^2(x) are 2\cos^{2} x."""
    text = BARE_COMMAND.sub(r"\\\1", text)
    text = BARE_FUNCTION.sub(r"\\\1", text)
    text = EXP.sub(r"e^{\1\2}", text)
    text = ABS.sub(lambda m: f"|{m[1] or m[2] or ''}|", text)
    text = FLOOR.sub(r"\\l\1 \2 \\r\1", text)
    text = text.replace("\\sqrt[2]", "\\sqrt")
    text = CUBE_ROOT.sub(r"\\sqrt[3]{\1}", text)
    text = STARS.sub("^", text)
    text = NUMBER_ABOVE.sub(r"\1\2", text)
    text = POWER_OF_FUNCTION.sub(r"\1^{\3} \2", text)
    text = INVERSE_FUNCTION.sub(r"\\arc\1 ", text)
    text = SLASH_IN_FUNCTION.sub(r"\1 \\frac{\2}{\3}", text)
    text = BY_FUNCTION.sub(r"\1\\frac{\2}{\3}", text)
    text = ARGUMENT_IN_PARENTHESES.sub(r"\1{\2}", text)
    text = FUNCTION.sub(r"\1 \2", text)
    return text
