"""How answers are graded, rewards of your own, and flags that cannot work."""

import json
from dataclasses import replace

import pytest
import test_recipes
from conftest import run
from test_own_reward import REWARDS
from test_recipes import ENCODING, PARALLEL, RL, flags, improves, log

import grpo
import parallel
from data import UserError
from data.problems import Problem, load_problems
from plumbing.own_reward import load_reward
from plumbing.rl_options import load_prompts
from sampler import Rollout

base = test_recipes.base  # a small checkpoint that writes boxes, and problems


@pytest.mark.parametrize(
    "kind, expected",
    [("", [0, 1, 0]), ("ordered", [0, 1, 0]), ("math", [1, 1, 0]), ("gsm8k", [0, 0, 1])],
)
def test_kind_says_how_all_problems_are_graded(tmp_path, kind, expected):
    """Of the problems and of the held-out ones, whatever their own kind."""
    path = tmp_path / "two.jsonl"
    rows = [
        {"question": f"say ann has {i} cards", "answer": "3, 5", "kind": "ordered"}
        for i in range(8)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = grpo.Config(ckpt="", data=str(path), kind=kind, n=3, val_every=1, val=2)
    problems, held_out = load_prompts(config, ENCODING)
    assert len(problems) == 6 and len(held_out) == 2
    assert {p.kind for p in problems + held_out} == {kind or "ordered"}
    say = lambda text: Rollout([*ENCODING.encode_ordinary(text), ENCODING.eot_token], [], True)
    rollouts = [say(" so \\boxed{ 5, 3}"), say(" so \\boxed{ 3, 5}"), say("#### 35")]
    problem = replace(problems[0], answer="35" if kind == "gsm8k" else "3, 5")
    groups = grpo.Groups([problem], [[1]], [rollouts], [0])
    grpo.score(groups, ENCODING, config)
    assert groups.rewards.tolist() == [expected]


def test_the_flag_kind_reaches_every_command_of_rl(base, tmp_path):
    """A reward that pays for the problem's kind alone."""
    folder, data = base
    (tmp_path / "r.py").write_text(
        "def score(response, problem):\n    return float(problem.kind == 'gsm8k')\n"
    )
    more = dict(steps=1, reward=f"{tmp_path}/r.py:score")
    for script, values in ((grpo, RL), (parallel, PARALLEL)):
        for kind, paid in (("", 0.0), ("gsm8k", 1.0)):
            out = tmp_path / f"{script.__name__}{kind}.pt"
            script.main(
                flags(script, folder / "4K.pt", out, data, "controlled", **values | more, kind=kind)
            )
            assert log(out)[0]["reward"] == paid
        with pytest.raises(UserError, match="--kind maths: choose gsm8k, math or ordered"):
            script.main(
                flags(
                    script,
                    folder / "4K.pt",
                    tmp_path / "no.pt",
                    data,
                    "controlled",
                    **values,
                    kind="maths",
                )
            )


def test_your_own_reward(base, tmp_path):
    folder, data = base
    (tmp_path / "my_reward.py").write_text(REWARDS)
    own = load_reward(f"{tmp_path}/my_reward.py:score", load_problems(data)[0])
    assert (
        own("so 5", load_problems(data)[0]) == 1.0
        and own("", load_problems(data)[0]) == 0.25
        and load_reward("", None) is None
    )
    out = tmp_path / "own.pt"
    values = dict(RL, steps=6, reward=f"{tmp_path}/my_reward.py:score")
    grpo.main(flags(grpo, folder / "4K.pt", out, data, "controlled", **values))
    assert all(
        row["reward"] >= 0.25 + 0.75 * row["accuracy"] - 1e-6 for row in log(out)
    ) and improves(log(out), "reward", 1)
    parallel.main(
        flags(
            parallel,
            folder / "4K.pt",
            tmp_path / "p.pt",
            data,
            "controlled",
            **dict(PARALLEL, steps=1, reward=values["reward"]),
        )
    )
    assert log(tmp_path / "p.pt")[0]["reward"] > log(tmp_path / "p.pt")[0]["accuracy"]


def test_what_is_wrong_with_a_reward_is_one_line_before_work_starts(base, tmp_path):
    folder, data = base
    file, broken = tmp_path / "my_reward.py", tmp_path / "broken.py"
    file.write_text(REWARDS)
    broken.write_text("def score(:\n")
    wrong = {
        "my_reward": "write FILE.py:FUNCTION, as in my_reward.py:score, or one of random, format",
        f"{tmp_path}/no.py:score": "no.py is missing",
        f"{broken}:score": "does not load, SyntaxError",
        f"{file}:reward": "has no function reward",
        f"{file}:number": "has no function number",
        f"{file}:alone": "must take two arguments, (response, problem)",
        f"{file}:words": "words gave 'good' on problem",
        f"{file}:nothing": "nothing gave None",
        f"{file}:endless": "endless gave inf",
    }
    for spec, message in wrong.items():
        with pytest.raises(UserError) as error:
            grpo.main(
                flags(
                    grpo,
                    folder / "4K.pt",
                    tmp_path / "no.pt",
                    data,
                    "controlled",
                    **dict(RL, reward=spec),
                )
            )
        assert (
            message in str(error.value)
            and "\n" not in str(error.value)
            and "--reward" in str(error.value)
        )
    said = run(
        "grpo.py",
        "--ckpt",
        folder / "4K.pt",
        "--out",
        tmp_path / "no.pt",
        "--data",
        data,
        "--reward",
        f"{file}:words",
        ok=False,
    )
    assert (
        "Traceback" not in said
        and said.splitlines()[-1].startswith("grpo.py: --reward")
        and not list(tmp_path.glob("no*"))
    )
    with pytest.raises(
        ZeroDivisionError
    ) as error:  # its author wants to see where; the problem is named
        grpo.main(
            flags(
                grpo,
                folder / "4K.pt",
                tmp_path / "no.pt",
                data,
                "controlled",
                **dict(RL, reward=f"{file}:fails"),
            )
        )
    assert "on problem" in error.value.__notes__[0] and "say ann has" in error.value.__notes__[0]


@pytest.mark.parametrize(
    "more, message",
    [
        (dict(loss="x"), "--loss x: choose token-mean, sequence-mean, constant, micro-mean"),
        (dict(ref_every=3), "--ref_every 3: there is no reference without --kl"),
        (dict(tis=2.0), "--tis 2.0 compares the trainer's log-probs"),
        (dict(format_score=1.0), "--format_score 1.0: a wrong answer pays less"),
    ],
)
def test_flags_that_cannot_work_are_one_line(base, tmp_path, more, message):
    with pytest.raises(UserError) as error:
        grpo.main(
            flags(grpo, base[0] / "4K.pt", tmp_path / "no.pt", base[1], "controlled", **RL, **more)
        )
    assert message in str(error.value)
    wrong = (
        (dict(mode="x"), "--mode x"),
        (dict(mode="sum", weight_end=0.5), "--weight_end is of"),
        (dict(weight_end=2.0), "--weight_end 2.0"),
    )
    for more, message in wrong:
        with pytest.raises(UserError, match=message):
            parallel.main(
                flags(
                    parallel,
                    base[0] / "4K.pt",
                    tmp_path / "no.pt",
                    base[1],
                    "controlled",
                    **PARALLEL,
                    **more,
                )
            )


def test_a_reward_that_stops_being_a_number_names_the_problem(tmp_path):
    (tmp_path / "r.py").write_text(
        "def score(response, problem):\n    return 1.0 if not response else [1.0]\n"
    )
    problem = Problem("abc", "how many ?", "1", (), "mine")
    own = load_reward(f"{tmp_path}/r.py:score", problem)
    with pytest.raises(TypeError, match=r"score gave \[1.0\] on problem abc"):
        own("one", problem)
