"""What evaluate.py asks: problems alone, or with worked examples before each."""

from data.authors import authors_few_shot_text
from data.problems import Problem, few_shot_text, load_problems, prompt_text
from plumbing.batches import generator
from plumbing.flags import check


def build_prompts(problems: list[Problem], config, task: str) -> list[str]:
    """One prompt for each problem, with --shots examples from a training split.

    The examples are drawn by seed and never hold the problem itself. Ours are drawn for each
    problem apart. In the authors' style all problems get the same ones, from GSM8K.
    """
    if not config.shots:
        return [prompt_text(problem) for problem in problems]
    authors = config.style == "authors"
    source = config.examples or ("gsm8k" if authors else task)
    pool = [
        problem for problem in load_problems(source, "train", marks=authors) if problem.solutions
    ]

    def draw(excluded: set[str]) -> list[Problem]:
        rest = [problem for problem in pool if problem.question not in excluded]
        there = f"{source} has {len(rest)} worked examples besides"
        check(len(rest) >= config.shots, f"{there}, --shots asks for {config.shots}")
        order = generator(config.seed, "shots").permutation(len(rest))
        return [rest[i] for i in order[: config.shots]]

    if authors:
        shots = draw({problem.question for problem in problems})
        return [authors_few_shot_text(problem, shots) for problem in problems]
    return [few_shot_text(problem, draw({problem.question})) for problem in problems]
