"""Which flags help where a plan does not fit on its machine."""

from dataclasses import replace

from study.budget import ROOM, Plan
from study.costs import GIB
from study.stages import plan_stage


def advise(plan: Plan, config) -> list[str]:
    """The plan's warnings; where it does not fit, also which flags would make it fit.

    Checkpointing takes time, so it is named as an alternative where it would do alone.
    """
    if plan.fits():
        return plan.warnings
    seen = f"more than {ROOM:.0%} of the memory of one {plan.machine.gpu} is needed"
    for flags in remedies(plan, config):
        if with_flags(plan, config, flags).fits():
            return [
                *plan.warnings,
                f"{seen}: give{as_text(flags)}{checkpointing(plan, config, flags)}",
            ]
    nothing = "neither shorter passes, fewer pages nor more GPUs are enough; take a larger --gpu"
    return [*plan.warnings, f"{seen}: {nothing}"]


def remedies(plan: Plan, config):
    """Flags that save memory, the cheapest first.

    Shorter forward passes, fewer pages, checkpointing, more GPUs: each is tried with all of those
    before it.
    """
    shorter = [{}]
    for size in (16_384, 8192, 4096):
        if size < config.micro_tokens:
            shorter.append({"micro_tokens": size})
    fewer = [{}]
    if hasattr(config, "kv_memory"):
        fewer += [{"kv_memory": 0.2}, {"kv_memory": 0.1}]
    again = [{}]
    if can_checkpoint(config):
        again.append({"checkpoint_activations": True})
    more = [{}]
    for gpus in (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024):
        if gpus > plan.machine.gpus:
            more.append({"gpus": gpus})
    for gpus in more:
        for checkpointed in again:
            for pages in fewer:
                for micro in shorter:
                    yield micro | pages | checkpointed | gpus


def can_checkpoint(config) -> bool:
    """Does the stage have the flag, and is it off?"""
    return not getattr(config, "checkpoint_activations", True)


def with_flags(plan: Plan, config, flags: dict) -> Plan:
    """The plan of the same command with other flags, --gpus among them."""
    of_config = dict(flags)
    gpus = of_config.pop("gpus", plan.machine.gpus)
    machine = replace(plan.machine, gpus=gpus)
    return plan_stage(plan.name, replace(config, **of_config), plan.shape, machine)


def as_text(flags: dict) -> str:
    words = ""
    for name, value in flags.items():
        words += f" --{name}" if value is True else f" --{name} {value}"
    return words


def checkpointing(plan: Plan, config, flags: dict) -> str:
    """What checkpointing saves, where it is among the flags, or would do in their place."""
    if not can_checkpoint(config):
        return ""
    alone = with_flags(plan, config, {"checkpoint_activations": True})
    saved = f"saves {(plan.peak() - alone.peak()) / GIB:.1f} GiB"
    if "checkpoint_activations" in flags:
        return f" (checkpointing {saved})"
    if alone.fits():
        return f", or --checkpoint_activations, which {saved}"
    return ""
