"""The loss of pre-training against sums written from its formula, value and gradient; the plain
program and fast/.
"""

import numpy as np
import pytest
import torch
from conftest import quick, tiny

from pretrain import next_token_loss


@pytest.mark.parametrize("prepare", [lambda model: model, quick], ids=["plain", "fast"])
@pytest.mark.parametrize("z_loss", [0.0, 0.01])
def test_next_token_loss_is_its_formula(z_loss, prepare):
    """Each token is predicted from those before it in its own row, a row's first by nothing."""
    model = prepare(tiny())
    tokens = torch.tensor(np.random.default_rng(0).integers(50, size=(3, 7)))
    nll, loss = next_token_loss(model, tokens, z_loss)
    expected_nll = 0.0
    expected_z = 0.0
    for row in tokens:
        for t in range(1, 7):
            with torch.no_grad():
                logits = model.logits(model.hidden(row[:t], [t]))[-1].double()
            logsumexp = float(logits.logsumexp(0))
            expected_nll += logsumexp - float(logits[row[t]])
            expected_z += logsumexp**2
    assert float(nll.detach()) == pytest.approx(expected_nll, rel=1e-5)
    assert float(loss.detach()) == pytest.approx(expected_nll + z_loss * expected_z, rel=1e-5)


def test_the_z_loss_has_its_gradient():
    """Against a central difference along a random direction of the head."""
    model = tiny()
    tokens = torch.tensor(np.random.default_rng(1).integers(50, size=(2, 6)))
    weight = model.lm_head.weight
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    next_token_loss(model, tokens, 0.1)[1].backward()
    expected = float((weight.grad * direction).sum())
    losses = []
    for sign in (1, -1):
        with torch.no_grad():
            weight.add_(sign * 1e-3 * direction)
            losses.append(float(next_token_loss(model, tokens, 0.1)[1]))
            weight.sub_(sign * 1e-3 * direction)
    assert (losses[0] - losses[1]) / 2e-3 == pytest.approx(expected, rel=0.01)
