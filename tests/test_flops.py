"""What RL cost, as the report says it: rollouts that only choose count, and so does each pass."""

from types import SimpleNamespace

import pytest

from study.cells import rl_flops
from study.costs import parameters
from study.flops import MODELS, PROMPT, VOCABULARY, flops_of_a_step, with_vocabulary

PLAIN = dict(preset="toy", prompts=24, n=16, mini_batches=1, recompute_old=True, kl=0.0, epochs=1)
STEP = dict(step=1, groups=24.0, mixed=0.5, length=30.0, tokens=11_520.0, scored=5_760.0)


def study_of(config: dict, **changed):
    row = {"facts": {"config": PLAIN | config}}
    return SimpleNamespace(
        task_of=lambda stem, recipe: "toy",
        rows={("toy", "3.6M", "rl"): {0: row}},
        logs=lambda stem, recipe: [[STEP | changed, STEP | changed | {"step": 2}]],
    )


def flops(config: dict, **changed) -> float:
    return flops_of_a_step(study_of(config, **changed), "3.6M", "rl")


def forward(tokens: float, prompts: float) -> float:
    """2 FLOPs a weight and token, the head on response tokens alone, 4 L d T for attention."""
    shape = with_vocabulary(MODELS["toy"], VOCABULARY)
    weights = parameters(shape)
    body = 2 * (weights["matmul"] - weights["head"]) + 4 * 3 * 64 * (PROMPT + 30) / 2
    return body * (tokens + PROMPT * prompts) + 2 * weights["head"] * tokens


def test_a_step_is_a_forward_pass_over_all_and_three_over_what_is_scored():
    assert flops({}) == pytest.approx(forward(11_520, 24) + 3 * forward(5_760, 12))
    assert rl_flops(study_of({}), "3.6M", "rl") == f"{2 * flops({}) / 1e12:.2f}"


def test_other_passes_are_counted():
    reference = flops({"kl": 1e-3}, mixed=1.0) - flops({}, mixed=1.0)
    assert reference == pytest.approx(forward(5_760, 24))
    old = flops({"mini_batches": 2}) - flops({})
    assert old == pytest.approx(forward(5_760, 12))
    assert flops({"mini_batches": 2, "recompute_old": False}) == flops({})


def test_rollouts_that_only_choose_count():
    probed = dict(groups=16.0, tokens=7_680.0)  # of those that are learned from
    more = flops({"prompts": 16, "probe": 4}, **probed) - flops({"prompts": 16}, **probed)
    assert more == pytest.approx(forward(32 * 4 * 30, 32))


def test_other_scales_have_no_answer():
    """Their vocabulary and prompts are not the toy world's."""
    assert flops({"preset": "1B"}) == 0 and flops({"preset": "toy-large"}) > flops({})


def test_older_logs_have_no_answer():
    study = study_of({})
    study.logs = lambda stem, recipe: [[{"step": 1}]]
    assert flops_of_a_step(study, "3.6M", "rl") == 0 and rl_flops(study, "3.6M", "rl") == "–"
