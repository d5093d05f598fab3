"""Sampling: cached equals uncached, slots do not matter, log-probs are the trainer's, draws follow the softmax."""

import os
import random
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, tiny

import common
import sampler
from kvcache import PAGE, DenseCache, PagedCache
from sampler import Sampler, Schedule, draw, hash_key, nucleus, sample, threshold, uniform

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
        assert rollout.finished is (rollout.tokens[-1] == EOS)  # a bool, not numpy's: rollouts are written as JSON


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


def paged(m, slots, pages=None, interval=1, **more):
    s = Sampler(m, slots, paged=True, pages=pages, **more)
    s.interval = interval
    return s


@pytest.mark.parametrize("n_kv_heads", [4, 2])
@pytest.mark.parametrize("pages, interval", [(None, 1), (None, 8), (60, 1), (14, 8)])
def test_paged_equals_dense(n_kv_heads, pages, interval, monkeypatch):
    """Pages shared by the rollouts of a prompt, partial pages copied; with 14 of them rollouts are sent back and start anew."""
    m = tiny(n_kv_heads=n_kv_heads).requires_grad_(False)
    asked, sent_back = prompts(9, longest=40), []
    make_room = Schedule.make_room
    monkeypatch.setattr(Schedule, "make_room", lambda self, steps: sent_back.extend(emptied := make_room(self, steps)) or emptied)
    dense = sample(m, asked, 5, 30, eos=EOS, seed=3)
    sampler = paged(m, 16, pages, interval)
    for _ in range(2):  # a second call finds what the first left
        groups = sampler.sample(asked, 5, 30, eos=EOS, seed=3)
        assert tokens_of(groups) == tokens_of(dense)
        assert [[r.finished for r in g] for g in groups] == [[r.finished for r in g] for g in dense]
        for one, other in zip(sum(groups, []), sum(dense, [])):
            assert torch.allclose(torch.tensor(one.logprobs), torch.tensor(other.logprobs), atol=1e-5)
        assert len(sampler.cache.free) == len(sampler.cache.users) - 1 and not sampler.cache.users.any()  # every page came back
    assert bool(sent_back) == (pages == 14)


def test_the_smallest_pool_gets_everything_done():
    """Whatever the lengths, pages for one rollout are enough: nothing hangs, nothing crashes; one page fewer is refused at once."""
    m = tiny().requires_grad_(False)
    for seed in range(12):
        rng = random.Random(seed)
        asked = prompts(rng.randint(1, 6), rng.choice([3, 17, 33, 70]), seed)
        n, new, slots = rng.randint(1, 5), rng.choice([1, 2, 15, 16, 17, 40]), rng.randint(1, 9)
        fewest = (max(map(len, asked)) + new) // PAGE + 4
        groups = paged(m, slots, fewest, rng.choice([1, 3, 8])).sample(asked, n, new, eos=EOS, seed=seed)
        assert tokens_of(groups) == tokens_of(sample(m, asked, n, new, eos=EOS, seed=seed))
        with pytest.raises(ValueError, match="more memory"):
            paged(m, slots, fewest - 1).sample(asked, n, new)


def poisoned(cls, method, poison):
    """`cls` with `poison(cache)` before each call of `method`."""

    def first_poison(self, *args):
        poison(self)
        return getattr(cls, method)(self, *args)

    return type(cls.__name__, (cls,), {method: first_poison})


@pytest.mark.parametrize("slots", [3, 8])
def test_nothing_of_a_former_rollout_is_read(model, slots, monkeypatch):
    """NaN in the rows of slots that begin anew, and in every free page and in page 0: no token and no log-prob changes."""

    def in_empty_slots(cache):
        for x in sum(cache.own, ()):
            x[[i for i in range(len(x)) if i not in cache.were_open]] = float("nan")
        cache.were_open = set((cache.prompt_of >= 0).nonzero()[0].tolist())

    def in_free_pages(cache):
        for x in (*cache.keys, *cache.values):
            x[[0, *cache.free]] = float("nan")

    how = dict(max_new_tokens=[1 + i % 23 for i in range(27)], eos=EOS)
    clean = sample(model, prompts(), 3, slots=slots, **how)
    dense = poisoned(DenseCache, "begin", in_empty_slots)
    dense.were_open = set()
    monkeypatch.setattr(sampler, "DenseCache", dense)
    monkeypatch.setattr(sampler, "PagedCache", poisoned(PagedCache, "publish", in_free_pages))
    for dirty in (sample(model, prompts(), 3, slots=slots, **how), paged(model, slots).sample(prompts(), 3, **how)):
        assert tokens_of(clean) == tokens_of(dirty)
        for one, other in zip(sum(clean, []), sum(dirty, [])):
            assert torch.allclose(torch.tensor(one.logprobs), torch.tensor(other.logprobs), atol=1e-5)


def test_a_kept_sampler_follows_the_weights():
    """In bf16 it holds a copy; refresh is in place, so that recorded graphs stay valid."""
    m, other = tiny().requires_grad_(False), tiny().requires_grad_(False)
    other.init_weights(7)
    s = paged(m, 8, bf16=True)
    before = s.sample(prompts(), 2, 12, eos=EOS)
    addresses = [p.data_ptr() for p in s.model.parameters()]
    s.refresh(other)
    assert addresses == [p.data_ptr() for p in s.model.parameters()]
    after, fresh = s.sample(prompts(), 2, 12, eos=EOS), Sampler(other, 8, bf16=True, paged=True).sample(prompts(), 2, 12, eos=EOS)
    assert tokens_of(after) == tokens_of(fresh) != tokens_of(before)


@pytest.mark.parametrize("fp32_head", [False, True])
@pytest.mark.parametrize("paged", [False, True])
def test_bf16_logprobs_are_as_near_as_bf16_allows(paged, fp32_head):
    """The trainer under autocast against the sampler's copy of what autocast would cast. Both round by themselves, so they lie
    nearer to each other than either to fp32 (0.010 on average here); a mistake would cost more."""
    m, apart, rounding = tiny().requires_grad_(False), [], []
    m.fp32_head = fp32_head
    for prompt, group in zip(prompts(), Sampler(m, 16, bf16=True, paged=paged).sample(prompts(), 4, 12, eos=EOS)):
        packed = common.pack([prompt] * 4, [r.tokens for r in group])
        with torch.autocast("cpu", torch.bfloat16):
            logp = common.response_logprobs(m, packed)[0]
        assert logp.dtype == torch.float32
        apart.append((logp - torch.tensor(sum([r.logprobs for r in group], []))).abs())
        rounding.append((logp - common.response_logprobs(m, packed)[0]).abs())
    assert torch.cat(apart).mean() < torch.cat(rounding).mean() < 0.02


def test_the_bar_says_how_fast(model, capsys):
    paged(model, 4).sample(prompts(), 40, 12, eos=None, progress=True)
    said = capsys.readouterr().err
    assert "tok/s" in said and "live" in said and "pages" in said


@pytest.mark.parametrize("interpret", ["1", pytest.param("0", marks=pytest.mark.gpu)])
def test_the_kernel(interpret):
    """The Triton kernel against the plain gather, NaN where it must not look; on a CPU in Triton's interpreter. In a process of its own."""
    pytest.importorskip("triton", reason="needs triton, which comes with torch on CUDA")
    path = os.pathsep.join([ROOT, os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "TRITON_INTERPRET": interpret, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", KERNEL_CASES, interpret], env=env, capture_output=True, text=True)
    if "only 0-dimensional arrays" in done.stderr:
        pytest.skip("this Triton's interpreter does not run with this numpy (2.3 and later)")
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout) < 1e-5


KERNEL_CASES = """
import sys
import torch
from kvcache import PAGE, gathered_attention, paged_attention
generator, worst = torch.Generator().manual_seed(0), 0.0
device = "cpu" if sys.argv[1] == "1" else "cuda"
for n_heads, n_kv_heads, head_dim in ((4, 4, 32), (4, 2, 32), (6, 2, 24), (3, 1, 128)):
    lengths = torch.tensor([1, 15, 16, 17, 64, 65, 256])
    table = torch.randint(1, 60, (7, 16), generator=generator, dtype=torch.int32)
    table[torch.arange(16) >= (lengths[:, None] + PAGE - 1) // PAGE] = 0
    keys, values = (torch.randn(60, n_kv_heads, PAGE, head_dim, generator=generator) for _ in range(2))
    keys[0] = values[0] = float("nan")
    q = torch.randn(7, n_heads, head_dim, generator=generator)
    of = [x.to(device) for x in (q, keys, values, table, lengths)]
    worst = max(worst, float((paged_attention(*of) - gathered_attention(*of)).abs().max()))
print(worst)
"""


def test_the_threshold_is_the_nucleus():
    """On a GPU the nucleus is found by halving, since that asks the device nothing: the same tokens stay."""
    weight = torch.randn(40, 1000, generator=torch.Generator().manual_seed(1)).mul(3).softmax(-1)
    weight[:5] = weight[:5].round(decimals=4)  # ties, and zeros
    for top_p in (0.3, 0.9, 0.999):
        wanted = top_p * weight.sum(-1, keepdim=True)
        kept = weight.masked_fill(weight < threshold(weight, wanted), 0.0)
        assert (kept.sum(-1, keepdim=True) >= wanted).all()
        smallest = kept.masked_fill(kept == 0, 2.0).amin(-1, keepdim=True)
        assert (kept.masked_fill(kept == smallest, 0.0).sum(-1, keepdim=True) < wanted).all()  # without its least likely ones it is too little
        assert (kept > 0).eq(nucleus(weight, top_p) > 0).float().mean() > 0.9999  # sums in another order may differ at the edge


@pytest.mark.gpu
def test_graphs_equal_eager_before_and_after_an_update():
    m = tiny(vocab_size=200).requires_grad_(False).cuda()
    graphs, eager = Sampler(m, 24), Sampler(m, 24)
    eager.use_graphs = False
    for _ in range(2):
        runs = [s.sample(prompts(20, 40), 5, 60, eos=EOS, seed=2) for s in (graphs, eager)]
        assert tokens_of(runs[0]) == tokens_of(runs[1]) and graphs.graphs and not eager.graphs
        m.init_weights(9)
        for s in (graphs, eager):
            s.refresh(m)


@pytest.mark.gpu
def test_fp32_on_a_gpu_equals_the_cpu():
    """Paged, with the kernel and graphs, in fp32 without TF32: the CPU's tokens."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    m = tiny(vocab_size=200).requires_grad_(False)
    want = sample(m, prompts(20, 40), 5, 60, eos=EOS, seed=2)
    wanted = sample(m, prompts(20, 40), 5, 60, 0.6, 0.95, eos=EOS, seed=2)
    m.cuda()
    got = Sampler(m, 24, bf16=False).sample(prompts(20, 40), 5, 60, eos=EOS, seed=2)
    nucleus_got = Sampler(m, 24, bf16=False).sample(prompts(20, 40), 5, 60, 0.6, 0.95, eos=EOS, seed=2)
    torch.set_float32_matmul_precision(before)
    assert tokens_of(got) == tokens_of(want) and tokens_of(nucleus_got) == tokens_of(wanted)


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
    assert {int(draw(hopeless.clone(), torch.tensor([x], dtype=torch.float64), 1.0, 1.0)[0]) for x in (0, 0.5, 0.75, 1 - 2**-32)} == {0, 2}


def uniforms(n, seed=0):
    return torch.randint(0, 2**32, (n,), generator=torch.Generator().manual_seed(seed)).double() * 2.0**-32


def test_draws_follow_the_softmax_at_every_level():
    """300 tokens are three levels of sums. Chi-square, of the tokens that 200,000 draws should show; five deviations."""
    p = (torch.randn(1, 300, generator=torch.Generator().manual_seed(0))).softmax(-1)
    seen = torch.bincount(torch.cat([draw(p.log().expand(len(u), -1), u, 1.0, 1.0)[0] for u in uniforms(200_000).split(20_000)]), minlength=300)
    expected = 200_000 * p[0]
    assert expected.min() > 5
    assert ((seen - expected) ** 2 / expected).sum() < 299 + 5 * (2 * 299) ** 0.5


def test_rounding_seldom_changes_a_draw():
    """One inversion over all tokens changes 42 of these 2,000 draws."""
    g, changed = torch.Generator().manual_seed(0), 0
    for part in uniforms(2_000).split(250):
        logits = 3 * torch.randn(250, 100_000, generator=g)
        noise = 1e-4 * (torch.rand(logits.shape, generator=g) - 0.5)
        changed += int((draw(logits, part, 1.0, 1.0)[0] != draw(logits + noise, part, 1.0, 1.0)[0]).sum())
    assert changed <= 3, changed


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
