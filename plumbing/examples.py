"""What SFT learns from: prompts with worked solutions, tokenized."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.problem import Problem
from data.problem_check import summary
from data.problems import load_problems, prompt_text
from data.sources import counted
from plumbing.batches import generator
from plumbing.flags import check
from plumbing.optimizer import check_schedule
from plumbing.ranks import print0, rank


@dataclass
class Example:
    prompt: list[int]
    response: list[int]  # with its end-of-text token, unless it was cut


class Examples(Sequence):
    """The training examples of a recipe, as a list whose items are tokenized when asked for.

    (SFT-Gold on OpenMathInstruct-2 has 14 million of them.) `solutions` is one per problem, or all;
    `pick` says which one: the first, or one drawn by (seed, problem).
    """

    def __init__(
        self,
        problems: list[Problem],
        encoding,
        solutions: str,
        max_prompt: int,
        max_response: int,
        pick: str = "first",
        seed: int = 0,
    ):
        self.encoding = encoding
        self.max_response = max_response
        self.problems = []  # those that have solutions, and prompts that fit
        solution_numbers = []  # for each of them, which of its solutions are examples
        for problem in problems:
            n = len(problem.solutions)
            if n == 0 or len(encoding.encode_ordinary(prompt_text(problem))) > max_prompt:
                continue
            self.problems.append(problem)
            if solutions == "all":
                solution_numbers.append(np.arange(n, dtype=np.int32))
            elif pick == "random":
                drawn = generator(seed, "pick", problem.id).integers(n)
                solution_numbers.append(np.array([drawn], np.int32))
            else:
                solution_numbers.append(np.zeros(1, np.int32))
        # Of example i: the number of its problem, and of the solution within the problem.
        counts = [len(numbers) for numbers in solution_numbers]
        self.problem_of = np.repeat(np.arange(len(counts), dtype=np.int32), counts)  # (len(self),)
        self.solution_of = np.concatenate([np.zeros(0, np.int32), *solution_numbers])

    def __len__(self) -> int:
        return len(self.problem_of)

    def __getitem__(self, i: int) -> Example:
        problem = self.problems[self.problem_of[i]]
        # encode_ordinary: text of the data can never become a special token; only we add the end.
        prompt = self.encoding.encode_ordinary(prompt_text(problem))
        response = self.encoding.encode_ordinary(problem.solutions[self.solution_of[i]])
        response.append(self.encoding.eot_token)
        return Example(prompt, response[: self.max_response])


def load_examples(config, encoding, problems: list[Problem] | None = None) -> Examples:
    """The training examples of a run, of these problems or of all that --data has.

    Prints how many there are and what was left out or cut. Raises UserError if there are none.
    """
    is_new = problems is None
    if is_new:
        problems = load_problems(config.data, "train")
    solved = sum(len(problem.solutions) > 0 for problem in problems)
    check(
        solved > 0,
        f"{config.data} has no worked solutions to learn from; "
        "SFT needs a field `solutions` or GSM8K answers",
    )
    if is_new:
        print_set(config.data, problems, encoding)
    data = Examples(
        problems,
        encoding,
        config.solutions,
        config.max_prompt,
        config.max_response,
        config.pick,
        config.seed,
    )
    check(
        len(data) > 0,
        f"every prompt of {config.data} is over --max_prompt {config.max_prompt} tokens",
    )
    looked_at = min(len(data), 10_000)
    cut = sum(data[i].response[-1] != encoding.eot_token for i in range(looked_at))
    of_the_first = f" of the first {looked_at:,}" if looked_at < len(data) else ""
    print0(
        f"{len(data):,} examples; {solved - len(data.problems):,} problems over "
        f"{config.max_prompt} prompt tokens left out, {cut:,} solutions{of_the_first} cut at "
        f"{config.max_response} tokens"
    )
    return data


def print_set(name: str, problems: list[Problem], encoding, more: str = "") -> None:
    """What a user should know of a training set: a line, and a second one on an own set or a hub's.

    `more` ends the first line.
    """
    if rank() > 0:
        return
    print0(counted(name, "train", problems) + more)
    its_summary = summary(problems, encoding)
    if its_summary:
        print0(f"{name}: {its_summary}")


def check_sft(config, loss: str, schedule: str, flag: str = "--sft_loss") -> None:
    """Refuse what the SFT half of parallel.py does not know, or, with its own flag, sft.py."""
    check(config.solutions in ("one", "all"), f"--solutions {config.solutions}: choose one or all")
    check(config.pick in ("first", "random"), f"--pick {config.pick}: choose first or random")
    check(loss in ("mean", "sum"), f"{flag} {loss}: choose mean or sum")
    check_schedule(schedule)
