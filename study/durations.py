"""About how long the commands of a study take, for `--list` and for the time that is left."""

from plumbing.units import count

# Seconds of a toy command on one core of an AMD EPYC (Zen 4), measured on 2026-11-26: its start,
# and each step, or million tokens of pre-training, or thousand samples of an evaluation.
START = 4
SECONDS = {"pretrain": 35, "sft": 0.08, "grpo": 0.8, "parallel": 0.85, "evaluate": 2.2}
LARGE = 2.5  # times as long with the model toy-large
STEPS = {"sft": 300, "grpo": 50, "parallel": 50}  # of the toy preset


def seconds_of(words: list[str]) -> float:
    """About how long a command takes on one core, at toy scale."""
    if "tools.distance" in words:
        return START + 6
    if "tools.difficulty" in words:
        return START + 45
    scripts = [word for word in words if word.endswith(".py")]
    stage = scripts[0].removesuffix(".py") if scripts else ""
    if stage not in SECONDS:  # a link, say
        return 0.0
    return seconds_of_stage(stage, words) * (LARGE if "large" in " ".join(words) else 1.0)


def seconds_of_stage(stage: str, words: list[str]) -> float:
    """Of the toy model."""
    if stage == "pretrain":
        millions = count(flag(words, "--tokens", "3.6M")) / 1e6
        return START + SECONDS[stage] * millions
    if stage == "evaluate":
        samples = float(flag(words, "--problems", "200")) * float(flag(words, "--n", "32"))
        return START + 3 + SECONDS[stage] * samples / 1000
    steps = float(flag(words, "--steps", str(STEPS[stage])))
    return START + SECONDS[stage] * steps


def flag(words: list[str], name: str, default: str) -> str:
    """The value of a flag in a command; the last one counts."""
    value = default
    for word, following in zip(words, words[1:]):
        if word == name:
            value = following
    return value
