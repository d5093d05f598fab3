r"""Where the boxes of a text are, in any form that TeX knows.

    boxes(r"first \boxed{3}, then \fbox{\frac{1}{2}}")    -> ["3", "\\frac{1}{2}"]
    boxes(r"so it is $\boxed 8$, or $\boxed\frac12x$")     -> ["8", "\\frac12x"]

A box without braces holds the next token in TeX. Writers who leave the braces out mean the whole
number or expression that follows, so that is what counts: `\boxed 12` holds 12, and never 1.
"""

import re

from data.latex_tokens import matching_braces

MAX_BARE = 100  # characters in a box without braces

BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
BARE_START = re.compile(  # not the "form" of "in \boxed form", nor the rest of `\boxed`
    r"""
    [-+\u2212]? \\?\$? \.? [0-9]
  | [-+\u2212]? \\ [A-Za-z]+
  | [-+\u2212]? [A-Za-z] (?! [A-Za-z] | \s+ [A-Za-z] )    # one letter that is not the word "a"
  | [(\[] (?! \s* [A-Za-z]{2} )
    """,
    re.VERBOSE,
)
PIECE = re.compile(r"\\[A-Za-z]+ | \\. | \s+ | .", re.VERBOSE | re.DOTALL)
ARGUMENTS = {"\\frac": 2, "\\dfrac": 2, "\\tfrac": 2, "\\cfrac": 2, "\\binom": 2, "\\sqrt": 1}
END_OF_MATHS = ("$", "\\)", "\\]", "\\\\")


def boxes(text: str) -> list[str]:
    r"""The contents of all closed boxes in their order; of nested ones, that of the outermost.

    `\boxed{}` gives "". A box that is never closed is left out.
    """
    return [text[start:end] for start, end in box_spans(text)]


def box_spans(text: str) -> list[tuple[int, int]]:
    """Where the content of each box starts and ends. The work grows as the text's length."""
    closing = None  # {place of each opening brace: place of its closing one}
    found = []
    end = 0  # of the last box
    for box in BOX.finditer(text):
        start = box.end()
        if box.start() < end:
            continue
        if text[start : start + 1] == "{":
            if closing is None:
                closing = matching_braces(text, start)
            if start in closing:
                end = closing[start]
                found.append((start + 1, end))
        elif BARE_START.match(text, start):
            end = end_of_bare_box(text, start)
            found.append((start, end))
    return found


def end_of_bare_box(text: str, start: int) -> int:
    r"""Where the content of a box without braces ends: at a blank outside of all brackets.

    Blanks in front of an argument do not end it, as in `\boxed\frac 1 2`; the signs that end a
    sentence or its mathematics do.
    """
    depth = 0  # of brackets
    arguments = 0  # still to come
    end = start
    for piece in PIECE.finditer(text, start, start + MAX_BARE):
        token = piece[0]
        if token in END_OF_MATHS:
            break
        if token.isspace():
            if depth == 0 and arguments == 0:
                break
            continue
        if token in (")", "]", "}"):
            depth -= 1
            if depth < 0:  # a bracket around the box
                break
        if depth == 0 and token in ARGUMENTS:
            arguments = ARGUMENTS[token]
        elif depth == 0 and arguments:
            arguments -= 1
        if token in ("(", "[", "{"):
            depth += 1
        end = piece.end()
    while text[end - 1] in ".,;:?":
        end -= 1
    return end
