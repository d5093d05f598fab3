"""What each stage does with its resolved Config, as a Plan: its work, its memory and its disk."""

import math
from types import SimpleNamespace

from data.benchmarks import BENCHMARKS
from data.mixes import MIXES
from data.sources import DOCUMENTED, NAMES, is_named
from data.toy_text import CORPORA
from model import ModelConfig
from plumbing.checkpoint import check_length
from plumbing.examples import check_sft
from plumbing.flags import check
from plumbing.modes import check_parallel, count_sft_steps
from plumbing.rl_checks import check_config as check_rl
from plumbing.units import count
from plumbing.which_groups import PROBED
from study.budget import COPY, Plan, add_sampling, hold_training, is_sharded, store
from study.costs import GIB, Machine, forward_flops, parameters
from study.memory import sampling_copy_bytes

# Tokens of the prepared mixes, the sums of their sources in data/mixes.py.
TOKENS_OF_MIX = {"dolmino-50B": 51.5e9, "dolmino-60B": 62.2e9}

# Tokens of an item under dolma2, with those of its choices, which share the context: rough means.
TOKENS_OF_ITEM = {
    "lambada": 87,
    "hellaswag": 180,
    "arc_easy": 50,
    "arc_challenge": 60,
    "piqa": 65,
    "openbookqa": 40,
}


def plan_stage(stage: str, config, shape: ModelConfig, machine: Machine) -> Plan:
    """What the stage takes with this Config, for a model of this shape, on this machine."""
    plan = Plan(
        stage,
        shape,
        machine,
        kv_memory=getattr(config, "kv_memory", 0.4),
        compile=getattr(config, "compile", False),
        checkpoint=getattr(config, "checkpoint_activations", False),
        fp32_head=getattr(config, "fp32_head", False),
    )
    if not machine.on_cpu:
        # An allowance: trainers of this kind are seen to need 2 to 5.
        plan.memory["CUDA, NCCL, fragmentation"] = 4 * GIB
    STAGES[stage](plan, config)
    return plan


def check_context(plan: Plan, tokens: int, what: str = "--max_prompt + --max_response") -> None:
    check_length(SimpleNamespace(config=plan.shape), tokens, what)  # it reads the config alone


# ---------------------------------------------------------------------------------- pretrain, sft


def plan_pretrain(plan: Plan, config) -> None:
    kept = config.keep.split(",")
    check_context(plan, config.seq_len, "--seq_len")
    per_step = config.batch * config.seq_len
    steps = -(-count(config.tokens) // per_step)
    tokens = steps * per_step
    plan.train("update", tokens, config.seq_len)

    rows = max(1, config.micro_tokens // config.seq_len)  # of one forward pass
    rows = min(rows, -(-config.batch // plan.machine.gpus))
    passes = config.batch / plan.machine.gpus / rows  # of one update
    sizes = (rows * config.seq_len, rows * (config.seq_len - 1), config.seq_len)
    hold_training(plan, *sizes, passes=passes)
    store(plan, len(kept), moments=2, log_bytes=120 * steps)
    if config.data in MIXES:
        plan.shared = 4 * TOKENS_OF_MIX[config.data]
    elif config.data in CORPORA:
        plan.shared = 2 * tokens  # uint16; the others are uint32
    else:
        plan.shared = 4 * tokens


def plan_sft(plan: Plan, config) -> None:
    check_sft(config, config.loss, config.schedule, "--loss")
    check_context(plan, config.max_prompt + config.max_response)
    prompt, response = plan.machine.expected(config.max_prompt, config.max_response)
    solutions = config.steps * config.batch
    tokens = solutions * (prompt + response)
    predicted = solutions * response
    plan.train("update", tokens, prompt + response, predicted)

    of_gpu = tokens / config.steps / plan.machine.gpus  # tokens of a step
    pass_tokens = min(config.micro_tokens, of_gpu)  # of one forward pass
    sizes = (pass_tokens, pass_tokens * predicted / tokens, prompt + response)
    hold_training(plan, *sizes, passes=of_gpu / pass_tokens)
    store(plan, 1, moments=2, log_bytes=150 * config.steps)


# ---------------------------------------------------------------------------------- RL


def plan_rl(plan: Plan, config, moments: int = 2, weight_copies: int = 0) -> None:
    """GRPO.

    In old log-probs, reference and update a prompt stands once for its group. All groups are
    counted, though without KL those whose rewards are equal are not computed.
    """
    check_rl(config)
    shape = plan.shape
    P = parameters(shape)
    longest = config.max_prompt + config.max_response
    check_context(plan, longest)
    prompt, response = plan.machine.expected(config.max_prompt, config.max_response)
    context = prompt + response
    rounds = 1 + config.dynamic_sampling
    predicted = config.steps * config.prompts * config.n * response
    tokens = predicted + config.steps * config.prompts * prompt

    # The memory of a forward pass, then what is there all the time.
    of_gpu = tokens / config.steps / config.mini_batches / plan.machine.gpus  # of an update
    pass_tokens = min(config.micro_tokens, of_gpu)
    through_head = pass_tokens * predicted / tokens
    keys = through_head / response * context
    sizes = (pass_tokens, through_head, context)
    passes = of_gpu / pass_tokens  # of one update
    hold_training(plan, *sizes, moments, weight_copies, keys, passes)
    if not plan.machine.on_cpu:
        plan.memory[COPY] = sampling_copy_bytes(shape, plan.fp32_head)
    if config.kl:
        plan.memory["reference, fp32, sharded"] = 4 * P["all"] / plan.machine.gpus
        if is_sharded(plan):  # with no backward pass to part them, they stay whole
            plan.memory["gathered: the reference's embedding and head"] = 2 * 4 * P["head"]

    # The phases of a step, each for all steps.
    lengths = (prompt, response, config.slots, longest)
    times = config.steps * rounds
    add_sampling(plan, "sampling", config.prompts, config.n, *lengths, times)
    if config.probe:
        problems = PROBED * config.prompts
        add_sampling(plan, "probing", problems, config.probe, *lengths, config.steps)
    if config.val_every:
        times = -(-config.steps // config.val_every)
        add_sampling(plan, "validation", config.val, 1, *lengths, times)
    forward = forward_flops(shape, tokens, context, predicted)
    if config.updates > 1 and config.recompute_old:
        plan.compute("old log-probs", tokens, forward)
    if config.kl:
        plan.compute("reference log-probs", tokens, forward)
    plan.train("update", config.epochs * tokens, context, config.epochs * predicted)

    reference = 4 * P["all"] if config.ref_every else 0
    # A line of the log has about 1.2 KB, and two decoded samples 3 KB.
    logs = config.steps * (1200 + 3000 / config.samples_every)
    if config.save_rollouts:
        logs += 35 * predicted  # a token with its log-prob and text
    store(plan, 1, moments, logs, reference)
    if config.dynamic_sampling:
        plan.notes.append(
            f"sampling counts all {rounds} rounds of --dynamic_sampling, the most there can be"
        )


def plan_parallel(plan: Plan, config) -> None:
    check_parallel(config)
    if config.mode == "parallel":  # two AdamW, and a copy of the weights between the halves
        plan_rl(plan, config, moments=4, weight_copies=1)
    else:
        plan_rl(plan, config)
    solutions = count_sft_steps(config) * config.sft_batch
    prompt, response = plan.machine.expected(config.max_prompt, config.max_response)
    tokens = solutions * (prompt + response)
    plan.train("SFT update", tokens, prompt + response, solutions * response)


# ---------------------------------------------------------------------------------- evaluate


def plan_evaluate(plan: Plan, config) -> None:
    """Sampling from problems, and a forward pass over every item of a benchmark."""
    plan.memory["weights, fp32, whole"] = 4 * parameters(plan.shape)["all"]
    if not plan.machine.on_cpu:
        plan.memory[COPY] = sampling_copy_bytes(plan.shape)
    rows = 5000.0  # bytes
    for task in tasks_to_plan(config):
        if task in BENCHMARKS or task == "general":
            rows += plan_benchmark(plan, config, task)
        else:
            rows += plan_problems(plan, config, task)
    plan.disk = {"result rows": rows}


def in_toy_world(config) -> bool:
    return config.preset in ("toy", "toy-large", "small")


def tasks_to_plan(config) -> list[str]:
    """`general` stands for the public benchmarks, except in the toy world, which has its own."""
    tasks = []
    for task in config.task.split(","):
        if task == "general" and not in_toy_world(config):
            tasks += BENCHMARKS
        else:
            tasks.append(task)
    return tasks


def plan_benchmark(plan: Plan, config, task: str) -> float:
    """-> bytes of its result row."""
    shape = plan.shape
    items = 800  # the toy world's: 600 items and 200 texts
    if task in BENCHMARKS:
        items = BENCHMARKS[task].n_items
    items = min(config.problems or math.inf, items)
    tokens = items * TOKENS_OF_ITEM.get(task, 50)
    plan.compute(task, tokens, forward_flops(shape, tokens, 100, tokens / 2))
    pass_tokens = min(config.micro_tokens, tokens)
    plan.peaks["scoring"] = {
        "one block's tensors": pass_tokens * 2 * (6 * shape.d_model + 3 * shape.d_ff),
        "logits of 1,024 tokens": 3 * 4 * 1024 * shape.vocab_size,
    }
    return items


def plan_problems(plan: Plan, config, task: str) -> float:
    """-> bytes of its result row."""
    check_context(plan, config.max_response + 1, "a prompt + --max_response")
    check(
        is_named(task) or task.endswith(".jsonl"),
        f"unknown task {task!r}; choose {', '.join(NAMES)}, a .jsonl file, general, "
        f"or {', '.join(BENCHMARKS)}",
    )
    unknown = 200 if task.startswith("toy") else 1000  # problems of a set that is not documented
    _, problems = DOCUMENTED.get((task, config.split), (0, unknown))
    problems = min(config.problems or math.inf, problems)

    max_seq_len = plan.shape.max_seq_len
    max_prompt = 160 if in_toy_world(config) else max_seq_len
    prompt, response = plan.machine.expected(max_prompt, config.max_response)
    if config.shots:
        # Each example is a prompt and a solution. Base checkpoints seldom stop by themselves.
        asked = config.shots * (prompt + response) + prompt
        prompt = min(asked, max_seq_len - config.max_response)
        response = config.max_response
    longest = prompt + config.max_response
    add_sampling(plan, task, problems, config.n, prompt, response, config.slots, longest)
    return 60 * problems


STAGES = {
    "pretrain": plan_pretrain,
    "sft": plan_sft,
    "grpo": plan_rl,
    "parallel": plan_parallel,
    "evaluate": plan_evaluate,
}
