"""Evaluation: pass@k on problems, general skills by likelihood. Appends one row per task to results.jsonl.

    python evaluate.py --ckpt out/toy/3.6M.rl.pt --task toy,general
    torchrun --nproc_per_node=8 evaluate.py --ckpt out/4B.pt --task gsm8k --shots 8

n samples of each problem at temperature 0.6 and top_p 0.95 (the authors ran this; their paper names the temperature
only), the unbiased pass@k from the n verdicts, and a bootstrap interval over the problems. Base checkpoints are asked
with --shots examples, trained ones without. The row carries (n, c) of every problem, so any other k, grouping or
interval can be computed later.
"""

import math
import os
import time
from dataclasses import dataclass

import numpy as np
import torch

import common
from common import check, print0
from data import toy
from data.benchmarks import load_general
from data.grader import extract, grade
from data.problems import Problem, answer_kind, few_shot_text, load_problems, prompt_text
from sampler import sample


@dataclass(frozen=True)
class Config:
    ckpt: str  # the checkpoint to evaluate
    preset: str = "1B"  # scale; read from the checkpoint where not given
    task: str = "gsm8k"  # toy, toy-hard, gsm8k, math, general or a jsonl, several joined by commas
    data: str = ""  # the same, under the name the training scripts use
    split: str = "test"  # of the problems
    problems: int = 0  # evaluate the first so many; 0 is all
    shots: int = 0  # worked examples before each problem; the paper: 8 for base checkpoints, 0 after training
    n: int = 32  # samples per problem
    k: str = "1,8,32"  # of pass@k, each at most n
    temperature: float = 0.6  # 0 is greedy
    top_p: float = 0.95  # nucleus; 1 is off
    max_response: int = 1024  # new tokens
    kind: str = ""  # grading rules, math or gsm8k; default by the problems' source, as in training
    seed: int = 0  # of the samples and of the choice of examples
    out: str = ""  # file of result rows; default results.jsonl beside the checkpoint
    show: int = 0  # print so many samples with their verdicts
    slots: int = 512  # samples decoded at a time, per rank
    micro_tokens: int = 16_384  # tokens per forward pass, general skills
    progress: bool = True  # a progress bar
    again: bool = False  # evaluate even if the row is there


PRESETS = {
    "toy": dict(task="toy,general", max_response=52, progress=False),
    "small": dict(task="toy,general", max_response=128, slots=2048),
    "1B": {},
    "1B-60B": dict(task="math"),
    "4B": dict(task="math"),
}


# ---------------------------------------------------------------------------------------------- pass@k


def pass_at_k(n: int, c: int, k: int) -> float:
    """Probability that k of the n samples, drawn without replacement, hold one of the c right ones.

    1 - C(n-c, k) / C(n, k)   (Chen et al. 2021): unbiased, unlike 1 - (1 - c/n)^k. Raises ValueError unless c <= n, k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@k needs 0 <= c <= n and 1 <= k <= n, not n={n}, c={c}, k={k}")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def interval(values: list[float], seed: int = 0, draws: int = 1000) -> list[float]:
    """95 % bootstrap interval of the mean, drawing problems with replacement -> [low, high]."""
    picks = common.generator(seed, "bootstrap").integers(len(values), size=(draws, len(values)))
    return np.quantile(np.asarray(values)[picks].mean(1), [0.025, 0.975]).round(4).tolist()


def build_prompts(problems: list[Problem], config: Config, task: str) -> list[str]:
    """Zero-shot prompts, or few-shot ones with examples of the training split drawn by seed (never the problem itself)."""
    if not config.shots:
        return [prompt_text(p) for p in problems]
    pool = [p for p in load_problems(task, "train") if p.solutions]
    prompts = []
    for problem in problems:
        rest = [p for p in pool if p.question != problem.question]
        check(len(rest) >= config.shots, f"{task} has {len(rest)} worked examples, --shots asks for {config.shots}")
        picks = common.generator(config.seed, "shots").permutation(len(rest))[: config.shots]
        prompts.append(few_shot_text(problem, [rest[i] for i in picks]))
    return prompts


def judge(problem: Problem, text: str, kind: str) -> tuple[bool, bool]:
    """(right, verified): verified only for toy problems, whose every written equation can be checked."""
    right = grade(text, problem.answer, kind or answer_kind(problem))
    return right, right and problem.source.startswith("toy") and toy.verify(text, problem)


def evaluate_problems(model, encoding, task: str, config: Config) -> dict:
    """Sample, grade and count; this rank's share of the problems, then everybody's."""
    problems = load_problems(task, config.split)[: config.problems or None]
    asked = build_prompts(problems, config, task)
    prompts = [encoding.encode_ordinary(text) for text in asked]
    common.check_length(model, max(map(len, prompts)) + config.max_response, "the longest prompt + --max_response")
    mine = range(common.rank(), len(problems), common.world())
    keys = common.problem_keys(problems)
    with common.autocast():
        groups = sample(
            model, [prompts[i] for i in mine], config.n, config.max_response, config.temperature, config.top_p, encoding.eot_token,
            config.seed, problem_ids=[keys[i] for i in mine], slots=config.slots, progress=config.progress and common.rank() == 0,
        ) if len(mine) else []  # fmt: skip
    rows = []
    for i, group in zip(mine, groups):
        texts = [encoding.decode([t for t in r.tokens if t != encoding.eot_token]) for r in group]
        verdicts = [judge(problems[i], text, config.kind) for text in texts]
        rows.append({
            "place": i, "id": problems[i].id, "level": problems[i].level, "n": config.n,
            "c": sum(right for right, _ in verdicts), "verified": sum(verified for _, verified in verdicts),
            "distinct": len({text for text, (right, _) in zip(texts, verdicts) if right}),
            "boxed": sum(extract(text, config.kind or answer_kind(problems[i])) is not None for text in texts),
            "truncated": sum(not r.finished for r in group), "tokens": sum(len(r.tokens) for r in group),
        })  # fmt: skip
        if i < config.show:
            found, verdict = extract(texts[0], config.kind or answer_kind(problems[i])), "right" if verdicts[0][0] else "wrong"
            print(f"\n{asked[i]}{texts[0]}\n[extracted {found}, answer {problems[i].answer}: {verdict}]")
    rows = sorted((row for share in common.gather_objects(rows) for row in share), key=lambda row: row["place"])
    samples = len(rows) * config.n
    result = {
        "kind": "pass@k",
        **summary(rows, config, "c", ""),
        **(summary(rows, config, "verified", "verified_") if problems[0].source.startswith("toy") else {}),
        "distinct": sum(r["distinct"] for r in rows) / len(rows),  # different right responses per problem
        "format": sum(r["boxed"] for r in rows) / samples,  # share of samples with an answer in a box
        "truncated": sum(r["truncated"] for r in rows) / samples,
        "length": sum(r["tokens"] for r in rows) / samples,  # tokens
        "problems": [[r["id"], r["level"], r["n"], r["c"], r["verified"]] for r in rows],  # id, level, n, right, verified
    }
    parts = [f"pass@{k} {100 * result[f'pass@{k}']:.1f} [{100 * result[f'ci@{k}'][0]:.1f}, {100 * result[f'ci@{k}'][1]:.1f}]" for k in ks(config)]
    print0(f"{task}: {'  '.join(parts)}  ({len(rows)} problems x {config.n}; boxed {result['format']:.2f}, cut {result['truncated']:.2f})")
    return result


def ks(config: Config) -> list[int]:
    return [int(k) for k in config.k.split(",")]


def summary(rows: list[dict], config: Config, count: str, prefix: str) -> dict:
    result = {}
    for k in ks(config):
        values = [pass_at_k(r["n"], r[count], k) for r in rows]
        result[f"{prefix}pass@{k}"] = round(sum(values) / len(values), 4)
        result[f"{prefix}ci@{k}"] = interval(values, config.seed)
    return result


# ---------------------------------------------------------------------------------------------- likelihood


@torch.no_grad()
def score_continuations(model, requests: list[tuple[list[int], list[int]]], micro_tokens: int) -> list[tuple[float, bool]]:
    """(context, continuation) token lists -> (summed log-prob of the continuation, is each of its tokens the argmax?)."""
    results = [None] * len(requests)
    for group in common.micro_batches([len(a) + len(b) for a, b in requests], micro_tokens):
        packed = common.pack([requests[i][0] for i in group], [requests[i][1] for i in group])
        with common.autocast():
            hidden = model.hidden(packed.tokens, packed.lengths, packed.continues)[packed.predict]  # (R, d_model)
        logp = model.logprobs(hidden, packed.targets)[0]  # (R,)
        greedy = torch.cat([model.logits(h).argmax(-1) for h in hidden.split(1024)]) == packed.targets  # (R,)
        counts = [len(requests[i][1]) for i in group]
        for i, one, hits in zip(group, logp.split(counts), greedy.split(counts)):
            results[i] = (float(one.sum()), bool(hits.all()))
    return results


def evaluate_general(model, encoding, facts: dict, config: Config) -> dict:
    """Accuracy of six skills and the held-out loss of general text (nats per token).

    Multiple choice: the continuation with the highest log-prob per character wins (acc_norm); a skill with one
    choice counts where the model would say exactly that (greedy). As lm-evaluation-harness, on a world of our own.
    """
    items, texts = load_general(facts["corpus"])
    requests = [(encoding.encode_ordinary(item.context), encoding.encode_ordinary(c)) for item in items for c in item.choices]
    scores = iter(score_continuations(model, requests, config.micro_tokens))
    right: dict[str, list[bool]] = {}
    for item in items:
        mine = [next(scores) for _ in item.choices]
        if len(mine) == 1:
            hit = mine[0][1]
        else:
            hit = int(np.argmax([logp / len(choice.strip()) for (logp, _), choice in zip(mine, item.choices)])) == item.gold
        right.setdefault(item.skill, []).append(hit)
    tokens = [[*encoding.encode_ordinary(text), encoding.eot_token] for text in texts]
    losses = score_continuations(model, [(t[:1], t[1:]) for t in tokens], config.micro_tokens)
    heldout = -sum(logp for logp, _ in losses) / sum(len(t) - 1 for t in tokens)
    skills = {skill: sum(hits) / len(hits) for skill, hits in right.items()}
    mean = sum(skills.values()) / len(skills)
    print0(f"general: mean {100 * mean:.1f}  " + "  ".join(f"{s} {100 * v:.0f}" for s, v in skills.items()) + f"  held-out loss {heldout:.4f}")
    return {"kind": "general", "skills": skills, "mean": mean, "items": {s: len(h) for s, h in right.items()}, "heldout_loss": heldout}


# ---------------------------------------------------------------------------------------------- main


def row_key(config: Config, task: str, facts: dict) -> dict:
    """What makes two evaluations the same one."""
    key = {"id": facts["id"], "task": task}
    if task == "general":
        return key
    return key | {f: getattr(config, f) for f in ("split", "problems", "shots", "n", "k", "temperature", "top_p", "max_response", "kind", "seed")}


def main(config: Config) -> None:
    tasks = (config.data or config.task).split(",")
    check(config.kind in ("", "math", "gsm8k"), f"--kind {config.kind}: choose math or gsm8k")
    check(config.temperature >= 0 and 0 < config.top_p <= 1, f"--temperature {config.temperature} --top_p {config.top_p}: at least 0, and above 0 up to 1")
    if any(task != "general" for task in tasks):
        possible = all(part.isdigit() and 1 <= int(part) <= config.n for part in config.k.split(","))
        check(possible, f"--k {config.k}: numbers from 1 to --n {config.n}, joined by commas")
    model, facts = common.open_parent(config)
    encoding = common.open_tokenizer(facts, model)
    out = config.out or os.path.join(os.path.dirname(config.ckpt), "results.jsonl")
    name = os.path.basename(config.ckpt).removesuffix(".pt")
    for task in tasks:
        key = row_key(config, task, facts)
        if not config.again and any(key.items() <= row["key"].items() for row in common.read_rows(out)):
            print0(f"{task}: {name} is in {out} already; nothing to do (--again repeats it)")
            continue
        clock = time.time()
        result = evaluate_general(model, encoding, facts, config) if task == "general" else evaluate_problems(model, encoding, task, config)
        if common.rank() == 0:
            about = {f: facts[f] for f in ("id", "base_id", "recipe", "tokens", "preset", "seed", "code")} | {"setting": facts["config"].get("setting")}
            common.append_row(out, {"name": name, "task": task, **about, "key": key, **result, "facts": facts, "seconds": round(time.time() - clock, 1)})
        common.barrier()


if __name__ == "__main__":
    common.launch(main, Config, PRESETS)
