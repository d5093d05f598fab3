"""From the command line to a Config, and from an exception to one line for the user.

A script is: a frozen dataclass Config on its first screen, PRESETS and SETTINGS beside it,
functions, `main(config)`, and `launch(main, Config, ...)` at the end. The value of a field is its
default, overridden by the preset (scale), then by the setting (fidelity to the paper), then by a
flag. The values are printed at the start, each with its origin.
"""

import argparse
import contextlib
import dataclasses
import difflib
import importlib
import inspect
import json
import os
import re
import sys
import time
import types
import typing

import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import record

from data import UserError
from plumbing import track, watchdog
from plumbing.checkpoint import read_facts
from plumbing.ranges import check_ranges, smallest_value
from plumbing.ranks import rank, start_processes, world


@record  # torchrun shows the traceback of the rank that failed first
def launch(main, Config, presets: dict, settings: dict | None = None, after_sft=None) -> None:
    """Parse the flags, start the processes, run main(config).

    What the user can mend (UserError, OSError, Ctrl-C) ends in one line, anything else in a
    traceback. With --plan nothing is run: study/plan.py prints what the command would take.
    """
    script = os.path.basename(sys.argv[0])
    argv = sys.argv[1:]
    try:
        if "--plan" in argv:
            return importlib.import_module("study.plan").main(script, argv)
        config = parse_flags(Config, presets, settings or {}, argv, after_sft)
        if getattr(config, "compile", False):
            from plumbing.prepare import check_compiler

            check_compiler()  # now, and not when data have been prepared for hours
        track.prepare(getattr(config, "wandb", ""), dataclasses.asdict(config))
        start_processes()
        main(config)
    except (UserError, OSError) as error:
        leave(f"{script}: {error}")
    except KeyboardInterrupt:
        leave(f"{script}: interrupted; the same command goes on from the last save")
    except Exception as error:
        if hasattr(error, "one_line"):  # of a user's own function (plumbing/own_reward.py)
            leave(f"{script}: {error.one_line}")
        if not isinstance(error, RuntimeError):
            raise
        if watchdog.has_left():  # another rank has said why, and this one missed it
            sys.exit(1)
        if world() > 1:  # a collective that failed or waited too long says neither who nor where
            first_line = str(error).splitlines()[0]
            print(
                f"{script}: rank {rank()} in {watchdog.status()!r}: "
                f"{first_line}{watchdog.elsewhere()}",
                file=sys.stderr,
                flush=True,
            )
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def check(condition: bool, message: str) -> None:
    """Refuse what cannot work before work starts: raises UserError."""
    if not condition:
        raise UserError(message)


def leave(message: str) -> None:
    """End the program with one line.

    Mostly every rank meets the same error, and the first that meets it says it for all. torchrun
    adds a report of its own, whose last lines say it again.
    """
    tell_torchrun(message)
    says_it = is_rank0() if world() == 1 else watchdog.leaves_first()
    sys.exit(message if says_it else 1)


def tell_torchrun(message: str) -> None:
    """Let the report of torchrun hold this line, where it would hold a traceback."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not path:
        return
    extra = {"py_callstack": message, "timestamp": str(int(time.time()))}
    with contextlib.suppress(OSError), open(path, "w") as file:  # the report can do without
        json.dump({"message": {"message": message, "extraInfo": extra}}, file)


def is_rank0() -> bool:
    """Like ranks.rank() == 0, also before the processes have been started."""
    return int(os.environ.get("RANK", 0)) == 0


# ------------------------------------------------------------------------------------ parsing


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message):
        leave(f"{self.prog}: {message}; --help lists the flags")


def parse_flags(
    Config,
    presets: dict,
    settings: dict,
    argv: list[str],
    after_sft: dict | None = None,
    parent: dict | None = None,
):
    """argv -> Config.

    presets, settings: name -> the values it sets. after_sft: (setting, preset) -> values that hold
    where the parent checkpoint was fine-tuned. parent: the facts of the parent checkpoint; where
    they are not given they are read from --ckpt. The values are printed, each with its origin, when
    nothing is wrong with them: somebody who mistyped one has one line to read. Raises UserError
    where a number is out of its range, and what Config.check raises, if there is such a method.
    """
    fields = fields_of(Config)
    comments = field_comments(Config)
    parser = make_parser(Config, fields, comments)
    flags, unknown = parser.parse_known_args([one_spelling(arg) for arg in argv])
    if unknown:
        parser.error(f"unknown flag {unknown[0]}{did_you_mean(unknown[0], fields)}")
    flags = vars(flags)
    check_values(parser, fields, comments, flags)

    if "ckpt" not in flags:
        parent = {"preset": fields["preset"].default, "recipe": "base"}
    elif not parent:
        parent = read_facts(flags["ckpt"])
    preset = flags.get("preset") or parent["preset"]
    if preset not in presets:
        parser.error(f"unknown preset {preset}; there are {', '.join(presets)}")
    setting = None
    if "setting" in fields:
        setting = flags.get("setting") or fields["setting"].default
        if setting not in settings:
            parser.error(f"unknown setting {setting}; there are {', '.join(settings)}")

    layers = {f"preset {preset}": {**presets[preset], "preset": preset}}  # later ones win
    if setting:
        layers[f"setting {setting}"] = settings[setting]
        if after_sft and "sft" in parent["recipe"]:  # sft, sft-gold, and what was made of them
            layers[f"setting {setting}, after SFT"] = after_sft.get((setting, preset), {})
    layers["flag"] = flags
    values = {}
    origins = {}
    for origin, layer in layers.items():
        values.update(layer)
        origins.update(dict.fromkeys(layer, origin))
    config = Config(**values)
    check_ranges(config)
    if hasattr(config, "check"):
        config.check()
    if is_rank0():
        print_config(config, origins)
    return config


def make_config(stage, preset: str = "toy", setting: str = "controlled", **values):
    """The Config of a stage for use in Python, with a preset's values: make_config(grpo, n=8).

    A Config without a preset has the values of the paper's scale. Nothing is printed. Raises
    UserError as parse_flags does.
    """
    fields = fields_of(stage.Config)
    chosen = {"ckpt": ""} if "ckpt" in fields else {}
    chosen |= stage.PRESETS[preset] | {"preset": preset}
    if "setting" in fields:
        chosen |= stage.SETTINGS[setting] | {"setting": setting}
    config = stage.Config(**(chosen | values))
    check_ranges(config)
    if hasattr(config, "check"):
        config.check()
    return config


def print_config(config, origins: dict) -> None:
    """One line for each value, and where it comes from unless it is the default."""
    for name in fields_of(type(config)):
        value = getattr(config, name)
        print(f"  {name:<16} {value!s:<24} {origins.get(name, '')}".rstrip())


def fields_of(Config) -> dict[str, dataclasses.Field]:
    """Name -> field: first those that the class itself has, then the inherited ones."""
    fields = {field.name: field for field in dataclasses.fields(Config)}
    ordered = {}
    for cls in Config.__mro__:
        for name in cls.__dict__.get("__annotations__", {}):
            ordered.setdefault(name, fields[name])
    return ordered


def field_comments(Config) -> dict[str, str]:
    """Field -> the comment on its line, which is its help. A subclass's comment wins."""
    comments = {}
    for cls in reversed(Config.__mro__):
        if dataclasses.is_dataclass(cls):
            source = inspect.getsource(cls)
            comments.update(re.findall(r"^    (\w+): .*?  # (.*)$", source, re.MULTILINE))
    return comments


FIRST_GROUP = "what"  # of --help


def field_groups(Config) -> dict[str, str]:
    """Field -> the group that --help shows it in: the comment on a line of its own above it."""
    groups = {}
    for cls in reversed(Config.__mro__):
        if not dataclasses.is_dataclass(cls):
            continue
        group = FIRST_GROUP
        for line in inspect.getsource(cls).splitlines():
            heading = re.match(r"    # (.*)$", line)
            field = re.match(r"    (\w+): ", line)
            if heading:
                group = heading[1]
            elif field:
                groups[field[1]] = group
    return groups


# Other spellings of a flag.
ALIASES = {
    "n": ["--samples"],  # torchrun takes --n for an abbreviation of flags of its own
    "task": ["--data"],  # as the problems are called in training
}


def make_parser(Config, fields: dict, comments: dict) -> OneLineParser:
    parser = OneLineParser(
        description=inspect.getmodule(Config).__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    needed = [f"--{name} {name.upper()}" for name in fields if is_needed(fields[name])]
    parser.usage = " ".join([parser.prog, *needed, "[--flag value ...]"])
    parser.epilog = (
        "In [brackets]: the value at the paper's scale, 1B. Presets and settings change some of "
        "them; a run\nprints its values and where each comes from. --plan prints what it would "
        "take instead: time,\nmemory, disk, cost; --plan --help its flags"
    )
    of_fields = field_groups(Config)
    groups = {}
    for name, field in fields.items():
        title = of_fields[name]
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        add = groups[title].add_argument
        help_text = comments.get(name, "")
        if field.default not in (None, "", dataclasses.MISSING):
            help_text = f"[{field.default}] {help_text}"
        # SUPPRESS: a flag that is not given leaves no value, so that the preset's holds.
        options = {"help": help_text.replace("%", "%%"), "default": argparse.SUPPRESS}
        kind = field_type(field)
        if kind is bool:
            add(f"--{name}", action=argparse.BooleanOptionalAction, **options)
            continue
        names = [f"--{name}", *ALIASES.get(name, [])]
        options["metavar"] = kind.__name__.upper()
        add(*names, dest=name, type=kind, **options)
    return parser


def did_you_mean(flag: str, fields: dict) -> str:
    name = flag.lstrip("-").split("=")[0]
    near = difflib.get_close_matches(name, fields, 1)
    return f", did you mean --{near[0]}?" if near else ""


def is_needed(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING


def check_values(parser: OneLineParser, fields: dict, comments: dict, flags: dict) -> None:
    """Refuse a missing flag that has no default, and whole numbers that are too small."""
    for name, field in fields.items():
        if name not in flags:
            if is_needed(field):
                parser.error(f"--{name} is needed: {comments.get(name, '')}")
        elif field_type(field) is int and name != "seed":
            least = smallest_value(field)
            if flags[name] < least:
                parser.error(f"--{name} {flags[name]} must be {least} or more")


def one_spelling(arg: str) -> str:
    """--top-p=0.5 -> --top_p=0.5, and --no_progress -> --no-progress, as argparse writes it.

    Values stay as they are.
    """
    if not arg.startswith("--"):
        return arg
    name, equals, value = arg[2:].partition("=")
    name = name.replace("-", "_")
    if name.startswith("no_"):
        name = name.replace("no_", "no-", 1)
    return f"--{name}{equals}{value}"


def field_type(field: dataclasses.Field) -> type:
    """`int` for a field of type `int`, and for one of `int | None`."""
    if isinstance(field.type, types.UnionType):
        return next(kind for kind in typing.get_args(field.type) if kind is not type(None))
    return field.type
