r"""Where problems come from: rows of files and of the hub, in the shapes they are published in.

data/problems.py asks for them by name. Here is also what a user should know of a set: how many
problems it has, how they are graded, and what it shares with a test set.
"""

import itertools
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from data import UserError
from data.jsonl import check_file, one_line, read_jsonl
from data.problem import KINDS, Problem, Problems
from data.rows import NoAnswer, read_rows, row_to_problem
from data.toy import FAMILIES

NAMES = (*FAMILIES, "gsm8k", "math", "openmath-gsm8k", "openmath")
# Problems that a set is documented to have, at least and at most; OpenMathInstruct-2's are from its
# makers' and the authors' round numbers.
DOCUMENTED = {
    ("gsm8k", "train"): (7_473, 7_473),
    ("gsm8k", "test"): (1_319, 1_319),
    ("math", "train"): (7_500, 7_500),
    ("math", "test"): (5_000, 5_000),
    ("openmath-gsm8k", "train"): (79_872, 80_383),
    ("openmath-gsm8k", "val"): (1_000, 1_000),
    ("openmath", "train"): (600_000, 610_000),
    ("openmath", "val"): (2_000, 2_000),
}


# --- files ----------------------------------------------------------------------------------------


def is_named(name: str) -> bool:
    """Whether this is one of NAMES, or some shapes of a toy family, as in "toy:21+32"."""
    return name.partition(":")[0] in NAMES


def load_file(path: Path, marks: bool = False) -> list[Problem]:
    """All problems of a jsonl file."""
    check_file(path, f"; give the path of a .jsonl file or one of {', '.join(NAMES)}")
    problems = read_rows(read_jsonl(path), str(path), "line", path.name, marks)
    if not problems:
        raise UserError(
            f"{path} is empty; it needs one JSON object per line with question and answer"
        )
    return problems


# --- the hub --------------------------------------------------------------------------------------


def hub_rows(repo: str, *config: str, split: str):
    """Rows of a Hugging Face data set; needs the `datasets` library and, once, the network."""
    try:
        from datasets import load_dataset
    except ImportError:
        raise UserError(
            f"{repo} needs the datasets library; run: pip install datasets, or give a .jsonl path"
        ) from None
    try:
        return load_dataset(repo, *config, split=split)
    except Exception as error:  # the library's own, pyarrow's and the network's have no common kind
        raise cannot_load(f"{repo}, split {split}", error) from error


def cannot_load(what: str, error: Exception) -> UserError:
    """One line on an error of the `datasets` library, whose cause often says more than itself."""
    reason = one_line(str(error).split("\n")[0]) or type(error).__name__
    cause = error.__cause__
    if cause is not None:
        reason += f": {type(cause).__name__}, {one_line(str(cause))}"
    return UserError(f"cannot load {what} ({reason}); check the network or give local files")


def numbered(rows: Iterable, repo: str, unit: str = "row") -> Iterator[tuple[int, object]]:
    """(number from 1, row) of a data set; UserError where the library cannot read a row."""
    rows = iter(rows)
    for number in itertools.count(1):
        try:
            row = next(rows)
        except StopIteration:
            return
        except Exception as error:  # as in hub_rows
            raise cannot_load(f"{repo}, {unit} {number}", error) from error
        yield number, row


def load_gsm8k(split: str, marks: bool = False) -> list[Problem]:
    repo = "openai/gsm8k"
    rows = numbered(hub_rows(repo, "main", split=split), repo)
    return read_rows(rows, repo, "row", "gsm8k", marks, kind="gsm8k")


def load_math(split: str) -> list[Problem]:
    repo = "DigitalLearningGmbH/MATH-lighteval"
    rows = numbered(hub_rows(repo, split=split), repo)
    return read_rows(rows, repo, "row", "math", kind="math")


OPENMATH = "nvidia/OpenMathInstruct-2"
OPENMATH_FIELDS = ["problem", "expected_answer", "problem_source"]


class Solutions(Sequence):
    """The worked solutions of one problem, read when asked for: all of the set's are 15 GB."""

    def __init__(self, rows, places: array):
        self.rows = rows  # the data set, on disk
        self.places = places  # which of its rows are solutions of this problem

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, i):
        if isinstance(i, slice):
            return tuple(self[j] for j in range(*i.indices(len(self))))
        place = self.places[i]
        solution = self.rows[place]["generated_solution"]
        if solution is None:
            raise UserError(f"{OPENMATH}, row {place + 1}: field generated_solution is null")
        return solution


@lru_cache(maxsize=1)  # parallel.py asks twice, for each of its halves
def load_openmath(name: str, split: str) -> list[Problem]:
    """OpenMathInstruct-2 (14 M rows) as the authors use it.

    One problem for each distinct question, with its first row's answer. `openmath-gsm8k` is the
    GSM8K-like part, about 81 K questions in the authors' order; the first 1,000 are kept apart as
    `val`. `openmath` is all, in the rows' order, without the 1,000 GSM8K-like and 1,000 MATH-like
    questions that stand first when each part is shuffled.
    """
    if split not in ("train", "val"):
        raise UserError(
            f"{name} has the splits train and val, not {split!r}; test on gsm8k or math"
        )
    rows = hub_rows(OPENMATH, split="train")
    first = {}  # question -> the problem of its first row that has an answer
    places = {}  # question -> the places of its rows from there on
    problems = Problems(unit="row")
    for i, values in enumerate(openmath_rows(rows)):
        question = values[0]
        if question not in first:
            try:
                first[question] = row_to_problem(dict(zip(OPENMATH_FIELDS, values)), name)
            except NoAnswer as error:
                problems.left_out.setdefault(error.reason, []).append(i + 1)
                continue
            except UserError as error:
                raise UserError(f"{OPENMATH}, row {i + 1}: {error}") from None
            places[question] = array("i")
        places[question].append(i)

    gsm8k_like = in_authors_order(first, ("gsm8k", "augmented_gsm8k"))
    if name == "openmath-gsm8k":
        chosen = gsm8k_like[:1_000] if split == "val" else gsm8k_like[1_000:]
    else:
        math_like = in_authors_order(first, ("math", "augmented_math"))
        chosen = gsm8k_like[:1_000] + math_like[:1_000]
        if split == "train":
            val = set(chosen)
            chosen = [question for question in first if question not in val]
    for question in chosen:
        problems.append(replace(first[question], solutions=Solutions(rows, places[question])))
    return problems


def openmath_rows(rows) -> Iterator[tuple]:
    """The OPENMATH_FIELDS of every row, read in batches, which is many times faster."""
    try:
        batches = rows.select_columns(OPENMATH_FIELDS).iter(10_000)
    except Exception as error:  # as in hub_rows
        raise cannot_load(OPENMATH, error) from error
    for _, batch in numbered(batches, OPENMATH, "batch"):
        yield from zip(*(batch[field] for field in OPENMATH_FIELDS))


def in_authors_order(first: dict[str, Problem], sources: tuple[str, ...]) -> list[str]:
    """The questions of these sources, shuffled as the authors' library does with seed 42."""
    part = [question for question, problem in first.items() if problem.source in sources]
    return [part[i] for i in np.random.default_rng(42).permutation(len(part))]


# --- what a user should know of a set -------------------------------------------------------------


def counted(name: str, split: str, problems: list[Problem]) -> str:
    """One line on a set, as at the start of every command.

    'gsm8k test: 1,319 problems, 1,319 solutions, as documented; graded as gsm8k'
    'my.jsonl train: 8 problems, 8 solutions; graded as math; left out 1 row with an empty box ...'
    """
    n = len(problems)
    n_solutions = sum(len(p.solutions) for p in problems)
    text = f"{name} {split}: {n:,} problems, {n_solutions:,} solutions"
    left_out = ""
    n_rows = n
    if isinstance(problems, Problems) and problems.left_out:
        left_out = f"; left out {problems.what_is_left_out()}"
        n_rows += problems.n_left_out()
    if (name, split) in DOCUMENTED:
        least, most = DOCUMENTED[name, split]
        if least <= n_rows <= most:
            text += ", as documented"
        else:
            expected = f"{least:,}" if least == most else f"{least:,} to {most:,}"
            text += f"; documented are {expected}: the set has changed, compare with care"
    return text + graded_as(problems) + left_out


def graded_as(problems: list[Problem]) -> str:
    """'; graded as gsm8k', or with several kinds '; graded as gsm8k (80) and math (20)'."""
    counts = Counter(p.kind for p in problems)
    if not counts:
        return ""
    if len(counts) == 1:
        (kind,) = counts
        return f"; graded as {kind}"
    parts = [f"{kind} ({counts[kind]:,})" for kind in KINDS if kind in counts]
    return f"; graded as {', '.join(parts[:-1])} and {parts[-1]}"


def contamination(train: list[Problem], tests: list[Problem], n: int = 13) -> tuple[int, int]:
    """How many training questions equal a test question, and how many share n words in a row.

    Case, blanks and punctuation do not count.
    """
    whole = {words_of(p) for p in tests}
    parts = set()
    for words in whole:
        parts |= runs_of_words(words, n)
    equal = 0
    near = 0
    for p in train:
        words = words_of(p)
        if words in whole:
            equal += 1
        if not parts.isdisjoint(runs_of_words(words, n)):
            near += 1
    return equal, near


def words_of(problem: Problem) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", problem.question.lower()))


def runs_of_words(words: tuple[str, ...], n: int) -> set[tuple[str, ...]]:
    """Every n words in a row."""
    return {words[i : i + n] for i in range(len(words) - n + 1)}
