"""fast/'s sampler: pages, caches, copies, graphs. Its tokens are the plain sampler's, which tests/test_sampler.py checks too."""

import functools
import random
import threading

import pytest
import torch
from conftest import quick, tiny
from test_sampler import EOS, prompts, tokens_of

import fast.sampling
from fast.compiled import fused
from fast.nucleus import nucleus_of_few, threshold
from fast.paged import PAGE, PagedCache
from fast.sampling import FastSampler
from fast.schedule import Schedule
from fast.shared_cache import SharedPromptCache
from plumbing.batches import pack, response_logprobs
from plumbing.compilers import cpp_lacks
from sampler import likeliest, sample


@pytest.fixture(scope="module")
def model():
    return quick(tiny().requires_grad_(False))


@pytest.mark.parametrize("n_kv_heads", [4, 2])
@pytest.mark.parametrize("temperature, top_p", [(1.0, 1.0), (0.6, 0.95), (0.0, 1.0)])
def test_the_plain_samplers_tokens(n_kv_heads, temperature, top_p):
    """Whatever the slots: a prompt read once, rows of prompts, fewer slots in the end."""
    plain = tiny(n_kv_heads=n_kv_heads).requires_grad_(False)
    asked = prompts(9, longest=40)
    how = (5, 30, temperature, top_p, EOS)
    want = sample(plain, asked, *how, seed=3)
    for slots in (1, 7, 64):
        got = sample(
            quick(tiny(n_kv_heads=n_kv_heads).requires_grad_(False)),
            asked,
            *how,
            seed=3,
            slots=slots,
        )
        assert tokens_of(got) == tokens_of(want)
        for one, other in zip(sum(got, []), sum(want, [])):
            assert (
                torch.allclose(torch.tensor(one.logprobs), torch.tensor(other.logprobs), atol=1e-5)
                and one.finished is other.finished
            )


def paged(m, slots, pages=None, interval=1, **more):
    s = FastSampler(quick(m), slots, paged=True, pages=pages, **more)
    s.interval = interval
    return s


@pytest.mark.parametrize("n_kv_heads", [4, 2])
@pytest.mark.parametrize("pages, interval", [(None, 1), (None, 8), (60, 1), (14, 8)])
def test_paged_equals_dense(n_kv_heads, pages, interval, monkeypatch):
    """Pages shared by the rollouts of a prompt, partial pages copied; with 14 of them rollouts are sent back and start anew."""
    m = tiny(n_kv_heads=n_kv_heads).requires_grad_(False)
    asked, sent_back = prompts(9, longest=40), []
    make_room = Schedule.make_room
    monkeypatch.setattr(
        Schedule,
        "make_room",
        lambda self, steps: sent_back.extend(emptied := make_room(self, steps)) or emptied,
    )
    dense = sample(m, asked, 5, 30, eos=EOS, seed=3)
    sampler = paged(m, 16, pages, interval)
    for _ in range(2):  # a second call finds what the first left
        groups = sampler.sample(asked, 5, 30, eos=EOS, seed=3)
        assert tokens_of(groups) == tokens_of(dense)
        assert [[r.finished for r in g] for g in groups] == [[r.finished for r in g] for g in dense]
        for one, other in zip(sum(groups, []), sum(dense, [])):
            assert torch.allclose(
                torch.tensor(one.logprobs), torch.tensor(other.logprobs), atol=1e-5
            )
        assert (
            len(sampler.cache.free) == len(sampler.cache.users) - 1
            and not sampler.cache.users.any()
        )  # every page came back
    assert bool(sent_back) == (pages == 14)


def test_the_smallest_pool_gets_everything_done():
    """Whatever the lengths, pages for one rollout are enough: nothing hangs, nothing crashes; one page fewer is refused at once."""
    m = tiny().requires_grad_(False)
    for seed in range(12):
        rng = random.Random(seed)
        asked = prompts(rng.randint(1, 6), rng.choice([3, 17, 33, 70]), seed)
        n, new, slots = rng.randint(1, 5), rng.choice([1, 2, 15, 16, 17, 40]), rng.randint(1, 9)
        fewest = (max(map(len, asked)) + new) // PAGE + 4
        groups = paged(m, slots, fewest, rng.choice([1, 3, 8])).sample(
            asked, n, new, eos=EOS, seed=seed
        )
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
    dense = poisoned(SharedPromptCache, "begin", in_empty_slots)
    dense.were_open = set()
    monkeypatch.setattr(fast.sampling, "SharedPromptCache", dense)
    monkeypatch.setattr(fast.sampling, "PagedCache", poisoned(PagedCache, "publish", in_free_pages))
    for dirty in (
        sample(model, prompts(), 3, slots=slots, **how),
        paged(model, slots).sample(prompts(), 3, **how),
    ):
        assert tokens_of(clean) == tokens_of(dirty)
        for one, other in zip(sum(clean, []), sum(dirty, [])):
            assert torch.allclose(
                torch.tensor(one.logprobs), torch.tensor(other.logprobs), atol=1e-5
            )


def test_a_kept_sampler_follows_the_weights():
    """In bf16 it holds a copy; refresh is in place, so that recorded graphs stay valid."""
    m, other = tiny().requires_grad_(False), tiny().requires_grad_(False)
    other.init_weights(7)
    s = paged(m, 8, bf16=True)
    before = s.sample(prompts(), 2, 12, eos=EOS)
    addresses = [p.data_ptr() for p in s.model.parameters()]
    s.refresh(other)
    assert addresses == [p.data_ptr() for p in s.model.parameters()]
    after, fresh = (
        s.sample(prompts(), 2, 12, eos=EOS),
        FastSampler(quick(other), 8, bf16=True, paged=True).sample(prompts(), 2, 12, eos=EOS),
    )
    assert tokens_of(after) == tokens_of(fresh) != tokens_of(before)


@pytest.mark.parametrize("fp32_head", [False, True])
@pytest.mark.parametrize("paged", [False, True])
def test_bf16_logprobs_are_as_near_as_bf16_allows(paged, fp32_head):
    """The trainer under autocast against the sampler's copy of what autocast would cast. Both round by themselves, so they lie
    nearer to each other than either to fp32 (0.010 on average here); a mistake would cost more."""
    m, apart, rounding = tiny().requires_grad_(False), [], []
    for prompt, group in zip(
        prompts(),
        FastSampler(quick(m, fp32_head=fp32_head), 16, bf16=True, paged=paged).sample(
            prompts(), 4, 12, eos=EOS
        ),
    ):
        packed = pack([prompt] * 4, [r.tokens for r in group])
        with torch.autocast("cpu", torch.bfloat16):
            logp = response_logprobs(m, packed)[0]
        assert logp.dtype == torch.float32
        apart.append((logp - torch.tensor(sum([r.logprobs for r in group], []))).abs())
        rounding.append((logp - response_logprobs(m, packed)[0]).abs())
    assert torch.cat(apart).mean() < torch.cat(rounding).mean() < 0.02


def test_the_bar_says_how_fast(model, capsys):
    paged(model, 4).sample(prompts(), 40, 12, eos=None, progress=True)
    said = capsys.readouterr().err
    assert "tok/s" in said and "live" in said and "pages" in said


def test_the_threshold_is_the_nucleus():
    """On a GPU the nucleus is found by halving, since that asks the device nothing: the same tokens stay."""
    weight = torch.randn(40, 1000, generator=torch.Generator().manual_seed(1)).mul(3).softmax(-1)
    weight[:5] = weight[:5].round(decimals=4)  # ties, and zeros
    for top_p in (0.3, 0.9, 0.999):
        wanted = top_p * weight.sum(-1, keepdim=True)
        kept = weight.masked_fill(weight < threshold(weight, wanted), 0.0)
        assert (kept.sum(-1, keepdim=True) >= wanted).all()
        smallest = kept.masked_fill(kept == 0, 2.0).amin(-1, keepdim=True)
        assert (
            kept.masked_fill(kept == smallest, 0.0).sum(-1, keepdim=True) < wanted
        ).all()  # without its least likely ones it is too little
        assert (kept > 0).eq(
            nucleus_of_few(weight, top_p) > 0
        ).float().mean() > 0.9999  # sums in another order may differ at the edge


@pytest.mark.skipif(bool(cpp_lacks()), reason=f"needs {cpp_lacks()}")
@pytest.mark.parametrize("temperature, top_p", [(1.0, 1.0), (0.6, 0.95), (0.0, 1.0)])
def test_a_compiled_draw_is_the_plain_one(temperature, top_p):
    """As a GPU draws with --compile: from logits that are the first columns of wider rows, by keys, the nucleus by halving; in one
    graph, with one piece of code for both widths. A C++ compiler takes a minute for the 31 halvings, so they are traced alone."""
    torch._dynamo.reset()
    g = torch.Generator().manual_seed(0)
    nucleus = fast.sampling.nucleus_by_halving
    backend = "aot_eager_decomp_partition" if top_p < 1 else "inductor"
    compiled = torch.compile(
        fast.sampling.draw_keyed, dynamic=True, fullgraph=True, backend=backend
    )
    with torch._dynamo.config.patch(recompile_limit=1, fail_on_recompile_limit_hit=True):
        for width in (9, 40):
            logits = 3 * torch.randn(width, 5020, generator=g)[:, :5000]
            key = torch.randint(-(2**63), 2**63 - 1, (width,), generator=g)
            place = torch.arange(width)
            how = (temperature, top_p, nucleus)
            got = compiled(logits, key, place, *how)
            wanted = fast.sampling.draw_keyed(logits, key, place, *how)
            assert torch.equal(got[0], wanted[0])
            assert torch.allclose(got[1], wanted[1], atol=1e-5)


def test_more_variants_of_a_function_are_compiled_than_torch_would():
    """Beyond the limit it would run as it is, without a word."""
    fused(fast.sampling.draw_keyed)
    assert torch._dynamo.config.recompile_limit == 64


def test_so_they_are_in_other_threads(monkeypatch):
    """A backward pass on a GPU runs in one of its own, where torch would stop at 8: what is assigned there counts nothing here."""
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    def add(x, other):
        return x + other

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    function = fused.__wrapped__(add)  # not kept for others
    limits = []

    def call_in_twelve_ways():
        limits.append(torch._dynamo.config.recompile_limit)
        for way in range(12):
            x = torch.zeros([2] * way)  # as many dimensions
            assert torch.equal(function(x, 1.0), x + 1)

    thread = threading.Thread(target=call_in_twelve_ways)
    thread.start()
    thread.join()
    assert limits == [64] and len(compiled) == 12


@pytest.mark.gpu
def test_graphs_equal_eager_before_and_after_an_update():
    m = tiny(vocab_size=200).requires_grad_(False).cuda()
    graphs, eager = FastSampler(quick(m), 24), FastSampler(quick(m), 24)
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
    got = FastSampler(quick(m), 24, bf16=False).sample(prompts(20, 40), 5, 60, eos=EOS, seed=2)
    nucleus_got = FastSampler(quick(m), 24, bf16=False).sample(
        prompts(20, 40), 5, 60, 0.6, 0.95, eos=EOS, seed=2
    )
    torch.set_float32_matmul_precision(before)
    assert tokens_of(got) == tokens_of(want) and tokens_of(nucleus_got) == tokens_of(wanted)


def test_the_few_likeliest_are_the_nucleus():
    """The quick nucleus keeps what the plain one keeps, to the bit."""
    g = torch.Generator().manual_seed(0)
    for V in (5, 60, 400):
        probs = (3 * torch.randn(50, V, generator=g)).softmax(-1)
        for top_p in (0.3, 0.9, 0.95, 0.999):
            assert torch.equal(nucleus_of_few(probs, top_p), likeliest(probs, top_p))


def test_no_slots_are_refused():
    with pytest.raises(ValueError, match="slots must be 1 or more"):
        FastSampler(tiny(), 0).sample([[1]])
