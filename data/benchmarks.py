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
from data.jsonl import label_of, names_of, quoted, read_jsonl, text_of, type_name, valid
from data.sources import hub_rows, numbered
from data.toy_text import CORPORA, general_text, story
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
    if corpus in CORPORA:
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
    text = text_of(row, "text")
    if text is None:
        text = f"{needed(row, 'context')} {needed(row, 'continuation')}"
    context, blank, word = text.rpartition(" ")
    if not blank:
        raise UserError("its text is a single word, and the last one has to follow others")
    return context, (" " + word,), 0


# As in data/rows.py, the rest of a line in which no mark closes is kept, and not searched again.
WIKIHOW_MARK = re.compile(r"\[.*?\]|(\[.*)")


def hellaswag(row: dict) -> tuple[str, tuple[str, ...], int]:
    context = f"{needed(row, 'ctx_a')} {needed(row, 'ctx_b').capitalize()}"
    context = without_wikihow_marks(f"{needed(row, 'activity_label')}: {context}")
    endings = []
    for ending in texts_in(row, "endings"):
        endings.append(" " + without_wikihow_marks(ending))
    return context, tuple(endings), whole_number(row, "label")


def without_wikihow_marks(text: str) -> str:
    """HellaSwag's traces of WikiHow, removed in the harness's order.

    Two blanks become one in a single pass, so three become two.
    """
    text = text.strip().replace(" [title]", ". ")
    return WIKIHOW_MARK.sub(r"\1", text).replace("  ", " ")


def arc(row: dict) -> tuple[str, tuple[str, ...], int]:
    return f"Question: {needed(row, 'question')}\nAnswer:", *labelled_choices(row)


def openbookqa(row: dict) -> tuple[str, tuple[str, ...], int]:
    return needed(row, "question_stem"), *labelled_choices(row)


def labelled_choices(row: dict) -> tuple[tuple[str, ...], int]:
    """(choices, gold). The key is looked up in the row's own labels: letters or digits."""
    choices = row["choices"]
    if not isinstance(choices, dict):
        raise UserError(f"field choices is {type_name(choices)}, must hold lists text and label")
    texts = tuple(" " + text for text in texts_in(choices, "text"))
    labels = texts_in(choices, "label")
    key = label_of(row, "answerKey").strip()
    if len(texts) != len(labels) or key not in labels:
        raise UserError(f"answerKey {quoted(key)} is no label of {len(texts)} choices")
    return texts, labels.index(key)


def piqa(row: dict) -> tuple[str, tuple[str, ...], int]:
    choices = (" " + needed(row, "sol1"), " " + needed(row, "sol2"))
    return f"Question: {needed(row, 'goal')}\nAnswer:", choices, whole_number(row, "label")


# --- fields of a row: a KeyError where one is missing, a UserError where it is of a wrong type ----


def needed(row: dict, name: str) -> str:
    """The text in a field that must be there."""
    text = text_of(row, name)
    if text is None:
        raise KeyError(name)
    return text


def texts_in(row: dict, name: str) -> list[str]:
    """A list of at least two texts, in their order; numbers count as texts."""
    values = row[name]
    if not isinstance(values, list | tuple) or len(values) < 2:
        raise UserError(f"field {name} is {type_name(values)}, must be a list of two or more texts")
    texts = []
    for value in values:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise UserError(f"field {name} holds {type_name(value)}, must hold texts")
        texts.append(valid(str(value)))
    return texts


def whole_number(row: dict, name: str) -> int:
    """A whole number, as a number or in digits."""
    value = row[name]
    text = label_of(row, name).strip()
    if not re.fullmatch("-?[0-9]{1,9}", text):
        raise UserError(f"field {name} is {quoted(value)}, must be a whole number")
    return int(text)


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
    for number, row in numbered(rows, benchmark.repo):
        yield f"{benchmark.repo}, row {number}", row


def item_of_row(name: str, row: object, where: str) -> Item:
    wrong = f"{where} is not a labelled row of {name}"
    if not isinstance(row, dict):
        raise UserError(f"{wrong}; it has {type(row).__name__}")
    try:
        context, choices, gold = BENCHMARKS[name].item(row)
    except KeyError as error:
        raise UserError(f"{wrong} ({error!r}); it has {names_of(row)}") from None
    except UserError as error:
        raise UserError(f"{wrong}: {error}") from None
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
