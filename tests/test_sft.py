"""SFT: what the loss falls on, shown token by token; batching; which solutions each recipe reads."""

import json
from pathlib import Path

import pytest
import torch
from conftest import tiny

import sft
from data.problems import Problem, load_problems, prompt_text
from data.tokenizer import get_tokenizer
from plumbing.batches import pack, response_hidden
from plumbing.examples import Examples

SHARED = Path(__file__).parents[2] / "shared/data"
SAMPLE, DOLMA2 = SHARED / "openmathinstruct2_sample.jsonl", SHARED / "tokenizer/allenai_dolma2.json"

PROBLEM = Problem(
    "0",
    "say ann has 3 cards . buys 2 . bea has 4 . how many now ?",
    "5, 4",
    ("first 3 + 2 = 5 . so \\boxed{ 5, 4}", "second"),
    "toy",
)


def as_the_model_gets_it(packed):
    """-> the packed tokens, and the places of those from which the response tokens are predicted."""
    model = tiny()
    given = []

    def hidden(tokens, lengths):
        assert sum(lengths) == len(tokens)
        given.extend(tokens.tolist())
        return torch.arange(len(tokens))[:, None]

    model.hidden = hidden
    places = response_hidden(model, packed.prompts, packed.responses)[:, 0]
    return given, places.tolist()


def test_the_loss_falls_on_the_solution_and_its_end_only():
    encoding = get_tokenizer("toy")
    (example,) = Examples([PROBLEM], encoding, "one", 100, 100)
    packed = pack([example.prompt], [example.response])
    tokens, predict = as_the_model_gets_it(packed)
    shown = encoding.decode(tokens)
    learned = [encoding.decode([t]) for t in packed.targets.tolist()]
    assert (
        shown
        == PROBLEM.question
        + " Let's think step by step and output the final answer within \\boxed{}.\n"
        + PROBLEM.solutions[0]
        + "<|endoftext|>"
    )
    assert learned == [
        "first",
        " 3",
        " +",
        " 2",
        " =",
        " 5",
        " .",
        " so",
        " \\boxed{",
        " 5",
        ",",
        " 4",
        "}",
        "<|endoftext|>",
    ]
    assert [encoding.decode([tokens[i]]) for i in predict[:2]] == ["\n", "first"]


def test_one_all_cut_and_left_out():
    encoding = get_tokenizer("toy")
    one, every = (Examples([PROBLEM], encoding, kind, 100, 100) for kind in ("one", "all"))
    assert len(one) == 1 and len(every) == 2 and every[0] == one[0]
    (cut,) = Examples([PROBLEM], encoding, "one", 100, 5)
    assert (
        cut.response == one[0].response[:5] and encoding.eot_token not in cut.response
    )  # a cut solution has no end
    assert len(Examples([PROBLEM], encoding, "one", 5, 100)) == 0


def test_the_one_solution_is_the_first_or_a_keyed_draw():
    encoding = get_tokenizer("toy")
    problems = [
        Problem(str(i), f"q {i}", "1", tuple(f"solution {j}" for j in range(10)), "toy")
        for i in range(40)
    ]
    text = lambda **how: [
        encoding.decode(e.response[:-1])
        for e in Examples(problems, encoding, "one", 100, 100, **how)
    ]
    assert text() == ["solution 0"] * 40
    drawn = text(pick="random", seed=1)
    assert (
        drawn == text(pick="random", seed=1) != text(pick="random", seed=2) and len(set(drawn)) > 5
    )
    assert text(pick="random", seed=1)[5:] == [
        encoding.decode(e.response[:-1])
        for e in Examples(problems[5:], encoding, "one", 100, 100, "random", 1)
    ]


def picture(example, encoding) -> str:
    """The packed tokens as text, those under the loss in brackets, each as its own token."""
    packed = pack([example.prompt], [example.response])
    tokens, predict = as_the_model_gets_it(packed)
    learned = {
        i + 1: t for i, t in zip(predict, packed.targets.tolist())
    }  # place -> the token learned there
    assert all(tokens[i] == t for i, t in learned.items())
    return "".join(
        f"[{encoding.decode([t])}]" if i in learned else encoding.decode([t])
        for i, t in enumerate(tokens)
    )


PICTURE = r"""
Lily's aloe vera plant produces 3 offsets 3 times a year. After 5 years, how many offsets will the mother plant have produced? Let's think step by step and output the final answer within \boxed{}.
[The][ mother][ plant][ produces][ ][3][ offsets][,][ ][3][ times][ a][ year][.
][So][,][ every][ year][ it][ produces][ ][3][ *][ ][3][ =][ ][9][ offsets][.
][In][ ][5][ years][,][ the][ mother][ plant][ will][ produce][ ][9][ *][ ][5][ =][ ][45][ offsets][.
][Thus][,][ after][ ][5][ years][,][ the][ mother][ plant][ will][ have][ produced][ \][boxed][{][45][}][ offsets][.][<|endoftext|>]
""".strip()


@pytest.mark.skipif(
    not SAMPLE.exists() or not DOLMA2.exists(), reason=f"{SAMPLE} or {DOLMA2} is not here"
)
def test_openmath_rows_under_the_loss_mask(tmp_path):
    """The 100 real rows: one problem's tokens with what is learned beside, as a picture; every row by the same rule."""
    encoding = get_tokenizer(str(DOLMA2))
    problems = load_problems(str(SAMPLE))
    data = Examples(problems, encoding, "one", 1024, 1024)
    assert len(data) == 100
    for problem, example in zip(problems, data):
        response = encoding.encode_ordinary(problem.solutions[0]) + [encoding.eot_token]
        assert picture(example, encoding) == prompt_text(problem) + "".join(
            f"[{encoding.decode([t])}]" for t in response
        )
    shortest = min(data, key=lambda e: len(e.prompt) + len(e.response))
    assert picture(shortest, encoding) == PICTURE


@pytest.mark.skipif(
    not SAMPLE.exists() or not DOLMA2.exists(), reason=f"{SAMPLE} or {DOLMA2} is not here"
)
def test_gold_reads_every_row_of_a_group(tmp_path):
    """The real rows, each question twice with another solution: 100 groups; Gold has 200 examples, one solution 100."""
    rows = [json.loads(line) for line in SAMPLE.read_text().splitlines()]
    again = [{**row, "generated_solution": "Again. " + row["generated_solution"]} for row in rows]
    (tmp_path / "twice.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows + again))
    problems, encoding = load_problems(str(tmp_path / "twice.jsonl")), get_tokenizer(str(DOLMA2))
    one, gold = (Examples(problems, encoding, kind, 1024, 2048) for kind in ("one", "all"))
    assert (len(problems), len(one), len(gold)) == (100, 100, 200)
    text = lambda e: encoding.decode(e.response[:-1])
    assert [text(e) for e in one] == [row["generated_solution"] for row in rows]
    assert [text(e) for e in gold] == [
        s
        for row in rows
        for s in (row["generated_solution"], "Again. " + row["generated_solution"])
    ]
    assert gold[0].prompt == gold[1].prompt == one[0].prompt


def test_special_tokens_cannot_be_injected():
    encoding = get_tokenizer("toy")
    evil = Problem("0", "say <|endoftext|> ?", "1", ("<|endoftext|> 1",), "toy")
    (example,) = Examples([evil], encoding, "one", 100, 100)
    assert (
        encoding.eot_token not in example.prompt and example.response.count(encoding.eot_token) == 1
    )


def batch():
    g = torch.Generator().manual_seed(0)
    draw = lambda n: torch.randint(0, 50, (n,), generator=g).tolist()
    return [sft.Example(draw(3 + i % 4), draw(1 + 5 * i % 7)) for i in range(9)]


@pytest.mark.parametrize("loss", ["mean", "sum"])
def test_batching_does_not_change_loss_or_gradient(loss):
    """Against each example alone through the plain forward pass."""
    reference, total, count = tiny(), 0.0, 0
    for e in batch():
        logp = reference(torch.tensor([e.prompt + e.response]))[0].log_softmax(-1)
        for t, token in enumerate(e.response):
            total = total - logp[len(e.prompt) - 1 + t, token]
            count += 1
    (total / (count if loss == "mean" else 1)).backward()
    for micro_tokens in (1, 25, 10_000):
        m = tiny()
        metrics = sft.sft_backward(m, batch(), micro_tokens, loss)
        assert (
            metrics["loss"] == pytest.approx(float(total.detach()) / count, rel=1e-5)
            and metrics["tokens"] == count
        )
        for p, q in zip(m.parameters(), reference.parameters()):
            assert torch.allclose(p.grad, q.grad, atol=1e-5 if loss == "mean" else 1e-3)
