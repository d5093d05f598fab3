r"""Is an answer taken back, or doubted, by the words before and behind it?

    takes_back("18", ". Wait, that is wrong.")                          -> True
    takes_back("18", ". Wait, let me check: 2 * 9 = 18. Yes.")          -> False
    takes_back("18", " or 20")                                          -> True
    takes_back(r"\frac12", " or 0.5")                                   -> False

In the expressions a blank that is meant is written `[ ]` (re.VERBOSE).
"""

import re

from data import latex
from data.answer_in_words import agrees_rounded, bare

FLAGS = re.VERBOSE | re.IGNORECASE

BEFORE = re.compile(  # "not \boxed{18}", "it can't be \boxed{18}", "rather than \boxed{18}"
    r"""
    (?: \b (?: not | never | cannot | \w+n['\u2019]t ) \s+
        (?: (?: be | equal | to | simply | just | only ) \s+ )?
      | \b (?: rather \s than | instead \s of ) \s+
      | \b (?: wrong | incorrect | tempting ) \s+ answer \s+ (?: is | would \s be ) \s+
    )
    [\s$*({\\]* \Z
    """,
    FLAGS,
)

# The words "or": what follows them must say the same.
OR = re.compile(r"\A [^\w\n]* (?: text\{ \s* )? or \b (?P<other> [^\n]{0,80} )", FLAGS)
ABOUT = re.compile(r"(?: \W | \\approx | about | approximately | roughly | text )*", FLAGS)
END_OF_SENTENCE = re.compile(r"[.;!?,] (?: \s | \Z )", FLAGS)

# Explicit: nothing that follows makes it good.
EXPLICIT = re.compile(
    r"""
    \A [^\w\n.!?]*                                  # "is wrong", "cannot be the answer", "(wrong)"
    (?: (?: is | was | seems | looks ) [ ] (?: \w+ [ ] )?
        (?: wrong | incorrect | mistaken | false | impossible ) \b
      | (?: is | was ) (?: n['\u2019]t | [ ] not ) [ ]
        (?: correct | right | possible | valid
          | the [ ] (?: \w+ [ ] )? (?: answer | solution | result ) ) \b
      | can (?: not | ['\u2019]t | [ ] not ) [ ] be [ ]
        (?: right | correct | true | so | the [ ] (?: \w+ [ ] )? answer ) \b
      | (?: wrong | incorrect ) \b
    )
  | \A [^\w\n.!?]*                                  # "maybe", or "perhaps 20"
    (?: maybe | perhaps | possibly | probably | alternatively ) \b
    (?: \W* (?: [.!?\n] | \Z ) | [^.\n0-9]{0,20} [0-9] )
  | \A [^\w\n]* (?: \w+ [ ] ){0,3} could [ ] also [ ] be \b
  | \A [^\w\n]* another [ ] possible [ ] (?: answer | value | solution ) \b
  | (?: \A | [.!?;\n] ) \W* no [,.:;!] \W* (?: it (?: 's | [ ]is ) )? \W* [0-9]    # "No, 20."
  | \b (?: that | this | it | which | answer | i )  # "that's wrong", "this result is not right"
    (?: [ ] (?: result | answer | value | solution ) )?
    (?: 's | [ ]is | [ ]was | [ ]am )?
    [ ] (?: \w+ [ ] )?
    (?: wrong | incorrect | mistaken | not[ ]right | not[ ]correct ) \b
    (?! - | [ ] angle | [ ] of \b | [ ] to \b )     # "it is not right-angled", "wrong to think"
  | \b (?: that | this | it ) [ ]                   # "that can't be right"
    (?: can (?: not | ['\u2019]t ) [ ] be | does (?: n['\u2019]t | [ ] not ) [ ] (?: seem | look ) )
    [ ] (?: right | correct ) \b
  | (?<! maybe [ ] ) \b i[ ]made[ ]an? [ ] (?: \w+ [ ] )? (?: mistake | error ) \b
  | \b i [ ] (?: apologize | misread | misunderstood ) \b
  | \b there [ ] is [ ] an? [ ] (?: error | mistake ) \b
  | (?: \A | [.!?;\n] ) \W* (?: on [ ] second [ ] thought | never [ ]? mind | edit: )
  | \b let [ ] me [ ] correct \b
    """,
    FLAGS,
)

# Second thoughts, which may end well.
SECOND_THOUGHT = re.compile(
    r"""
    (?: \A | [.!?;\n] ) \W*                         # a sentence that begins with "No, wait"
    (?: (?: but | no | oh | hmm | sorry ) \W+ )*
    (?: wait | actually | oops | correction | scratch[ ]that ) \b
    """,
    FLAGS,
)
CONFIRMED = re.compile(
    r"""
    \b (?: yes | good | great ) \b
  | (?<! not [ ] ) \b (?: correct | right ) [.!\n] | \b is [ ] (?: indeed [ ] )? correct \b
  | \b it [ ] (?: works | holds | does ) \b | \b checks [ ] out \b
  | \b there [ ] is [ ] a [ ] (?: shorter | simpler | faster | quicker | nicer | easier ) \b
    """,
    FLAGS,
)

# Another number where the answer should be: "However, the correct answer is 9."
CORRECTION = re.compile(
    r"""
    \b (?: (?: correct | right | actual ) [ ] (?: answer | value | result | one ) [ ]
           (?: is | should [ ] be | would [ ] be )
         | should [ ] be | it (?: 's | [ ] is ) [ ] actually | i [ ] mean
         | i [ ] get (?= [ ] \W* [0-9.,]+ \W* instead )
       )
    \s [^\w\n]* (?P<number> [0-9][0-9,]* (?: \.[0-9]+ )? )
    (?! [0-9\\/^\u221a] )
    """,
    FLAGS,
)


def denies(before: str) -> bool:
    """Do the last words before an answer say that it is none?"""
    return bool(BEFORE.search(before))


def takes_back(answer: str, behind: str) -> bool:
    """Do the words behind an answer take it back, doubt it, or give another one?"""
    other = OR.match(behind)
    if other:
        return not says_the_same(answer, other["other"])
    if EXPLICIT.search(behind):
        return True
    if SECOND_THOUGHT.search(behind) and not CONFIRMED.search(behind):
        return True
    for correction in CORRECTION.finditer(behind):
        if not latex.equal(correction["number"], bare(answer), any_order=True):
            return True
    return False


def says_the_same(answer: str, other: str) -> bool:
    """ "or 0.5." behind one half; also with the rounded value of an exact answer."""
    other = other[ABOUT.match(other).end() :]
    end = END_OF_SENTENCE.search(other)
    other = bare((other[: end.start()] if end else other).rstrip(" .$})\\"))
    return latex.equal(other, bare(answer), any_order=True) or agrees_rounded(answer, other)
