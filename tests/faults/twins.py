"""Twins: the same command twice at once, in one folder. The second waits, or refuses in one line."""

import random
import time

from tests.faults import children, compare
from tests.faults.stages import Stage
from tests.faults.trials import FINE, judged_end


def trial(stage: Stage, seed: int) -> tuple[str, str, str]:
    """Start one, and its twin while it runs; then compare with what one alone makes."""
    rng = random.Random(f"twins {stage.name} {seed}")
    sound = stage.sound()
    folder = stage.new_folder()
    delay = rng.choice((0.0, rng.random() * sound.seconds))
    words = f"a twin after {delay:.3f} s"
    one = children.Running(stage.argv(folder))
    while one.age() < delay and not one.poll():
        time.sleep(0.001)
    two = children.Running(stage.argv(folder))
    while not (one.poll(0.005) and two.poll(0.005)):
        if max(one.age(), two.age()) > children.SECONDS:
            break
    outcomes = [one.wait(spare=True), two.wait()]
    n_finished = sum(outcome.status == 0 for outcome in outcomes)
    for outcome in outcomes:
        if outcome.status == 0:
            continue
        wrong = judged_end(outcome, names=[str(folder)])
        if wrong != "refused" or n_finished == 0:
            return wrong if wrong != "refused" else "failed", words, outcome.end()
    found = compare.differences(sound.files, compare.snapshot(folder))
    if found:
        return "different", words, "; ".join(found)
    return FINE, words, ""
