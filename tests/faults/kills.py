"""Kills: a command is stopped at any moment, and the same command then ends with the same bits.

How it is stopped is drawn from a seed: kill -9 (also SIGTERM, also Ctrl-C) right before some
operation on a file; kill -9 within a write, part of which is on the disk; kill -9 when a file has
grown to some size, whoever writes it; or after some time. A third of the runs are stopped twice.
"""

import random
import signal
import time
from dataclasses import dataclass

from tests.faults import children, compare, operations
from tests.faults.operations import Fault
from tests.faults.stages import Sound, Stage
from tests.faults.trials import ENDED_BEFORE, FINE

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Stop:
    """How a command is stopped: one of three."""

    fault: Fault | None = None
    n_bytes: int = 0  # the size of a file
    seconds: float = 0.0  # since its start
    number: int = signal.SIGKILL  # the signal after so many seconds
    orphans: bool = False  # what it has started lives on

    def words(self) -> str:
        name = signal.Signals(self.number).name
        if self.n_bytes:
            return f"SIGXFSZ when a file has {self.n_bytes} bytes"
        if self.fault is None:
            return f"{name} after {self.seconds:.3f} s" + (", orphans" if self.orphans else "")
        if self.fault.kind == "within":
            return f"SIGKILL within write {self.fault.at}, {self.fault.share:.0%} of it written"
        return f"{name} before operation {self.fault.at}"


def draw_stop(rng: random.Random, sound: Sound) -> Stop:
    number = rng.choice(SIGNALS)
    kind = rng.choice(("operation", "operation", "within", "size", "time"))
    if kind == "operation":
        at = draw_operation(rng, sound)
        return Stop(Fault("signal", at, number), number=number)
    if kind == "within":
        writes = [i for i, name in enumerate(sound.operations, start=1) if name == "write"]
        if writes:
            return Stop(Fault("within", rng.choice(writes), share=rng.random()))
    if kind == "size":
        return Stop(n_bytes=int(2 ** rng.uniform(0, 17)))
    return Stop(seconds=rng.random() * sound.seconds, number=number, orphans=rng.random() < 0.5)


def draw_operation(rng: random.Random, sound: Sound) -> int:
    """Half of the time one that is no write: those are few, and decide what is whole."""
    others = [i for i, name in enumerate(sound.operations, start=1) if name != "write"]
    if others and rng.random() < 0.5:
        return rng.choice(others)
    return rng.randint(1, max(1, len(sound.operations)))


def stopped(stage: Stage, folder, stop: Stop) -> tuple[children.Running, children.Outcome]:
    """Run the command until it is stopped, or over."""

    def before() -> None:
        if stop.n_bytes:
            operations.limit_sizes(stop.n_bytes, kill=True)
        if stop.fault:
            operations.watch(str(folder), stop.fault)

    running = children.Running(stage.argv(folder), before=before)
    if stop.seconds:
        while running.age() < stop.seconds and not running.poll():
            time.sleep(0.0005)
        if stop.orphans:
            running.signal_alone(stop.number)
        else:
            running.signal(stop.number)
    return running, running.wait(spare=stop.orphans)


def judged_stop(outcome: children.Outcome, stage: Stage) -> str:
    """What is wrong with the way in which it ended, or nothing."""
    if outcome.hung:
        return "hang"
    if "ranks" in stage.name:  # one that is left alone by the other says so, at length
        return ""
    if outcome.traceback:
        return "traceback"
    if outcome.status > 0 and len(outcome.lines) > 1:
        return "unclear"
    return ""


def trial(stage: Stage, seed: int) -> tuple[str, str, str]:
    """Stop the command once or twice, run it to its end, compare."""
    rng = random.Random(f"kills {stage.name} {seed}")
    sound = stage.sound()
    folder = stage.new_folder()
    stops = [draw_stop(rng, sound) for _ in range(rng.choice((1, 1, 2)))]
    words = "; ".join(stop.words() for stop in stops)
    started = []
    was_stopped = False
    try:
        for stop in stops:
            running, outcome = stopped(stage, folder, stop)
            started.append(running)
            wrong = judged_stop(outcome, stage)
            if wrong:
                return wrong, words, outcome.end()
            was_stopped = was_stopped or outcome.status != 0
        verdict, said = judged_end(stage, sound, folder)
    finally:
        for running in started:
            running.signal(signal.SIGKILL)  # the orphans
    if verdict == FINE and not was_stopped:
        verdict = ENDED_BEFORE
    return verdict, words, said


def judged_end(stage: Stage, sound: Sound, folder) -> tuple[str, str]:
    """Run the command to its end -> (verdict, what it said or what differs)"""
    outcome = children.run(stage.argv(folder))
    if outcome.hung:
        return "hang", outcome.end()
    if outcome.status != 0 and not stage.is_there(outcome):
        return "failed", outcome.end()
    found = compare.differences(sound.files, compare.snapshot(folder))
    return ("different" if found else FINE), "; ".join(found)
