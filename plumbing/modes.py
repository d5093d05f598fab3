"""Three other ways to combine RL and SFT, which the authors tried besides averaging.

    python parallel.py --ckpt out/toy/3.6M.pt --mode interleave

All have one AdamW for both, and in the authors' runs both rates were 4e-5. With --interleave 3 and
--curriculum 3, S being an SFT step and R an RL step:

    interleave   SSS R SSS R SSS R ...          the same number of SFT steps before each RL step
    curriculum   SSS R  SS RR  S RRR  RRRR ...  SFT steps first, RL steps in the end
    sum          one step on the sum of both losses

The weights of mode parallel's averages are here, too.
"""

import itertools
import time

from plumbing.examples import check_sft
from plumbing.flags import check
from plumbing.metrics import update_metrics
from plumbing.optimizer import clipped_step, count_skipped, mean_norm, set_lr
from plumbing.ranks import all_sum, print0
from plumbing.watchdog import phase
from plumbing.which_groups import is_mixed

# ---------------------------------------------------------------------------------- the average


def average_weights(config, step: int, groups) -> list[float]:
    """The weight of the RL copy in each average of a step.

    With --adapt it is the share of the step's groups that have a signal, that is mixed rewards:
    where RL has nothing to learn from, SFT leads. Else it goes in a line over the whole run.
    """
    if config.adapt:
        mixed = all_sum(int(is_mixed(groups).sum()))
        return [mixed / config.prompts] * config.updates
    averages = config.steps * config.updates
    first = step * config.updates
    return [average_weight(config, first + m, averages) for m in range(config.updates)]


def average_weight(config, average: int, averages: int) -> float:
    """Of average 0 .. averages-1: from --weight in a line to --weight_end."""
    end = config.weight if config.weight_end is None else config.weight_end
    return config.weight + (end - config.weight) * average / max(1, averages - 1)


# ---------------------------------------------------------------------------------- other modes


def order_of_steps(config):
    """Yield "S" and "R" without an end."""
    for turn in itertools.count():
        if config.mode == "interleave":
            yield from "S" * config.interleave + "R"
        else:
            yield from "S" * max(0, config.curriculum - turn) + "R" * (turn + 1)


def sft_batches(config) -> list[range]:
    """For each RL step, the SFT batches (counted from the start) of one step each before it."""
    batches = []
    first = 0
    last = 0
    for kind in order_of_steps(config):
        if kind == "S":
            last += 1
        else:
            batches.append(range(first, last))
            first = last
        if len(batches) == config.steps:
            return batches


def print_plan(run, n_solutions: int) -> None:
    """How much a run samples and learns in both halves."""
    config = run.config
    updates = config.steps * config.updates
    sft_steps = count_sft_steps(config)
    print0(
        f"{config.steps} steps of {config.prompts} prompts x {config.n} = "
        f"{config.prompts * config.n} rollouts; {updates} RL and {sft_steps} SFT updates, these "
        f"of {config.sft_batch} solutions; "
        f"{config.steps * config.prompts / len(run.problems):.1f} passes of RL, "
        f"{sft_steps * config.sft_batch / n_solutions:.1f} of SFT"
    )


def count_sft_steps(config) -> int:
    """SFT updates of a whole run."""
    if config.mode in ("interleave", "curriculum"):
        return sft_batches(config)[-1].stop
    return config.steps * config.updates


def other_mode(config, model, optimizer, sft_half):
    """None where the mode is parallel.py's own."""
    if config.mode == "parallel":
        return None
    return OtherMode(config, model, optimizer, sft_half)


class OtherMode:
    """The steps of the modes above; `sft_half(i)` leaves SFT batch i's gradient in the model."""

    def __init__(self, config, model, optimizer, sft_half):
        self.config = config
        self.model = model
        self.optimizer = optimizer
        self.sft_half = sft_half
        self.batches = None
        if config.mode != "sum":
            self.batches = sft_batches(config)
        self.sft_before = []  # what the SFT steps before the current RL step returned

    def make_sft_steps(self, step: int) -> float:
        """The SFT steps that come before RL step `step` -> the seconds that they took."""
        self.sft_before = []
        if self.batches is None:
            return 0.0
        start = time.time()
        phase(f"step {step + 1}, SFT")
        for i in self.batches[step]:
            sft = self.sft_half(i)
            norm = clipped_step(self.model, self.optimizer, self.config.grad_clip)
            self.sft_before.append({"sft": sft, "sft_grad_norm": norm})
        return time.time() - start

    def metrics(self, updates: list[dict]) -> dict:
        """What the log says of a step's updates, and of the SFT steps before it."""
        return metrics_of_updates(updates, self.sft_before)

    def update(self, i: int, rl_half) -> dict:
        """Update i of RL; in mode sum with the gradient of SFT batch i."""
        if self.config.mode == "sum":
            sft_half = self.sft_half
            return sum_step(
                self.model, self.optimizer, rl_half, lambda: sft_half(i), self.config.grad_clip
            )
        set_lr(self.optimizer, self.config.lr)  # the SFT steps before had another
        rl = rl_half()
        norm = clipped_step(self.model, self.optimizer, self.config.grad_clip)
        return {"rl": rl, "rl_grad_norm": norm}


def sum_step(model, optimizer, rl_backward, sft_backward, grad_clip: float = 1.0) -> dict:
    """One step on the sum of both losses, whose gradients add up. -> as average_step"""
    rl = rl_backward()
    sft = sft_backward()
    norm = clipped_step(model, optimizer, grad_clip)
    return {"rl": rl, "sft": sft, "rl_grad_norm": norm, "sft_grad_norm": norm}


def metrics_of_updates(updates: list[dict], sft: list[dict] = ()) -> dict:
    """What the log says of a step; `sft` are SFT steps of their own, before it."""
    sums = [of_one["rl"][0] for of_one in updates]
    highest = [of_one["rl"][1] for of_one in updates]
    metrics = update_metrics(sums, highest, [of_one["rl_grad_norm"] for of_one in updates])
    sft = [*sft, *(of_one for of_one in updates if "sft" in of_one)]
    if sft:  # a curriculum has RL steps without any
        metrics["sft_loss"] = sum(of_one["sft"]["loss"] for of_one in sft) / len(sft)
        norms = [of_one["sft_grad_norm"] for of_one in sft]
        metrics["sft_grad_norm"] = mean_norm(norms)
        metrics["skipped"] += count_skipped(norms)
    metrics["sft_updates"] = len(sft)
    return metrics


def check_parallel(config) -> None:
    mode = config.mode
    known = ("parallel", "interleave", "curriculum", "sum")
    check(mode in known, f"--mode {mode}: choose parallel, interleave, curriculum or sum")
    for name in ("weight", "weight_end"):
        value = getattr(config, name)
        possible = value is None or 0 <= value <= 1
        check(possible, f"--{name} {value} must lie between 0 (SFT) and 1 (RL)")
    no_average = f"--weight_end is of --mode parallel; {mode} averages nothing"
    check(mode == "parallel" or config.weight_end is None, no_average)
    check(mode == "parallel" or not config.adapt, f"--adapt is of --mode parallel, not {mode}")
    both = f"--adapt sets the weight itself; leave out --weight_end {config.weight_end}"
    check(not config.adapt or config.weight_end is None, both)
    check_sft(config, config.sft_loss, config.sft_schedule)
