"""The toy world: its words, its facts, and how chance is drawn in it.

The facts do not depend on a run's seed, so runs differ in their text and not in the test. Other
files write about this world: toy.py problems, toy_text.py documents, benchmarks.py questions.
"""

import hashlib
import itertools
from random import Random


def random_for(*key) -> Random:
    """A random stream named by what it is for."""
    return Random("/".join(map(str, key)))


def bucket(text: str) -> int:
    """0..9, by content: the same on every machine and in every run."""
    return hashlib.blake2b(text.encode()).digest()[0] % 10


def pick(rng: Random, items):
    """One item, the earlier ones more often, as in real text: what is rare stays hard."""
    items = list(items)
    return items[int(len(items) * rng.random() ** 2)]


# --- words: each is one token of the toy tokenizer, together with the blank before it -------------

NAMES = (
    "ann bea cal dan eva fay gail hana ivan jon kim leo mia ned olga pam quin rob sue tom uma vera "
    "walt xena yuri zoe abel bina cleo dora emil fred gus hugo iris jade kurt lars mona nils"
).split()
FAMILIES = "reed stone fox lake hill wood frost bell cook marsh pike sharp".split()
THINGS = "cards pens coins books shells stamps eggs cups".split()
GAINS = "buys finds wins gets".split()
LOSSES = "loses sells drops lends".split()
LETTERS = "p q r s t u v w x y".split()
CITIES = (
    "rome oslo lima cairo delhi kyoto paris quito sofia tunis berne dakar perth milan seoul york"
).split()
COUNTRIES = "northland southland eastland westland midland".split()
JOBS = "baker pilot nurse judge miner actor clerk farmer painter singer tailor sailor".split()
FOODS = "rice soup figs plums beans bread cheese honey corn nuts peas pears".split()
COLORS = "red blue green white black gray pink brown".split()
ANIMALS = "wug dax blick fep toma zib gorp lunt nork pilk quab rilt snee tiv vonk yem".split()
ABILITIES = {  # of each kind of animal
    "bird": "fly sing peck nest".split(),
    "fish": "swim dive drift school".split(),
    "bug": "buzz sting crawl hatch".split(),
    "snake": "slide hiss shed bask".split(),
    "cat": "hunt purr prowl pounce".split(),
    "horse": "graze trot kick pull".split(),
}
TOOLS = "hatchet saw drill brush rake spade knife ladder needle hammer pump wrench".split()
VERBS = "cut clean fix paint move open fill lift".split()
OBJECTS = "rope lamp box door kite drum bowl chair wall pipe coat boat".split()
PLACES = "farm mill shop port barn park hall yard inn tower cave camp".split()
TIMES = "dawn noon dusk night".split()

WORDINGS = [  # of plus, minus, times and equals
    ("+", "-", "*", "="),
    ("+", "-", "*", "makes"),
    ("plus", "minus", "times", "gives"),
]
CONNECTIVES = [  # before the first line of a solution, between its lines, and before the answer
    ("first", "then", "so"),
    ("start", "next", "thus"),
    ("step", "step", "finally"),
    ("compute", "and", "hence"),
]
SEPARATORS = [".", ";"]

# A text begins with one of these, without a blank before it, so that no name or number ever does.
STARTERS = (
    "first start step compute so say problem exercise quiz sums the people animals to at once "
    "count compare copy sort"
).split()


def all_words() -> list[str]:
    """Every word that can follow a blank, once. The tokenizer's ids are given in this order."""
    words = ". ; : ? + - * =".split()
    words += [str(n) for n in range(41)]
    for wording in WORDINGS:
        words += wording
    for connectives in CONNECTIVES:
        words += connectives[1:]
    for group in (NAMES, FAMILIES, THINGS, GAINS, LOSSES, LETTERS, CITIES, COUNTRIES, JOBS, FOODS):
        words += group
    words += [*COLORS, *ANIMALS, *ABILITIES]
    for abilities in ABILITIES.values():
        words += abilities
    words += [*TOOLS, *VERBS, *OBJECTS, *PLACES, *TIMES]
    words += (
        "has how many now find and the answer is result a kind of can lives in works as likes "
        "wears country use to took went at again by more less than equal up down"
    ).split()
    return list(dict.fromkeys(words))


WORDS = all_words()

# --- facts ----------------------------------------------------------------------------------------

RELATIONS = {"lives in": CITIES, "works as a": JOBS, "likes": FOODS, "wears": COLORS}
EVENTS = [f"{verb} the {thing}" for verb in VERBS for thing in OBJECTS]


class Facts:
    """What is true in the toy world. All is drawn from one stream, so the order below counts."""

    def __init__(self, rng: Random):
        full_names = rng.sample(list(itertools.product(NAMES, FAMILIES)), 160)
        self.people = [f"{name} {family}" for name, family in full_names]
        self.of_people = {}  # (person, relation) -> "rome", "baker", "rice" or "red"
        for person in self.people:
            for relation, values in RELATIONS.items():
                self.of_people[person, relation] = rng.choice(values)
        self.country = {}  # city -> country
        for city in CITIES:
            self.country[city] = rng.choice(COUNTRIES)
        self.kind = {}  # "red wug" -> "bird"
        for color in COLORS:
            for animal in ANIMALS:
                self.kind[f"{color} {animal}"] = rng.choice(list(ABILITIES))
        self.tool = {}  # "cut the rope at dawn" -> "saw"
        for event in EVENTS:
            for time in TIMES:
                self.tool[f"{event} at {time}"] = rng.choice(TOOLS)
        self.scripts = {}  # "at the reed farm :" -> five events in order
        for family in FAMILIES:
            for place in PLACES:
                self.scripts[f"at the {family} {place} :"] = rng.sample(EVENTS, 5)


WORLD = Facts(random_for("world"))


def is_told(*key: str) -> bool:
    """Is this fact, which follows from others, also written out in documents?

    It is so for half of them; data/benchmarks.py asks for the other half.
    """
    return bucket("/".join(key)) < 5
