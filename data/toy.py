r"""A small world to pre-train and post-train on in minutes, without any download.

    problems("train", "toy")[0]      word problems with many valid solutions (stands for GSM8K)
    problems("test", "toy-hard")     chains of assignments with products and a distractor (stands for MATH)
    documents(seed=0)                endless pre-training text (stands for DOLMino), mixed as in MIX

A problem asks for two totals at once: with some 400 possible pairs, 32 blind guesses hardly ever help pass@32.
Every draw is a function of a key (seed, purpose, index), so the same seed gives the same bytes everywhere.
What the general text teaches is measured in benchmarks.py.
The world's facts and the problem sets do not depend on the run's seed: runs differ in text, not in the test.
"""

import hashlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from random import Random

import numpy as np

from data import UserError
from data.problems import INSTRUCTION, Problem, question_id

# --- words: each is one token of the toy tokenizer, together with the blank before it ---------------------------------

NAMES = """ann bea cal dan eva fay gail hana ivan jon kim leo mia ned olga pam quin rob sue tom uma vera walt xena
    yuri zoe abel bina cleo dora emil fred gus hugo iris jade kurt lars mona nils""".split()
FAMILIES = "reed stone fox lake hill wood frost bell cook marsh pike sharp".split()
THINGS = "cards pens coins books shells stamps eggs cups".split()
GAINS, LOSSES = "buys finds wins gets".split(), "loses sells drops lends".split()
LETTERS = "p q r s t u v w x y".split()
CITIES = "rome oslo lima cairo delhi kyoto paris quito sofia tunis berne dakar perth milan seoul york".split()
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

WORDINGS = [("+", "-", "*", "="), ("+", "-", "*", "makes"), ("plus", "minus", "times", "gives")]
CONNECTIVES = [("first", "then", "so"), ("start", "next", "thus"), ("step", "step", "finally"), ("compute", "and", "hence")]
SEPARATORS = [".", ";"]

# A text begins with one of these, without a blank before it; so names and numbers never stand without theirs.
STARTERS = "first start step compute so say problem exercise quiz sums the people animals to at once count compare copy sort".split()
WORDS = list(dict.fromkeys([
    *". ; : ? + - * =".split(), *(str(n) for n in range(41)), *sum(WORDINGS, ()), *sum((c[1:] for c in CONNECTIVES), ()),
    *NAMES, *FAMILIES, *THINGS, *GAINS, *LOSSES, *LETTERS, *CITIES, *COUNTRIES, *JOBS, *FOODS, *COLORS, *ANIMALS,
    *ABILITIES, *sum(ABILITIES.values(), []), *TOOLS, *VERBS, *OBJECTS, *PLACES, *TIMES,
    *"has how many now find and the answer is result a kind of can lives in works as likes wears country use to".split(),
    *"took went at again by more less than equal up down".split(),
]))  # fmt: skip


def draw(*key) -> Random:
    """A random stream named by what it is for."""
    return Random("/".join(map(str, key)))


def bucket(text: str) -> int:
    """0..9, by content: the same on every machine and in every run."""
    return hashlib.blake2b(text.encode()).digest()[0] % 10


# --- problems: two chains of operations, posed as people with things or as assignments --------------------------------

LIMITS = {"toy": (20, "+-"), "toy-hard": (40, "+-*")}  # largest value at any step; operations
SHAPES = {  # operations of the first and of the second chain: weight
    "toy": {(1, 2): 1, (2, 1): 1, (2, 2): 2, (2, 3): 1, (3, 2): 1},
    "toy-hard": {(1, 1): 1, (1, 2): 1, (2, 1): 1, (2, 2): 2},
}
PRETRAIN_SHAPES = {
    "toy": {(1, 0): 1, (2, 0): 1, (1, 1): 2, (1, 2): 2, (2, 1): 2, (2, 2): 2, (2, 3): 2, (3, 2): 2},
    "toy-hard": SHAPES["toy-hard"],
}
SPLITS = {"train": (range(2, 10), 600), "val": (range(1, 2), 100), "test": (range(0, 1), 200)}  # buckets of content; problems
PLANS = {"steps": 45, "names": 10, "grouped": 15, "interleaved": 10, "second first": 15, "bare": 5}  # of a solution: weight
N_SOLUTIONS = 24  # worked solutions of a problem; the paper's data has about 23


@dataclass(frozen=True)
class Chain:
    """A start and what happens to it: Chain(11, (("+", 2), ("-", 4))) has the values [11, 13, 9]."""

    start: int
    ops: tuple[tuple[str, int], ...]

    @property
    def values(self) -> list[int]:
        return list(itertools.accumulate(self.ops, lambda value, op: apply(value, *op), initial=self.start))


@dataclass(frozen=True)
class Task:
    """Two chains in words; names[i][j] introduces the result of operation j of chain i, as in "hana :" or "q ="."""

    chains: tuple[Chain, Chain]
    names: list[list[str]]
    question: str  # without its first word, so that a document can put its own heading there

    @property
    def answer(self) -> str:
        return ", ".join(str(chain.values[-1]) for chain in self.chains)


def apply(value: int, sign: str, n: int) -> int:
    return value + n if sign == "+" else value - n if sign == "-" else value * n


@lru_cache(maxsize=None)
def allowed_ops(value: int, family: str) -> list[list[tuple[str, int]]]:
    """The operations that keep the value within the family's limits, one list per sign."""
    top, signs = LIMITS[family]
    operands = {"+": range(1, 10), "-": range(1, 10), "*": range(2, 6 if value else 2)}
    by_sign = [[(sign, n) for n in operands[sign] if 0 <= apply(value, sign, n) <= top] for sign in signs]
    return [ops for ops in by_sign if ops]


def draw_chain(rng: Random, n_ops: int, family: str) -> Chain:
    start = value = rng.randint(1, 20)
    ops = []
    for _ in range(n_ops):
        ops.append(rng.choice(rng.choice(allowed_ops(value, family))))
        value = apply(value, *ops[-1])
    return Chain(start, tuple(ops))


def content(chains: tuple[Chain, Chain]) -> str:
    """The numbers and operations, whoever they belong to and in whichever order: "10-8+3|11+2"."""
    return "|".join(sorted(str(c.start) + "".join(f"{sign}{n}" for sign, n in c.ops) for c in chains))


def draw_task(rng: Random, family: str, shapes: dict, split: str) -> Task:
    """A task whose content belongs to the split, so that no other text gives a test problem away under other names."""
    (shape,) = rng.choices(list(shapes), list(shapes.values()))
    while True:
        chains = draw_chain(rng, shape[0], family), draw_chain(rng, shape[1], family)
        if bucket(content(chains)) in SPLITS[split][0]:
            return pose_people(rng, chains) if family == "toy" else pose_assignments(rng, chains)


def pose_people(rng: Random, chains: tuple[Chain, Chain]) -> Task:
    """hana has 11 cards . buys 2 . gail has 10 . loses 8 . finds 3 . how many now ?"""
    people, text = rng.sample(NAMES, 2), ""
    for person, chain, thing in zip(people, chains, (" " + rng.choice(THINGS), "")):
        text += f" {person} has {chain.start}{thing} ."
        text += "".join(f" {rng.choice(GAINS if sign == '+' else LOSSES)} {n} ." for sign, n in chain.ops)
    return Task(chains, [[f"{person} :"] * len(chain.ops) for person, chain in zip(people, chains)], text + " how many now ?")


def pose_assignments(rng: Random, chains: tuple[Chain, Chain]) -> Task:
    """p = 3 * 4 . t = 7 . q = 9 + 8 . r = p - 5 . find r and q ?   (t is a distractor)"""
    letters = iter(rng.sample(LETTERS, len(LETTERS)))
    names = [[next(letters) for _ in chain.ops] for chain in chains]
    lines = interleave(rng, *(
        [f"{name} = {a} {sign} {n}" for name, a, (sign, n) in zip(own, [chain.start, *own], chain.ops)]
        for own, chain in zip(names, chains)
    ))  # fmt: skip
    lines.insert(rng.randint(0, len(lines)), f"{next(letters)} = {rng.randint(1, 20)}")
    question = f" {' . '.join(lines)} . find {names[0][-1]} and {names[1][-1]} ?"
    return Task(chains, [[f"{name} =" for name in own] for own in names], question)


def interleave(rng: Random, a: list, b: list) -> list:
    """Both lists in one, each in its own order."""
    turns = [True] * len(a) + [False] * len(b)
    rng.shuffle(turns)
    a, b = iter(a), iter(b)
    return [next(a if turn else b) for turn in turns]


def equations(chain: Chain, names: list[str], most: int) -> list[tuple[str, str]]:
    """(name, "11 + 2 - 4 = 9") in order, with up to `most` operations each; a product begins a new one."""
    lines, left, n_ops, values = [], str(chain.start), 0, chain.values
    for i, (sign, n) in enumerate(chain.ops, start=1):
        left, n_ops = f"{left} {sign} {n}", n_ops + 1
        if i == len(chain.ops) or n_ops == most or chain.ops[i][0] == "*":
            lines.append((names[i - 1], f"{left} = {values[i]}"))
            left, n_ops = str(values[i]), 0
    return lines


def in_words(equation: str, wording: tuple[str, ...]) -> str:
    words = dict(zip("+-*=", wording))
    return " ".join(words.get(word, word) for word in equation.split())


def solve(rng: Random, task: Task, end: str, bare: bool = False) -> str:
    r"""One valid solution: first 11 + 2 = 13 . then 10 - 8 = 2 . then 2 + 3 = 5 . so \boxed{ 13, 5}

    Plan, wording, connectives and separator are drawn; `bare` allows the plan that writes the answer only.
    """
    (plan,) = rng.choices(list(PLANS), [PLANS[p] if bare or p != "bare" else 0 for p in PLANS])
    if plan == "bare":
        return f"so{end}"
    (first, then, last), wording, separator = rng.choice(CONNECTIVES), rng.choice(WORDINGS), rng.choice(SEPARATORS)
    a, b = (equations(c, names, most=2 if plan == "grouped" else 1) for c, names in zip(task.chains, task.names))
    lines = b + a if plan == "second first" else interleave(rng, a, b) if plan == "interleaved" else a + b
    lines = [f"{name} {in_words(line, wording)}" if plan == "names" else in_words(line, wording) for name, line in lines]
    return f"{first} " + f" {separator} {then} ".join(lines) + f" {separator} {last}{end}"


def problems(split: str, family: str = "toy", n: int | None = None, seed: int = 0) -> list[Problem]:
    """The first n problems of a split (default: all), with different contents and several worked solutions each."""
    if split not in SPLITS or family not in LIMITS:
        raise UserError(f"no split {split!r} of {family!r}; choose {', '.join(SPLITS)} of {' or '.join(LIMITS)}")
    found = {}
    for i in itertools.count():
        if len(found) == (SPLITS[split][1] if n is None else n):
            return list(found.values())
        rng = draw(seed, family, split, i)
        task = draw_task(rng, family, SHAPES[family], split)
        solutions = {}  # a dict keeps the order: the first solution is the one SFT sees
        while len(solutions) < N_SOLUTIONS:
            solutions[solve(rng, task, f" \\boxed{{ {task.answer}}}")] = True
        a, b = (len(chain.ops) for chain in task.chains)
        question, level = "say" + task.question, f"({a},{b})" if family == "toy" else f"{a + b} steps"
        problem = Problem(question_id(question), question, task.answer, tuple(solutions), family, level)
        found.setdefault(content(task.chains), problem)


# --- a strict check: did the response work the answer out? -------------------------------------------------------------

OPERATORS = {word: sign for wording in WORDINGS for word, sign in zip(wording[:3], "+-*")}
EQUALS = {wording[3] for wording in WORDINGS}


def verify(response: str, problem: Problem) -> bool:
    r"""Is the last \boxed{} right, every written equation true, and each number of the answer the result of one?

    Also, the last equation must give a number of the answer. So a guess fails, and a right answer after a slip.
    For problems of this file, where both numbers need at least one operation.
    """
    boxes = re.findall(r"\\boxed\{([^{}]*)\}", response)
    if not boxes or boxes[-1].replace(" ", "") != problem.answer.replace(" ", ""):
        return False
    known = {}  # the hard family's letters, so that "q = p * 4 = 12" is checked as well
    for name, expression in re.findall(r"\b([a-z]) = ([^.]*)", problem.question):
        known[name] = evaluate(expression.split(), known)
    results, sides = [], [[]]  # sides of the equation being read
    for word in [*re.findall(r"[0-9]+|[a-z]+|\S", response), "."]:
        if word in EQUALS:
            sides.append([])
        elif word in OPERATORS or word in known or word.isdecimal():
            sides[-1].append(word)
        else:  # any other word ends the equation
            values = [evaluate(side, known) for side in sides]
            if len(sides) > 1 and (values[0] is None or len(set(values)) > 1):
                return False
            if len(sides) > 1 and any(len(side) > 1 for side in sides):  # "13 = 13" works nothing out
                results.append(values[0])
            sides = [[]]
    answer = [int(number) for number in problem.answer.split(",")]
    return bool(results) and results[-1] in answer and set(answer) <= set(results)


def evaluate(expression: list[str], known: dict[str, int]) -> int | None:
    """Value of ["3", "times", "4", "-", "5"], products first; None if it is no expression, or too large to be meant."""
    terms = []
    for operator, operand in itertools.zip_longest(["+", *expression[1::2]], expression[::2]):
        n = int(operand) if re.fullmatch("[0-9]{1,6}", operand or "") else known.get(operand)
        if n is None or operator not in OPERATORS:
            return None
        if OPERATORS[operator] == "*":
            terms[-1] *= n
        else:
            terms.append(n if OPERATORS[operator] == "+" else -n)
        if abs(terms[-1]) > 10**6:
            return None
    return sum(terms)


# --- pre-training documents --------------------------------------------------------------------------------------------

MIX = {"general": 0.30, "mathematics": 0.60, "other": 0.10}  # shares of tokens; the paper's are about 80 % general and
# 20 % mathematics, but at this size arithmetic does not form within minutes unless it is most of the text

WORLD = draw("world")
PEOPLE = [f"{a} {b}" for a, b in WORLD.sample(list(itertools.product(NAMES, FAMILIES)), 160)]
RELATIONS = {"lives in": CITIES, "works as a": JOBS, "likes": FOODS, "wears": COLORS}
FACTS = {(person, relation): WORLD.choice(values) for person in PEOPLE for relation, values in RELATIONS.items()}
COUNTRY = {city: WORLD.choice(COUNTRIES) for city in CITIES}
KIND = {f"{color} {animal}": WORLD.choice(list(ABILITIES)) for color in COLORS for animal in ANIMALS}
EVENTS = [f"{verb} the {thing}" for verb in VERBS for thing in OBJECTS]
TOOL = {f"{event} at {time}": WORLD.choice(TOOLS) for event in EVENTS for time in TIMES}
SCRIPTS = {f"at the {family} {place} :": WORLD.sample(EVENTS, 5) for family in FAMILIES for place in PLACES}


def pick(rng: Random, items):
    """One item, the earlier ones more often, as in real text: what is rare stays hard."""
    items = list(items)
    return items[int(len(items) * rng.random() ** 2)]


def is_told(*key: str) -> bool:
    """Half of what follows from other facts is also written out in documents; skills() asks for the other half."""
    return bucket("/".join(key)) < 5


def people(rng: Random) -> str:
    facts = [(pick(rng, PEOPLE), rng.choice(list(RELATIONS))) for _ in range(5)]
    return "people : " + " . ".join(f"{person} {relation} {FACTS[person, relation]}" for person, relation in facts)


def countries(rng: Random) -> str:
    lines = []
    for _ in range(3):
        person, city = pick(rng, PEOPLE), pick(rng, CITIES)
        lines.append(f"the country of {city} is {COUNTRY[city]}")
        if is_told("country", person):
            lines.append(f"the country of {person} is {COUNTRY[FACTS[person, 'lives in']]}")
    return " . ".join(lines)


def animals(rng: Random) -> str:
    lines = []
    for _ in range(2):
        animal = pick(rng, KIND)
        ability = rng.choice(ABILITIES[KIND[animal]])
        lines += [f"a {animal} is a kind of {KIND[animal]}", f"a {KIND[animal]} can {ability}"]
        if is_told("ability", animal, ability):
            lines.append(f"a {animal} can {ability}")
    rng.shuffle(lines)
    return "animals : " + " . ".join(lines)


def tools(rng: Random) -> str:
    return " . ".join(f"to {use} use the {TOOL[use]}" for use in (pick(rng, TOOL) for _ in range(4)))


def scripts(rng: Random) -> str:
    """Two scripts, each from its beginning on."""
    return " . ".join(f"{s} {' . '.join(SCRIPTS[s][: rng.randint(2, 5)])}" for s in (pick(rng, SCRIPTS), pick(rng, SCRIPTS)))


def story(rng: Random) -> str:
    """Three people take three things; one is mentioned again, and the last word can only be copied."""
    who, what = rng.sample(NAMES, 3), rng.sample(OBJECTS, 3)
    i, order = rng.randrange(3), rng.random() < 0.5
    lines = [f"{a} took the {b}" if order else f"the {b} went to {a}" for a, b in zip(who, what)]
    return f"once {' . '.join(lines)} . again {lines[i]}"


def general(rng: Random) -> str:
    return rng.choice([people, countries, animals, tools, scripts, story])(rng)


def mathematics(rng: Random) -> str:
    """Drills of equations, or one problem with its solution: 40 % as in post-training, the rest in other words."""
    family = "toy-hard" if rng.random() < 0.10 else "toy"
    if rng.random() < 0.30:
        chains, wording = [draw_chain(rng, rng.choice((1, 1, 1, 2)), family) for _ in range(7)], rng.choice(WORDINGS)
        lines = [line for chain in chains for _, line in equations(chain, ["", ""], most=2)]
        return "sums : " + " . ".join(in_words(line, wording) for line in lines)
    task = draw_task(rng, family, PRETRAIN_SHAPES[family], "train")
    if rng.random() < 0.40:
        return f"say{task.question} {INSTRUCTION}\n" + solve(rng, task, f" \\boxed{{ {task.answer}}}", bare=True)
    heading, end = rng.choice([("problem :", "the answer is"), ("exercise :", "the result is"), ("quiz :", ":")])
    return f"{heading}{task.question}\n" + solve(rng, task, f" {end} {task.answer}", bare=True)


def other(rng: Random) -> str:
    """Counting, comparing, copying or sorting."""
    kind, numbers = rng.choice(["count", "compare", "copy", "sort"]), [rng.randint(0, 40) for _ in range(8)]
    if kind == "count":
        step = rng.choice((1, 1, 2, 3, -1, -1, -2, -3))
        counted = [n for n in range(numbers[0], numbers[0] + 9 * step, step) if 0 <= n <= 40]
        return f"count {'up' if step > 0 else 'down'} by {abs(step)} : {' '.join(map(str, counted))}"
    if kind == "compare":
        signs = {1: "more than", 0: "equal to", -1: "less than"}
        return "compare : " + " . ".join(f"{a} is {signs[(a > b) - (a < b)]} {b}" for a, b in zip(numbers[:4], numbers[4:]))
    if kind == "copy":
        words = " ".join(rng.choices(rng.choice([NAMES, THINGS, LETTERS, OBJECTS]), k=rng.randint(3, 8)))
        return f"copy {words} : {words}"
    numbers = numbers[: rng.randint(3, 6)]
    return f"sort {' '.join(map(str, numbers))} : {' '.join(map(str, sorted(numbers)))}"


def documents(seed: int = 0) -> Iterator[tuple[str, str]]:
    """Endless (kind, text), in the proportions of MIX; a tenth of all general texts, chosen by content, never comes."""
    writers, words = {"general": general, "mathematics": mathematics, "other": other}, dict.fromkeys(MIX, 0)
    for i in itertools.count():
        kind = min(MIX, key=lambda k: words[k] / MIX[k])  # the one most behind
        text = writers[kind](draw(seed, "document", i))
        if kind == "general" and bucket(text) == 0:
            continue  # kept for heldout() and skills()
        words[kind] += len(text.replace(INSTRUCTION, "").split())  # nearly its number of tokens
        yield kind, text


def rows(seed: int, n_tokens: int, seq_len: int, enc) -> np.ndarray:
    """(n_tokens // seq_len, seq_len) uint16: rows that begin with a document, end marks between, the last one cut.

    A model this small learns little from a document whose beginning it cannot see.
    """
    stream, tokens = documents(seed), np.empty((n_tokens // seq_len, seq_len), np.uint16)
    for row in tokens:
        ids = []
        while len(ids) < seq_len:
            ids += [*enc.encode_ordinary(next(stream)[1]), enc.eot_token]
        row[:] = ids[:seq_len]
    return tokens
