"""Runs a table of commands: several at a time, each when what it needs is there, and none twice."""

import contextlib
import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TextIO

from data.files import file_errors, write_text
from plumbing.files import read_rows
from study.commands import COMMANDS, read_commands
from study.durations import seconds_of


@dataclass
class Job:
    """One command: what it makes, and what it needs before it may run."""

    name: str  # "3.6M.sft.rl", for people
    command: list[str]
    folder: str  # of the seed
    kind: str = ""  # pretrain, a recipe or evaluation; --plan sums by it
    makes: str = ""  # a checkpoint; "" for an evaluation
    needs: list[str] = field(default_factory=list)  # checkpoints
    # An evaluation is done when its rows are in the folder's results.jsonl.
    checkpoint: str = ""  # the name in its rows
    preset: str = ""  # of the checkpoint

    def done(self) -> bool:
        """Whether its result is there.

        A recipe's checkpoint must have come from the parent that is there now, and the rows of an
        evaluation must be of these weights, asked in this way.
        """
        if self.makes and not os.path.exists(self.makes):
            return False
        if self.kind == "pretrain":
            return not goes_on(self.folder)
        if self.kind == "":  # a command of any other kind
            return True
        if self.kind == "evaluation" and not self.has_rows():
            return False
        if self.kind == "distance" and not self.ready():
            return False
        from study import keys  # needs torch, which takes two seconds to import

        if self.kind == "evaluation":
            return keys.is_answered(self.results(), self.needs[0], self.command, self.preset)
        if self.kind == "distance":
            return keys.is_measured(os.path.join(self.folder, "distances.jsonl"), *self.needs)
        return keys.is_made_from(self.makes, self.needs[0])

    def has_rows(self) -> bool:
        """Whether its checkpoint is there, and was evaluated in some way."""
        if not self.ready():
            return False
        return any(row.get("name") == self.checkpoint for row in self.results())

    def results(self) -> list[dict]:
        return read_rows(os.path.join(self.folder, "results.jsonl"))

    def ready(self) -> bool:
        """Whether all that it needs is there."""
        return all(os.path.exists(path) for path in self.needs)

    def title(self) -> str:
        return f"{os.path.basename(self.folder)} {self.name}"


def goes_on(folder: str) -> bool:
    """Whether pretrain.py has begun here and has not ended, though it has kept all checkpoints."""
    try:
        with open(os.path.join(folder, "pretrain.json")) as file:
            return json.load(file).get("ended") is False
    except (OSError, ValueError, AttributeError):  # not there, or damaged: pretrain.py will say so
        return False


# ---------------------------------------------------------------------------------- one folder


def claim(out: str) -> TextIO:
    """Wait until no other study works in this folder. -> the lock, an open file.

    The commands hold the lock too, so a study that was killed keeps its folder until they end.
    """
    with file_errors("write", out):
        os.makedirs(out, exist_ok=True)
        lock = open(os.path.join(out, ".lock"), "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"commands of another study still run in {out}; waiting for them to end", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def same_commands(jobs: list[Job], out: str) -> None:
    """Refuse to mix two studies in one folder.

    What is there must have been made by the commands of this table; commands.json remembers them.
    """
    path = os.path.join(out, COMMANDS)
    known = read_commands(out)
    for job in jobs:
        key = f"{job.folder} {job.name}"
        command = shlex.join(job.command[1:])  # without the python that runs it
        before = known.setdefault(key, command)
        if before != command:
            sys.exit(
                f"excursions.py: {key} was made by `{before:.300}`, now it would be "
                f"`{command}`; give another --out"
            )
    write_text(path, json.dumps(known, indent=1))


# ---------------------------------------------------------------------------------- running


@dataclass
class Running:
    job: Job
    process: subprocess.Popen
    log: TextIO
    since: float  # when it was started, seconds


def run(jobs: list[Job], out: str, workers: int, lock: TextIO) -> list[Job]:
    """Run what is not done, `workers` commands at a time.

    -> the jobs that failed, and those that could not start because of that.

    SIGTERM is passed on to the running commands: a stage saves the step it is in and leaves, and so
    does the study.
    """
    os.makedirs(logs_folder(out), exist_ok=True)
    waiting = [job for job in jobs if not job.done()]
    running: list[Running] = []
    failed: list[Job] = []
    total = len(waiting)
    start = time.time()
    clock = Clock(workers)
    try:
        with sigterm_noted() as asked_to_stop:
            while waiting or running:
                if asked_to_stop:
                    stop(running)
                for one in ended(running):
                    running.remove(one)
                    finished = total - len(waiting) - len(running)
                    clock.note(one)
                    left = clock.left(waiting, running)
                    report_end(one, f"{finished}/{total}, {time.time() - start:4.0f} s{left}")
                    if one.process.returncode:
                        failed.append(one.job)
                while len(running) < workers:
                    job = first_ready(waiting)
                    if job is None:
                        break
                    waiting.remove(job)
                    running.append(begin(job, out, workers, lock))
                    print(f"started {job.title()}", flush=True)
                if not running:  # nothing is ready: the rest waits for what has failed
                    failed += waiting
                    break
                time.sleep(0.1)
    except KeyboardInterrupt:
        for one in running:  # Ctrl-C reached them too; next time each resumes from its last save
            one.process.wait()
        sys.exit("excursions.py: interrupted; the same command goes on")
    return failed


class Clock:
    """How long the rest of a study will take, from how long its commands took until now."""

    def __init__(self, workers: int):
        self.workers = workers
        self.expected = 0.0  # seconds, of the commands that have ended
        self.took = 0.0

    def note(self, one: Running) -> None:
        self.expected += seconds_of(one.job.command)
        self.took += time.time() - one.since

    def left(self, waiting: list[Job], running: list[Running]) -> str:
        """ ", 12 min left"; "" where nothing is, or nothing is known yet."""
        seconds = sum(seconds_of(job.command) for job in waiting)
        for one in running:
            seconds += max(0.0, seconds_of(one.job.command) - (time.time() - one.since))
        if not seconds or not self.expected:
            return ""
        minutes = seconds * self.took / self.expected / self.workers / 60
        return f", {minutes:.0f} min left"


@contextlib.contextmanager
def sigterm_noted():
    """-> a list that is empty until SIGTERM comes."""
    asked = []
    before = signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


def stop(running: list[Running]) -> None:
    for one in running:
        one.process.terminate()
    for one in running:
        one.process.wait()
    print("excursions.py: stopped by SIGTERM; the same command goes on", file=sys.stderr)
    sys.exit(128 + signal.SIGTERM)


def first_ready(waiting: list[Job]) -> Job | None:
    for job in waiting:
        if job.ready():
            return job
    return None


def begin(job: Job, out: str, workers: int, lock: TextIO) -> Running:
    """Start a command, its output going to a file."""
    environment = dict(os.environ, PYTHONUNBUFFERED="1")
    if workers > 1:
        # At this size processes of one thread, side by side, do more than one with all threads.
        threads = max(1, (os.cpu_count() or 1) // workers)
        environment["OMP_NUM_THREADS"] = str(threads)
    name = f"{os.path.basename(job.folder)}.{job.name}.txt".replace(" ", ".")
    path = os.path.join(logs_folder(out), name)
    with file_errors("write", path):
        os.makedirs(job.folder, exist_ok=True)
        log = open(path, "w")
    process = subprocess.Popen(
        job.command, stdout=log, stderr=subprocess.STDOUT, env=environment, pass_fds=[lock.fileno()]
    )
    return Running(job, process, log, time.time())


def ended(running: list[Running]) -> list[Running]:
    return [one for one in running if one.process.poll() is not None]


def report_end(one: Running, progress: str) -> None:
    """Print a line on a command that has ended, with the last line of its output."""
    one.log.close()
    took = time.time() - one.since
    said = f"[{progress}] {one.job.title()}: {took:.0f} s"
    if one.process.returncode:
        end = last_line(one.log.name)
        print(f"{said}, FAILED; the end of {one.log.name}: {end}", flush=True)
    else:
        print(f"{said}  {last_line(one.log.name)}", flush=True)


def last_line(path: str) -> str:
    with open(path) as f:
        lines = f.read().strip().splitlines()
    return lines[-1] if lines else "(nothing)"


def logs_folder(out: str) -> str:
    return os.path.join(out, "logs")
