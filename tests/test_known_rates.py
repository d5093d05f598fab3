"""A model of known pass rates goes through the whole pipeline, and the report must name them.

It stands in the sampler's place: problem i is solved with a chance of its own. Grading, rows,
pass@k, differences, intervals and the report are the study's.
"""

import os

import numpy as np
import pytest

import evaluate
from data.problems import load_problems
from data.tokenizer import get_tokenizer
from plumbing.checkpoint import save_checkpoint
from sampler import Rollout
from study import cells, figures
from study.estimates import direction
from study.rows import Study

ENCODING = get_tokenizer("toy")
PROBLEMS = load_problems("toy", "test")
N = 32


def rates_before() -> np.ndarray:
    """Many problems of kind (1,2) are never solved; of the others nearly all, but rarely."""
    rng = np.random.default_rng(0)
    hard = rng.beta(0.4, 3.0, len(PROBLEMS))
    rates = rng.beta(1.0, 5.0, len(PROBLEMS))
    for i, problem in enumerate(PROBLEMS):
        if problem.level == "(1,2)":
            rates[i] = hard[i]
    return rates


BEFORE = rates_before()


def rates_after(seed: int) -> np.ndarray:
    """Expansion on (1,2); elsewhere 4 of 10 problems are always solved, the others never."""
    solved = (np.arange(len(PROBLEMS)) + seed // 2) % 5 < 2  # another set in the third seed
    rates = np.where(solved, 1.0, 0.0)
    for i, problem in enumerate(PROBLEMS):
        if problem.level == "(1,2)":
            rates[i] = 0.9
    return rates


class KnownSampler:
    """Answers each prompt rightly with its problem's chance; otherwise one of the numbers is off."""

    def __init__(self, rates, seed: int):
        self.rates = {tuple(self.prompt(p)): rate for p, rate in zip(PROBLEMS, rates)}
        self.problems = {tuple(self.prompt(p)): p for p in PROBLEMS}
        self.rng = np.random.default_rng(seed)

    @staticmethod
    def prompt(problem):
        from data.problems import prompt_text

        return ENCODING.encode_ordinary(prompt_text(problem))

    def sample(self, prompts, n, **how):
        groups = []
        for prompt in prompts:
            problem = self.problems[tuple(prompt)]
            right = self.rng.random(n) < self.rates[tuple(prompt)]
            groups.append([self.rollout(problem, is_right) for is_right in right])
        return groups

    def rollout(self, problem, is_right: bool) -> Rollout:
        text = problem.solutions[0]
        if not is_right:
            first, second = problem.answer.split(", ")
            other = (int(second) + 1) % 20
            text = text.replace(f"{{ {problem.answer}}}", f"{{ {first}, {other}}}")
        tokens = ENCODING.encode_ordinary(text) + [ENCODING.eot_token]
        return Rollout(tokens, [0.0] * len(tokens), True)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Three seeds, each with a base and what "RL" made of it."""
    from conftest import tiny

    root = tmp_path_factory.mktemp("known")
    patch = pytest.MonkeyPatch()
    folders = []
    for seed in range(3):
        folder = root / f"seed{seed}"
        os.makedirs(folder)
        folders.append(str(folder))
        for name, recipe, rates in (("4K", "base", BEFORE), ("4K.rl", "rl", rates_after(seed))):
            facts = dict(id=f"{name}{seed}", base_id="x", recipe=recipe, tokens=4000, preset="toy")
            facts |= dict(seed=seed, code="", config={}, tokenizer="toy", corpus="toy")
            path = str(folder / f"{name}.pt")
            save_checkpoint(path, tiny(ENCODING.n_vocab), facts)
            sampler = KnownSampler(rates, 10 * seed + len(name))
            patch.setattr(evaluate, "make_sampler", lambda *_: sampler)
            how = dict(preset="toy", task="toy", n=N, max_response=64, progress=False, plain=True)
            evaluate.main(evaluate.Config(ckpt=path, **how))
    patch.undo()
    return Study(folders)


def true_pass_at(rates, k: int) -> float:
    """The mean over problems of 1 - (1 - p)^k, in percent."""
    return 100 * float(np.mean(1 - (1 - rates) ** k))


@pytest.mark.parametrize("k", [1, 8, 32])
def test_pass_at_k_is_that_of_the_known_rates(study, k):
    """Three seeds of 200 x 32 samples know the truth within a point or so."""
    before = study.estimate("4K", "base", f"pass@{k}")
    assert before.mean == pytest.approx(true_pass_at(BEFORE, k), abs=1.5)
    after = study.estimate("4K", "rl", f"pass@{k}")
    true = np.mean([true_pass_at(rates_after(seed), k) for seed in range(3)])
    assert after.mean == pytest.approx(true, abs=1.0)


def test_the_intervals_hold_the_true_change(study):
    for quantity, k in (("pass@1", 1), ("pass@32", 32)):
        low, high = cells.difference(study, "4K.rl", "4K", quantity).interval()
        true = np.mean([true_pass_at(rates_after(s), k) for s in range(3)]) - true_pass_at(
            BEFORE, k
        )
        assert low < true < high


def test_expansion_and_sharpening_are_told_apart_by_kind(study, tmp_path):
    """(1,2) expands; the other kinds are sharper: more at one try, less at 32."""
    for group in cells.level_groups(study, "4K"):
        narrow = cells.difference(study, "4K.rl", "4K", "pass@1", group)
        wide = cells.difference(study, "4K.rl", "4K", "pass@32", group)
        assert direction(narrow) == "higher"
        assert direction(wide) == ("higher" if group == "1,2" else "lower"), group
    with open(figures.write_report(study.folders, str(tmp_path))) as file:
        report = file.read()
    assert "pass@32 is up on (1,2); down on (2,1), (2,2), (2,3), (3,2)" in report
    assert "**direct RL** at 4K tokens" in report and ": sharpening." in report


def test_wrong_answers_are_wrong_and_verified_ones_hold(study):
    row = study.rows["toy", "4K.rl".split(".")[0], "base"][0]
    assert all(right == verified for _, _, _, right, verified in row["problems"])


def test_the_tail_is_found(study):
    """Problems that were never solved before and are now."""
    counts = cells.tail_counts(study, "4K", "4K.rl")
    for seed, (never, found) in enumerate(counts):
        row = study.rows["toy", "4K", "base"][seed]
        assert never == sum(right == 0 for _, _, _, right, _ in row["problems"])
        assert 0.2 * never < found < never
