"""What is written for speed or memory equals the plain form: RMSNorm's backward pass, compiled regions, recomputed blocks,
packed attention, the head in bf16 and in chunks."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, tiny

import attention as A
import common
import model as M
from sampler import Sampler, sample

LENGTHS = [7, 12, 1, 12, 5]
needs_compiler = pytest.mark.skipif(not (shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")), reason="needs a C++ compiler")


def loss_and_gradients(model, lengths=LENGTHS, continues=None, bf16=False):
    g = torch.Generator().manual_seed(len(lengths))
    tokens, targets = torch.randint(0, 50, (2, sum(lengths)), generator=g).to(model.lm_head.weight.device)
    model.zero_grad()
    with torch.autocast(tokens.device.type, torch.bfloat16, enabled=bf16):
        logp, lse, _ = model.logprobs(model.hidden(tokens, lengths, continues), targets, 0.9)
    loss = -logp.mean() + 1e-2 * lse.square().mean()
    loss.backward()
    return loss.detach(), [p.grad.clone() for p in model.parameters()]


def assert_near(got, wanted, error=1e-6):
    assert abs(got[0] - wanted[0]) < error * 10
    for a, b in zip(got[1], wanted[1], strict=True):
        assert (a - b).abs().max() <= error * max(1.0, float(b.abs().max()))


def test_norm_has_the_right_gradient():
    g = torch.Generator().manual_seed(0)
    x, weight = torch.randn(5, 8, generator=g, dtype=torch.float64), torch.randn(8, generator=g, dtype=torch.float64)
    x[0] = 0.0  # only eps is left below the line
    x.requires_grad_(), weight.requires_grad_()
    assert torch.allclose(M.Normalise.apply(x, weight, 1e-3), F.rms_norm(x, (8,), weight, 1e-3), atol=1e-12)
    assert torch.autograd.gradcheck(lambda x, weight: M.Normalise.apply(x, weight, 1e-3), (x, weight))


def test_recomputed_blocks_change_no_bit():
    plain, again = tiny(), tiny()
    for block in again.layers:
        block.recompute = True
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
@pytest.mark.parametrize("lengths, continues", [([70] * 3, None), ([130, 64, 65, 1], None), ([5, 90, 30, 128, 1, 64], [0, 1, 1]), ([1], None)])
def test_attention_in_products_equals_torchs(monkeypatch, lengths, continues, heads):
    model, calls = tiny(n_kv_heads=heads), []
    monkeypatch.setattr(A.InProducts, "apply", lambda *args, apply=A.InProducts.apply: (calls.append(1), apply(*args))[1])
    got = loss_and_gradients(model, lengths, continues)
    assert calls
    calls.clear()
    monkeypatch.setattr(A, "SHORT", 0)
    assert_near(got, loss_and_gradients(model, lengths, continues))
    assert not calls


def test_attention_in_products_has_the_right_gradient():
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, n, heads, 3, generator=g, dtype=torch.float64, requires_grad=True) for n, heads in ((66, 4), (70, 2), (70, 2)))
    mask = torch.full((2, 1, 66, 70), float("-inf"), dtype=torch.float64).triu_(4)  # the last query sees 70 keys, the first five
    mask[1, 0, :, 1] = float("-inf")
    wide = [x.repeat_interleave(2, 2) for x in (k, v)]
    wanted = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, *wide)), attn_mask=mask).transpose(1, 2)
    weight = torch.randn(wanted.shape, generator=g, dtype=torch.float64)
    got = A.InProducts.apply(q, k, v, mask, 4)
    assert torch.allclose(got, wanted, atol=1e-12)
    for a, b in zip(*(torch.autograd.grad(out, (q, k, v), weight) for out in (got, wanted))):
        assert torch.allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=needs_compiler)])
def test_products_for_equal_rows_equal_the_others(compile):
    plain, model = tiny(n_kv_heads=2), tiny(n_kv_heads=2)
    model.expect_equal_rows()
    if compile:
        torch._dynamo.reset()
        model.fuse()
    for lengths in ([24] * 4, [33] * 2):
        loss_and_gradients(model, lengths)  # compiles
        with torch.profiler.profile() as seen:
            got = loss_and_gradients(model, lengths)
        assert_near(got, loss_and_gradients(plain, lengths))
        if torch.backends.mkl.is_available():  # an x86 build: 7 products a block, once forward and once for the input's gradient
            assert sum(e.name == "excursions::times_transposed" for e in seen.events()) == 2 * 7 * 2
    model.expect_equal_rows(False)
    if not compile:
        for a, b in zip(loss_and_gradients(model, [5, 6])[1], loss_and_gradients(plain, [5, 6])[1]):
            assert torch.equal(a, b)


@needs_compiler
def test_compiled_regions_equal_plain_ones_for_any_number_of_tokens():
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    plain, compiled = tiny(), tiny()
    compiled.fuse()
    for i, lengths in enumerate(([9, 4], LENGTHS, [40, 2, 3], [23] * 4)):
        assert_near(loss_and_gradients(compiled, lengths), loss_and_gradients(plain, lengths))
        if i == 0:
            graphs = counters["stats"]["unique_graphs"]
    assert 3 <= graphs == counters["stats"]["unique_graphs"] <= 6  # one for all blocks and sizes: two regions and the head's two
    with torch.no_grad():
        assert torch.allclose(compiled(torch.tensor([[1, 2, 3]])), plain(torch.tensor([[1, 2, 3]])), atol=1e-5)


@needs_compiler
def test_a_compiled_model_samples_the_same_tokens():
    """The sampler's passes, of any width, and the trainer's share the code of a region: no recompilation is refused, which would
    leave eager code without a word. In bf16 the sampler's copy is compiled too."""
    plain, compiled = tiny().requires_grad_(False), tiny()
    compiled.fuse()
    prompts = [[1, 2, 3], [4, 5], [6, 7, 8, 9, 10]]
    want = sample(plain, prompts, 4, 12, eos=0)
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        loss_and_gradients(compiled)
        for slots in (1, 3, 16):
            assert [[r.tokens for r in group] for group in sample(compiled, prompts, 4, 12, eos=0, slots=slots)] == [[r.tokens for r in group] for group in want]
        sampler = Sampler(compiled, 16, bf16=True, paged=True)
        groups = sampler.sample(prompts, 4, 12, eos=0)
        loss_and_gradients(compiled, bf16=True)
    assert sampler.model is not compiled and sampler.model.compiled
    packed = [common.pack([p] * 4, [r.tokens for r in group]) for p, group in zip(prompts, groups)]
    trainers = torch.cat([common.response_logprobs(plain, p)[0] for p in packed])
    assert (trainers - torch.tensor(sum([r.logprobs for group in groups for r in group], []))).abs().mean() < 0.02


def attend_in_loops(q, k, v, ends_q, ends_k, longest_q, longest_k, window_size):
    """What varlen_attn does: sequence by sequence, the last query sees all keys, the one before it one less."""
    assert window_size == (-1, 0) and q.shape[1] == k.shape[1] == v.shape[1]
    assert longest_q == ends_q.diff().max() and longest_k == ends_k.diff().max() and ends_q.dtype == ends_k.dtype == torch.int32
    out = []
    for a, b, c, d in zip(ends_q, ends_q[1:], ends_k, ends_k[1:]):
        scores = torch.einsum("qhd,khd->hqk", q[a:b], k[c:d]) * q.shape[2] ** -0.5
        hidden = torch.arange(d - c)[None] > torch.arange(b - a)[:, None] + (d - c) - (b - a)
        out.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, float("-inf")).softmax(-1), v[c:d]))
    return torch.cat(out)


@pytest.mark.parametrize("heads", [4, 2])
@pytest.mark.parametrize("continues", [None, [0, 1, 0], [1]])
def test_packed_attention_is_asked_for_the_same(monkeypatch, continues, heads):
    """The GPU's way through causal_attention, with loops in place of the kernel."""
    model, asked = tiny(n_kv_heads=heads), []
    wanted = loss_and_gradients(model, LENGTHS, continues)
    monkeypatch.setattr(A, "takes_packed", lambda q: True)
    monkeypatch.setattr(A, "varlen_attn", lambda *args, **how: (asked.append(1), attend_in_loops(*args, **how))[1])
    assert_near(loss_and_gradients(model, LENGTHS, continues), wanted)
    assert asked


def test_the_head_follows_autocast_unless_it_is_to_stay_fp32():
    model, g = tiny(), torch.Generator().manual_seed(0)
    hidden, targets = torch.randn(20, 32, generator=g, requires_grad=True), torch.randint(0, 50, (20,), generator=g)
    weight = model.lm_head.weight

    def run(autocast):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logp = model.logprobs(hidden, targets)[0]
            assert torch.allclose(model.logits(hidden).log_softmax(-1).gather(-1, targets[:, None])[:, 0], logp, atol=1e-5)
        return logp.detach(), *torch.autograd.grad(logp.sum(), [hidden, weight])

    exact = run(False)
    rounded_hidden, rounded_weight = (x.detach().bfloat16().float().requires_grad_() for x in (hidden, weight))
    logp = (rounded_hidden @ rounded_weight[:50].T).log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    rounded = logp.detach(), *torch.autograd.grad(logp.sum(), [rounded_hidden, rounded_weight])
    got = run(True)
    assert torch.allclose(got[0], rounded[0], atol=1e-6) and not torch.allclose(got[0], exact[0], atol=1e-4)
    for a, b in zip(got[1:], rounded[1:]):  # the gradient of the logits is rounded to bf16 as well: 8 bits
        assert (a - b).abs().max() < 2**-7 * b.abs().max()
    model.fp32_head = True
    assert all(map(torch.equal, run(True), exact))


MEASURE = """
import resource, sys
import torch
import model as M
n, vocab = int(sys.argv[1]), int(sys.argv[2])
m = M.Transformer(M.ModelConfig(vocab_size=vocab, padded_vocab_size=vocab, d_model=16, n_layers=1, n_heads=2, n_kv_heads=2, d_ff=16))
hidden, targets = torch.randn(n, 16, requires_grad=True), torch.arange(n) % vocab
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
m.logprobs(hidden, targets)[0].sum().backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_the_heads_memory_does_not_grow_with_tokens_times_vocabulary():
    """16 times the tokens; all their logits would be 1.6 GB in fp32, here a chunk of 256 is 10 MB."""

    def peak(n):
        run = subprocess.run([sys.executable, "-c", MEASURE, str(n), "10000"], cwd=ROOT, capture_output=True, text=True, check=True)
        return int(run.stdout)

    small, large = peak(2_560), peak(40_960)
    assert large < 150e6 and large - small < 60e6


def test_compile_says_what_it_needs(monkeypatch):
    monkeypatch.setattr(common.shutil, "which", lambda name: None)
    if not torch.cuda.is_available():
        with pytest.raises(common.UserError, match=r"--compile needs a C\+\+ compiler .*--no-compile"):
            common.check_compiler()


@pytest.mark.gpu
@pytest.mark.parametrize("continues", [None, [0, 1, 0]])
def test_a_gpu_in_bf16_is_near_fp32(continues):
    """Packed attention, fused norms and the bf16 head, plain and compiled, against fp32 on the CPU: as near as bf16 allows."""
    model = tiny()
    wanted = loss_and_gradients(model, LENGTHS, continues)
    model.cuda()
    assert_near([x.cpu() if torch.is_tensor(x) else [y.cpu() for y in x] for x in loss_and_gradients(model, LENGTHS, continues)], wanted, 1e-4)  # TF32 is off
    for compile in (False, True):
        if compile:
            model.fuse()
        loss, gradients = loss_and_gradients(model, LENGTHS, continues, bf16=True)
        assert abs(loss.cpu() - wanted[0]) < 0.02
        for a, b in zip(gradients, wanted[1]):
            assert F.cosine_similarity(a.cpu().flatten(), b.flatten(), 0) > 0.99
