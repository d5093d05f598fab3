"""What only a GPU runs, against the CPU: tokens in fp32, losses and gradients within bf16, every stage, the benchmark.

All of it is marked gpu, and runs on a real GPU and on a pretended one (tests/test_pretend_gpu.py)."""

import importlib
from argparse import Namespace

import pytest
import torch
import torch.nn.functional as F
from conftest import quick, tiny
from test_recipes import write_problems
from test_sampler import EOS, prompts, tokens_of

import fast.paged
import fast.sampling
import grpo
from data.tokenizer import get_tokenizer
from fast.sampling import FastSampler
from plumbing import ranks
from plumbing.batches import pack, response_logprobs
from plumbing.checkpoint import save_checkpoint
from plumbing.files import read_rows
from plumbing.flags import parse_flags
from plumbing.optimizer import adamw, clipped_step
from sampler import Rollout, sample
from tools import measure, nano_vllm, peer
from tools.bench_sample import bench_sample, peers_here, roofline_seconds
from tools.bench_train import bench_step

pytestmark = pytest.mark.gpu
HOWS = [(1.0, 1.0), (0.6, 0.95), (0.0, 1.0)]  # temperature and top_p


def on_cpu(work):
    """work() as on a machine without a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        return work()


# ---------------------------------------------------------------------------------- sampling


def assert_same_rollouts(got, wanted, error=1e-5):
    assert tokens_of(got) == tokens_of(wanted)
    for a, b in zip(sum(got, []), sum(wanted, [])):
        assert a.finished is b.finished
        assert torch.allclose(torch.tensor(a.logprobs), torch.tensor(b.logprobs), atol=error)


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_pages_and_graphs_give_the_cpus_tokens(kv_heads):
    """One sampler draws in three ways, with so few pages that rollouts are sent back."""
    model = tiny(n_kv_heads=kv_heads).requires_grad_(False)
    asked = prompts(7, 30)
    wanted = [sample(model, asked, 3, 20, *how, eos=EOS, seed=3) for how in HOWS]
    sampler = FastSampler(quick(model.cuda()), 8, bf16=False, pages=12)
    assert sampler.use_graphs and sampler.interval == 8
    for how, groups in zip(HOWS, wanted):
        assert_same_rollouts(sampler.sample(asked, 3, 20, *how, eos=EOS, seed=3), groups)
    assert {key[1:3] for key in sampler.graphs} == set(HOWS)


def test_the_plain_sampler_and_the_dense_cache_give_them_too():
    model = tiny().requires_grad_(False)
    wanted = sample(model, prompts(5, 20), 2, 9, eos=EOS)
    model.cuda()
    assert_same_rollouts(sample(model, prompts(5, 20), 2, 9, eos=EOS), wanted)
    dense = FastSampler(quick(model), 8, bf16=False, paged=False)
    assert_same_rollouts(dense.sample(prompts(5, 20), 2, 9, eos=EOS), wanted)


def test_without_a_compiler_sampling_is_slow_and_says_so(monkeypatch, capsys):
    for module in (fast.paged, fast.sampling):
        monkeypatch.setattr(module, "triton_lacks", lambda: "a C compiler (gcc or clang)")
    model = tiny().requires_grad_(False)
    wanted = sample(model, prompts(3), 2, 9, eos=EOS)
    sampler = FastSampler(quick(model.cuda()), 8, bf16=False)
    assert_same_rollouts(sampler.sample(prompts(3), 2, 9, eos=EOS), wanted)
    assert not sampler.graphs and "needs a C compiler (gcc or clang)" in capsys.readouterr().out


@pytest.mark.parametrize("fp32_head", [False, True])
def test_bf16_copies_are_near_the_trainer(fp32_head):
    """The sampler's copy of the weights, in pages and graphs, against the trainer under autocast."""
    model = quick(tiny().requires_grad_(False).cuda(), fp32_head=fp32_head)
    groups = FastSampler(model, 8).sample(prompts(5), 2, 12, eos=EOS)
    apart = []
    for prompt, group in zip(prompts(5), groups):
        packed = pack([prompt] * 2, [r.tokens for r in group])
        logp = response_logprobs(model, packed)[0]
        assert packed.targets.is_cuda and logp.dtype == torch.float32
        apart.append((logp.cpu() - torch.tensor(sum([r.logprobs for r in group], []))).abs())
    assert torch.cat(apart).mean() < 0.02


# ---------------------------------------------------------------------------------- training


def made_groups():
    """Groups of ragged rollouts with any advantages."""
    g = torch.Generator().manual_seed(0)

    def draw(n):
        return torch.randint(0, 50, (n,), generator=g).tolist()

    rollouts = [[Rollout(draw(n), [-3.0] * n, True) for n in (1, 6, 12, 3)] for _ in range(3)]
    groups = grpo.Groups([None] * 3, [draw(n) for n in (5, 1, 9)], rollouts, [0, 1, 2])
    groups.advantages = torch.randn(3, 4, generator=g)
    return groups


def update(checkpoint_activations=False, kv_heads=4):
    """GRPO's gradient with shared prompts and a reference, and one AdamW step, on device()."""
    flags = dict(ckpt="", prompts=3, n=4, mini_batches=1, micro_tokens=60, kl=0.1, lr=1e-3)
    config = grpo.Config(**flags)
    model = tiny(n_kv_heads=kv_heads).to(ranks.device())
    quick(model, checkpoint_activations=checkpoint_activations)
    # Near the model: where k3 passes 10 it is cut, and its gradient jumps. On an H100 one token on
    # the other side of that moved the whole gradient by 17 %, where bf16 moves it by 2 %.
    reference = quick(tiny(n_kv_heads=kv_heads).requires_grad_(False).to(ranks.device()))
    for p in reference.parameters():
        p.mul_(0.9)
    optimizer = adamw(model, 1e-3, (0.9, 0.95), 0.1)
    sums, _ = grpo.policy_backward(model, reference, made_groups(), [0, 1, 2], config)
    gradients = [p.grad.cpu().clone() for p in model.parameters()]
    norm = clipped_step(model, optimizer, 1.0)
    return sums, gradients, norm, [p.detach().cpu() for p in model.parameters()]


@pytest.mark.parametrize("checkpoint_activations, kv_heads", [(False, 4), (True, 4), (False, 2)])
def test_an_update_is_the_cpus_within_bf16(checkpoint_activations, kv_heads):
    """Packed attention, the head's bf16 factors in chunks, the fused norm, AdamW."""
    sums, gradients, norm, weights = update(checkpoint_activations, kv_heads)
    wanted, its_gradients, its_norm, its_weights = on_cpu(lambda: update(kv_heads=kv_heads))
    for name in ("loss_sum", "entropy_sum", "kl_sum"):
        assert sums[name] == pytest.approx(wanted[name], rel=0.03, abs=0.02), name
    assert norm == pytest.approx(its_norm, rel=0.02)
    for a, b in zip(gradients, its_gradients):
        assert F.cosine_similarity(a.flatten(), b.flatten(), 0) > 0.99
    for a, b in zip(weights, its_weights):  # Adam's first step is at most 1e-3 for any weight
        assert (a - b).abs().max() < 2.1e-3 and (a - b).abs().mean() < 2e-4


@pytest.mark.parametrize("padding", [False, True])
def test_logits_have_a_derivative_under_autocast(padding):
    """The head's product in bf16 with fp32 sums is a kernel for which torch has none."""

    def run(device, **autocast):
        model = quick(tiny().to(device))
        g = torch.Generator().manual_seed(0)
        weights = torch.randn(10, 64 if padding else 50, generator=g).to(device)
        with torch.autocast(device, torch.bfloat16, **autocast):
            hidden = model.hidden(torch.arange(10, device=device), [7, 3])
            logits = model.logits(hidden, padding)
        assert logits.dtype == torch.float32
        (logits * weights).sum().backward()
        return logits.detach().cpu(), [p.grad.cpu() for p in model.parameters()]

    logits, gradients = run("cuda")
    wanted, its_gradients = run("cpu", enabled=False)
    assert (logits - wanted).abs().max() < 0.05 * wanted.abs().max()
    for a, b in zip(gradients, its_gradients):
        assert F.cosine_similarity(a.flatten(), b.flatten(), 0) > 0.99
        assert a.norm() == pytest.approx(float(b.norm()), rel=0.05)


# ---------------------------------------------------------------------------------- commands

RL = "--steps 2 --prompts 2 --n 3 --max_prompt 40 --max_response 6 --mini_batches 2 --kl 0.001"
FLAGS = {
    "pretrain": "--tokens 2K --keep 2K --warmup 400",
    "sft": "--steps 2 --batch 4",
    "grpo": f"{RL} --recompute_old --val_every 2 --val 2",
    "parallel": f"{RL} --sft_batch 4",
    "evaluate": "--n 2 --k 1,2 --max_response 6 --split train",
}


def run_stage(stage, folder, *flags):
    """In this process, a few steps on a tiny checkpoint -> the rows of its log."""
    facts = dict(
        id="x", base_id="x", recipe="base", tokens=4000, preset="toy", seed=0, code="", config={}
    )
    facts |= dict(tokenizer="toy", corpus="toy")
    argv = [*FLAGS[stage].split(), *flags]
    if stage != "pretrain":
        save_checkpoint(str(folder / "4K.pt"), tiny(get_tokenizer("toy").n_vocab), facts)
        data = "--task" if stage == "evaluate" else "--data"
        argv += ["--ckpt", str(folder / "4K.pt"), data, write_problems(folder / "five.jsonl", 8)]
    out = {"evaluate": "rows.jsonl", "pretrain": "out"}.get(stage, "out.pt")
    argv += ["--out", str(folder / out)]
    module = importlib.import_module(stage)
    settings = getattr(module, "SETTINGS", {})
    module.main(
        parse_flags(
            module.Config, module.PRESETS, settings, argv, getattr(module, "AFTER_SFT", None)
        )
    )
    log = {"evaluate": "rows.jsonl", "pretrain": "out/pretrain.log.jsonl"}.get(
        stage, "out.log.jsonl"
    )
    return read_rows(str(folder / log))


@pytest.mark.parametrize("stage", ["grpo", "parallel", "evaluate"])
def test_stages_that_sample_run(stage, tmp_path):
    assert run_stage(stage, tmp_path)


@pytest.mark.parametrize("stage", ["grpo", "evaluate"])
def test_the_plain_program_runs(stage, tmp_path):
    assert run_stage(stage, tmp_path, "--plain")


@pytest.mark.parametrize("stage", ["pretrain", "sft"])
def test_stages_that_do_not_have_the_cpus_losses(stage, tmp_path):
    logs = []
    for name, run in (("cpu", on_cpu), ("gpu", lambda work: work())):
        (tmp_path / name).mkdir()
        logs.append(run(lambda: run_stage(stage, tmp_path / name)))
    assert len(logs[0]) == len(logs[1]) > 0
    for mine, wanted in zip(*logs):
        assert mine["loss"] == pytest.approx(wanted["loss"], rel=0.01)
        assert mine["grad_norm"] == pytest.approx(wanted["grad_norm"], rel=0.05)


def test_a_process_says_that_it_has_a_gpu(capsys, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    ranks.start_processes()
    assert "1 process(es) on cuda, bf16 autocast over fp32 weights" in capsys.readouterr().out
    assert ranks.peak_memory() >= 0


class SmallTorch:
    """torch, for measurements whose tensors are to be small."""

    def __getattr__(self, name):
        return getattr(torch, name)

    def empty(self, numbers, **how):
        return torch.empty(min(numbers, 2**16), **how)

    def randn(self, rows, columns, **how):
        return torch.randn(min(rows, 64), min(columns, 64), **how)


def test_the_benchmark_counts_the_bytes_that_the_sampler_reads(monkeypatch, capsys):
    """Its copy has two bytes for a weight of a matrix, and so have keys and values."""
    monkeypatch.setattr(measure, "torch", SmallTorch())
    args = Namespace(
        seed=0, preset="bench", prompts=2, prompt_tokens=4, n=2, new=6, mean=0, slots=[4]
    )
    vars(args).update(
        compile=False, plain=False, peer=False, repeats=1, work="same", progress=False
    )
    asked = []

    def noted(model, *load):
        asked.append((model, load[-1]))
        return roofline_seconds(model, *load)

    monkeypatch.setattr("tools.bench_sample.roofline_seconds", noted)
    (row,) = bench_sample(args)
    assert row["roofline"] > 0 and row["peak_bytes"] >= 0
    ((model, bandwidth),) = asked
    shape = model.config
    matrices = (
        sum(p.numel() for p in model.parameters() if p.ndim == 2)
        - model.embed_tokens.weight.numel()
    )
    gains = sum(p.numel() for p in model.parameters() if p.ndim == 1)
    numbers = 2 * shape.n_layers * shape.n_kv_heads * shape.head_dim  # of a token in the cache
    tokens = 4 * sum(range(5, 11))  # that four rollouts of six tokens read, and their own
    least = (6 * (2 * matrices + 4 * gains) + 2 * numbers * tokens) / bandwidth
    assert row["roofline"] * row["seconds"] == pytest.approx(least)
    vars(args).update(batch=2, seq_len=8, micro_tokens=64)
    assert len(bench_step(args)) == 4 and measure.matmul_rate() > 0


def test_the_benchmark_has_more_peers_there(monkeypatch):
    for module in (nano_vllm, peer):
        monkeypatch.setattr(module, "what_is_missing", lambda: "")
    args = Namespace(peer=True, peers=["generate", "generate_batch", "nano-vllm"])
    assert peers_here(args) == args.peers and on_cpu(lambda: peers_here(args)) == ["generate"]
