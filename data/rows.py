r"""One row of a file or of the hub -> one problem, whichever shape it is published in.

A row that has no reference answer raises NoAnswer: whoever reads the rows leaves it out and counts
it. What else is wrong with a row is a UserError, since then the whole file is not what it seems.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal
from functools import lru_cache

from data import UserError, toy
from data.boxes import BARE_START, BOX, boxes
from data.grader import MAX_RESPONSE
from data.jsonl import label_of, names_of, quoted, text_of, texts_of, type_name, valid, value_of
from data.problem import KINDS, Problem, Problems, like, question_id

# Words by which sets say that there is no answer, in small letters.
SENTINELS = {"notfound", "not found", "proof", "nan", "none", "null", "n/a", "na", "no answer"}

# GSM8K's answers are worked, with marks like <<48/2=24>>, and end in a line "#### 72".
# Where no mark closes on the rest of a line, the rest is kept whole: it is not searched again.
CALCULATOR_MARK = re.compile(r"<<.*?>>|(<<.*)")
BEGINS_WITH_A_NUMBER = re.compile(r"[^A-Za-z]*[0-9]")
WITH_THOUSANDS = re.compile(r"(?<![0-9,.])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?!,?[0-9])")


class NoAnswer(UserError):
    """A row without a reference answer. `reason` says what it has instead: "an empty box"."""

    def __init__(self, reason: str, message: str = ""):
        super().__init__(message or f"has {reason}, so no reference answer")
        self.reason = reason


def read_rows(
    rows: Iterable[tuple[int, object]], place: str, unit: str, source: str, marks=False, kind=""
) -> Problems:
    """The problems of numbered rows; rows without a reference answer are left out and counted.

    Rows of OpenMathInstruct-2 are grouped by question. Raises UserError, with the place and the
    number, for a row that is wrong otherwise, and where no row has an answer. The other arguments
    are those of row_to_problem.
    """
    problems = Problems(unit=unit)
    first_failure = None
    has_openmath_rows = False
    for number, row in rows:
        try:
            problems.append(row_to_problem(row, source, marks, kind))
        except NoAnswer as error:
            problems.left_out.setdefault(error.reason, []).append(number)
            first_failure = first_failure or f"{place}, {unit} {number}: {error}"
        except UserError as error:
            raise UserError(f"{place}, {unit} {number}: {error}") from None
        else:
            problems.numbers.append(number)
            has_openmath_rows |= "generated_solution" in row
    if first_failure and not problems:
        raise UserError(
            f"{first_failure}; no other {unit} has one, either; "
            "give each an answer, as text or a number"
        )
    return group_solutions(problems) if has_openmath_rows else problems


def row_to_problem(row: object, source: str, marks: bool = False, kind: str = "") -> Problem:
    r"""One row in any of four shapes; null is as good as no field.

    ours            question, answer; optional id, solutions (or solution), source, kind, level
    GSM8K           question, answer (worked, last line `#### 72`)
    OpenMathInstruct-2   problem, generated_solution, expected_answer, problem_source
    MATH, NuminaMath     problem, solution (answer in its last box), level; else answer

    `source` holds where the row names none, `kind` is that of a named set; else the row decides.
    Raises NoAnswer, or another UserError that says what is wrong.
    """
    if not isinstance(row, dict):
        raise UserError(f"expected a JSON object, found {type(row).__name__}")
    kind = kind or kind_of(row)
    given = {name for name in row if value_of(row, name) is not None}
    if "problem" in given and given & {"generated_solution", "expected_answer"}:
        question = question_of(row, "problem")
        solutions = texts_of(row, "generated_solution")
        answer = first_usable([("answer", row.get("expected_answer"))], row)
        source = text_of(row, "problem_source") or source
    elif {"problem", "solution"} <= given:
        question = question_of(row, "problem")
        solutions = texts_of(row, "solution")
        answer = first_usable([last_box_of(solutions), ("answer", row.get("answer"))], row)
    else:
        question = question_of(row, "problem" if "question" not in given else "question")
        answer, solutions = answer_and_solutions(row, marks)
    return Problem(
        id=label_of(row, "id") or question_id(question),
        question=question,
        answer=answer,
        solutions=solutions,
        source=source_of(row, source, question),
        kind=kind,
        level=label_of(row, "level"),
    )


def question_of(row: dict, name: str) -> str:
    if row.keys().isdisjoint(("question", "problem")):
        raise UserError(f"needs the fields question and answer, has {names_of(row)}")
    try:
        question = text_of(row, name)
    except UserError as error:
        raise UserError(f"question or answer is empty or not text: {error}") from None
    if question is None or not question.strip():
        raise UserError("question or answer is empty: the question must be text")
    return question


def answer_and_solutions(row: dict, marks: bool) -> tuple[str, tuple[str, ...]]:
    """Those of a row of ours, or of one of GSM8K, whose answer holds the worked solution as well.

    `marks` keeps the <<48/2=24>> of GSM8K.
    """
    solutions = texts_of(row, "solutions") or texts_of(row, "solution")
    value = row.get("answer")
    worked = split_worked(value) if isinstance(value, str) else None
    if worked is None:
        return first_usable([("answer", value), last_box_of(solutions)], row), solutions
    work, result = worked
    answer = first_usable([last_box_of([result]), ("answer", without_thousands(result))], row)
    if not work.strip():
        return answer, solutions
    if not marks:
        work = CALCULATOR_MARK.sub(r"\1", work)
    return answer, (f"{valid(work)}\n\\boxed{{{answer}}}",)


def group_solutions(problems: Problems) -> Problems:
    """Merge problems with exactly the same question into the first, with the solutions of all."""
    first = {}
    solutions = {}
    for number, p in zip(problems.numbers, problems):
        first.setdefault(p.question, (number, p))
        solutions.setdefault(p.question, []).extend(p.solutions)
    grouped = like(problems, [])
    for question, (number, p) in first.items():
        grouped.append(replace(p, solutions=tuple(solutions[question])))
        grouped.numbers.append(number)
    return grouped


# --- the reference answer -------------------------------------------------------------------------


def first_usable(candidates: list[tuple[str, object]], row: dict) -> str:
    """The first of these (what it is, value) that is a reference answer; else NoAnswer."""
    failure = None
    for what, value in candidates:
        if value is None:
            continue
        try:
            return reference(what, value)
        except NoAnswer as error:
            failure = failure or error
    if failure:
        raise failure
    if row.keys().isdisjoint(("answer", "expected_answer", "solution", "solutions")):
        has = f"needs the fields question and answer, has {names_of(row)}"
        raise NoAnswer("no field for an answer", has)
    if len(candidates) == 1:
        raise NoAnswer("no answer")
    raise NoAnswer("neither an answer nor a closed box", "question or answer is empty, or no box")


def reference(what: str, value: object) -> str:
    """The value of an answer or of a box as text; NoAnswer where it cannot be an answer."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise NoAnswer(f"{type_name(value)} as its {what}")
    if isinstance(value, float) and not math.isfinite(value):
        raise NoAnswer(f"{value} as its {what}")
    if isinstance(value, float):
        text = f"{Decimal(str(value)):f}"  # "0.00001" rather than "1e-05"
    else:
        text = valid(str(value)).strip()
    if not text:  # it would reward an empty box
        raise NoAnswer(f"an empty {what}", "question or answer is empty")
    if text.lower() in SENTINELS:
        raise NoAnswer(f"the {what} {text.lower()!r}")
    if len(text) > MAX_RESPONSE:
        raise NoAnswer(f"more than {MAX_RESPONSE:,} characters as its {what}")
    return text


def last_box_of(texts: Iterable[str]) -> tuple[str, str | None]:
    """What the last box of the first text holds, as first_usable takes it."""
    for text in texts:
        return "box", last_boxed(text)
    return "box", None


def last_boxed(text: str) -> str | None:
    r"""What the last box holds: r"\boxed{\frac{1}{2}}" gives r"\frac{1}{2}", r"\boxed 8" gives "8".

    None if there is no box, or if the last one is not closed.
    """
    start = None
    for box in BOX.finditer(text):
        has_content = text.startswith("{", box.end()) or BARE_START.match(text, box.end())
        if has_content:  # unlike "in \boxed form"
            start = box.start()
    if start is None:
        return None
    contents = boxes(text[start : start + MAX_RESPONSE])  # of a response no more is read
    return contents[0] if contents else None


def split_worked(text: str) -> tuple[str, str] | None:
    """(the work, what stands behind the last mark ####); None where no mark gives a result.

    A line "#### Step 2" before others is a heading. Raises NoAnswer for a last line "####".
    """
    lines = text.rstrip().split("\n")
    for i in reversed(range(len(lines))):
        before, mark, result = lines[i].rpartition("####")
        result = result.strip()
        is_last = i == len(lines) - 1
        if not mark or before.endswith("#"):
            continue
        if is_last and not result:
            raise NoAnswer("nothing behind ####")
        if is_last or BEGINS_WITH_A_NUMBER.match(result):
            work = "\n".join([*lines[:i], before])
            return work.removesuffix("\n").removesuffix("\r"), result
    return None


def without_thousands(text: str) -> str:
    """ "1,000" as "1000", since the authors compare strings; "13, 5" and "(2,300)" stay."""
    if re.search(r"[][(){}]", text):
        return text
    return WITH_THOUSANDS.sub(without_commas, text)


def without_commas(number: re.Match) -> str:
    return number[0].replace(",", "")


# --- what else a row says -------------------------------------------------------------------------


def kind_of(row: dict) -> str:
    """How the row's answer is graded, by the row alone: the name of its file decides nothing.

    Its own field `kind` says so; else an answer with GSM8K's mark #### is of kind gsm8k, and so is
    OpenMathInstruct-2's problem_source "gsm8k" or "augmented_gsm8k"; all others are math.
    """
    kind = value_of(row, "kind")
    if kind is not None:
        if not isinstance(kind, str) or kind not in KINDS:
            raise UserError(f"kind {quoted(kind)} is none of {', '.join(KINDS)}")
        return kind
    answer = row.get("answer")
    if isinstance(answer, str) and "####" in answer:
        return "gsm8k"
    return kind_of_openmath(text_of(row, "problem_source") or "")


def kind_of_openmath(problem_source: str) -> str:
    return "gsm8k" if "gsm8k" in problem_source else "math"


def source_of(row: dict, source: str, question: str) -> str:
    """Where the problem comes from. "toy" is the toy world alone, whatever a row or file says."""
    own = text_of(row, "source") or source
    if own in toy.LIMITS and question not in toy_questions(own):
        return f"{own} (not the toy world)"
    return own


@lru_cache
def toy_questions(family: str) -> set[str]:
    """All questions of the toy world: tools/difficulty.py writes some to files, which are read."""
    questions = set()
    for split in toy.SPLITS:
        for problem in toy.problems(split, family):
            questions.add(problem.question)
    return questions
