"""What evaluate.py asks: problems alone, or with worked examples before each."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data.authors import authors_few_shot_text
from data.problem import Problem, with_kind
from data.problems import load_problems, prompt_text
from data.sources import counted, is_named
from plumbing import checkpoint
from plumbing.batches import generator
from plumbing.flags import check
from plumbing.likelihood import is_likelihood, load_items
from plumbing.ranks import print0
from plumbing.result_rows import first_problems


@dataclass
class Asked:
    """A problem set as evaluate.py asks it."""

    problems: list[Problem]
    texts: list[str]  # the prompt of each
    prompts: list[list[int]]  # the same in tokens


def open_tasks(config, tasks: list[str], model, encoding, facts: dict) -> dict[str, object]:
    """Task -> Asked, or for a benchmark its (items, texts).

    Every file is read and every length checked here, so that a later task cannot end a run whose
    earlier tasks have taken hours.
    """
    opened = {}
    for task in tasks:
        if is_likelihood(task):
            opened[task] = load_items(task, facts, config)
        else:
            opened[task] = ask(config, task, model, encoding)
    return opened


def ask(config, task: str, model, encoding) -> Asked:
    """The problems of a task with their prompts. UserError where one does not fit the model."""
    problems = with_kind(load_problems(task, config.split), config.kind)
    problems = first_problems(problems, task, config)
    limit = model.config.max_seq_len
    texts = build_prompts(problems, config, task, encoding, limit - config.max_response)
    prompts = [encoding.encode_ordinary(text) for text in texts]
    longest = max(map(len, prompts)) + config.max_response
    checkpoint.check_length(model, longest, "the longest prompt + --max_response")
    return Asked(problems, texts, prompts)


def few_shot_text(problem: Problem, shots: list[Problem]) -> str:
    """Each shot as its zero-shot prompt, first solution and a blank line; then the problem's."""
    text = ""
    for shot in shots:
        text += f"{prompt_text(shot)}{shot.solutions[0]}\n\n"
    return text + prompt_text(problem)


def build_prompts(
    problems: list[Problem], config, task: str, encoding=None, room: int = 0
) -> list[str]:
    """One prompt for each problem, with --shots examples from a training split.

    The examples are drawn by seed and never hold the problem itself. Ours are drawn for each
    problem apart. In the authors' style all problems get the same ones, from GSM8K.

    `room`: how many tokens of `encoding` a prompt may have; where it has more, its last examples
    are left out, which is said.
    """
    if not config.shots:
        return [prompt_text(problem) for problem in problems]
    authors = config.style == "authors"
    write = authors_few_shot_text if authors else few_shot_text
    draw = example_drawer(config, task)
    shots = []
    if authors:
        shots = draw({problem.question for problem in problems})
    texts = []
    n_fewer = 0
    for problem in problems:
        if not authors:
            shots = draw({problem.question})
        n_shots = len(shots)
        text = write(problem, shots)
        while room > 0 and n_shots > 0 and len(encoding.encode_ordinary(text)) > room:
            n_shots -= 1
            text = write(problem, shots[:n_shots])
        n_fewer += n_shots < len(shots)
        texts.append(text)
    if n_fewer:
        print0(
            f"{n_fewer:,} of {len(problems):,} prompts have fewer than {config.shots} examples, "
            "so that they fit"
        )
    return texts


def example_drawer(config, task: str) -> Callable[[set[str]], list[Problem]]:
    """A function from the questions that may not be examples to the examples."""
    authors = config.style == "authors"
    source = config.examples or ("gsm8k" if authors else task)
    examples = load_problems(source, "train", marks=authors)
    pool = [problem for problem in examples if problem.solutions]
    print0(f"--shots {config.shots}: examples of {counted(source, 'train', examples)}")
    if source == task and is_file(task):
        print0(f"the examples are other problems of {task} itself; give others with --examples")

    def draw(excluded: set[str]) -> list[Problem]:
        rest = [problem for problem in pool if problem.question not in excluded]
        there = f"{source} has {len(rest)} worked examples besides"
        check(len(rest) >= config.shots, f"{there}, --shots asks for {config.shots}")
        order = generator(config.seed, "shots").permutation(len(rest))
        return [rest[i] for i in order[: config.shots]]

    return draw


def is_file(task: str) -> bool:
    return not is_named(task) and Path(task).is_file()
