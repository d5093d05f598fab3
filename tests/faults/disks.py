"""Full disks: one line that names the file, no .tmp that stays, and the same command finishes.

--disks lets one operation fail (no space, no quota) and all after it that need space, until
something is removed; or lets no file grow beyond some size, whoever writes it. --tmpfs runs the
commands on a real disk that is too small, which needs the right to mount one.
"""

import errno
import os
import random
import shutil
import subprocess
from pathlib import Path

from tests.faults import children, compare, operations
from tests.faults.operations import Fault
from tests.faults.stages import Stage
from tests.faults.trials import ENDED_BEFORE, REFUSED, judged_end

PAGE = 4096  # bytes; a tmpfs gives whole pages
ROOMY = "64m"


def trial(stage: Stage, seed: int) -> tuple[str, str, str]:
    """Let the disk be full at some operation; then run the command again, with space."""
    rng = random.Random(f"disks {stage.name} {seed}")
    sound = stage.sound()
    folder = stage.new_folder()
    if rng.random() < 0.35:
        n_bytes = int(2 ** rng.uniform(0, 17))
        words = f"no file may have more than {n_bytes} bytes"
        before = lambda: operations.limit_sizes(n_bytes, kill=False)
    else:
        kinds = rng.choice((("open", "mkdir"), ("write",), ("write", "fsync"), ("fsync",)))
        all_places = list(enumerate(sound.operations, start=1))
        places = [i for i, kind in all_places if kind in kinds] or [1]
        number = rng.choice(operations.ERRORS_OF_A_FULL_DISK)
        fault = Fault("full", rng.choice(places), number, share=rng.choice((0.0, 0.5, 0.99)))
        kind = sound.operations[fault.at - 1] if sound.operations else "nothing"
        words = f"{errno.errorcode[number]} at operation {fault.at}, {kind}"
        before = lambda: operations.watch(str(folder), fault)
    return with_and_without_space(stage, folder, before, words)


def with_and_without_space(stage: Stage, folder: Path, before, words: str):
    """-> (verdict, how, said)"""
    verdict, said = on_a_full_disk(children.run(stage.argv(folder), before=before), folder)
    if said:
        return verdict, words, said
    return finished(stage, folder, verdict, words)


def on_a_full_disk(outcome, folder: Path) -> tuple[str, str]:
    """(verdict, what is wrong with how the command ended, "" if nothing)"""
    verdict = judged(outcome, folder)
    if verdict not in (REFUSED, ENDED_BEFORE):
        return verdict, outcome.end()
    left = temporary_files(folder)
    if left:
        return "leftover", f"{', '.join(left)} after {outcome.end()}"
    return verdict, ""


def judged(outcome: children.Outcome, folder: Path) -> str:
    if outcome.status == 0:
        return ENDED_BEFORE
    # A limit of sizes also meets the semaphores of the standard library, which are files there.
    names = [str(folder) + "/", "/dev/shm"]
    if outcome.argv[0] == "torchrun" and not outcome.hung:
        # The other rank says at length that it was left alone. Rank 0's line has to be there, too.
        return REFUSED if any(name in outcome.stderr for name in names) else "unclear"
    return judged_end(outcome, names)


def temporary_files(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*.tmp*")]


def finished(stage: Stage, folder: Path, verdict: str, words: str) -> tuple[str, str, str]:
    """Run the command again, and compare what it makes with an undisturbed run's."""
    again = children.run(stage.argv(folder))
    if again.status != 0 and not stage.is_there(again):
        return "failed", words, again.end()
    found = compare.differences(stage.sound().files, compare.snapshot(folder))
    if found:
        return "different", words, "; ".join(found)
    return verdict, words, ""


# ------------------------------------------------------------------------------ a real disk


def can_mount(scratch: Path) -> bool:
    """Whether this process may mount a small tmpfs."""
    folder = scratch / "mount"
    folder.mkdir(exist_ok=True)
    if mount(folder, "64k"):
        return False
    unmount(folder)
    return True


def mount(folder: Path, size: str, options: str = "") -> int:
    command = ["mount", "-t", "tmpfs", "-o", f"{options}size={size}", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True).returncode


def unmount(folder: Path) -> None:
    subprocess.run(["umount", "-l", str(folder)], capture_output=True)


def tmpfs_trial(stage: Stage, seed: int) -> tuple[str, str, str]:
    """Run the command on a disk of a part of the size that it needs; then on a larger one."""
    rng = random.Random(f"tmpfs {stage.name} {seed}")
    needed = bytes_needed(stage)
    folder = stage.new_folder()
    size = max(PAGE, int(needed * rng.random()) // PAGE * PAGE)
    beside = list(folder.iterdir())
    for path in beside:
        shutil.move(path, stage.scratch)
    mount(folder, ROOMY)
    try:
        for path in beside:
            shutil.move(stage.scratch / path.name, folder)
            size += os.path.getsize(folder / path.name) // PAGE * PAGE + PAGE
        mount(folder, str(size), "remount,")
        words = f"a disk of {size:,} bytes, where {needed:,} are needed"
        verdict, said = on_a_full_disk(children.run(stage.argv(folder)), folder)
        if said:
            return verdict, words, said
        mount(folder, ROOMY, "remount,")
        return finished(stage, folder, verdict, words)
    finally:
        unmount(folder)


def bytes_needed(stage: Stage) -> int:
    """Bytes of the files that an undisturbed run leaves, with room for one that is written aside."""
    folder = stage.new_folder()
    children.run(stage.argv(folder))
    sizes = [path.stat().st_size // PAGE * PAGE + PAGE for path in folder.rglob("*")]
    return 2 * sum(sizes)
