"""Whether a damaged file is still one of its format, which nobody could know to be damaged.

`Shape` compares with the sound file: the same keys with values of the same types, numbers finite.
A text that is another text is valid, a number in the place of a text is not (but see `loose`). So
what a user's file may say is not decided here; only where a file is certainly wrong, a command may
not take it in silence.
"""

import json
import math
import struct
from dataclasses import dataclass

TABLE = 20  # keys


@dataclass(frozen=True)
class Shape:
    """How a format's values may differ from the sound ones."""

    optional: frozenset = frozenset()  # keys that may be missing, or null
    nullable: frozenset = frozenset()  # keys whose value may be null, though they must be there
    # The ways to dicts whose keys may be missing: the flags of a run, which an older version of the
    # code did not have.
    free: frozenset = frozenset()
    loose: bool = False  # a number may stand for a text, and a text for a number
    more_keys: bool = True  # unknown keys are allowed
    tables: bool = False  # a dict of many keys is a table, whose keys are values too

    def fits(self, before: object, after: object, way: tuple = ()) -> bool:
        """Whether `after` may stand where `before` did, at this way from the whole."""
        key = way[-1] if way else None
        if after is None:
            return before is None or key in self.optional or key in self.nullable
        if before is None:
            return isinstance(after, (str, int)) and not isinstance(after, bool)
        if hasattr(before, "dtype"):
            return same_kind_of_tensor(before, after)
        if isinstance(before, bool) or isinstance(after, bool):
            return type(before) is type(after)
        if isinstance(before, dict):
            return isinstance(after, dict) and self.fits_dict(before, after, way)
        if isinstance(before, (list, tuple)):
            return isinstance(after, (list, tuple)) and self.fits_list(before, after, way)
        return self.fits_scalar(before, after)

    def fits_scalar(self, before: object, after: object) -> bool:
        if isinstance(after, float) and not math.isfinite(after):
            return False
        if isinstance(before, str):
            return isinstance(after, str) or (self.loose and isinstance(after, (int, float)))
        if isinstance(before, float):
            return isinstance(after, (int, float)) or (self.loose and isinstance(after, str))
        return isinstance(after, int) or (self.loose and isinstance(after, (str, float)))

    def fits_dict(self, before: dict, after: dict, way: tuple) -> bool:
        if self.tables and len(before) > TABLE:
            values = list(before.values())
            return all(self.fits(values[0], value, (*way, None)) for value in after.values())
        for key, value in before.items():
            if key not in after:
                if key not in self.optional and way not in self.free:
                    return False
            elif not self.fits(value, after[key], (*way, key)):
                return False
        return self.more_keys or after.keys() <= before.keys()

    def fits_list(self, before: list, after: list, way: tuple) -> bool:
        """Each item is like one of those before; a list of fixed items keeps its length."""
        if not before:
            return True
        for item in after:
            if not any(self.fits(other, item, way) for other in before[:8]):
                return False
        return True


def same_kind_of_tensor(before, after) -> bool:
    if not hasattr(after, "dtype") or after.layout != before.layout:
        return False
    if after.dtype != before.dtype or after.shape != before.shape:
        return False
    return bool(after.isfinite().all())


def parsed(text: bytes) -> object:
    """JSON, or ValueError."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("too deep") from None


def json_is_valid(sound: bytes, damaged: bytes, shape: Shape) -> bool:
    try:
        return shape.fits(parsed(sound), parsed(damaged))
    except ValueError:
        return False


def jsonl_is_valid(sound: bytes, damaged: bytes, shape: Shape, appended: bool) -> bool:
    """appended: what follows the last line break is a row that a kill has torn; it does not count."""
    samples = [parsed(line) for line in sound.splitlines()]
    lines = damaged.split(b"\n")
    if appended:
        lines = lines[:-1]
    try:
        rows = [parsed(line) for line in lines if line.strip()]
    except ValueError:
        return False
    for row in rows:
        if not any(shape.fits(sample, row) for sample in samples):
            return False
    return bool(rows) or appended


def safetensors_is_valid(sound: bytes, damaged: bytes) -> bool:
    """The same names, types and shapes, every byte of the file in use, all numbers finite (fp32)."""
    import numpy as np

    try:
        before, _ = safetensors_header(sound)
        after, numbers = safetensors_header(damaged)
    except (ValueError, KeyError, TypeError, AttributeError, struct.error):
        return False
    if before != after or len(sound) != len(damaged):
        return False
    return bool(np.isfinite(np.frombuffer(numbers, "<f4")).all())


def safetensors_header(data: bytes) -> tuple[dict, bytes]:
    (size,) = struct.unpack("<Q", data[:8])
    header = parsed(data[8 : 8 + size])
    header.pop("__metadata__", None)
    return header, data[8 + size :]


def tokenizer_is_valid(sound: bytes, damaged: bytes, shape: Shape) -> bool:
    """Besides the shape: no id twice."""
    if not json_is_valid(sound, damaged, shape):
        return False
    content = json.loads(damaged)
    ids = list(content["model"]["vocab"].values())
    added = [token["id"] for token in content["added_tokens"]]
    new = [
        token["id"]
        for token in content["added_tokens"]
        if token["content"] not in content["model"]["vocab"]
    ]
    return len(set(ids)) == len(ids) and len(set(added)) == len(added) and not set(ids) & set(new)


def python_is_valid(damaged: bytes) -> bool:
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(damaged, "reward.py", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
