"""Between which values a number among the flags may lie. Needs no torch.

A bound in a round bracket is itself refused. Outside its range a flag would not fail, but quietly
do something else: a negative rate climbs the loss, a clip of 0 learns nothing.
"""

import dataclasses
import math

from data import UserError

RANGES = {
    # AdamW moves a weight by about the rate in every step: at 10 nothing is left of the start.
    "lr": "[0, 10]",
    "sft_lr": "[0, 10]",
    "floor": "[0, 1]",
    "beta2": "[0, 1)",
    "weight_decay": "[0, 1]",
    "grad_clip": "[0, inf)",  # 0 is off
    "z_loss": "[0, 1e6]",
    "kl": "[0, 1e6]",
    "entropy": "[0, 1e6]",
    "clip_low": "[0, 1]",  # of the ratio: 1 is no bound from below
    "clip_high": "[0, inf)",
    "dual_clip": "(1, inf)",  # or 0, which is off: a bound below 1 would cut where nothing moved
    "tis": "[0, inf)",
    "temperature": "[0.001, inf)",  # or 0; in between logits / temperature would overflow
    "top_p": "(0, 1]",
    "kv_memory": "(0, 1]",
}
OF_ZERO = dict.fromkeys(("grad_clip", "dual_clip", "tis", "kl", "z_loss", "entropy"), "0 is off")
OF_ZERO["temperature"] = "0 is greedy"
LARGEST = 2**53  # of a whole number, so that no sum of such numbers overflows
# Of what is held in a list: more would fill the memory, or take minutes, before anything is said.
LISTED = ("prompts", "n", "batch", "sft_batch", "interleave", "curriculum", "shots", "slots")
MOST = dict.fromkeys(LISTED, 10**7)
FP32 = (1e-37, 1e37)  # what a number that is not 0 becomes in fp32 is neither 0 nor infinite


def check_ranges(config) -> None:
    """Refuse numbers that are not finite, out of their range or too small. Raises UserError."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, float | int) and not isinstance(value, bool):
            check_number(field.name, value)
            least = smallest_value(field)
            if isinstance(value, int) and field.name != "seed" and value < least:
                raise UserError(f"--{field.name} {value} must be {least} or more")


def smallest_value(field: dataclasses.Field) -> int:
    """The smallest value of a flag that is a whole number.

    Where the default is 1 or more, the flag is a size or a number of steps, and 0 is a mistake.
    Where the default is 0 (or there is none), 0 has a meaning of its own: all, none or off.
    """
    if isinstance(field.default, int) and field.default > 0:
        return 1
    return 0


def check_number(name: str, value: float) -> None:
    if isinstance(value, int):
        most = MOST.get(name, LARGEST)
        if abs(value) > most:
            raise UserError(f"--{name} {value:.3g} is too large; give at most {most}")
    elif not math.isfinite(value):
        raise UserError(f"--{name} {value} is not a finite number")
    if name in RANGES and not (value == 0 and name in OF_ZERO):
        of_zero = f"; {OF_ZERO[name]}" if name in OF_ZERO else ""
        if not lies_in(value, RANGES[name]):
            raise UserError(f"--{name} {value} must lie in {RANGES[name]}{of_zero}")
    low, high = FP32
    if isinstance(value, float) and value != 0 and not low <= abs(value) <= high:
        raise UserError(f"--{name} {value} is no number in fp32; give one between {low} and {high}")


def lies_in(value: float, interval: str) -> bool:
    """lies_in(1, "[0, 1)") is False."""
    low, high = interval[1:-1].split(", ")
    above = value > float(low) or (value == float(low) and interval[0] == "[")
    below = value < float(high) or (value == float(high) and interval[-1] == "]")
    return above and below
