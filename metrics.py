"""What a step of RL says of itself: numbers over all ranks, warnings, decoded samples. README.md defines each metric.

Nothing here changes the training. Sums and maxima are taken on each rank and reduced once.
"""

import common
from data.grader import extract
from data.problems import answer_kind


def rollout_metrics(groups, config) -> dict:
    """What the step's rollouts were like, over all ranks and before any update. Shares lie between 0 and 1."""
    rollouts = [r for group in groups.rollouts for r in group]
    answered = [extract(text, answer_kind(p)) is not None for p, texts in zip(groups.problems, groups.texts) for text in texts]
    finished = [len(r.tokens) for r in rollouts if r.finished]
    sums = common.all_sum(
        len(rollouts),
        len(groups.problems),
        float(groups.rewards.double().sum()),
        int(groups.right.sum()),
        sum(answered),
        int(groups.right.any(1).sum()),
        int(groups.right.all(1).sum()),
        int((groups.advantages != 0).any(1).sum()),
        sum(len(r.tokens) for r in rollouts),
        len(finished),
        sum(finished),
        -sum(sum(r.logprobs) for r in rollouts),
    )
    n_rollouts, n_groups, rewards, right, boxed, any_right, all_right, mixed, tokens, n_finished, finished_tokens, surprise = sums
    longest, minus_shortest = common.all_max(*(max((f * len(r.tokens) for r in rollouts), default=-config.max_response) for f in (1, -1)))
    return {
        "reward": rewards / n_rollouts,
        "accuracy": right / n_rollouts,
        "format": boxed / n_rollouts,  # share that commits to an answer: a box
        "pass@n": any_right / n_groups,  # groups with a right answer
        "all_right": all_right / n_groups,
        "all_wrong": 1 - any_right / n_groups,
        "mixed": mixed / n_groups,  # groups whose rewards differ: the only ones to learn from
        "groups": n_groups,
        "length": tokens / n_rollouts,  # response tokens
        "length_min": -minus_shortest,
        "length_max": longest,
        "length_finished": finished_tokens / max(1, n_finished),  # of those that ended by themselves
        "truncated": 1 - n_finished / n_rollouts,
        "surprise": surprise / tokens,  # nats per token: mean of -log p of what was sampled, an estimate of the entropy
        "tokens": tokens,
    }


def update_metrics(sums: list[dict], norms: list[float]) -> dict:
    """Token sums (and maxima, named _max) of each mini-batch on this rank -> means over the step and all ranks."""
    summed, highest = ([name for name in sums[0] if name.endswith("_max") == is_max] for is_max in (False, True))
    maxima = [dict(zip(highest, common.all_max(*(one[name] for name in highest)))) for one in sums]
    sums = [dict(zip(summed, common.all_sum(*(one[name] for name in summed)))) for one in sums]
    total = {name: sum(one[name] for one in sums) for name in summed}
    scored = max(1, total["scored"])
    return {
        "loss": total["loss"] / len(sums),  # what was optimised, mean over the mini-batches
        "grad_norm": sum(norms) / len(norms),  # before the cut
        "clip_fraction": total["clip_fraction"] / scored,  # of the tokens that were scored
        "clipped_low": total["clipped_low"] / scored,
        "clipped_high": total["clipped_high"] / scored,
        "ratio": total["ratio"] / scored,
        "ratio_max": max(one["ratio_max"] for one in maxima),
        "kl": total["kl"] / scored,  # k3 to the reference, nats per token; 0 where there is no KL term
        "entropy": total["entropy"] / scored,  # of the trainer's distributions, nats per token; exact, but of the scored tokens only
        # |log-prob of the sampler - of the trainer|, in the first mini-batch: later ones have moved the weights
        "mismatch": sums[0]["mismatch"] / max(1, sums[0]["scored"]),
        "mismatch_max": maxima[0]["mismatch_max"],
        "scored": total["scored"],  # tokens that went through the trainer: without KL only those of groups with a signal
    }


def speed_metrics(seconds: dict, metrics: dict) -> dict:
    """Seconds of each phase, tokens per second of the two that take long, and the peak of the memory."""
    speeds = {"speed_sample": metrics["tokens"] / max(seconds["sample"], 1e-9), "speed_update": metrics["scored"] / max(seconds["update"], 1e-9)}
    return {f"seconds_{name}": value for name, value in seconds.items()} | speeds | {"memory": common.peak_memory()}


def warnings(rows: list[dict], config) -> list[str]:
    """What a user should know after the last of these log rows and did not have to be told after the one before."""
    before = conditions(rows[:-1], config)
    return [text for name, text in conditions(rows, config).items() if name not in before]


WINDOW = 5  # steps over which "nothing right" is judged


def conditions(rows: list[dict], config) -> dict[str, str]:
    """The conditions that hold after the last row, each with a line that says what to do."""
    if not rows:
        return {}
    last, recent = rows[-1], rows[-WINDOW:]
    mean = lambda name: sum(row[name] for row in recent) / len(recent)
    found = {}
    if last["truncated"] > 0.5:
        found["truncated"] = (
            f"{last['truncated']:.0%} of the rollouts were cut at {config.max_response} tokens: raise --max_response, or give --mask_truncated"
        )
    if last["mixed"] == 0:
        found["no signal"] = (
            "no group has mixed rewards, there is nothing to learn from: raise --n or --prompts, start from a later checkpoint, "
            "or take problems of another difficulty (evaluate.py --split_by_difficulty)"
        )
    if len(recent) == WINDOW and mean("format") > 0.8 and mean("accuracy") < 0.02:
        found["format only"] = (
            f"{mean('format'):.0%} of the rollouts have their box and {mean('accuracy'):.1%} are right, over {WINDOW} steps: the format is "
            "learned, the answer is not; give --format_score 0, start from a later checkpoint or after SFT"
        )
    return found


class StepLog:
    """One JSON line per step, samples now and then, and for people a line and the warnings."""

    def __init__(self, out: str, start: int, config):
        self.config, self.log = config, common.Log(out, start)
        self.rollouts = common.Log(out, start, "rollouts") if config.save_rollouts else None
        self.rows = common.read_rows(self.log.path) if start else []

    def samples(self, groups, step: int) -> dict:
        """Every rollout of a step to its file, if wanted -> the decoded ones for the log, every so many steps."""
        if self.rollouts:
            self.rollouts.write(step + 1, groups=all_rollouts(groups))
        return {"samples": show_samples(groups)} if step % self.config.samples_every == 0 else {}

    def write(self, done: int, metrics: dict, seconds: dict, samples: dict) -> None:
        config = self.config
        row = metrics | speed_metrics(seconds, metrics)
        self.log.write(done, **row, **samples)
        self.rows = [*self.rows, row][-2 * WINDOW :]
        for text in warnings(self.rows, config):
            common.print0(f"warning, step {done}: {text}")
        if done % config.log_every == 0 or done == config.steps:
            more = f" | sft loss {row['sft_loss']:.4f}" if "sft_loss" in row else f" | kl {row['kl']:.4f}"
            more += f" | validation {row['val_accuracy']:.3f}" if "val_accuracy" in row else ""
            common.print0(
                f"step {done:5d}/{config.steps} | reward {row['reward']:.3f} | right {row['accuracy']:.3f} | mixed {row['mixed']:.2f} | "
                f"length {row['length']:.1f} | cut {row['truncated']:.2f} | surprise {row['surprise']:.3f}{more} | "
                f"{row['speed_sample']:,.0f} tok/s sampled | {sum(seconds.values()):.2f} s"
            )


def show_samples(groups, k: int = 2) -> list[dict]:
    """A few decoded rollouts with their verdicts, for the log."""
    return [
        {"question": p.question, "answer": p.answer, "response": t[0], "extracted": extract(t[0], answer_kind(p)), "reward": float(r[0])}
        for p, t, r in list(zip(groups.problems, groups.texts, groups.rewards))[:k]
    ]


def all_rollouts(groups) -> list[dict]:
    """Every rollout of the step on all ranks, group by group in the step's order: from these the log can be computed again."""
    mine = [
        {
            "place": place, "id": p.id, "question": p.question, "answer": p.answer, "responses": texts, "rewards": rewards.tolist(),
            "right": right.tolist(), "advantages": advantages.tolist(), "finished": [r.finished for r in group],
            "tokens": [r.tokens for r in group], "logprobs": [r.logprobs for r in group],
        }
        for place, p, texts, rewards, right, advantages, group in zip(
            groups.place, groups.problems, groups.texts, groups.rewards, groups.right, groups.advantages, groups.rollouts
        )
    ]  # fmt: skip
    return sorted(sum(common.gather_objects(mine), []), key=lambda row: row["place"])
