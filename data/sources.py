r"""Where problems come from: rows of files and of the hub, in the shapes they are published in.

data/problems.py asks for them by name. Here is also what a user should know of a set: how many
problems it has, how they are graded, and what it shares with a test set.
"""

import json
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from data import UserError
from data.problem import KINDS, Problem, question_id

NAMES = ("toy", "toy-hard", "gsm8k", "math", "openmath-gsm8k", "openmath")
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


# --- one row -> one problem -----------------------------------------------------------------------

# GSM8K's answers are worked, with marks like <<48/2=24>>, and end in a line "#### 72".
WORKED = re.compile(r"(.*)\n#### *(\S.*?)\s*", re.DOTALL)
CALCULATOR_MARK = re.compile(r"<<.*?>>")


def row_to_problem(row: dict, source: str, marks: bool = False, kind: str = "") -> Problem:
    """One row in any of four shapes; a UserError says what is wrong with it.

    ours            question, answer; optional id, solutions, source, kind, level
    GSM8K           question, answer (worked, last line `#### 72`)
    OpenMathInstruct-2   problem, generated_solution, expected_answer, problem_source
    MATH            problem, solution (answer in its last \\boxed{}), level

    `source` holds where the row names none, `kind` is that of a named set; else the row decides.
    """
    if not isinstance(row, dict):
        raise UserError(f"expected a JSON object, found {type(row).__name__}")
    kind = kind or kind_of(row)
    if "generated_solution" in row and "problem" in row:
        question = row["problem"]
        answer = row.get("expected_answer")
        solutions = (row["generated_solution"],)
        source = row.get("problem_source", source)
    elif "solution" in row and "problem" in row:
        question = row["problem"]
        answer = last_boxed(row["solution"])
        solutions = (row["solution"],)
    elif "question" in row and "answer" in row:
        question = row["question"]
        answer = row["answer"]
        solutions = row.get("solutions", ())
        solutions = (solutions,) if isinstance(solutions, str) else tuple(solutions)
        worked = WORKED.fullmatch(str(answer))
        if worked:
            answer = worked[2].replace(",", "")  # "1,000" is 1000: the authors compare strings
            work = worked[1] if marks else CALCULATOR_MARK.sub("", worked[1])
            solutions = (f"{work}\n\\boxed{{{answer}}}",)
    else:
        raise UserError(f"needs the fields question and answer, has {', '.join(row) or 'none'}")
    if not isinstance(question, str) or not question.strip():
        raise UserError("question or answer is empty or not text")
    if answer is None or not str(answer).strip():  # an empty answer would reward an empty box
        raise UserError("question or answer is empty or not text")
    return Problem(
        id=str(row.get("id") or question_id(question)),
        question=question,
        answer=str(answer),
        solutions=solutions,
        source=row.get("source", source),
        kind=kind,
        level=row.get("level", ""),
    )


def kind_of(row: dict) -> str:
    """How the row's answer is graded, by the row alone: the name of its file decides nothing.

    Its own field `kind` says so; else an answer with GSM8K's mark #### is of kind gsm8k, and so is
    OpenMathInstruct-2's problem_source "gsm8k" or "augmented_gsm8k"; all others are math.
    """
    kind = row.get("kind")
    if kind is not None:
        if kind not in KINDS:
            raise UserError(f"kind {kind!r} is none of {', '.join(KINDS)}")
        return kind
    if "####" in str(row.get("answer", "")):
        return "gsm8k"
    return kind_of_openmath(row.get("problem_source", ""))


def kind_of_openmath(problem_source: str) -> str:
    return "gsm8k" if "gsm8k" in str(problem_source) else "math"


def last_boxed(text: str) -> str | None:
    r"""What the last \boxed{} holds: r"\boxed{\frac{1}{2}}" gives r"\frac{1}{2}".

    None if there is no box, or its braces do not balance.
    """
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    content = start + len("\\boxed{")
    depth = 1
    for i in range(content, len(text)):
        if text[i] == "{":
            depth += 1
        elif text[i] == "}":
            depth -= 1
        if depth == 0:
            return text[content:i]
    return None


def group_solutions(problems: Iterable[Problem]) -> list[Problem]:
    """Merge problems with exactly the same question into the first, with the solutions of all."""
    first = {}
    solutions = {}
    for p in problems:
        first.setdefault(p.question, p)
        solutions.setdefault(p.question, []).extend(p.solutions)
    return [replace(p, solutions=tuple(solutions[p.question])) for p in first.values()]


# --- files ----------------------------------------------------------------------------------------


def read_jsonl(path: Path) -> Iterator[tuple[int, object]]:
    """(line number, row) of every line of a jsonl file; a UserError names the line if not JSON."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:  # bad JSON or bad UTF-8
                raise UserError(f"{path}, line {number} is not JSON: {error}") from None
            yield number, row


def load_file(path: Path, marks: bool = False) -> list[Problem]:
    """All problems of a jsonl file; rows of OpenMathInstruct-2 are grouped by question."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing; give the path of a .jsonl file or one of {', '.join(NAMES)}"
        )
    problems = []
    has_openmath_rows = False
    for number, row in read_jsonl(path):
        try:
            # with its suffix, since "toy.jsonl" is not the toy world
            problems.append(row_to_problem(row, path.name, marks))
        except UserError as error:
            raise UserError(f"{path}, line {number}: {error}") from None
        if "generated_solution" in row:
            has_openmath_rows = True
    if not problems:
        raise UserError(
            f"{path} is empty; it needs one JSON object per line with question and answer"
        )
    return group_solutions(problems) if has_openmath_rows else problems


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
    except (OSError, ValueError, RuntimeError) as error:  # no network, no such split, closed client
        reason = str(error).split("\n")[0]
        raise UserError(
            f"cannot load {repo}, split {split} ({reason}); check the network or give local files"
        ) from None


def load_gsm8k(split: str, marks: bool = False) -> list[Problem]:
    rows = hub_rows("openai/gsm8k", "main", split=split)
    return [row_to_problem(row, "gsm8k", marks, kind="gsm8k") for row in rows]


def load_math(split: str) -> list[Problem]:
    rows = hub_rows("DigitalLearningGmbH/MATH-lighteval", split=split)
    return [row_to_problem(row, "math", kind="math") for row in rows]


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
        return self.rows[self.places[i]]["generated_solution"]


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
    rows = hub_rows("nvidia/OpenMathInstruct-2", split="train")
    first = {}  # question -> (answer, source) of its first row
    places = {}  # question -> the numbers of its rows
    for i, (question, answer, source) in enumerate(openmath_rows(rows)):
        if question not in first:
            first[question] = (answer, source)
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
    problems = []
    for question in chosen:
        answer, source = first[question]
        solutions = Solutions(rows, places[question])
        kind = kind_of_openmath(source)
        problems.append(
            Problem(question_id(question), question, str(answer), solutions, source, kind)
        )
    return problems


def openmath_rows(rows) -> Iterator[tuple[str, str, str]]:
    """(question, answer, source) of every row, read in batches, which is many times faster."""
    fields = ["problem", "expected_answer", "problem_source"]
    for batch in rows.select_columns(fields).iter(10_000):
        yield from zip(*(batch[field] for field in fields))


def in_authors_order(first: dict, sources: tuple[str, ...]) -> list[str]:
    """The questions of these sources, shuffled as the authors' library does with seed 42."""
    part = [question for question, (_, source) in first.items() if source in sources]
    return [part[i] for i in np.random.default_rng(42).permutation(len(part))]


# --- what a user should know of a set -------------------------------------------------------------


def counted(name: str, split: str, problems: list[Problem]) -> str:
    """One line on a set, as at the start of every command.

    'gsm8k test: 1,319 problems, 1,319 solutions, as documented; graded as gsm8k'
    """
    n = len(problems)
    n_solutions = sum(len(p.solutions) for p in problems)
    text = f"{name} {split}: {n:,} problems, {n_solutions:,} solutions"
    if (name, split) in DOCUMENTED:
        least, most = DOCUMENTED[name, split]
        if least <= n <= most:
            text += ", as documented"
        else:
            expected = f"{least:,}" if least == most else f"{least:,} to {most:,}"
            text += f"; documented are {expected}: the set has changed, compare with care"
    return text + graded_as(problems)


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
