r"""An answer with words or sums around it, and what is left when they are taken off.

    bare("50 - 9 = 41")                         -> "41"
    bare("Day 12")                              -> "12"
    bare_sentence("72, which is the total")     -> "72"
    bare_sentence("72 (73 with tax)")           -> the same text: two numbers, no answer

Something is taken off only if it says nothing else than the answer: the sides of an equation must
all have the value of the last one, a remark in brackets may name no other number, and no word may
hedge. What cannot be taken off stays, and then the text is read as it stands, or not at all.
"""

import re
import unicodedata
from fractions import Fraction

from data import latex
from data.answer_forms import as_range, same_choice, same_range, same_ratio
from data.exact import as_float, computed
from data.latex_clean import clean
from data.latex_tokens import number, split_top, tokenize
from data.latex_units import HEDGES, NOT_UNITS, is_name, is_unit, split_scale, split_unit

# --- words ----------------------------------------------------------------------------------------

SPELLED = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
    sixteen seventeen eighteen nineteen
""".split()
NUMBER_WORDS = {word: i for i, word in enumerate(SPELLED)}
for i, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split()):
    NUMBER_WORDS[word] = 20 + 10 * i
MULTIPLES = {"thousand": 1_000, "million": 1_000_000}
SPELLING_WORDS = set(NUMBER_WORDS) | set(MULTIPLES) | {"hundred"}

HARMLESS = set("and about around when where with over".split())
DOUBTS = (HEDGES - HARMLESS) | set(  # words that hedge, or take back what stands before them
    "wrong incorrect false wait actually but instead except unless without versus guess unsure "
    "nope approx approximate circa estimated nearly almost if though although however rather "
    "otherwise alternatively else could might may should would no isn aren wasn t assuming "
    "supposing provided given suppose actual correct corrected correction sorry oops hmm fact "
    "plus minus least most minimum maximum min max".split()
)
ALL_DOUBTS = DOUBTS | (NOT_UNITS - HARMLESS - SPELLING_WORDS)
ALL_DOUBTS |= set("binary ternary octal hexadecimal hex".split())
NO_LABELS = (  # "Over 18" is not 18
    ALL_DOUBTS
    | HARMLESS
    | SPELLING_WORDS
    | set(
        "step part case check verify verification note problem question example section method "
        "solution to from of at by in per for after before past within near close up down off "
        "twice thrice quadruple quintuple times subtract multiply divide "
        "pi less fewer more never excluding omitting top bottom exceeds exceeding greater every "
        "any all some square cube arcsin arccos arctan sinh cosh tanh gcd lcm det".split()
    )
)
CONNECTIVES = set(  # a tail with a number in it begins with one of these, or is a PLACE
    "so which since because as where while when that who making meaning leaving giving thus hence "
    "therefore".split()
)
HEADINGS = set(  # of lines "#### Step 2", which hold no answer
    "step part case check checking verify verifying verification note notes problem question "
    "example section method solution proof explanation reasoning why how what where when which "
    "given let find finding calculate calculating compute computing determine determining".split()
)
CONCLUDES = re.compile(  # "72, so 73": what follows is an answer, too
    r"(?: so | thus | hence | therefore | making | giving | meaning"
    r" | which \s+ (?: makes | means | gives | equals ) ) \b",
    re.VERBOSE | re.IGNORECASE,
)
GOES_ON = SPELLING_WORDS | set(  # "5, and 3 more"
    "and times half double twice about around over dozen dozens".split()
)
CURRENCIES = "Rs|INR|USD|US|EUR|GBP|CAD|AUD|NZD|SGD|HKD|NT|JPY|CNY|RMB|RM|PHP|Php|BDT|Tk|NGN|KES"

# --- what stands in front and behind --------------------------------------------------------------

AROUND = " \t\r\n*_`:"
# "=> 18", "Therefore, 18", "Total: $18"
ARROW = re.compile(r"(?:[=-]>|\u2192|\u21d2|\u2234|\\Rightarrow|\\therefore|\\to)\s*")
CONCLUSION = re.compile(r"(?:So|Thus|Hence|Therefore),?\s+")
LABEL_WITH_COLON = re.compile(r"([A-Za-z][A-Za-z '-]{1,40}?)\s*:\s*(?=[\\$({\[-]{0,4}\s*\.?[0-9])")
SENTENCE = re.compile(  # "She has 18 apples left."
    r"""
    (?P<words> [A-Za-z] [A-Za-z'\s]* \s )
    (?: is | are | was | were | has | have | had | makes? | made | earns? | earned | costs? | needs?
      | gets? | got | pays? | paid | spends? | spent | sells? | sold | takes? | took | gives? | gave
      | equals | buys? | bought | eats? | ate | uses? | used | owes? | saves? | saved | weighs?
      | receives? | received | walks? | runs? | reads? | bakes? | drives? | leaves? ) \s+
    (?: (?: exactly | only | a \s total \s of ) \s+ )?
    (?P<value> \\?\$? \s* -?[0-9] [0-9,]* (?: \.[0-9]+ )? [^0-9]* )
    """,
    re.VERBOSE,
)
IS_THE_ANSWER = re.compile(  # "18 is the final answer."
    r"\s+is the (?:final |correct |right )?(?:answer|total|result)\W*\Z", re.IGNORECASE
)
DENIAL = re.compile(  # "72, not 73"
    r"""
    (?<=[\w%]) \s* [,(]? \s* (?: (?: and | but ) \s )?
    (?: not | rather \s than | instead \s of ) \s \$? [0-9][0-9,.]* [a-z\s]* \)? [\s.]* \Z
    """,
    re.VERBOSE,
)
BEHIND = AROUND + ",;"
LABEL = re.compile(  # "Rs. 500", "Day 12", "US $5"; the word is one of its own
    rf"""
    (?: (?: {CURRENCIES} ) (?![A-Za-z]) \.? | (?P<word> [A-Z]?[a-z]{{2,}} ) [ ] )
    [ ]* \\?\$?
    (?= -?\.?[0-9] )
    """,
    re.VERBOSE,
)
LABEL_WORDS = set(  # may also stand in small letters
    "day week month year page room grade age number chapter level team row column bus class group "
    "house position total sum result".split()
)
TAIL = re.compile(r"[,;]\s*(?=[A-Za-z])")  # "72, which is the total", but not "72, 73"
REMARK = re.compile(r"(.*[^\s(])\s+\(([^()]*)\)[\s.]*", re.DOTALL)  # "41 (forty-one)"
PLACE = re.compile(  # "in 8 days", "out of 20 eggs"
    r"\s* (?: in | out[ ]of | of | for | from | at | after | per | on | during | by | within )"
    r"\s+ \$? [0-9][0-9,.]* \s+ [a-z\s]+",
    re.VERBOSE | re.IGNORECASE,
)
WORDS = re.compile(r"[A-Za-z\s,.'-]*[A-Za-z]{2}[A-Za-z\s,.'-]*")
SUM = re.compile(r"[0-9)]\s*[-+*/x\u00d7\u00f7=]")
QUALIFIER = re.compile(  # "for all real x", "where n is an integer"
    r"""
    [,;]? \s* [(\[]? \s*
    (?P<words> \b
        (?: for \s+ (?: all | any | every | each | some | arbitrary | integers? | real )
          | where | with | in \s which )
        \b [A-Za-z,\s\\{}-]* )
    [)\]]? \s* \Z
  | [,;\s(] \s* [a-zA-Z] \s* \\in \s*               # "n \in \mathbb{Z}"
    \\mathbb \s* \{? \s* [ZNQRC] \s* \}? \s* \)? \s* \Z
    """,
    re.VERBOSE,
)
SETS = {"integer": "Z", "whole": "N", "natural": "N", "rational": "Q", "real": "R", "complex": "C"}
WORDS_OF_QUALIFIERS = set(
    "for all any every each some arbitrary where with in which real reals number numbers integer "
    "integers natural whole rational complex positive nonnegative value "
    "values constant constants is are a an of the and be can mathbb".split()
)


HEDGE = re.compile(  # "18 or 20", "maybe 18", "not 18", "18-20", "18 to 20"
    r"""
    \b (?: maybe | perhaps | possibly | probably | either | between ) \b
  | \b or \b [^\w.]* (?: \w+ \s+ ){0,2} \W* (?: [0-9] | so\b | more\b | less\b | fewer\b )
  | \A \W* not \b | \u00b1 | \\pm \b
  | \A \W* [0-9][0-9,.]* (?: [-\u2013\u2014] | \s to \s ) \$? [0-9]
    """,
    re.VERBOSE | re.IGNORECASE,
)


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def is_hedged(text: str) -> bool:
    """Does the text offer several numbers? A number in words after "or" counts as one."""
    words = words_of(text)
    for word, after in zip(words, words[1:]):
        if word == "or" and after in SPELLING_WORDS:
            return True
    return bool(HEDGE.search(text))


# --- a sentence or a line -------------------------------------------------------------------------


def bare_sentence(text: str) -> str:
    """What a line or a sentence claims: `bare`, without what follows a comma or stands in brackets.

    "72 clips, altogether" -> "72 clips", "41 (forty-one)" -> "41", "13, 5" -> "13, 5"
    """
    if len(text) > latex.MAX_ANSWER:
        return text
    text = DENIAL.sub("", without_pictures(text))
    text = without_tail(text).rstrip(BEHIND)
    return bare(without_remark(text, sums=True))


def without_pictures(text: str) -> str:
    """Without signs such as a tick or a smile at the end."""
    text = text.rstrip()
    while text and unicodedata.category(text[-1]) in ("So", "Mn") and text[-1] != "\u00b0":
        text = text[:-1].rstrip()
    return text


def without_tail(text: str) -> str:
    """Without what follows the first comma or semicolon with a word behind it.

    The tail may neither go on with the answer, as in "5, and 3 more" or "Ann 5, Bob 3", nor doubt,
    nor conclude with another number: "72, so 73".
    """
    comma = TAIL.search(text)
    if not comma:
        return text
    tail = text[comma.end() :]
    words = words_of(tail)
    first = words[0]
    numbers = re.findall(r"[0-9][0-9,]*(?:\.[0-9]+)?", tail)
    goes_on = len(first) == 1 or first in GOES_ON
    if numbers and first not in CONNECTIVES and not PLACE.match(tail):
        goes_on = True
    if "=" in tail or CONCLUDES.match(tail) and numbers:
        goes_on = goes_on or not numbers or not says_again(text[: comma.start()], tail, numbers)
    return text[: comma.start()] if not goes_on and DOUBTS.isdisjoint(words) else text


def says_again(answer: str, tail: str, numbers: list[str]) -> bool:
    """Does the tail's result have the value of the answer? "72, because 8 * 9 = 72"."""
    result = tail.rpartition("=")[2] if "=" in tail else numbers[0]
    return value_of(bare(result)) == value_of(bare(answer)) is not None


def without_remark(text: str, sums: bool) -> str:
    """Without the brackets at the end if what they hold agrees: 41 (forty-one), 12 (eggs).

    `sums` allows numbers in them: 72 (8 * 9), 12 (out of 20 eggs).
    """
    remark = REMARK.fullmatch(text) if text.rstrip(" .").endswith(")") else None
    if not remark:
        return text
    before, inside = remark.groups()
    value = value_of(bare(before))
    if not isinstance(value, Fraction) or not ALL_DOUBTS.isdisjoint(words_of(inside)):
        return text
    if re.search("[0-9]", inside):
        is_sum = SUM.search(inside) and value_of(equation_result(inside)) == value
        return before if sums and (is_sum or PLACE.fullmatch(inside)) else text
    if not WORDS.fullmatch(inside) or spelled_number(inside) not in (None, value):
        return text
    if before[-1].isdigit() and all(is_unit(word) for word in inside.split()):
        return f"{before} {inside}"  # it may be compared with the reference answer's
    return before


def spelled_number(text: str) -> int | None:
    """The number in words that a text holds: "forty-one eggs" -> 41, "eggs" -> None.

    Of several numbers, as in "two of three", the result is none that was meant.
    """
    total = 0
    part = 0
    found = False
    for word in words_of(text):
        if word in NUMBER_WORDS:
            part += NUMBER_WORDS[word]
        elif word == "hundred":
            part = max(part, 1) * 100
        elif word in MULTIPLES:
            total += max(part, 1) * MULTIPLES[word]
            part = 0
        found = found or word in SPELLING_WORDS
    return total + part if found else None


# --- any answer -----------------------------------------------------------------------------------


def bare(text: str) -> str:
    """Without a label or an equals sign in front, and only the result of an equation."""
    if len(text) > latex.MAX_ANSWER:
        return text
    text = text.strip(AROUND)
    for in_front in (ARROW, CONCLUSION):
        opening = in_front.match(text)
        text = text[opening.end() :] if opening else text
    text = IS_THE_ANSWER.sub("", text.lstrip(AROUND + "="))
    return equation_result(number_of_sentence(without_label(text)))


def number_of_sentence(text: str) -> str:
    """What a sentence with one number says: "She has 18 apples left." -> "18 apples left."."""
    sentence = SENTENCE.fullmatch(text)
    if not sentence or not (ALL_DOUBTS | {"if"}).isdisjoint(words_of(sentence["words"])):
        return text
    return sentence["value"]


def without_label(text: str) -> str:
    label = LABEL_WITH_COLON.match(text)
    if label and (ALL_DOUBTS | HEADINGS - {"solution"}).isdisjoint(words_of(label[1])):
        return text[label.end() :]
    label = LABEL.match(text)
    if not label:
        return text
    word = label["word"]
    if word and (word.lower() in NO_LABELS or word[0].islower() and word not in LABEL_WORDS):
        return text
    value = text[label.end() :]
    return value if len(value.split()) <= 2 else text  # "Week 7", but not "Why 3 steps are enough"


def equation_result(text: str) -> str:
    """The last side of an equation between constants that holds: "9 * 5 = 45 cm" -> "45 cm".

    A name may stand first, and "5 = x" becomes "x=5". Of an equation that does not hold, the text
    comes back as it is.
    """
    if "=" not in text or len(text) > latex.MAX_ANSWER:
        return text
    name, *sides = split_top(clean(text), "=")
    if len(sides) == 1 and not is_name(name) and LETTER.fullmatch(sides[0]):
        return f"{sides[0].strip()}={name}"
    if not is_name(name):
        sides = [name, *sides]
        name = ""
    if len(sides) < 2:
        return text
    last = value_of(sides[-1])
    if last is None or any(value_of(side) != last for side in sides[:-1]):
        return text
    shown = sides[-1]
    if not is_number(shown) and is_number(sides[0]):  # 18 = 20 - 2
        shown = sides[0]
    return f"{name}={shown}" if name else shown.strip()


def is_number(text: str) -> bool:
    """Is this one number, or a list or a pair of numbers, when what is around it is taken off?"""
    return latex.is_readable(text, only_numbers=True)


LETTER = re.compile(r"\s*[A-Za-z]\s*")
DECIMAL = re.compile(r"-?[0-9]{0,20}\.[0-9]{1,20}")
TIMES = re.compile(r"(?<=[0-9)])\s*x\s*(?=[0-9(])")  # 3 x 15
WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]+")


def value_of(text: str) -> Fraction | tuple | None:
    """The value of one side of an equation, whose units do not count: 8 hours * 9 is 72."""
    text = latex.THOUSANDS.sub(latex.without_commas, clean(text))
    text, _ = split_unit(latex.unwrap(text))
    text, scale = split_scale(text)
    text = TIMES.sub("*", text)
    text = WORD.sub(lambda m: "" if is_unit(m[0]) else m[0], text)
    tokens = tokenize(latex.unwrap(text))
    value = number(tokens)
    if value is None:
        value = computed(tokens)
    return value * scale if isinstance(value, Fraction) else value


# --- comparing ------------------------------------------------------------------------------------


def agree(found: str, answer: str, any_order: bool) -> bool:
    """Do they mean the same, as they stand or when what is around them is taken off?"""
    if latex.equal(found, answer, any_order) or found == answer:
        return True
    if max(len(found), len(answer)) > latex.MAX_ANSWER:
        return False
    for same in (same_choice, same_range, same_ratio):
        if same(clean(found), clean(answer)):
            return True
    found, range_found = split_qualifier(clean(without_rounding(found.rstrip(BEHIND))))
    answer, range_answer = split_qualifier(clean(answer))
    sets = {range_found, range_answer}
    if len(sets) == 2 and "" not in sets and not are_alike(sets):
        return False
    if len(sets) == 2 and not sets <= {"", "R"} and "" in sets and as_range(answer):
        return False  # x > 3 among the integers
    return latex.equal(without_remark(bare(found), sums=False), answer, any_order)


def decimal_in(text: str) -> str | None:
    """The decimal of "3.46" and "3.46 cm"; None for all else."""
    decimal, _ = split_unit(latex.unwrap(clean(text)))
    return decimal if DECIMAL.fullmatch(decimal) else None


def agrees_rounded(exact: str, rounded: str) -> bool:
    """Is this decimal what rounding makes of the exact value?"""
    decimal = decimal_in(rounded)
    value = value_of(bare(clean(exact)))
    if decimal is None or value is None:
        return False
    half = Fraction(1, 2 * 10 ** len(decimal.partition(".")[2]))  # of its last digit
    near = value if isinstance(value, Fraction) else as_float(value)
    return near is not None and abs(near - Fraction(decimal)) <= half


def without_rounding(text: str) -> str:
    r"""The exact value of "\frac{1}{3} \approx 0.33"; as it is if the two don't agree."""
    exact, *rounded = split_top(clean(text), "\\approx")
    if len(rounded) != 1 or decimal_in(rounded[0]) is None:
        return text
    is_known = value_of(bare(exact)) is not None
    return text if is_known and not agrees_rounded(exact, rounded[0]) else exact


def split_qualifier(text: str) -> tuple[str, str]:
    """(answer, set of numbers): "3x - 2 for all real x" -> ("3x - 2", "R")."""
    qualifier = QUALIFIER.search(text)
    if not qualifier or not text[: qualifier.start()].strip():
        return text, ""
    words = words_of(qualifier["words"] or "")
    for word in words:
        if len(word) > 1 and word not in WORDS_OF_QUALIFIERS | {"in"}:
            return text, ""
    return text[: qualifier.start()], set_of_numbers(qualifier[0])


def set_of_numbers(text: str) -> str:
    r"""The letter of the set that a qualifier names: "Z" for integers; "" if it names none."""
    letter = re.search(r"\\mathbb\s*\{?\s*([ZNQRC])", text)
    if letter:
        return letter[1]
    sign = re.search("positive|nonnegative|negative", text)
    for word, name in SETS.items():
        if word in text:
            return f"{sign[0]} {name}" if sign else name
    return ""


def are_alike(sets: set[str]) -> bool:
    """The natural numbers may begin with 0 or with 1."""
    return "N" in sets and bool(sets & {"positive Z", "nonnegative Z"})
