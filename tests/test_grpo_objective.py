"""The objective of a mini-batch in every mode of the loss, and the model's gradient of it, against NumPy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import tiny
from test_grpo import BOTH, CONFIG, LOSSES, gradient, made_groups, with_cuts

import grpo
from plumbing.packs import old_logprobs, packs_of_groups


def numpy_token(x, o, a, low, high, dual, ref=None, kl=0.0, sampled=None, tis=0.0):
    """One token's loss and its derivative by x, from the formulas."""
    ratio = np.exp(np.clip(x - o, -20, 20))
    free = -20 < x - o < 20
    plain, clipped = -a * ratio, -a * min(max(ratio, 1 - low), 1 + high)
    loss, slope = (plain, plain * free) if plain >= clipped else (clipped, 0.0)
    if dual and a < 0 and loss > -a * dual:
        loss, slope = -a * dual, 0.0
    if tis:
        weight = min(np.exp(np.clip(o - sampled, -20, 20)), tis)
        loss, slope = loss * weight, slope * weight
    if kl:
        d = np.clip(ref - x, -20, 20)
        k3 = np.exp(d) - d - 1
        loss, slope = (
            loss + kl * min(k3, 10),
            slope + kl * (1 - np.exp(d)) * (abs(ref - x) < 20 and k3 < 10),
        )
    return loss, slope


def numpy_objective(kind, tokens, packs, n_rollouts, n_tokens, max_response):
    """tokens: per rollout a list of (loss, slope) -> the objective and its derivative by each token's log-prob.

    packs: which rollouts were computed together; the denominators from the papers' formulas, written out as means.
    """
    total, slopes = 0.0, {}
    for members in packs:
        pack_tokens = sum(len(tokens[i]) for i in members)
        for i in members:
            share = {
                "token-mean": 1 / n_tokens,
                "sequence-mean": 1 / len(tokens[i]) / n_rollouts,
                "constant": 1 / max_response / n_rollouts,
                "micro-mean": 1 / pack_tokens * len(members) / n_rollouts,
            }[kind]
            total += share * sum(loss for loss, _ in tokens[i])
            slopes[i] = [share * slope for _, slope in tokens[i]]
    return total, slopes


MODES = {
    "plain": dict(dual_clip=0.0),
    "clip-higher": dict(clip_high=0.28),
    "dual clip": dict(dual_clip=1.5),
    "kl": dict(kl=0.3),
    "tis": dict(tis=2.0, recompute_old=True),
    "masked": dict(mask_truncated=True),
    "all": dict(clip_high=0.28, kl=0.1, tis=1.5, recompute_old=True, mask_truncated=True),
}


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("mode", MODES)
def test_loss_and_gradient_in_every_mode(kind, mode):
    """policy_loss and denominator in float64, by every token's log-prob, far below 1e-6."""
    config, rng = replace(CONFIG, loss=kind, **MODES[mode]), np.random.default_rng(3)
    lengths = rng.integers(1, 40, 24)
    cut = rng.random(24) < 0.3
    use = [i for i in range(24) if not (cut[i] and config.mask_truncated)]
    x, old, ref, sampled = ([-rng.exponential(1.0, n) for n in lengths] for _ in range(4))
    advantage, packs = rng.normal(size=24), [use[:7], use[7:8], use[8:]]
    tokens = {
        i: [numpy_token(*t, advantage[i], config.clip_low, config.clip_high, config.dual_clip, r, config.kl, s, config.tis)
            for *t, r, s in zip(x[i], old[i], ref[i], sampled[i])] for i in use
    }  # fmt: skip
    n_tokens = sum(lengths[i] for i in use)
    expected, slopes = numpy_objective(kind, tokens, packs, len(use), n_tokens, config.max_response)
    total = 0.0
    for members in packs:
        flat = lambda rows: torch.tensor(np.concatenate([rows[i] for i in members]))
        logp, sequence, size = (
            flat(x).requires_grad_(),
            torch.tensor(np.repeat(np.arange(len(members)), lengths[members])),
            torch.tensor(lengths[members]),
        )
        loss, _ = grpo.policy_loss(
            logp, flat(old), torch.tensor(advantage[members])[sequence], flat(ref) if config.kl else None, config.clip_low, config.clip_high,
            config.dual_clip, config.kl, flat(sampled), config.tis,
        )  # fmt: skip
        loss = (
            loss
            / grpo.denominator(
                kind, size, sequence, float(n_tokens), float(len(use)), config.max_response
            )
        ).sum()
        loss.backward()
        total += float(loss.detach())
        assert np.abs(logp.grad.numpy() - np.concatenate([slopes[i] for i in members])).max() < 1e-8
    assert total == pytest.approx(expected, abs=1e-6)


@BOTH
@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("mode", MODES)
def test_the_models_gradient_is_that_of_the_formula(kind, mode, prepare):
    """policy_backward against the float64 slopes above, sent back through the plain forward pass of each rollout alone."""
    changes = dict(loss=kind, micro_tokens=40, mini_batches=2, **MODES[mode])
    groups = with_cuts(made_groups(tiny()))
    config = replace(CONFIG, prompts=4, n=4, **changes)
    if mode != "all":  # else the first update's ratios would all be 1
        config = replace(config, recompute_old=False) if not config.tis else config
    model, reference = prepare(tiny()), prepare(tiny())
    reference.init_weights(7)
    old_logprobs(model, groups, config)
    if config.tis:  # and here: an old policy that is neither the current one nor the sampler
        rng = np.random.default_rng(5)
        groups.old_logp = [
            [old + torch.tensor(rng.normal(size=len(old)), dtype=torch.float32) for old in group]
            for group in groups.old_logp
        ]
    grpo.policy_backward(model, reference, groups, [0, 1, 2, 3], config)
    ours = torch.cat([p.grad.flatten() for p in model.parameters()])

    written_out, members = (
        tiny(),
        [
            (g, i)
            for g in range(4)
            for i in range(4)
            if groups.rollouts[g][i].finished or not config.mask_truncated
        ],
    )
    logps, tokens = {}, {}
    for g, i in members:
        r, prompt = groups.rollouts[g][i], groups.prompts[g]
        all_logp = lambda m: m(torch.tensor([prompt + r.tokens]))[
            0, len(prompt) - 1 : -1
        ].log_softmax(-1)
        one = lambda m: all_logp(m).gather(-1, torch.tensor(r.tokens)[:, None])[:, 0]
        logps[g, i] = one(written_out)
        if (
            len(groups.old_logp[g][i]) == 0
        ):  # zero advantage: never computed, and its policy gradient is zero
            groups.old_logp[g][i] = logps[g, i].detach()
        rows = zip(
            logps[g, i].tolist(),
            groups.old_logp[g][i].tolist(),
            one(reference).tolist(),
            r.logprobs,
        )
        tokens[g, i] = [
            numpy_token(
                x,
                o,
                float(groups.advantages[g, i]),
                config.clip_low,
                config.clip_high,
                config.dual_clip,
                ref,
                config.kl,
                s,
                config.tis,
            )
            for x, o, ref, s in rows
        ]
    packs = packs_of_groups(groups, range(4), config)
    packs = [*packs, [m for m in members if not any(m in of_one for of_one in packs)]]
    _, slopes = numpy_objective(
        kind, tokens, packs, len(members), sum(map(len, tokens.values())), config.max_response
    )
    sum((logps[m] * torch.tensor(slopes[m])).sum() for m in slopes).backward()
    expected = torch.cat([p.grad.flatten() for p in written_out.parameters()])
    assert expected.abs().max() > 1e-3 and (ours - expected).abs().max() < 2e-6 * max(
        1.0, float(expected.abs().max())
    )


@BOTH
def test_micro_mean_lies_between_the_token_mean_and_the_sequence_mean(prepare):
    groups = made_groups(tiny())
    by = lambda kind, micro_tokens: gradient(
        groups, prepare, loss=kind, kl=0.1, micro_tokens=micro_tokens
    )[0]
    assert (by("micro-mean", 10_000) - by("token-mean", 10_000)).abs().max() < 1e-6  # one pack
    assert (by("micro-mean", 1) - by("sequence-mean", 10_000)).abs().max() < 1e-6  # a rollout each
    assert (
        by("micro-mean", 40) - by("micro-mean", 10_000)
    ).abs().max() > 1e-5  # the memory knob is part of this objective
