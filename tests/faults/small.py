"""The project at a size at which a run of any stage takes a few tenths of a second.

`import_and_shrink` is called once, before anything is forked: models of 25,000 weights, and a study
of two checkpoints with a few steps each. `make_world` then makes, with the project's own commands,
what the others read: a checkpoint, problems, texts, a corpus, Hugging Face directories.
"""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path

from tests.faults import children

SCRIPTS = [
    "convert.py",
    "data/corpus.py",
    "data/problems.py",
    "evaluate.py",
    "excursions.py",
    "grpo.py",
    "model.py",
    "parallel.py",
    "pretrain.py",
    "sft.py",
    "study/figures.py",
    "tools/difficulty.py",
]
PRETRAIN = "--batch 4 --seq_len 40 --warmup 200 --save_every 2 --log_every 4"


def import_and_shrink() -> None:
    """Import what the commands import, with one thread, and make their presets small."""
    import torch
    import torch._dynamo  # torch's optimizers do so when they are made, which takes seconds

    torch.set_num_threads(1)  # a fork of a process with threads may hang

    import convert  # noqa: F401
    import excursions  # noqa: F401
    import grpo  # noqa: F401
    import model
    import parallel  # noqa: F401
    import pretrain  # noqa: F401
    from data.tokenizer import get_tokenizer
    from fast import cpu, head, packed, sampling, shared_cache  # noqa: F401
    from plumbing import presets
    from plumbing.identity import code_version
    from study import figures, plan, runner  # noqa: F401

    for name in SCRIPTS:
        children.code_of(name)
    get_tokenizer("toy")
    code_version()  # the same for all runs of this program, whoever edits files meanwhile
    shape = dict(d_model=16, n_layers=2, n_heads=2, n_kv_heads=2, d_ff=24)
    model.PRESETS["toy"] = dataclasses.replace(model.PRESETS["toy"], **shape)
    shrink_study(presets)
    runner.subprocess = types.SimpleNamespace(
        Popen=ForkedCommand, STDOUT=subprocess.STDOUT, TimeoutExpired=subprocess.TimeoutExpired
    )


def shrink_study(presets) -> None:
    """excursions.py's toy preset: two checkpoints, a few steps from each."""
    sampled = dict(max_response=8)
    rl = dict(steps=2, prompts=2, n=2, mini_batches=1, save_every=1, **sampled)
    changes = {
        "PRETRAIN": dict(tokens="2K", keep="1K,2K", batch=4, seq_len=40, warmup="200")
        | dict(save_every=2),
        "SFT": dict(steps=4, batch=4, save_every=2, **sampled),
        "RL": rl,
        "PARALLEL": rl | dict(sft_batch=4),
        "EVALUATE": dict(problems=2, **sampled),
    }
    presets.CHECKPOINTS["toy"] = "1K,2K"
    for name, values in changes.items():
        of_all = getattr(presets, name)
        of_all["toy"] = of_all["toy"] | values


class ForkedCommand:
    """Stands for subprocess.Popen in study/runner.py: the command in a fork, without the imports."""

    def __init__(self, command: list[str], stdout, stderr, env: dict, pass_fds=()):
        self.returncode = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self.be_the_child(command, stdout, env)

    def be_the_child(self, command: list[str], stdout, env: dict) -> None:
        status = 70
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.dup2(stdout.fileno(), 1)
            os.dup2(stdout.fileno(), 2)
            os.environ.update(env)
            status = children.status_of(command[1:])
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)

    def poll(self, options: int = os.WNOHANG):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout=None):
        return self.poll(options=0)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


# ------------------------------------------------------------------------------ the world


def make_world(folder: Path) -> None:
    """The files that the commands read, made by the project's own commands."""
    folder.mkdir(parents=True)
    write_rows(folder / "problems.jsonl", [problem(i) for i in range(12)])
    write_rows(folder / "gsm8k.jsonl", [gsm8k_problem(i) for i in range(12)])
    write_rows(folder / "math.jsonl", [math_problem(i) for i in range(12)])
    write_rows(folder / "openmath.jsonl", [openmath_problem(i // 2) for i in range(24)])
    write_benchmarks(folder / "benchmarks")
    (folder / "texts").mkdir()
    for i in range(4):
        texts = [f"{i} {j} " + "say hana has 11 cards . " * j for j in range(20)]
        write_rows(folder / "texts" / f"{i}.jsonl", [{"text": text} for text in texts])
    (folder / "reward.py").write_text(REWARD)
    must(f"pretrain.py --preset toy --out {folder}/toy --tokens 2K --keep 1K,2K {PRETRAIN}")
    shutil.copy(folder / "toy" / "2K.pt", folder / "base.pt")
    must(f"convert.py to-hf {folder}/base.pt {folder}/hf")
    split_in_shards(folder / "hf", folder / "shards")


def must(line: str) -> None:
    """Run a command that has to work: the others are compared with what it makes."""
    outcome = children.run(line.split())
    if outcome.status != 0:
        raise children.Broken(f"{line} does not work: {outcome.stderr}")


def write_rows(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def numbers(i: int) -> tuple[str, str]:
    """(question, answer)"""
    return f"say ann has {i} cards . bea has {i + 1} . how many now ?", str(2 * i + 1)


def problem(i: int) -> dict:
    question, answer = numbers(i)
    solutions = [f" so \\boxed{{ {answer}}}", f" now \\boxed{{ {answer}}}"]
    row = {"id": f"p{i}", "question": question, "answer": answer, "solutions": solutions}
    return row | {"source": "small", "kind": "math", "level": str(i % 3)}


def gsm8k_problem(i: int) -> dict:
    question, answer = numbers(i)
    work = f"ann and bea have {i} + {i + 1} = <<{i}+{i + 1}={answer}>>{answer} ."
    return {"question": question, "answer": f"{work}\n#### {answer}"}


def math_problem(i: int) -> dict:
    question, answer = numbers(i)
    row = {
        "problem": question,
        "solution": f"so $\\boxed{{{answer}}}$ .",
        "level": f"Level {i % 5}",
    }
    return row | {"type": "Algebra"}


def openmath_problem(i: int) -> dict:
    question, answer = numbers(i)
    row = {"problem": question, "generated_solution": f"so \\boxed{{{answer}}}"}
    return row | {"expected_answer": answer, "problem_source": "augmented_math"}


def write_benchmarks(folder: Path) -> None:
    """Some rows of each public benchmark, in the hub's shapes."""
    folder.mkdir()
    choices = {"text": ["a cat", "a dog", "a cow", "an owl"], "label": ["A", "B", "C", "D"]}
    arc = []
    openbook = []
    piqa = []
    swag = []
    lambada = []
    for i in range(4):
        text = f"what has {i} cards ?"
        arc.append({"id": str(i), "question": text, "choices": choices, "answerKey": "ABCD"[i]})
        openbook.append({"question_stem": text, "choices": choices, "answerKey": "ABCD"[i]})
        piqa.append({"goal": text, "sol1": "ask ann", "sol2": "ask bea", "label": i % 2})
        swag.append(
            {"activity_label": "cards", "ctx_a": text, "ctx_b": "then", "label": str(i)}
            | {"endings": ["ann has 1", "bea has 2", "all go", "no one"]}
        )
        lambada.append({"text": f"ann has {i} cards and bea has the same cards"})
    write_rows(folder / "arc_easy.jsonl", arc)
    write_rows(folder / "openbookqa.jsonl", openbook)
    write_rows(folder / "piqa.jsonl", piqa)
    write_rows(folder / "hellaswag.jsonl", swag)
    write_rows(folder / "lambada.jsonl", lambada)


def split_in_shards(whole: Path, folder: Path) -> None:
    """The same Hugging Face directory with its weights in two files and an index."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(whole, folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    place = {}
    for i, part in enumerate((names[::2], names[1::2]), start=1):
        name = f"model-{i:05d}-of-00002.safetensors"
        tensors = {key: weights[key].clone() for key in part}
        save_file(tensors, folder / name, metadata={"format": "pt"})
        place |= dict.fromkeys(part, name)
    size = sum(tensor.nbytes for tensor in weights.values())
    index = {"metadata": {"total_size": size}, "weight_map": place}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


REWARD = '''"""A reward of one's own."""


def score(response, problem):
    words = response.split()
    right = problem.answer in words
    return 1.0 if right else 0.01 * min(len(words), 5)
'''
