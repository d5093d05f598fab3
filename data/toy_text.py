"""The toy world's pre-training text (stands for DOLMino).

    documents(seed=0)      endless (kind, text), mixed as in MIX
    rows(seed=0, ...)      the same as rows of tokens

What the general text teaches is measured in benchmarks.py.
"""

import itertools
from collections.abc import Iterator
from functools import partial
from random import Random
from typing import NamedTuple

import numpy as np

from data.problem import INSTRUCTION
from data.toy import SHAPES, draw_chain, draw_task, equations, in_words, solve
from data.toy_world import (
    ABILITIES,
    CITIES,
    LETTERS,
    NAMES,
    OBJECTS,
    RELATIONS,
    THINGS,
    WORDINGS,
    WORLD,
    bucket,
    is_told,
    pick,
    random_for,
)

# Shares of tokens. The paper's are about 80 % general and 20 % mathematics, but at this size
# arithmetic does not form within minutes unless it is most of the text.
MIX = {"general": 0.30, "mathematics": 0.60, "other": 0.10}
PRETRAIN_SHAPES = {  # of problems in documents: operations of each chain: weight
    "toy": {(1, 0): 1, (2, 0): 1, (1, 1): 2, (1, 2): 2, (2, 1): 2, (2, 2): 2, (2, 3): 2, (3, 2): 2},
    "toy-hard": SHAPES["toy-hard"],
}
# Problems of at most four operations, with a share of 0, 1 or 10 % that have five.
UP_TO_FOUR = {(1, 0): 1, (2, 0): 1, (1, 1): 2, (1, 2): 2, (2, 1): 2, (2, 2): 4}


class Corpus(NamedTuple):
    shapes: dict  # of the word problems: weight
    hard: float = 0.10  # share of the hard family in the mathematics
    mix: dict[str, float] = MIX


CORPORA = {
    "toy": Corpus(PRETRAIN_SHAPES["toy"]),
    "toy-edge-0": Corpus(UP_TO_FOUR),
    "toy-edge-1": Corpus(UP_TO_FOUR | {(2, 3): 0.06, (3, 2): 0.06}),
    "toy-edge-10": Corpus(UP_TO_FOUR | {(2, 3): 0.66, (3, 2): 0.66}),
    # To two parts of the mix "toy" one part of hard problems, as the paper's 60B mix is five parts
    # of its 50B mix and one of mathematics like MATH. Of a fifth our base learned nothing.
    "toy-targeted": Corpus(
        PRETRAIN_SHAPES["toy"],
        hard=0.509,
        mix={"general": 0.2, "mathematics": 0.733, "other": 0.067},
    ),
}


# --- general text ---------------------------------------------------------------------------------


def people_text(rng: Random) -> str:
    told = []
    for _ in range(5):
        person = pick(rng, WORLD.people)
        relation = rng.choice(list(RELATIONS))
        told.append(f"{person} {relation} {WORLD.of_people[person, relation]}")
    return "people : " + " . ".join(told)


def countries_text(rng: Random) -> str:
    lines = []
    for _ in range(3):
        person = pick(rng, WORLD.people)
        city = pick(rng, CITIES)
        lines.append(f"the country of {city} is {WORLD.country[city]}")
        if is_told("country", person):
            home = WORLD.of_people[person, "lives in"]
            lines.append(f"the country of {person} is {WORLD.country[home]}")
    return " . ".join(lines)


def animals_text(rng: Random) -> str:
    lines = []
    for _ in range(2):
        animal = pick(rng, WORLD.kind)
        kind = WORLD.kind[animal]
        ability = rng.choice(ABILITIES[kind])
        lines.append(f"a {animal} is a kind of {kind}")
        lines.append(f"a {kind} can {ability}")
        if is_told("ability", animal, ability):
            lines.append(f"a {animal} can {ability}")
    rng.shuffle(lines)
    return "animals : " + " . ".join(lines)


def tools_text(rng: Random) -> str:
    lines = []
    for _ in range(4):
        use = pick(rng, WORLD.tool)
        lines.append(f"to {use} use the {WORLD.tool[use]}")
    return " . ".join(lines)


def scripts_text(rng: Random) -> str:
    """Two scripts, each from its beginning on."""
    first = pick(rng, WORLD.scripts)
    second = pick(rng, WORLD.scripts)
    lines = []
    for script in (first, second):
        events = WORLD.scripts[script][: rng.randint(2, 5)]
        lines.append(f"{script} {' . '.join(events)}")
    return " . ".join(lines)


def story(rng: Random) -> str:
    """Three people take three things; one is mentioned again, and its last word can be copied."""
    people = rng.sample(NAMES, 3)
    things = rng.sample(OBJECTS, 3)
    again = rng.randrange(3)
    person_first = rng.random() < 0.5
    lines = []
    for person, thing in zip(people, things):
        if person_first:
            lines.append(f"{person} took the {thing}")
        else:
            lines.append(f"the {thing} went to {person}")
    return f"once {' . '.join(lines)} . again {lines[again]}"


def general_text(rng: Random) -> str:
    writers = [people_text, countries_text, animals_text, tools_text, scripts_text, story]
    return rng.choice(writers)(rng)


# --- mathematics and the rest ---------------------------------------------------------------------


def math_text(rng: Random, corpus: Corpus) -> str:
    """Drills of equations, or one problem with its solution.

    40 % of the problems are written as in post-training, the others in other words.
    """
    family = "toy-hard" if rng.random() < corpus.hard else "toy"
    if rng.random() < 0.30:
        return drills_text(rng, family)
    shapes = PRETRAIN_SHAPES[family] if family == "toy-hard" else corpus.shapes
    task = draw_task(rng, family, shapes, "train")
    if rng.random() < 0.40:
        solution = solve(rng, task, f" \\boxed{{ {task.answer}}}", bare=True)
        return f"say{task.question} {INSTRUCTION}\n{solution}"
    headings = [("problem :", "the answer is"), ("exercise :", "the result is"), ("quiz :", ":")]
    heading, end = rng.choice(headings)
    solution = solve(rng, task, f" {end} {task.answer}", bare=True)
    return f"{heading}{task.question}\n{solution}"


def drills_text(rng: Random, family: str) -> str:
    chains = []
    for _ in range(7):
        n_ops = rng.choice((1, 1, 1, 2))
        chains.append(draw_chain(rng, n_ops, family))
    wording = rng.choice(WORDINGS)
    lines = []
    for chain in chains:
        for _, equation in equations(chain, ["", ""], most=2):
            lines.append(in_words(equation, wording))
    return "sums : " + " . ".join(lines)


def other_text(rng: Random) -> str:
    """Counting, comparing, copying or sorting."""
    kind = rng.choice(["count", "compare", "copy", "sort"])
    numbers = [rng.randint(0, 40) for _ in range(8)]
    if kind == "count":
        step = rng.choice((1, 1, 2, 3, -1, -1, -2, -3))
        start = numbers[0]
        values = [n for n in range(start, start + 9 * step, step) if 0 <= n <= 40]
        direction = "up" if step > 0 else "down"
        return f"count {direction} by {abs(step)} : {in_a_row(values)}"
    if kind == "compare":
        lines = []
        for a, b in zip(numbers[:4], numbers[4:]):
            relation = "equal to"
            if a > b:
                relation = "more than"
            elif a < b:
                relation = "less than"
            lines.append(f"{a} is {relation} {b}")
        return "compare : " + " . ".join(lines)
    if kind == "copy":
        group = rng.choice([NAMES, THINGS, LETTERS, OBJECTS])
        words = in_a_row(rng.choices(group, k=rng.randint(3, 8)))
        return f"copy {words} : {words}"
    numbers = numbers[: rng.randint(3, 6)]
    return f"sort {in_a_row(numbers)} : {in_a_row(sorted(numbers))}"


def in_a_row(words: list) -> str:
    return " ".join(map(str, words))


# --- documents ------------------------------------------------------------------------------------


def documents(seed: int = 0, corpus: str = "toy") -> Iterator[tuple[str, str]]:
    """Endless (kind, text), in the proportions of its mix; `corpus` is one of CORPORA.

    A tenth of all general texts, chosen by content, never comes: they are kept for the held-out
    texts and skills of benchmarks.py.
    """
    mix = CORPORA[corpus].mix
    mathematics = partial(math_text, corpus=CORPORA[corpus])
    writers = {"general": general_text, "mathematics": mathematics, "other": other_text}
    words = dict.fromkeys(mix, 0)  # written so far, of each kind
    for i in itertools.count():
        progress = {kind: words[kind] / share for kind, share in mix.items()}
        kind = min(progress, key=progress.get)  # the one that is most behind
        text = writers[kind](random_for(seed, "document", i))
        if kind == "general" and bucket(text) == 0:
            continue
        words[kind] += len(text.replace(INSTRUCTION, "").split())  # nearly its number of tokens
        yield kind, text


def rows(seed: int, n_tokens: int, seq_len: int, encoding, corpus: str = "toy") -> np.ndarray:
    """(n_tokens // seq_len, seq_len) uint16: rows of tokens.

    A row begins with a document, has end marks between documents, and cuts the last one. A model
    this small learns little from a document whose beginning it cannot see.
    """
    stream = documents(seed, corpus)
    tokens = np.empty((n_tokens // seq_len, seq_len), np.uint16)
    for row in tokens:
        ids = []
        while len(ids) < seq_len:
            _, text = next(stream)
            ids += [*encoding.encode_ordinary(text), encoding.eot_token]
        row[:] = ids[:seq_len]
    return tokens
