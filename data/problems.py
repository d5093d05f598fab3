r"""Problems with a question, a checkable answer and worked solutions: one form for every source.

    problems = load_problems("toy", "train")
    problems = load_problems("my_problems.jsonl")     # see row_to_problem for the rows it reads

    python -m data.problems openmath-gsm8k            # counts, and what it shares with the test sets

Every stage (SFT, RL, evaluation) builds its prompts here, so training and testing cannot drift apart.
"""

import hashlib
import json
import re
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from data import UserError

INSTRUCTION = "Let's think step by step and output the final answer within \\boxed{}."  # the authors' words

NAMES = ("toy", "toy-hard", "gsm8k", "math", "openmath-gsm8k", "openmath")
WITH_VAL = ("toy", "toy-hard", "openmath-gsm8k", "openmath")  # have a validation split of their own
DOCUMENTED = {  # problems, least and most; OpenMathInstruct-2's from its makers' and the authors' round numbers
    ("gsm8k", "train"): (7_473, 7_473), ("gsm8k", "test"): (1_319, 1_319), ("math", "train"): (7_500, 7_500), ("math", "test"): (5_000, 5_000),
    ("openmath-gsm8k", "train"): (79_872, 80_383), ("openmath-gsm8k", "val"): (1_000, 1_000),
    ("openmath", "train"): (600_000, 610_000), ("openmath", "val"): (2_000, 2_000),
}  # fmt: skip


@dataclass(frozen=True)
class Problem:
    id: str  # a stable hash of the question unless the source has its own
    question: str
    answer: str  # what the grader compares with
    solutions: Sequence[str]  # worked ones; SFT trains on the first, SFT-Gold on all
    source: str
    level: str = ""  # toy: shape "(2,3)" or "4 steps"; MATH: "Level 3"; results are also reported by it


def prompt_text(problem: Problem) -> str:
    """The zero-shot prompt; the response follows directly, no chat roles (the authors' template is message + newline)."""
    return f"{problem.question} {INSTRUCTION}\n"


def few_shot_text(problem: Problem, shots: list[Problem]) -> str:
    """Each shot as its zero-shot prompt, its first solution and a blank line; then the problem's prompt."""
    return "".join(f"{prompt_text(shot)}{shot.solutions[0]}\n\n" for shot in shots) + prompt_text(problem)


def authors_few_shot_text(problem: Problem, shots: list[Problem]) -> str:
    """As the authors asked base checkpoints: GSM8K shots for every set, "####" for GSM8K and boxes for MATH.

    The shots keep GSM8K's calculator marks if they were loaded with marks=True.
    """
    hashes = answer_kind(problem) == "gsm8k"
    mark = lambda text: re.sub(r"\n\\boxed\{(.*)\}$", r"\n#### \1", text) if hashes else text
    lines = "".join(f"Question: {shot.question}\nAnswer: {mark(shot.solutions[0])}\n" for shot in shots)
    instruction = INSTRUCTION.replace("within \\boxed{}", 'after "####"') if hashes else INSTRUCTION
    return f"{lines}Question: {problem.question}\nAnswer: {instruction}\n"


def answer_kind(problem: Problem) -> str:
    """Which of the grader's rules fit: `gsm8k` (numbers, in a box or after ####), `math` (anything, in a box; the order of
    solutions is free) or `ordered` (where it is not: the toy world asks for two numbers)."""
    return "gsm8k" if "gsm8k" in problem.source else "ordered" if problem.source.startswith("toy") else "math"


def load_problems(name: str, split: str = "train", marks: bool = False) -> list[Problem]:
    """The problems of a named set (NAMES) or of a jsonl file; a file is one split, so `split` is ignored for it.

    `marks` keeps the <<48/2=24>> in GSM8K's solutions, which neither SFT nor our prompts want.
    """
    if name in ("toy", "toy-hard"):
        from data import toy  # here, because toy.py builds on this file

        return toy.problems(split, name)
    if name == "gsm8k":
        return [row_to_problem(row, name, marks) for row in hub_rows("openai/gsm8k", "main", split=split)]
    if name == "math":
        return [row_to_problem(row, name) for row in hub_rows("DigitalLearningGmbH/MATH-lighteval", split=split)]
    if name in ("openmath", "openmath-gsm8k"):
        return openmath(name, split)
    if Path(name).suffix == ".jsonl" or Path(name).exists():
        return jsonl(Path(name), marks)
    raise UserError(f"unknown problem set {name!r}; choose one of {', '.join(NAMES)}, or give the path of a .jsonl file")


def train_and_val(name: str, n: int) -> tuple[list[Problem], list[Problem]]:
    """(training problems, n held-out ones for validation), never the same question in both; n = 0 holds nothing out.

    Sets that have a validation split give its first n. Of the others n questions, but at most a quarter, are drawn by
    their hash: the same ones for every seed, order and machine, and they are not trained on.
    """
    train = load_problems(name, "train")
    if name in WITH_VAL or not n:
        return train, load_problems(name, "val")[:n] if n else []
    questions = sorted({p.question for p in train}, key=lambda q: hashlib.blake2b(b"held out" + q.encode()).digest())
    chosen, first = questions[: min(n, len(questions) // 4)], {p.question: p for p in reversed(train)}
    held = set(chosen)
    return [p for p in train if p.question not in held], [first[q] for q in chosen]


# --- rows -> problems ---------------------------------------------------------------------------------------------


def row_to_problem(row: dict, source: str, marks: bool = False) -> Problem:
    """One row in any of four shapes; a UserError says which fields are missing.

    ours            question, answer; optional id, solutions, source, level
    GSM8K           question, answer (worked, last line `#### 72`)
    OpenMathInstruct-2   problem, generated_solution, expected_answer, problem_source
    MATH            problem, solution (answer in its last \\boxed{}), level
    """
    if not isinstance(row, dict):
        raise UserError(f"expected a JSON object, found {type(row).__name__}")
    if "generated_solution" in row and "problem" in row:
        question, answer, solutions = row["problem"], row.get("expected_answer"), (row["generated_solution"],)
        source = row.get("problem_source", source)
    elif "solution" in row and "problem" in row:
        question, answer, solutions = row["problem"], last_boxed(row["solution"]), (row["solution"],)
    elif "question" in row and "answer" in row:
        question, answer, solutions = row["question"], row["answer"], row.get("solutions", ())
        solutions = (solutions,) if isinstance(solutions, str) else tuple(solutions)
        worked = re.fullmatch(r"(.*)\n#### *(\S.*?)\s*", str(answer), re.DOTALL)
        if worked:
            answer = worked[2].replace(",", "")  # "1,000" is 1000; the paper's reward compares strings
            solutions = ((worked[1] if marks else re.sub(r"<<.*?>>", "", worked[1])) + f"\n\\boxed{{{answer}}}",)
    else:
        raise UserError(f"needs the fields question and answer, has {', '.join(row) or 'none'}")
    if not isinstance(question, str) or not question.strip() or answer is None or not str(answer).strip():
        raise UserError("question or answer is empty or not text")  # an empty answer would reward an empty box
    return Problem(str(row.get("id") or question_id(question)), question, str(answer), solutions,
                   row.get("source", source), row.get("level", ""))


def question_id(question: str) -> str:
    """12 hex digits, the same on every machine: question_id("1 + 1 ?") == "47d10e5c5a4f"."""
    return hashlib.blake2b(question.encode(), digest_size=6).hexdigest()


def last_boxed(text: str) -> str | None:
    r"""The content of the last \boxed{} with balanced braces: r"\boxed{\frac{1}{2}}" gives r"\frac{1}{2}"."""
    start = text.rfind("\\boxed{")
    depth = 0
    for i in range(start + len("\\boxed"), len(text) if start >= 0 else 0):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return text[start + len("\\boxed{") : i]
    return None


def group_solutions(problems) -> list[Problem]:
    """Merge rows with exactly the same question: the first row stands, the solutions of all are kept in order."""
    first, solutions = {}, {}
    for p in problems:
        first.setdefault(p.question, p)
        solutions.setdefault(p.question, []).extend(p.solutions)
    return [replace(p, solutions=tuple(solutions[question])) for question, p in first.items()]


# --- sources ------------------------------------------------------------------------------------------------------


def read_jsonl(path: Path):
    """(line number, row) of every line of a jsonl file; a UserError names the line that is not JSON."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except ValueError as error:  # bad JSON or bad UTF-8
                    raise UserError(f"{path}, line {number} is not JSON: {error}") from None


def jsonl(path: Path, marks: bool = False) -> list[Problem]:
    """All problems of a jsonl file; rows of OpenMathInstruct-2 are grouped by question."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; give the path of a .jsonl file or one of {', '.join(NAMES)}")
    problems, grouped = [], False
    for number, row in read_jsonl(path):
        try:
            problems.append(row_to_problem(row, path.stem, marks))
        except UserError as error:
            raise UserError(f"{path}, line {number}: {error}") from None
        grouped |= "generated_solution" in row
    if not problems:
        raise UserError(f"{path} is empty; it needs one JSON object per line with question and answer")
    return group_solutions(problems) if grouped else problems


def hub_rows(repo: str, *config: str, split: str):
    """Rows of a Hugging Face data set; needs the `datasets` library and, the first time, the network."""
    try:
        from datasets import load_dataset
    except ImportError:
        raise UserError(f"{repo} needs the datasets library; run: pip install datasets, or give a .jsonl path") from None
    try:
        return load_dataset(repo, *config, split=split)
    except (OSError, ValueError, RuntimeError) as error:  # no network, no such split, closed client
        reason = str(error).split("\n")[0]
        raise UserError(f"cannot load {repo}, split {split} ({reason}); check the network or give local files") from None


class Solutions(Sequence):
    """The worked solutions of one problem, read when asked for: all of OpenMathInstruct-2's are 15 GB."""

    def __init__(self, rows, places: array):
        self.rows, self.places = rows, places  # a data set on disk, and which of its rows

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, i):
        if isinstance(i, slice):
            return tuple(self[j] for j in range(*i.indices(len(self))))
        return self.rows[self.places[i]]["generated_solution"]


@lru_cache(maxsize=1)  # parallel.py asks twice, for each of its halves
def openmath(name: str, split: str) -> list[Problem]:
    """OpenMathInstruct-2 (14 M rows) as the authors use it: one problem per distinct question, with its first row's answer.

    `openmath-gsm8k` is its GSM8K-like part, about 81 K questions in the authors' order (their library's shuffle with
    seed 42); the first 1,000 are kept apart as `val`. `openmath` is all, in the rows' order, without the 1,000 GSM8K-like
    and 1,000 MATH-like questions that such shuffles put first.
    """
    if split not in ("train", "val"):
        raise UserError(f"{name} has the splits train and val, not {split!r}; test on gsm8k or math")
    rows = hub_rows("nvidia/OpenMathInstruct-2", split="train")
    first, places = {}, {}
    fields = ["problem", "expected_answer", "problem_source"]
    columns = (zip(*(batch[f] for f in fields)) for batch in rows.select_columns(fields).iter(10_000))
    for i, (question, answer, source) in enumerate(row for batch in columns for row in batch):
        if question not in first:
            first[question], places[question] = (answer, source), array("i")
        places[question].append(i)

    def shuffled(*sources):  # as the authors' library does with seed 42
        part = [question for question, (_, source) in first.items() if source in sources]
        return [part[i] for i in np.random.default_rng(42).permutation(len(part))]

    chosen = shuffled("gsm8k", "augmented_gsm8k")
    val = chosen[:1_000] if name == "openmath-gsm8k" else chosen[:1_000] + shuffled("math", "augmented_math")[:1_000]
    train = chosen[1_000:] if name == "openmath-gsm8k" else first.keys() - set(val)
    kept = val if split == "val" else train if name == "openmath-gsm8k" else [question for question in first if question in train]
    return [Problem(question_id(q), q, str(first[q][0]), Solutions(rows, places[q]), first[q][1]) for q in kept]


# --- what a user should know of a set -----------------------------------------------------------------------------


def counted(name: str, split: str, problems: list[Problem]) -> str:
    """'gsm8k test: 1,319 problems, 1,319 solutions, as documented'."""
    n, text = len(problems), f"{name} {split}: {len(problems):,} problems, {sum(len(p.solutions) for p in problems):,} solutions"
    if (name, split) not in DOCUMENTED:
        return text
    least, most = DOCUMENTED[name, split]
    expected = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    return text + (", as documented" if least <= n <= most else f"; documented are {expected}: the set has changed, compare with care")


def contamination(train: list[Problem], tests: list[Problem], n: int = 13) -> tuple[int, int]:
    """How many training questions equal a test question (case, blanks and punctuation apart), and how many share n words in a row."""
    words = lambda p: tuple(re.findall(r"\w+", p.question.lower()))
    grams = lambda w: {w[i : i + n] for i in range(len(w) - n + 1)}
    whole = {words(p) for p in tests}
    parts = set().union(*map(grams, whole))
    asked = [words(p) for p in train]
    return sum(w in whole for w in asked), sum(not parts.isdisjoint(grams(w)) for w in asked)


def main(name: str, *tests: str) -> None:
    """Print the counts of a training set and what it shares with test sets (default: GSM8K's and MATH's)."""
    train = load_problems(name, "train")
    print(counted(name, "train", train))
    for test in tests or ("gsm8k", "math"):
        held = load_problems(test, "test")
        print(counted(test, "test", held))
        equal, near = contamination(train, held)
        print(f"contamination: of {len(train):,} training questions {equal:,} stand in {test} test, {near:,} share 13 words in a row with one of its {len(held):,}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(f"usage: python -m data.problems {'|'.join(NAMES)}|FILE.jsonl [TEST SETS]")
    try:
        main(*sys.argv[1:])
    except (ValueError, OSError) as error:
        sys.exit(f"data.problems: {error}")
