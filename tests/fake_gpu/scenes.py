"""The program's own functions at size: training, a step of RL, decoding, on one GPU or as one of many.

Each scene runs twice: what is made once, moments and compiled code, is there the second time.
"""

import contextlib
import gc
import io
import os
from collections import Counter
from dataclasses import dataclass, field, replace

import torch
import torch._dynamo
import torch.distributed as dist
from torch._dynamo.utils import counters

import grpo
from model import ModelConfig, Transformer
from plumbing import packs
from plumbing.batches import idle_pass
from plumbing.optimizer import adamw, logged_step
from plumbing.prepare import make_sampler, prepare
from plumbing.sharding import device_mesh
from pretrain import next_token_loss
from sampler import Rollout
from study.budget import Plan
from study.costs import GIB, Machine
from study.plan import plan_stage, read_config
from tests.fake_gpu import compiler
from tests.fake_gpu.device import MEMORY, Host, NoNumbers, waits
from tests.fake_gpu.meter import Meter

GPU = torch.device("cuda", 0)
MODE = NoNumbers()  # one for all scenes: tensors of two modes do not mix
ALLOWANCE = "CUDA, NCCL, fragmentation"  # a plan's part that no meter sees


@dataclass
class Scene:
    """What runs, and what it has shown."""

    work: str  # pretrain, grpo or decode
    preset: str
    gpus: int = 1
    compile: bool = True
    layers: int = 0  # 0: all of them
    slots: int = 512  # of decode
    top_p: float = 1.0  # of decode
    passes: int = 2  # of pretrain, in an update
    vocab: int = 0  # 0: the preset's
    checkpoint: bool = False  # --checkpoint_activations

    # what is seen
    peak: float = 0.0  # GiB
    planned: float = 0.0  # GiB, without the allowance for what no meter sees
    waits: dict = field(
        default_factory=dict
    )  # part of the scene -> (file, function, what) -> times
    breaks: dict = field(default_factory=dict)  # of a graph: reason -> times
    variants: dict = field(default_factory=dict)  # compiled function -> how often it was compiled
    later: int = 0  # graphs compiled after the first time
    kernels: list = field(default_factory=list)  # of the second time
    shape: ModelConfig | None = None

    def name(self) -> str:
        words = [self.work, self.preset, "compiled" if self.compile else "eager"]
        if self.gpus > 1:
            words.append(f"{self.gpus} ranks")
        if self.work == "decode":
            words.append(f"{self.slots} slots")
            if self.top_p < 1:
                words.append(f"top_p {self.top_p}")
        if self.checkpoint:
            words.append("checkpointed")
        return ", ".join(words)

    def run(self) -> "Scene":
        gc.collect()  # what was compiled goes with the models of the scene before
        torch._dynamo.reset()
        counters.clear()
        if self.gpus > 1:
            join(self.gpus)
        try:
            with contextlib.redirect_stdout(io.StringIO()), MODE, Meter() as meter:
                Free.meter = meter
                WORK[self.work](self, meter)
        finally:
            Free.meter = None
            if self.gpus > 1:
                leave()
        self.peak = meter.peak / GIB
        self.kernels = meter.kernels
        self.breaks = dict(counters["graph_break"])
        self.variants = compiler.variants()
        return self

    def counted(self, part: str):
        """A context: its waits are those of this part of the scene."""
        return waits(self.waits.setdefault(part, Counter()))

    def planned_as(self, stage: str, *flags: str, **changes) -> tuple:
        """-> the stage's Config and the model's shape; the plan is kept."""
        compile = "--compile" if self.compile else "--no-compile"
        flags = ["--preset", self.preset, compile, *flags]
        if self.checkpoint:
            flags.append("--checkpoint_activations")
        config, shape = read_config(stage, flags)
        if self.layers:
            shape = replace(shape, n_layers=self.layers)
        if self.vocab:
            shape = replace(shape, vocab_size=self.vocab, padded_vocab_size=self.vocab)
        config = replace(config, **changes)
        plan: Plan = plan_stage(stage, config, shape, Machine(gpus=self.gpus))
        self.shape = shape
        self.planned = (plan.peak() - plan.memory[ALLOWANCE]) / GIB
        return config, shape


def new_model(shape, config):
    with GPU:
        model = Transformer(shape)
    return prepare(model, config)


def twice(scene: Scene, meter: Meter, step) -> None:
    """step() again, and what only the second time shows."""
    step()
    compiled = graphs()
    scene.waits.clear()
    meter.clear()
    step()
    scene.later = graphs() - compiled


def graphs() -> int:
    return counters["stats"].get("unique_graphs", 0)


# ---------------------------------------------------------------------------------- training


def pretraining(scene: Scene, meter: Meter) -> None:
    config, _ = scene.planned_as("pretrain")
    rows = max(1, config.micro_tokens // config.seq_len)  # of a micro-batch
    batch = rows * scene.gpus * scene.passes
    config, shape = scene.planned_as("pretrain", batch=batch)
    model = new_model(shape, config)
    optimizer = adamw(model, config.lr, (0.9, config.beta2), config.weight_decay)

    def step():
        for _ in range(scene.passes):
            with scene.counted("micro-batch"):
                tokens = torch.zeros(rows, config.seq_len, dtype=torch.int64).pin_memory()
                tokens = tokens.to(GPU, non_blocking=True)
                _, loss = next_token_loss(model, tokens, config.z_loss)
                (loss / 1e6).backward()
                del loss
        with scene.counted("update"):
            logged_step(model, optimizer, config.grad_clip)

    twice(scene, meter, step)


# ---------------------------------------------------------------------------------- RL

# Of a mini-batch's one group: the lengths of its 32 responses, as parts of what a plan expects.
# The sizes of passes are what torch's compiler tells apart.
SHARES = (1, 1, 1 / 2, 1 / 8)


def rl_step(scene: Scene, meter: Meter) -> None:
    """Sampling, old log-probs, and four updates of one pass each, with a KL term."""
    n = len(SHARES)
    changes = dict(prompts=n * scene.gpus, mini_batches=n)
    config, shape = scene.planned_as("grpo", "--kl", "0.001", **changes)
    reference = new_model(shape, config).requires_grad_(False)
    model = new_model(shape, config)
    sampler = make_sampler(model, config.slots, config.kv_memory)
    optimizer = adamw(model, config.lr, (0.9, config.beta2), config.weight_decay)
    groups = groups_of(scene, config)
    of_slots = prompts(config.slots // config.n, len(groups.prompts[0]))

    def step():
        sample(scene, sampler, of_slots, config.n, config.max_response)
        with scene.counted("old log-probs"):
            packs.old_logprobs(model, groups, config)
        for m in range(config.mini_batches):
            chosen = grpo.mini_batch(groups, m, config)
            with scene.counted("micro-batch"):
                grpo.policy_backward(model, reference, groups, chosen, config)
            with scene.counted("update"):
                logged_step(model, optimizer, config.grad_clip)
        idle_pass(model, reference)  # other ranks have a micro-batch more
        optimizer.zero_grad()
        with scene.counted("refresh"):
            sampler.refresh(model)

    twice(scene, meter, step)


def groups_of(scene: Scene, config) -> grpo.Groups:
    """This rank's groups: prompts and responses of about the lengths that a plan expects."""
    prompt, response = Machine().expected(config.max_prompt, config.max_response)
    rollouts = []
    for share in SHARES:
        length = int(share * response)
        rollouts.append([Rollout([7] * length, [-1.0] * length, True) for _ in range(config.n)])
    places = [scene.gpus * i for i in range(len(SHARES))]
    groups = grpo.Groups([None] * len(SHARES), prompts(len(SHARES), prompt), rollouts, places)
    groups.advantages = torch.ones(len(SHARES), config.n)
    return groups


def prompts(n: int, length: int) -> list[list[int]]:
    return [[7] * length for _ in range(n)]


# ---------------------------------------------------------------------------------- sampling


def sample(scene: Scene, sampler, prompts, n: int, new: int, **how) -> None:
    Host.answer = 0  # at the first look all rollouts have ended
    with scene.counted("sampling"):
        sampler.sample(prompts, n, new, **how)
    Host.answer = 1


def decoding(scene: Scene, meter: Meter) -> None:
    """One step of the sampler, as a graph records it."""
    n = 32
    config, shape = scene.planned_as("grpo")
    model = new_model(shape, config)
    sampler = make_sampler(model, scene.slots, config.kv_memory)
    of_slots = prompts(scene.slots // n, 300)
    sample(scene, sampler, of_slots, n, 200, top_p=scene.top_p)

    def step():
        with torch.inference_mode(), scene.counted("decode step"):
            sampler.step()

    with torch.inference_mode():
        sampler.prepare(scene.slots, 300, 200)
    twice(scene, meter, step)


WORK = {"pretrain": pretraining, "grpo": rl_step, "decode": decoding}


# ---------------------------------------------------------------------------------- many ranks


def join(ranks: int) -> None:
    """Be rank 0 of so many processes, whose collectives do nothing."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    os.environ["LOCAL_WORLD_SIZE"] = str(ranks)
    dist.init_process_group("fake", rank=0, world_size=ranks, store=FakeStore())


def leave() -> None:
    dist.destroy_process_group()
    device_mesh.cache_clear()


class Free:
    """What is free on the device, of what a plan's allowance leaves."""

    meter = None

    @classmethod
    def bytes(cls) -> int:
        held = cls.meter.live if cls.meter else 0
        return MEMORY - 4 * GIB - held
