"""What a command would take, before you pay: `--plan` on any stage and on excursions.py. No GPU, no data, no checkpoint.

    python pretrain.py --preset 1B --plan                              # 8 x H100 unless said otherwise
    python grpo.py --preset 4B --plan --gpus 16 --gpu a100 --price 1.5
    python excursions.py --preset 1B --plan --seeds 4                  # the whole study as a table

Parameters, FLOPs, memory per GPU by part, disk, hours, cost, and a warning with the flag that helps where it will not fit.
What a run does is read from its resolved Config; the arithmetic is costs.py's. What nobody can know before is an assumption
with a flag: the share of the peak (--mfu), the tokens of a response.
"""

import contextlib
import dataclasses
import importlib
import inspect
import io
import itertools
import math
import os
import re
from dataclasses import replace
from types import SimpleNamespace

import common
from common import check
from costs import COPY, GIB, KINDS, ROOM, Machine, Plan, copy_bytes, forward_flops, hold_training, kv_bytes_per_token, parameters, sample, store
from costs import train_flops
from data.benchmarks import BENCHMARKS
from data.mixes import MIXES
from data.problems import DOCUMENTED, NAMES
from data.tokenizer import get_tokenizer
from model import PRESETS as MODELS
from model import ModelConfig, read_facts

# ---------------------------------------------------------------------------------------------- the stages


def check_length(plan: Plan, *what) -> None:
    common.check_length(SimpleNamespace(config=plan.shape), *what)


def plan_pretrain(plan: Plan, config) -> None:
    per_step = config.batch * config.seq_len
    steps = -(-common.count(config.tokens) // per_step)
    check_length(plan, config.seq_len, "--seq_len")
    late = [t for t in config.keep.split(",") if common.count(t) > common.count(config.tokens)]
    check(not late, f"--keep {','.join(late)} lies beyond --tokens {config.tokens}")
    plan.train("update", steps * per_step, config.seq_len)
    rows = min(max(1, config.micro_tokens // config.seq_len), -(-config.batch // plan.machine.gpus))  # of one forward pass
    hold_training(plan, rows * config.seq_len, rows * (config.seq_len - 1), config.seq_len)
    store(plan, len(config.keep.split(",")), 2, 120 * steps)
    budget = {"dolmino-50B": 51.5e9, "dolmino-60B": 62.2e9}  # the mixes' tokens, data/mixes.py; uint32 each, the toy world's uint16
    plan.shared = 4 * budget[config.data] if config.data in MIXES else (2 if config.data == "toy" else 4) * steps * per_step


def plan_sft(plan: Plan, config) -> None:
    prompt, response = plan.machine.expected(config.max_prompt, config.max_response)
    check_length(plan, config.max_prompt + config.max_response)
    solutions = config.steps * config.batch
    tokens, predicted = solutions * (prompt + response), solutions * response
    plan.train("update", tokens, prompt + response, predicted)
    pass_tokens = min(config.micro_tokens, tokens / config.steps / plan.machine.gpus)  # of one forward pass
    hold_training(plan, pass_tokens, pass_tokens * predicted / tokens, prompt + response)
    store(plan, 1, 2, 150 * config.steps)


def plan_rl(plan: Plan, config, moments: int = 2, weight_copies: int = 0) -> None:
    """GRPO. Prompts stand once per group in old log-probs, reference and update; all groups are counted, though without KL those
    of equal rewards are not computed."""
    shape, P, (prompt, response) = plan.shape, parameters(plan.shape), plan.machine.expected(config.max_prompt, config.max_response)
    check_length(plan, config.max_prompt + config.max_response)
    rounds, context = 1 + config.dynamic_sampling, prompt + response
    predicted = config.steps * config.prompts * config.n * response
    tokens = predicted + config.steps * config.prompts * prompt
    pass_tokens = min(config.micro_tokens, tokens / config.steps / config.mini_batches / plan.machine.gpus)
    through_head = pass_tokens * predicted / tokens
    hold_training(plan, pass_tokens, through_head, context, moments, weight_copies, keys=through_head / response * context)
    if plan.machine.gpu != "cpu":
        plan.memory[COPY] = copy_bytes(shape, plan.fp32_head)
    if config.kl:
        plan.memory["reference, fp32, sharded"] = 4 * P["all"] / plan.machine.gpus
    how = (prompt, response, config.slots, config.max_prompt + config.max_response)
    sample(plan, "sampling", config.prompts, config.n, *how, times=config.steps * rounds)
    if config.val_every:
        sample(plan, "validation", config.val, 1, *how, times=-(-config.steps // config.val_every))
    if config.mini_batches > 1 and config.recompute_old:
        plan.compute("old log-probs", tokens, forward_flops(shape, tokens, context, predicted))
    if config.kl:
        plan.compute("reference log-probs", tokens, forward_flops(shape, tokens, context, predicted))
    plan.train("update", tokens, context, predicted)
    reference = 4 * P["all"] if config.ref_every else 0
    # a log line is about 1.2 KB, two decoded samples 3 KB; a saved token with its log-prob and text about 35 bytes
    store(plan, 1, moments, config.steps * (1200 + 3000 / config.samples_every) + 35 * predicted * config.save_rollouts, reference)
    if config.dynamic_sampling:
        plan.notes.append(f"sampling counts all {rounds} rounds of --dynamic_sampling, the most there can be")


def plan_parallel(plan: Plan, config) -> None:
    import parallel

    averaging = config.mode == "parallel"  # two AdamW, and a copy of the weights between the halves
    plan_rl(plan, config, moments=4 if averaging else 2, weight_copies=int(averaging))
    alternating = config.mode in ("interleave", "curriculum")
    batches = parallel.sft_before(config, config.steps - 1).stop if alternating else config.steps * config.mini_batches
    prompt, response = plan.machine.expected(config.max_prompt, config.max_response)
    tokens = batches * config.sft_batch * (prompt + response)
    plan.train("SFT update", tokens, prompt + response, batches * config.sft_batch * response)


# tokens of an item, its choices' among them, which share the context: rough means under dolma2; the numbers of items are documented
ITEM_TOKENS = {"lambada": 87, "hellaswag": 180, "arc_easy": 50, "arc_challenge": 60, "piqa": 65, "openbookqa": 40}


def plan_evaluate(plan: Plan, config) -> None:
    """Sampling from problems, and one forward pass over every item of a benchmark. Nothing is trained."""
    shape, P, toy = plan.shape, parameters(plan.shape), config.preset in ("toy", "small")
    plan.memory["weights, fp32, whole"] = 4 * P["all"]
    if plan.machine.gpu != "cpu":
        plan.memory[COPY] = copy_bytes(shape)
    rows, tasks = 5000.0, (config.data or config.task).split(",")
    if config.split_by_difficulty:  # asks the training problems only
        tasks = [task for task in tasks if task != "general" and task not in BENCHMARKS]
    for task in (name for t in tasks for name in (BENCHMARKS if t == "general" and not toy else [t])):
        if task in BENCHMARKS or task == "general":  # the latter: 600 items and 200 texts of the embedded world
            items = min(config.problems or math.inf, BENCHMARKS[task].n_items if task in BENCHMARKS else 800)
            tokens = items * ITEM_TOKENS.get(task, 50)
            plan.compute(task, tokens, forward_flops(shape, tokens, 100, tokens / 2))
            parts = {"one block's tensors": min(config.micro_tokens, tokens) * 2 * (6 * shape.d_model + 3 * shape.d_ff)}
            plan.peaks["scoring"] = parts | {"logits of 1,024 tokens": 3 * 4 * 1024 * shape.vocab_size}
            rows += items
            continue
        check_length(plan, config.max_response + 1, "a prompt + --max_response")
        known = task in NAMES or task.endswith(".jsonl")
        check(known, f"unknown task {task!r}; choose {', '.join(NAMES)}, a .jsonl file, general, or {', '.join(BENCHMARKS)}")
        n, split = (config.difficulty_samples, "train") if config.split_by_difficulty else (config.n, config.split)
        problems = DOCUMENTED.get((task, split), (0, 200 if task.startswith("toy") else 1000))[1]
        problems = min(config.problems or math.inf, problems)
        prompt, response = plan.machine.expected(160 if toy else shape.max_seq_len, config.max_response)
        if config.shots:  # each example is a prompt and a solution; base checkpoints seldom stop by themselves
            prompt, response = min(config.shots * (prompt + response) + prompt, shape.max_seq_len - config.max_response), config.max_response
        sample(plan, task, problems, n, prompt, response, config.slots, prompt + config.max_response)
        rows += 60 * problems
    plan.disk = {"result rows": rows}


STAGES = {"pretrain": plan_pretrain, "sft": plan_sft, "grpo": plan_rl, "parallel": plan_parallel, "evaluate": plan_evaluate}


def build(stage: str, config, shape: ModelConfig, machine: Machine) -> Plan:
    flag = lambda name, default=False: getattr(config, name, default)
    plan = Plan(stage, shape, machine, flag("kv_memory", 0.4), flag("compile"), flag("checkpoint_activations"), flag("fp32_head"))
    if machine.gpu != "cpu":
        plan.memory["CUDA, NCCL, fragmentation"] = 4 * GIB  # allowed for; trainers of this kind are seen to need 2 to 5
    STAGES[stage](plan, config)
    return plan


def fits(plan: Plan) -> bool:
    return plan.peak() <= ROOM * KINDS[plan.machine.gpu].memory * GIB


def advise(plan: Plan, config) -> list[str]:
    """Warnings; where it does not fit, the first that helps of: shorter forward passes, fewer pages, checkpointing, which takes
    time, and more GPUs. Checkpointing is named too where it would do instead."""
    if fits(plan):
        return plan.warnings
    built = lambda gpus=plan.machine.gpus, **flags: build(plan.name, replace(config, **flags), plan.shape, replace(plan.machine, gpus=gpus))
    seen = f"more than {ROOM:.0%} of the memory of one {plan.machine.gpu} is needed"
    shorter = [{"micro_tokens": size} for size in (16_384, 8192, 4096) if size < config.micro_tokens]
    fewer = [{"kv_memory": 0.2}, {"kv_memory": 0.1}] * hasattr(config, "kv_memory")
    checkpoint = [{"checkpoint_activations": True}] * (not getattr(config, "checkpoint_activations", True))
    more = [{"gpus": 2**i} for i in range(1, 11) if 2**i > plan.machine.gpus]
    for gpus, again, pages, micro in itertools.product(*([{}, *way] for way in (more, checkpoint, fewer, shorter))):
        if fits(built(**micro, **pages, **again, **gpus)):
            flags = "".join(f" --{k}" + f" {v}" * (v is not True) for k, v in {**micro, **pages, **again, **gpus}.items())
            alone = built(**checkpoint[0]) if checkpoint else plan
            saved = f"saves {(plan.peak() - alone.peak()) / GIB:.1f} GiB"
            if again:
                flags += f" (checkpointing {saved})"
            elif fits(alone):
                flags += f", or --checkpoint_activations, which {saved}"
            return [*plan.warnings, f"{seen}: give{flags}"]
    return [*plan.warnings, f"{seen}: neither shorter passes, fewer pages nor more GPUs are enough; take a larger --gpu"]


# ---------------------------------------------------------------------------------------------- flags


def read_machine(script: str, argv: list[str], preset: str, gpus: int = 1) -> tuple[Machine, list[str]]:
    """Take the flags of a plan out of argv: no part of a run, they are in no Config and no checkpoint."""
    defaults = {"toy": {"gpus": gpus, "gpu": "cpu"}, "small": {"gpus": gpus, "mfu": 0.15}}  # small matrices reach less
    defaults = defaults.get(preset, {"gpus": gpus if gpus > 1 else 8})
    comments = dict(re.findall(r"^    (\w+): .*?  # (.*)$", inspect.getsource(Machine), re.M))
    parser = common.OneLineParser(prog=script, allow_abbrev=False, description="With --plan, besides the script's own flags:")
    parser.add_argument("--plan", action="store_true", help="print what the command would take, and stop")
    for f in dataclasses.fields(Machine):
        choices, default = (KINDS if f.name == "gpu" else None), defaults.get(f.name, f.default)
        parser.add_argument(f"--{f.name}", type=f.type, default=default, choices=choices, help=f"{comments[f.name]} (default {default})")
    flags, rest = parser.parse_known_args([common.one_spelling(arg) for arg in argv])
    machine = Machine(**{k: v for k, v in vars(flags).items() if k != "plan"})
    for name in ("gpus", "expected_length", "expected_prompt"):
        check(getattr(machine, name) >= 1, f"--{name} {getattr(machine, name)} must be 1 or more")
    for name in ("mfu", "bandwidth"):
        check(0 < getattr(machine, name) <= 1, f"--{name} {getattr(machine, name)} is a share of the peak: above 0, up to 1")
    return machine, rest


def shape_of(preset: str, tokenizer: str) -> ModelConfig:
    """The preset's model; where it leaves the vocabulary open, the tokenizer decides, as in pretrain.py."""
    shape = MODELS[preset]
    if shape.vocab_size:
        return shape
    vocab = ModelConfig().vocab_size if tokenizer == "dolma2" else get_tokenizer(tokenizer).n_vocab
    return replace(shape, vocab_size=vocab, padded_vocab_size=math.ceil(vocab / 64) * 64)


def read_config(stage: str, argv: list[str], preset: str = ""):
    """A stage's resolved Config and the model's shape, from its flags; the checkpoint need not be there -> (config, shape).

    A path that does not exist tells what it can: `out/toy/3.6M.sft.pt` is of preset toy and was fine-tuned."""
    module, argv, parent, shape = importlib.import_module(stage), list(argv), None, None
    if any(f.name == "ckpt" for f in dataclasses.fields(module.Config)):
        given = [value for flag, value in zip(argv, [*argv[1:], ""]) if flag == "--ckpt"] + [arg[7:] for arg in argv if arg.startswith("--ckpt=")]
        path = given[-1] if given else ""
        if os.path.exists(path) and not preset:
            shape = ModelConfig(**read_facts(path)["model"])
        else:
            folder = os.path.basename(os.path.dirname(path))
            parent = {"preset": preset or (folder if folder in MODELS else module.Config.preset), "recipe": os.path.basename(path)}
            argv += [] if given else ["--ckpt", "M_t.pt"]
    config = common.parse_flags(module.Config, module.PRESETS, getattr(module, "SETTINGS", {}), argv, getattr(module, "AFTER_SFT", None), parent)
    for name in ("check_config", "check_parallel"):
        getattr(module, name, lambda config: None)(config)
    return config, shape or shape_of(config.preset, getattr(config, "tokenizer", "toy"))


# ---------------------------------------------------------------------------------------------- what is printed


def text(value: float, *units: tuple[str, float]) -> str:
    """In the largest unit that it has one of, the units given from large to small."""
    unit, scale = next((u for u in units if value >= u[1]), units[-1])
    return f"{value / scale:,.1f} {unit}"


def hours(seconds: float) -> str:
    return text(seconds, ("h", 3600), ("min", 60), ("s", 1))


def size(bytes_: float) -> str:
    return text(bytes_, ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("KB", 1e3))


def print_plan(plan: Plan, config) -> None:
    P, machine = parameters(plan.shape), plan.machine
    context = getattr(config, "seq_len", plan.shape.max_seq_len)
    kv = kv_bytes_per_token(plan.shape, machine.gpu == "cpu") / 1024
    print(f"\n{P['all']:,} parameters, {P['matmul']:,} of them in matrix products; {kv:g} KiB of KV per token")
    print(f"{train_flops(plan.shape, 1, context):.3g} FLOPs per token of training at {context:,} tokens of context (full attention)")
    print(machine)
    print(f"\n{'work':<34}{'tokens':>10}{'FLOPs':>10}{'GPU hours':>12}{'time':>12}{'cost':>10}")
    total = ("in all", sum(p[1] for p in plan.phases), sum(p[2] for p in plan.phases), plan.gpu_seconds)
    for name, tokens, flops, seconds in [*plan.phases, total]:
        time, cost = hours(seconds / machine.gpus), machine.dollars(seconds)
        print(f"  {name:<32}{tokens:>10.3g}{flops:>10.2e}{seconds / 3600:>12,.2f}{time:>12}{cost:>10,.0f}")
    print("\nmemory per GPU, GiB")
    for name, bytes_ in plan.memory.items():
        print(f"  {name:<72}{bytes_ / GIB:>8.2f}")
    for when, parts in plan.peaks.items():
        for name, bytes_ in parts.items():
            print(f"  {name + ', ' + when:<72}{bytes_ / GIB:>8.2f}")
    print(f"  {'peak':<72}{plan.peak() / GIB:>8.2f}  of {KINDS[machine.gpu].memory}: {'fits' if fits(plan) else 'DOES NOT FIT'}")
    disk = {**plan.disk, "while running": plan.passing, "token shards": plan.shared}
    print("\ndisk: " + "; ".join(f"{name} {size(bytes_)}" for name, bytes_ in disk.items() if bytes_))
    for note in plan.notes:
        print(f"note: {note}")
    for warning in advise(plan, config):
        print(f"warning: {warning}")


def main(script: str, argv: list[str]) -> None:
    """`python <stage>.py --plan ...`; under torchrun the first process speaks."""
    if int(os.environ.get("RANK", 0)):
        return
    stage = script.removesuffix(".py")
    config, shape = read_config(stage, read_machine(script, argv, "1B")[1])
    machine, _ = read_machine(script, argv, config.preset)  # its defaults go by the scale
    print_plan(build(stage, config, shape, machine), config)


def print_study(tasks: list, args, machine: Machine) -> None:
    """The study as a table: one line for each kind of command, sums per seed and over all; tasks are excursions.Task."""
    rows, warnings, shared, passing = {}, {}, 0.0, 0.0  # rows: kind -> [commands, tokens, FLOPs, GPU seconds, disk]
    for task in tasks:
        at = next(i for i, word in enumerate(task.command) if word.endswith(".py"))
        stage = task.command[at].removesuffix(".py")
        with contextlib.redirect_stdout(io.StringIO()):
            config, shape = read_config(stage, task.command[at + 1 :], args.preset)
        plan = build(stage, config, shape, machine)
        kind = "evaluation" if stage == "evaluate" else "pretrain" if stage == "pretrain" else task.name.split(".", 1)[1].lstrip("0123456789MBK.")
        values = [1, sum(p[1] for p in plan.phases), sum(p[2] for p in plan.phases), plan.gpu_seconds, sum(plan.disk.values())]
        rows[kind] = [a + b for a, b in zip(rows.get(kind, [0] * 5), values)]
        shared, passing = max(shared, plan.shared), max(passing, plan.passing)
        for warning in advise(plan, config):
            kinds = warnings.setdefault(warning, [])
            kinds += [kind] if kind not in kinds else []
    print(f"study {args.preset}, setting {args.setting}, seeds: {args.seeds}\n{machine}")
    print(f"assumed: prompts of {machine.expected_prompt} tokens, responses of {machine.expected_length} (less where limits are short;")
    print("base checkpoints asked with examples go on to the limit). Not counted: start-up, grading, saving, runs that fail\n")
    print(f"{'kind':<16}{'commands':>9}{'tokens':>10}{'FLOPs':>10}{'GPU hours':>11}{'time':>12}{'disk':>11}{'cost, $':>11}")
    total = [sum(values) for values in zip(*rows.values())]
    lines = {**rows, **({"per seed": [v / args.seeds for v in total]} if args.seeds > 1 else {}), "in all": total}
    for kind, (commands, tokens, flops, seconds, disk) in lines.items():
        time, cost = hours(seconds / machine.gpus), machine.dollars(seconds)
        print(f"{kind:<16}{commands:>9.0f}{tokens:>10.3g}{flops:>10.2e}{seconds / 3600:>11,.1f}{time:>12}{size(disk):>11}{cost:>11,.0f}")
    print(f"\ndisk besides: token shards {size(shared)} once, {size(passing)} while a command runs")
    for warning, kinds in warnings.items():
        print(f"warning, {', '.join(kinds)}: {warning}")
    if any(re.search("--(micro_tokens|kv_memory|checkpoint)", warning) for warning in warnings):
        print("(the study's commands are given no such flag; it changes no result: put it into the PRESETS of these scripts, or take a larger --gpu)")
