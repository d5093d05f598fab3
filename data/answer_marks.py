r"""The words and signs around an answer, as regular expressions; data/grader.py uses them.

In these expressions blanks and comments are left out when they are read (re.VERBOSE), so a blank
that is meant is written `[ ]`.
"""

import re

# GSM8K's own mark, "#### 18": the rest of the line, up to a second mark.
HASHES = re.compile(r"\#{4,} ( (?: (?!\#\#\#\#) [^\n] )* )", re.VERBOSE)

# Plain words: "The answer is 18", "**Answer:** 18", a line "A: 18".
CLAIM = re.compile(
    r"""
    (?: \b answer \** [ ]{0,3} (?: is | = | : )     # "answer is", "answer** :"
      | ^ [ \t]* A:                                 # or a line that begins with "A:"
    )
    [ :]{0,3}
    (?= [-\u2212+$\\(* ]{0,5} [.0-9] )              # a number follows, perhaps behind "$" or "**"
    (?= (                                           # and this is the answer: to the sentence's end
        (?: (?! \. \s                               # "18. She ..." is 18, but "1.5 miles" stays
              | \s (?: because | since ) \s )
            [^\n]
        ){0,200}
    ) )
    """,
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
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
    )
  | (?<![\w:\\]) (?<!and[ ]) (?<!,[ ])              # or, inside of a line, "Q: " and the like, but
    (?: Question | Problem | Q )                    #   not "the line through P and Q: y = x"
    [ ]? \#? [0-9]{0,3} \** :
    """,
    re.VERBOSE | re.MULTILINE,
)

# Looked for right after an answer: "\boxed{18} or 20", "#### 18\nWait, that is wrong".
TAKEN_BACK = re.compile(
    r"""
    \A [^\w\n]* (?: text\{ \s* )? or \b             # "or", also as "\text{ or"
  | (?: \A | [.!?;\n] ) \W*                         # a sentence that begins with "No, wait"
    (?: (?: but | no | oh | hmm | sorry ) \W+ )*
    (?: wait | actually | oops | correction | scratch[ ]that ) \b
  | \b (?: that | this | it | which | answer | i )  # "that's wrong", "it is clearly not right"
    (?: 's | [ ]is | [ ]was | [ ]am )?
    [ ] (?: \w+ [ ] )?
    (?: wrong | incorrect | mistaken | not[ ]right | not[ ]correct ) \b
  | \b i[ ]made[ ]an? [ ] (?: \w+ [ ] )? (?: mistake | error ) \b
    """,
    re.VERBOSE | re.IGNORECASE,
)

# All that stands between two answers: "\boxed{18} or \boxed{20}".
EITHER_OR = re.compile(
    r"\W* (?: text\{ \s* )? or \b \W* (?: boxed \W* )?", re.VERBOSE | re.IGNORECASE
)
