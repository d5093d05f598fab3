"""What five scripts would otherwise repeat: flags, batches, optimizer, resume, log. No loop and no loss.

A script is: a frozen dataclass Config on its first screen, PRESETS and SETTINGS beside it, functions, `main(config)`,
and `launch(main, Config, ...)` at the end. The value of a field is its default, overridden by the preset (scale),
then by the setting (fidelity to the paper), then by a flag; the resolved values are printed with their origin.
"""

import argparse
import contextlib
import dataclasses
import difflib
import fcntl
import functools
import gc
import hashlib
import importlib.util
import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import types
import typing
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import record

from data import UserError
from data.tokenizer import get_tokenizer
from distributed import (  # noqa: F401  the scripts write common.rank() and so on
    Phase, all_max, all_sum, barrier, clipped_step, deal, device, exchange, full_state, full_weights, gather_objects, in_step, keep_freed_memory, own_weights,
    peak_memory, phase, print0, put_state, put_weights, rank, shard, start_processes, sync_and_clip, world,
)  # fmt: skip
from model import load_checkpoint, read_facts, read_file, save_checkpoint, write_aside

# ---------------------------------------------------------------------------------------------- flags


@record  # torchrun shows the traceback of the rank that failed first
def launch(main, Config, presets: dict, settings: dict | None = None, after_sft: dict | None = None) -> None:
    """Parse the flags, start the processes, run main(config); a user's error ends in one line, not in a traceback."""
    script = os.path.basename(sys.argv[0])
    try:
        if "--plan" in sys.argv[1:]:
            return importlib.import_module("plan").main(script, sys.argv[1:])
        config = parse_flags(Config, presets, settings or {}, sys.argv[1:], after_sft)
        if getattr(config, "compile", False):  # not when data have been prepared for hours
            check_compiler()
        start_processes()
        main(config)
    except (UserError, OSError) as error:
        leave(f"{script}: {error}")
    except KeyboardInterrupt:
        leave(f"{script}: interrupted; the same command goes on from the last save")
    except RuntimeError as error:
        if world() > 1:  # a collective that failed or waited too long says neither
            print(f"{script}: rank {rank()} in {Phase.status()!r}: {str(error).splitlines()[0]}{Phase.elsewhere()}", file=sys.stderr, flush=True)
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def leave(message: str) -> None:
    """End with one line, once: every rank meets the same error."""
    sys.exit(message if int(os.environ.get("RANK", 0)) == 0 else 1)


class OneLineParser(argparse.ArgumentParser):
    def error(self, message):
        leave(f"{self.prog}: {message}; --help lists the flags")


def parse_flags(Config, presets: dict, settings: dict, argv: list[str], after_sft: dict | None = None, parent: dict | None = None):
    """argv -> Config. `--top_p` and `--top-p` are one flag; the help is the comment on the field's line.

    `after_sft`: (setting, preset) -> values that stand where the parent checkpoint was fine-tuned. `parent`: its facts,
    read from --ckpt where not given.
    """
    fields = {f.name: f for f in dataclasses.fields(Config)}
    comments = dict(re.findall(r"^    (\w+): .*?  # (.*)$", inspect.getsource(Config), re.M))
    parser = OneLineParser(description=inspect.getmodule(Config).__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.epilog = "--plan prints what it would take instead: time, memory, disk, cost; --plan --help its flags"
    for f in fields.values():
        kind = field_type(f)
        default = "" if f.default in (None, "", dataclasses.MISSING) else f" (default {f.default})"
        options = {"help": (comments.get(f.name, "") + default).replace("%", "%%"), "default": argparse.SUPPRESS}
        if kind is bool:
            parser.add_argument(f"--{f.name}", action=argparse.BooleanOptionalAction, **options)
        else:  # --n under torchrun is taken for an abbreviation of torchrun's own flags; --samples is the same flag
            names = [f"--{f.name}", *(["--samples"] if f.name == "n" else [])]
            parser.add_argument(*names, dest=f.name, type=kind, metavar=kind.__name__.upper(), **options)
    argv = [one_spelling(arg) for arg in argv]
    flags, unknown = parser.parse_known_args(argv)
    if unknown:
        near = difflib.get_close_matches(unknown[0].lstrip("-").split("=")[0], fields, 1)
        parser.error(f"unknown flag {unknown[0]}" + (f", did you mean --{near[0]}?" if near else ""))
    flags = vars(flags)
    for f in fields.values():
        if f.default is dataclasses.MISSING and f.name not in flags:
            parser.error(f"--{f.name} is needed: {comments.get(f.name, '')}")
        least = 1 if isinstance(f.default, int) and f.default > 0 else 0  # a size that defaults to 0 means "all" or "none"
        if field_type(f) is int and f.name != "seed" and flags.get(f.name, least) < least:
            parser.error(f"--{f.name} {flags[f.name]} must be {least} or more")
    parent = parent or read_facts(flags["ckpt"]) if "ckpt" in flags else {"preset": fields["preset"].default, "recipe": "base"}
    preset = flags.get("preset") or parent["preset"]
    setting = flags.get("setting") or (fields["setting"].default if "setting" in fields else None)
    for what, name, table in (("preset", preset, presets), ("setting", setting, settings)):
        if name is not None and name not in table:
            parser.error(f"unknown {what} {name}; there are {', '.join(table)}")
    layers = {f"preset {preset}": {**presets[preset], "preset": preset}, f"setting {setting}": settings.get(setting, {})}
    if "sft" in parent["recipe"]:  # sft, sft-gold, and what was made of them
        layers[f"setting {setting}, after SFT"] = (after_sft or {}).get((setting, preset), {})
    layers["flag"] = flags
    values, origin = {}, {}
    for name, layer in layers.items():
        values.update(layer)
        origin.update({key: name for key in layer})
    config = Config(**values)
    if int(os.environ.get("RANK", 0)) == 0:
        for key, value in dataclasses.asdict(config).items():
            print(f"  {key:<16} {value!s:<24} {origin.get(key, '')}".rstrip())
    return config


def one_spelling(arg: str) -> str:
    """--top-p=0.5 -> --top_p=0.5; --no_progress -> --no-progress, as argparse writes it; values stay as they are."""
    if not arg.startswith("--"):
        return arg
    name, equals, value = arg[2:].partition("=")
    name = name.replace("-", "_")
    return "--" + (name.replace("no_", "no-", 1) if name.startswith("no_") else name) + equals + value


def field_type(f: dataclasses.Field) -> type:
    """The type of `int` or of `int | None`."""
    if isinstance(f.type, types.UnionType):
        return next(t for t in typing.get_args(f.type) if t is not type(None))
    return f.type


def count(text: str) -> int:
    """'4B', '250K', '1.2M' or '1000' -> tokens."""
    scale = {"K": 1e3, "M": 1e6, "B": 1e9}.get(text[-1:].upper(), 1)
    try:
        return round(float(text if scale == 1 else text[:-1]) * scale)
    except ValueError:
        raise UserError(f"{text!r} is not a token count; write 250K, 1.2M or 4B") from None


def check(condition: bool, message: str) -> None:
    """Refuse what cannot work before work starts."""
    if not condition:
        raise UserError(message)


# ---------------------------------------------------------------------------------------------- batches


def generator(seed: int, purpose: str, *ids) -> np.random.Generator:
    """A generator keyed by what it is for, so that no draw depends on how many came before."""
    key = hashlib.blake2b(json.dumps([seed, purpose, *ids]).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))


@functools.lru_cache(maxsize=4)
def permutation(n: int, seed: int, purpose: str, epoch: int) -> np.ndarray:
    return generator(seed, purpose, epoch).permutation(n)


def problem_keys(problems) -> list[int]:
    """What keys the samples of each problem: its id, and which time it stands in this list if it does so repeatedly."""
    seen, keys = {}, []
    for problem in problems:
        seen[problem.id] = seen.get(problem.id, 0) + 1
        digest = hashlib.blake2b(f"{problem.id}/{seen[problem.id]}".encode(), digest_size=8).digest()
        keys.append(int.from_bytes(digest, "little") >> 2)  # below 2^62: fits an int64
    return keys


def batch_indices(n: int, batch: int, step: int, seed: int, purpose: str, shuffle: bool = True) -> list[int]:
    """The items of one global batch out of n: pass after pass, each in its own order. A function of (seed, step)."""
    places = range(step * batch, (step + 1) * batch)
    return [int(permutation(n, seed, purpose, i // n)[i % n]) if shuffle else i % n for i in places]


def ahead(items):
    """The same items, each made by a thread while the one before is in use. What making one raises is raised here, in its turn."""
    items, end = iter(items), object()
    with ThreadPoolExecutor(1) as thread:  # left early, it waits for the item it is at
        following = thread.submit(next, items, end)
        while (item := following.result()) is not end:
            following = thread.submit(next, items, end)
            yield item


def micro_batches(lengths: list[int], max_tokens: int) -> list[list[int]]:
    """Split sequences into groups of at most max_tokens tokens (at least one sequence), similar lengths together."""
    groups, size = [], 0
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if not groups or size + lengths[i] > max_tokens:
            groups.append([])
            size = 0
        groups[-1].append(i)
        size += lengths[i]
    return groups


@dataclasses.dataclass
class Packed:
    """Prompts and responses in one list of tokens, and where the responses' tokens are predicted."""

    tokens: torch.Tensor  # (N,) all tokens
    lengths: list[int]  # of each sequence
    continues: list[int] | None  # where prompts are shared: the prompt that each of the last sequences goes on from
    predict: torch.Tensor  # (R,) positions in N whose next token is a response token
    targets: torch.Tensor  # (R,) these response tokens
    sequence: torch.Tensor  # (R,) which response each belongs to


def pack(prompts: list[list[int]], responses: list[list[int]], prompt_of: list[int] | None = None) -> Packed:
    """Loss falls on response tokens only (their eos included); the prompt's last token predicts the response's first.

    Without `prompt_of` prompts and responses are pairs. With it, response i answers prompt prompt_of[i], and the
    prompts come first, once each, however many responses they have.
    """
    if prompt_of is None:
        tokens = [t for pair in zip(prompts, responses) for part in pair for t in part]
        lengths = [len(p) + len(r) for p, r in zip(prompts, responses)]
        ends = np.cumsum(lengths)
        starts = [end - len(r) for end, r in zip(ends, responses)]  # of each response
        before = [start - 1 for start in starts]  # the last token of its prompt
    else:
        tokens = [t for part in (*prompts, *responses) for t in part]
        lengths = [len(part) for part in (*prompts, *responses)]
        ends = np.cumsum(lengths)
        starts = [end - len(r) for end, r in zip(ends[len(prompts) :], responses)]
        before = [ends[p] - 1 for p in prompt_of]
    predict = np.concatenate([[last, *range(start, start + len(r) - 1)][: len(r)] for last, start, r in zip(before, starts, responses)])
    targets = [t for r in responses for t in r]
    sequence = np.repeat(np.arange(len(responses)), [len(r) for r in responses])
    tensors = (torch.as_tensor(x, dtype=torch.int64).to(device()) for x in (tokens, predict, targets, sequence))
    tokens, predict, targets, sequence = tensors
    return Packed(tokens, lengths, prompt_of, predict, targets, sequence)


def autocast():
    """bf16 matrix products on a GPU; nothing on a CPU."""
    return torch.autocast("cuda", torch.bfloat16) if device().type == "cuda" else contextlib.nullcontext()


def response_logprobs(model, packed: Packed, temperature: float = 1.0):
    """(log-prob, logsumexp, entropy) of every response token, each (R,)."""
    with autocast():
        hidden = model.hidden(packed.tokens, packed.lengths, packed.continues)  # (N, d_model)
        return model.logprobs(hidden[packed.predict], packed.targets, temperature)


def idle_pass(model, reference=None) -> None:
    """Where other ranks have a micro-batch and this one has none: the same passes over one token, with gradients of 0."""
    packed = pack([[0]], [[0]])
    if reference is not None:
        with torch.no_grad():
            response_logprobs(reference, packed)
    logp = response_logprobs(model, packed)[0]
    if logp.requires_grad:
        (0.0 * logp.sum()).backward()


# ---------------------------------------------------------------------------------------------- optimizer


def adamw(model: torch.nn.Module, lr: float, betas: tuple[float, float], weight_decay: float, decay_embedding: bool = True):
    """AdamW; OLMo2's pre-training decays every weight but the input embedding, the authors' RL and SFT decay all."""
    embedding = [p for n, p in model.named_parameters() if n == "embed_tokens.weight"]
    rest = [p for n, p in model.named_parameters() if n != "embed_tokens.weight"]
    groups = [{"params": rest, "weight_decay": weight_decay}, {"params": embedding, "weight_decay": weight_decay * decay_embedding}]
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=1e-8, fused=True)


def set_lr(optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def check_schedule(kind: str) -> None:
    check(kind in ("constant", "cosine"), f"schedule {kind}: choose constant or cosine")


def schedule(kind: str, step: int, steps: int, warmup: int = 0, floor: float = 0.0) -> float:
    """Factor on the peak rate for step 0 .. steps-1: linear warm-up, then `constant` or a `cosine` down to floor."""
    if step < warmup:
        return (step + 1) / warmup
    if kind == "constant":
        return 1.0
    progress = (step - warmup) / max(1, steps - warmup)
    return floor + (1 - floor) * 0.5 * (1 + float(np.cos(np.pi * progress)))


# ---------------------------------------------------------------------------------------------- checkpoints and resume

# change cost, not results
KNOBS = {"ckpt", "out", "save_every", "log_every", "samples_every", "save_rollouts", "micro_tokens", "slots", "kv_memory", "progress", "compile", "checkpoint_activations"}


def recorded(config) -> dict:
    """The part of a config that decides the result."""
    return {k: v for k, v in dataclasses.asdict(config).items() if k not in KNOBS}


def output_path(config, recipe: str) -> str:
    """`4B.pt` and `rl` -> `4B.rl.pt` beside it, unless --out says otherwise."""
    return config.out or re.sub(r"\.pt$", "", config.ckpt) + f".{recipe}.pt"


def open_parent(config):
    """The checkpoint a recipe starts from, on this rank's device -> (model, facts)."""
    model, facts = load_checkpoint(config.ckpt, mmap=world() > 1)  # the ranks of a node read one copy
    return model.to(device()), {**facts, "tokenizer": tokenizer_of(facts, config.ckpt)}


def check_compiler() -> None:
    compilers = [os.environ.get("CXX", "g++"), "clang++"]
    there = importlib.util.find_spec("triton") if torch.cuda.is_available() else any(map(shutil.which, compilers))
    check(there, "--compile needs " + ("triton" if torch.cuda.is_available() else f"a C++ compiler ({' or '.join(compilers)})") + "; --no-compile does without")


def prepare(model, config):
    """The model as the flags say it computes, sharded over the ranks. Make the optimizer after it."""
    model.fp32_head = config.fp32_head
    for block in model.layers:
        block.recompute = config.checkpoint_activations
    if config.compile:
        model.fuse()
    return shard(model)


def tokenizer_of(facts: dict, ckpt: str) -> str:
    """The name of a checkpoint's tokenizer; a tokenizer.json that has moved is looked for beside the checkpoint."""
    name = facts["tokenizer"]
    beside = os.path.join(os.path.dirname(ckpt), os.path.basename(name))
    found = name in ("toy", "dolma2") or os.path.isfile(name)
    check(found or os.path.isfile(beside), f"the tokenizer {name} of {ckpt} is missing; put it beside the checkpoint")
    return name if found else beside


def lineage(parent: dict, recipe: str) -> str:
    """`sft` then `rl` is `sft.rl`; a base checkpoint adds nothing."""
    return recipe if parent["recipe"] == "base" else f"{parent['recipe']}.{recipe}"


def check_length(model, tokens: int, what: str = "--max_prompt + --max_response") -> None:
    limit = model.config.max_seq_len
    check(tokens <= limit, f"{what} is {tokens} tokens, the model's limit is {limit}; lower it")


def open_tokenizer(facts: dict, model):
    """The tokenizer a checkpoint was trained with; the model may have more rows, never fewer, and toy's must be the same."""
    encoding = get_tokenizer(facts["tokenizer"])
    known = model.config.vocab_size
    same = encoding.n_vocab == known if facts["tokenizer"] == "toy" else encoding.n_vocab <= known
    check(same, f"tokenizer {facts['tokenizer']} has {encoding.n_vocab} ids, the checkpoint {known}; it was made with another version")
    return encoding


def make_facts(config, recipe: str, step: int, parent: dict | None, **more) -> dict:
    """What a checkpoint says of itself; `id` names its whole lineage of configurations."""
    parent = parent or {}
    facts = {
        "recipe": recipe,
        "step": step,  # optimizer steps of this stage
        "tokens": parent.get("tokens"),  # of pre-training
        "corpus": parent.get("corpus"),
        "tokenizer": parent.get("tokenizer"),
        "preset": config.preset,
        "seed": config.seed,
        "parent": getattr(config, "ckpt", None),
        "parent_id": parent.get("id"),
        "base_id": parent.get("base_id") or parent.get("id"),
        "config": recorded(config),
        "code": code_version(),
        "torch": str(torch.__version__),
        **more,
    }
    facts["id"] = hashlib.blake2b(json.dumps([recipe, step, facts["tokens"], facts["parent_id"], facts["config"]]).encode(), digest_size=8).hexdigest()
    return facts


@functools.cache
def code_version() -> str:
    """The commit that ran, with a + where files differ from it."""
    git = lambda *args: subprocess.run(["git", *args], cwd=os.path.dirname(os.path.abspath(__file__)), capture_output=True, text=True).stdout.strip()
    try:
        return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+" if git("status", "--porcelain", "-uno") else "")
    except OSError:
        return "unknown"


def differences(config, other: dict) -> str:
    now = recorded(config)
    return ", ".join(f"{k} was {other.get(k)} and is now {now.get(k)}" for k in sorted(now.keys() | other.keys()) if now.get(k) != other.get(k))


def is_finished(path: str, config, parent: dict | None = None) -> bool:
    """True where `path` holds the result of this very command; an error where it holds another's."""
    if not os.path.exists(path):
        return False
    facts = read_facts(path)
    changed = differences(config, facts["config"])
    if not changed and parent and facts["parent_id"] != parent["id"]:
        changed = f"its parent {config.ckpt} was made again"
    check(not changed, f"{path} exists and differs ({changed}); give another --out or delete it")
    if rank() == 0:  # a kill after the result was written may have left the state behind
        shutil.rmtree(re.sub(r"\.pt$", "", path) + ".resume", ignore_errors=True)
    print0(f"{path} is finished; nothing to do")
    return True


class Resume:
    """The state of an unfinished run: weights, every optimizer, the step, in `<name>.resume/state.pt`.

    Batches and samples are functions of (seed, step), so nothing else has to be kept and nothing is replayed. Only a
    `reference` that moves is more than a function of the parent: its weights are kept as well.
    """

    def __init__(self, out: str, config, model, *optimizers, reference=None):
        self.folder = re.sub(r"\.pt$", "", out) + ".resume"
        self.path = os.path.join(self.folder, "state.pt")
        self.config, self.model, self.optimizers, self.reference = config, model, optimizers, reference

    def load(self) -> int:
        """Put the state back, if there is one -> the step to go on with (0: from the start)."""
        seen = gather_objects(os.path.exists(self.path))
        check(all(seen) or not any(seen), f"{self.path} is not there for every rank; nodes must share the file system of --out")
        if not seen[0]:
            return 0
        state = read_file(self.path, mmap=world() > 1)
        changed = differences(self.config, state["config"])
        check(not changed, f"{self.folder} holds an unfinished run with other flags ({changed}); delete it or give another --out")
        put_weights(self.model, state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            put_state(optimizer, saved)
        if self.reference:
            put_weights(self.reference, state["reference"])
        print0(f"going on from step {state['step']} of {self.folder}")
        return state["step"]

    def steps(self, start: int, steps: int):
        """The numbers of the steps to do. Between two of them the run is saved, every save_every steps, and garbage collected.

        SIGTERM ends the run after the step it is in, saved; one rank that got it is enough. It comes from Slurm, before a time
        limit or at preemption, or from torchrun, which passes it on and kills after 30 s (--shutdown_timeout). The status is 143,
        a shell's word for SIGTERM: with 0, whatever waits for the result would start without it. A torchrun that got the signal
        itself starts nothing again; one whose ranks alone got it does (--max_restarts), and goes on.

        Python by itself would collect at another time on each rank, and all would wait for it. What is there before the loop is
        not looked at again: through millions of problems a collection takes seconds, through what a step leaves a millisecond.
        """
        asked = []  # to stop
        before = signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
        gc.disable()
        gc.collect()
        gc.freeze()
        try:
            for step in range(start, steps):
                gc.collect()
                stop = all_max(len(asked))[0] > 0
                if step > start and (stop or step % self.config.save_every == 0):
                    self.save(step)
                if stop:
                    barrier()  # no rank leaves before the state is written
                    print0(f"stopped by SIGTERM after step {step}; the same command goes on from there")
                    sys.exit(128 + signal.SIGTERM)
                yield step
        finally:
            signal.signal(signal.SIGTERM, before)
            gc.enable()
            gc.unfreeze()

    def save(self, step: int) -> None:
        """After `step` steps. Whole tensors, in one file that rank 0 writes: the number of ranks may be another when it is read."""
        phase(f"saving step {step}")
        state = {"model": full_weights(self.model), "optimizers": [full_state(o) for o in self.optimizers]}
        if self.reference:
            state["reference"] = full_weights(self.reference)
        if rank() == 0:
            write_aside(self.path, {"step": step, "config": recorded(self.config), **state})

    def finish(self, out: str, facts: dict) -> None:
        """Write the result, then drop the state."""
        phase(f"writing {out}")
        weights = full_weights(self.model)
        if rank() == 0:
            save_checkpoint(out, self.model, facts, weights)
            print(f"wrote {out}")
            self.drop()
        barrier()

    def drop(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


# ---------------------------------------------------------------------------------------------- log


class Log:
    """One JSON line per step in `<name>.log.jsonl`; lines after the step that a run resumes from are dropped."""

    def __init__(self, out: str, step: int, kind: str = "log"):
        self.path = re.sub(r"\.pt$", "", out) + f".{kind}.jsonl"
        if rank() == 0:
            os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
            kept = [row for row in read_rows(self.path) if row["step"] <= step] if step else []
            with open(self.path + ".tmp", "w") as f:
                f.writelines(json.dumps(row) + "\n" for row in kept)
            os.replace(self.path + ".tmp", self.path)

    def write(self, step: int, **values) -> None:
        if rank() == 0:
            with open(self.path, "a") as f:
                f.write(json.dumps({"step": step, **values}) + "\n")


def read_rows(path: str) -> list[dict]:
    """The JSON lines of a file; a last line torn by a kill is passed over."""
    if not os.path.exists(path):
        return []
    with open(path) as f:
        lines = f.read().split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def append_row(path: str, row: dict) -> None:
    """Add one JSON line with one write, after cutting off a line that a kill left torn."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "ab+") as f:
        fcntl.flock(f, fcntl.LOCK_EX)  # the study evaluates two checkpoints at a time
        size = f.seek(0, os.SEEK_END)
        if size:
            f.seek(-1, os.SEEK_END)
            if f.read(1) != b"\n":
                f.seek(0)
                f.truncate(f.read().rfind(b"\n") + 1)
        f.write(json.dumps(row).encode() + b"\n")
        f.flush()
        os.fsync(f.fileno())
