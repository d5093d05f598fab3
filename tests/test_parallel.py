"""The algorithm box against float64 NumPy over several steps, and its two ends: weight 1 is RL, weight 0 is SFT."""

import numpy as np
import torch
from torch import nn

import common
from parallel import average_step


class Adam64:
    """AdamW written from its formulas (Loshchilov & Hutter 2019), after a clip of the global norm."""

    def __init__(self, lr, beta2, weight_decay):
        self.lr, self.b1, self.b2, self.wd, self.t, self.m, self.v = lr, 0.9, beta2, weight_decay, 0, 0.0, 0.0

    def step(self, w, g, clip=1.0):
        g = g * min(1.0, clip / (np.sqrt((g**2).sum()) + 1e-6))
        self.t += 1
        self.m = self.b1 * self.m + (1 - self.b1) * g
        self.v = self.b2 * self.v + (1 - self.b2) * g**2
        w = w * (1 - self.lr * self.wd)
        return w - self.lr * (self.m / (1 - self.b1**self.t)) / (np.sqrt(self.v / (1 - self.b2**self.t)) + 1e-8)


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
    rl, sft = common.adamw(m, 0.05, (0.9, 0.999), 0.01), common.adamw(m, 0.2, (0.9, 0.95), 0.1)
    pull = lambda goal, power: (((m.vector() - torch.tensor(goal, dtype=torch.float32)) * torch.tensor(SCALE, dtype=torch.float32)).abs() ** power).sum().backward()
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
        for optimizer, adam in ((rl, adam_rl), (sft, adam_sft)):  # each as if it had run alone from the same snapshots
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
            common.clipped_step(n, optimizers[alone], 1.0)
        assert torch.equal(m.vector(), n.vector())


def test_a_gradient_that_is_not_finite_skips_its_own_side_only():
    m, rl, sft, _, sft_backward = set_up()
    broken = lambda: (m.vector().sum() * float("nan")).backward()
    average_step(m, rl, sft, broken, sft_backward, 0.5)
    n, _, alone, _, backward = set_up()
    backward()
    common.clipped_step(n, alone, 1.0)
    assert torch.allclose(m.vector(), (n.vector() + torch.tensor(START, dtype=torch.float32)) / 2) and not rl.state


def test_parameters_stay_the_same_objects():
    """Graphs and optimizers hold addresses: averaging works in place."""
    m, rl, sft, *backward = set_up()
    before = [p.data_ptr() for p in m.parameters()]
    average_step(m, rl, sft, *backward)
    assert [p.data_ptr() for p in m.parameters()] == before
