"""The program's own functions at size: training, an RL step, decoding, on one GPU or as one of many.

Each scene has the numbers of `--plan` beside what it has counted.
"""

import contextlib
import os
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import torch
import torch._dynamo
from torch._dynamo.eval_frame import _debug_get_cache_entry_list
from torch._dynamo.utils import counters

import grpo
from model import Transformer
from plumbing.optimizer import adamw, logged_step
from plumbing.prepare import make_sampler, prepare
from pretrain import next_token_loss
from sampler import Rollout
from study.costs import Machine, kv_bytes_per_token
from study.plan import plan_stage, read_config
from tests.fake_gpu.device import Host, NoNumbers, waits
from tests.fake_gpu.meter import Meter

GPU = torch.device("cuda", 0)
MODE = NoNumbers()  # one for all scenes: tensors of two modes do not mix


# ---------------------------------------------------------------------------------- what is seen


@dataclass
class Seen:
    """What a scene has shown."""

    name: str
    peak: int = 0  # bytes
    planned: float = 0.0  # bytes
    waits: dict = field(default_factory=dict)  # where -> how often, in each part of the scene
    breaks: dict = field(default_factory=dict)  # of the graph: reason -> how often
    variants: dict = field(default_factory=dict)  # compiled function -> how many there are
    later: int = 0  # compiled after the first step
    meters: dict = field(default_factory=dict)  # part -> the meter of its kernels


def variants() -> dict[str, int]:
    """How often each function of the program has been compiled."""
    found = {}
    for name, code in compiled_functions().items():
        n = len(_debug_get_cache_entry_list(code))
        if n:
            found[name] = n
    return found


FUSED = {}  # what compiled.fused was asked for


def compiled_functions() -> dict:
    return {function.__name__: function.__code__ for function in FUSED}


def watch_compiler() -> None:
    """Keep what torch.compile is called with."""
    inner = torch.compile

    def compile(function=None, **how):
        if function is None:
            return lambda function: compile(function, **how)
        FUSED[function] = how
        return inner(function, **how)

    torch.compile = compile


def graphs() -> int:
    return counters["stats"].get("unique_graphs", 0)


# ---------------------------------------------------------------------------------- the parts


def planned(stage: str, flags: list[str], layers: int, gpus: int, **changes):
    """-> (the stage's Config, the model's shape, the plan); layers: 0 for all."""
    config, shape = read_config(stage, flags)
    config = replace(config, **changes)
    if layers:
        shape = replace(shape, n_layers=layers)
    machine = Machine(gpus=gpus)
    return config, shape, plan_stage(stage, config, shape, machine)


def new_model(shape, config):
    with GPU:
        model = Transformer(shape)
    return prepare(model, config)


def pretraining(preset: str, gpus: int, compile: bool, layers: int = 0, passes: int = 2) -> Seen:
    """Two steps of so many micro-batches each."""
    flags = ["--preset", preset, "--compile" if compile else "--no-compile"]
    config, shape, plan = planned("pretrain", flags, layers, gpus)
    rows = max(1, config.micro_tokens // config.seq_len)
    config, shape, plan = planned("pretrain", flags, layers, gpus, batch=rows * gpus * passes)
    seen = Seen(f"pretrain {preset}", planned=plan.peak() - plan.memory[ALLOWANCE])
    with MODE, Meter() as meter:
        model = new_model(shape, config)
        optimizer = adamw(model, config.lr, (0.9, config.beta2), config.weight_decay)
        for step in range(2):
            meter.clear()
            with waits() as seen.waits["micro-batch"]:
                for _ in range(passes):
                    tokens = torch.zeros(rows, config.seq_len, dtype=torch.int64).pin_memory()
                    tokens = tokens.to(GPU, non_blocking=True)
                    _, loss = next_token_loss(model, tokens, config.z_loss)
                    (loss / 1e6).backward()
                    del loss
            with waits() as seen.waits["update"]:
                logged_step(model, optimizer, config.grad_clip)
            if step == 0:
                before = graphs()
        seen.peak = meter.peak
        seen.meters["step"] = meter
    finish(seen, before)
    return seen


# ---------------------------------------------------------------------------------- RL


def groups_of(config, prompts: int, gpus: int):
    """Groups as this rank has them: prompts and responses of the lengths that a plan expects."""
    machine = Machine()
    prompt, response = machine.expected(config.max_prompt, config.max_response)
    rollouts = []
    for _ in range(prompts):
        tokens = [7] * response
        rollouts.append([Rollout(tokens, [-1.0] * response, True) for _ in range(config.n)])
    groups = grpo.Groups(
        [SimpleNamespace(answer="7", kind="math")] * prompts,
        [[7] * prompt for _ in range(prompts)],
        rollouts,
        [i * gpus for i in range(prompts)],
    )
    groups.advantages = torch.ones(prompts, config.n)
    return groups


def rl_step(preset: str, gpus: int, compile: bool, layers: int = 0, kl: float = 0.001) -> Seen:
    """Two steps of GRPO: sampling, old log-probs, the updates."""
    flags = ["--preset", preset, "--kl", str(kl), "--compile" if compile else "--no-compile"]
    config, _, _ = planned("grpo", flags, layers, gpus)
    prompts = 2 * config.mini_batches  # of this rank
    changes = dict(prompts=prompts * gpus, micro_tokens=8192)
    config, shape, plan = planned("grpo", flags, layers, gpus, **changes)
    seen = Seen(f"grpo {preset}", planned=plan.peak() - plan.memory[ALLOWANCE])
    with MODE, Meter() as meter:
        Memory.meter = meter
        reference = None
        if kl:
            reference = new_model(shape, config).requires_grad_(False)
        model = new_model(shape, config)
        sampler = make_sampler(model, config.slots, config.kv_memory)
        run = SimpleNamespace(config=config, model=model, reference=reference)
        optimizer = adamw(model, config.lr, (0.9, config.beta2), config.weight_decay)
        groups = groups_of(config, prompts, gpus)
        for step in range(2):
            meter.clear()
            Host.answer = 0  # every rollout has ended
            with waits() as seen.waits["sampling"]:
                sampler.sample(groups.prompts, config.n, config.max_response)
            Host.answer = 1
            with waits() as seen.waits["old log-probs"]:
                grpo.old_logprobs(model, groups, config)
            groups.old_logp = None if config.mini_batches == 1 else known(groups)
            with waits() as seen.waits["refresh"]:
                sampler.refresh(model)
            for m in range(config.mini_batches):
                chosen = grpo.mini_batch(groups, m, config)
                with waits() as seen.waits["mini-batch"]:
                    grpo.policy_backward(model, reference, groups, chosen, config)
                with waits() as seen.waits["update"]:
                    logged_step(model, optimizer, config.grad_clip)
            if step == 0:
                before = graphs()
        seen.peak = meter.peak
        seen.meters["step"] = meter
    finish(seen, before)
    return seen


def known(groups):
    return groups.old_logp


# ---------------------------------------------------------------------------------- decoding


def decoding(preset: str, slots: int, compile: bool, layers: int = 0, top_p: float = 1.0) -> Seen:
    """One step of the sampler, as a graph records it."""
    flags = ["--preset", preset, "--compile" if compile else "--no-compile"]
    config, shape, plan = planned("grpo", flags, layers, 1)
    seen = Seen(f"decode {preset}, {slots} slots")
    with MODE, Meter() as meter:
        Memory.meter = meter
        model = new_model(shape, config)
        sampler = make_sampler(model, slots, config.kv_memory)
        Host.answer = 0
        with waits() as seen.waits["sampling"]:
            sampler.sample([[7] * 300] * (slots // 32), 32, 200, top_p=top_p)
        before = graphs()
        with torch.inference_mode(), waits() as seen.waits["decode step"]:
            sampler.prepare(slots, 300, 200)
            meter.clear()
            sampler.step()
        Host.answer = 1
        seen.meters["step"] = meter
    finish(seen, before)
    return seen


# ---------------------------------------------------------------------------------- many ranks


def join(ranks: int) -> None:
    """Be rank 0 of so many processes, whose collectives do nothing."""
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    os.environ["LOCAL_WORLD_SIZE"] = str(ranks)
    dist.init_process_group("fake", rank=0, world_size=ranks, store=FakeStore())


class Memory:
    """What is free on the device, of what the plan's allowance leaves."""

    meter = None


def free() -> int:
    held = 0 if Memory.meter is None else Memory.meter.live
    return int(Machine().kind.memory * 2**30) - 4 * 2**30 - held


ALLOWANCE = "CUDA, NCCL, fragmentation"


def finish(seen: Seen, graphs_before: int) -> None:
    seen.later = graphs() - graphs_before
    seen.breaks = dict(counters["graph_break"])
    seen.variants = variants()
