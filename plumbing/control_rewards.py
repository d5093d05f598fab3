"""Rewards that should teach nothing about mathematics: the controls `--reward random` and `format`.

A run that improves with these owes it to something else than the reward for right answers
(arXiv 2506.10947 shows a model that does).
"""

from random import Random

from data.grader import extract
from data.problem import Problem


def random_reward(response: str, problem: Problem, rollout) -> float:
    """0 or 1, a fair coin for each rollout: keyed by seed, step, problem and rollout."""
    return float(Random(rollout.key).random() < 0.5)


def format_reward(response: str, problem: Problem, rollout) -> float:
    """1 for a response that commits to any answer, right or wrong, else 0."""
    return float(extract(response, problem.kind) is not None)


CONTROLS = {"random": random_reward, "format": format_reward}
