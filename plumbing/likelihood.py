"""General skills by likelihood: what `evaluate.py --task general` and its benchmarks measure.

LAMBADA, HellaSwag, ARC-Easy, ARC-Challenge, PIQA and OpenBookQA as lm-evaluation-harness scores
them, or the toy world's six skills for a checkpoint that was pre-trained on it.
"""

import math

import numpy as np
import torch
from tqdm import tqdm

from data.benchmarks import BENCHMARKS, Item, load_benchmark, load_general
from plumbing.batches import response_hidden, split_by_tokens
from plumbing.intervals import interval
from plumbing.ranks import autocast, merge_dicts, print0, rank, world
from plumbing.transfer import send

SHARED_FROM = 9  # tokens: a context of so many is computed once for all that continues it


def is_likelihood(task: str) -> bool:
    return task == "general" or task in BENCHMARKS


def load_items(task: str, facts: dict, config) -> tuple[list[Item], list[str]]:
    """The items of a task, and the held-out texts that go with them, of which there may be none."""
    if task == "general":
        return load_general(facts["corpus"], config.benchmarks)
    return load_benchmark(task, config.benchmarks), []


def evaluate_general(model, encoding, task: str, facts: dict, config, opened=None) -> dict:
    """Accuracy of each skill, and the loss on held-out general text, in nats per token.

    `opened`: what load_items gives, where it has been called before.

    acc: the likeliest continuation wins. acc_norm: the one that is likeliest per character wins,
    its leading blank not counted. Where there is one choice: would the model say exactly that
    (greedy)? The headline of a skill is acc_norm, unless its benchmark names the other.
    """
    items, texts = opened or load_items(task, facts, config)
    items = first_of_each_skill(items, config.problems or None)
    limit = model.config.max_seq_len
    requests = []
    for item in items:
        for choice in item.choices:
            requests.append(encode_pair(encoding, item.context, choice, limit))
    how = {"progress": config.progress, "padding": not texts}
    scores = iter(score_continuations(model, requests, config.micro_tokens, **how))
    scored: dict[str, list[dict]] = {}
    for item in items:
        of_choices = [next(scores) for _ in item.choices]
        scored.setdefault(item.skill, []).append(score_item(item, of_choices))
    skills = {skill: summary_of_skill(skill, rows, config.seed) for skill, rows in scored.items()}
    headline = {skill: of_one[of_one["metric"]] for skill, of_one in skills.items()}
    mean = sum(headline.values()) / len(headline)
    loss = heldout_loss(model, encoding, texts, config.micro_tokens) if texts else None
    parts = [f"{skill} {100 * value:.1f}" for skill, value in headline.items()]
    if texts:
        parts.append(f"held-out loss {loss:.4f}")
    print0(f"{task}: mean {100 * mean:.1f}  {'  '.join(parts)}")
    return {
        "kind": "general",
        "skills": headline,
        "mean": mean,
        "items": skills,
        "heldout_loss": loss,
    }


def first_of_each_skill(items: list[Item], n: int | None) -> list[Item]:
    """The first n items of each skill, or all, skill after skill."""
    of_skill: dict[str, list[Item]] = {}
    for item in items:
        of_skill.setdefault(item.skill, []).append(item)
    chosen = []
    for skill, group in of_skill.items():
        documented = BENCHMARKS[skill].n_items if skill in BENCHMARKS else len(group)
        if len(group) != documented:
            counts = f"{len(group):,} items, documented are {documented:,}"
            print0(f"{skill}: {counts}; compare with care")
        chosen.extend(group[:n])
    return chosen


def summary_of_skill(skill: str, rows: list[dict], seed: int) -> dict:
    metric = BENCHMARKS[skill].metric if skill in BENCHMARKS else "acc_norm"
    hits = [row[metric] for row in rows]
    summary = {
        "acc": sum(row["acc"] for row in rows) / len(rows),
        "acc_norm": sum(row["acc_norm"] for row in rows) / len(rows),
        "n": len(rows),
        "metric": metric,
        "ci": interval(hits, seed),
        "right": "".join(str(int(hit)) for hit in hits),  # item by item
    }
    if metric == "acc":  # LAMBADA: the perplexity of the last word
        mean_logp = sum(row["logp"] for row in rows) / len(rows)
        summary["perplexity"] = math.exp(min(700.0, -mean_logp))
    return summary


def heldout_loss(model, encoding, texts: list[str], micro_tokens: int) -> float:
    """Nats per token of these texts, their end-of-text tokens included."""
    tokens = [[*encoding.encode_ordinary(text), encoding.eot_token] for text in texts]
    scores = score_continuations(model, [(t[:1], t[1:]) for t in tokens], micro_tokens)
    return -sum(logp for logp, _ in scores) / sum(len(t) - 1 for t in tokens)


def score_item(item: Item, scores: list[tuple[float, bool]]) -> dict:
    """The verdicts on one item from the (log-prob, greedy) of its choices.

    Of equal ones the first counts, as in the harness.
    """
    logps = [logp for logp, _ in scores]
    if len(logps) == 1:
        greedy = scores[0][1]
        return {"acc": greedy, "acc_norm": greedy, "logp": logps[0]}
    per_character = []
    for logp, choice in zip(logps, item.choices):
        per_character.append(logp / max(1, len(choice) - 1))
    return {
        "acc": int(np.argmax(logps)) == item.gold,
        "acc_norm": int(np.argmax(per_character)) == item.gold,
        "logp": logps[item.gold],
    }


def encode_pair(encoding, context: str, continuation: str, max_tokens: int):
    """Tokens of a context and of what follows, by lm-evaluation-harness's rules.

    Blanks that end the context move to the continuation. The continuation's tokens are those of the
    whole text after the context's own number of tokens. Nothing is put before the context unless it
    is empty: then end-of-text is. A text that is too long loses its beginning. The model reads at
    most max_tokens, since the last token is only predicted.
    """
    before = encoding.encode_ordinary(context.rstrip())
    after = encoding.encode_ordinary(context + continuation)[len(before) :]
    after = after[-max_tokens:]
    before = before or [encoding.eot_token]
    room = max_tokens + 1 - len(after)  # tokens of the context that fit
    return before[-room:], after


@torch.no_grad()
def score_continuations(
    model,
    requests: list[tuple[list[int], list[int]]],
    micro_tokens: int,
    progress: bool = False,
    padding: bool = False,
) -> list[tuple[float, bool]]:
    """(context, continuation) token lists -> (summed log-prob, is each token the likeliest?).

    Continuations of one context go into one pass, where fast/ computes it once. Ranks take whole
    contexts, so their number changes no bit. `padding`: count the head's padding rows, as the
    harness does; in a trained model they have no weight.
    """
    contexts, owners = group_by_context(requests)
    costs = []
    for context, members in zip(contexts, owners):
        costs.append(len(context) + sum(len(requests[i][1]) for i in members))
    passes = split_by_tokens(costs, micro_tokens)[rank() :: world()]
    results = {}
    for chosen in tqdm(passes, disable=not progress or rank() > 0, desc="scoring", unit="batch"):
        members = []
        prompts = []
        for c in chosen:
            members.extend(owners[c])
            prompts.extend([contexts[c]] * len(owners[c]))  # the same list: it is shared
        continuations = [requests[i][1] for i in members]
        targets = [token for c in continuations for token in c]
        with autocast():
            hidden = response_hidden(model, prompts, continuations)  # (R, d_model)
        logp, greedy = score_tokens(model, hidden, send(targets, hidden.device), padding)
        lengths = [len(c) for c in continuations]
        parts = zip(members, logp.cpu().split(lengths), greedy.cpu().split(lengths))
        for i, of_one, hits in parts:
            results[i] = (float(of_one.sum()), bool(hits.all()))
    everywhere = merge_dicts(results)
    return [everywhere[i] for i in range(len(requests))]


def group_by_context(requests) -> tuple[list[list[int]], list[list[int]]]:
    """Each context, and the numbers of its requests. One of a few tokens is not worth sharing."""
    sharing: dict[tuple, list[int]] = {}
    for i, (context, _) in enumerate(requests):
        key = ("shared", *context) if len(context) >= SHARED_FROM else ("alone", i)
        sharing.setdefault(key, []).append(i)
    owners = list(sharing.values())
    return [requests[members[0]][0] for members in owners], owners


def score_tokens(model, hidden, targets, padding: bool):
    """hidden (R, d_model), targets (R,) -> log-probs, and is each the likeliest, (R,) each."""
    logp = []
    greedy = []
    for h, target in zip(hidden.split(1024), targets.split(1024)):
        logits = model.logits(h, padding)  # (up to 1024, V)
        logp.append(logits.log_softmax(-1).gather(-1, target[:, None])[:, 0])
        greedy.append(logits.argmax(-1) == target)
    return torch.cat(logp), torch.cat(greedy)
