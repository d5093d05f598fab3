"""SFT: what the loss falls on, shown token by token; batching; which solutions each recipe reads."""

import pytest
import torch
from conftest import tiny

import common
import sft
from data.problems import Problem
from data.tokenizer import get_tokenizer

PROBLEM = Problem("0", "say ann has 3 cards . buys 2 . bea has 4 . how many now ?", "5, 4", ("first 3 + 2 = 5 . so \\boxed{ 5, 4}", "second"), "toy")


def test_the_loss_falls_on_the_solution_and_its_end_only():
    encoding = get_tokenizer("toy")
    (example,) = sft.examples([PROBLEM], encoding, "one", 100, 100)
    packed = common.pack([example.prompt], [example.response])
    shown = encoding.decode(packed.tokens.tolist())
    learned = [encoding.decode([t]) for t in packed.targets.tolist()]
    assert shown == PROBLEM.question + " Let's think step by step and output the final answer within \\boxed{}.\n" + PROBLEM.solutions[0] + "<|endoftext|>"
    assert learned == ["first", " 3", " +", " 2", " =", " 5", " .", " so", " \\boxed{", " 5", ",", " 4", "}", "<|endoftext|>"]
    assert [encoding.decode([packed.tokens[i]]) for i in packed.predict[:2]] == ["\n", "first"]


def test_one_all_cut_and_left_out():
    encoding = get_tokenizer("toy")
    one, every = (sft.examples([PROBLEM], encoding, kind, 100, 100) for kind in ("one", "all"))
    assert len(one) == 1 and len(every) == 2 and every[0] == one[0]
    (cut,) = sft.examples([PROBLEM], encoding, "one", 100, 5)
    assert cut.response == one[0].response[:5] and encoding.eot_token not in cut.response  # a cut solution has no end
    assert sft.examples([PROBLEM], encoding, "one", 5, 100) == []


def test_special_tokens_cannot_be_injected():
    encoding = get_tokenizer("toy")
    evil = Problem("0", "say <|endoftext|> ?", "1", ("<|endoftext|> 1",), "toy")
    (example,) = sft.examples([evil], encoding, "one", 100, 100)
    assert encoding.eot_token not in example.prompt and example.response.count(encoding.eot_token) == 1


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
        assert metrics["loss"] == pytest.approx(float(total.detach()) / count, rel=1e-5) and metrics["tokens"] == count
        for p, q in zip(m.parameters(), reference.parameters()):
            assert torch.allclose(p.grad, q.grad, atol=1e-5 if loss == "mean" else 1e-3)
