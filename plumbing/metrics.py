"""What a step of RL says of itself: numbers over all ranks, warnings, decoded samples.

docs/metrics.md defines each metric. Nothing here changes the training. Sums and maxima are taken on
each rank and then reduced once.
"""

import torch

from data.grader import extract
from plumbing.files import read_rows
from plumbing.log import Log
from plumbing.optimizer import count_skipped, mean_norm
from plumbing.ranks import (
    all_max,
    all_maxima,
    all_min,
    all_sums,
    device,
    gather_objects,
    peak_memory,
    print0,
)


def rollout_metrics(groups, config) -> dict:
    """What the step's rollouts were like, over all ranks and before any update.

    Shares lie between 0 and 1.
    """
    sums = all_sums(sums_of_rollouts(groups))
    n_rollouts = sums["rollouts"]
    n_groups = sums["groups"]
    lengths = []
    for group in groups.rollouts:
        lengths.extend(len(rollout.tokens) for rollout in group)
    return {
        "reward": sums["rewards"] / n_rollouts,
        "accuracy": sums["right"] / n_rollouts,
        "format": sums["answered"] / n_rollouts,  # share with an answer that the grader finds
        "pass@n": sums["groups_any_right"] / n_groups,  # groups with a right answer
        "all_right": sums["groups_all_right"] / n_groups,
        "all_wrong": 1 - sums["groups_any_right"] / n_groups,
        # groups whose rewards differ: the only ones to learn from
        "mixed": sums["groups_mixed"] / n_groups,
        "groups": n_groups,
        "length": sums["tokens"] / n_rollouts,  # response tokens
        "length_min": all_min(min(lengths, default=config.max_response)),
        "length_max": all_max(max(lengths, default=-config.max_response)),
        # of those that ended by themselves
        "length_finished": sums["finished_tokens"] / max(1, sums["finished"]),
        "truncated": 1 - sums["finished"] / n_rollouts,
        # nats per token: the mean of -log p of what was sampled, an estimate of the entropy
        "surprise": -sums["logprobs"] / sums["tokens"],
        "tokens": sums["tokens"],
    }


def sums_of_rollouts(groups) -> dict[str, float]:
    """The sums of this rank, under names that are the same on every rank."""
    sums = {
        "rollouts": 0,
        "groups": len(groups.problems),
        "rewards": float(groups.rewards.double().sum()),
        "right": int(groups.right.sum()),
        "answered": 0,
        "groups_any_right": int(groups.right.any(1).sum()),
        "groups_all_right": int(groups.right.all(1).sum()),
        "groups_mixed": int((groups.advantages != 0).any(1).sum()),
        "tokens": 0,
        "finished": 0,
        "finished_tokens": 0,
        "logprobs": 0.0,
    }
    for problem, texts, group in zip(groups.problems, groups.texts, groups.rollouts):
        for text, rollout in zip(texts, group):
            sums["rollouts"] += 1
            if extract(text, problem.kind) is not None:
                sums["answered"] += 1
            sums["tokens"] += len(rollout.tokens)
            sums["logprobs"] += sum(rollout.logprobs)
            if rollout.finished:
                sums["finished"] += 1
                sums["finished_tokens"] += len(rollout.tokens)
    return sums


OF_TOKENS = ("loss", "clip_fraction", "clipped_low", "clipped_high", "ratio", "kl", "entropy")
OF_TOKENS += ("mismatch", "scored")
SUMS = tuple(f"{name}_sum" for name in OF_TOKENS)
HIGHEST = ("ratio_max", "mismatch_max")


class TokenSums:
    """Sums over the tokens of a mini-batch on this rank, and the largest value of a token.

    They stay on the device, in fp64, until `read` asks for all of them at once.
    """

    def __init__(self):
        zero = torch.zeros((), dtype=torch.float64, device=device())
        self.sums = dict.fromkeys(SUMS, zero)
        self.highest = dict.fromkeys(HIGHEST, zero)

    def add(self, values: dict) -> None:
        """values: name -> (R,) of one pack."""
        for name, of_tokens in values.items():
            sum_name = f"{name}_sum"
            self.sums[sum_name] = self.sums[sum_name] + of_tokens.detach().sum()
        for name in HIGHEST:
            highest = values[name.removesuffix("_max")].detach().max().double()
            self.highest[name] = torch.fmax(self.highest[name], highest)  # what is NaN is left out

    def read(self) -> tuple[dict[str, float], dict[str, float]]:
        """The sums and the largest values. The host waits for them, once."""
        on_device = torch.stack([*self.sums.values(), *self.highest.values()])
        numbers = on_device.tolist()
        sums = dict(zip(self.sums, numbers))
        return sums, dict(zip(self.highest, numbers[len(sums) :]))


def update_metrics(sums: list[dict], highest: list[dict], norms: list[float]) -> dict:
    """Means over the step and all ranks, from each mini-batch on this rank.

    sums: sums over tokens, under the names SUMS. highest: the largest of a token, under the names
    HIGHEST. norms: the gradient's norm, the same on all ranks.
    """
    total = dict.fromkeys(SUMS, 0.0)
    for i, of_one in enumerate(sums):
        everywhere = all_sums({name: of_one[name] for name in SUMS})
        for name in SUMS:
            total[name] += everywhere[name]
        if i == 0:
            first = everywhere
    maxima = [all_maxima({name: of_one[name] for name in HIGHEST}) for of_one in highest]
    scored = max(1, total["scored_sum"])
    return {
        "loss": total["loss_sum"] / len(sums),  # what was optimised, mean over the mini-batches
        "grad_norm": mean_norm(norms),  # before the cut
        "skipped": count_skipped(norms),  # updates whose gradient was not finite
        "clip_fraction": total["clip_fraction_sum"] / scored,  # of the tokens that were scored
        "clipped_low": total["clipped_low_sum"] / scored,
        "clipped_high": total["clipped_high_sum"] / scored,
        "ratio": total["ratio_sum"] / scored,
        "ratio_max": max(of_one["ratio_max"] for of_one in maxima),
        "kl": total["kl_sum"] / scored,  # k3 to the reference, nats per token; 0 without a KL term
        # of the trainer's distributions, nats per token; exact, but of the scored tokens only
        "entropy": total["entropy_sum"] / scored,
        # |log-prob of the sampler - of the trainer|, in the first mini-batch: later ones have
        # moved the weights
        "mismatch": first["mismatch_sum"] / max(1, first["scored_sum"]),
        "mismatch_max": maxima[0]["mismatch_max"],
        # tokens that went through the trainer: without KL only those of groups with a signal
        "scored": total["scored_sum"],
    }


def speed_metrics(seconds: dict, metrics: dict) -> dict:
    """Seconds of each phase, tokens per second of the two that take long, the memory's peak."""
    speeds = {f"seconds_{name}": value for name, value in seconds.items()}
    speeds["speed_sample"] = metrics["tokens"] / max(seconds["sample"], 1e-9)
    speeds["speed_update"] = metrics["scored"] / max(seconds["update"], 1e-9)
    speeds["memory"] = peak_memory()  # GiB
    return speeds


# ------------------------------------------------------------------------------------ warnings

WINDOW = 5  # steps over which "nothing right" is judged


def warnings(rows: list[dict], config) -> list[str]:
    """What a user should know after the last of these log rows.

    A condition that held after the row before it has been told of already.
    """
    before = conditions(rows[:-1], config)
    now = conditions(rows, config)
    return [text for name, text in now.items() if name not in before]


def conditions(rows: list[dict], config) -> dict[str, str]:
    """The conditions that hold after the last row, each with a line that says what to do."""
    if not rows:
        return {}
    found = {}
    last = rows[-1]
    if last["truncated"] > 0.5:
        found["truncated"] = (
            f"{last['truncated']:.0%} of the rollouts were cut at {config.max_response} tokens: "
            "raise --max_response, or give --mask_truncated"
        )
    if last["mixed"] == 0:
        found["no signal"] = (
            "no group has mixed rewards, there is nothing to learn from: raise --n or --prompts, "
            "start from a later checkpoint, or take problems of another difficulty "
            "(python -m tools.difficulty)"
        )
    recent = rows[-WINDOW:]
    answered = sum(row["format"] for row in recent) / len(recent)
    right = sum(row["accuracy"] for row in recent) / len(recent)
    if len(recent) == WINDOW and answered > 0.8 and right < 0.02:
        found["format only"] = (
            f"{answered:.0%} of the rollouts have their box and {right:.1%} are right, over "
            f"{WINDOW} steps: the format is learned, the answer is not; give --format_score 0, "
            "start from a later checkpoint or after SFT"
        )
    return found


# ------------------------------------------------------------------------------------ the log


class StepLog:
    """One JSON line per step, samples now and then, and for people a line and the warnings."""

    def __init__(self, out: str, start: int, config):
        self.config = config
        self.log = Log(out, start)
        self.rollouts = Log(out, start, "rollouts") if config.save_rollouts else None
        self.rows = read_rows(self.log.path) if start else []  # the last ones, for the warnings

    def samples(self, groups, step: int) -> dict:
        """What goes into the log line beside the metrics: decoded samples, every so many steps.

        Every rollout of the step goes to a file of its own if the user wants it.
        """
        if self.rollouts:
            self.rollouts.write(step + 1, groups=all_rollouts(groups))
        if step % self.config.samples_every == 0:
            return {"samples": show_samples(groups)}
        return {}

    def write(self, done: int, metrics: dict, seconds: dict, samples: dict) -> None:
        """After `done` steps: the row, the warnings, and every log_every steps a line."""
        row = metrics | speed_metrics(seconds, metrics)
        self.log.write(done, **row, **samples)
        self.rows = [*self.rows, row][-2 * WINDOW :]
        for text in warnings(self.rows, self.config):
            print0(f"warning, step {done}: {text}")
        if done % self.config.log_every == 0 or done == self.config.steps:
            left = self.log.left(done, self.config.steps)
            print0(step_line(done, row, seconds, self.config) + left)


def step_line(done: int, row: dict, seconds: dict, config) -> str:
    """What people read of a step."""
    parts = [
        f"step {done:5d}/{config.steps}",
        f"reward {row['reward']:.3f}",
        f"right {row['accuracy']:.3f}",
        f"mixed {row['mixed']:.2f}",
        f"length {row['length']:.1f}",
        f"cut {row['truncated']:.2f}",
        f"surprise {row['surprise']:.3f}",
    ]
    if "sft_loss" in row:
        parts.append(f"sft loss {row['sft_loss']:.4f}")
    else:
        parts.append(f"kl {row['kl']:.4f}")
    if "val_accuracy" in row:
        parts.append(f"validation {row['val_accuracy']:.3f}")
    parts.append(f"{row['speed_sample']:,.0f} tok/s sampled")
    parts.append(f"{sum(seconds.values()):.2f} s")
    return " | ".join(parts)


def show_samples(groups, k: int = 2) -> list[dict]:
    """The first rollout of each of the first k groups, decoded and with its verdict."""
    shown = []
    for problem, texts, rewards in list(zip(groups.problems, groups.texts, groups.rewards))[:k]:
        shown.append(
            {
                "question": problem.question,
                "answer": problem.answer,
                "response": texts[0],
                "extracted": extract(texts[0], problem.kind),
                "reward": float(rewards[0]),
            }
        )
    return shown


def all_rollouts(groups) -> list[dict]:
    """Every rollout of the step on all ranks, group by group in the step's order.

    The log can be computed again from these.
    """
    mine = []
    for g, problem in enumerate(groups.problems):
        rollouts = groups.rollouts[g]
        mine.append(
            {
                "place": groups.places[g],
                "id": problem.id,
                "question": problem.question,
                "answer": problem.answer,
                "responses": groups.texts[g],
                "rewards": groups.rewards[g].tolist(),
                "right": groups.right[g].tolist(),
                "advantages": groups.advantages[g].tolist(),
                "finished": [rollout.finished for rollout in rollouts],
                "tokens": [rollout.tokens for rollout in rollouts],
                "logprobs": [rollout.logprobs for rollout in rollouts],
            }
        )
    everyones = []
    for share in gather_objects(mine):
        everyones.extend(share)
    return sorted(everyones, key=lambda row: row["place"])
