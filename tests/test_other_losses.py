"""Losses and advantages of others, in float64 against sums over all outcomes, all subsets, and
numeric gradients; their flags.
"""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import test_recipes
import torch
from conftest import run

import evaluate
import grpo
import parallel
from data import UserError
from data.problem import Problem
from plumbing.batches import pack
from plumbing.checkpoint import read_facts
from plumbing.files import read_rows
from plumbing.flags import parse_flags
from plumbing.modes import average_weights
from plumbing.other_losses import entropy_bonus, leave_one_out, of_best, other_loss
from plumbing.own_reward import load_reward
from plumbing.rl_setup import set_up
from plumbing.which_groups import draw_probed
from sampler import Rollout

base = test_recipes.base  # a small checkpoint that writes boxes, and problems
flags = test_recipes.flags
log = test_recipes.log
RL = test_recipes.RL
TOY = grpo.Config(ckpt="", **grpo.PRESETS["toy"])


def float64(array) -> torch.Tensor:
    return torch.tensor(array, dtype=torch.float64)


# --- advantages -----------------------------------------------------------------------------------


def test_leave_one_out_is_the_mean_of_the_others():
    rewards = np.random.default_rng(0).normal(size=(6, 5))
    ours = leave_one_out(float64(rewards)).numpy()
    for row, of_row in zip(rewards, ours):
        for i in range(5):
            others = [row[j] for j in range(5) if j != i]
            assert of_row[i] == pytest.approx(row[i] - sum(others) / 4, abs=1e-12)
    plain = grpo.group_advantages(float64(rewards), "none").numpy()
    assert np.allclose(ours, plain * 5 / 4, atol=1e-12)
    equal = grpo.group_advantages(torch.full((1, 7), 1 / 3), "loo")
    assert (equal == 0).all()


@pytest.mark.parametrize("k", [1, 2, 3, 6])
def test_pass_at_k_counts_what_a_rollout_adds_to_every_subset(k):
    rewards = np.random.default_rng(k).choice([0.0, 0.5, 1.0], size=(4, 6))
    ours = grpo.group_advantages(float64(rewards), f"pass@{k}").numpy()
    for row, of_row in zip(rewards, ours):
        for i in range(6):
            others = [row[j] for j in range(6) if j != i]
            gains = []
            for subset in itertools.combinations(others, k - 1):
                gains.append(max([row[i], *subset]) - max([0.0, *subset]))
            assert of_row[i] == pytest.approx(k * sum(gains) / len(gains), abs=1e-12)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_pass_at_k_is_an_unbiased_gradient_of_it(k):
    """A policy that is right with p = sigmoid(x): the expectation over all 2^4 outcomes is d
    pass@k / dx, exactly.
    """
    p = 0.3
    expected = 0.0
    for outcome in itertools.product([0.0, 1.0], repeat=4):
        chance = math.prod(p if right else 1 - p for right in outcome)
        advantage = of_best(float64([outcome]), k)[0].numpy()
        score = np.array(outcome) - p  # d log chance of one rollout / dx
        expected += chance * float((advantage * score).mean())
    assert expected == pytest.approx(k * (1 - p) ** (k - 1) * p * (1 - p), rel=1e-12)


def test_easy_and_hopeless_groups_teach_nothing_about_pass_at_k():
    rewards = float64([[1.0, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0]])
    ours = of_best(rewards, 2)
    assert (ours[1] == 0).all() and (ours[2] == 0).all()
    assert ours[3].tolist() == [2, 0, 0, 0] and ours[0].tolist() == pytest.approx(
        [4 / 3, 4 / 3, 0, 0]
    )


# --- the loss -------------------------------------------------------------------------------------


def pieces(seed=0):
    """Three responses of 2, 1 and 3 tokens: log-probs now and before, advantages, entropies."""
    rng = np.random.default_rng(seed)
    packed = pack([[1], [1], [1]], [[1, 1], [1], [1, 1, 1]])
    logp = float64(rng.normal(-1, 0.4, 6)).requires_grad_()
    old = float64(rng.normal(-1, 0.4, 6))
    advantage = float64([1.0, -0.7, 0.4])[packed.sequence]
    entropy = float64(rng.uniform(0.5, 1, 6))
    return packed, logp, old, advantage, entropy


def numeric_gradient(function, at: torch.Tensor) -> np.ndarray:
    """Central differences of a number, a function of a vector."""
    out = []
    for i in range(len(at)):
        step = torch.zeros_like(at)
        step[i] = 1e-6
        out.append((function(at.detach() + step) - function(at.detach() - step)) / 2e-6)
    return np.array(out)


def test_gspo_clips_one_ratio_per_response():
    packed, logp, old, advantage, entropy = pieces()
    config = replace(TOY, ratio="sequence", clip_low=0.1, clip_high=0.15)

    def by_hand(values) -> float:
        """The mean over responses of -min(s A, clip(s) A), s the geometric mean of their tokens'
        ratios.
        """
        total = 0.0
        start = 0
        for length, A in zip((2, 1, 3), (1.0, -0.7, 0.4)):
            log_ratio = (values - old)[start : start + length].mean()
            s = math.exp(log_ratio)
            total -= min(s * A, min(max(s, 0.9), 1.15) * A)
            start += length
        return total / 3

    loss, metrics = other_loss(None, logp, old, advantage, entropy, packed, config)
    geometric = [math.exp((logp.detach() - old)[a:b].mean()) for a, b in ((0, 2), (2, 3), (3, 6))]
    assert metrics["ratio"].tolist() == pytest.approx(
        [s for s, length in zip(geometric, (2, 1, 3)) for _ in range(length)]
    )
    is_clipped = metrics["clip_fraction"] > 0  # their own, not the token loss's
    mean = (
        loss / grpo.denominator("sequence-mean", packed.lengths, packed.sequence, 6, 3, 8)
    ).sum()
    mean.backward()
    assert float(mean.detach()) == pytest.approx(by_hand(logp.detach()), abs=1e-12)
    expected = numeric_gradient(by_hand, logp)
    assert np.abs(logp.grad.numpy() - expected).max() < 1e-7
    assert (expected == 0).any() and (expected != 0).any()  # one response is clipped
    assert (is_clipped.numpy() == (expected == 0)).all()
    either = metrics["clipped_low"] + metrics["clipped_high"]
    assert torch.equal(either, metrics["clip_fraction"])


def test_cispo_cuts_the_weight_and_no_gradient():
    packed, logp, old, advantage, entropy = pieces(3)
    config = replace(TOY, loss="cispo", clip_high=0.1)
    loss, metrics = other_loss(None, logp, old, advantage, entropy, packed, config)
    loss.sum().backward()
    ratio = (logp.detach() - old).exp().numpy()
    assert (ratio > 1.1).any() and (ratio < 1.1).any()
    expected = -advantage.numpy() * np.minimum(ratio, 1.1)
    assert np.abs(logp.grad.numpy() - expected).max() < 1e-12
    assert (logp.grad != 0).all()
    assert (metrics["clipped_high"].numpy() == (ratio > 1.1)).all()
    assert (
        not metrics["clipped_low"].any() and (metrics["ratio"].numpy() == ratio.astype("f4")).all()
    )


@pytest.mark.parametrize("moved", [0.0, 0.5])
def test_the_bonus_has_the_gradient_of_the_entropy(moved):
    """Over all tokens of a softmax, weighed by the policy that draws them: on policy, and after it
    has moved.
    """
    before = float64(np.random.default_rng(1).normal(size=5))
    logits = (before + moved * float64([1.0, -1, 0, 0.5, 0])).requires_grad_()
    old_logp = before.log_softmax(0)
    logp = logits.log_softmax(0)
    entropy = -(logp.exp() * logp).sum()
    (expected,) = torch.autograd.grad(entropy, logits, retain_graph=True)
    bonus = (old_logp.exp() * entropy_bonus(logp, old_logp, entropy)).sum()
    (ours,) = torch.autograd.grad(bonus, logits)
    assert torch.allclose(ours, expected, atol=1e-12) and expected.abs().max() > 0.01


def test_the_bonus_is_added_to_any_loss():
    packed, logp, old, advantage, entropy = pieces()
    plain, _ = grpo.policy_loss(logp, old, advantage)
    config = replace(TOY, entropy=0.1)
    loss, metrics = other_loss(plain, logp, old, advantage, entropy, packed, config)
    assert metrics == {}  # the clip is the plain loss's
    assert torch.allclose(loss, plain - 0.1 * entropy_bonus(logp, old, entropy))
    assert not torch.allclose(loss, plain)


# --- whole runs -----------------------------------------------------------------------------------

OTHERS = {
    "loo": dict(normalize="loo"),
    "pass@k": dict(normalize="pass@4"),
    "rft": dict(normalize="pass@1"),
    "gspo": dict(ratio="sequence", loss="sequence-mean"),
    "cispo": dict(loss="cispo"),
    "entropy": dict(entropy=0.01),
    "epochs": dict(epochs=2),
    "probe": dict(probe=2),
}


@pytest.mark.parametrize("name", OTHERS)
def test_every_one_learns(base, tmp_path, name):
    """Twelve steps from a base that is right a third of the time, with and without several updates
    per step.
    """
    folder, data = base
    out = tmp_path / "rl.pt"
    config = flags(grpo, folder / "4K.pt", out, data, "controlled", **(RL | OTHERS[name]))
    grpo.main(config)
    rows = log(out)
    assert test_recipes.improves(rows, "accuracy", 1)
    plain = tmp_path / "plain.pt"
    grpo.main(
        replace(
            config,
            out=str(plain),
            normalize="std",
            ratio="token",
            loss="token-mean",
            entropy=0.0,
            epochs=1,
            probe=0,
        )
    )
    assert not test_recipes.same_bits(out, plain)


def test_a_second_pass_learns_from_the_same_rollouts(base, tmp_path):
    """With one mini-batch the first update is on policy; the second has moved away from the
    rollouts.
    """
    folder, data = base
    out = tmp_path / "rl.pt"
    how = RL | dict(epochs=3, mini_batches=1, steps=2)
    config = flags(grpo, folder / "4K.pt", out, data, "controlled", **how)
    assert config.updates == 3
    chosen = []
    kept = grpo.mini_batch

    def noted(groups, m, config):
        chosen.append(kept(groups, m, config))
        return chosen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grpo, "mini_batch", noted)
        grpo.main(config)
    assert len(chosen) == 6 and chosen[0] == chosen[1] == chosen[2] == list(range(how["prompts"]))
    assert log(out)[0]["ratio_max"] > 1.0001


def test_probing_chooses_problems_of_mixed_outcomes(base, tmp_path):
    folder, data = base
    how = RL | dict(probe=2, prompts=6, n=8, mini_batches=1)
    run = set_up(flags(grpo, folder / "4K.pt", tmp_path / "rl.pt", data, "controlled", **how), "rl")
    drawn = []

    def draw(of_run, step):
        groups = grpo.draw_groups(of_run, step)
        drawn.append((of_run, step, groups))
        return groups

    groups = draw_probed(draw, run, 5)
    (_, first_step, probe), (_, second_step, _) = drawn
    assert (first_step, second_step) == (5, -6) and probe.rewards.shape == (12, 2)
    mixed = [p.id for p, r in zip(probe.problems, probe.rewards) if len(set(r.tolist())) > 1]
    others = [p.id for p, r in zip(probe.problems, probe.rewards) if len(set(r.tolist())) == 1]
    assert mixed and others
    chosen = {problem.id for problem in groups.problems}
    assert chosen == set([*mixed, *others][:6]) and groups.rewards.shape == (6, 8)
    keys = {rollout.key for group in probe.rollouts for rollout in group}
    assert not keys & {rollout.key for group in groups.rollouts for rollout in group}  # drawn anew
    again = draw_probed(grpo.draw_groups, run, 5)
    assert [r.tokens for g in again.rollouts for r in g] == [
        r.tokens for g in groups.rollouts for r in g
    ]


def test_copies_are_kept_on_the_way(base, tmp_path):
    """A copy after 2 of 4 steps is what a run of 2 steps ends with, and evaluate.py takes it."""
    folder, data = base
    how = RL | dict(steps=4, keep="2,4")
    grpo.main(flags(grpo, folder / "4K.pt", tmp_path / "4K.rl.pt", data, "controlled", **how))
    short = RL | dict(steps=2)
    grpo.main(flags(grpo, folder / "4K.pt", tmp_path / "two.pt", data, "controlled", **short))
    copy = tmp_path / "4K.rl.step2.pt"
    assert test_recipes.same_bits(copy, tmp_path / "two.pt")
    assert test_recipes.same_bits(tmp_path / "4K.rl.step4.pt", tmp_path / "4K.rl.pt")
    facts = read_facts(str(copy))
    assert (facts["step"], facts["recipe"]) == (2, "rl") and facts["parent_id"] == "x"
    argv = ["--ckpt", str(copy), "--task", data, "--n", "4", "--k", "1,4", "--max_response", "8"]
    evaluate.main(parse_flags(evaluate.Config, evaluate.PRESETS, evaluate.SETTINGS, argv))
    (row,) = read_rows(str(tmp_path / "results.jsonl"))
    assert row["name"] == "4K.rl.step2"
    other = RL | dict(steps=4, keep="2", lr=1e-5)
    with pytest.raises(UserError, match=r"step2\.pt exists and differs \(.*lr was"):
        (tmp_path / "4K.rl.pt").unlink()
        grpo.main(flags(grpo, folder / "4K.pt", tmp_path / "4K.rl.pt", data, "controlled", **other))


def test_two_ranks_probe_adapt_and_learn_what_one_does(base, tmp_path):
    """Probed problems, one ratio per response, a bonus, two passes; and an adapted average."""
    folder, data = base
    small = [
        "--ckpt",
        folder / "4K.pt",
        "--data",
        data,
        "--prompts",
        6,
        "--samples",
        8,
        "--max_response",
        8,
        "--steps",
        2,
    ]
    ways = {
        "grpo.py": [
            "--probe",
            2,
            "--ratio",
            "sequence",
            "--entropy",
            0.01,
            "--epochs",
            2,
            "--mini_batches",
            1,
            "--keep",
            1,
        ],
        "parallel.py": ["--adapt", "--sft_batch", 8],
    }
    for script, more in ways.items():
        for ranks in (1, 2):
            run(script, *small, *more, "--out", tmp_path / f"{script}{ranks}.pt", ranks=ranks)
        one, two = (test_recipes.weights(tmp_path / f"{script}{ranks}.pt") for ranks in (1, 2))
        assert max((a - b).abs().max() for a, b in zip(one.values(), two.values())) < 1e-4, script
    rows = [log(tmp_path / f"parallel.py{ranks}.pt") for ranks in (1, 2)]
    assert [row["weight"] for row in rows[0]] == [row["weight"] for row in rows[1]]
    copies = [test_recipes.weights(tmp_path / f"grpo.py{ranks}.step1.pt") for ranks in (1, 2)]
    assert max((a - b).abs().max() for a, b in zip(copies[0].values(), copies[1].values())) < 1e-4


def test_the_weight_adapts_to_the_signal(base, tmp_path):
    advantages = torch.tensor([[0.5, -0.5], [0.0, 0.0], [1.0, -1.0], [0.0, 0.0]])
    groups = grpo.Groups([], [], [], [0, 1, 2, 3], advantages=advantages)
    config = parallel.Config(ckpt="", prompts=4, mini_batches=2, steps=3, adapt=True)
    assert average_weights(config, 1, groups) == [0.5, 0.5]
    line = replace(config, adapt=False, weight=0.0, weight_end=1.0)
    assert average_weights(line, 1, groups) == pytest.approx([0.4, 0.6])
    folder, data = base
    how = test_recipes.PARALLEL | dict(steps=3, adapt=True)
    parallel.main(flags(parallel, folder / "4K.pt", tmp_path / "p.pt", data, "controlled", **how))
    assert [row["weight"] for row in log(tmp_path / "p.pt")] == [
        row["mixed"] for row in log(tmp_path / "p.pt")
    ]


def test_soft_overlong_punishment():
    problem = Problem(
        id="x", question="q", answer="5", solutions=(), source="", kind="ordered", level=""
    )
    score = load_reward("tools/overlong.py:score", problem)
    for length, punished in ((10, 0), (40, 0), (46, 0.5), (52, 1), (60, 1)):
        rollout = Rollout([0] * length, [], length < 52)
        assert score("so \\boxed{ 5}", problem, rollout) == pytest.approx(1 - punished)
        assert score("so \\boxed{ 6}", problem, rollout) == pytest.approx(-punished)


# --- flags ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong, words",
    [
        (
            dict(normalize="max"),
            r"--normalize max: choose std, mean, none, loo, or pass@1 to pass@16",
        ),
        (dict(normalize="pass@17"), r"--normalize pass@17 needs groups of 17 rollouts"),
        (dict(normalize="pass@0"), r"--normalize pass@0"),
        (dict(loss="ppo"), r"--loss ppo: choose token-mean, .*cispo"),
        (dict(ratio="response"), r"--ratio response: choose token or sequence"),
        (dict(loss="cispo", kl=0.1), r"--loss cispo has no kl term; leave out --kl 0.1"),
        (dict(ratio="sequence", tis=2.0), r"--ratio sequence has no tis term"),
        (dict(probe=1), r"--probe 1: one rollout cannot be mixed"),
        (dict(probe=2, dynamic_sampling=1), r"--probe 2 and --dynamic_sampling"),
        (dict(keep="10,99"), r"--keep 99: give steps from 1 to 50"),
        (dict(keep="ten"), r"--keep ten: give steps"),
    ],
)  # fmt: skip
def test_wrong_flags_are_one_line(wrong, words):
    with pytest.raises(UserError, match=words):
        replace(TOY, **wrong).check()


def test_a_wrong_adaptation_is_one_line():
    config = parallel.Config(ckpt="", **parallel.PRESETS["toy"], adapt=True)
    with pytest.raises(UserError, match="--adapt is of --mode parallel, not sum"):
        replace(config, mode="sum").check()
    with pytest.raises(
        UserError, match="--adapt sets the weight itself; leave out --weight_end 1.0"
    ):
        replace(config, weight_end=1.0).check()
