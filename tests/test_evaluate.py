"""pass@k against enumeration, likelihood scoring against the plain forward pass, prompts, the row that is written."""

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import quick, tiny

import evaluate
from data import UserError
from data.problems import load_problems, prompt_text
from plumbing.checkpoint import save_checkpoint
from plumbing.few_shot import build_prompts
from plumbing.files import read_rows
from plumbing.intervals import interval
from plumbing.likelihood import score_continuations
from plumbing.result_rows import read_results

CONFIG = evaluate.Config(ckpt="", preset="toy", **evaluate.PRESETS["toy"])


@pytest.mark.parametrize(
    "n, c, k", [(5, 0, 3), (5, 2, 3), (6, 3, 1), (6, 6, 6), (7, 1, 7), (8, 3, 2)]
)
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(n, c, k):
    right = [i < c for i in range(n)]
    subsets = list(itertools.combinations(right, k))
    assert evaluate.pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_is_unbiased():
    """Mean over binomial counts is 1 - (1 - p)^k exactly; the plug-in 1 - (1 - c/n)^k is not."""
    from math import comb

    n, k, p = 12, 4, 0.2
    mean = sum(
        comb(n, c) * p**c * (1 - p) ** (n - c) * evaluate.pass_at_k(n, c, k) for c in range(n + 1)
    )
    assert mean == pytest.approx(1 - (1 - p) ** k)


@pytest.mark.parametrize("n, c, k", [(4, 5, 1), (4, 2, 5), (4, 2, 0), (4, -1, 2)])
def test_impossible_counts_are_refused(n, c, k):
    with pytest.raises(ValueError):
        evaluate.pass_at_k(n, c, k)


def test_interval_covers_the_mean():
    rng = np.random.default_rng(0)
    hits = sum(
        (lo <= 0.3 <= hi)
        for lo, hi in (
            interval((rng.random(100) < 0.3).astype(float).tolist(), seed) for seed in range(200)
        )
    )
    assert 0.88 <= hits / 200 <= 1.0
    assert interval([0.5] * 10) == [0.5, 0.5]


@pytest.mark.parametrize("prepare", [lambda m: m, quick], ids=["plain", "fast"])
def test_likelihood_is_that_of_the_plain_forward_pass(prepare):
    model = prepare(tiny().requires_grad_(False))
    requests = [([1, 2, 3], [4, 5]), ([7], [8]), ([9, 10, 11, 12], [13, 14, 15])]
    for micro_tokens in (1, 1000):
        for (context, continuation), (logp, greedy) in zip(
            requests, score_continuations(model, requests, micro_tokens)
        ):
            logits = model(torch.tensor([context + continuation]))[
                0, len(context) - 1 : -1
            ].log_softmax(-1)
            assert logp == pytest.approx(
                float(logits.gather(-1, torch.tensor(continuation)[:, None]).sum()), abs=1e-4
            )
            assert greedy == (logits.argmax(-1).tolist() == continuation)
    argmax = int(model(torch.tensor([[1, 2, 3]]))[0, -1].argmax())
    assert score_continuations(model, [([1, 2, 3], [argmax])], 100)[0][1]


def test_few_shot_prompts_hold_other_problems_and_are_keyed():
    problems = load_problems("toy", "test")[:3]
    prompts = build_prompts(problems, replace(CONFIG, shots=2), "toy")
    assert prompts == build_prompts(problems, replace(CONFIG, shots=2), "toy")
    assert prompts != build_prompts(problems, replace(CONFIG, shots=2, seed=1), "toy")
    for problem, prompt in zip(problems, prompts):
        assert (
            prompt.endswith(prompt_text(problem))
            and prompt.count("\\boxed{}") == 3
            and prompt.count(problem.question) == 1
        )
    assert build_prompts(problems, CONFIG, "toy") == [prompt_text(p) for p in problems]


@pytest.fixture
def checkpoint(tmp_path, toy_model):
    path = str(tmp_path / "4K.pt")
    facts = dict(
        id="x",
        base_id="x",
        recipe="base",
        tokens=4000,
        preset="toy",
        seed=0,
        code="",
        config={},
        tokenizer="toy",
        corpus="toy",
    )
    save_checkpoint(path, toy_model, facts)
    return path


def test_the_row_holds_every_problem_and_is_written_once(checkpoint, tmp_path, capsys):
    config = replace(CONFIG, ckpt=checkpoint, problems=6, n=4, k="1,4", max_response=8)
    evaluate.main(config)
    evaluate.main(config)
    assert capsys.readouterr().out.count("nothing to do") == 2
    toy_row, general_row = read_rows(str(tmp_path / "results.jsonl"))
    assert [p[2] for p in toy_row["problems"]] == [4] * 6
    assert toy_row["pass@4"] == pytest.approx(
        np.mean([evaluate.pass_at_k(n, c, 4) for _, _, n, c, _ in toy_row["problems"]]), abs=1e-4
    )
    assert [p[0] for p in toy_row["problems"]] == [p.id for p in load_problems("toy", "test")[:6]]
    assert set(general_row["skills"]) and general_row["heldout_loss"] > 0
    evaluate.main(replace(config, again=True, task="toy"))
    assert json.dumps(read_rows(str(tmp_path / "results.jsonl"))[2]["problems"]) == json.dumps(
        toy_row["problems"]
    )  # same seed, same bits


def test_the_same_weights_under_another_name_get_the_same_row(checkpoint, tmp_path, capsys):
    """An experiment that makes a cell of the core anew looks for its rows by its own name."""
    config = replace(CONFIG, ckpt=checkpoint, problems=6, n=4, k="1,4", max_response=8)
    evaluate.main(config)
    shutil.copy(checkpoint, tmp_path / "other.pt")
    evaluate.main(replace(config, ckpt=str(tmp_path / "other.pt")))
    name = Path(checkpoint).stem
    assert f"other has the weights of {name}, whose row it gets" in capsys.readouterr().out
    rows = read_results(str(tmp_path / "results.jsonl"))
    assert [row["name"] for row in rows] == [name, name, "other", "other"]
    assert rows[2]["problems"] == rows[0]["problems"] and rows[3]["mean"] == rows[1]["mean"]
    evaluate.main(replace(config, ckpt=str(tmp_path / "other.pt")))
    assert capsys.readouterr().out.count("nothing to do") == 2


@pytest.mark.parametrize("k", ["1,8", "0", "-1", "2.0", "²", "٣", "9" * 5000])
def test_k_beyond_n_is_refused(checkpoint, k):
    with pytest.raises(UserError, match=f"--k {k}: numbers from 1 to --n 4"):
        evaluate.main(replace(CONFIG, ckpt=checkpoint, n=4, k=k))
