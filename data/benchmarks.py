"""General skills: what pre-training taught besides mathematics, and what post-training may undo.

    items, texts = load_general("toy")     six skills of the toy world, scored by likelihood, and held-out text
    items = load_benchmark("piqa")         a public one, from the hub or from a folder of jsonl files

Every item is a context and the continuations to choose from, whatever the benchmark; evaluate.py scores them. The six
public ones are LAMBADA, HellaSwag, ARC-Easy, ARC-Challenge, PIQA and OpenBookQA, worded as in lm-evaluation-harness,
which the authors used. The toy skills stand for them: wrong choices come from the same class as the right one, and half
of what follows from other facts is never told, so that a small model does not saturate.
"""

import itertools
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from data import UserError
from data.problems import hub_rows, read_jsonl
from data.toy import ABILITIES, COUNTRIES, COUNTRY, FACTS, KIND, PEOPLE, RELATIONS, SCRIPTS, TOOLS, TOOL, bucket, draw, general, is_told, pick, story


@dataclass(frozen=True)
class Item:
    """Choose the likeliest continuation; where there is one choice: is it what the model says by itself (greedy)?"""

    skill: str
    context: str
    choices: tuple[str, ...]  # each with its leading blank
    gold: int


def load_general(corpus: str, folder: str = "") -> tuple[list[Item], list[str]]:
    """Items of six skills, and held-out general texts where there are any, that fit what a checkpoint was pre-trained on."""
    if corpus == "toy":
        return skills(), heldout()
    return [item for name in BENCHMARKS for item in load_benchmark(name, folder)], []


# ------------------------------------------------------------------------------------------------ public benchmarks


def lambada(row: dict) -> tuple[str, tuple[str, ...], int]:
    """The last word, split off at the last blank only: it may hold a quote or a line break, as in the harness."""
    text = row["text"] if "text" in row else f"{row['context']} {row['continuation']}"
    context, word = text.rsplit(" ", 1)
    return context, (" " + word,), 0


def hellaswag(row: dict) -> tuple[str, tuple[str, ...], int]:
    context = clean(f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}")
    return context, tuple(" " + clean(ending) for ending in row["endings"]), int(row["label"])


def clean(text: str) -> str:
    """HellaSwag's traces of WikiHow, removed in the harness's order; two blanks become one in a single pass."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def arc(row: dict) -> tuple[str, tuple[str, ...], int]:
    """The key is looked up in the row's own labels, which are letters or digits."""
    gold = row["choices"]["label"].index(row["answerKey"].strip())
    return f"Question: {row['question']}\nAnswer:", tuple(" " + text for text in row["choices"]["text"]), gold


def openbookqa(row: dict) -> tuple[str, tuple[str, ...], int]:
    return row["question_stem"], tuple(" " + text for text in row["choices"]["text"]), row["choices"]["label"].index(row["answerKey"].strip())


def piqa(row: dict) -> tuple[str, tuple[str, ...], int]:
    return f"Question: {row['goal']}\nAnswer:", (" " + row["sol1"], " " + row["sol2"]), int(row["label"])


@dataclass(frozen=True)
class Benchmark:
    repo: str  # on the hub
    config: str | None
    split: str  # the labelled one that is reported
    n_items: int  # documented
    item: Callable  # row -> (context, choices, gold)
    metric: str = "acc_norm"  # the headline; the authors' choice for all but LAMBADA


BENCHMARKS = {
    "lambada": Benchmark("EleutherAI/lambada_openai", "default", "test", 5_153, lambada, "acc"),
    "hellaswag": Benchmark("Rowan/hellaswag", None, "validation", 10_042, hellaswag),
    "arc_easy": Benchmark("allenai/ai2_arc", "ARC-Easy", "test", 2_376, arc),
    "arc_challenge": Benchmark("allenai/ai2_arc", "ARC-Challenge", "test", 1_172, arc),
    "piqa": Benchmark("baber/piqa", None, "validation", 1_838, piqa),
    "openbookqa": Benchmark("allenai/openbookqa", "main", "test", 500, openbookqa),
}


def load_benchmark(name: str, folder: str = "") -> list[Item]:
    """The items of one public benchmark; with a folder, the hub's rows from <folder>/<name>.jsonl instead of the hub."""
    if name not in BENCHMARKS:
        raise UserError(f"unknown benchmark {name!r}; choose one of {', '.join(BENCHMARKS)}, or general for all")
    benchmark = BENCHMARKS[name]
    if folder:
        path = Path(os.path.join(folder, f"{name}.jsonl"))
        rows, where = read_jsonl(path), lambda number: f"{path}, line {number}"
    else:
        rows = enumerate(hub_rows(benchmark.repo, *([benchmark.config] if benchmark.config else []), split=benchmark.split), start=1)
        where = lambda number: f"{benchmark.repo}, row {number}"
    items = []
    for number, row in rows:
        try:
            context, choices, gold = benchmark.item(row)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            has = ", ".join(row) if isinstance(row, dict) else type(row).__name__
            raise UserError(f"{where(number)} is not a labelled row of {name} ({error!r}); it has {has}") from None
        if not 0 <= gold < len(choices):
            raise UserError(f"{where(number)}: the label {gold} is none of {len(choices)} choices; {name} needs its labelled split")
        items.append(Item(name, context, choices, gold))
    if not items:
        raise UserError(f"{path if folder else benchmark.repo} holds no rows of {name}")
    return items


# ------------------------------------------------------------------------------------------------ the toy world's skills


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
