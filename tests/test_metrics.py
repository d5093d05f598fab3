"""The warnings: when each begins, that it is said once, and what to do about it."""

from dataclasses import replace

import grpo
from plumbing.metrics import HIGHEST, SUMS, WINDOW, conditions, update_metrics, warnings

CONFIG = grpo.Config(ckpt="", **grpo.PRESETS["toy"])
FINE = dict(truncated=0.1, mixed=0.5, format=0.9, accuracy=0.3)


def said(rows):
    """The warnings after each row, as a run prints them."""
    return [warnings(rows[: i + 1], CONFIG) for i in range(len(rows))]


def test_nothing_is_said_of_a_healthy_run():
    assert said([FINE] * 10) == [[]] * 10 and conditions([], CONFIG) == {}


def test_each_condition_is_said_once_each_time_it_begins():
    cut, silent = FINE | dict(truncated=0.51), FINE | dict(mixed=0.0)
    texts = said([FINE, cut, cut, FINE, cut, silent, silent])
    assert [len(t) for t in texts] == [0, 1, 0, 0, 1, 1, 0]
    assert (
        texts[1][0]
        == "51% of the rollouts were cut at 52 tokens: raise --max_response, or give --mask_truncated"
    )
    assert (
        "no group has mixed rewards" in texts[5][0]
        and "--n" in texts[5][0]
        and "python -m tools.difficulty" in texts[5][0]
    )
    assert all("\n" not in line for t in texts for line in t)
    assert "at 99 tokens" in warnings([cut], replace(CONFIG, max_response=99))[0]


def test_format_without_answers_is_the_bad_seed():
    """The paper's collapse: boxes everywhere, the format's reward, nothing right. One step of it is no news."""
    bad = FINE | dict(format=0.97, accuracy=0.0)
    texts = said([FINE] * 3 + [bad] * (WINDOW + 3))
    assert [i for i, t in enumerate(texts) if t] == [
        3 + WINDOW - 1
    ] and "--format_score 0" in texts[3 + WINDOW - 1][0]
    assert (
        said([FINE | dict(format=0.3, accuracy=0.0)] * 10) == [[]] * 10
    )  # neither learned: it may come yet
    assert said([bad] * (WINDOW - 1)) == [[]] * (WINDOW - 1)


def test_an_update_is_the_mean_over_its_mini_batches_and_their_tokens():
    first = dict.fromkeys(SUMS, 0.0) | dict(
        loss_sum=1.0, ratio_sum=4.0, mismatch_sum=2.0, scored_sum=4
    )
    second = dict.fromkeys(SUMS, 0.0) | dict(
        loss_sum=3.0, ratio_sum=8.0, mismatch_sum=90.0, scored_sum=6, kl_sum=5.0
    )
    highest = [dict(ratio_max=1.5, mismatch_max=0.5), dict(ratio_max=2.5, mismatch_max=9.0)]
    row = update_metrics([first, second], highest, [1.0, 2.0])
    expected = dict(
        loss=2.0,
        grad_norm=1.5,
        skipped=0,
        clip_fraction=0.0,
        clipped_low=0.0,
        clipped_high=0.0,
        ratio=1.2,
        ratio_max=2.5,
    )
    expected |= dict(
        kl=0.5, entropy=0.0, mismatch=0.5, mismatch_max=0.5, scored=10.0
    )  # the mismatch is the first mini-batch's
    assert row == expected and list(row) == list(expected)


def test_a_skipped_update_is_counted_and_leaves_the_norm_of_the_others():
    sums = [dict.fromkeys(SUMS, 0.0)] * 3
    highest = [dict.fromkeys(HIGHEST, 0.0)] * 3
    row = update_metrics(sums, highest, [2.0, float("nan"), float("inf")])
    assert row["skipped"] == 2 and row["grad_norm"] == 2.0
