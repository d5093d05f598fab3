"""Evaluation: pass@k on problems, and general skills by likelihood. One row per task is written.

    python evaluate.py --ckpt out/toy/3.6M.rl.pt --task toy,general
    torchrun --nproc_per_node=8 evaluate.py --ckpt out/1B/4B.pt --task gsm8k,general --shots 8

Each problem gets n samples at temperature 0.6 and top_p 0.95 (as the authors ran it; their paper
gives only the temperature). The n verdicts give the unbiased pass@k, and an interval over the
problems. A row keeps (n, c) of every problem, so that any other k up to n can be computed.
`--setting run` asks and grades as the authors' code did; `--setting written` has no top_p.
"""

import math
import time
from dataclasses import dataclass

from data import toy
from data.grader import extract, grade
from data.lock import exclusive
from data.problems import Problem, is_toy
from plumbing import checkpoint, presets, result_rows
from plumbing.few_shot import Asked, open_tasks
from plumbing.flags import launch
from plumbing.intervals import interval
from plumbing.likelihood import evaluate_general, is_likelihood
from plumbing.prepare import install_fast, make_sampler
from plumbing.ranks import merge_dicts, rank
from plumbing.rollouts import sample_my_share, text_of


@dataclass(frozen=True, kw_only=True)
class Config(result_rows.EvaluationOptions):
    ckpt: str  # the checkpoint to evaluate
    preset: str = "1B"  # scale; read from the checkpoint where not given
    setting: str = "controlled"  # written, run or controlled
    task: str = ""  # toy, toy-hard, gsm8k, math, a jsonl, general, a benchmark; joined by commas
    split: str = "test"  # of the problems
    problems: int = 0  # how many of each set, from its start; 0 is all. The authors took 1,000
    # asking
    shots: int = 0  # worked examples before each problem; the paper: 8 for base checkpoints
    style: str = "ours"  # of the examples: ours (as in training) or authors (Question/Answer)
    examples: str = ""  # their set (its training split); default the task's, in style authors GSM8K
    n: int = 32  # samples per problem
    temperature: float = 0.6  # 0 is greedy
    top_p: float = 0.95  # nucleus; 1 is off
    max_response: int = 1024  # new tokens
    # judging
    k: str = "1,8,32"  # of pass@k, each at most n
    kind: str = ""  # how answers are graded: gsm8k, math or ordered; default as the problems say
    rule: str = "ours"  # of the grader: ours (exact values) or authors (strings)
    seed: int = 0  # of the samples and of the choice of examples
    out: str = ""  # file of result rows; default results.jsonl beside the checkpoint


PRESETS = presets.EVALUATE  # other scales; the defaults above are 1B's
SETTINGS = presets.EVALUATE_SETTINGS


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that k of the n samples, drawn without replacement, hold one of the c right ones.

    1 - C(n - c, k) / C(n, k) (Chen et al. 2021): unbiased, unlike 1 - (1 - c / n)^k.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@k needs 0 <= c <= n and 1 <= k <= n, not n={n}, c={c}, k={k}")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def pass_at_ks(rows: list[dict], config: Config, field: str, prefix: str) -> dict:
    """pass@k and its interval for every k; `field` of a row is its number of right samples."""
    result = {}
    for k in result_rows.ks(config):
        values = [pass_at_k(row["n"], row[field], k) for row in rows]
        result[f"{prefix}pass@{k}"] = round(sum(values) / len(values), 4)
        result[f"{prefix}ci@{k}"] = interval(values, config.seed)
    return result


def judge(problem: Problem, rollouts, encoding, config: Config) -> dict:
    """One problem's samples -> its row of counts."""
    row = {"id": problem.id, "level": problem.level, "n": len(rollouts), "c": 0, "verified": 0}
    row |= {"answered": 0, "truncated": 0, "tokens": 0}
    right_texts = set()
    for rollout in rollouts:
        text = text_of(rollout, encoding)
        if grade(text, problem.answer, problem.kind, config.rule):
            right_texts.add(text)
            row["c"] += 1
            if is_toy(problem) and toy.verify(text, problem):  # true equations give the answer
                row["verified"] += 1
        row["answered"] += extract(text, problem.kind) is not None
        row["truncated"] += not rollout.finished
        row["tokens"] += len(rollout.tokens)
    return row | {"distinct": len(right_texts)}


def evaluate_problems(model, encoding, asked: Asked, task: str, config: Config) -> dict:
    """Sample and judge this rank's share of the problems -> the result over all of them."""
    problems = asked.problems
    sampler = make_sampler(model, config.slots, config.kv_memory)
    sampling = dict(n=config.n, max_new_tokens=config.max_response, temperature=config.temperature)
    sampling |= dict(top_p=config.top_p, seed=config.seed)
    sampling |= dict(progress=config.progress and rank() == 0)
    places, rollouts = sample_my_share(sampler, problems, asked.prompts, encoding, **sampling)
    mine = {}  # place -> row
    for i, group in zip(places, rollouts):
        mine[i] = judge(problems[i], group, encoding, config)
        if i < config.show:
            text = text_of(group[0], encoding)
            result_rows.show_sample(asked.texts[i], text, problems[i], config)
    everywhere = merge_dicts(mine)
    rows = [everywhere[i] for i in range(len(problems))]
    result = {"kind": "pass@k", **pass_at_ks(rows, config, "c", "")}
    if is_toy(problems[0]):
        result |= pass_at_ks(rows, config, "verified", "verified_")
    return result_rows.complete(task, result, rows, config)


@exclusive
def main(config: Config) -> None:
    tasks = result_rows.tasks_of(config)
    config.check()
    model, facts = checkpoint.open_model(config)
    encoding = checkpoint.open_tokenizer(facts, model)
    missing = result_rows.missing(config, tasks, facts)
    opened = open_tasks(config, missing, model, encoding, facts)  # all, before the first one runs
    install_fast(model, config)  # not sharded: each rank has it all
    for task in result_rows.to_do(config, missing, facts):  # another process may have done some
        clock = time.time()
        if is_likelihood(task):
            result = evaluate_general(model, encoding, task, facts, config, opened[task])
        else:
            result = evaluate_problems(model, encoding, opened[task], task, config)
        result_rows.write(config, task, facts, result, time.time() - clock)


if __name__ == "__main__":
    launch(main, Config, PRESETS, SETTINGS)
