"""Sampling: cached equals uncached, slots do not matter, log-probs are the trainer's, draws follow the softmax."""

import random

import pytest
import torch
from conftest import tiny

import common
import sampler
from sampler import draw, hash_key, nucleus, sample, uniform

EOS = 5


@pytest.fixture(scope="module")
def model():
    return tiny().requires_grad_(False)


def prompts(n=9, longest=12, seed=0):
    rng = random.Random(seed)
    return [[rng.randrange(50) for _ in range(rng.randint(1, longest))] for _ in range(n)]


def tokens_of(groups):
    return [[r.tokens for r in group] for group in groups]


def test_greedy_cached_equals_greedy_full_forward(model):
    for prompt, (rollout,) in zip(prompts(), sample(model, prompts(), max_new_tokens=20, temperature=0, eos=EOS)):
        sequence = list(prompt)
        while len(sequence) < len(prompt) + 20 and (sequence == prompt or sequence[-1] != EOS):
            sequence.append(int(model(torch.tensor([sequence]))[0, -1].argmax()))
        assert rollout.tokens == sequence[len(prompt) :]
        assert rollout.finished == (rollout.tokens[-1] == EOS)


@pytest.mark.parametrize("temperature, top_p", [(1.0, 1.0), (0.6, 0.95)])
def test_slots_do_not_change_the_tokens(model, temperature, top_p):
    runs = [sample(model, prompts(), 5, 15, temperature, top_p, EOS, seed=3, slots=slots) for slots in (1, 7, 64)]
    assert tokens_of(runs[0]) == tokens_of(runs[1]) == tokens_of(runs[2])
    assert any(r.finished for g in runs[0] for r in g) and any(not r.finished for g in runs[0] for r in g)
    for one, other in zip(sum(runs[0], []), sum(runs[2], [])):
        assert torch.allclose(torch.tensor(one.logprobs), torch.tensor(other.logprobs), atol=1e-5)


@pytest.mark.parametrize("n", [1, 3, 64])
def test_grouped_queries_and_refill_give_the_plain_result(n):
    """Grouped-query attention, prompts of length 1 to 12, rollouts of mixed length: greedy ids are those of the full forward."""
    m = tiny(n_kv_heads=2).requires_grad_(False)
    asked = [[7], *prompts(4)]
    budget = [1 + i % 9 for i in range(n * len(asked))]
    groups = sample(m, asked, n, budget, temperature=0, eos=None, slots=7)
    for p, (prompt, group) in enumerate(zip(asked, groups)):
        sequence = list(prompt)
        for _ in range(9):
            sequence.append(int(m(torch.tensor([sequence]))[0, -1].argmax()))
        for r, rollout in enumerate(group):
            assert rollout.tokens == sequence[len(prompt) :][: budget[p * n + r]] and not rollout.finished


def test_a_prompt_at_the_limit(model):
    long = [i % 50 for i in range(2040)]
    (rollout,), (short,) = sample(model, [long, [1]], max_new_tokens=8, eos=None)
    assert len(rollout.tokens) == 8 == len(short.tokens)
    packed = common.pack([long], [rollout.tokens])
    assert (common.response_logprobs(model, packed)[0] - torch.tensor(rollout.logprobs)).abs().max() < 1e-4


def test_all_end_at_once_and_none_ends():
    m = tiny().requires_grad_(False)
    m.lm_head.weight.zero_()
    m.lm_head.weight[EOS] = 40 * torch.sign(m.norm.weight)  # whatever the text, eos or nothing but eos
    hidden = m.hidden(torch.tensor([1, 2, 3]), [3])
    m.lm_head.weight[EOS] *= torch.sign(hidden[-1])
    ended = sample(m, [[1, 2, 3]] * 5, 4, 9, eos=EOS, slots=6)
    assert all(r.tokens == [EOS] and r.finished for group in ended for r in group)
    endless = sample(m, [[1, 2, 3]] * 5, 4, 9, eos=EOS + 1, slots=6, temperature=0)
    assert all(len(r.tokens) == 9 and not r.finished for group in endless for r in group)


@pytest.mark.parametrize("slots", [3, 8])
def test_nothing_of_a_former_rollout_is_read(model, slots, monkeypatch):
    """Every slot is poisoned with NaN at each admission, and every column not written yet: no token changes."""
    clean = sample(model, prompts(), 3, [1 + i % 7 for i in range(27)], eos=EOS, slots=slots)
    assign = sampler.Cache.assign

    def poisoned(cache, admitted, rows, alive):
        free = (~alive).nonzero()[:, 0]
        for x in sum(cache.responses, ()):
            x[free] = float("nan")
        assign(cache, admitted, rows, alive)

    monkeypatch.setattr(sampler.Cache, "assign", poisoned)
    dirty = sample(model, prompts(), 3, [1 + i % 7 for i in range(27)], eos=EOS, slots=slots)
    assert tokens_of(clean) == tokens_of(dirty)
    assert all(torch.equal(torch.tensor(a.logprobs), torch.tensor(b.logprobs)) for one, other in zip(clean, dirty) for a, b in zip(one, other))


def test_a_part_of_the_batch_draws_what_the_whole_draws(model):
    """What a rank needs: its prompts, keyed by their problems, give the tokens one process would have given."""
    whole = sample(model, prompts(), 3, 10, eos=EOS, problem_ids=list(range(100, 109)))
    part = sample(model, prompts()[1::2], 3, 10, eos=EOS, problem_ids=list(range(100, 109))[1::2])
    assert tokens_of(part) == tokens_of(whole)[1::2]


def test_seed_step_problem_and_rollout_all_matter(model):
    same = [[1, 2, 3]] * 2
    base = tokens_of(sample(model, same, 2, 12))
    assert len({tuple(t) for group in base for t in group}) == 4  # two problems, two rollouts: four different draws
    assert tokens_of(sample(model, same, 2, 12)) == base
    assert tokens_of(sample(model, same, 2, 12, seed=1)) != base
    assert tokens_of(sample(model, same, 2, 12, step=1)) != base


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_logprobs_are_the_trainers(model, temperature):
    groups = sample(model, prompts(), 4, 12, temperature, eos=EOS, slots=10)
    for prompt, group in zip(prompts(), groups):
        packed = common.pack([prompt] * 4, [r.tokens for r in group])
        logp = common.response_logprobs(model, packed, temperature)[0]
        assert (logp - torch.tensor(sum([r.logprobs for r in group], []))).abs().max() < 1e-5


def test_budget_may_differ_per_rollout(model):
    budget = [1, 2, 3, 4, 5, 6]
    groups = sample(model, [[1], [2, 3]], 3, budget, eos=None)
    assert [len(r.tokens) for g in groups for r in g] == budget and not any(r.finished for g in groups for r in g)


def test_first_tokens_follow_the_softmax(model):
    """Chi-square over 20,000 first tokens; 1e-4 quantile, so that a right sampler fails once in ten thousand seeds."""
    n, prompt = 20_000, [1, 2, 3]
    first = torch.tensor([r.tokens[0] for r in sample(model, [prompt], n, 1, slots=4096)[0]])
    expected = model(torch.tensor([prompt]))[0, -1].softmax(-1) * n
    common_ones = expected >= 5
    seen = torch.bincount(first, minlength=50).float()
    seen, expected = (torch.cat([x[common_ones], x[~common_ones].sum()[None]]) for x in (seen, expected))
    degrees = len(seen) - 1
    chi2 = ((seen - expected) ** 2 / expected.clamp(min=1e-9)).sum()
    limit = degrees * (1 - 2 / (9 * degrees) + 3.72 * (2 / (9 * degrees)) ** 0.5) ** 3  # Wilson-Hilferty
    assert chi2 < limit, f"chi2 {chi2:.1f} over {limit:.1f} at {degrees} degrees of freedom"


def test_nucleus_keeps_the_smallest_set_that_reaches_top_p():
    p = torch.tensor([[0.1, 0.5, 0.3, 0.1], [0.97, 0.01, 0.01, 0.01]], dtype=torch.float64)
    assert nucleus(p, 0.7).tolist() == [[0, 0.5, 0.3, 0], [0.97, 0, 0, 0]]
    assert nucleus(p, 0.85)[0].tolist() == [0.1, 0.5, 0.3, 0.1]  # the two of 0.1 tie: both stay
    many = torch.rand(3, 1000, generator=torch.Generator().manual_seed(0)).double().softmax(-1)
    kept = nucleus(many, 0.9)  # needs more than the 64 likeliest
    assert ((kept.sum(-1) >= 0.9) & (kept.sum(-1) - kept.masked_fill(kept == 0, 2).amin(-1) < 0.9)).all()


def test_draw_inverts_the_distribution():
    logits = torch.tensor([0.2, 0.5, 0.3]).log().repeat(6, 1)
    u = torch.tensor([0.0, 0.1999, 0.2001, 0.6999, 0.7001, 1 - 2**-32], dtype=torch.float64)
    token, logp = draw(logits, u, 1.0, 1.0)
    assert token.tolist() == [0, 0, 1, 1, 2, 2] and torch.allclose(logp.exp(), torch.tensor([0.2, 0.2, 0.5, 0.5, 0.3, 0.3]))
    hopeless = torch.tensor([[0.0, -1e30, 0.0, -1e30]])  # tokens of probability 0 are never drawn, at no u
    assert {int(draw(hopeless, torch.tensor([x], dtype=torch.float64), 1.0, 1.0)[0]) for x in (0, 0.5, 0.75, 1 - 2**-32)} == {0, 2}


def test_uniform_is_uniform_and_keyed():
    keys = hash_key(1, 2, torch.arange(1000), torch.zeros(1000, dtype=torch.int64))
    u = torch.stack([uniform(keys, torch.full_like(keys, position)) for position in range(50)])
    assert 0 <= u.min() and u.max() < 1 and len(u.unique()) > 49_990
    assert abs(u.mean() - 0.5) < 0.006 and abs(u.var() - 1 / 12) < 0.002  # 4 deviations of 50,000 draws
    assert abs(torch.corrcoef(torch.stack([u[:-1].flatten(), u[1:].flatten()]))[0, 1]) < 0.02


def test_impossible_lengths_are_refused(model):
    with pytest.raises(ValueError, match="limit is 2048"):
        sample(model, [[1] * 2040], max_new_tokens=10)
    with pytest.raises(ValueError, match="at least one token"):
        sample(model, [[1], []])
