"""tools/slurm.sh as a batch job of two nodes, with a srun and a scontrol that stand in for Slurm on one machine."""

import os
import random
import signal
import socket
import subprocess
import sys
import time

from conftest import ROOT

from plumbing.files import read_rows

SRUN = """#!/bin/bash
for node in $(seq 0 $((SLURM_NNODES - 1))); do
    SLURM_NODEID=$node SLURM_PROCID=$node "$@" &
    echo $! >> "$TASKS"
done
status=0
for task in $(jobs -p); do wait "$task" || status=$?; done
exit $status
"""
PRETRAIN = f"pretrain.py --batch 6 --seq_len 40 --tokens {240 * 30} --keep {240 * 30} --warmup {240 * 10} --save_every 1000"


def free_port():
    """One of those that slurm.sh takes by the number of its job."""
    for port in random.sample(range(29400, 30400), 1000):
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)):
                return port


def submit(folder, *command):
    """The batch job of two nodes with one process each."""
    for name, script in (
        ("srun", SRUN),
        (
            "scontrol",
            '#!/bin/bash\n[ "$*" = "show hostnames n[0-1]" ] && printf "127.0.0.1\\nn1\\n"\n',
        ),
    ):
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    job = dict(
        SLURM_JOB_ID=str(7_000_000 + free_port() - 29400),
        SLURM_NNODES="2",
        SLURM_JOB_NODELIST="n[0-1]",
        SLURM_GPUS_ON_NODE="1",
    )
    here = dict(
        PATH=f"{folder}:{os.environ['PATH']}",
        PYTHON=sys.executable,
        TASKS=str(folder / "tasks"),
        PET_LOCAL_ADDR="127.0.0.1",
        CUDA_VISIBLE_DEVICES="",
    )
    environment = os.environ | job | here
    return subprocess.Popen(
        ["bash", "tools/slurm.sh", *command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_job_that_slurm_stops_is_saved_and_the_next_one_goes_on(tmp_path):
    command = [*PRETRAIN.split(), "--out", str(tmp_path / "o")]
    first = submit(tmp_path, *command)
    while first.poll() is None and not read_rows(str(tmp_path / "o" / "pretrain.log.jsonl")):
        time.sleep(0.02)
    for task in (tmp_path / "tasks").read_text().split():  # as Slurm does where --signal has no B:
        os.kill(int(task), signal.SIGTERM)
    said = first.communicate(timeout=240)[0]
    assert (
        first.returncode
        and said.count("stopped by SIGTERM after step") == 1
        and "2 process(es)" in said
    ), said
    second = submit(tmp_path, *command)
    said = second.communicate(timeout=240)[0]
    assert (
        second.returncode == 0
        and "going on from step" in said
        and (tmp_path / "o" / "7200.pt").exists()
    ), said


def test_it_says_how_to_submit_it():
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("SLURM")
    }
    for more in ({}, {"SLURM_JOB_ID": "1"}):
        done = subprocess.run(
            ["bash", "tools/slurm.sh", *["grpo.py"][: not more]],
            cwd=ROOT,
            env=environment | more,
            capture_output=True,
            text=True,
        )
        assert (
            done.returncode
            and "sbatch tools/slurm.sh grpo.py" in done.stderr
            and done.stderr.count("\n") == 1
        )
