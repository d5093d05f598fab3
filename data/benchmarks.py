"""General skills: what pre-training taught besides mathematics, and what post-training may undo.

    items, texts = load_general("toy")   six skills of the toy world, and held-out text
    items = load_benchmark("piqa")       a public one, from the hub or from a folder of jsonl files

Every item is a context and the continuations to choose from, whatever the benchmark;
plumbing/likelihood.py scores them by their likelihood. The six public ones are LAMBADA, HellaSwag,
ARC-Easy, ARC-Challenge, PIQA and OpenBookQA, worded as in lm-evaluation-harness, which the authors
used. The toy skills stand for them: wrong choices come from the same class as the right one, and
half of what follows from other facts is never told, so that a small model does not saturate.
"""

import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from data import UserError
from data.sources import hub_rows, read_jsonl
from data.toy_text import general_text, story
from data.toy_world import (
    ABILITIES,
    COUNTRIES,
    RELATIONS,
    TOOLS,
    WORLD,
    bucket,
    is_told,
    pick,
    random_for,
)


@dataclass(frozen=True)
class Item:
    """Choose the likeliest continuation.

    With a single choice the question is: does the model say it by itself (greedily)?
    """

    skill: str
    context: str
    choices: tuple[str, ...]  # each with its leading blank
    gold: int  # the place of the right one


def load_general(corpus: str, folder: str = "") -> tuple[list[Item], list[str]]:
    """Items of six skills, and held-out general texts if there are any.

    They fit the corpus that a checkpoint was pre-trained on: the toy world's, or the public ones.
    """
    if corpus == "toy":
        return skills(), heldout()
    items = []
    for name in BENCHMARKS:
        items += load_benchmark(name, folder)
    return items, []


# --- public benchmarks: one row -> (context, choices, gold) ---------------------------------------


def lambada(row: dict) -> tuple[str, tuple[str, ...], int]:
    """The last word, which is what follows the last blank.

    As in the harness, it may hold a quote or a line break.
    """
    text = row["text"] if "text" in row else f"{row['context']} {row['continuation']}"
    context, word = text.rsplit(" ", 1)
    return context, (" " + word,), 0


def hellaswag(row: dict) -> tuple[str, tuple[str, ...], int]:
    context = without_wikihow_marks(
        f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
    )
    endings = tuple(" " + without_wikihow_marks(ending) for ending in row["endings"])
    return context, endings, int(row["label"])


def without_wikihow_marks(text: str) -> str:
    """HellaSwag's traces of WikiHow, removed in the harness's order.

    Two blanks become one in a single pass, so three become two.
    """
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def arc(row: dict) -> tuple[str, tuple[str, ...], int]:
    return f"Question: {row['question']}\nAnswer:", *labelled_choices(row)


def openbookqa(row: dict) -> tuple[str, tuple[str, ...], int]:
    return row["question_stem"], *labelled_choices(row)


def labelled_choices(row: dict) -> tuple[tuple[str, ...], int]:
    """(choices, gold). The key is looked up in the row's own labels: letters or digits."""
    choices = tuple(" " + text for text in row["choices"]["text"])
    return choices, row["choices"]["label"].index(row["answerKey"].strip())


def piqa(row: dict) -> tuple[str, tuple[str, ...], int]:
    choices = (" " + row["sol1"], " " + row["sol2"])
    return f"Question: {row['goal']}\nAnswer:", choices, int(row["label"])


@dataclass(frozen=True)
class Benchmark:
    repo: str  # on the hub
    config: str | None
    split: str  # the labelled one that is reported
    n_items: int  # documented
    item: Callable  # row -> (context, choices, gold)
    metric: str = "acc_norm"  # the headline; the authors' choice for all but LAMBADA


BENCHMARKS = {
    "lambada": Benchmark(
        "EleutherAI/lambada_openai", "default", "test", 5_153, lambada, metric="acc"
    ),
    "hellaswag": Benchmark("Rowan/hellaswag", None, "validation", 10_042, hellaswag),
    "arc_easy": Benchmark("allenai/ai2_arc", "ARC-Easy", "test", 2_376, arc),
    "arc_challenge": Benchmark("allenai/ai2_arc", "ARC-Challenge", "test", 1_172, arc),
    "piqa": Benchmark("baber/piqa", None, "validation", 1_838, piqa),
    "openbookqa": Benchmark("allenai/openbookqa", "main", "test", 500, openbookqa),
}


def load_benchmark(name: str, folder: str = "") -> list[Item]:
    """The items of one public benchmark, from the hub.

    With a folder the hub's rows are read from <folder>/<name>.jsonl instead. Raises UserError for
    an unknown name, and names the first row that cannot be an item.
    """
    if name not in BENCHMARKS:
        raise UserError(
            f"unknown benchmark {name!r}; choose one of {', '.join(BENCHMARKS)}, or general for all"
        )
    benchmark = BENCHMARKS[name]
    file = Path(os.path.join(folder, f"{name}.jsonl")) if folder else None
    items = []
    for where, row in file_rows(file) if file else rows_of_hub(benchmark):
        items.append(item_of_row(name, row, where))
    if not items:
        raise UserError(f"{file or benchmark.repo} holds no rows of {name}")
    return items


def file_rows(path: Path) -> Iterator[tuple[str, object]]:
    """(where it stands, row) of each row of a file."""
    for number, row in read_jsonl(path):
        yield f"{path}, line {number}", row


def rows_of_hub(benchmark: Benchmark) -> Iterator[tuple[str, object]]:
    """(where it stands, row) of each row of the hub's data set."""
    config = [benchmark.config] if benchmark.config else []
    rows = hub_rows(benchmark.repo, *config, split=benchmark.split)
    for number, row in enumerate(rows, start=1):
        yield f"{benchmark.repo}, row {number}", row


def item_of_row(name: str, row: object, where: str) -> Item:
    try:
        context, choices, gold = BENCHMARKS[name].item(row)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        has = ", ".join(row) if isinstance(row, dict) else type(row).__name__
        raise UserError(
            f"{where} is not a labelled row of {name} ({error!r}); it has {has}"
        ) from None
    if not 0 <= gold < len(choices):
        raise UserError(
            f"{where}: the label {gold} is none of {len(choices)} choices; "
            f"{name} needs its labelled split"
        )
    return Item(name, context, choices, gold)


# --- the toy world's skills -----------------------------------------------------------------------


def heldout(n: int = 200) -> list[str]:
    """General texts that no run has seen, for the held-out loss.

    They are of the same world in new combinations: texts of bucket 0 are never documents.
    """
    texts = []
    for i in itertools.count():
        if len(texts) == n:
            break
        text = general_text(random_for("heldout", i))
        if bucket(text) == 0:
            texts.append(text)
    return texts


def skills(n: int = 100) -> list[Item]:
    """n items of each of six skills; wrong choices come from the same class as the right one."""
    items = []
    for maker in (last_word, next_event, fact, two_hops, tool_use, inheritance):
        for i in range(n):
            items.append(maker(random_for("skills", maker.__name__, i)))  # a new name is a new item
    return items


def choose(
    rng: Random, skill: str, context: str, gold: str, others: Iterable[str], n_choices: int = 4
) -> Item:
    """An item with `gold` and some of the others as its choices, in a drawn order."""
    wrong = sorted(set(others) - {gold})
    choices = [*rng.sample(wrong, n_choices - 1), gold]
    rng.shuffle(choices)
    with_blanks = tuple(" " + choice for choice in choices)
    return Item(skill, context, with_blanks, choices.index(gold))


def last_word(rng: Random) -> Item:
    """As LAMBADA: the last word of an unseen story."""
    text = story(rng)
    while bucket(text) != 0:
        text = story(rng)
    context, word = text.rsplit(" ", 1)
    return Item("last word", context, (" " + word,), 0)


def next_event(rng: Random) -> Item:
    """As HellaSwag: how a script goes on; wrong events belong to other farms, mills or shops."""
    script = pick(rng, WORLD.scripts)
    n_told = rng.randint(1, 4)
    events = WORLD.scripts[script]
    others = set()
    for other, its_events in WORLD.scripts.items():
        if place_of(other) == place_of(script):
            others.update(its_events)
    told = " . ".join(events[:n_told])
    return choose(rng, "next event", f"{script} {told} .", events[n_told], others - set(events))


def place_of(script: str) -> str:
    """The kind of place: "farm" of "at the reed farm :"."""
    return script.split()[-2]


def fact(rng: Random) -> Item:
    """As ARC-Easy: a fact that was told."""
    (person, relation), gold = rng.choice(list(WORLD.of_people.items()))
    return choose(rng, "fact", f"people : {person} {relation}", gold, RELATIONS[relation])


def two_hops(rng: Random) -> Item:
    """As ARC-Challenge: the country of somebody whose city was told, but not the country."""
    untold = [person for person in WORLD.people if not is_told("country", person)]
    person = rng.choice(untold)
    city = WORLD.of_people[person, "lives in"]
    context = f"the country of {person} is"
    return choose(rng, "two hops", context, WORLD.country[city], COUNTRIES)


def tool_use(rng: Random) -> Item:
    """As PIQA: the better of two tools."""
    use, tool = rng.choice(list(WORLD.tool.items()))
    return choose(rng, "tool use", f"to {use} use the", tool, TOOLS, n_choices=2)


def inheritance(rng: Random) -> Item:
    """As OpenBookQA: what an animal can do, when only its kind was told."""
    untold = []
    for animal, kind in WORLD.kind.items():
        for ability in ABILITIES[kind]:
            if not is_told("ability", animal, ability):
                untold.append((animal, ability))
    animal, ability = rng.choice(untold)
    others = []
    for kind, abilities in ABILITIES.items():
        if kind != WORLD.kind[animal]:
            others += abilities
    return choose(rng, "inheritance", f"animals : a {animal} can", ability, others)
