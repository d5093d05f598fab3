r"""What stands beside a value: the "x =" before it and the "cm" behind it."""

import re

from data.latex_terms import RELATIONS

# --- words ----------------------------------------------------------------------------------------

UNIT_SPELLINGS = """
    nm nanometer nanometers
    mm millimeter millimeters millimetre millimetres
    cm centimeter centimeters centimetre centimetres
    dm decimeter decimeters decimetre decimetres
    m meter meters metre metres
    km kilometer kilometers kilometre kilometres
    in inch inches
    ft foot feet
    yd yard yards
    mi mile miles
    mg milligram milligrams
    g gram grams
    kg kgs kilogram kilograms
    lb lbs pound pounds
    oz ounce ounces
    ml mL milliliter milliliters millilitre millilitres
    cl centiliter centiliters
    pint pints
    quart quarts
    tsp teaspoon teaspoons
    tbsp tablespoon tablespoons
    l L liter liters litre litres
    ms millisecond milliseconds
    microsecond microseconds
    nanosecond nanoseconds
    micrometer micrometers micron microns
    revolution revolutions
    s sec second seconds
    min mins minute minutes
    h hr hrs hour hours
    day days
    week weeks
    month months
    year years
    decade decades
    century centuries
    cent cents penny pennies
    nickel nickels
    dime dimes
    pence
    peso pesos
    rupee rupees
    yen
    watt watts
    kw kW kilowatt kilowatts
    joule joules
    kilojoule kilojoules
    volt volts
    hectare hectares
    byte bytes
    kilobyte kilobytes
    megabyte megabytes
    gigabyte gigabytes
    dollar dollars USD usd
    mi/h mph
    km/h kmh kph
    sq
    degree degrees
    radian radians
    percent
    Celsius
    Fahrenheit
    gal gallon gallons
    cup cups
    ton tons
    acre acres
    euro euros
"""  # one unit a line, its first spelling is the one that is compared
UNITS = {}
for line in UNIT_SPELLINGS.split("\n"):
    for spelling in line.split():
        UNITS[spelling] = line.split()[0]

SMALL_WORDS = set("a an of at on by US".split())
HEDGES = set(
    "and or not nor either neither maybe perhaps possibly probably approximately about around "
    "roughly".split()
)
NOT_UNITS = HEDGES | set(  # words that change the value, hedge, or take it back
    "between through until plus minus under above below than least most minimum maximum max "
    "beyond upto mod modulo base remainder point half halves quarter quarters mille hundred "
    "thousand million billion trillion hundreds thousands millions billions trillions quadrillion "
    "mil bil lakh crore tens dozen dozens score grand double triple gross "
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety "
    "squared cubed factorial reciprocal inverse divided multiplied root power negative choose sin "
    "cos tan cot sec csc log exp sqrt alpha beta gamma theta phi infinity wrong incorrect false "
    "wait actually but instead except without unless versus something add added when where such "
    "repeating recurring doubled tripled halved quadrupled quintillion "
    "with ish nope guess unsure itself pqr".split()
)
ORDINALS = (
    "third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
    "fifteenth sixteenth seventeenth eighteenth nineteenth twentieth thirtieth fortieth fiftieth "
    "sixtieth seventieth eightieth ninetieth hundredth thousandth millionth billionth trillionth"
).split()
for word in ORDINALS:  # "5 eighths"
    NOT_UNITS |= {word, word + "s"}
UNIT_WORDS = 8  # at most so many words of unit are read
SCALES = {
    "dozen": 12,
    "hundred": 100,
    "thousand": 10**3,
    "lakh": 10**5,
    "million": 10**6,
    "crore": 10**7,
    "billion": 10**9,
    "trillion": 10**12,
}


# --- names ----------------------------------------------------------------------------------------

EQUATION = re.compile(r"(?s)([^=]{1,40}?)(?:=|\\in(?![A-Za-z]))([^=]*)")  # x = 5, x \in [0,1]
NAME = re.compile(
    r"""
    [A-Za-z\\ ]+                            # x, \angle ABC
    (?: \{ [A-Za-z ]+ \} )?                 # \overline{AB}
    (?: _ \{? [A-Za-z0-9\\ ]+ \}? )?        # v_{20}, x_{\max}
    '*
    (?: \^\{-1\} )?                         # f^{-1}
    (?: \s* \( [-A-Za-z0-9,\\ ]+ \) )?     # f(x), f(-2), P(A \cap B)
  | \( [A-Za-z,\\ ]+ \)                     # (x, y), (r, \theta)
  | [a-wA-W] (?: \s* \+ \s* [a-wA-W] )+    # m + n; but x + y = 5 is a line
  | \| (?: [A-Z]{2,3} | z ) \|              # lengths and sizes
  | \[ [A-Z]{3,5} \] | E \[ [A-Z] \]        # areas, expectations
  | \\frac \{ (?: [A-Z]{2} | d[a-z] ) \} \{ (?: [A-Z]{2} | d[a-z] ) \}
    """,
    re.VERBOSE,
)
GREEK_LETTER = re.compile(
    r"\\(?:alpha|beta|gamma|delta|epsilon|theta|lambda|mu|rho|sigma|tau|phi|psi|omega)"
)
TRIGONOMETRIC = re.compile(r"\\(?:arc)?(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
AT_NUMBER = re.compile(r"([A-Za-z])('+|\^\{-1\})?\((-?[0-9]+)\)")  # f(2), f'(2)
INDEXED = re.compile(r"([A-Za-z])_\s*\{?\s*([0-9]+)\s*\}?")  # a_5
PAIR_OF_LETTERS = re.compile(r"\(([A-Za-z,\\ ]+)\)")  # (x, y)
USUAL_ORDERS = (["x", "y", "z"], ["a", "b", "c", "d"], ["r", "\\theta", "z"])
FORMULA = re.compile(  # f(x), and what is made of a letter: f'(x), y', x^{-1}, |z|, dy/dx
    r"""
    (?P<letter> [A-Za-z] ) (?P<change> '+ | \^\{-1\} )? (?: \s* \( (?P<argument> [a-z] ) \) )?
  | (?P<bar> \| | \\overline \s* \{? ) \s* [a-z] \s* [|}]?
  | (?P<other> \\(?: arg | sinh | cosh | tanh | lfloor | lceil ) ) \s* [a-z] (?: \s* \\r[a-z]+ )?
  | \\frac \s* \{ \s* d \s* (?P<of> [a-z] ) \s* \} \s* \{ \s* d [a-z] \s* \}
    """,
    re.VERBOSE,
)
NOT_IN_NAMES = HEDGES | RELATIONS  # "\sqrt x = 5" does not say what x is
NOT_IN_NAMES |= {"\\pm", "\\neg", "\\not", "\\sim", "\\sqrt", "\\log", "\\ln", "\\exp"}


EVENT = re.compile(r"P\s*\([^()]{2,30}\)")  # P(A \cap B), P(X = 2)
NESTED = re.compile(r"[a-zA-Z]\([a-zA-Z]\(-?[0-9]+\)\)")  # f(g(2))
OF_EVENT = re.compile(rf"({EVENT.pattern})\s*=\s*([^=]*)")
OF_NESTED = re.compile(rf"({NESTED.pattern})\s*=\s*([^=]*)")


def split_name(text: str) -> tuple[str, str | None]:
    r"""(value, name): "x = 5" -> ("5", "x"), "x \in [0,1]" -> ("[0,1]", "x"), "5" -> ("5", None).

    A computation before the "=" is not a name. Names that are not compared are dropped: "x = 5" is
    not "y = 5", but "\text{Area} = 5" may be "A = 5". See `names_differ`.
    """
    for pattern in (OF_EVENT, OF_NESTED):
        m = pattern.fullmatch(text)
        if m:
            return m[2], m[1].replace(" ", "")
    m = EQUATION.fullmatch(text)
    if not m or not is_name(m[1]):
        return text, None
    name = " ".join(m[1].split())
    pair = PAIR_OF_LETTERS.fullmatch(name)
    names = [letter.strip() for letter in pair[1].split(",")] if pair else []
    if usual_order(names) not in (None, names):  # (y, x) = (3, 4)
        return text, None
    compared = is_letter(name) or TRIGONOMETRIC.match(name)
    for pattern in (AT_NUMBER, INDEXED, FORMULA):
        compared = compared or pattern.fullmatch(name)
    return m[2], name if compared else None


def usual_order(names: list[str]) -> list[str] | None:
    """["y", "x"] -> ["x", "y"], theta, r -> r, theta; None for names without a usual order."""
    for order in USUAL_ORDERS:
        if len(names) > 1 and set(names) <= set(order):
            return sorted(names, key=order.index)
    return None


def names_differ(name: str, other: str) -> bool:
    r"""True of x and y, \sin x and \cos x, \sin x and x, f(2) and f(3); but not of f(2) and y."""
    if TRIGONOMETRIC.match(name) or TRIGONOMETRIC.match(other):
        return re.sub("[() ]", "", name) != re.sub("[() ]", "", other)
    for pattern in (AT_NUMBER, INDEXED):
        one = pattern.fullmatch(name)
        two = pattern.fullmatch(other)
        if one and two:
            return one[1] == two[1] and one.groups() != two.groups()
    for pattern in (EVENT, NESTED):
        if pattern.fullmatch(name) and pattern.fullmatch(other):
            return name != other
    formula = FORMULA.fullmatch(name)
    other_formula = FORMULA.fullmatch(other)
    if formula and other_formula and formulas_differ(formula, other_formula):
        return True
    return is_letter(name) and is_letter(other) and name != other


def formulas_differ(one: re.Match, other: re.Match) -> bool:
    """True of f(x) and f'(x), y and dy/dx, f(x) and x, f(x) and f(y); not of f(x) and y."""
    kinds = {kind_of_change(one), kind_of_change(other)}
    if len(kinds) > 1:  # but an inverse may be called y
        return kinds != {"", "^{-1}"} or one["letter"] == other["letter"]
    if one["of"] and other["of"]:  # dy/dx and dx/dy
        return one["of"] != other["of"]
    arguments = {one["argument"], other["argument"]} - {None}
    letters = {m["letter"] for m in (one, other) if not m["argument"]}
    return len(arguments) > 1 or bool(arguments & letters)


def kind_of_change(formula: re.Match) -> str:
    if formula["other"]:
        return formula["other"]
    if formula["of"]:
        return "'"
    return formula["change"] or (formula["bar"] or "").strip("{ ")


def is_letter(name: str) -> bool:
    return len(name) == 1 or bool(GREEK_LETTER.fullmatch(name))


def is_name(text: str) -> bool:
    r"""True of "x", "f(x)", "\angle ABC" and "Area"; false of "2x" and "not x"."""
    name = text.strip()
    words = set(re.findall(r"\\?[a-z]+", name.lower()))
    return bool(NAME.fullmatch(name)) and not words & NOT_IN_NAMES


# --- units ----------------------------------------------------------------------------------------

POWER_OF_UNIT = re.compile(r"([A-Za-z])\.?\s*\^\s*\{?\s*([23])\s*\}?$")  # the ^2 of cm^2
SLASH_IN_UNIT = re.compile(r"(?<=[A-Za-z])\s*/\s*(?=[A-Za-z])")  # m / s
FRACTION_OF_UNITS = re.compile(r"\\frac\s*\{\s*([A-Za-z]+)\s*\}\s*\{\s*([A-Za-z]+)\s*\}\s*$")
UNIT_AT_NUMBER = re.compile(r"([0-9)}]) *(/?) *([A-Za-z]{2,})$")  # 18cm, 18/day
LETTER_UNITS = set("m g l L s h hr".split())  # behind algebra they are letters: 2x + h
ALGEBRA = re.compile(  # a letter, a sum, a root or \pi
    r"(?<![\\A-Za-z])[A-Za-z]|[0-9})\s][-+]|\\(?!frac|times|cdot)[A-Za-z]|\*\s*$"
)
SENTENCE_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
PREFIXES = {"square": "2", "sq": "2", "cubic": "3", "degrees": "", "US": ""}  # and their powers


def is_unit(word: str) -> bool:
    """May this word follow a number without changing it?

    True of "cm", "dollars", "km/h" and "apples"; false of "x", "or", "million" and "pm".
    """
    return all(is_unit_part(part) for part in word.rstrip(".").split("/"))


def is_unit_part(word: str) -> bool:
    word = word.removesuffix("'s").removesuffix("'")  # at the farmer's market
    if not (word.isascii() and word.isalpha()):
        return False
    if word in UNITS or word in SMALL_WORDS:
        return True
    is_product = len(word) == 3 and set(word) <= set("abcxyz")
    return len(word) > 2 and word.lower() not in NOT_UNITS and not is_product


def as_per(m: re.Match) -> str:
    r"""\frac{miles}{hour} as miles/hour, if both are units."""
    return f" {m[1]}/{m[2]}" if m[1] in UNITS and m[2] in UNITS else m[0]


def detach_unit(m: re.Match) -> str:
    """A match of UNIT_AT_NUMBER with a blank before its unit, "18 cm", "18 per day"."""
    if m[3] not in UNITS:
        return m[0]
    if m[2]:
        return f"{m[1]} per {m[3]}"
    return f"{m[1]} {m[3]}"


def split_unit(text: str) -> tuple[str, str | None]:
    r"""(value, unit): "18 square cm" -> ("18", "cm2"), "60 mph" -> ("60", "mi/h").

    A unit that is not in UNITS is dropped, so it is not compared: "8\pi apples" -> ("8\pi", None).
    """
    body = text
    power = ""
    m = POWER_OF_UNIT.search(text)
    if m:
        power = m[2]
        body = text[: m.end(1)]
    body = FRACTION_OF_UNITS.sub(as_per, SLASH_IN_UNIT.sub("/", body))
    body = UNIT_AT_NUMBER.sub(detach_unit, body)

    words = body.split()
    n = 0  # words of unit at the end; at least one word is the value
    while n < min(len(words) - 1, UNIT_WORDS) and is_unit(words[-1 - n]):
        n += 1
    if n == 0 or words[-1] in SMALL_WORDS:
        return text, None
    value = " ".join(words[:-n])
    if words[-n] in LETTER_UNITS and ALGEBRA.search(value):
        return text, None
    is_sentence = SENTENCE_WORD.search(split_scale(value)[0])  # "Team 5 wins"
    if is_sentence or not re.search(r"[0-9]|\\pi|\\sqrt", value):
        return text, None

    units = [word.rstrip(".") for word in words[-n:]]
    if len(units) == 2 and units[0] in PREFIXES:
        power = PREFIXES[units[0]]
        units = units[1:]
    parts = f" {' '.join(units)}".replace(" per ", "/").split("/")
    spelled = []
    for part in parts:
        part = part.strip()
        if part and part not in UNITS:
            return value, None
        spelled.append(UNITS.get(part, ""))  # "" is what stands before a "per"
    return value, "/".join(spelled) + power


def split_scale(text: str) -> tuple[str, int]:
    """(value, what it counts): "1.5 million" -> ("1.5", 10**6), "3 dozen" -> ("3", 12).

    A number must stand before the word, so "the million" stays as it is.
    """
    words = text.split()
    scale = 1
    while len(words) > 1 and words[-1].removesuffix("s") in SCALES and scale < 10**12:
        scale *= SCALES[words[-1].removesuffix("s")]
        words.pop()
    if scale == 1 or not re.fullmatch(r"[-+]?[0-9.]*[1-9][0-9.]*", words[-1]):
        return text, 1
    return " ".join(words), scale
