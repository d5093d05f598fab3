"""General skills: what pre-training taught besides mathematics, and what post-training may undo.

    items, texts = load_general("toy")     six skills of the toy world, scored by likelihood, and held-out text

Every item is a context and the continuations to choose from, whatever the benchmark; evaluate.py scores them. The toy
skills stand for LAMBADA, HellaSwag, ARC-Easy, ARC-Challenge, PIQA and OpenBookQA. Wrong choices come from the same class
as the right one, and half of what follows from other facts is never told, so that a small model does not saturate.
"""

import itertools
from dataclasses import dataclass
from random import Random

from data import UserError
from data.toy import ABILITIES, COUNTRIES, COUNTRY, FACTS, KIND, PEOPLE, RELATIONS, SCRIPTS, TOOLS, TOOL, bucket, draw, general, is_told, pick, story


@dataclass(frozen=True)
class Item:
    """Choose the likeliest continuation; where there is one choice: is it what the model says by itself (greedy)?"""

    skill: str
    context: str
    choices: tuple[str, ...]  # each with its leading blank
    gold: int


def load_general(corpus: str) -> tuple[list[Item], list[str]]:
    """Items of the six skills and held-out general texts that fit what a checkpoint was pre-trained on."""
    if corpus != "toy":
        raise UserError(f"general skills are made for the toy world; this checkpoint was pre-trained on {corpus}")
    return skills(), heldout()


def heldout(n: int = 200) -> list[str]:
    """General texts that no run has seen, for the held-out loss: the same world in new combinations."""
    texts = (general(draw("heldout", i)) for i in itertools.count())
    return list(itertools.islice((text for text in texts if bucket(text) == 0), n))


def skills(n: int = 100) -> list[Item]:
    """n items of each of six skills; wrong choices come from the same class as the right one."""
    makers = [last_word, next_event, fact, two_hops, tool_use, inheritance]
    return [maker(draw("skills", maker.__name__, i)) for maker in makers for i in range(n)]


def choose(rng: Random, skill: str, context: str, gold: str, others, n_choices: int = 4) -> Item:
    choices = rng.sample(sorted(set(others) - {gold}), n_choices - 1) + [gold]
    rng.shuffle(choices)
    return Item(skill, context, tuple(" " + choice for choice in choices), choices.index(gold))


def last_word(rng: Random) -> Item:
    """As LAMBADA: the last word of an unseen story."""
    text = story(rng)
    while bucket(text) != 0:
        text = story(rng)
    context, word = text.rsplit(" ", 1)
    return Item("last word", context, (" " + word,), 0)


def next_event(rng: Random) -> Item:
    """As HellaSwag: how a script goes on; wrong events belong to other farms, mills or shops."""
    key, k = pick(rng, SCRIPTS), rng.randint(1, 4)
    others = {event for s in SCRIPTS if s.split()[-2] == key.split()[-2] for event in SCRIPTS[s]} - set(SCRIPTS[key])
    return choose(rng, "next event", f"{key} {' . '.join(SCRIPTS[key][:k])} .", SCRIPTS[key][k], others)


def fact(rng: Random) -> Item:
    """As ARC-Easy: a fact that was told."""
    (person, relation), gold = rng.choice(list(FACTS.items()))
    return choose(rng, "fact", f"people : {person} {relation}", gold, RELATIONS[relation])


def two_hops(rng: Random) -> Item:
    """As ARC-Challenge: the country of somebody whose city was told, but not the country."""
    person = rng.choice([person for person in PEOPLE if not is_told("country", person)])
    return choose(rng, "two hops", f"the country of {person} is", COUNTRY[FACTS[person, "lives in"]], COUNTRIES)


def tool_use(rng: Random) -> Item:
    """As PIQA: the better of two tools."""
    use, tool = rng.choice(list(TOOL.items()))
    return choose(rng, "tool use", f"to {use} use the", tool, TOOLS, n_choices=2)


def inheritance(rng: Random) -> Item:
    """As OpenBookQA: what an animal can do, told only of its kind."""
    untold = [(animal, ability) for animal in KIND for ability in ABILITIES[KIND[animal]] if not is_told("ability", animal, ability)]
    animal, ability = rng.choice(untold)
    others = sum((ABILITIES[kind] for kind in ABILITIES if kind != KIND[animal]), [])
    return choose(rng, "inheritance", f"animals : a {animal} can", ability, others)
