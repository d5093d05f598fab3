"""Advantages, the clipped loss and its gradient against NumPy written from the formulas; masks; batching."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import quick, tiny

import grpo
from data.problems import Problem
from plumbing.batches import pack, response_hidden, response_logprobs
from plumbing.optimizer import clip_gradients
from plumbing.packs import old_logprobs, packs_of_groups
from plumbing.sharding import shard
from sampler import Rollout

CONFIG = grpo.Config(ckpt="", **grpo.PRESETS["toy"])


def plain(model):
    return model


# Values and gradients are tested on the plain program and on fast/.
BOTH = pytest.mark.parametrize("prepare", [plain, quick], ids=["plain", "fast"])


def numpy_advantages(rewards, normalize):
    """(r - mean) / (unbiased std + 1e-6), (r - mean) / (mean + 1e-6), or r - mean."""
    out = np.zeros_like(rewards, dtype=np.float64)
    for g, r in enumerate(rewards.astype(np.float64)):
        out[g] = r - r.mean()
        if normalize == "std":
            out[g] /= np.sqrt(((r - r.mean()) ** 2).sum() / (len(r) - 1)) + 1e-6
        if normalize == "mean":
            out[g] /= r.mean() + 1e-6
    return out


@pytest.mark.parametrize("normalize", ["std", "none", "mean"])
def test_group_advantages(normalize):
    rewards = np.random.default_rng(0).choice([0.0, 0.1, 1.0], size=(40, 8))
    ours = grpo.group_advantages(torch.tensor(rewards, dtype=torch.float32), normalize)
    assert np.abs(ours.numpy() - numpy_advantages(rewards, normalize)).max() < 1e-5
    assert (
        np.abs(
            grpo.group_advantages(torch.tensor(rewards), normalize).numpy()
            - numpy_advantages(rewards, normalize)
        ).max()
        < 1e-9
    )


def test_equal_rewards_give_exactly_zero():
    for value in (0.0, 0.1, 1.0, 1 / 3):
        assert (grpo.group_advantages(torch.full((2, 7), value)) == 0).all()


def test_one_right_of_32():
    advantages = grpo.group_advantages(torch.tensor([[1.0] + [0.0] * 31]))
    assert advantages[0, 0] == pytest.approx(
        (1 - 1 / 32) / np.sqrt(1 / 32), rel=1e-4
    )  # 5.48, with the unbiased deviation


def numpy_loss(logp, old, advantage, ref, low, high, dual, kl):
    """Token by token, as the papers write it."""
    losses = []
    for x, o, a, r in zip(logp, old, advantage, ref):
        ratio = np.exp(np.clip(x - o, -20, 20))
        loss = max(-a * ratio, -a * min(max(ratio, 1 - low), 1 + high))
        if dual and a < 0:
            loss = min(loss, -a * dual)
        d = np.clip(r - x, -20, 20)
        losses.append(loss + kl * min(np.exp(d) - d - 1, 10))
    return np.array(losses)


@pytest.mark.parametrize(
    "low, high, dual, kl", [(0.2, 0.2, 3.0, 1e-3), (0.2, 0.28, 0.0, 0.0), (0.1, 0.3, 1.5, 0.5)]
)
def test_policy_loss_and_its_gradient(low, high, dual, kl):
    rng = np.random.default_rng(1)
    logp, old, ref = (
        -rng.exponential(1.0, 500) for _ in range(3)
    )  # ratios far outside the clip range on both sides
    advantage = rng.normal(size=500)
    x = torch.tensor(logp, requires_grad=True)
    loss, metrics = grpo.policy_loss(
        x, torch.tensor(old), torch.tensor(advantage), torch.tensor(ref), low, high, dual, kl
    )
    assert (
        np.abs(
            loss.detach().numpy() - numpy_loss(logp, old, advantage, ref, low, high, dual, kl)
        ).max()
        < 1e-9
    )
    loss.sum().backward()
    h = 1e-6
    numeric = (
        numpy_loss(logp + h, old, advantage, ref, low, high, dual, kl)
        - numpy_loss(logp - h, old, advantage, ref, low, high, dual, kl)
    ) / (2 * h)
    assert np.abs(x.grad.numpy() - numeric).max() < 1e-4
    assert 0.1 < metrics["clip_fraction"].mean() < 0.9
    assert (
        np.allclose(metrics["kl"], np.minimum(np.exp(ref - logp) - (ref - logp) - 1, 10))
        and (metrics["kl"] >= 0).all()
    )


def test_on_policy_gradient_is_minus_the_advantage():
    logp = torch.tensor([-1.0, -2.0], requires_grad=True)
    loss, metrics = grpo.policy_loss(logp, logp.detach(), torch.tensor([0.5, -0.5]))
    loss.sum().backward()
    assert (
        logp.grad.tolist() == [-0.5, 0.5]
        and metrics["ratio"].tolist() == [1, 1]
        and loss.sum() == 0
    )  # "my loss is 0"


@BOTH
def test_pack_puts_the_loss_on_response_tokens_only(prepare):
    packed = pack([[10, 11, 12], [20]], [[13, 14], [21, 22, 23]])
    assert packed.targets.tolist() == [13, 14, 21, 22, 23]
    assert packed.sequence.tolist() == [0, 0, 1, 1, 1]
    model = prepare(tiny())
    hidden = response_hidden(model, packed.prompts, packed.responses)
    tokens = torch.tensor([10, 11, 12, 13, 14, 20, 21, 22, 23])
    predict = [2, 3, 5, 6, 7]  # the last prompt token predicts the first response token
    assert torch.equal(hidden, model.hidden(tokens, [5, 4])[predict])


PROMPTS = [[1, 2, 3], [4], [5, 6]]
RESPONSES = [[7, 8], [9], [10, 11, 12], [13], [14, 15]]
PROMPT_OF = [0, 0, 1, 2, 2]


def test_shared_prompts_are_packed_once_in_fast():
    """The tokens that are computed, and which of them predict: prompts first, each once, then the responses."""
    model, seen = quick(tiny()), []

    def trunk(tokens, positions, attend):
        seen.append((tokens.tolist(), positions.tolist()))
        return torch.arange(len(tokens))[:, None]

    model.trunk = trunk
    packed = pack([PROMPTS[p] for p in PROMPT_OF], RESPONSES)
    predict = response_hidden(model, packed.prompts, packed.responses)[:, 0]
    ((tokens, positions),) = seen
    assert tokens == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
    assert positions == [0, 1, 2, 0, 0, 1, 3, 4, 3, 1, 2, 3, 2, 2, 3]
    assert predict.tolist() == [2, 6, 2, 3, 9, 10, 5, 5, 13]
    assert packed.targets.tolist() == [7, 8, 9, 10, 11, 12, 13, 14, 15]


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_shared_prompts_predict_the_same_in_fast(kv_heads):
    """fast/ with shared prompts, fast/ with a copy of each, and the plain program, which shares none."""
    shared = pack([PROMPTS[p] for p in PROMPT_OF], RESPONSES)
    pairs = pack([list(PROMPTS[p]) for p in PROMPT_OF], RESPONSES)
    results = []
    for prepare, packed in ((quick, shared), (quick, pairs), (plain, shared), (plain, pairs)):
        model = prepare(tiny(n_kv_heads=kv_heads))
        logp = response_logprobs(model, packed)[0]
        (logp * torch.arange(9)).sum().backward()
        results.append((logp, torch.cat([p.grad.flatten() for p in model.parameters()])))
    logp, grad = results[0]
    for logp2, grad2 in results[1:]:
        assert torch.allclose(logp, logp2, atol=1e-5)
        assert (grad - grad2).abs().max() < 1e-4 * grad.abs().max()


def made_groups(model, seed=0, P=4, n=4):
    """Ragged groups with rewards of all kinds: all wrong, all right, mixed."""
    rng = np.random.default_rng(seed)
    problems = [Problem(f"{i:012x}", "", "1", (), "toy", "ordered") for i in range(P)]
    prompts = [rng.integers(50, size=rng.integers(1, 9)).tolist() for _ in range(P)]

    def rollout():
        tokens = rng.integers(50, size=rng.integers(1, 12)).tolist()
        return Rollout(tokens, (-rng.exponential(3.0, len(tokens))).tolist(), True)

    rollouts = [[rollout() for _ in range(n)] for _ in range(P)]
    groups = grpo.Groups(problems, prompts, rollouts, list(range(P)))
    groups.rewards = torch.tensor([[0.0] * n, [1.0] * n, [1.0, 0, 0, 0], [1.0, 1, 0.1, 0]])
    groups.advantages = grpo.group_advantages(groups.rewards)
    return groups


def gradient(groups, prepare, **changes):
    config = replace(CONFIG, prompts=4, n=4, **changes)
    model, reference = prepare(tiny()), prepare(tiny())
    reference.init_weights(7)
    old_logprobs(model, groups, config)
    sums, _ = grpo.policy_backward(model, reference, groups, [0, 1, 2, 3], config)
    return torch.cat([p.grad.flatten() for p in model.parameters()]), sums


@BOTH
@pytest.mark.parametrize("kl", [0.0, 0.1])
def test_micro_batches_do_not_change_the_gradient(kl, prepare):
    groups = made_groups(tiny())
    whole, sums = gradient(groups, prepare, kl=kl, micro_tokens=10_000)
    for micro_tokens in (1, 30):
        parts, part_sums = gradient(groups, prepare, kl=kl, micro_tokens=micro_tokens)
        assert (whole - parts).abs().max() < 1e-6 and whole.abs().max() > 1e-3
        assert sums["scored_sum"] == part_sums["scored_sum"]


@BOTH
def test_left_out_groups_have_no_gradient_but_count(prepare):
    """Without KL, groups of zero advantage are not computed; the gradient is that of computing everything."""
    groups = made_groups(tiny())
    skipped, sums = gradient(groups, prepare, kl=0.0)
    everything, all_sums = gradient(
        groups, prepare, kl=1e-30
    )  # a KL weight that weighs nothing, but keeps the groups in
    assert (skipped - everything).abs().max() < 1e-7
    assert (
        sums["scored_sum"]
        < all_sums["scored_sum"]
        == sum(len(r.tokens) for g in groups.rollouts for r in g)
    )


# --- every mode against NumPy in float64, on random ragged groups


def with_cuts(groups):
    for g, i in ((0, 1), (1, 2), (2, 2), (3, 0)):
        groups.rollouts[g][i].finished = False
    return groups


LOSSES = ["token-mean", "sequence-mean", "constant", "micro-mean"]
EQUAL = [
    dict(loss=kind, kl=kl, mask_truncated=mask)
    for kind in LOSSES[:3]
    for kl in (0.0, 0.1)
    for mask in (False, True)
]


def on_two_ranks(rank, folder, prepare):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    results = []
    for changes in EQUAL:
        whole = with_cuts(made_groups(tiny()))
        mine = [g for g in range(4) if g % 2 == rank]
        pick = lambda x: [x[g] for g in mine]
        groups = grpo.Groups(pick(whole.problems), pick(whole.prompts), pick(whole.rollouts), mine)
        groups.rewards, groups.advantages = whole.rewards[mine], whole.advantages[mine]
        config = replace(
            CONFIG, prompts=4, n=4, micro_tokens=30 + 1000 * rank, **changes
        )  # unequal numbers of micro-batches
        model, reference = shard(prepare(tiny())), prepare(tiny())
        reference.init_weights(7)
        old_logprobs(model, groups, config)
        grpo.policy_backward(model, shard(reference), groups, [0, 1], config)
        clip_gradients(model, float("inf"))
        results.append(torch.cat([p.grad.full_tensor().flatten() for p in model.parameters()]))
    torch.save(results, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@BOTH
def test_one_batch_four_micro_batches_and_two_ranks_have_the_same_gradient(tmp_path, prepare):
    torch.multiprocessing.spawn(on_two_ranks, (str(tmp_path), prepare), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for changes, first, second in zip(EQUAL, *ranks, strict=True):
        groups = with_cuts(made_groups(tiny()))
        whole, _ = gradient(groups, prepare, micro_tokens=10_000, **changes)
        parts, _ = gradient(groups, prepare, micro_tokens=35, **changes)
        assert len(packs_of_groups(groups, range(4), replace(CONFIG, kl=1.0, micro_tokens=35))) >= 4
        assert torch.equal(first, second) and whole.abs().max() > 1e-3
        assert (whole - parts).abs().max() < 1e-6 and (whole - first).abs().max() < 1e-6, changes


@BOTH
def test_old_logprobs_by_recomputing_are_the_models(prepare):
    groups, model = made_groups(tiny()), prepare(tiny())
    old_logprobs(model, groups, replace(CONFIG, n=4, recompute_old=True, kl=1.0))
    packed = pack([groups.prompts[2]], [groups.rollouts[2][1].tokens])
    assert torch.allclose(groups.old_logp[2][1], response_logprobs(model, packed)[0], atol=1e-5)
    groups.old_logp = None
    old_logprobs(model, groups, replace(CONFIG, n=4, mini_batches=1))
    assert groups.old_logp is None  # one update per step: the current ones, ratio exactly 1


def test_mini_batches_are_whole_groups_and_cover_the_step():
    groups = made_groups(tiny())
    groups.places = [1, 3, 5, 7]  # the second of two ranks
    config = replace(CONFIG, prompts=8, mini_batches=4)
    assert [grpo.mini_batch(groups, m, config) for m in range(4)] == [[0], [1], [2], [3]]


def test_score_uses_the_grader(toy_model):
    from data.tokenizer import get_tokenizer

    encoding = get_tokenizer("toy")
    say = lambda text, eos=True: Rollout(
        [*encoding.encode_ordinary(text), *([encoding.eot_token] if eos else [])], [], eos
    )
    texts = [
        "first 1 + 2 = 3 . so \\boxed{ 3, 5}",
        "so \\boxed{ 3, 6}",
        "so 3, 5",
        "so \\boxed{ 3, 5} or \\boxed{ 3, 6}",
    ]
    groups = grpo.Groups(
        [Problem("0", "q", "3, 5", (), "toy", "ordered")], [[1]], [[say(t) for t in texts]], [0]
    )
    grpo.score(groups, encoding, replace(CONFIG, n=4, format_score=0.1))
    assert groups.rewards.tolist()[0] == pytest.approx([1.0, 0.1, 0.0, 0.0])
    assert groups.texts[0] == texts
    grpo.score(groups, encoding, replace(CONFIG, n=4, format_score=1 - 1e-9))  # 1.0 in fp32
    assert groups.right.tolist()[0] == [True, False, False, False]
