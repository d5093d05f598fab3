"""A user's own reward: what is wrong with it is one line before any work, later an error."""

import pytest

from data import UserError
from data.problem import Problem
from plumbing.own_reward import NotAReward, load_reward

PROBLEM = Problem("abc", "how many ?", "5", (), "mine")
REWARDS = """
def score(response, problem):
    return 1 if problem.answer in response else 0.25

def words(response, problem):
    return "good"

def nothing(response, problem):
    pass

def endless(response, problem):
    return float("inf")

def alone(response):
    return 1.0

def fails(response, problem):
    return 1.0 / len(response)

def list_later(response, problem):
    return [1.0] if response else 1.0

number = 3
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "my_reward.py").write_text(REWARDS)
    (tmp_path / "broken.py").write_text("def score(:\n")
    return tmp_path / "my_reward.py"


def test_a_reward_is_a_float(file):
    own = load_reward(f"{file}:score", PROBLEM)
    assert own("so 5", PROBLEM) == 1.0 and isinstance(own("so 5", PROBLEM), float)
    assert own("so 6", PROBLEM) == 0.25


def test_no_flag_is_the_grader():
    assert load_reward("", PROBLEM) is None


@pytest.mark.parametrize(
    "spec, message",
    [
        ("my_reward", "write FILE.py:FUNCTION, as in my_reward.py:score"),
        ("my_reward.py", "write FILE.py:FUNCTION, as in my_reward.py:score"),
        ("my_reward.py:a b", "write FILE.py:FUNCTION, as in my_reward.py:score"),
        ("{folder}/no.py:score", "no.py is missing"),
        ("{folder}/broken.py:score", "does not load, SyntaxError"),
        ("{file}:reward", "has no function reward; write def reward(response, problem) -> float"),
        ("{file}:number", "has no function number"),
        ("{file}:alone", "alone(response) must take two arguments, (response, problem)"),
        ("{file}:words", "words gave 'good' on problem abc; a reward is one finite number"),
        ("{file}:nothing", "nothing gave None"),
        ("{file}:endless", "endless gave inf"),
    ],
)
def test_what_is_wrong_is_one_line(file, spec, message):
    spec = spec.format(file=file, folder=file.parent)
    with pytest.raises(UserError) as error:
        load_reward(spec, PROBLEM)
    said = str(error.value)
    assert message in said and "\n" not in said and said.startswith(f"--reward {spec}: ")


def test_an_exception_of_the_function_passes_with_the_problem_named(file):
    with pytest.raises(ZeroDivisionError) as error:
        load_reward(f"{file}:fails", PROBLEM)
    assert error.value.__notes__ == [f"in --reward {file}:fails, on problem abc: how many ?"]


def test_a_reward_that_stops_being_a_number_names_the_problem(file):
    own = load_reward(f"{file}:list_later", PROBLEM)
    with pytest.raises(NotAReward, match=r"list_later gave \[1.0\] on problem abc"):
        own("one", PROBLEM)
    assert not issubclass(NotAReward, UserError)
