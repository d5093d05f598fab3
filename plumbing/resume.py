"""A run that is stopped, for whatever reason, continues where it was last saved."""

import contextlib
import gc
import os
import shutil
import signal
import sys

from data import UserError
from plumbing import watchdog
from plumbing.checked import not_finite
from plumbing.checked_state import check_state, read_state
from plumbing.checkpoint import save_checkpoint, save_file, stem
from plumbing.flags import check
from plumbing.identity import differences, recorded
from plumbing.optimizer import ADVICE, check_last_update, skipped_in_a_row
from plumbing.ranks import all_max, barrier, gather_objects, print0, rank, world
from plumbing.sharding import full_state, full_weights, put_state, put_weights


class Resume:
    """The state of an unfinished run: weights, every optimizer, the step.

    It is one file, `<name>.resume/state.pt`. Batches and samples are functions of (seed, step), so
    nothing else has to be kept and nothing is replayed. A `reference` that moves during the run is
    kept as well; one that stays the parent is not given here. `origin`: the facts of what the run
    starts from, the parent checkpoint or the corpus. Another origin's state is refused.
    """

    def __init__(self, out: str, config, model, *optimizers, origin=None, reference=None):
        self.folder = f"{stem(out)}.resume"
        self.path = os.path.join(self.folder, "state.pt")
        self.config = config
        self.model = model
        self.optimizers = optimizers
        origin = origin or {}
        self.origin = {name: origin.get(name) for name in ("id", "weights")}
        self.reference = reference

    def load(self) -> int:
        """Put the state back if there is one; returns the number of steps done, 0 without a state.

        Raises UserError where the state belongs to a run with other flags, or of another parent.
        """
        there = gather_objects(os.path.exists(self.path))
        if not any(there):
            return 0
        if not all(there):
            message = "nodes must share the file system of --out"
            raise UserError(f"{self.path} is not there for every rank; {message}")
        state = read_state(self.path, mmap=world() > 1)
        changed = differences(self.config, state["config"])
        before = state.get("origin")
        if not changed and isinstance(before, dict):  # older code did not record it
            changed = other_origin(before, self.origin)
        if changed:
            message = f"{self.folder} holds an unfinished run that differs ({changed})"
            raise UserError(f"{message}; delete it or give another --out")
        check_state(self.path, state, self.model, self.optimizers, self.reference)
        put_weights(self.model, state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            rates = [group["lr"] for group in optimizer.param_groups]
            put_state(optimizer, saved)
            for group, rate in zip(optimizer.param_groups, rates):
                group["lr"] = rate  # it follows from the flags and the step
        if self.reference is not None:
            put_weights(self.reference, state["reference"])
        print0(f"going on from step {state['step']} of {self.folder}")
        return state["step"]

    def save(self, done: int, leave: bool = False) -> None:
        """Write the state after `done` steps; with `leave`, end the program then, as SIGTERM does.

        While updates are skipped nothing is written: the state that is there is the last good one.
        """
        watchdog.phase(f"saving step {done}")
        skipping = any(map(skipped_in_a_row, self.optimizers))
        if not skipping:
            self.write(done)
        if leave:
            barrier()  # no rank leaves before the state is written
            leave_run(done, f"the last good state in {self.folder}" if skipping else "there")

    def write(self, done: int) -> None:
        """Rank 0 writes whole tensors, so that another number of ranks can read them.

        Weights that are not finite do not recover: a UserError, and the state that is there stays.
        """
        state = {"step": done, "config": recorded(self.config), "origin": self.origin}
        state["model"] = full_weights(self.model)
        state["optimizers"] = [full_state(optimizer) for optimizer in self.optimizers]
        if self.reference is not None:
            state["reference"] = full_weights(self.reference)
        found = not_finite(state["model"]) if rank() == 0 else ""
        name = gather_objects(found)[0]
        check(
            not name,
            f"after step {done} the tensor {name} holds NaN or infinite numbers; {ADVICE}. "
            f"No result is written, and the last good state stays in {self.folder}",
        )
        if rank() == 0:
            save_file(self.path, state)

    def finish(self, out: str, facts: dict) -> None:
        """Write the result, then drop the state. Raises UserError where it is not worth keeping."""
        watchdog.phase(f"writing {out}")
        self.check_end()
        weights = full_weights(self.model)
        if rank() == 0:
            save_checkpoint(out, self.model, facts, weights)
            print(f"wrote {out}")
            self.drop()
        barrier()

    def check_end(self) -> None:
        """UserError where the last update could not be made."""
        for optimizer in self.optimizers:
            check_last_update(optimizer)

    def drop(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def leave_run(done: int, where: str) -> None:
    print0(f"stopped by SIGTERM after step {done}; the same command goes on from {where}")
    sys.exit(128 + signal.SIGTERM)


def other_origin(before: dict, now: dict) -> str:
    """How what a run starts from differs from what it once started from, in words; "" if not."""
    if before.get("id") != now["id"]:
        return "it began from another checkpoint or corpus than this command names"
    if before.get("weights") != now["weights"]:
        return "the weights that it began from have changed"
    return ""


class StopSignal:
    """Whether the program has been asked to stop."""

    def __init__(self):
        self.received = False  # by this rank

    def receive(self, number, frame) -> None:
        self.received = True

    def asked(self) -> bool:
        """True on all ranks if any rank has received SIGTERM. All ranks have to ask."""
        return all_max(int(self.received)) > 0


@contextlib.contextmanager
def stop_signal():
    """Within it SIGTERM ends nothing by itself: the loop asks after each step, and leaves.

    SIGTERM comes from Slurm, before a time limit or at preemption, or from torchrun, which passes
    it on and kills after 30 s (--shutdown_timeout). A run that leaves has the status 143, which is
    a shell's word for SIGTERM: with 0, whatever waits for the result would start without it. A
    torchrun that got the signal itself starts nothing again. One whose ranks alone got it starts
    them again (--max_restarts), and they resume.
    """
    stop = StopSignal()
    before = signal.signal(signal.SIGTERM, stop.receive)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def collecting_by_hand():
    """Within it Python collects no garbage by itself; the loop calls gc.collect() after each step.

    Left to itself, Python would collect at another time on each rank, and all would wait for each.
    What exists before the loop is frozen, which means that collections do not look at it again:
    through millions of problems one takes seconds, through what a step leaves a millisecond.
    """
    gc.disable()
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
