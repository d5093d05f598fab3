"""Sampling: cached equals uncached, slots do not matter, log-probs are the trainer's, draws follow the softmax."""

import random

import pytest
import torch
from conftest import quick, tiny

from data.draws import hash_key, uniform
from plumbing.batches import pack, response_logprobs
from sampler import Cache, Sampler, draw, likeliest, sample

EOS = 5


@pytest.fixture(scope="module", params=["plain", "fast"])
def model(request):
    """Every test of a model's samples runs on the plain program and on fast/."""
    m = tiny().requires_grad_(False)
    return m if request.param == "plain" else quick(m)


BOTH = pytest.mark.parametrize("prepare", [lambda m: m, quick], ids=["plain", "fast"])


def prompts(n=9, longest=12, seed=0):
    rng = random.Random(seed)
    return [[rng.randrange(50) for _ in range(rng.randint(1, longest))] for _ in range(n)]


def tokens_of(groups):
    return [[r.tokens for r in group] for group in groups]


def test_greedy_cached_equals_greedy_full_forward(model):
    for prompt, (rollout,) in zip(
        prompts(), sample(model, prompts(), max_new_tokens=20, temperature=0, eos=EOS)
    ):
        sequence = list(prompt)
        while len(sequence) < len(prompt) + 20 and (sequence == prompt or sequence[-1] != EOS):
            sequence.append(int(model(torch.tensor([sequence]))[0, -1].argmax()))
        assert rollout.tokens == sequence[len(prompt) :]
        assert rollout.finished is (
            rollout.tokens[-1] == EOS
        )  # a bool, not numpy's: rollouts are written as JSON


@pytest.mark.parametrize("temperature, top_p", [(1.0, 1.0), (0.6, 0.95)])
def test_slots_do_not_change_the_tokens(model, temperature, top_p):
    runs = [
        sample(model, prompts(), 5, 15, temperature, top_p, EOS, seed=3, slots=slots)
        for slots in (1, 7, 64)
    ]
    assert tokens_of(runs[0]) == tokens_of(runs[1]) == tokens_of(runs[2])
    assert any(r.finished for g in runs[0] for r in g) and any(
        not r.finished for g in runs[0] for r in g
    )
    for one, other in zip(sum(runs[0], []), sum(runs[2], [])):
        assert torch.allclose(torch.tensor(one.logprobs), torch.tensor(other.logprobs), atol=1e-5)


@BOTH
@pytest.mark.parametrize("n", [1, 3, 64])
def test_grouped_queries_and_refill_give_the_plain_result(n, prepare):
    """Grouped-query attention, prompts of length 1 to 12, rollouts of mixed length: greedy ids are those of the full forward."""
    m = prepare(tiny(n_kv_heads=2).requires_grad_(False))
    asked = [[7], *prompts(4)]
    budget = [1 + i % 9 for i in range(n * len(asked))]
    groups = sample(m, asked, n, budget, temperature=0, eos=None, slots=7)
    for p, (prompt, group) in enumerate(zip(asked, groups)):
        sequence = list(prompt)
        for _ in range(9):
            sequence.append(int(m(torch.tensor([sequence]))[0, -1].argmax()))
        for r, rollout in enumerate(group):
            assert (
                rollout.tokens == sequence[len(prompt) :][: budget[p * n + r]]
                and not rollout.finished
            )


def test_a_prompt_at_the_limit(model):
    long = [i % 50 for i in range(2040)]
    (rollout,), (short,) = sample(model, [long, [1]], max_new_tokens=8, eos=None)
    assert len(rollout.tokens) == 8 == len(short.tokens)
    packed = pack([long], [rollout.tokens])
    assert (response_logprobs(model, packed)[0] - torch.tensor(rollout.logprobs)).abs().max() < 1e-4


@BOTH
def test_all_end_at_once_and_none_ends(prepare):
    m = prepare(tiny().requires_grad_(False))
    m.lm_head.weight.zero_()
    m.lm_head.weight[EOS] = 40 * torch.sign(
        m.norm.weight
    )  # whatever the text, eos or nothing but eos
    hidden = m.hidden(torch.tensor([1, 2, 3]), [3])
    m.lm_head.weight[EOS] *= torch.sign(hidden[-1])
    ended = sample(m, [[1, 2, 3]] * 5, 4, 9, eos=EOS, slots=6)
    assert all(r.tokens == [EOS] and r.finished for group in ended for r in group)
    endless = sample(m, [[1, 2, 3]] * 5, 4, 9, eos=EOS + 1, slots=6, temperature=0)
    assert all(len(r.tokens) == 9 and not r.finished for group in endless for r in group)


def test_a_part_of_the_batch_draws_what_the_whole_draws(model):
    """What a rank needs: its prompts, keyed by their problems, give the tokens one process would have given."""
    whole = sample(model, prompts(), 3, 10, eos=EOS, problem_ids=list(range(100, 109)))
    part = sample(model, prompts()[1::2], 3, 10, eos=EOS, problem_ids=list(range(100, 109))[1::2])
    assert tokens_of(part) == tokens_of(whole)[1::2]


def test_seed_step_problem_and_rollout_all_matter(model):
    same = [[1, 2, 3]] * 2
    base = tokens_of(sample(model, same, 2, 12))
    assert (
        len({tuple(t) for group in base for t in group}) == 4
    )  # two problems, two rollouts: four different draws
    assert tokens_of(sample(model, same, 2, 12)) == base
    assert tokens_of(sample(model, same, 2, 12, seed=1)) != base
    assert tokens_of(sample(model, same, 2, 12, step=1)) != base


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_logprobs_are_the_trainers(model, temperature):
    groups = sample(model, prompts(), 4, 12, temperature, eos=EOS, slots=10)
    for prompt, group in zip(prompts(), groups):
        packed = pack([prompt] * 4, [r.tokens for r in group])
        logp = response_logprobs(model, packed, temperature)[0]
        assert (logp - torch.tensor(sum([r.logprobs for r in group], []))).abs().max() < 1e-5


def test_budget_may_differ_per_rollout(model):
    budget = [1, 2, 3, 4, 5, 6]
    groups = sample(model, [[1], [2, 3]], 3, budget, eos=None)
    assert [len(r.tokens) for g in groups for r in g] == budget and not any(
        r.finished for g in groups for r in g
    )


def test_first_tokens_follow_the_softmax(model):
    """Chi-square over 20,000 first tokens; 1e-4 quantile, so that a right sampler fails once in ten thousand seeds."""
    n, prompt = 20_000, [1, 2, 3]
    first = torch.tensor([r.tokens[0] for r in sample(model, [prompt], n, 1, slots=4096)[0]])
    expected = model(torch.tensor([prompt]))[0, -1].softmax(-1) * n
    common_ones = expected >= 5
    seen = torch.bincount(first, minlength=50).float()
    seen, expected = (
        torch.cat([x[common_ones], x[~common_ones].sum()[None]]) for x in (seen, expected)
    )
    degrees = len(seen) - 1
    chi2 = ((seen - expected) ** 2 / expected.clamp(min=1e-9)).sum()
    limit = (
        degrees * (1 - 2 / (9 * degrees) + 3.72 * (2 / (9 * degrees)) ** 0.5) ** 3
    )  # Wilson-Hilferty
    assert chi2 < limit, f"chi2 {chi2:.1f} over {limit:.1f} at {degrees} degrees of freedom"


@pytest.mark.parametrize("program", ["plain", "fast"])
def test_nucleus_keeps_the_smallest_set_that_reaches_top_p(program):
    nucleus = likeliest
    if program == "fast":
        from fast.nucleus import nucleus_of_few as nucleus
    p = torch.tensor([[0.1, 0.5, 0.3, 0.1], [0.97, 0.01, 0.01, 0.01]], dtype=torch.float64)
    assert nucleus(p, 0.7).tolist() == [[0, 0.5, 0.3, 0], [0.97, 0, 0, 0]]
    assert nucleus(p, 0.85)[0].tolist() == [0.1, 0.5, 0.3, 0.1]  # the two of 0.1 tie: both stay
    many = torch.rand(3, 1000, generator=torch.Generator().manual_seed(0)).double().softmax(-1)
    kept = nucleus(many, 0.9)  # needs more than the 64 likeliest
    assert (
        (kept.sum(-1) >= 0.9) & (kept.sum(-1) - kept.masked_fill(kept == 0, 2).amin(-1) < 0.9)
    ).all()


def test_draw_inverts_the_distribution():
    logits = torch.tensor([0.2, 0.5, 0.3]).log().repeat(6, 1)
    u = torch.tensor([0.0, 0.1999, 0.2001, 0.6999, 0.7001, 1 - 2**-32], dtype=torch.float64)
    token, logp = draw(logits, u, 1.0, 1.0)
    assert token.tolist() == [0, 0, 1, 1, 2, 2] and torch.allclose(
        logp.exp(), torch.tensor([0.2, 0.2, 0.5, 0.5, 0.3, 0.3])
    )
    hopeless = torch.tensor(
        [[0.0, -1e30, 0.0, -1e30]]
    )  # tokens of probability 0 are never drawn, at no u
    assert {
        int(draw(hopeless.clone(), torch.tensor([x], dtype=torch.float64), 1.0, 1.0)[0])
        for x in (0, 0.5, 0.75, 1 - 2**-32)
    } == {0, 2}


def uniforms(n, seed=0):
    return (
        torch.randint(0, 2**32, (n,), generator=torch.Generator().manual_seed(seed)).double()
        * 2.0**-32
    )


def test_draws_follow_the_softmax_at_every_level():
    """300 tokens are three levels of sums. Chi-square, of the tokens that 200,000 draws should show; five deviations."""
    p = (torch.randn(1, 300, generator=torch.Generator().manual_seed(0))).softmax(-1)
    seen = torch.bincount(
        torch.cat(
            [
                draw(p.log().expand(len(u), -1), u, 1.0, 1.0)[0]
                for u in uniforms(200_000).split(20_000)
            ]
        ),
        minlength=300,
    )
    expected = 200_000 * p[0]
    assert expected.min() > 5
    assert ((seen - expected) ** 2 / expected).sum() < 299 + 5 * (2 * 299) ** 0.5


def test_rounding_seldom_changes_a_draw():
    """One inversion over all tokens changes 42 of these 2,000 draws."""
    g, changed = torch.Generator().manual_seed(0), 0
    for part in uniforms(2_000).split(250):
        logits = 3 * torch.randn(250, 100_000, generator=g)
        noise = 1e-4 * (torch.rand(logits.shape, generator=g) - 0.5)
        changed += int(
            (draw(logits, part, 1.0, 1.0)[0] != draw(logits + noise, part, 1.0, 1.0)[0]).sum()
        )
    assert changed <= 3, changed


def test_uniform_is_uniform_and_keyed():
    keys = hash_key(1, 2, torch.arange(1000), torch.zeros(1000, dtype=torch.int64))
    u = torch.stack([uniform(keys, torch.full_like(keys, position)) for position in range(50)])
    assert 0 <= u.min() and u.max() < 1 and len(u.unique()) > 49_990
    assert (
        abs(u.mean() - 0.5) < 0.006 and abs(u.var() - 1 / 12) < 0.002
    )  # 4 deviations of 50,000 draws
    assert abs(torch.corrcoef(torch.stack([u[:-1].flatten(), u[1:].flatten()]))[0, 1]) < 0.02


def test_impossible_lengths_are_refused(model):
    with pytest.raises(ValueError, match="limit is 2048"):
        sample(model, [[1] * 2040], max_new_tokens=10)
    with pytest.raises(ValueError, match="at least one token"):
        sample(model, [[1], []])
    with pytest.raises(ValueError, match="n must be 1 or more"):
        sample(model, [[1]], n=0)
    with pytest.raises(ValueError, match="every prompt"):
        sample(model, [[1], [2]], n=2, problem_ids=[7])
    with pytest.raises(ValueError, match="slots must be 1 or more"):
        sample(model, [[1]], slots=0)


def test_nothing_of_a_former_rollout_is_read_by_the_plain_cache(monkeypatch):
    """Large numbers in all that a slot has not written itself: no token and no log-prob changes."""
    m = tiny().requires_grad_(False)
    how = dict(max_new_tokens=[1 + i % 23 for i in range(27)], eos=EOS)
    clean = Sampler(m, 3).sample(prompts(), 3, **how)
    read_prompts = Sampler.read_prompts

    def poison_first(self, requests, cache):
        for request in requests:
            for x in (*cache.keys, *cache.values):
                x[request.slot] = 1e4
        return read_prompts(self, requests, cache)

    monkeypatch.setattr(Sampler, "read_prompts", poison_first)
    dirty = Sampler(m, 3).sample(prompts(), 3, **how)
    assert tokens_of(clean) == tokens_of(dirty)
    for one, other in zip(sum(clean, []), sum(dirty, [])):
        assert one.logprobs == other.logprobs


def test_a_cache_says_what_the_uncached_model_says():
    """Token by token through the cache, two slots at different positions: the hidden states of the full pass."""
    m = tiny(n_kv_heads=2).requires_grad_(False)
    texts = torch.randint(0, 50, (2, 9), generator=torch.Generator().manual_seed(0))
    cache = Cache(m, 3, 9)
    slots = torch.tensor([2, 0])
    for position in range(9):
        at = torch.tensor([position, position])
        got = m.trunk(texts[:, position], at, cache.attend(slots, at))
    whole = m.hidden(texts.flatten(), [9, 9])
    assert torch.allclose(got, whole[[8, 17]], atol=1e-5)
