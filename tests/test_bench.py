"""bench.py: its work is what it says, its roofline is what one can add up by hand, its command prints the table."""

import argparse

import pytest
from conftest import run

import bench
import common
import model as M


def test_the_load_is_keyed_and_the_mix_is_short():
    args = argparse.Namespace(seed=0, prompts=64, prompt_tokens=5, n=16, new=60, mean=0)
    prompts, same = bench.load(args, False, 50)
    assert [len(p) for p in prompts] == [5] * 64 and same == [60] * 1024 and bench.load(args, False, 50) == (prompts, same)
    lengths = bench.load(args, True, 50)[1]
    assert min(lengths) >= 1 and max(lengths) == 60 and 15 < sum(lengths) / len(lengths) < 25  # a third of the maximum
    args.mean = 4
    lengths = bench.load(args, True, 50)[1]
    assert 4 < sum(lengths) / len(lengths) < 5 and bench.load(args, False, 50)[1] == same


def test_the_roofline_by_hand():
    config = M.ModelConfig(vocab_size=8, padded_vocab_size=8, d_model=4, n_layers=1, n_heads=2, n_kv_heads=1, d_ff=8)
    model = M.Transformer(config)
    weights = 4 * (sum(p.numel() for p in model.parameters()) - 8 * 4)  # bytes, without the embedding
    # two rollouts of 2 and 1 tokens after a prompt of 3, both in a slot: 2 steps; tokens read 4 + 5 and 4, of 2 x 2 floats each
    assert bench.roofline_seconds(model, [[1, 2, 3]], 2, [2, 1], 2, 1.0) == pytest.approx(2 * weights + (4 + 5 + 4) * 2 * 2 * 4)
    assert bench.roofline_seconds(model, [[1, 2, 3]], 2, [2, 1], 1, 1.0) == pytest.approx(3 * weights + 13 * 16)


def test_the_command_prints_a_row_for_each_run(tmp_path):
    said = run("bench.py", "sample", "--prompts", "3", "--n", "2", "--new", "4", "--slots", "2,6", "--repeats", "1", "--out", tmp_path / "rows.jsonl")
    rows = common.read_rows(str(tmp_path / "rows.jsonl"))
    assert [(r["work"], r["program"]) for r in rows] == [(w, f"ours, {s} slots") for w in ("same", "mix") for s in (2, 6)]
    assert rows[0]["tokens"] == 24 and all(r["tokens_per_s"] > 0 and 0 < r["roofline"] < 2 for r in rows) and said.count("ours, ") == 4
    assert "--preset" in run("bench.py", "sample", "--preset", "2B", ok=False)


@pytest.mark.parametrize("flag, value", [("--prompts", "0"), ("--slots", "4,0"), ("--mean", "-5"), ("--peer_prompts", "-1")])
def test_impossible_sizes_end_in_one_line(flag, value):
    assert run("bench.py", "sample", flag, value, ok=False).strip().splitlines()[-1].startswith(f"bench.py: {flag}: ")


def test_the_peer_may_have_a_part_of_the_work():
    pytest.importorskip("transformers")
    said = run("bench.py", "sample", *"--prompts 3 --n 2 --new 4 --slots 6 --repeats 1 --work mix --peer --peer_prompts 2 --batches 3 --mean 2".split())
    ours, theirs = (next(line.split() for line in said.splitlines() if name in line and line.startswith("mix ")) for name in ("ours", "generate"))
    assert int(ours[4]) > int(theirs[4]) >= 4 and "same" not in said and "x transformers' generate" in said


@pytest.mark.parametrize("what, rows", [("train", ["pretrain", "sft", "rl update"]), ("step", ["refresh", "sample", "old log-probs", "update"])])
def test_training_and_a_whole_step_print_their_rows(what, rows, tmp_path):
    sizes = ["--prompts", "4", "--n", "3", "--new", "6", "--prompt_tokens", "5", "--batch", "2", "--seq_len", "16", "--repeats", "1"]
    said = run("bench.py", what, *sizes, "--out", tmp_path / "rows.jsonl")
    written = common.read_rows(str(tmp_path / "rows.jsonl"))
    assert [r.get("step") or r["phase"] for r in written] == rows and all(r["tokens"] > 0 and r["seconds"] > 0 for r in written)
    assert all(f"{row} " in said for row in rows)


def test_training_beside_transformers():
    """Each program in a process of its own; on a CPU transformers a second time, with freed memory kept."""
    pytest.importorskip("transformers")
    said = run("bench.py", "train", *"--prompts 3 --n 2 --new 6 --prompt_tokens 5 --batch 2 --seq_len 16 --repeats 1 --peer".split())
    for step in ("pretrain", "sft", "rl update"):
        for peer in ("transformers", f"transformers, {bench.KEPT}"):
            assert f"\n{step:<10} {peer:<32} " in said and f"x as fast as {peer}\n" in said
