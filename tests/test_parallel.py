"""The algorithm box against float64 NumPy over several steps, and its two ends: weight 1 is RL, weight 0 is SFT."""

import gc
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import parallel
from parallel import average_step
from plumbing.modes import OtherMode, average_weight, count_sft_steps, sft_batches, sum_step
from plumbing.optimizer import adamw, clipped_step

CONFIG = parallel.Config(ckpt="", **parallel.PRESETS["toy"])


class Adam64:
    """AdamW written from its formulas (Loshchilov & Hutter 2019), after a clip of the global norm."""

    def __init__(self, lr, beta2, weight_decay):
        self.lr, self.b1, self.b2, self.wd, self.t, self.m, self.v = (
            lr,
            0.9,
            beta2,
            weight_decay,
            0,
            0.0,
            0.0,
        )

    def step(self, w, g, clip=1.0):
        g = g * min(1.0, clip / (np.sqrt((g**2).sum()) + 1e-6))
        self.t += 1
        self.m = self.b1 * self.m + (1 - self.b1) * g
        self.v = self.b2 * self.v + (1 - self.b2) * g**2
        w = w * (1 - self.lr * self.wd)
        return w - self.lr * (self.m / (1 - self.b1**self.t)) / (
            np.sqrt(self.v / (1 - self.b2**self.t)) + 1e-8
        )


class Weights(nn.Module):
    """Two tensors with quadratic losses that pull to different places."""

    def __init__(self, start):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(start[:3], dtype=torch.float32))
        self.b = nn.Parameter(torch.tensor(start[3:], dtype=torch.float32))

    def vector(self):
        return torch.cat([self.a, self.b])


RNG = np.random.default_rng(0)
START, RL_GOAL, SFT_GOAL, SCALE = (RNG.normal(size=8) for _ in range(4))
STEPS = 5


def set_up(start=START):
    m = Weights(start)
    rl, sft = adamw(m, 0.05, (0.9, 0.999), 0.01), adamw(m, 0.2, (0.9, 0.95), 0.1)
    pull = lambda goal, power: (
        (
            (
                (m.vector() - torch.tensor(goal, dtype=torch.float32))
                * torch.tensor(SCALE, dtype=torch.float32)
            ).abs()
            ** power
        )
        .sum()
        .backward()
    )
    return m, rl, sft, lambda: pull(RL_GOAL, 2), lambda: pull(SFT_GOAL, 4)


def numpy_gradient(w, goal, power):
    x = (w - goal) * SCALE
    return power * np.abs(x) ** (power - 1) * np.sign(x) * SCALE


def test_five_steps_of_the_box():
    for weight in (0.5, 0.3):
        m, rl, sft, rl_backward, sft_backward = set_up()
        w, adam_rl, adam_sft = START.copy(), Adam64(0.05, 0.999, 0.01), Adam64(0.2, 0.95, 0.1)
        for _ in range(STEPS):
            average_step(m, rl, sft, rl_backward, sft_backward, weight)
            after_rl = adam_rl.step(w, numpy_gradient(w, RL_GOAL, 2))
            after_sft = adam_sft.step(w, numpy_gradient(w, SFT_GOAL, 4))
            w = weight * after_rl + (1 - weight) * after_sft
        assert np.abs(m.vector().detach().numpy() - w).max() < 1e-5
        for optimizer, adam in (
            (rl, adam_rl),
            (sft, adam_sft),
        ):  # each as if it had run alone from the same snapshots
            state = [optimizer.state[p] for p in (m.a, m.b)]
            assert np.abs(torch.cat([s["exp_avg"] for s in state]).numpy() - adam.m).max() < 1e-5
            assert [int(s["step"]) for s in state] == [STEPS, STEPS]


def test_the_ends_are_rl_alone_and_sft_alone_bit_for_bit():
    for weight, alone in ((1.0, 0), (0.0, 1)):
        m, rl, sft, *backward = set_up()
        for _ in range(STEPS):
            average_step(m, rl, sft, *backward, weight)
        n, *optimizers, rl_backward, sft_backward = set_up()
        for _ in range(STEPS):
            (rl_backward, sft_backward)[alone]()
            clipped_step(n, optimizers[alone], 1.0)
        assert torch.equal(m.vector(), n.vector())


def test_a_gradient_that_is_not_finite_skips_its_own_side_only():
    m, rl, sft, _, sft_backward = set_up()
    broken = lambda: (m.vector().sum() * float("nan")).backward()
    average_step(m, rl, sft, broken, sft_backward, 0.5)
    n, _, alone, _, backward = set_up()
    backward()
    clipped_step(n, alone, 1.0)
    assert (
        torch.allclose(m.vector(), (n.vector() + torch.tensor(START, dtype=torch.float32)) / 2)
        and not rl.state
    )


def test_parameters_stay_the_same_objects():
    """Graphs and optimizers hold addresses: averaging works in place."""
    m, rl, sft, *backward = set_up()
    before = [p.data_ptr() for p in m.parameters()]
    average_step(m, rl, sft, *backward)
    assert [p.data_ptr() for p in m.parameters()] == before


def test_five_steps_with_a_weight_that_moves():
    """From pure SFT to pure RL in a straight line; the first and the last step are then one side's alone."""
    config = replace(CONFIG, weight=0.0, weight_end=1.0)
    weights = [average_weight(config, i, STEPS) for i in range(STEPS)]
    assert (
        weights == [0.0, 0.25, 0.5, 0.75, 1.0]
        and average_weight(replace(CONFIG, weight=0.3), 3, STEPS) == 0.3
    )
    assert average_weight(config, 0, 1) == 0.0
    m, rl, sft, rl_backward, sft_backward = set_up()
    w, adam_rl, adam_sft = START.copy(), Adam64(0.05, 0.999, 0.01), Adam64(0.2, 0.95, 0.1)
    for weight in weights:
        average_step(m, rl, sft, rl_backward, sft_backward, weight)
        after_rl, after_sft = (
            adam_rl.step(w, numpy_gradient(w, RL_GOAL, 2)),
            adam_sft.step(w, numpy_gradient(w, SFT_GOAL, 4)),
        )
        w = weight * after_rl + (1 - weight) * after_sft
        assert np.abs(m.vector().detach().numpy() - w).max() < 1e-5


def test_the_sum_is_one_step_on_both_gradients():
    m, rl, _, rl_backward, sft_backward = set_up()
    w, adam = START.copy(), Adam64(0.05, 0.999, 0.01)
    for _ in range(STEPS):
        done = sum_step(m, rl, rl_backward, sft_backward)
        gradient = numpy_gradient(w, RL_GOAL, 2) + numpy_gradient(w, SFT_GOAL, 4)
        w = adam.step(w, gradient)
        assert np.abs(m.vector().detach().numpy() - w).max() < 1e-5
        assert (
            done["rl_grad_norm"]
            == done["sft_grad_norm"]
            == pytest.approx(np.sqrt((gradient**2).sum()), rel=1e-4)
        )


def test_interleaving_and_the_curriculum():
    def sequence(config, steps):
        before = sft_batches(replace(config, steps=steps))
        assert len(before) == steps
        return " ".join("S" * len(batches) + "R" for batches in before)

    assert sequence(replace(CONFIG, mode="interleave", interleave=3), 3) == "SSSR SSSR SSSR"
    assert (
        sequence(replace(CONFIG, mode="curriculum", curriculum=3), 12)
        == "SSSR SSR R SR R R R R R R R R"
    )  # rounds of 1, 2, 3, 4 RL steps
    for mode in ("parallel", "sum"):  # one with each update of RL
        assert count_sft_steps(replace(CONFIG, mode=mode, steps=3, mini_batches=2)) == 6
    other = OtherMode(replace(CONFIG, mode="sum"), None, None, None)
    for step in range(3):  # and none before it
        other.make_sft_steps(step)
        assert other.sft_before == []
    for mode in (
        "interleave",
        "curriculum",
    ):  # every SFT batch once, in order; the last range's end is their number
        config = replace(CONFIG, mode=mode)
        batches = [i for before in sft_batches(config) for i in before]
        assert batches == list(range(sft_batches(config)[-1].stop))
        assert (
            len(batches) == count_sft_steps(config) == {"interleave": 300, "curriculum": 305}[mode]
        )


class Alive(TorchDispatchMode):
    """The most bytes in tensors that were made since the start, after any operation."""

    most = 0

    def __enter__(self):
        gc.freeze()  # what is there already is not looked at
        return super().__enter__()

    def __exit__(self, *error):
        gc.unfreeze()
        return super().__exit__(*error)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        storages = [x.untyped_storage() for x in gc.get_objects() if type(x) is torch.Tensor]
        self.most = max(self.most, sum({s.data_ptr(): s.nbytes() for s in storages}.values()))
        return result


def test_the_snapshot_is_one_copy_of_the_weights():
    """At no point does average_step hold more than a copy and one tensor beside weights, gradients and the optimizers' state."""
    m = nn.Module()
    m.weights = nn.ParameterList([nn.Parameter(torch.randn(64, 64)) for _ in range(8)])
    tensor, copy = 64 * 64 * 4, 8 * 64 * 64 * 4
    rl, sft = (adamw(m, 0.1, (0.9, 0.999), 0.01) for _ in range(2))
    gradients = [torch.ones_like(p) for p in m.parameters()]

    def backward():
        for p, g in zip(m.parameters(), gradients):
            p.grad = g.fill_(1.0)

    average_step(m, rl, sft, backward, backward)  # the optimizers' state is there now
    with Alive() as alive:
        for _ in range(2):
            average_step(m, rl, sft, backward, backward)
    assert copy <= alive.most <= copy + tensor + 4096, alive.most / tensor
