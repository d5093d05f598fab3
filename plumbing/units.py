"""Numbers of tokens as people write them. Needs no torch."""

from data import UserError

SCALES = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


def is_whole(text: str) -> bool:
    """Whether it is written in the digits 0 to 9, and few of them; Python knows others, too."""
    return text.isascii() and text.isdigit() and len(text) < 16


def count(text: str) -> int:
    """`4B`, `250K`, `1.2M` or `1000` -> tokens. Raises UserError for anything else."""
    scale = 1.0
    digits = text
    if text[-1:].upper() in SCALES:
        scale = SCALES[text[-1].upper()]
        digits = text[:-1]
    try:
        return round(float(digits) * scale)
    except (ValueError, OverflowError):  # OverflowError: "inf"
        message = f"{text!r} is not a token count; write 250K, 1.2M or 4B"
        raise UserError(message) from None
