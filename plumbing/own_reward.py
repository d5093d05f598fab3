"""A user's own reward function: `--reward my_reward.py:score`.

Its arguments are (response, problem) or (response, problem, rollout). A rollout has `tokens`,
`logprobs` and `finished`, which is False where it was cut.
"""

import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from numbers import Real
from types import ModuleType

import numpy as np
import torch

from data import UserError
from data.jsonl import one_line, quoted
from data.problem import Problem
from plumbing.control_rewards import CONTROLS
from sampler import Rollout

NO_ROLLOUT = Rollout([], [], True)  # what a function is tried with before there is any
LARGEST = 1e18  # of a reward: float32 still holds the sum of the squares of a group's


class NotAReward(UserError, TypeError):
    """A user's reward function gave no number that can be learned from."""


def load_reward(spec: str, example: Problem) -> Callable[..., float] | None:
    """`my_reward.py:score` -> that function of (response, problem, rollout), each value checked.

    "random" and "format" -> those of control_rewards.py. "" -> None: the grader is the reward.

    A reward is one finite number of at most 1e18: a Python, numpy or torch scalar, or a bool, which
    counts as 1.0 or 0.0.

    The function is called once with `example` before any work starts. An exception that it raises
    there belongs to its author, so it passes through, with the problem named; a command makes one
    line of it (`launch`), as of a later one. Raises UserError if there is no such function or if it
    gives no reward.
    """
    if not spec:
        return None
    if spec in CONTROLS:
        return CONTROLS[spec]
    path, _, name = spec.rpartition(":")
    flag = f"--reward {spec}"
    if not path.endswith(".py") or not name.isidentifier():
        advice = f"as in my_reward.py:score, or one of {', '.join(CONTROLS)}"
        raise UserError(f"{flag}: write FILE.py:FUNCTION, {advice}")
    function = load_function(path, name, flag)
    wants_rollout = check_arguments(function, name, flag, example)

    def score_first(response: str, problem: Problem, rollout: Rollout) -> float:
        where = f"on problem {one_line(problem.id)}"
        try:
            if wants_rollout:
                tokens = list(rollout.tokens)  # copies, which the function may change
                logprobs = list(rollout.logprobs)
                own = replace(rollout, tokens=tokens, logprobs=logprobs)
                value = function(response, problem, own)
            else:
                value = function(response, problem)
        except (SystemExit, GeneratorExit) as error:
            raise UserError(f"{flag}: {name} ends the program ({error!r}) {where}") from error
        except Exception as error:
            error.add_note(f"in {flag}, {where}: {problem.question}")
            error.one_line = failure(error, problem)  # what a command says of it
            raise
        return checked(value, f"{flag}: {name} gave", where)

    def score(response: str, problem: Problem, rollout: Rollout = NO_ROLLOUT) -> float:
        try:
            return score_first(response, problem, rollout)
        except UserError:
            raise
        except Exception as error:
            raise UserError(error.one_line) from error

    def failure(error: Exception, problem: Problem) -> str:
        what = one_line(f"{type(error).__name__}: {text_of(error)}")
        place = f"{place_of(error, path)}on problem {one_line(problem.id)}"
        question = one_line(problem.question, 80)
        return f"{flag}: {name} failed {place} ({question}): {what}"

    score_first("", example, NO_ROLLOUT)
    return score


def text_of(error: Exception) -> str:
    """What the exception says; an exception of a user may fail in that, too."""
    try:
        return str(error)
    except Exception as another:
        return f"(no text: {type(another).__name__})"


def load_function(path: str, name: str, flag: str) -> Callable:
    """The function `name` of the file; a UserError that begins with `flag` if there is none."""
    if not os.path.isfile(path):
        raise UserError(f"{flag}: {path} is missing")
    function = getattr(load_module(path, flag), name, None)
    if not callable(function):
        raise UserError(
            f"{flag}: {path} has no function {name}; write def {name}(response, problem) -> float"
        )
    return function


def load_module(path: str, flag: str) -> ModuleType:
    """The file as a module, which its own dataclasses find by its name."""
    spec = importlib.util.spec_from_file_location("own_reward", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (SystemExit, GeneratorExit) as error:
        raise UserError(f"{flag}: {path} ends the program as it loads ({error!r})") from error
    except Exception as error:
        message = one_line(f"{path} does not load, {type(error).__name__}: {error}")
        raise UserError(f"{flag}: {message}") from error
    return module


def check_arguments(function: Callable, name: str, flag: str, example: Problem) -> bool:
    """Refuse what cannot be called with (response, problem), as far as that can be told.

    -> whether it must have the rollout, too
    """
    if inspect.iscoroutinefunction(function):
        raise UserError(f"{flag}: {name} is async; write def {name}(response, problem) -> float")
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # some builtin functions do not say what they take
        check_by_calling(function, name, flag, example)
        return False
    if takes(signature, "", example):
        return False
    if takes(signature, "", example, NO_ROLLOUT):
        return True
    raise UserError(
        f"{flag}: {name}{one_line(str(signature))} must take two arguments, (response, problem), "
        "or three, (response, problem, rollout)"
    )


def takes(signature: inspect.Signature, *arguments) -> bool:
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


def check_by_calling(function: Callable, name: str, flag: str, example: Problem) -> None:
    """For a function that is not written in Python, whose traceback would tell nobody anything."""
    try:
        function("", example)
    except Exception as error:
        what = one_line(f"{type(error).__name__}: {error}")
        raise UserError(f"{flag}: {name} cannot take (response, problem), {what}") from error


def checked(value: object, gave: str, where: str) -> float:
    """The value as a float; NotAReward where it is not one finite number up to LARGEST."""
    number = value
    if isinstance(value, torch.Tensor | np.ndarray | np.generic) and value.ndim == 0:
        number = value.item()
    if inspect.iscoroutine(value):
        value.close()  # otherwise Python warns that nobody awaited it
    if isinstance(number, Real) and abs(number) <= LARGEST:  # NaN is not, either
        return float(number)
    raise NotAReward(
        f"{gave} {quoted(value)} {where}; a reward is one finite number, a float of at most "
        f"{LARGEST:.1e}"
    )


def place_of(error: Exception, path: str) -> str:
    """'in line 12 ', where the error came from that line of the user's file."""
    own = os.path.abspath(path)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if os.path.abspath(frame.filename) == own:
            return f"in line {frame.lineno} "
    return ""
