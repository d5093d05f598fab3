"""Evaluation: pass@k on problems, general skills by likelihood. Appends one row per task to results.jsonl.

    python evaluate.py --ckpt out/toy/3.6M.rl.pt --task toy,general
    torchrun --nproc_per_node=8 evaluate.py --ckpt out/4B.pt --task gsm8k,general --shots 8

n samples of each problem at temperature 0.6 and top_p 0.95 (the authors ran this; their paper names the temperature
only), the unbiased pass@k from the n verdicts, and a bootstrap interval over the problems. Base checkpoints are asked
with --shots examples, trained ones without. The row carries (n, c) of every problem, so any other k, grouping or
interval can be computed later.

`general` is LAMBADA, HellaSwag, ARC-Easy, ARC-Challenge, PIQA and OpenBookQA as lm-evaluation-harness scores them, or the
toy world's six skills for a checkpoint that was pre-trained on it. `--setting run` asks and grades as the authors' code
did: GSM8K examples with calculator marks for MATH too, string comparison; `written` has no top_p.

`--split_by_difficulty` does something else: it sorts the training problems into files by how often the checkpoint solves
them (difficulty.py).
"""

import math
import os
import time
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

import common
import difficulty
from common import check, print0
from data import toy
from data.benchmarks import BENCHMARKS, Item, load_benchmark, load_general
from data.grader import extract, grade
from data.problems import NAMES, Problem, answer_kind, authors_few_shot_text, counted, few_shot_text, load_problems, prompt_text
from sampler import Sampler


@dataclass(frozen=True)
class Config:
    ckpt: str  # the checkpoint to evaluate
    preset: str = "1B"  # scale; read from the checkpoint where not given
    setting: str = "controlled"  # written, run or controlled
    task: str = "gsm8k,general"  # toy, toy-hard, gsm8k, math, a jsonl, general, or one benchmark; several joined by commas
    data: str = ""  # the same, under the name the training scripts use
    split: str = "test"  # of the problems
    problems: int = 0  # evaluate the first so many of each set; 0 is all. The authors took 1,000 of each benchmark
    benchmarks: str = ""  # folder of <benchmark>.jsonl files with the hub's rows; default the hub
    # asking
    shots: int = 0  # worked examples before each problem; the paper: 8 for base checkpoints, 0 after training
    style: str = "ours"  # of the examples: ours (as in training), or the authors' Question/Answer lines
    examples: str = ""  # where they are drawn from; default the training split of the same set, the authors' GSM8K
    n: int = 32  # samples per problem
    temperature: float = 0.6  # 0 is greedy
    top_p: float = 0.95  # nucleus; 1 is off
    max_response: int = 1024  # new tokens
    # judging
    k: str = "1,8,32"  # of pass@k, each at most n
    kind: str = ""  # grading rules, math, gsm8k or ordered; default by the problems' source, as in training
    rule: str = "ours"  # of the grader: ours (exact values), or the authors' (strings)
    seed: int = 0  # of the samples and of the choice of examples
    out: str = ""  # file of result rows; default results.jsonl beside the checkpoint
    show: int = 0  # print so many samples with their verdicts
    slots: int = 512  # samples decoded at a time, per rank
    kv_memory: float = 0.8  # share of a GPU's free memory for keys and values while sampling
    micro_tokens: int = 16_384  # tokens per forward pass, general skills
    compile: bool = False  # fuse what surrounds attention: faster; a minute at the start, and a C++ compiler on a CPU
    progress: bool = True  # a progress bar
    again: bool = False  # evaluate even if the row is there
    # instead of all that: sort the training problems for RL, see difficulty.py
    split_by_difficulty: bool = False  # write <name>.easy.jsonl, .medium.jsonl and .hard.jsonl beside the checkpoint, and no row
    difficulty_samples: int = 64  # of each training problem, at temperature 1 and without top_p


PRESETS = {
    "toy": dict(task="toy,general", max_response=52, progress=False),
    "small": dict(task="toy,general", max_response=128, slots=2048),
    "1B": dict(compile=True),
    "1B-60B": dict(task="math,general", compile=True),
    "4B": dict(task="math,general", compile=True),
}
SETTINGS = {"written": dict(top_p=1.0), "run": dict(style="authors", rule="authors"), "controlled": {}}


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
    """Zero-shot prompts, or few-shot ones with examples of the training split drawn by seed (never the problem itself).

    Ours are drawn anew for each problem; in the authors' style all problems get the same ones, from GSM8K.
    """
    if not config.shots:
        return [prompt_text(p) for p in problems]
    source = config.examples or ("gsm8k" if config.style == "authors" else task)
    pool = [p for p in load_problems(source, "train", marks=config.style == "authors") if p.solutions]

    def draw(not_these: set[str]) -> list[Problem]:
        rest = [p for p in pool if p.question not in not_these]
        check(len(rest) >= config.shots, f"{source} has {len(rest)} worked examples besides, --shots asks for {config.shots}")
        return [rest[i] for i in common.generator(config.seed, "shots").permutation(len(rest))[: config.shots]]

    if config.style == "authors":
        shots = draw({p.question for p in problems})
        return [authors_few_shot_text(p, shots) for p in problems]
    return [few_shot_text(p, draw({p.question})) for p in problems]


def judge(problem: Problem, text: str, config: Config) -> tuple[bool, bool]:
    """(right, verified): verified only for toy problems, whose every written equation can be checked."""
    right = grade(text, problem.answer, config.kind or answer_kind(problem), config.rule)
    return right, right and problem.source.startswith("toy") and toy.verify(text, problem)


def evaluate_problems(model, encoding, task: str, config: Config) -> dict:
    """Sample, grade and count; this rank's share of the problems, then everybody's."""
    problems = load_problems(task, config.split)
    print0(counted(task, config.split, problems) + (f"; the first {config.problems:,} are evaluated" if config.problems else ""))
    problems = problems[: config.problems or None]
    asked = build_prompts(problems, config, task)
    prompts = [encoding.encode_ordinary(text) for text in asked]
    common.check_length(model, max(map(len, prompts)) + config.max_response, "the longest prompt + --max_response")
    mine = range(common.rank(), len(problems), common.world())
    keys = common.problem_keys(problems)
    groups = Sampler(model, config.slots, memory=config.kv_memory).sample(
        [prompts[i] for i in mine], config.n, config.max_response, config.temperature, config.top_p, encoding.eot_token,
        config.seed, problem_ids=[keys[i] for i in mine], progress=config.progress and common.rank() == 0,
    ) if len(mine) else []  # fmt: skip
    rows = []
    for i, group in zip(mine, groups):
        texts = [encoding.decode([t for t in r.tokens if t != encoding.eot_token]) for r in group]
        verdicts = [judge(problems[i], text, config) for text in texts]
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


def encode_pair(encoding, context: str, continuation: str, max_tokens: int) -> tuple[list[int], list[int]]:
    """Tokens of a context and of what follows, by lm-evaluation-harness's rules.

    Blanks that end the context move to the continuation; the continuation's tokens are those of the whole text after the
    context's own number of tokens. Nothing is put before the context unless it is empty (end of text, then). A text that
    is too long loses its beginning; the model reads at most max_tokens, the last token being only predicted.
    """
    stripped = context.rstrip()
    before = encoding.encode_ordinary(stripped)
    after = encoding.encode_ordinary(context + continuation)[len(before) :]
    before, after = before or [encoding.eot_token], after[-max_tokens:]
    return (before + after)[-(max_tokens + 1) :][: -len(after) or None], after


@torch.no_grad()
def score_continuations(model, requests: list[tuple[list[int], list[int]]], micro_tokens: int, progress=False, padding=False) -> list[tuple[float, bool]]:
    """(context, continuation) token lists -> (summed log-prob of the continuation, is each of its tokens the argmax?).

    Continuations of one context share its hidden states. Ranks take whole groups, so their number changes no bit.
    `padding`: count the head's padding rows, as the harness does; in a trained model they have no weight.
    """
    sharing: dict[tuple, list[int]] = {}  # requests by context; one of a few tokens is not worth sharing
    for i, (context, _) in enumerate(requests):
        sharing.setdefault((*context, -1 if len(context) > 8 else i), []).append(i)
    owners = list(sharing.values())  # the requests of each context
    context_of = [requests[members[0]][0] for members in owners]
    groups = common.micro_batches([len(c) + sum(len(requests[i][1]) for i in members) for c, members in zip(context_of, owners)], micro_tokens)
    mine, results = groups[common.rank() :: common.world()], {}
    for group in tqdm(mine, disable=not progress or common.rank() > 0, desc="scoring", unit="batch"):
        members = [(place, i) for place, c in enumerate(group) for i in owners[c]]  # place in the group, request
        continuations = [requests[i][1] for _, i in members]
        shared = len(members) > len(group)
        packed = common.pack([context_of[c] for c in group], continuations, [place for place, _ in members] if shared else None)
        with common.autocast():
            hidden = model.hidden(packed.tokens, packed.lengths, packed.continues)[packed.predict]  # (R, d_model)
        logp, greedy = [], []
        for h, target in zip(hidden.split(1024), packed.targets.split(1024)):
            logits = model.logits(h, padding)  # (up to 1024, vocab_size)
            logp.append(logits.log_softmax(-1).gather(-1, target[:, None])[:, 0])
            greedy.append(logits.argmax(-1) == target)
        counts = [len(c) for c in continuations]
        for (_, i), one, hits in zip(members, torch.cat(logp).split(counts), torch.cat(greedy).split(counts)):
            results[i] = (float(one.sum()), bool(hits.all()))
    everywhere = {i: result for share in common.gather_objects(results) for i, result in share.items()}
    return [everywhere[i] for i in range(len(requests))]


def evaluate_general(model, encoding, task: str, facts: dict, config: Config) -> dict:
    """Accuracy of skills by likelihood, and the held-out loss of general text (nats per token) where there is one.

    acc: the likeliest continuation wins; acc_norm: the one likeliest per character (its leading blank not counted). Where
    there is one choice: would the model say exactly that (greedy)? The headline of a skill is acc_norm unless its
    benchmark names the other.
    """
    items, texts = load_general(facts["corpus"], config.benchmarks) if task == "general" else (load_benchmark(task, config.benchmarks), [])
    of_skill: dict[str, list[Item]] = {}
    for item in items:
        of_skill.setdefault(item.skill, []).append(item)
    for skill, group in of_skill.items():
        if skill in BENCHMARKS and len(group) != BENCHMARKS[skill].n_items:
            print0(f"{skill}: {len(group):,} items, documented are {BENCHMARKS[skill].n_items:,}; compare with care")
    items = [item for group in of_skill.values() for item in group[: config.problems or None]]
    limit = model.config.max_seq_len
    requests = [encode_pair(encoding, item.context, choice, limit) for item in items for choice in item.choices]
    scores = iter(score_continuations(model, requests, config.micro_tokens, config.progress, padding=not texts))
    scored: dict[str, list[dict]] = {}
    for item in items:
        scored.setdefault(item.skill, []).append(score_item(item, [next(scores) for _ in item.choices]))
    skills = {}
    for skill, rows in scored.items():
        metric = BENCHMARKS[skill].metric if skill in BENCHMARKS else "acc_norm"
        hits = [row[metric] for row in rows]
        skills[skill] = {
            "acc": sum(row["acc"] for row in rows) / len(rows), "acc_norm": sum(row["acc_norm"] for row in rows) / len(rows), "n": len(rows),
            "metric": metric, "ci": interval(hits, config.seed), "right": "".join(str(int(hit)) for hit in hits),  # item by item
        }  # fmt: skip
        if metric == "acc":  # LAMBADA
            skills[skill]["perplexity"] = math.exp(min(700.0, -sum(row["logp"] for row in rows) / len(rows)))  # of the last word
    headline = {skill: s[s["metric"]] for skill, s in skills.items()}
    mean, heldout = sum(headline.values()) / len(headline), None
    if texts:
        tokens = [[*encoding.encode_ordinary(text), encoding.eot_token] for text in texts]
        losses = score_continuations(model, [(t[:1], t[1:]) for t in tokens], config.micro_tokens)
        heldout = -sum(logp for logp, _ in losses) / sum(len(t) - 1 for t in tokens)
    parts = "  ".join(f"{skill} {100 * value:.1f}" for skill, value in headline.items())
    print0(f"{task}: mean {100 * mean:.1f}  {parts}" + (f"  held-out loss {heldout:.4f}" if texts else ""))
    return {"kind": "general", "skills": headline, "mean": mean, "items": skills, "heldout_loss": heldout}


def score_item(item: Item, scores: list[tuple[float, bool]]) -> dict:
    """The verdicts on one item from (log-prob, greedy) of its choices; of equal ones the first counts, as in the harness."""
    logps = [logp for logp, _ in scores]
    if len(logps) == 1:
        return {"acc": scores[0][1], "acc_norm": scores[0][1], "logp": logps[0]}
    per_character = [logp / max(1, len(choice) - 1) for logp, choice in zip(logps, item.choices)]
    return {"acc": int(np.argmax(logps)) == item.gold, "acc_norm": int(np.argmax(per_character)) == item.gold, "logp": logps[item.gold]}


# ---------------------------------------------------------------------------------------------- main


def row_key(config: Config, task: str, facts: dict) -> dict:
    """What makes two evaluations the same one."""
    fields = ["problems"]
    if not is_likelihood(task):
        fields += ["split", "shots", "style", "examples", "n", "k", "temperature", "top_p", "max_response", "kind", "rule", "seed"]
    return {"id": facts["id"], "task": task} | {f: getattr(config, f) for f in fields}


def is_likelihood(task: str) -> bool:
    return task == "general" or task in BENCHMARKS


def main(config: Config) -> None:
    tasks = ["lambada" if task == "lambada_openai" else task for task in (config.data or config.task).split(",")]  # the harness's name
    for task in tasks:
        known = is_likelihood(task) or task in NAMES or task.endswith(".jsonl") or os.path.exists(task)
        check(known, f"unknown task {task!r}; choose {', '.join(NAMES)}, a .jsonl file, general, or of its benchmarks {', '.join(BENCHMARKS)}")
    check(config.kind in ("", "math", "gsm8k", "ordered"), f"--kind {config.kind}: choose math, gsm8k or ordered")
    check(config.rule in ("ours", "authors"), f"--rule {config.rule}: choose ours or authors")
    check(config.style in ("ours", "authors"), f"--style {config.style}: choose ours or authors")
    check(config.temperature >= 0 and 0 < config.top_p <= 1, f"--temperature {config.temperature} --top_p {config.top_p}: at least 0, and above 0 up to 1")
    sets = [task for task in tasks if not is_likelihood(task)]
    if config.split_by_difficulty:
        check(len(sets) == 1, "--split_by_difficulty takes the training problems of one set: give --data openmath-gsm8k, toy or a .jsonl file")
    elif sets:
        possible = all(part.isdigit() and 1 <= int(part) <= config.n for part in config.k.split(","))
        check(possible, f"--k {config.k}: numbers from 1 to --n {config.n}, joined by commas")
    model, facts = common.open_parent(config)
    encoding = common.open_tokenizer(facts, model)
    if config.compile:
        model.fuse()
    if config.split_by_difficulty:
        return difficulty.split(model, encoding, facts, sets[0], config)
    out = config.out or os.path.join(os.path.dirname(config.ckpt), "results.jsonl")
    name = os.path.basename(config.ckpt).removesuffix(".pt")
    for task in tasks:
        key = row_key(config, task, facts)
        if not config.again and any(key.items() <= row["key"].items() for row in common.read_rows(out)):
            print0(f"{task}: {name} is in {out} already; nothing to do (--again repeats it)")
            continue
        clock = time.time()
        result = evaluate_general(model, encoding, task, facts, config) if is_likelihood(task) else evaluate_problems(model, encoding, task, config)
        if common.rank() == 0:
            about = {f: facts[f] for f in ("id", "base_id", "recipe", "tokens", "preset", "seed", "code")} | {"setting": facts["config"].get("setting")}
            common.append_row(out, {"name": name, "task": task, **about, "key": key, **result, "facts": facts, "seconds": round(time.time() - clock, 1)})
        common.barrier()


if __name__ == "__main__":
    common.launch(main, Config, PRESETS, SETTINGS)
