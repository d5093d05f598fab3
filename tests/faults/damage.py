"""How a file is damaged: in its bytes, or in one of its values. Every damage is drawn from a seed."""

import copy
import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

# What strangers' files hold where one expects ASCII.
SNIPPETS = (b"\xef\xbb\xbf", b"\x00", b"\r\n", b"\n", b"\xff", b"\x80", b"\n\n", b'"', b"\\", b"}")
SNIPPETS += (
    b"{",
    b"[",
    b"]",
    b",",
    b":",
    b" ",
    b"9" * 30,
    b"NaN",
    b"-",
    b"null",
    b"\xe2\x82",
    b"1e999",
)
SNIPPETS += (b"\\ud800", b"[" * 20_000, b'{"a":' * 20_000)
DEEP = "[[deep]]"  # stands for 100,000 brackets in a value that is written as JSON
TEXTS = (
    "",
    " ",
    "x",
    "0",
    "-1",
    "nan",
    "a\x00b",
    "\ud800",
    "é☃",
    "y" * 100_000,
    "../x",
    "1e400",
    "\n",
)
NUMBERS = (0, 1, -1, 7, 10**30, -(10**30), 2**31, 2**63, 1.5, -0.5, math.nan, math.inf, -math.inf)
OTHERS = (None, True, False, [], {}, [None], {"a": 1}, [[[]]], DEEP)


@dataclass
class Damage:
    """A damaged content, and what is known of it."""

    content: bytes | dict
    words: str
    # Whether the damaged file is still one of its format, which means something else: nobody can
    # know that it is damaged. None: that has still to be found out, by reading it.
    valid: bool | None = None


# ------------------------------------------------------------------------------ bytes


def of_bytes(rng: random.Random, data: bytes) -> Damage:
    """One or two faults of the kinds that disks, copies and editors make."""
    words = []
    for _ in range(rng.choice((1, 1, 1, 2))):
        fault = rng.choice(BYTE_FAULTS)
        data, said = fault(rng, data)
        words.append(said)
    return Damage(data, ", ".join(words))


def place_in(rng: random.Random, data: bytes) -> int:
    """Anywhere; a third of the time at an end, where headers and directories are."""
    if rng.random() < 0.33:
        near = min(len(data), 400)
        return rng.choice((rng.randrange(near + 1), len(data) - rng.randrange(near + 1)))
    return rng.randrange(len(data) + 1)


def stretch_in(rng: random.Random, data: bytes) -> tuple[int, int]:
    start = min(place_in(rng, data), max(0, len(data) - 1))
    return start, min(len(data), start + int(2 ** rng.uniform(0, 13)))


def flip(rng, data):
    place = min(place_in(rng, data), len(data) - 1)
    bit = rng.randrange(8)
    flipped = bytes([data[place] ^ 1 << bit]) if data else b""
    return data[:place] + flipped + data[place + 1 :], f"bit {bit} of byte {place} flipped"


def cut(rng, data):
    place = place_in(rng, data)
    return data[:place], f"cut after {place} of {len(data)} bytes"


def insert(rng, data):
    place = place_in(rng, data)
    snippet = rng.choice(SNIPPETS)
    return data[:place] + snippet + data[place:], f"{snippet[:12]!r} inserted at {place}"


def zero(rng, data):
    start, end = stretch_in(rng, data)
    return data[:start] + bytes(end - start) + data[end:], f"bytes {start} to {end} zeroed"


def remove(rng, data):
    start, end = stretch_in(rng, data)
    return data[:start] + data[end:], f"bytes {start} to {end} removed"


def duplicate(rng, data):
    start, end = stretch_in(rng, data)
    return data[:end] + data[start:end] + data[end:], f"bytes {start} to {end} twice"


def swap(rng, data):
    start, end = stretch_in(rng, data)
    later = min(len(data), 2 * end - start)
    swapped = data[:start] + data[end:later] + data[start:end] + data[later:]
    return swapped, f"bytes {start} to {end} swapped with the next {later - end}"


BYTE_FAULTS = (flip, flip, cut, insert, insert, zero, remove, duplicate, swap)


# ------------------------------------------------------------------------------ values


def places(value: object, prefix: tuple = ()) -> list[tuple]:
    """The way to every value within, as keys and numbers; () is the whole."""
    found = [prefix]
    items = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for key, item in items[:200]:
        found += places(item, (*prefix, key))
    return found


def at(value: object, way: tuple) -> object:
    for key in way:
        value = value[key]
    return value


def draw_way(rng: random.Random, value: object) -> tuple:
    """As often a shallow place as a deep one, of which there are many more."""
    by_depth = {}
    for way in places(value):
        by_depth.setdefault(len(way), []).append(way)
    return rng.choice(by_depth[rng.choice(sorted(by_depth))])


def of_values(
    rng: random.Random, value: object, fits: Callable[[object, object, tuple], bool]
) -> tuple[object, str, bool]:
    """Replace, remove, rename or double one value -> (the new whole, in words, still valid).

    fits(before, after, way) says whether `after` may stand where `before` did.
    """
    whole = copy.copy(value) if not isinstance(value, (dict, list)) else copy.deepcopy(value)
    way = draw_way(rng, whole)
    if not way:
        new = rng.choice((*OTHERS, *NUMBERS, *TEXTS))
        return new, f"the whole is {shown(new)}", fits(whole, new, ())
    holder = at(whole, way[:-1])
    key = way[-1]
    before = holder[key]
    act = rng.choice(("replace", "replace", "replace", "remove", "rename", "double"))
    name = ".".join(map(str, way))
    if act == "remove":
        del holder[key]
        return whole, f"{name} removed", fits(value, whole, ())
    if act == "rename" and isinstance(holder, dict):
        holder[rng.choice((f"{key}_", str(key).upper(), f" {key}", ""))] = holder.pop(key)
        return whole, f"{name} renamed", fits(value, whole, ())
    if act == "double":
        if isinstance(holder, list):
            holder.insert(key, copy.deepcopy(before))
        else:
            holder[f"{key}2"] = copy.deepcopy(before)
        return whole, f"{name} doubled", fits(value, whole, ())
    new = draw_value(rng, before)
    holder[key] = new
    return whole, f"{name} is {shown(new)}", fits(before, new, way)


def draw_value(rng: random.Random, before: object) -> object:
    if hasattr(before, "dtype"):
        return draw_tensor(rng, before)
    kinds = rng.choice((OTHERS, NUMBERS, TEXTS))
    new = rng.choice(kinds)
    if isinstance(before, str) and rng.random() < 0.2:
        return before + rng.choice((" ", "x", "\u00a0"))
    if isinstance(before, int) and rng.random() < 0.2:
        return rng.choice((str(before), float(before), [before], before + 1))
    return new


def draw_tensor(rng: random.Random, tensor):
    """Another type or shape, numbers that are not finite, or no tensor at all."""
    import torch

    spoiled = tensor.clone()
    if spoiled.numel():
        spoiled.view(-1)[rng.randrange(spoiled.numel())] = rng.choice(
            (math.nan, math.inf, -math.inf)
        )
    return rng.choice(
        (
            spoiled,
            spoiled,
            tensor.double(),
            tensor.to(torch.int32),
            tensor.half(),
            tensor[:-1] if tensor.ndim else tensor,
            tensor.reshape(-1),
            tensor.reshape(1, *tensor.shape),
            torch.zeros(0),
            torch.zeros(1).expand(10**6, 10**6),  # 4 bytes in the file
            tensor.to_sparse() if tensor.ndim == 2 else tensor.bool(),
            tensor.tolist() if tensor.numel() < 100 else [],
            None,
            1.0,
        )
    )


def shown(value: object) -> str:
    if hasattr(value, "dtype"):
        return f"a tensor {value.dtype} {tuple(value.shape)}"
    return repr(value)[:40]


# ------------------------------------------------------------------------------ written down


def to_json(value: object) -> bytes:
    """As JSON; NaN and Infinity as Python writes them, lone surrogates as escapes."""
    text = json.dumps(value)
    return text.replace(f'"{DEEP}"', "[" * 100_000 + "]" * 100_000).encode()


def of_json(rng: random.Random, data: bytes, fits) -> Damage:
    value, words, valid = of_values(rng, json.loads(data), fits)
    return Damage(to_json(value), words, valid)


def of_jsonl(rng: random.Random, data: bytes, fits) -> Damage:
    """One value of one row."""
    lines = data.decode().splitlines()
    number = rng.randrange(len(lines))
    value, words, valid = of_values(rng, json.loads(lines[number]), fits)
    lines[number] = to_json(value).decode()
    return Damage(("\n".join(lines) + "\n").encode(), f"line {number + 1}: {words}", valid)
