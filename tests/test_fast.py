"""Each part of fast/ equals the plain form in value, gradient and tokens: RMSNorm, attention, shared prompts, the head in bf16
and in chunks, compiled regions, recomputed blocks. tests/test_fast_sampling.py does so for the sampler."""

import os
import shutil
import subprocess
import sys
import types

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, quick, tiny

import fast
from data import UserError
from fast import cpu, head, packed, sampling
from fast.sampling import FastSampler
from plumbing import compilers, prepare
from plumbing.batches import pack, response_hidden, response_logprobs
from sampler import sample

LENGTHS = [7, 12, 1, 12, 5]
needs_compiler = pytest.mark.skipif(
    not (shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")),
    reason="needs a C++ compiler",
)


# Two prompts, of which one has two responses; the last prompt has one. Shared prompts are the same list.
PROMPTS = [[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8], [4]]
SHARED = {
    None: None,
    "three share": [0, 0, 0, 1],
    "two of three share": [0, 1, 0, 2],
    "one prompt": [1, 1],
}


def loss_and_gradients(model, lengths=LENGTHS, share=None, bf16=False):
    """A loss of log-probs and logsumexp, and its gradient: of packed texts, or of responses to shared prompts."""
    device = model.lm_head.weight.device
    g = torch.Generator().manual_seed(len(lengths))
    model.zero_grad()
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        if share:
            responses = [
                torch.randint(0, 50, (n,), generator=g).tolist() for n in lengths[: len(share)]
            ]
            hidden = response_hidden(model, [PROMPTS[i] for i in share], responses)
            targets = torch.tensor(sum(responses, []), device=device)
        else:
            tokens, targets = torch.randint(0, 50, (2, sum(lengths)), generator=g).to(device)
            hidden = model.hidden(tokens, lengths)
        logp, lse, _ = model.logprobs(hidden, targets, 0.9)
    loss = -logp.mean() + 1e-2 * lse.square().mean()
    loss.backward()
    return loss.detach(), [p.grad.clone() for p in model.parameters()]


def assert_near(got, wanted, error=1e-6):
    assert abs(got[0] - wanted[0]) < error * 10
    for a, b in zip(got[1], wanted[1], strict=True):
        assert (a - b).abs().max() <= error * max(1.0, float(b.abs().max()))


def test_norm_has_the_right_gradient():
    g = torch.Generator().manual_seed(0)
    x, weight = (
        torch.randn(5, 8, generator=g, dtype=torch.float64),
        torch.randn(8, generator=g, dtype=torch.float64),
    )
    x[0] = 0.0  # only eps is left below the line
    x.requires_grad_(), weight.requires_grad_()
    assert torch.allclose(
        cpu.Normalise.apply(x, weight, 1e-3), F.rms_norm(x, (8,), weight, 1e-3), atol=1e-12
    )
    assert torch.autograd.gradcheck(
        lambda x, weight: cpu.Normalise.apply(x, weight, 1e-3), (x, weight)
    )


PARTS = {
    "norms on a CPU": cpu.install,
    "norms on a GPU": head.install_norms,
    "attention": lambda model: setattr(model, "attention", packed.causal_attention),
    "shared prompts": lambda model: setattr(
        model, "shared_prompt_hidden", types.MethodType(packed.shared_prompt_hidden, model)
    ),
    "head": lambda model: head.install(model, fp32_head=False, compile=False),
    "all together": fast.install,
}


@pytest.mark.parametrize("share", SHARED, ids=str)
@pytest.mark.parametrize("part", PARTS)
def test_a_part_equals_the_plain_program(part, share):
    """In fp32: the loss, and the gradient as one vector, to 1e-6 of their size. (The toy model's larger gain of queries and keys
    would enlarge what any rounding does to 1.5e-6.)"""
    for heads in (4, 2, 1):
        plain, model = (
            tiny(n_kv_heads=heads, qk_norm_gain=1.0),
            tiny(n_kv_heads=heads, qk_norm_gain=1.0),
        )
        PARTS[part](model)
        loss, gradients = loss_and_gradients(plain, share=SHARED[share])
        its_loss, its_gradients = loss_and_gradients(model, share=SHARED[share])
        wanted, got = (
            torch.cat([g.flatten() for g in grads]).double() for grads in (gradients, its_gradients)
        )
        assert abs(its_loss / loss - 1) < 1e-6 and (got - wanted).norm() < 1e-6 * wanted.norm()


def test_shared_prompts_are_computed_once(monkeypatch):
    model, seen = quick(tiny()), []
    trunk = model.trunk
    monkeypatch.setattr(
        model, "trunk", lambda tokens, *more: (seen.append(len(tokens)), trunk(tokens, *more))[1]
    )
    responses = [[7, 8], [9], [10, 11, 12], [13]]
    hidden = response_hidden(model, [PROMPTS[i] for i in (0, 0, 1, 2)], responses)
    # equal prompts, but nobody says that they are one
    response_hidden(model, [list(PROMPTS[i]) for i in (0, 0, 1, 2)], responses)
    assert seen == [7 + 12 + 1 + 7, 7 + 7 + 12 + 1 + 7] and len(hidden) == 7


def test_recomputed_blocks_change_no_bit():
    plain, again = quick(tiny()), quick(tiny(), checkpoint_activations=True)
    kept = []
    for model in (plain, again):
        bytes_ = 0

        def count(x):
            nonlocal bytes_
            bytes_ += x.nbytes
            return x

        with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
            wanted = loss_and_gradients(model)
        kept.append(bytes_)
        if model is plain:
            first = wanted
    assert first[0] == wanted[0] and all(map(torch.equal, first[1], wanted[1]))
    assert kept[1] < 0.3 * kept[0]


@pytest.mark.parametrize("heads", [4, 2, 1])
@pytest.mark.parametrize(
    "lengths, share",
    [([70] * 3, None), ([130, 64, 65, 1], None), ([90, 128, 1, 64], [0, 1, 1, 2]), ([1], None)],
)
def test_attention_in_products_equals_torchs(monkeypatch, lengths, share, heads):
    model, calls = quick(tiny(n_kv_heads=heads)), []
    monkeypatch.setattr(
        cpu.InProducts,
        "apply",
        lambda *args, apply=cpu.InProducts.apply: (calls.append(1), apply(*args))[1],
    )
    got = loss_and_gradients(model, lengths, share)
    assert calls
    calls.clear()
    monkeypatch.setattr(cpu, "SHORT", 0)
    assert_near(got, loss_and_gradients(model, lengths, share))
    assert not calls


def test_attention_in_products_has_the_right_gradient():
    g = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(2, n, heads, 3, generator=g, dtype=torch.float64, requires_grad=True)
        for n, heads in ((66, 4), (70, 2), (70, 2))
    )
    mask = torch.full((2, 1, 66, 70), float("-inf"), dtype=torch.float64).triu_(
        4
    )  # the last query sees 70 keys, the first five
    mask[1, 0, :, 1] = float("-inf")
    wide = [x.repeat_interleave(2, 2) for x in (k, v)]
    wanted = F.scaled_dot_product_attention(
        *(x.transpose(1, 2) for x in (q, *wide)), attn_mask=mask
    ).transpose(1, 2)
    weight = torch.randn(wanted.shape, generator=g, dtype=torch.float64)
    got = cpu.InProducts.apply(q, k, v, mask, 4)
    assert torch.allclose(got, wanted, atol=1e-12)
    for a, b in zip(*(torch.autograd.grad(out, (q, k, v), weight) for out in (got, wanted))):
        assert torch.allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=needs_compiler)])
def test_products_for_equal_rows_equal_the_others(compile):
    """oneDNN's, in training only; without them the model is as before, to the bit."""
    if compile:
        torch._dynamo.reset()
    plain = tiny(n_kv_heads=2, qk_norm_gain=1.0)
    model = quick(tiny(n_kv_heads=2, qk_norm_gain=1.0), compile=compile)
    model.expect_equal_rows()
    for lengths in ([24] * 4, [33] * 2):
        loss_and_gradients(model, lengths)  # compiles
        with torch.profiler.profile() as seen:
            got = loss_and_gradients(model, lengths)
        assert_near(got, loss_and_gradients(plain, lengths))
        # an x86 build: 7 products a block, once forward and once for the gradient of the input
        if torch.backends.mkl.is_available():
            called = sum(e.name == "excursions::times_transposed" for e in seen.events())
            assert called == 2 * 7 * 2
    with torch.no_grad(), torch.profiler.profile() as seen:
        model.hidden(torch.arange(33), [33])
    assert not any(e.name == "excursions::times_transposed" for e in seen.events())
    model.expect_equal_rows(False)
    if not compile:
        as_before = quick(tiny(n_kv_heads=2, qk_norm_gain=1.0))
        got, wanted = loss_and_gradients(model, [5, 6]), loss_and_gradients(as_before, [5, 6])
        assert all(map(torch.equal, got[1], wanted[1]))


@needs_compiler
def test_compiled_regions_equal_plain_ones_for_any_number_of_tokens():
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    plain, compiled = tiny(), quick(tiny(), compile=True)
    for i, lengths in enumerate(([9, 4], LENGTHS, [40, 2, 3], [23] * 4)):
        assert_near(loss_and_gradients(compiled, lengths), loss_and_gradients(plain, lengths))
        if i == 0:
            graphs = counters["stats"]["unique_graphs"]
    assert (
        3 <= graphs == counters["stats"]["unique_graphs"] <= 6
    )  # one for all blocks and sizes: two regions and the head's two
    with torch.no_grad():
        assert torch.allclose(
            compiled(torch.tensor([[1, 2, 3]])), plain(torch.tensor([[1, 2, 3]])), atol=1e-5
        )


@needs_compiler
def test_a_compiled_model_samples_the_same_tokens():
    """The sampler's passes, of any width, and the trainer's share the code of a region: no recompilation is refused, which would
    leave eager code without a word. In bf16 the sampler's copy is compiled too."""
    plain, compiled = tiny().requires_grad_(False), quick(tiny(), compile=True)
    prompts = [[1, 2, 3], [4, 5], [6, 7, 8, 9, 10]]
    want = sample(plain, prompts, 4, 12, eos=0)
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        loss_and_gradients(compiled)
        for slots in (1, 3, 16):
            assert [
                [r.tokens for r in group]
                for group in sample(compiled, prompts, 4, 12, eos=0, slots=slots)
            ] == [[r.tokens for r in group] for group in want]
        sampler = FastSampler(compiled, 16, bf16=True, paged=True)
        groups = sampler.sample(prompts, 4, 12, eos=0)
        loss_and_gradients(compiled, bf16=True)
    assert sampler.model is not compiled and sampler.model.compiled
    packed = [pack([p] * 4, [r.tokens for r in group]) for p, group in zip(prompts, groups)]
    trainers = torch.cat([response_logprobs(plain, p)[0] for p in packed])
    assert (
        trainers - torch.tensor(sum([r.logprobs for group in groups for r in group], []))
    ).abs().mean() < 0.02


def attend_in_loops(q, k, v, ends_q, ends_k, longest_q, longest_k, window_size):
    """What varlen_attn does: sequence by sequence, the last query sees all keys, the one before it one less."""
    assert window_size == (-1, 0) and q.shape[1] == k.shape[1] == v.shape[1]
    assert (
        longest_q == ends_q.diff().max()
        and longest_k == ends_k.diff().max()
        and ends_q.dtype == ends_k.dtype == torch.int32
    )
    out = []
    for a, b, c, d in zip(ends_q, ends_q[1:], ends_k, ends_k[1:]):
        scores = torch.einsum("qhd,khd->hqk", q[a:b], k[c:d]) * q.shape[2] ** -0.5
        hidden = torch.arange(d - c)[None] > torch.arange(b - a)[:, None] + (d - c) - (b - a)
        out.append(
            torch.einsum(
                "hqk,khd->qhd", scores.masked_fill(hidden, float("-inf")).softmax(-1), v[c:d]
            )
        )
    return torch.cat(out)


@pytest.mark.parametrize("heads", [4, 2])
@pytest.mark.parametrize("share", SHARED, ids=str)
def test_packed_attention_is_asked_for_the_same(monkeypatch, share, heads):
    """The GPU's way through causal_attention, with loops in place of the kernel."""
    model, asked = quick(tiny(n_kv_heads=heads)), []
    wanted = loss_and_gradients(model, share=SHARED[share])
    monkeypatch.setattr(packed, "takes_packed", lambda q: True)

    def attend(*args, **how):
        asked.append(1)
        return attend_in_loops(*args, **how)

    monkeypatch.setattr(packed, "flash_attention", lambda: attend)
    assert_near(loss_and_gradients(model, share=SHARED[share]), wanted)
    assert asked


@pytest.mark.parametrize("program", ["plain", "fast"])
def test_logits_have_a_derivative_under_autocast(program):
    """Transformer.forward in bf16, as a caller of one's own may train: near the gradient in fp32. tests/test_gpu.py does so on a GPU."""
    model = tiny() if program == "plain" else quick(tiny())
    tokens = torch.arange(12).view(2, 6)
    weights = torch.randn(2, 6, 50, generator=torch.Generator().manual_seed(0))
    gradients = []
    for bf16 in (True, False):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(tokens)
        assert logits.dtype == torch.float32
        (logits * weights).sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for a, b in zip(*gradients):
        assert F.cosine_similarity(a.flatten(), b.flatten(), 0) > 0.99
        assert a.norm() == pytest.approx(float(b.norm()), rel=0.05)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_gradient_of_a_shared_prompt_is_summed_in_fp32(device):
    """A large part and 255 that bf16, with its 8 bits, does not see beside it: they are half of the sum."""
    parts = torch.full((256, 1, 8), 2.0**-8, dtype=torch.bfloat16, device=device)
    parts[0] = 1.0
    index = torch.tensor([2] * 256, device=device)
    wanted = torch.zeros(4, 1, 8)
    wanted[2] = 1 + 255 / 256
    for dtype, error in ((torch.bfloat16, 2**-8), (torch.float32, 1e-6)):
        x = torch.randn(4, 1, 8).to(device, dtype).requires_grad_()
        out = packed.rows_of(x, index)
        assert torch.equal(out, x[index])
        out.backward(parts.to(dtype))
        assert x.grad.dtype == dtype and (x.grad.cpu().float() - wanted).abs().max() <= error


def test_the_head_follows_autocast_unless_it_is_to_stay_fp32():
    model, g = quick(tiny()), torch.Generator().manual_seed(0)
    hidden, targets = (
        torch.randn(20, 32, generator=g, requires_grad=True),
        torch.randint(0, 50, (20,), generator=g),
    )
    weight = model.lm_head.weight

    def run(autocast):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logp = model.logprobs(hidden, targets)[0]
            assert torch.allclose(
                model.logits(hidden).log_softmax(-1).gather(-1, targets[:, None])[:, 0],
                logp,
                atol=1e-5,
            )
        return logp.detach(), *torch.autograd.grad(logp.sum(), [hidden, weight])

    exact = run(False)
    rounded_hidden, rounded_weight = (
        x.detach().bfloat16().float().requires_grad_() for x in (hidden, weight)
    )
    logp = (
        (rounded_hidden @ rounded_weight[:50].T).log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    )
    rounded = logp.detach(), *torch.autograd.grad(logp.sum(), [rounded_hidden, rounded_weight])
    got = run(True)
    assert torch.allclose(got[0], rounded[0], atol=1e-6) and not torch.allclose(
        got[0], exact[0], atol=1e-4
    )
    for a, b in zip(
        got[1:], rounded[1:]
    ):  # the gradient of the logits is rounded to bf16 as well: 8 bits
        assert (a - b).abs().max() < 2**-7 * b.abs().max()
    quick(model, fp32_head=True)
    assert all(map(torch.equal, run(True), exact))


MEASURE = """
import resource, sys
import torch
import fast
import model as M
n, vocab = int(sys.argv[1]), int(sys.argv[2])
m = M.Transformer(M.ModelConfig(vocab_size=vocab, padded_vocab_size=vocab, d_model=16, n_layers=1, n_heads=2, n_kv_heads=2, d_ff=16))
if sys.argv[3] == "fast":
    fast.install(m)
hidden, targets = torch.randn(n, 16, requires_grad=True), torch.arange(n) % vocab
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
m.logprobs(hidden, targets)[0].sum().backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.parametrize("program", ["fast", "plain"])
def test_the_heads_memory_does_not_grow_with_tokens_times_vocabulary(program):
    """16 times the tokens; all their logits would be 1.6 GB in fp32, here a chunk of 256 is 10 MB."""

    def peak(n):
        run = subprocess.run(
            [sys.executable, "-c", MEASURE, str(n), "10000", program],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        return int(run.stdout)

    small, large = peak(2_560), peak(40_960)
    if program == "fast":
        assert large < 150e6 and large - small < 60e6
    else:  # its chunk is 1,024 tokens, 41 MB
        assert large < 500e6 and large - small < 150e6


@pytest.mark.parametrize(
    "chunk, compile", [(None, False), (3, False), pytest.param(8, True, marks=needs_compiler)]
)
def test_padding_rows_are_multiplied_and_not_read(monkeypatch, chunk, compile):
    """As on a GPU, for the sake of aligned rows: whatever stands there, values and gradients are the plain program's, and theirs
    is 0. 50 ids, 64 rows."""
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(20, 32, generator=g, requires_grad=True)
    targets = torch.randint(0, 50, (20,), generator=g)
    monkeypatch.setattr(head, "rows_to_multiply", lambda model: model.lm_head.weight)
    results = []
    for model in (tiny(), quick(tiny(), compile=compile)):
        with torch.no_grad():
            model.lm_head.weight[50:] = 1e6
        logits = model.logits(hidden)
        assert logits.shape == (20, 50) and model.logits(hidden, padding=True).shape == (20, 64)
        logp, lse, entropy = model.logprobs(hidden, targets, 0.9, chunk or 1024)
        loss = (logp * torch.arange(20)).sum() + lse.square().sum() + logits.square().sum()
        of_hidden, of_weight = torch.autograd.grad(loss, [hidden, model.lm_head.weight])
        assert not of_weight[50:].any()
        results.append([logits, logp, lse, entropy, of_hidden, of_weight])
    for a, b in zip(*results):
        assert (a - b).abs().max() <= 2e-6 * max(1.0, float(a.detach().abs().max()))


def rows_of_16_bytes(*matrices):
    return all(max(x.stride()) * x.element_size() % 16 == 0 for x in matrices)


@pytest.mark.gpu
@pytest.mark.parametrize("bf16", [False, True])
def test_a_gpu_multiplies_aligned_rows(monkeypatch, bf16):
    """Of factors and result, forward, backward and in the sampler: 50 ids alone would have rows of 100 or 200 bytes."""
    product, addmm, seen = head.product, torch.addmm, []

    def checked(a, b):
        out = product(a, b)
        assert a.dtype == (torch.bfloat16 if bf16 else torch.float32)
        assert rows_of_16_bytes(a, b, out), (a.stride(), b.stride(), out.stride())
        seen.append("product")
        return out

    def checked_sum(total, a, b, **how):
        assert rows_of_16_bytes(total, a, b)
        seen.append("sum")
        return addmm(total, a, b, **how)

    monkeypatch.setattr(head, "product", checked)
    monkeypatch.setattr(sampling, "product", checked)
    monkeypatch.setattr(torch, "addmm", checked_sum)
    model = quick(tiny().cuda())
    loss_and_gradients(model, bf16=bf16)
    assert seen == ["product"] * 3 + ["sum" if bf16 else "product"]
    with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
        assert model.logits(torch.ones(3, 32, device="cuda")).shape == (3, 50)
    FastSampler(model, 4, bf16=bf16).sample([[1, 2, 3]], 2, 5)
    assert len(seen) > 5


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_heads_chunks_equal_the_plain_forms(temperature):
    """Log-prob, logsumexp, entropy and both gradients, whatever the chunk."""
    g = torch.Generator().manual_seed(0)
    hidden, targets = (
        torch.randn(20, 32, generator=g, requires_grad=True),
        torch.randint(0, 50, (20,), generator=g),
    )
    results = []
    for model, chunk in ((tiny(), 1024), (tiny(), 3), (quick(tiny()), 1024), (quick(tiny()), 3)):
        values = model.logprobs(hidden, targets, temperature, chunk)
        weighed = (values[0] * torch.arange(20)).sum() + values[1].square().sum()
        results.append([*values, *torch.autograd.grad(weighed, [hidden, model.lm_head.weight])])
        assert not values[2].requires_grad
    for other in results[1:]:
        for a, b in zip(results[0], other):
            assert (a - b).abs().max() <= 2e-6 * max(1.0, float(a.detach().abs().max()))


def test_compile_says_what_it_needs(monkeypatch):
    """On a CPU a C++ compiler; on a GPU Triton, and what Triton compiles its launchers with."""
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setattr(compilers.shutil, "which", lambda name: None)
        with pytest.raises(UserError, match=r"--compile needs a C\+\+ compiler .*--no-compile"):
            prepare.check_compiler()
    for name in ("CC", "CPATH", "C_INCLUDE_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    there = {"triton": True, "gcc": True, "Python.h": True}
    monkeypatch.setattr(compilers.importlib.util, "find_spec", lambda name: there[name] or None)
    monkeypatch.setattr(compilers.shutil, "which", lambda name: there.get(name) or None)
    monkeypatch.setattr(compilers.os.path, "exists", lambda name: there["Python.h"])
    prepare.check_compiler()
    wanted = {
        "triton": "triton",
        "gcc": r"a C compiler \(gcc or clang\)",
        "Python.h": r"Python\.h in ",
    }
    for lost, said in wanted.items():
        monkeypatch.setitem(there, lost, False)
        with pytest.raises(UserError, match=f"--compile needs {said}.*--no-compile"):
            prepare.check_compiler()
        monkeypatch.setitem(there, lost, True)
    monkeypatch.setenv("CC", "my-compiler")  # then Triton asks for no other
    with pytest.raises(UserError, match=r"a C compiler \(my-compiler\)"):
        prepare.check_compiler()


@pytest.mark.gpu
@pytest.mark.parametrize("share", SHARED, ids=str)
def test_a_gpu_in_bf16_is_near_fp32(share):
    """Packed attention, fused norms and the bf16 head, plain and compiled, against fp32 on the CPU: as near as bf16 allows."""
    share = SHARED[share]
    model = tiny()
    wanted = loss_and_gradients(model, LENGTHS, share)
    quick(model.cuda())
    assert_near(
        [
            x.cpu() if torch.is_tensor(x) else [y.cpu() for y in x]
            for x in loss_and_gradients(model, LENGTHS, share)
        ],
        wanted,
        1e-4,
    )  # TF32 is off
    for compile in (False, True):
        if compile:
            quick(model, compile=True)
        loss, gradients = loss_and_gradients(model, LENGTHS, share, bf16=True)
        assert abs(loss.cpu() - wanted[0]) < 0.02
        for a, b in zip(gradients, wanted[1]):
            assert F.cosine_similarity(a.cpu().flatten(), b.flatten(), 0) > 0.99
