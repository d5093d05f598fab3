"""Validation and dynamic sampling: what is held out, which groups are learned from, on one rank and on two."""

from dataclasses import replace

import pytest
import test_recipes
from conftest import run
from test_recipes import BOTH, RL, flags, log, weights

import grpo
from data.held_out import train_and_val
from data.problems import load_problems
from plumbing.batches import batch_indices
from plumbing.rl_setup import set_up
from plumbing.which_groups import draw_until_mixed, keep_mixed

base = test_recipes.base  # a small checkpoint that writes boxes, and problems


def test_validation_problems_are_never_trained_on(base, tmp_path):
    folder, data = base
    train, val = train_and_val(data, 10)
    assert (
        len(val) == 10
        and len(train) == 30
        and not {p.question for p in train} & {p.question for p in val}
    )
    rows = open(data).read().splitlines()
    (tmp_path / "shuffled.jsonl").write_text(
        "\n".join([*rows[::-1], *rows])
    )  # each question twice, in another order
    again, same = train_and_val(str(tmp_path / "shuffled.jsonl"), 10)
    assert (
        len(again) == 60
        and {p.question for p in same} == {p.question for p in val}
        and len(same) == 10
    )
    assert train_and_val(data, 0) == (load_problems(data), [])
    assert [len(some) for some in train_and_val(data, 1000)] == [
        30,
        10,
    ]  # never more than a quarter
    toy, toy_val = train_and_val("toy", 50)
    assert len(toy) == 600 and toy_val == load_problems("toy", "val")[:50]
    out = tmp_path / "rl.pt"
    grpo.main(
        flags(
            grpo,
            folder / "4K.pt",
            out,
            data,
            "controlled",
            **RL | dict(steps=4, val_every=2, val=10, save_rollouts=True),
        )
    )
    trained = {group["question"] for row in log(out, "rollouts") for group in row["groups"]}
    assert not trained & {p.question for p in val} and len(trained) == 30
    assert [
        0 <= row["val_accuracy"] == row["val_reward"] <= 1
        for row in log(out)
        if "val_reward" in row
    ] == [True, True]


DYNAMIC = dict(RL, prompts=6, n=4, steps=3, mini_batches=2, dynamic_sampling=3, save_rollouts=True)


@BOTH
def test_dynamic_sampling_fills_the_step_with_groups_of_mixed_rewards(base, tmp_path, plain):
    folder, data = base
    config = flags(
        grpo, folder / "4K.pt", tmp_path / "rl.pt", data, "controlled", **DYNAMIC, plain=plain
    )
    grpo.main(config)
    problems = load_problems(data)
    for row, saved in zip(
        log(tmp_path / "rl.pt"), log(tmp_path / "rl.pt", "rollouts"), strict=True
    ):
        groups = saved["groups"]
        rounds = len(groups) // 6
        assert len(groups) == row["groups"] == 6 * rounds and rounds <= 4
        order = [
            problems[i].id
            for turn in range(rounds)
            for i in batch_indices(40, 6, (row["step"] - 1) * 4 + turn, 0, "grpo")
        ]
        assert [group["id"] for group in groups] == order  # a function of (seed, step, round)
        mixed = [len(set(group["rewards"])) > 1 for group in groups]
        assert (
            row["kept"] == min(6, sum(mixed))
            and (sum(mixed) >= 6 or rounds == 4)
            and sum(mixed[: 6 * (rounds - 1)]) < 6
        )
        kept_tokens = sum(
            sum(map(len, g["tokens"])) for g in [g for g, m in zip(groups, mixed) if m][:6]
        )
        assert row["scored"] == kept_tokens
    hopeless = replace(config, max_response=1, out=str(tmp_path / "no.pt"))  # nothing can be right
    groups = draw_until_mixed(grpo.draw_groups, set_up(hopeless, "rl"), 0)
    kept = keep_mixed(groups, config)
    assert (
        len(groups.problems) == 24
        and kept.kept == 0
        and [grpo.mini_batch(kept, m, config) for m in (0, 1)] == [[], []]
    )


def test_two_ranks_draw_and_keep_what_one_does(base, tmp_path):
    """With dynamic sampling, masks, validation, a custom reward and saved rollouts all at once."""
    folder, data = base
    (tmp_path / "r.py").write_text(
        "def score(response, problem):\n    return float('5' in response) - 0.01 * len(response.split())\n"
    )
    more = dict(
        DYNAMIC, steps=1, mask_truncated=True, reward=f"{tmp_path}/r.py:score", val_every=1, val=7
    )
    argv = [
        x
        for k, v in more.items()
        for x in ([f"--{k}"] if v is True else [f"--{'samples' if k == 'n' else k}", str(v)])
    ]
    for ranks in (1, 2):
        run(
            "grpo.py",
            "--ckpt",
            folder / "4K.pt",
            "--data",
            data,
            "--out",
            tmp_path / f"{ranks}.pt",
            *argv,
            ranks=ranks,
        )
    groups = [log(tmp_path / f"{ranks}.pt", "rollouts")[0]["groups"] for ranks in (1, 2)]
    for one, two in zip(*groups, strict=True):
        for a, b in zip(one.pop("logprobs"), two.pop("logprobs"), strict=True):
            assert a == pytest.approx(b, abs=1e-5)  # rounded by products of other sizes
        assert one == two
    one, two = log(tmp_path / "1.pt")[0], log(tmp_path / "2.pt")[0]
    for name in one.keys() - {"samples"}:
        if not name.startswith(("seconds", "speed", "memory")):
            assert one[name] == pytest.approx(two[name], abs=1e-5), name
    distance = max(
        (a - b).abs().max()
        for a, b in zip(weights(tmp_path / "1.pt").values(), weights(tmp_path / "2.pt").values())
    )
    assert distance < 1e-4
    assert one["reward"] != one["accuracy"]
