"""tools/bench.py: its work is what it says, its roofline is what one can add up by hand, its command prints the table."""

import argparse

import pytest
from conftest import run

import model as M
from plumbing.files import read_rows
from study.costs import parameters
from tools import bench_train
from tools.bench_sample import load, roofline_seconds
from tools.bench_train import KEPT

BENCH = "-m tools.bench"


def test_the_load_is_keyed_and_the_mix_is_short():
    args = argparse.Namespace(seed=0, prompts=64, prompt_tokens=5, n=16, new=60, mean=0)
    prompts, same = load(args, False, 50)
    assert [len(p) for p in prompts] == [5] * 64 and same == [60] * 1024
    assert load(args, False, 50) == (prompts, same)
    lengths = load(args, True, 50)[1]
    assert min(lengths) >= 1 and max(lengths) == 60
    assert 15 < sum(lengths) / len(lengths) < 25  # a third of the maximum
    args.mean = 4
    lengths = load(args, True, 50)[1]
    assert 4 < sum(lengths) / len(lengths) < 5 and load(args, False, 50)[1] == same


def test_the_roofline_by_hand():
    config = M.ModelConfig(
        vocab_size=8, padded_vocab_size=8, d_model=4, n_layers=1, n_heads=2, n_kv_heads=1, d_ff=8
    )
    model = M.Transformer(config)
    # bytes, without the embedding
    weights = 4 * (sum(p.numel() for p in model.parameters()) - 8 * 4)
    # two rollouts of 2 and 1 tokens after a prompt of 3, both in a slot: 2 steps; tokens read 4 + 5
    # and 4, of 2 x 2 floats each
    assert roofline_seconds(model, [[1, 2, 3]], 2, [2, 1], 2, 1.0) == pytest.approx(
        2 * weights + (4 + 5 + 4) * 2 * 2 * 4
    )
    assert roofline_seconds(model, [[1, 2, 3]], 2, [2, 1], 1, 1.0) == pytest.approx(
        3 * weights + 13 * 16
    )
    # the sampler's copy on a GPU is half as large, and so are its keys and values
    half = roofline_seconds(model.bfloat16(), [[1, 2, 3]], 2, [2, 1], 1, 1.0)
    assert half == pytest.approx((3 * weights + 13 * 16) / 2)


def test_the_flops_by_hand():
    """6 per multiplying weight and token, and 12 per layer, width and pair of tokens."""
    shape = M.PRESETS["1B"]
    work = bench_train.Work([[0] * 5, [0] * 3], backward=None, shared=2)
    assert work.tokens() == 8
    multiplying = parameters(shape)["matmul"]
    expected = 6 * multiplying * 6 + 12 * shape.n_layers * shape.d_model * (25 + 9)
    assert work.flops(shape, computed=6) == pytest.approx(expected)


def test_every_program_gets_the_same_work():
    args = argparse.Namespace(
        **dict(seed=0, preset="bench", prompts=3, prompt_tokens=5, n=2, new=6),
        **dict(batch=2, seq_len=16, micro_tokens=64),
    )
    one, again = bench_train.training_work(args), bench_train.training_work(args)
    assert list(one) == ["pretrain", "sft", "rl update"]
    assert all(one[step].sequences == again[step].sequences for step in one)
    assert [work.shared for work in one.values()] == [0, 0, 3 * 1 * 5]
    assert one["pretrain"].tokens() == 32 and len(one["rl update"].sequences) == 6


def test_the_command_prints_a_row_for_each_run(tmp_path):
    sizes = "--prompts 3 --n 2 --new 4 --slots 2,6 --repeats 1 --out".split()
    said = run(BENCH, "sample", *sizes, tmp_path / "rows.jsonl")
    rows = read_rows(str(tmp_path / "rows.jsonl"))
    assert [(r["work"], r["program"]) for r in rows] == [
        (w, f"ours, {s} slots") for w in ("same", "mix") for s in (2, 6)
    ]
    table = said.partition('\n{"what": ')[0]
    assert rows[0]["tokens"] == 24 and table.count("ours, ") == 4
    assert all(r["tokens_per_s"] > 0 and 0 < r["roofline"] < 2 for r in rows)
    assert "--preset" in run(BENCH, "sample", "--preset", "2B", ok=False)


@pytest.mark.parametrize(
    "flag, value",
    [("--prompts", "0"), ("--slots", "4,0"), ("--mean", "-5"), ("--peer_prompts", "-1")],
)
def test_impossible_sizes_end_in_one_line(flag, value):
    said = run(BENCH, "sample", flag, value, ok=False).strip().splitlines()
    assert said[-1].startswith(f"bench.py: {flag}: ")


def test_the_peer_may_have_a_part_of_the_work():
    pytest.importorskip("transformers")
    sizes = "--prompts 3 --n 2 --new 4 --slots 6 --repeats 1 --work mix --peer --peer_prompts 2"
    said = run(BENCH, "sample", *sizes.split(), *"--batches 3 --mean 2".split())
    ours, theirs = (
        next(line.split() for line in said.splitlines() if name in line and line.startswith("mix "))
        for name in ("ours", "generate")
    )
    assert int(ours[4]) > int(theirs[4]) >= 4 and "same" not in said
    assert "x transformers' generate" in said


SMALL = "--prompts 4 --n 3 --new 6 --prompt_tokens 5 --batch 2 --seq_len 16 --repeats 1".split()
STEPS = ["pretrain", "sft", "rl update"]
PHASES = ["refresh", "sample", "old log-probs", "update"]


@pytest.mark.parametrize("what, rows", [("train", STEPS), ("step", PHASES)])
def test_training_and_a_whole_step_print_their_rows(what, rows, tmp_path):
    said = run(BENCH, what, *SMALL, "--out", tmp_path / "rows.jsonl")
    written = read_rows(str(tmp_path / "rows.jsonl"))
    assert [r.get("step") or r["phase"] for r in written] == rows
    assert all(r["tokens"] > 0 and r["seconds"] > 0 for r in written)
    assert all(f"{row} " in said for row in rows)


def test_the_plain_program_has_rows_of_its_own(tmp_path):
    out = tmp_path / "rows.jsonl"
    said = run(BENCH, "sample", *"--prompts 2 --n 2 --new 4 --slots 4 --repeats 1".split(),
               "--work", "same", "--plain", "--out", out)  # fmt: skip
    assert [r["program"] for r in read_rows(str(out))] == ["ours, 4 slots", "ours, plain, 4 slots"]
    assert "x the plain program, each at its best size" in said
    said = run(BENCH, "train", *SMALL, "--plain", "--out", out)
    rows = read_rows(str(out))[2:]
    assert [(r["step"], r["program"]) for r in rows] == [
        (step, name) for step in STEPS for name in ("ours", "ours, plain")
    ]
    quick, plain = rows[4:]  # of the RL update: without fast/ each rollout has its own prompt
    assert quick["tokens"] == plain["tokens"]
    assert quick["mfu"] * quick["seconds"] < plain["mfu"] * plain["seconds"]
    run(BENCH, "step", *SMALL, "--plain")


def test_training_beside_transformers():
    """Each program in a process of its own; on a CPU transformers a second time, with freed memory kept."""
    pytest.importorskip("transformers")
    sizes = "--prompts 3 --n 2 --new 6 --prompt_tokens 5 --batch 2 --seq_len 16 --repeats 1 --peer"
    said = run(BENCH, "train", *sizes.split())
    for step in STEPS:
        for peer in ("transformers", KEPT):
            assert f"\n{step:<10} {peer:<32} " in said and f"x as fast as {peer}\n" in said
