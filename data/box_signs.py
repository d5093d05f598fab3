r"""The signs that make a box a part of something else: "-\boxed{18}", "\boxed{18}^2"."""

import re

MAX_AWAY = 100  # characters before and behind the box that are looked at
MAX_PARAGRAPH = 2_000  # characters before it in which mathematics may have begun

IN_FRONT = re.compile(r"(?<! [-\w] ) [-\u2212] \Z", re.VERBOSE)  # a minus that touches the box
IN_FRONT_IN_MATH = re.compile(
    r"""
    [\w)}\]] [ ]* [-\u2212+/^] \{? [ ]* \Z          # the last sign of "2 +" and of "2 ^{"
  | [\w)}\]] [ ]* \\ (?: cdot | times | div ) \s* \Z
  | \\ (?: sqrt | [dt]?frac | log | ln ) \s* \{ \s* \Z
    """,
    re.VERBOSE,
)
POWER_BEHIND = re.compile(  # ^2, ^{10} and ^n, but not the o of degrees
    r"\}? [ ]* (\^ \s* (?: [0-9a-np-z] | \{ -? (?: [0-9]+ | [a-np-z] ) \} ))", re.VERBOSE
)
BEHIND_IN_MATH = re.compile(
    r"""
    \}? [ ]*
    ( ! (?= \s* \$ )
    | [-\u2212+*/] [ ]* (?= [0-9(] | [a-z] (?! [a-z ] ) | \\ (?! text | mathrm ) )
    | \\ (?: cdot | times | div ) (?![A-Za-z])
    )
    """,
    re.VERBOSE,
)
OPENINGS = ("\\(", "\\["), ("\\)", "\\]")


def with_its_signs(text: str, command: int, start: int, end: int) -> str:
    r"""The content of a box, and the signs that touch it: "\boxed{18}^2" -> "(18)^2".

    command, start, end: where \boxed and its content begin, and where that ends.

    "2 + \boxed{18}" gives "2 + (18)", which is no answer. An equation that goes on behind the box,
    as "2 + \boxed{3} = 5", has a gap that the box fills; there the content stands alone.
    """
    content = text[start:end].strip()
    behind = re.match("[^$\n]*", text[end : end + MAX_AWAY])[0]
    if not content or "=" in behind:
        return content
    line = text[text.rfind("\n", 0, command) + 1 : command][-MAX_AWAY:]
    front = IN_FRONT.search(line)
    back = POWER_BEHIND.match(text, end)
    if is_in_math(text[max(0, command - MAX_PARAGRAPH) : command].rpartition("\n\n")[2]):
        front = front or IN_FRONT_IN_MATH.search(line)
        back = back or BEHIND_IN_MATH.match(text, end)
    if not front and not back:
        return content
    return f"{front[0] if front else ''}({content}){back[1] if back else ''}"


def is_in_math(before: str) -> bool:
    r"""Does what follows stand between dollar signs, or behind a "\(" or a "\["?

    A "$5" with a word behind it is money.
    """
    signs = before.replace("\\$", "").replace("$$", "$")
    signs = re.sub(r"\$[0-9][0-9,.]*(?=\s+[A-Za-z])", "", signs)
    if signs.count("$") % 2:
        return True
    return any(before.rfind(a) > before.rfind(b) for a, b in zip(*OPENINGS))
