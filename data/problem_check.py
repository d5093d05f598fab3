"""What a set of problems is like: tokens, words, and solutions that the grader does not accept.

`summary` is the line that sft.py and grpo.py print at their start; data/problem_report.py prints
more of the same for `python -m data.problems my.jsonl`.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from statistics import median

from data.grader import extract, grade
from data.problem import Problem, Problems, places
from data.problems import prompt_text

LONG_ANSWER = 100  # characters; hardly any response has such an answer word by word
WORD = re.compile(r"[^\W_]+")


@dataclass
class Findings:
    """Of some problems; the numbers are those of their lines or rows."""

    prompts: list[int] = field(default_factory=list)  # tokens of each
    solutions: list[int] = field(default_factory=list)  # tokens of each
    accepted: int = 0  # solutions whose answer is right
    wrong: list[int] = field(default_factory=list)  # solutions with another answer than the row's
    unmarked: list[int] = field(default_factory=list)  # solutions without a readable answer
    long_answers: list[int] = field(default_factory=list)


def look_at(problems: list[Problem], encoding, all_solutions: bool) -> Findings:
    """Count the tokens of prompts and solutions, and grade the solutions (or each first one)."""
    found = Findings()
    numbers = getattr(problems, "numbers", None) or range(1, len(problems) + 1)
    for number, problem in zip(numbers, problems):
        found.prompts.append(len(encoding.encode_ordinary(prompt_text(problem))))
        if len(problem.answer) > LONG_ANSWER:
            found.long_answers.append(number)
        for text in problem.solutions if all_solutions else problem.solutions[:1]:
            found.solutions.append(len(encoding.encode_ordinary(text)))
            if grade(text, problem.answer, problem.kind):
                found.accepted += 1
            elif extract(text, problem.kind) is None:
                found.unmarked.append(number)
            else:
                found.wrong.append(number)
    return found


def summary(problems: list[Problem], encoding, most: int = 1_000) -> str:
    """One line on the first so many problems, or "" for the toy world's, which are known.

    'prompts of 30 to 212 tokens, solutions of 12 to 340; the grader accepts 98 of 99 first
    solutions, not line 7'
    """
    if not isinstance(problems, Problems) or not problems:
        return ""
    first = Problems(problems[:most], problems.unit)
    first.numbers = problems.numbers[:most]
    found = look_at(first, encoding, all_solutions=False)
    text = f"prompts of {spread(found.prompts)} tokens"
    if len(problems) > most:
        text = f"the first {most:,}: {text}"
    if not found.solutions:
        return text
    text += f", solutions of {spread(found.solutions)}; the grader accepts {found.accepted:,} "
    text += f"of {len(found.solutions):,} first solutions"
    rejected = sorted(found.wrong + found.unmarked)
    return f"{text}, not {places(problems.unit, rejected)}" if rejected else text


def spread(lengths: list[int]) -> str:
    """'30 to 212', or '30' where all are the same."""
    if min(lengths) == max(lengths):
        return f"{lengths[0]:,}"
    return f"{min(lengths):,} to {max(lengths):,}"


def findings_in_lines(problems: list[Problem], encoding) -> list[str]:
    """Everything that `look_at` finds, a line each."""
    found = look_at(problems, encoding, all_solutions=True)
    unit = getattr(problems, "unit", "row")
    lines = [f"tokens ({encoding.name}): prompts {spread_with_median(found.prompts)}"]
    if found.solutions:
        lines[0] += f"; solutions {spread_with_median(found.solutions)}"
        n = len(found.solutions)
        lines.append(f"solutions: the grader accepts {found.accepted:,} of {n:,}")
    if found.wrong:
        lines.append(with_places("with another answer than the row's", unit, found.wrong))
    if found.unmarked:
        lines.append(with_places("without an answer in a box", unit, found.unmarked))
    if found.long_answers:
        text = f"answers of more than {LONG_ANSWER} characters, which hardly any response equals"
        lines.append(with_places(text, unit, found.long_answers))
    return lines


def with_places(what: str, unit: str, numbers: list[int]) -> str:
    return f"{len(numbers):,} {what} ({places(unit, numbers)})"


def spread_with_median(lengths: list[int]) -> str:
    return f"{spread(lengths)}, median {median(lengths):,.0f}"


def unknown_words(problems: list[Problem], encoding, most: int = 5) -> str:
    """How many words are no tokens of the toy tokenizer, which writes those letter by letter."""
    tokens = set(encoding.token_byte_values())
    counts = Counter()
    for problem in problems:
        for text in (problem.question, *problem.solutions):
            counts.update(WORD.findall(text.replace("\\boxed", "")))  # a token of its own
    unknown = Counter()
    for word, n in counts.items():
        if word.encode() not in tokens and f" {word}".encode() not in tokens:
            unknown[word] = n
    if not unknown:
        return ""
    frequent = ", ".join(word for word, _ in unknown.most_common(most))
    return (
        f"{len(unknown):,} of {len(counts):,} different words are unknown to the toy tokenizer, "
        f"which writes them letter by letter: {frequent}"
    )


def levels(problems: list[Problem], most: int = 8) -> str:
    """'Level 1 (5), Level 2 (3)', or "" where no problem has a level."""
    counts = Counter(problem.level for problem in problems)
    if set(counts) <= {""}:
        return ""
    parts = []
    for level in sorted(counts)[:most]:
        parts.append(f"{level or 'none'} ({counts[level]:,})")
    if len(counts) > most:
        parts.append(f"and {len(counts) - most:,} more")
    return ", ".join(parts)


def repeated(problems: list[Problem]) -> int:
    """How many problems ask what an earlier one asks."""
    return len(problems) - len({problem.question for problem in problems})
