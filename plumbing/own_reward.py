"""A user's own reward function: `--reward my_reward.py:score`."""

import importlib.util
import inspect
import math
import os
from collections.abc import Callable
from numbers import Real

from data import UserError
from data.problem import Problem


class NotAReward(TypeError):
    """A user's reward function gave no number.

    In the middle of a run that may happen on any rank, so it is not a UserError, which is one quiet
    line: this is an error with its traceback.
    """


def load_reward(spec: str, example: Problem) -> Callable[[str, Problem], float] | None:
    """`my_reward.py:score` -> that function of (response, problem), with each value checked.

    "" -> None: the grader is the reward. The function is called once with `example` before any
    work starts. An exception it raises belongs to its author, so it passes through, with the
    problem named. Raises UserError if there is no such function or its value is not a number.
    """
    if not spec:
        return None
    path, _, name = spec.rpartition(":")
    if not path.endswith(".py") or not name.isidentifier():
        raise UserError(f"--reward {spec}: write FILE.py:FUNCTION, as in my_reward.py:score")
    function = load_function(path, name, flag=f"--reward {spec}")
    try:
        inspect.signature(function).bind("", example)
    except TypeError:
        raise UserError(
            f"--reward {spec}: {name}{inspect.signature(function)} must take two arguments, "
            "(response, problem)"
        ) from None

    def score(response: str, problem: Problem) -> float:
        try:
            value = function(response, problem)
        except Exception as error:
            error.add_note(f"in --reward {spec}, on problem {problem.id}: {problem.question}")
            raise
        if not isinstance(value, Real) or not math.isfinite(value):
            raise NotAReward(
                f"--reward {spec}: {name} gave {value!r} on problem {problem.id}; "
                "a reward is one finite number, a float"
            )
        return float(value)

    try:
        score("", example)
    except NotAReward as error:
        raise UserError(str(error)) from None
    return score


def load_function(path: str, name: str, flag: str) -> Callable:
    """The function `name` of the file; a UserError that begins with `flag` if there is none."""
    if not os.path.isfile(path):
        raise UserError(f"{flag}: {path} is missing")
    spec = importlib.util.spec_from_file_location("own_reward", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        message = f"{flag}: {path} does not load, {type(error).__name__}: {error}"
        raise UserError(message.replace("\n", " ")) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise UserError(
            f"{flag}: {path} has no function {name}; write def {name}(response, problem) -> float"
        )
    return function
