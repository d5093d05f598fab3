"""What a command would take, before you pay: `--plan` on any stage and on excursions.py.

    python pretrain.py --preset 1B --plan                   # 8 x H100 unless said otherwise
    python grpo.py --preset 4B --plan --gpus 16 --gpu a100 --price 1.5
    python excursions.py --preset 1B --plan --seeds 4       # the whole study as a table

It needs no GPU, no data and no checkpoint. It prints parameters, FLOPs, memory per GPU by part,
disk, hours, cost, and where it will not fit a warning with the flag that helps. What a run does is
read from its resolved Config (stages.py); the arithmetic is in costs.py, memory.py and budget.py.
What nobody can know before is an assumption with a flag: the share of the peak (--mfu), the tokens
of a response.
"""

import contextlib
import dataclasses
import importlib
import io
import os
import re
from dataclasses import dataclass

from data.files import only_print
from data.tokenizer import get_tokenizer
from model import PRESETS as MODELS
from model import ModelConfig
from plumbing.checkpoint import read_facts
from plumbing.flags import OneLineParser, check, field_comments, is_rank0, one_spelling, parse_flags
from plumbing.pretrain_setup import with_vocabulary
from study.advice import advise
from study.budget import Plan
from study.costs import GIB, KINDS, Machine, kv_bytes_per_token, parameters, training_flops
from study.stages import plan_stage


def main(script: str, argv: list[str]) -> None:
    """`python <stage>.py --plan ...`; under torchrun the first process speaks."""
    if not is_rank0():
        return
    only_print()
    stage = script.removesuffix(".py")
    _, flags_of_stage = read_machine(script, argv, "1B")
    config, shape = read_config(stage, flags_of_stage)
    machine, _ = read_machine(script, argv, config.preset)  # its defaults depend on the preset
    print_plan(plan_stage(stage, config, shape, machine), config)


# ---------------------------------------------------------------------------------- flags


def read_machine(
    script: str, argv: list[str], preset: str, gpus: int = 1
) -> tuple[Machine, list[str]]:
    """Take the flags of the machine out of argv. -> (the machine, the rest)

    They are no part of a run: no Config and no checkpoint has them. gpus: processes of a command.
    """
    defaults = {"gpus": gpus if gpus > 1 else 8}
    if preset in ("toy", "toy-large"):
        defaults = {"gpus": gpus, "gpu": "cpu"}
    if preset == "small":
        defaults = {"gpus": gpus, "mfu": 0.15}  # small matrices reach less
    comments = field_comments(Machine)
    description = "With --plan, besides the script's own flags:"
    parser = OneLineParser(prog=script, allow_abbrev=False, description=description)
    parser.add_argument(
        "--plan", action="store_true", help="print what the command would take, and stop"
    )
    for field in dataclasses.fields(Machine):
        default = defaults.get(field.name, field.default)
        parser.add_argument(
            f"--{field.name}",
            type=field.type,
            default=default,
            choices=KINDS if field.name == "gpu" else None,
            help=f"{comments[field.name]} (default {default})",
        )
    flags, rest = parser.parse_known_args([one_spelling(arg) for arg in argv])
    values = vars(flags)
    del values["plan"]
    machine = Machine(**values)
    for name in ("gpus", "expected_length", "expected_prompt"):
        value = getattr(machine, name)
        check(value >= 1, f"--{name} {value} must be 1 or more")
    for name in ("mfu", "bandwidth"):
        value = getattr(machine, name)
        check(0 < value <= 1, f"--{name} {value} is a share of the peak: above 0, up to 1")
    return machine, rest


def read_config(stage: str, argv: list[str], preset: str = "") -> tuple:
    """A stage's flags -> (its resolved Config, the model's shape).

    The checkpoint need not be there. The path of one that is not still says something:
    `out/toy/3.6M.sft.pt` is of preset toy, and it was fine-tuned. `preset` overrules the path.
    """
    module = importlib.import_module(stage)
    argv = list(argv)
    parent = None
    shape = None
    fields = [field.name for field in dataclasses.fields(module.Config)]
    if "ckpt" in fields:
        path = path_of_checkpoint(argv)
        if os.path.exists(path) and not preset:
            shape = ModelConfig(**read_facts(path)["model"])
        else:
            parent = guessed_facts(path, preset, module.Config.preset)
        if not path:
            argv += ["--ckpt", "M_t.pt"]
    settings = getattr(module, "SETTINGS", {})
    after_sft = getattr(module, "AFTER_SFT", None)
    config = parse_flags(module.Config, module.PRESETS, settings, argv, after_sft, parent)
    if shape is None:
        shape = shape_of(config.preset, getattr(config, "tokenizer", "toy"))
    return config, shape


def path_of_checkpoint(argv: list[str]) -> str:
    """The last --ckpt of a command line, or ""."""
    path = ""
    for flag, value in zip(argv, [*argv[1:], ""]):
        if flag == "--ckpt":
            path = value
        elif flag.startswith("--ckpt="):
            path = flag.removeprefix("--ckpt=")
    return path


def guessed_facts(path: str, preset: str, default: str) -> dict:
    """What the path of a checkpoint says: the folder its preset, the file's name its recipe."""
    folder = os.path.basename(os.path.dirname(path))
    if not preset:
        preset = folder if folder in MODELS else default
    return {"preset": preset, "recipe": os.path.basename(path)}


def shape_of(preset: str, tokenizer: str) -> ModelConfig:
    """The model of a preset; where it leaves the vocabulary open, the tokenizer decides."""
    shape = MODELS[preset]
    if shape.vocab_size:
        return shape
    if tokenizer == "dolma2":
        vocab = ModelConfig().vocab_size  # without fetching the tokenizer
    else:
        vocab = get_tokenizer(tokenizer).n_vocab
    return with_vocabulary(shape, vocab)


# ---------------------------------------------------------------------------------- one command


def print_plan(plan: Plan, config) -> None:
    shape = plan.shape
    machine = plan.machine
    P = parameters(shape)
    context = getattr(config, "seq_len", shape.max_seq_len)
    kv = kv_bytes_per_token(shape, machine.on_cpu) / 1024
    flops = training_flops(shape, 1, context)
    print(
        f"\n{P['all']:,} parameters, {P['matmul']:,} of them in matrix products; "
        f"{kv:g} KiB of KV per token"
    )
    print(
        f"{flops:.3g} FLOPs per token of training at {context:,} tokens of context (full attention)"
    )
    print(machine)
    print_work(plan)
    print_memory(plan)
    disk = {**plan.disk, "while running": plan.passing, "token shards": plan.shared}
    parts = []
    for name, bytes_ in disk.items():
        if bytes_:
            parts.append(f"{name} {size_text(bytes_)}")
    print(f"\ndisk: {'; '.join(parts)}")
    for note in plan.notes:
        print(f"note: {note}")
    for warning in advise(plan, config):
        print(f"warning: {warning}")


def print_work(plan: Plan) -> None:
    machine = plan.machine
    header = f"{'work':<34}{'tokens':>10}{'FLOPs':>10}{'GPU hours':>12}{'time':>12}{'cost':>10}"
    print(f"\n{header}")
    for name, tokens, flops, gpu_seconds in [*plan.phases, plan.total()]:
        gpu_hours = gpu_seconds / 3600
        time = time_text(gpu_seconds / machine.gpus)
        cost = machine.dollars(gpu_seconds)
        amounts = f"{tokens:>10.3g}{flops:>10.2e}{gpu_hours:>12,.2f}{time:>12}{cost:>10,.0f}"
        print(f"  {name:<32}{amounts}")


def print_memory(plan: Plan) -> None:
    print("\nmemory per GPU, GiB")
    for name, bytes_ in plan.memory.items():
        print(f"  {name:<72}{bytes_ / GIB:>8.2f}")
    for when, parts in plan.peaks.items():
        for name, bytes_ in parts.items():
            print(f"  {name + ', ' + when:<72}{bytes_ / GIB:>8.2f}")
    verdict = "fits" if plan.fits() else "DOES NOT FIT"
    room = plan.machine.kind.memory
    print(f"  {'peak':<72}{plan.peak() / GIB:>8.2f}  of {room}: {verdict}")


def time_text(seconds: float) -> str:
    return in_largest_unit(seconds, [("h", 3600), ("min", 60), ("s", 1)])


def size_text(bytes_: float) -> str:
    return in_largest_unit(bytes_, [("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("KB", 1e3)])


def in_largest_unit(value: float, units: list[tuple[str, float]]) -> str:
    """units: from large to small. The first that the value has one of, or else the last."""
    fitting = [(unit, scale) for unit, scale in units if value >= scale]
    unit, scale = fitting[0] if fitting else units[-1]
    return f"{value / scale:,.1f} {unit}"


# ---------------------------------------------------------------------------------- a study


@dataclass
class Line:
    """A line of the table: the sums of all commands of a kind."""

    commands: float = 0
    tokens: float = 0.0
    flops: float = 0.0
    gpu_seconds: float = 0.0
    disk: float = 0.0  # bytes

    def add(self, plan: Plan) -> None:
        total = plan.total()
        self.commands += 1
        self.tokens += total.tokens
        self.flops += total.flops
        self.gpu_seconds += total.gpu_seconds
        self.disk += sum(plan.disk.values())

    def shared_by(self, n: int) -> "Line":
        return Line(*[value / n for value in dataclasses.astuple(self)])

    def text(self, kind: str, machine: Machine) -> str:
        time = time_text(self.gpu_seconds / machine.gpus)
        cost = machine.dollars(self.gpu_seconds)
        return (
            f"{kind:<16}{self.commands:>9.0f}{self.tokens:>10.3g}{self.flops:>10.2e}"
            f"{self.gpu_seconds / 3600:>11,.1f}{time:>12}{size_text(self.disk):>11}{cost:>11,.0f}"
        )


def print_study(jobs: list, args, machine: Machine) -> None:
    """A line for each kind of command, sums per seed and over all. jobs: see study/runner.py."""
    lines = {}  # kind -> Line
    total = Line()
    warnings = {}  # warning -> the kinds that it is about
    shared = 0.0
    passing = 0.0
    for job in jobs:
        if job.kind in ("", "distance"):  # another name of a checkpoint, or a minute's measure
            continue
        plan, config = plan_job(job, args.preset, machine)
        kind = job.kind
        lines.setdefault(kind, Line()).add(plan)
        total.add(plan)
        shared = max(shared, plan.shared)
        passing = max(passing, plan.passing)
        for warning in advise(plan, config):
            kinds = warnings.setdefault(warning, [])
            if kind not in kinds:
                kinds.append(kind)
    if args.seeds > 1:
        lines["per seed"] = total.shared_by(args.seeds)
    lines["in all"] = total

    print(f"study {args.preset}, setting {args.setting}, seeds: {args.seeds}\n{machine}")
    print(
        f"assumed: prompts of {machine.expected_prompt} tokens, "
        f"responses of {machine.expected_length} (less where limits are short;\n"
        "base checkpoints asked with examples go on to the limit). "
        "Not counted: start-up, grading, saving, runs that fail\n"
    )
    print(
        f"{'kind':<16}{'commands':>9}{'tokens':>10}{'FLOPs':>10}"
        f"{'GPU hours':>11}{'time':>12}{'disk':>11}{'cost, $':>11}"
    )
    for kind, line in lines.items():
        print(line.text(kind, machine))
    print(
        f"\ndisk besides: token shards {size_text(shared)} once, "
        f"{size_text(passing)} while a command runs"
    )
    for warning, kinds in warnings.items():
        print(f"warning, {', '.join(kinds)}: {warning}")
    if any(re.search("--(micro_tokens|kv_memory|checkpoint)", warning) for warning in warnings):
        print(
            "(the study's commands are given no such flag; it changes no result: put it into the "
            "PRESETS of these scripts, or take a larger --gpu)"
        )


def plan_job(job, preset: str, machine: Machine) -> tuple:
    """-> (the plan of its command, the Config)"""
    script = 0
    while not job.command[script].endswith(".py"):
        script += 1
    stage = job.command[script].removesuffix(".py")
    with contextlib.redirect_stdout(io.StringIO()):  # without the values of its Config
        config, shape = read_config(stage, job.command[script + 1 :], preset)
    return plan_stage(stage, config, shape, machine), config
