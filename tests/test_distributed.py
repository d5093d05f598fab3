"""Several ranks against one: every stage under torchrun, two agents as two nodes, kills, SIGTERM, other numbers of ranks, timeouts.

Adam divides a gradient by its own size, so where a gradient is nothing but rounding the order of a sum decides the sign of a
step as large as the rate, and two ranks add in another order than one. The comparisons therefore run at the paper's rates
(1e-5 in RL, between its 1e-6 and the 4e-5 of RL after SFT; 4e-5 in SFT; in pre-training the first steps of a warm-up to
4e-4), not at the toy preset's, which are 25 times as large and more. A weight then moves by up to 2e-4 to 8e-4 in 20 steps.
"""

# ruff: noqa: F811  (a fixture of another file is imported, and its name is then an argument)

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT, run, tiny
from test_recipes import base, log, same_bits, weights  # noqa: F401  base is a fixture

import evaluate
import grpo
import parallel
import pretrain
import sft
from data import UserError
from plumbing import ranks, sharding, watchdog
from plumbing.flags import parse_flags

MODULES = dict(pretrain=pretrain, sft=sft, grpo=grpo, parallel=parallel, evaluate=evaluate)
RL = "--prompts 6 --n 4 --max_prompt 40 --max_response 8 --log_every 100 --lr 1e-5 --mini_batches 2 --save_rollouts --kl 0.001 --recompute_old"
# 7 rows per step do not divide by 2 or 4; two rows per pass: ranks have unequal numbers of passes, and with 4 ranks some
# have one prompt and some two
EVALUATE = "--split train --n 4 --k 1,4 --max_response 8"
PRETRAIN = f"--batch 7 --seq_len 40 --lr 4e-4 --warmup {7 * 40 * 477} --micro_tokens 80"

DRIVER = """
import io, json, os, signal, sys
sys.path[:0] = [{root!r}, {root!r} + "/tests"]
import torch
import test_distributed
from plumbing import ranks
commands, die, tear = json.loads(sys.argv[1])
start = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
save = torch.save
def die_in_phase(text):
    if text == die and ranks.rank() == 1 and start == 0:
        os.kill(os.getpid(), signal.SIGKILL)
def torn(content, f, **how):
    to_disk = hasattr(f, "name")  # collectives have tensors pickled in memory
    tear[start][0] -= to_disk
    if tear[start][0] or not to_disk:
        return save(content, f, **how)
    save(content, whole := io.BytesIO())
    f.write(whole.getbuffer()[: whole.tell() // 2])
    f.flush()
    print("torn:", os.path.basename(f.name), flush=True)
    for pid in pids[:1] if tear[start][1] == "rank 0" else pids[::-1]:
        os.kill(pid, signal.SIGKILL)
test_distributed.at_each_phase(die_in_phase)
sys.argv = ["driver.py"]
ranks.start_processes()
pids = ranks.gather_objects(os.getpid())
if start < len(tear):
    torch.save = torn
for name, argv in commands:
    test_distributed.one(name, argv)
"""


def at_each_phase(act, put=setattr):
    """From now on `act` is called with the text of each phase that begins, wherever `phase` was imported."""
    note = watchdog.phase

    def phase(text):
        note(text)
        act(text)

    for module in list(sys.modules.values()):
        if getattr(module, "__dict__", {}).get("phase") is note:
            put(module, "phase", phase)


def one(name, argv):
    if name == "collectives":
        return collectives()
    module = MODULES[name]
    argv = [a for a in argv if a]
    module.main(
        parse_flags(
            module.Config,
            module.PRESETS,
            getattr(module, "SETTINGS", {}),
            argv,
            getattr(module, "AFTER_SFT", None),
        )
    )


def collectives():
    """What ranks tell each other, and a plain copy of a sharded model. Runs on every rank."""
    rank, world = ranks.rank(), ranks.world()
    everyone = list(range(world))
    assert (ranks.all_sum(rank), ranks.all_max(rank), ranks.all_min(rank)) == (
        sum(everyone),
        world - 1,
        0,
    )
    assert ranks.all_sums({"a": rank, "b": 1}) == {"a": sum(everyone), "b": world}
    assert ranks.all_maxima({"a": rank, "b": -rank}) == {"a": world - 1, "b": 0}
    assert ranks.gather_objects([rank]) == [[r] for r in everyone]
    assert ranks.merge_dicts({rank: "x" * rank}) == {r: "x" * r for r in everyone}
    assert ranks.exchange([(rank, to) for to in everyone]) == [(r, rank) for r in everyone]
    assert ranks.pad_to_longest_rank([7] * rank) == [7] * rank + [None] * (world - 1 - rank)

    plain, model = tiny(), sharding.shard(tiny())
    copy = sharding.whole_copy(model)
    assert sharding.is_sharded(model) and not sharding.is_sharded(copy)
    assert not any(p.requires_grad for p in copy.parameters())
    tokens = torch.arange(12).view(2, 6)
    assert torch.equal(copy(tokens), plain(tokens))
    with torch.no_grad():
        for p in (*plain.parameters(), *sharding.own_weights(model).values()):
            p.mul_(1.5)
    assert not torch.equal(copy(tokens), plain(tokens))  # it has weights of its own
    storage = [p.data_ptr() for p in copy.parameters()]
    sharding.refresh(copy, model)
    assert torch.equal(copy(tokens), plain(tokens)) and storage == [
        p.data_ptr() for p in copy.parameters()
    ]


def torchrun(folder, commands, *how, die="", tear=(), ok=True, agents=1):
    """These commands, one after another, in the processes of one torchrun (starting processes takes most of the time).

    die: the phase in which rank 1 is killed. tear: for each start (the files that are written, who is killed within the last one).
    """
    driver = folder / "driver.py"
    driver.write_text(DRIVER.format(root=ROOT))
    line = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        *how,
        str(driver),
        json.dumps([commands, die, tear]),
    ]
    start = lambda: subprocess.Popen(
        line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    running = [start() for _ in range(agents)]
    try:
        said = [p.communicate(timeout=240)[0] for p in running]
    finally:
        for p in running:
            p.kill()
    assert all((p.returncode == 0) == ok for p in running), said[0][-6000:]
    return "".join(said)


def stages(folder, ckpt, data, steps):
    """Every stage, into `folder`."""
    n_tokens = str(7 * 40 * steps)
    of = lambda name, more: [
        name,
        ["--ckpt", str(ckpt), "--data", data, "--out", f"{folder}/{name}.pt", *more.split()],
    ]
    return [
        [
            "pretrain",
            [
                "--out",
                f"{folder}/pretrain",
                "--tokens",
                n_tokens,
                "--keep",
                n_tokens,
                *PRETRAIN.split(),
            ],
        ],
        of(
            "sft",
            f"--steps {steps} --batch 7 --max_prompt 40 --max_response 8 --lr 4e-5 --schedule constant --micro_tokens 60",
        ),
        of("grpo", f"--steps {steps} --micro_tokens 60 {RL}"),
        of("parallel", f"--steps {steps // 4} --micro_tokens 60 --sft_batch 7 --sft_lr 1e-6 {RL}"),
        [
            "evaluate",
            [
                "--ckpt",
                f"{folder}/grpo.pt",
                "--task",
                data,
                "--out",
                f"{folder}/rows.jsonl",
                *EVALUATE.split(),
            ],
        ],
    ]


@pytest.fixture(scope="module")
def alone(base, tmp_path_factory):
    """The same by one process: 20 steps, and 4 where starting the ranks takes long enough."""
    folders = {}
    for steps in (20, 4):
        folders[steps] = tmp_path_factory.mktemp(f"alone{steps}")
        for name, argv in stages(folders[steps], base[0] / "4K.pt", base[1], steps):
            one(name, argv)
    return folders


def distance(a, b):
    a, b = weights(a), weights(b)
    assert a.keys() == b.keys()
    return max((a[name] - b[name]).abs().max().item() for name in a)


def tokens(out):
    """Every sampled token of every step."""
    return [[group["tokens"] for group in row["groups"]] for row in log(out, "rollouts")]


def compare(alone, folder):
    (start,) = (p for p in alone.glob("pretrain/*.pt"))
    apart = {"pretrain": distance(start, folder / "pretrain" / start.name)}
    apart |= {
        name: distance(alone / f"{name}.pt", folder / f"{name}.pt")
        for name in ("sft", "grpo", "parallel")
    }
    print(
        "\nlargest difference of a weight from one process's:",
        {name: f"{d:.1e}" for name, d in apart.items()},
    )
    assert all(0 <= d < 1e-5 for d in apart.values()), apart
    for name in ("grpo", "parallel"):
        assert tokens(alone / f"{name}.pt") == tokens(folder / f"{name}.pt")
        assert any(row["mixed"] > 0 for row in log(alone / f"{name}.pt"))
    mine, theirs = (
        [json.loads(line)["problems"] for line in open(f / "rows.jsonl")] for f in (alone, folder)
    )
    assert mine == theirs


@pytest.mark.parametrize("n_ranks, steps", [(2, 20), (4, 4)])
def test_every_stage_on_several_ranks_is_the_run_of_one(base, alone, tmp_path, n_ranks, steps):
    commands = [["collectives", []], *stages(tmp_path, base[0] / "4K.pt", base[1], steps)]
    torchrun(tmp_path, commands, "--standalone", f"--nproc_per_node={n_ranks}")
    compare(alone[steps], tmp_path)


def test_two_agents_are_two_nodes(base, alone, tmp_path):
    """Rendezvous on loopback, one process each: the weights are sharded within a node and replicated across (HSDP)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    how = [
        "--nnodes=2",
        "--nproc_per_node=1",
        "--rdzv_backend=c10d",
        f"--rdzv_endpoint=127.0.0.1:{port}",
        "--rdzv_id=test",
        "--local_addr=127.0.0.1",
    ]
    commands = [["collectives", []], *stages(tmp_path, base[0] / "4K.pt", base[1], 4)]
    torchrun(tmp_path, commands, *how, agents=2)
    compare(alone[4], tmp_path)


def command(folder, base, steps, **more):
    flags = RL.split() + [
        f"--{name}={value}" for name, value in ({"steps": steps, "save_every": 1} | more).items()
    ]
    return [
        "grpo",
        ["--ckpt", str(base[0] / "4K.pt"), "--data", base[1], "--out", f"{folder}/rl.pt", *flags],
    ]


def test_a_killed_rank_is_started_again_and_nothing_is_lost(base, tmp_path):
    """SIGKILL of rank 1 in an update; torchrun starts both ranks again; the weights end with the same bits."""
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    commands = [
        command(killed, base, 6),
        command(straight, base, 6),
    ]  # it dies in the first of them
    said = torchrun(
        tmp_path,
        commands,
        "--standalone",
        "--nproc_per_node=2",
        "--max_restarts=3",
        die="step 4, update",
    )
    assert "going on from step 3" in said  # the second start's words
    assert same_bits(straight / "rl.pt", killed / "rl.pt")
    assert (
        tokens(straight / "rl.pt") == tokens(killed / "rl.pt")
        and len(tokens(killed / "rl.pt")) == 6
    )


def test_a_kill_within_a_save_loses_that_save_only(base, tmp_path):
    """SIGKILL when half of a file is written: of rank 0 in the second save, then of both in the result."""
    straight, torn = tmp_path / "straight", tmp_path / "torn"
    tear = [
        (2, "rank 0"),
        (3, "all"),
    ]  # first the saves of steps 1 and 2, then those of 2 and 3, and the result
    commands = [command(torn, base, 4), command(straight, base, 4)]
    said = torchrun(
        tmp_path, commands, "--standalone", "--nproc_per_node=2", "--max_restarts=3", tear=tear
    )
    words = [
        line.split(" of ")[0]
        for line in said.splitlines()
        if line.startswith(("torn:", "going on"))
    ]
    assert words == [
        "torn: state.pt.tmp",
        "going on from step 1",
        "torn: rl.pt.tmp",
        "going on from step 3",
    ], said
    assert same_bits(straight / "rl.pt", torn / "rl.pt") and tokens(straight / "rl.pt") == tokens(
        torn / "rl.pt"
    )
    assert sorted(path.name for path in torn.iterdir()) == [
        "rl.log.jsonl",
        "rl.pt",
        "rl.rollouts.jsonl",
    ]


@pytest.mark.parametrize("name", ["pretrain", "sft", "grpo", "parallel"])
def test_sigterm_saves_and_the_same_command_goes_on(
    base, alone, tmp_path, monkeypatch, capsys, name
):
    """One process. It gets the signal in its second step, which it ends; nothing was to be saved by itself so early."""
    (argv,) = (
        argv for stage, argv in stages(tmp_path, base[0] / "4K.pt", base[1], 20) if stage == name
    )

    def ask(text):
        if text in ("step 2", "step 2, update"):
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as left:
        at_each_phase(ask, patch.setattr)
        one(name, argv)
    said = "stopped by SIGTERM after step 2; the same command goes on from there"
    assert left.value.code == 143 and capsys.readouterr().out.splitlines()[-1] == said
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # Python's own again
    one(name, argv)
    assert "going on from step 2 of" in capsys.readouterr().out
    (straight,) = (
        [*alone[20].glob("pretrain/*.pt")] if name == "pretrain" else [alone[20] / f"{name}.pt"]
    )
    assert same_bits(straight, tmp_path / straight.relative_to(alone[20]))


def test_sigterm_to_torchrun_saves_and_the_same_command_goes_on(base, tmp_path):
    """Two ranks of a script as users run it, then both runs to their end; torchrun does not start the ranks again."""
    straight, stopped = (
        command(tmp_path / "straight", base, 20, save_every=100),
        command(tmp_path / "stopped", base, 20, save_every=100),
    )
    argv = [a.replace("--n", "--samples") if a == "--n" else a for a in stopped[1]]
    line = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "--max_restarts=3",
        "grpo.py",
        *argv,
    ]
    running = subprocess.Popen(
        line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    while running.poll() is None and not log(tmp_path / "stopped" / "rl.pt"):
        time.sleep(0.01)
    running.terminate()
    said = running.communicate(timeout=240)[0]
    assert (
        running.returncode
        and said.count("stopped by SIGTERM after step") == 1
        and said.count("2 process(es)") == 1
    ), said
    said = torchrun(tmp_path, [stopped, straight], "--standalone", "--nproc_per_node=2")
    assert "going on from step" in said
    assert same_bits(tmp_path / "straight" / "rl.pt", tmp_path / "stopped" / "rl.pt")
    assert tokens(tmp_path / "straight" / "rl.pt") == tokens(tmp_path / "stopped" / "rl.pt")


class Killed(Exception):
    pass


def test_a_run_goes_on_with_another_number_of_ranks(base, tmp_path, monkeypatch):
    """Three steps by one process, then two ranks, and the other way round: the state file knows no number of ranks."""
    whole, mixed = command(tmp_path / "whole", base, 6), command(tmp_path / "mixed", base, 6)
    one(*whole)

    def stop(text):
        if text == "step 4, sampling":
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        at_each_phase(stop, patch.setattr)
        one(*mixed)
    said = torchrun(
        tmp_path, [mixed], "--standalone", "--nproc_per_node=2", die="step 6, update", ok=False
    )
    assert "going on from step 3" in said
    one(*mixed)  # from step 5, which two ranks saved
    assert distance(tmp_path / "whole" / "rl.pt", tmp_path / "mixed" / "rl.pt") < 1e-5
    assert tokens(tmp_path / "whole" / "rl.pt") == tokens(tmp_path / "mixed" / "rl.pt")


def test_ranks_with_nothing_to_learn_from_keep_in_step(base, tmp_path):
    """One prompt for two ranks; then all rewards equal and no KL, so that no rank has a micro-batch."""
    (tmp_path / "r.py").write_text("def score(response, problem):\n    return 0.5\n")
    few = command(tmp_path / "few", base, 2, prompts=1, mini_batches=1)
    silent = command(tmp_path / "silent", base, 2, kl=0.0, reward=f"{tmp_path}/r.py:score")
    torchrun(tmp_path, [few, silent], "--standalone", "--nproc_per_node=2")
    assert all(row["scored"] == row["tokens"] for row in log(tmp_path / "few" / "rl.pt"))
    assert [(row["scored"], row["grad_norm"]) for row in log(tmp_path / "silent" / "rl.pt")] == [
        (0, 0)
    ] * 2


def test_a_rank_that_does_not_come_is_named(base, tmp_path, monkeypatch):
    """A reward that hangs on rank 1 in its second step: the others say where they wait and for whom, then give up."""
    (tmp_path / "r.py").write_text(HANGS)
    monkeypatch.setenv("DIST_TIMEOUT", "20")  # more than ranks start apart on a machine that stalls
    argv = command(tmp_path, base, 3, reward=f"{tmp_path}/r.py:score")[1]
    said = run(
        "grpo.py",
        *[a.replace("--n", "--samples") if a == "--n" else a for a in argv],
        ranks=2,
        ok=False,
    )
    assert "rank 0 has been in 'step 2, sampling, waiting for other ranks' for" in said
    assert (
        "rank 1 is in 'step 2, sampling'" in said
        and "grpo.py: rank 0 in 'step 2, sampling, waiting for other ranks': " in said
    )
    assert (
        "RuntimeError" in said[said.index("Root Cause") :]
    )  # torchrun's own summary, of the rank that failed first


HANGS = """
import os, signal, time
calls = 0
def score(response, problem):
    global calls
    calls += 1
    if os.environ["RANK"] == "1" and calls > 13:  # one to try it, 3 prompts x 4 in step 1
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # else it waits for the end of the step, and torchrun 30 s for it
        time.sleep(1000)
    return 0.5 * len(response) % 1
"""


def test_a_users_error_on_one_rank_alone_is_said_once(base, tmp_path):
    """A reward that fails on rank 1 in its second step: rank 0, which waits for it, says nothing."""
    (tmp_path / "r.py").write_text(FAILS)
    argv = command(tmp_path, base, 3, reward=f"{tmp_path}/r.py:score")[1]
    said = run(
        "grpo.py",
        *[a.replace("--n", "--samples") if a == "--n" else a for a in argv],
        ranks=2,
        ok=False,
    )
    ours = said.split("Traceback")[0]  # torchrun's own begins there
    lines = [line for line in ours.splitlines() if line.startswith("grpo.py: ")]
    assert len(lines) == 1 and "r.py:score" in lines[0] and "no such word" in lines[0]
    assert lines[0] in said[said.index("Root Cause") :]
    assert "RuntimeError" not in said and said.count("Traceback") == 1


FAILS = """
import os
calls = 0
def score(response, problem):
    global calls
    calls += 1
    if os.environ["RANK"] == "1" and calls > 13:
        raise KeyError("no such word")
    return 0.5 * len(response) % 1
"""


def test_groups_are_dealt_so_that_ranks_finish_together():
    assert ranks.deal([5, 1, 4, 2], 2) == [0, 0, 1, 1] and ranks.deal([], 3) == []
    costs = torch.randint(1, 2000, (64,), generator=torch.Generator().manual_seed(0)).tolist()
    to = ranks.deal(costs, 8)
    loads = [sum(c for c, r in zip(costs, to) if r == rank) for rank in range(8)]
    assert max(loads) < 1.02 * sum(costs) / 8  # by number of groups alone it is 1.2 and more


def test_a_wrong_timeout_is_one_line(monkeypatch):
    monkeypatch.setenv("DIST_TIMEOUT", "soon")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match="DIST_TIMEOUT=soon is not a number of seconds"):
        ranks.start_processes()


def test_a_thread_that_still_speaks_to_the_store_does_not_abort_a_run_that_is_done():
    code = """
import time
import torch.distributed as dist
from plumbing import watchdog
store = dist.TCPStore("127.0.0.1", 0, 1, True)
dist.init_process_group("gloo", store=dist.PrefixStore("group", store), rank=0, world_size=1)
class Busy:
    def set(self, key, value):
        end = time.monotonic() + 1  # s; Python ends within it
        while time.monotonic() < end:
            store.set(key, value)
watchdog.watch(Busy(), 0, 1, 60)
dist.destroy_process_group()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
