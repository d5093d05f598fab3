"""The scripts as a user runs them: every stage, kills and restarts, two ranks against one, real data, wrong input."""

import os
import shutil
import signal
import subprocess
import time

import pytest
import torch
from conftest import ROOT, command, run

from plumbing.checkpoint import read_facts, read_file
from plumbing.files import read_rows

GSM8K = os.path.join(ROOT, "..", "shared", "data")
PRETRAIN = [
    "--tokens",
    "400K",
    "--keep",
    "200K,400K",
    "--warmup",
    "40K",
]  # enough to write boxes, not to add
SHORT = ["--tokens", "60K", "--keep", "30K,60K", "--warmup", "6K", "--save_every", "4"]
SFT = ["--steps", "20", "--batch", "8", "--save_every", "2"]
RL = [
    "--steps",
    "4",
    "--prompts",
    "6",
    "--samples",
    "8",
    "--max_response",
    "44",
    "--save_every",
    "1",
    "--normalize",
    "std",
    "--format_score",
    "0.1",
]
PARALLEL = [*RL, "--sft_batch", "8"]


def weights(path):
    return read_file(str(path))["model"]


def same_bits(a, b):
    a, b = weights(a), weights(b)
    return all(torch.equal(a[name], b[name]) for name in a)


def distance(a, b):
    a, b = weights(a), weights(b)
    return max((a[name] - b[name]).abs().max().item() for name in a)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with two checkpoints of a short pre-training run, and post-trained ones beside them."""
    folder = tmp_path_factory.mktemp("out") / "toy"
    run("pretrain.py", "--out", folder, *PRETRAIN)
    run("sft.py", "--ckpt", folder / "400K.pt", *SFT)
    run("sft.py", "--ckpt", folder / "400K.pt", *SFT, "--solutions", "all")
    run("grpo.py", "--ckpt", folder / "400K.pt", *RL)
    run("grpo.py", "--ckpt", folder / "400K.sft.pt", *RL)
    run("parallel.py", "--ckpt", folder / "400K.pt", *PARALLEL)
    return folder


def test_checkpoints_stand_beside_their_parent_and_tell_their_lineage(base):
    names = {
        "400K.sft": "sft",
        "400K.sft-gold": "sft-gold",
        "400K.rl": "rl",
        "400K.sft.rl": "sft.rl",
        "400K.parallel": "parallel",
    }
    start = read_facts(str(base / "400K.pt"))
    assert (
        start["tokens"] == 401280 and read_facts(str(base / "200K.pt"))["tokens"] == 201600
    )  # whole steps of 1,920 tokens
    for name, recipe in names.items():
        facts = read_facts(str(base / f"{name}.pt"))
        assert (facts["recipe"], facts["base_id"], facts["tokens"]) == (
            recipe,
            start["id"],
            start["tokens"],
        )
        assert distance(base / f"{name}.pt", base / "400K.pt") > 1e-5
    head = weights(base / "400K.pt")["lm_head.weight"]
    assert (
        head[600:] == head[599]
    ).all()  # padding rows are as unlikely as <|pad|> for programs that count them
    assert not list(base.glob("*.resume")) and not list(base.glob("*.tmp"))
    assert '"recipe": "sft.rl"' in run("model.py", base / "400K.sft.rl.pt")


def test_a_finished_run_does_nothing(base):
    before = (base / "400K.rl.pt").stat().st_mtime_ns
    assert "is finished; nothing to do" in run("grpo.py", "--ckpt", base / "400K.pt", *RL)
    assert "is finished; nothing to do" in run("pretrain.py", "--out", base, *PRETRAIN)
    assert (base / "400K.rl.pt").stat().st_mtime_ns == before
    assert "lr was 0.00025 and is now 0.1" in run(
        "grpo.py", "--ckpt", base / "400K.pt", *RL, "--lr", "0.1", ok=False
    )


def test_log_has_one_line_per_step_with_the_rollouts_own_numbers(base):
    rows = read_rows(str(base / "400K.rl.log.jsonl"))
    assert [r["step"] for r in rows] == [1, 2, 3, 4]
    for r in rows:
        assert (
            r["accuracy"] <= r["reward"] <= r["format"] <= 1
            and 0 <= r["truncated"] <= 1
            and r["length"] <= 44
        )
        assert r["mismatch"] < 1e-5 and r["tokens"] == pytest.approx(r["length"] * 48)
        assert r["kl"] == 0 and (abs(r["ratio"] - 1) < 0.2 or r["mixed"] == 0)
    assert any(r["mixed"] > 0 and r["grad_norm"] > 0 for r in rows)


def kill_and_finish(folder, script, *args, kills=2, tries=5):
    """Start the command, kill it after a save, twice; then let it finish. `folder` is its own.

    Where the machine stalls so long that it ends before it is killed, everything is thrown away and tried again.
    """
    for _ in range(tries):
        if all(killed_after_a_save(folder, script, *args) for _ in range(kills)):
            assert "going on from step" in run(script, *args)
            return
        shutil.rmtree(folder)
        folder.mkdir()
    pytest.fail(f"{script} always ended before it could be killed")


def saved_at(folder) -> int:
    """When the run in this folder last saved, 0 if it has not."""
    try:
        return max(
            (path.stat().st_mtime_ns for path in folder.glob("*.resume/state.pt")), default=0
        )
    except FileNotFoundError:  # dropped just now, at the end
        return 0


def killed_after_a_save(folder, script, *args) -> bool:
    with open(folder / "killed.txt", "w") as log:
        process = subprocess.Popen(
            command(script, *args), cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
        )
    before = saved_at(folder)
    while process.poll() is None:
        if saved_at(folder) > before:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    code = process.wait()
    assert code in (0, -signal.SIGKILL), (folder / "killed.txt").read_text()[-2000:]
    return code != 0


@pytest.mark.parametrize(
    "script, flags, name",
    [("sft.py", SFT, "sft"), ("grpo.py", RL, "rl"), ("parallel.py", PARALLEL, "parallel")],
)
def test_killed_and_run_again_ends_with_the_same_bits(base, tmp_path, script, flags, name):
    straight, out = base / f"400K.{name}.pt", tmp_path / "again.pt"
    kill_and_finish(tmp_path, script, "--ckpt", base / "400K.pt", "--out", out, *flags)
    assert same_bits(straight, out)
    strip = lambda rows: [
        {k: v for k, v in r.items() if not k.startswith(("seconds", "speed", "memory"))}
        for r in rows
    ]
    logs = [strip(read_rows(str(p).replace(".pt", ".log.jsonl"))) for p in (straight, out)]
    assert logs[0] == logs[1]


def test_pretraining_killed_or_on_two_ranks(tmp_path):
    one, killed, two = (tmp_path / name for name in ("one", "killed", "two"))
    run("pretrain.py", "--out", one, *SHORT)
    killed.mkdir()
    kill_and_finish(killed, "pretrain.py", "--out", killed, *SHORT)
    assert same_bits(one / "30K.pt", killed / "30K.pt") and same_bits(
        one / "60K.pt", killed / "60K.pt"
    )
    run("pretrain.py", "--out", two, *SHORT, ranks=2)
    assert distance(one / "60K.pt", two / "60K.pt") < 1e-3  # at a rate of 1e-2; 32 steps


def test_another_seed_gives_another_model(base, tmp_path):
    run("sft.py", "--ckpt", base / "400K.pt", "--out", tmp_path / "s.pt", *SFT, "--seed", "1")
    assert not same_bits(base / "400K.sft.pt", tmp_path / "s.pt")


@pytest.mark.parametrize(
    "script, flags, name",
    [("sft.py", SFT, "sft"), ("grpo.py", RL, "rl"), ("parallel.py", PARALLEL, "parallel")],
)
def test_two_ranks_give_the_result_of_one(base, tmp_path, script, flags, name):
    out = tmp_path / "two.pt"
    run(script, "--ckpt", base / "400K.pt", "--out", out, *flags, ranks=2)
    # where a gradient is no larger than rounding, Adam's first steps still move by up to the rate (5e-4, 1e-3)
    assert distance(base / f"400K.{name}.pt", out) < 1e-4
    if name != "sft":
        one, two = (
            read_rows(str(p).replace(".pt", ".log.jsonl")) for p in (base / f"400K.{name}.pt", out)
        )
        for key in (
            "tokens",
            "reward",
            "accuracy",
            "format",
            "pass@n",
            "mixed",
            "truncated",
        ):  # of every step's rollouts
            assert [r[key] for r in one] == [r[key] for r in two]


def test_a_rank_without_a_prompt_does_not_hang(base, tmp_path):
    run(
        "grpo.py",
        "--ckpt",
        base / "400K.pt",
        "--out",
        tmp_path / "a.pt",
        *RL,
        "--steps",
        "1",
        "--prompts",
        "1",
        "--mini_batches",
        "1",
        ranks=2,
    )
    assert read_rows(str(tmp_path / "a.log.jsonl"))[0]["tokens"] > 0


def test_two_ranks_evaluate_as_one(base, tmp_path):
    flags = [
        "--ckpt",
        base / "400K.sft.pt",
        "--problems",
        "7",
        "--samples",
        "4",
        "--k",
        "1,4",
        "--max_response",
        "12",
    ]
    run("evaluate.py", *flags, "--out", tmp_path / "one.jsonl")
    run("evaluate.py", *flags, "--out", tmp_path / "two.jsonl", ranks=2)
    for one, two in zip(
        read_rows(str(tmp_path / "one.jsonl")), read_rows(str(tmp_path / "two.jsonl")), strict=True
    ):
        for key in one.keys() - {"seconds", "heldout_loss"}:
            assert one[key] == two[key], key
        assert one.get("heldout_loss", 0) == pytest.approx(two.get("heldout_loss", 0), abs=1e-5)


@pytest.mark.skipif(
    not os.path.exists(os.path.join(GSM8K, "gsm8k_train.jsonl")),
    reason="GSM8K's files are not at ../shared/data",
)
def test_gsm8k_files_run_through_every_stage(base, tmp_path):
    train, test = os.path.join(GSM8K, "gsm8k_train.jsonl"), os.path.join(GSM8K, "gsm8k_test.jsonl")
    sizes = [
        "--ckpt",
        base / "400K.pt",
        "--data",
        train,
        "--steps",
        "3",
        "--max_prompt",
        "300",
        "--log_every",
        "1",
    ]
    rl = ["--prompts", "4", "--n", "4", "--max_response", "16", "--mini_batches", "2"]
    said = run(
        "sft.py", *sizes, "--batch", "4", "--max_response", "200", "--out", tmp_path / "sft.pt"
    )
    assert (
        "7,473 problems" in said
        and "prompt tokens left out" in said
        and "solutions cut at 200 tokens" in said
    )
    run("grpo.py", *sizes, *rl, "--out", tmp_path / "rl.pt")
    run("parallel.py", *sizes, *rl, "--sft_batch", "4", "--out", tmp_path / "parallel.pt")
    run(
        "evaluate.py",
        "--ckpt",
        tmp_path / "rl.pt",
        "--task",
        test,
        "--problems",
        "50",
        "--n",
        "2",
        "--k",
        "1,2",
        "--max_response",
        "16",
    )
    (row,) = read_rows(str(tmp_path / "results.jsonl"))
    assert len(row["problems"]) == 50 and all(n == 2 for _, _, n, _, _ in row["problems"])


def one_line(said, *parts):
    lines = [
        line for line in said.splitlines() if line and not line.startswith(("  ", "1 process"))
    ]
    assert (
        len(lines) == 1 and all(part in lines[0] for part in parts) and "Traceback" not in said
    ), said


def test_wrong_input_is_one_clear_line(base, tmp_path):
    ckpt, empty, broken, wordless = (
        base / "400K.pt",
        tmp_path / "empty.jsonl",
        tmp_path / "broken.pt",
        tmp_path / "wordless.jsonl",
    )
    empty.write_text("")
    wordless.write_text('{"question": "1 + 1 ?", "answer": "2"}\n')
    broken.write_bytes(ckpt.read_bytes()[:5000])
    one_line(
        run("grpo.py", "--ckpt", ckpt, "--out", tmp_path / "no.pt", "--rollouts", "3", ok=False),
        "unknown flag --rollouts",
    )
    one_line(run("grpo.py", "--ckpt", tmp_path / "4B.pt", ok=False), "4B.pt is missing")
    one_line(
        run("grpo.py", "--ckpt", base / "6K.pt", ok=False), "6K.pt is missing", "there are 200K.pt"
    )
    one_line(run("grpo.py", "--ckpt", broken, ok=False), "broken.pt is damaged")
    one_line(
        run("grpo.py", "--ckpt", ckpt, "--out", tmp_path / "no.pt", "--data", empty, ok=False),
        "empty.jsonl is empty",
    )
    one_line(
        run("sft.py", "--ckpt", ckpt, "--out", tmp_path / "no.pt", "--data", wordless, ok=False),
        "no worked solutions",
    )
    one_line(
        run("grpo.py", "--ckpt", ckpt, "--out", tmp_path / "no.pt", "--n", "1", ok=False),
        "--n 1: a group needs at least 2",
    )
    one_line(
        run(
            "grpo.py",
            "--ckpt",
            ckpt,
            "--out",
            tmp_path / "no.pt",
            "--max_response",
            "4000",
            ok=False,
        ),
        "the model's limit is 2048",
    )
    one_line(
        run("parallel.py", "--ckpt", ckpt, "--out", tmp_path / "no.pt", "--weight", "2", ok=False),
        "--weight 2.0 must lie between 0",
    )
    one_line(
        run(
            "parallel.py", "--ckpt", ckpt, "--out", tmp_path / "no.pt", "--sft_loss", "x", ok=False
        ),
        "--sft_loss x: choose mean or sum",
    )
    one_line(
        run("sft.py", "--ckpt", ckpt, "--out", tmp_path / "no.pt", "--schedule", "x", ok=False),
        "schedule x: choose",
    )
    one_line(run("evaluate.py", "--ckpt", ckpt, "--top_p", "0", ok=False), "--top_p 0.0")
    one_line(
        run("evaluate.py", "--ckpt", ckpt, "--problems", "-1", ok=False),
        "--problems -1 must be 0 or more",
    )
    one_line(
        run("evaluate.py", "--ckpt", ckpt, "--task", "gsm9k", ok=False),
        "unknown task 'gsm9k'",
        "hellaswag",
    )
    one_line(
        run("pretrain.py", "--out", tmp_path, "--keep", "4B", ok=False),
        "--keep 4B must lie within --tokens",
    )
    one_line(
        run("pretrain.py", "--out", tmp_path, "--data", tmp_path / "no.txt", ok=False),
        "no.txt is missing",
    )
    assert not list(tmp_path.glob("*.resume")) and not list(tmp_path.glob("*.tmp"))
