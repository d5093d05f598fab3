r"""Problems with a question, a checkable answer and worked solutions: one form for every source.

    problems = load_problems("toy", "train")
    problems = load_problems("my_problems.jsonl")     # see row_to_problem for the rows it reads

Every stage (SFT, RL, evaluation) builds its prompts here, so training and testing cannot drift apart.
"""

import hashlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

from data import UserError

INSTRUCTION = "Let's think step by step and output the final answer within \\boxed{}."  # the authors' words

NAMES = ("toy", "toy-hard", "gsm8k", "math", "openmath-gsm8k", "openmath")
N_OPENMATH_VAL = 1_000  # problems of OpenMathInstruct-2 the authors keep for validation


@dataclass(frozen=True)
class Problem:
    id: str  # a stable hash of the question unless the source has its own
    question: str
    answer: str  # what the grader compares with
    solutions: tuple[str, ...]  # worked ones; SFT trains on the first, SFT-Gold on all
    source: str
    level: str = ""  # toy: shape "(2,3)" or "4 steps"; MATH: "Level 3"; results are also reported by it


def prompt_text(problem: Problem) -> str:
    """The zero-shot prompt; the response follows directly, no chat roles (the authors' template is message + newline)."""
    return f"{problem.question} {INSTRUCTION}\n"


def few_shot_text(problem: Problem, shots: list[Problem]) -> str:
    """Each shot as its zero-shot prompt, its first solution and a blank line; then the problem's prompt.

    The authors' 8-shot GSM8K prompt words its lines differently ("Question: ...", "Answer: ...").
    """
    return "".join(f"{prompt_text(shot)}{shot.solutions[0]}\n\n" for shot in shots) + prompt_text(problem)


def answer_kind(problem: Problem) -> str:
    """Which of the grader's rules fit: `gsm8k` (numbers, in a box or after ####) or `math` (anything, in a box)."""
    return "gsm8k" if "gsm8k" in problem.source else "math"


def load_problems(name: str, split: str = "train") -> list[Problem]:
    """The problems of a named set (NAMES) or of a jsonl file; a file is one split, so `split` is ignored for it."""
    if name in ("toy", "toy-hard"):
        from data import toy  # here, because toy.py builds on this file

        return toy.problems(split, name)
    if name == "gsm8k":
        return [row_to_problem(row, name) for row in hub_rows("openai/gsm8k", "main", split=split)]
    if name == "math":
        return [row_to_problem(row, name) for row in hub_rows("DigitalLearningGmbH/MATH-lighteval", split=split)]
    if name in ("openmath", "openmath-gsm8k"):
        return openmath(name, split)
    if Path(name).suffix == ".jsonl" or Path(name).exists():
        return jsonl(Path(name))
    raise UserError(f"unknown problem set {name!r}; choose one of {', '.join(NAMES)}, or give the path of a .jsonl file")


# --- rows -> problems ---------------------------------------------------------------------------------------------


def row_to_problem(row: dict, source: str) -> Problem:
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
            solutions = (re.sub(r"<<.*?>>", "", worked[1]) + f"\n\\boxed{{{answer}}}",)
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


def jsonl(path: Path) -> list[Problem]:
    """All problems of a jsonl file; rows of OpenMathInstruct-2 are grouped by question."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; give the path of a .jsonl file or one of {', '.join(NAMES)}")
    problems, grouped = [], False
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:  # bad JSON or bad UTF-8
                raise UserError(f"{path}, line {number} is not JSON: {error}") from None
            try:
                problems.append(row_to_problem(row, path.stem))
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
        raise UserError(f"cannot load {repo}, split {split} ({reason}); check the network or give a .jsonl path") from None


def openmath(name: str, split: str) -> list[Problem]:
    """OpenMathInstruct-2 as the authors use it: grouped by question, 1,000 questions kept apart as `val`.

    They shuffle with a library's seed 42; we order by a hash of the question, which no version can change.
    The whole set is 14 M rows (15 GB as text); `openmath-gsm8k` is its GSM8K-like part, about 80 K questions.
    """
    if split not in ("train", "val"):
        raise UserError(f"{name} has the splits train and val, not {split!r}; test on gsm8k or math")
    rows = hub_rows("nvidia/OpenMathInstruct-2", split="train")
    if name == "openmath-gsm8k":
        rows = rows.filter(lambda s: [x in ("gsm8k", "augmented_gsm8k") for x in s], input_columns="problem_source", batched=True)
    problems = sorted(group_solutions(row_to_problem(row, name) for row in rows), key=lambda p: p.id)
    return problems[:N_OPENMATH_VAL] if split == "val" else problems[N_OPENMATH_VAL:]
