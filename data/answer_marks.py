r"""The words and signs around an answer; data/grader.py decides which of the marks counts.

In these expressions blanks and comments are left out when they are read (re.VERBOSE), so a blank
that is meant is written `[ ]`.
"""

import re
from typing import NamedTuple

from data.answer_in_words import HEADINGS, bare_sentence, is_hedged, is_number
from data.box_signs import with_its_signs
from data.boxes import box_spans
from data.second_thoughts import denies

# GSM8K's own mark, "#### 18": the rest of the line, up to a second mark.
HASHES = re.compile(r"\#{4,} ( (?: (?!\#\#\#\#) [^\n] )* )", re.VERBOSE)

SOLUTION = re.compile(r"\W*solution\s*:", re.IGNORECASE)  # it holds one, and is no heading
NUMBERED = re.compile(r"\s*[0-9]{1,2}[.)]\s+[A-Z][A-Za-z' ]*:?\**\s*")  # "#### 2. Check"

# Plain words: "The answer is 18", "**Answer:** 18", a line "A: 18", "<answer>18".
CLAIM = re.compile(
    r"""
    (?: (?<! if [ ] the [ ] )
        \b answer \b (?: [ ] to [ ] (?: the | this ) [ ] \w+ )? ["*_}]{0,3}
        (?: [ ]{0,3} (?: is | = | : | \uff1a | (?: should | would | must ) [ ] be )
          | [ ] - (?= [ ] )                         # "Answer - 18"
          | [ ]? (?= \n (?! \s* [0-9]{1,2} [.)] [ ] ) )     # a heading, but no list behind it
          | (?<= \* ) (?= [ ] [0-9] )               # "**Answer** 18"
        )
      | ^ [ \t]* A:                                 # or a line that begins with "A:"
      | <answer>
    )
    [\s:\uff1a*_"`}]{0,6}
    (?: (?: therefore | thus | indeed | only | just | clearly | simply | exactly | equal [ ] to
        | that ) \b ,? [ ] ){0,2}
    (?: \\ (?: text | textbf | mathbf ) (?= \{ ) )?
    (?= (?: <<[^<>\n]*>> )?                         # a number follows, perhaps behind a name,
        (?: \$? (?: [a-z] [+] ){0,3} [a-z] [ ]? = | [A-Z][a-z]{2,} [ ]? [=:] )? [ ]?
        [-+\u2212$\\({\[* <\u20ac\u00a3\u20b9_`"]{0,6}      # "$" or "**",
        (?-i: (?: Rs | [A-Z]{2,3} ) \b \.? [ ]{0,2} # or behind a currency,
          | [A-Z][a-z]{2,} [ ]                      # or a label, as in "Day 12",
          | [dt]?frac \{ )?                         # or in LaTeX
        [.0-9] )
    (?= (                                           # and this is the answer: to the sentence's end
        (?: (?! (?<! \b Rs ) \. \s                  # "18. She ..." is 18, but "1.5 miles" stays
              | ! (?: [\s*"'] | \Z ) (?! \s* [=+*/-] )
              | \s (?: because | since ) \s
              | \s (?: so | as | and ) \s (?= (?: she | he | they | we | it | the | there ) \s )
              | </answer> )
            [^\n]
        ){0,200}
    ) )
    """,
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)

# "Answer: She has 18 apples": the number is found by answer_in_words.py.
SENTENCE_CLAIM = re.compile(
    r"""
    \b answer \** (?: : | [ ] is [ ] that ) [\s*]{0,4}
    ( [A-Z] [^\n.0-9]{2,60} [0-9] [^\n]{0,100} )
    """,
    re.VERBOSE | re.IGNORECASE,
)

# Where a model with another tokenizer ends.
END_MARK = re.compile(
    r"""
    (?: </s> | <eos> | <end_of_turn> | <start_of_turn> | <end_of_text> | \[/?INST\]
      | <\uff5cend\u2581of\u2581sentence\uff5c>
      | <\| (?: im_end | im_start | user | start_header_id | endoftext | end_of_text | eot_id
              | eom_id | end | eos ) \|>
    )
    """,
    re.VERBOSE,
)

# Base models run on into a next question of their own, whose answer may fit by chance.
NEXT_QUESTION = re.compile(
    r"""
    ^ [ \t*#>]*                                     # a line that begins, behind any markdown, with
    (?:
        (?i: (?: next[ ] | new[ ] | another[ ] )?
             (?: question | problem | exercise | user | human | instruction ) )
        [ ]? \#? [0-9]{0,3} \**                     #   "Question", "New problem", "Human 2**", and
        (?: : | \s?$ )                              #   then a colon or the end of the line
      | (?: Question | Problem | Exercise )
        [ ] [0-9]{1,3} \b                           #   or with "Problem 2" and any text
      | Example [ ] [0-9]{1,2} :
      | Here(?: 's | [ ] is ) [ ] another [ ] (?: question | problem )
    )
  | (?<![\w:\\]) (?<!and[ ]) (?<!,[ ])              # or, inside of a line, "Q: " and the like, but
    (?: Question | Problem | Q )                    #   not "the line through P and Q: y = x"
    [ ]? \#? [0-9]{0,3} \** :
    """,
    re.VERBOSE | re.MULTILINE,
)

# All that stands between two answers: "\boxed{18} or \boxed{20}".
EITHER_OR = re.compile(
    r"\W* (?: text\{ \s* )? or \b \W* (?: boxed \W* )?", re.VERBOSE | re.IGNORECASE
)

# What may stand between two boxes of one list: "\boxed{3}$, $\boxed{8}$, and $x = \boxed{11}".
MAX_BETWEEN = 100  # characters
DECORATION = re.compile(
    r"""
    \\ (?: text | mbox | mathrm | textbf ) \s* \{
  | \\ (?: boxed | fbox | left | q?quad ) (?![A-Za-z])
  | \\ [^A-Za-z]                                    # a space, "\(" or a new row
  | [$&]
    """,
    re.VERBOSE,
)
JOINT = re.compile(
    r"""
    \s* (?: [,;] \s* )?
    (?: (?P<word> and | or | as[ ]well[ ]as ) \b
        [\s,]* (?: (?: also | finally | lastly | then ) \b [\s,]* )? )?
    (?: (?P<name> [A-Za-z] (?: _ [A-Za-z0-9]{1,2} )? ) \s* = \s* )?
    """,
    re.VERBOSE,
)
NAME_IN_FRONT = re.compile(
    r"(?<![A-Za-z_]) ([A-Za-z] (?: _[A-Za-z0-9]{1,2} )?) \s*=\s* \Z", re.VERBOSE
)


class Mark(NamedTuple):
    """One marked answer of a response."""

    start: int  # where the answer stands in the text
    end: int
    answer: str
    is_strong: bool  # a box or a line "#### 18"; weak are a sentence and a heading with a number
    is_box: bool = False


def boxed_marks(text: str) -> list[Mark]:
    """The answers in boxes, with what makes one a part of something else."""
    marks = []
    for start, end in box_spans(text):
        command = text.rfind("\\", 0, start)  # where \boxed begins
        if not denies(text[max(0, command - 40) : command]):
            answer = with_its_signs(text, command, start, end)
            marks.append(Mark(start, end, answer, is_strong=True, is_box=True))
    return marks


def boxes_alone(text: str) -> list[Mark]:
    """The answers in boxes with braces, whatever is around them: the toy world's."""
    marks = []
    for start, end in box_spans(text):
        if text[start - 1] == "{":
            marks.append(Mark(start, end, text[start:end].strip(), is_strong=True, is_box=True))
    return marks


def lines_with_hashes(text: str) -> list[Mark]:
    r"""The answers of lines "#### 18".

    A line without a digit, or one such as "#### Step 2", is a heading, and in "#### \boxed{18}" the
    box is the answer. Another line that begins with a word and holds no readable number may be a
    heading too: it is a weak mark.
    """
    marks = []
    for line in HASHES.finditer(text):
        content = line[1]
        has_own_mark = "\\boxed" in content or "\\fbox" in content or CLAIM.search(content)
        first = re.match(r"\W*([A-Za-z]{2,})", content)
        is_heading = first and first[1].lower() in HEADINGS and not is_hedged(content)
        is_heading = is_heading and not SOLUTION.match(content) or NUMBERED.fullmatch(content)
        if re.search("[0-9]", content) and not has_own_mark and not is_heading:
            answer = bare_sentence(content)
            is_strong = not first or is_number(answer)
            marks.append(Mark(*line.span(1), answer.strip(), is_strong))
    return marks


def claims(text: str) -> list[Mark]:
    """The answers of sentences "The answer is 18"."""
    marks = []
    for claim in CLAIM.finditer(text):
        answer = bare_sentence(without_closing(claim[1])).strip()
        marks.append(Mark(*claim.span(1), answer, is_strong=False))
    places = {mark.start for mark in marks}
    for claim in SENTENCE_CLAIM.finditer(text):
        answer = bare_sentence(claim[1]).strip()
        if claim.start(1) not in places and is_number(answer):
            marks.append(Mark(*claim.span(1), answer, is_strong=False))
    return marks


def without_closing(text: str) -> str:
    """Without brackets and quotes at the end that were opened before the answer."""
    text = text.rstrip(' ."`')
    for opening, closing in ("()", "[]", "{}"):
        if text.endswith(closing) and text.count(closing) > text.count(opening):
            text = text[:-1].rstrip(' ."`')
    return text


def without_last_remarks(marks: list[Mark], text: str) -> list[Mark]:
    """Without the last marks that say nothing against a strong one before them.

    These are sentences and headings without a readable number. One that hedges stays: "18 or 20".
    """
    while len(marks) > 1 and any(mark.is_strong for mark in marks[:-1]):
        last = marks[-1]
        if last.is_strong or is_number(last.answer) or is_hedged(text[last.start : last.end]):
            break
        marks = marks[:-1]
    return marks


def joined_boxes(marks: list[Mark], text: str) -> str | None:
    r"""The last boxes as one answer, if only commas, "and" or "or" stand between them, else None.

    "$x=\boxed{3}$ and $x=\boxed{5}$" -> "x=3, x=5"
    """
    parts = []
    words = set()
    first = marks[-1]
    for before in marks[-2::-1]:
        if not (before.is_box and first.is_box):
            break
        joint = joint_of(text[before.end : first.start])
        if not joint:
            break
        words.add(joint["word"])
        parts.append(named(first.answer, joint["name"]))
        first = before
    if not parts:
        return None
    name = NAME_IN_FRONT.search(undecorated(text[max(0, first.start - 40) : first.start]))
    parts.append(named(first.answer, name[1] if name else None))
    if len(set(parts)) == 1:
        return parts[0]
    return (" \\text{ or } " if "or" in words else ", ").join(reversed(parts))


def joint_of(between: str) -> re.Match | None:
    """What joins two boxes to a list, or None if something else stands between them."""
    if len(between) > MAX_BETWEEN:
        return None
    plain = undecorated(between)
    joint = JOINT.fullmatch(plain)
    is_joint = joint and (joint["word"] or "," in plain or ";" in plain)
    return joint if is_joint else None


def undecorated(text: str) -> str:
    return re.sub("[{}]", "", DECORATION.sub(" ", text))


def named(answer: str, name: str | None) -> str:
    return answer if name is None or "=" in answer else f"{name}={answer}"
