"""Odd values: every flag of every stage gets them, one at a time, and ends in a line or in numbers.

The flags come from the Config dataclasses of the scripts as they are now, and from --help of those
that have none; values that no run can finish with (a million steps) only have to start.
"""

import dataclasses
import json
import math
import os
import random
import sys
import types
import typing
from functools import cache, partial
from pathlib import Path

from tests.faults import children
from tests.faults.stages import Stage
from tests.faults.trials import FINE, Trial, judged_end

INTS = ("-1", "0", "1", "7", "1000000", "9" * 30, "nan", "inf", "1.5", "1e3", "", "x", "--", "٣")
FLOATS = ("-1", "0", "-0.0", "1", "1e6", "1e-320", "1e400", "nan", "inf", "-inf", "", "x", "0x1p3")
# Never a place outside of the folder: some flags say where something is written.
TEXTS = ("", " ", "x", "0", "-1", "nan", ",", "toy,toy", "{folder}", "{folder}/", "{folder}/a/b")
TEXTS += ("{folder}/file/x", "a" * 300, "é☃", "\udcff")
NUMBERS_OF_TOKENS = ("-1", "0", "1", "1K", "1e3", "9" * 30, "nan", "inf", "1KK", "1.5K", "K", "x")
HUGE = ("1000000", "9" * 30, "1e6")
PATIENCE = 6.0  # seconds for which a command with a huge value is left to work

# script -> (the stage whose command it is, the flags that are not tried, each for its reason)
COMPILE = {"compile": "it takes a minute, and a compiler"}
SCRIPTS = {
    "pretrain": ("pretrain", COMPILE),
    "sft": ("sft", COMPILE),
    "grpo": ("rl-options", COMPILE),
    "parallel": ("parallel", COMPILE),
    "evaluate": ("evaluate", COMPILE),
    "difficulty": ("difficulty", COMPILE),
    "from-hf": ("from-hf", {}),
    "corpus": ("corpus", {}),
    "excursions": ("excursions", {}),
}
# Of the scripts that have no Config. Presets other than toy are of a size that no test can run.
OWN_FLAGS = {
    "corpus": {"source": str, "out": str, "tokenizer": str, "workers": int},
    "excursions": {"setting": str, "seeds": int, "only": str, "out": str, "workers": int}
    | {"nproc": int},
}


@cache
def types_of(script: str) -> dict[str, type]:
    """Flag -> its type."""
    if script in OWN_FLAGS:
        return OWN_FLAGS[script]
    files = {"difficulty": "tools/difficulty.py", "from-hf": "convert.py"}
    file = files.get(script, f"{script}.py")
    module = types.ModuleType(f"flags_of_{script}")
    module.__file__ = str(children.ROOT / file)
    sys.modules[module.__name__] = module
    exec(children.code_of(file), module.__dict__)
    left_out = SCRIPTS[script][1]
    found = {}
    for field in dataclasses.fields(module.Config):
        if field.name not in left_out:
            found[field.name] = field_type(field)
    return found


def field_type(field) -> type:
    if isinstance(field.type, types.UnionType):
        return next(kind for kind in typing.get_args(field.type) if kind is not type(None))
    return field.type


def values_of(script: str, flag: str) -> tuple[str, ...]:
    kind = types_of(script)[flag]
    if kind is bool:
        return ("--", "x", "1", "0", "")
    if kind is int:
        return INTS
    if kind is float:
        return FLOATS
    if (script, flag) == ("excursions", "out"):  # it goes to the project's folder before
        return tuple(text for text in TEXTS if "{folder}" in text)
    if flag in ("tokens", "keep", "warmup"):
        return NUMBERS_OF_TOKENS
    return TEXTS


@cache
def all_cases() -> list[tuple[str, str, str]]:
    """(script, flag, value) of all trials, in an order in which any stretch has a bit of each."""
    cases = []
    for script in SCRIPTS:
        for flag in types_of(script):
            for value in values_of(script, flag):
                cases.append((script, flag, value))
    random.Random(0).shuffle(cases)
    return cases


def names() -> set[str]:
    """What --only may name: a script, or one of its flags as grpo:kl."""
    found = set(SCRIPTS)
    for script in SCRIPTS:
        found.update(f"{script}:{flag}" for flag in types_of(script))
    return found


def trials(count: int, seed: int, only: str, world: Path, scratch: Path) -> list[Trial]:
    """`seed` is the number of the first case; 0 of them are all."""
    cases = all_cases()
    wanted = only.split(",") if only else list(SCRIPTS)
    found = []
    for i in range(len(cases)):
        number = (seed + i) % len(cases)
        script, flag, _ = cases[number]
        name = f"{script}:{flag}"
        if script in wanted or name in wanted:
            found.append(Trial("flags", name, number, partial(trial, world, scratch)))
    return found[: count or None]


def trial(world: Path, scratch: Path, number: int) -> tuple[str, str, str]:
    """One flag with one value, in a command that else works."""
    script, flag, value = all_cases()[number]
    stage = Stage(SCRIPTS[script][0], world, scratch)
    folder = stage.new_folder()
    (folder / "file").write_text("a file\n")
    value = value.format(folder=folder)
    argv = with_flag(stage.argv(folder), script, flag, value)
    words = f"{script} --{flag}={value[:40]!r}"
    seconds = PATIENCE if value in HUGE else children.SECONDS
    outcome = children.run(argv, seconds=seconds, before=lambda: os.chdir(folder))
    verdict = judged(outcome, folder, flag, value)
    return verdict, words, "" if verdict in (FINE, "refused") else outcome.end()


def with_flag(argv: list[str], script: str, flag: str, value: str) -> list[str]:
    """The command with this flag given once, so that its odd value is the one that counts."""
    argv = list(argv)
    if (script, flag) in (("corpus", "source"), ("from-hf", "source")):
        place = 1 if script == "corpus" else 2
        argv[place] = value
        return argv
    name = f"--{flag}"
    if name in argv:
        place = argv.index(name)
        is_switch = place + 1 == len(argv) or argv[place + 1].startswith("--")
        del argv[place : place + (1 if is_switch else 2)]
    if value == "--":  # the flag alone, at the end
        return [*argv, name]
    return [*argv, f"{name}={value}"]


def judged(outcome: children.Outcome, folder: Path, flag: str, value: str) -> str:
    if outcome.hung and value in HUGE:
        return FINE  # it has begun a long work
    if outcome.status != 0:
        names = [f"--{flag}", flag, repr(value)[1:-1], str(folder)]
        return judged_end(outcome, names=names)
    return FINE if all_finite(folder) else "not finite"


def all_finite(folder: Path) -> bool:
    """Whether all checkpoints and rows below the folder hold finite numbers."""
    import torch

    for path in folder.rglob("*.pt"):
        weights = torch.load(path, weights_only=True)["model"]
        if not all(bool(torch.isfinite(tensor).all()) for tensor in weights.values()):
            return False
    for path in folder.rglob("*.jsonl"):
        for line in path.read_text(errors="replace").splitlines():
            if not is_finite(json.loads(line)):
                return False
    return True


def is_finite(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(is_finite, value.values()))
    if isinstance(value, list):
        return all(map(is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)
