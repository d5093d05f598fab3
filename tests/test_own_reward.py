"""A user's own reward: what is wrong with it is one line, before any work and in the middle of it."""

import warnings

import pytest

import grpo
from data import UserError
from data.draws import rollout_keys
from data.problem import Problem
from plumbing.own_reward import NotAReward, load_reward
from sampler import Rollout

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
    assert issubclass(NotAReward, UserError)  # on whichever rank it happens, one line says it


def load(tmp_path, code, name="score"):
    (tmp_path / "r.py").write_text(code)
    return load_reward(f"{tmp_path}/r.py:{name}", PROBLEM)


def refused(tmp_path, code, name="score"):
    """The one line by which the reward is refused before any work."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no coroutine is left that nobody awaited
        with pytest.raises(UserError) as error:
            load(tmp_path, code, name)
    return one_line_of(error, tmp_path, name)


def one_line_of(error, tmp_path, name="score"):
    said = str(error.value)
    assert "\n" not in said and said.startswith(f"--reward {tmp_path}/r.py:{name}: ")
    return said.removeprefix(f"--reward {tmp_path}/r.py:{name}: ")


@pytest.mark.parametrize(
    "value, paid",
    [
        ("True", 1.0),
        ("False", 0.0),
        ("-3", -3.0),
        ("1e18", 1e18),
        ("__import__('fractions').Fraction(1, 4)", 0.25),
        ("np.float32(0.5)", 0.5),
        ("np.float16(0.5)", 0.5),
        ("np.int64(2)", 2.0),
        ("np.bool_(True)", 1.0),
        ("np.array(0.5)", 0.5),
        ("torch.tensor(0.5)", 0.5),
        ("torch.tensor(True)", 1.0),
        ("torch.tensor(0.5, requires_grad=True)", 0.5),
        ("torch.tensor(2, dtype=torch.bfloat16)", 2.0),
    ],
)
def test_scalars_of_any_library_are_rewards(tmp_path, value, paid):
    own = load(
        tmp_path, f"import numpy as np, torch\ndef score(response, problem):\n    return {value}\n"
    )
    assert own("x", PROBLEM) == paid and type(own("x", PROBLEM)) is float


@pytest.mark.parametrize(
    "value",
    ["float('nan')", "-float('inf')", "1e19", "-1e300", "10**400", "np.float64(1e39)"]
    + ["torch.tensor(float('nan'))",
     "[1.0]", "np.array([1.0])", "torch.ones(3)", "'1'", "None", "1j", "{}", "np.complex64(1)", "b'1'",
     "__import__('decimal').Decimal(1)", "response.encode", "(x for x in response)", "'long' * 10_000",
     "np.ones((50, 50))"],
)  # fmt: skip
def test_what_is_no_reward_is_refused(tmp_path, value):
    said = refused(
        tmp_path, f"import numpy as np, torch\ndef score(response, problem):\n    return {value}\n"
    )
    assert said.startswith("score gave ") and len(said) < 300
    assert said.endswith(
        "on problem abc; a reward is one finite number, a float of at most 1.0e+18"
    )


def test_builtin_async_and_generator_functions(tmp_path):
    assert "must take two arguments" in refused(tmp_path, "score = len")
    assert "score cannot take (response, problem), TypeError" in refused(tmp_path, "score = max")
    assert "score gave {} on problem abc" in refused(tmp_path, "score = dict.fromkeys")
    assert "score is async; write def score" in refused(
        tmp_path, "async def score(response, problem): return 1.0"
    )
    call = (
        "class Call:\n    async def __call__(self, response, problem): return 1.0\nscore = Call()"
    )
    assert "score gave <coroutine object" in refused(tmp_path, call)
    assert "score gave <generator object" in refused(
        tmp_path, "def score(response, problem): yield 1.0"
    )
    assert load(tmp_path, "from operator import eq as score")("", PROBLEM) == 0.0


def test_a_reward_that_ends_the_program(tmp_path):
    for call in ("sys.exit()", "sys.exit(0)", "exit(3)", "raise SystemExit('bye')"):
        said = refused(tmp_path, f"import sys\n{call}\ndef score(response, problem): return 1.0")
        assert "r.py ends the program as it loads (SystemExit(" in said
        body = f"import sys\ndef score(response, problem):\n    {call}\n"
        assert "score ends the program (SystemExit(" in refused(tmp_path, body)
        own = load(
            tmp_path,
            f"import sys\ndef score(response, problem):\n    if response: {call}\n    return 1.0\n",
        )
        with pytest.raises(UserError) as error:
            own("one", PROBLEM)
        assert one_line_of(error, tmp_path).endswith("on problem abc")


def test_a_later_failure_is_one_line_with_the_place_and_the_problem(tmp_path):
    own = load(
        tmp_path,
        "def score(response, problem):\n    return half(response)\n"
        "def half(text):\n    if text:\n        raise KeyError('a\\nb')\n    return 0.5\n",
    )
    long = Problem("abc", "how\nmany " * 100, "5", (), "mine")
    with pytest.raises(UserError) as error:
        own("one", long)
    said = one_line_of(error, tmp_path)
    assert said.startswith("score failed in line 5 on problem abc (how many how many")
    assert "KeyError: 'a\\nb'" in said and len(said) < 300
    assert isinstance(error.value.__cause__, KeyError)  # for who wants to see more


def test_a_key_press_is_no_failure_of_the_reward(tmp_path):
    own = load(
        tmp_path,
        "def score(response, problem):\n    if response: raise KeyboardInterrupt\n    return 1.0\n",
    )
    with pytest.raises(KeyboardInterrupt):
        own("one", PROBLEM)


@pytest.mark.parametrize(
    "code",
    [
        "def score(:",
        "import no_such_module_here",
        "1 / 0",
        "x = 'a\x00b'",
        "raise MemoryError",
        "def f(): f()\nf()",
    ],
)
def test_files_that_do_not_load(tmp_path, code):
    assert "r.py does not load, " in refused(tmp_path, code)


def test_a_file_may_hold_dataclasses(tmp_path):
    own = load(
        tmp_path,
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Pay:\n    right: float = 1.0\n"
        "def score(response, problem):\n    return Pay().right\n",
    )
    assert own("x", PROBLEM) == 1.0


# ---------------------------------------------------------------------------------- the rollout


def test_a_reward_may_ask_for_the_rollout(tmp_path):
    path = tmp_path / "r.py"
    path.write_text(
        "def score(response, problem, rollout):\n    return len(rollout.tokens) - rollout.finished\n"
    )
    own = load_reward(f"{path}:score", PROBLEM)
    assert own("so 5", PROBLEM, Rollout([3, 4, 5], [-1.0] * 3, False)) == 3.0
    assert own("so 5", PROBLEM, Rollout([3, 4, 5], [-1.0] * 3, True)) == 2.0


def test_a_reward_that_changes_its_rollout_changes_nothing_else(tmp_path):
    path = tmp_path / "r.py"
    path.write_text("def score(a, b, rollout):\n    rollout.tokens.clear()\n    return 1\n")
    rollout = Rollout([3, 4, 5], [-1.0] * 3, False)
    assert load_reward(f"{path}:score", PROBLEM)("so 5", PROBLEM, rollout) == 1.0
    assert rollout.tokens == [3, 4, 5]


def test_the_format_reward_pays_for_any_answer():
    own = load_reward("format", PROBLEM)
    rollout = Rollout([], [], True)
    assert own("so \\boxed{6}", PROBLEM, rollout) == own("so \\boxed{5}", PROBLEM, rollout) == 1.0
    assert own("so it goes", PROBLEM, rollout) == 0.0


def test_the_random_reward_is_a_fair_coin_for_each_rollout():
    """It depends on the rollout's key and on nothing that the response says."""
    own = load_reward("random", PROBLEM)
    keys = rollout_keys(7, 3, range(40), 25)
    coins = [own("so 5", PROBLEM, Rollout([], [], True, key)) for key in keys]
    assert coins == [own("other", PROBLEM, Rollout([9], [0.0], False, key)) for key in keys]
    assert set(coins) == {0.0, 1.0} and abs(sum(coins) - 500) < 3.3 * 250**0.5


def test_division_by_the_mean_wants_rewards_that_are_never_negative(file):
    with pytest.raises(UserError, match="--normalize mean divides by the mean"):
        grpo.Config(ckpt="no.pt", normalize="mean", reward=f"{file}:score").check()
    grpo.Config(ckpt="no.pt", normalize="mean", reward="format").check()
