"""Every recipe under every setting on a small checkpoint, what their logs say, validation, dynamic sampling, your own reward."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import tiny

import grpo
import parallel
import sft
from data.grader import extract, reward
from data.problems import Problem, load_problems, prompt_text
from data.tokenizer import get_tokenizer
from plumbing.checkpoint import load_checkpoint, output_path, read_facts, read_file, save_checkpoint
from plumbing.examples import Example
from plumbing.files import read_rows
from plumbing.flags import parse_flags
from plumbing.log import Log
from plumbing.optimizer import adamw, clipped_step

ENCODING = get_tokenizer("toy")
SMALL = dict(prompts=8, n=8, max_prompt=40, max_response=8, log_every=100)
RL = dict(**SMALL, steps=12)
SFT = dict(steps=30, batch=16, max_prompt=40, max_response=8, log_every=100)
PARALLEL = dict(**SMALL, steps=12, sft_batch=16)


# Tests of values run the plain program and the one with fast/.
BOTH = pytest.mark.parametrize("plain", [True, False], ids=["plain", "fast"])


def write_problems(path, n=40):
    """How many cards, always 5: little to learn, so a few steps are enough to see a recipe learn it. Two solutions each."""
    rows = []
    for i in range(n):
        question = f"say ann has {i % 20} cards . bea has {i // 20} . how many now ?"
        rows.append(
            {
                "question": question,
                "answer": "5",
                "solutions": [" so \\boxed{ 5}", " now \\boxed{ 5}"],
                "source": "toy",
                "kind": "ordered",
            }
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A checkpoint that writes boxes with the numbers 3, 4 or 5 in them, and problems whose answer is 5."""
    folder = tmp_path_factory.mktemp("recipes")
    data = write_problems(folder / "five.jsonl")
    model, rng = tiny(ENCODING.n_vocab), np.random.default_rng(0)
    optimizer = adamw(model, 3e-3, (0.9, 0.95), 0.0)
    problems = load_problems(data)
    for _ in range(60):
        batch = []
        for p in (problems[i] for i in rng.integers(len(problems), size=32)):
            text = f" {rng.choice(['so', 'now'])} \\boxed{{ {rng.integers(3, 6)}}}"
            batch.append(
                Example(
                    ENCODING.encode_ordinary(prompt_text(p)),
                    [*ENCODING.encode_ordinary(text), ENCODING.eot_token],
                )
            )
        sft.sft_backward(model, batch, 100_000)
        clipped_step(model, optimizer, 1.0)
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
    save_checkpoint(str(folder / "4K.pt"), model, facts)
    return folder, data


def flags(script, ckpt, out, data, setting, **more):
    """The Config of a command, as the command line makes it."""
    argv = ["--ckpt", str(ckpt), "--out", str(out), "--data", data, "--setting", setting]
    for name, value in more.items():
        if isinstance(value, bool):
            argv.append(f"--{name}" if value else f"--no-{name}")
        else:
            argv.append(f"--{name}={value}")
    return parse_flags(
        script.Config, script.PRESETS, script.SETTINGS, argv, getattr(script, "AFTER_SFT", None)
    )


def log(out, kind="log"):
    return read_rows(str(out).replace(".pt", f".{kind}.jsonl"))


def weights(path):
    return read_file(str(path))["model"]


def same_bits(a, b):
    return all(
        torch.equal(x, y) for x, y in zip(weights(a).values(), weights(b).values(), strict=True)
    )


def improves(rows, name, by):
    """The mean over the last third of the steps against the first third's."""
    values, third = [row[name] for row in rows], len(rows) // 3
    return by * (np.mean(values[-third:]) - np.mean(values[:third])) > 0


@pytest.mark.parametrize("setting", ["written", "run", "controlled"])
def test_every_recipe_improves_its_own_objective(base, tmp_path, setting):
    """The toy preset's values, smaller sizes: reward rises, the solutions' loss falls, parallel does both."""
    data, paths = base[1], {"": base[0] / "4K.pt"}
    for recipe, solutions in (("sft", "one"), ("sft-gold", "all")):
        paths[recipe] = tmp_path / f"{recipe}.pt"
        sft.main(flags(sft, paths[""], paths[recipe], data, setting, solutions=solutions, **SFT))
        assert improves(log(paths[recipe]), "loss", -1), recipe
    learned = {"sft": 5, "sft-gold": 5}  # steps of a gentler SFT, which leaves RL something to do
    for recipe, steps in learned.items():
        few = tmp_path / f"few-{recipe}.pt"
        sft.main(
            flags(
                sft,
                paths[""],
                few,
                data,
                setting,
                solutions="one" if recipe == "sft" else "all",
                **SFT | dict(steps=steps, lr=2e-4),
            )
        )
        paths[f"few-{recipe}"] = few
    for recipe, parent in (("rl", ""), ("sft.rl", "few-sft"), ("sft-gold.rl", "few-sft-gold")):
        out = tmp_path / f"{recipe}.pt"
        config = flags(grpo, paths[parent], out, data, setting, **RL)
        grpo.main(config)
        rows = log(out)
        assert read_facts(str(out))["recipe"] == recipe
        assert improves(rows, "reward", 1) and improves(rows, "accuracy", 1), [
            row["reward"] for row in rows
        ]
        after_sft = setting == "run" and parent
        assert (config.kl, config.mini_batches) == (
            (0.0, 1) if after_sft else (0.0 if setting == "controlled" else 1e-3, 2)
        )
        assert all((row["kl"] > 0) == (config.kl > 0) for row in rows[1:]) and config.lr == 2.5e-4
        if setting == "written":
            assert all(row["accuracy"] < row["reward"] <= row["accuracy"] + 0.1 for row in rows)
    out = tmp_path / "parallel.pt"
    parallel.main(flags(parallel, paths[""], out, data, setting, **PARALLEL))
    assert improves(log(out), "reward", 1) and improves(log(out), "sft_loss", -1)
    assert {row["sft_updates"] for row in log(out)} == {2} and {
        row["weight"] for row in log(out)
    } == {0.5}


TABLE_1 = dict(
    data="openmath-gsm8k", prompts=512, n=32, mini_batches=4, steps=1560, lr=1e-6, beta2=0.999, weight_decay=0.01, grad_clip=1.0, clip_low=0.2,
    clip_high=0.2, dual_clip=3.0, kl=1e-3, normalize="std", format_score=0.1, max_prompt=1024, max_response=2048, temperature=1.0, val=1000,
)  # fmt: skip


def test_the_presets_are_the_papers_tables(base):
    ckpt = str(base[0] / "4K.pt")
    for preset, data in (
        ("1B", "openmath-gsm8k"),
        ("1B-60B", "openmath"),
        ("4B", "openmath"),
    ):  # Table 2 has other problems
        config = vars(
            parse_flags(
                grpo.Config,
                grpo.PRESETS,
                grpo.SETTINGS,
                ["--ckpt", ckpt, "--preset", preset, "--setting", "written"],
            )
        )
        assert {k: config[k] for k in TABLE_1} == TABLE_1 | dict(data=data) and config[
            "val_every"
        ] == 20


def test_rl_after_sft_takes_the_authors_values_under_run_only(base, tmp_path, capsys):
    folder, data = base
    facts = read_facts(str(folder / "4K.pt"))
    parsed = lambda ckpt, *more: parse_flags(
        grpo.Config,
        grpo.PRESETS,
        grpo.SETTINGS,
        ["--ckpt", str(ckpt), "--preset", "1B", *more],
        grpo.AFTER_SFT,
    )
    for recipe in ("sft", "sft-gold"):
        ckpt = tmp_path / f"{recipe}.pt"
        save_checkpoint(str(ckpt), tiny(ENCODING.n_vocab), {**facts, "recipe": recipe})
        after = lambda *more: parsed(ckpt, *more)
        config = after("--setting", "run")
        assert (config.lr, config.kl, config.mini_batches, config.max_response) == (
            4e-5,
            0.0,
            1,
            512,
        )
        assert "4e-05                    setting run, after SFT" in capsys.readouterr().out
        assert after("--setting", "run", "--lr", "1e-6").lr == 1e-6
        for setting in ("written", "controlled"):
            assert (after("--setting", setting).lr, after("--setting", setting).mini_batches) == (
                1e-6,
                4,
            )
    direct = parsed(folder / "4K.pt", "--setting", "run")
    assert (direct.lr, direct.kl, direct.mini_batches, direct.max_response, direct.loss) == (
        1e-6,
        1e-3,
        4,
        2048,
        "micro-mean",
    )


@pytest.mark.parametrize("mode", ["interleave", "curriculum", "sum"])
def test_the_other_modes_train_and_go_on_after_a_kill(base, tmp_path, mode, monkeypatch):
    folder, data = base
    out, again = tmp_path / "straight.pt", tmp_path / "again.pt"
    values = dict(PARALLEL, mode=mode, steps=9, interleave=2, curriculum=3, save_every=2)
    parallel.main(flags(parallel, folder / "4K.pt", out, data, "controlled", **values))
    assert read_facts(str(out))["recipe"] == mode
    assert output_path(
        flags(parallel, folder / "4K.pt", "", data, "controlled", **values), mode
    ).endswith(f"4K.{mode}.pt")
    rows = log(out)
    updates = {"interleave": [2] * 9, "curriculum": [3, 2, 0, 1, 0, 0, 0, 0, 0], "sum": [2] * 9}
    assert improves(rows, "accuracy", 1) and [row["sft_updates"] for row in rows] == updates[mode]
    killed_at(
        5,
        monkeypatch,
        lambda: parallel.main(
            flags(parallel, folder / "4K.pt", again, data, "controlled", **values)
        ),
    )
    parallel.main(flags(parallel, folder / "4K.pt", again, data, "controlled", **values))
    assert same_bits(out, again)


class Killed(Exception):
    pass


def killed_at(step, monkeypatch, start):
    """Run until the log would get its line of `step`."""
    write = Log.write

    def until(self, at, **values):
        if at == step:
            raise Killed
        write(self, at, **values)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Log, "write", until)
        start()


def test_a_reference_that_moves_survives_a_kill_bit_for_bit(base, tmp_path, monkeypatch):
    folder, data = base
    values = dict(RL, steps=7, kl=0.05, ref_every=3, save_every=2, val_every=3, val=10)
    runs = {
        name: flags(grpo, folder / "4K.pt", tmp_path / f"{name}.pt", data, "controlled", **values)
        for name in ("straight", "again")
    }
    fixed = replace(runs["straight"], ref_every=0, out=str(tmp_path / "fixed.pt"))
    grpo.main(runs["straight"])
    grpo.main(fixed)
    for step in (
        4,
        6,
    ):  # saved after step 2 (reference of the start) and after 4 (reference of step 3)
        killed_at(step + 1, monkeypatch, lambda: grpo.main(runs["again"]))
    grpo.main(runs["again"])
    assert same_bits(tmp_path / "straight.pt", tmp_path / "again.pt") and not same_bits(
        tmp_path / "straight.pt", tmp_path / "fixed.pt"
    )
    strip = lambda rows: [
        {k: v for k, v in row.items() if not k.startswith(("seconds", "speed", "memory"))}
        for row in rows
    ]
    rows = strip(log(tmp_path / "straight.pt"))
    assert rows == strip(log(tmp_path / "again.pt"))
    assert (
        rows[3]["kl"] < rows[2]["kl"] < log(tmp_path / "fixed.pt")[6]["kl"]
    )  # after step 3 the distance begins anew
    assert [row["step"] for row in rows if "val_accuracy" in row] == [3, 6, 7]


@BOTH
def test_the_log_can_be_computed_again_from_the_saved_rollouts(base, tmp_path, plain):
    folder, data = base
    out = tmp_path / "rl.pt"
    grpo.main(
        flags(
            grpo,
            folder / "4K.pt",
            out,
            data,
            "written",
            **RL | dict(steps=3, mini_batches=1, save_rollouts=True, samples_every=2, plain=plain),
        )
    )
    rows, saved = log(out), log(out, "rollouts")
    assert [row["step"] for row in rows] == [row["step"] for row in saved] == [1, 2, 3]
    assert ["samples" in row for row in rows] == [True, False, True]
    model, _ = load_checkpoint(str(folder / "4K.pt"))
    for row, step in zip(rows, saved):
        groups = step["groups"]
        flat = lambda name: [x for group in groups for x in group[name]]
        rewards, right, tokens = np.array(flat("rewards")), np.array(flat("right")), flat("tokens")
        lengths, finished = np.array(list(map(len, tokens))), np.array(flat("finished"))
        logprobs = np.concatenate(flat("logprobs"))
        verdicts = np.array([reward(text, "5", "ordered") == 1 for text in flat("responses")])
        mixed = [len(set(group["rewards"])) > 1 for group in groups]
        expected = {
            "reward": np.where(verdicts, 1.0, rewards).mean(), "accuracy": verdicts.mean(),
            "format": np.mean([extract(text, "ordered") is not None for text in flat("responses")]),
            "pass@n": np.mean([any(group["right"]) for group in groups]), "all_right": np.mean([all(group["right"]) for group in groups]),
            "all_wrong": np.mean([not any(group["right"]) for group in groups]), "mixed": np.mean(mixed), "groups": len(groups),
            "length": lengths.mean(), "length_min": lengths.min(), "length_max": lengths.max(), "length_finished": lengths[finished].mean(),
            "truncated": np.mean(lengths == 8) - np.mean((lengths == 8) & finished), "surprise": -logprobs.mean(), "tokens": lengths.sum(),
        }  # fmt: skip
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, abs=1e-6), name
        assert (right == verdicts).all() and all(
            t[-1] == ENCODING.eot_token for t, f in zip(tokens, finished) if f
        )
        assert (
            row["scored"] == row["tokens"]
            and row["mismatch"] <= row["mismatch_max"] < 1e-5
            and row["ratio_max"] >= row["ratio"]
        )
        assert row["clip_fraction"] == pytest.approx(row["clipped_low"] + row["clipped_high"])
        for name in (
            "seconds_sample",
            "seconds_score",
            "seconds_update",
            "speed_sample",
            "speed_update",
            "memory",
            "grad_norm",
            "loss",
        ):
            assert np.isfinite(row[name]), name
    # the first step's policy is the parent, whose entropy the plain forward pass gives as well
    first = saved[0]["groups"]
    entropies, distances = [], []
    for group in first:
        prompt = ENCODING.encode_ordinary(
            f"{group['question']} {prompt_text(Problem('', '', '', (), '')).strip()}\n"
        )
        for tokens, logprobs in zip(group["tokens"], group["logprobs"]):
            with torch.no_grad():
                logp = model(torch.tensor([prompt + tokens]))[0, len(prompt) - 1 : -1].log_softmax(
                    -1
                )
            entropies += (-(logp.exp() * logp).sum(-1)).tolist()
            distances += (
                (logp.gather(-1, torch.tensor(tokens)[:, None])[:, 0] - torch.tensor(logprobs))
                .abs()
                .tolist()
            )
    assert (
        rows[0]["entropy"] == pytest.approx(np.mean(entropies), rel=1e-4) and max(distances) < 1e-5
    )
    assert rows[0]["mismatch"] == pytest.approx(np.mean(distances), abs=2e-7) and rows[0][
        "ratio"
    ] == pytest.approx(1, abs=1e-6)
    print(
        f"\nmismatch sampler - trainer, fp32: mean {max(r['mismatch'] for r in rows):.1e}, max {max(r['mismatch_max'] for r in rows):.1e}"
    )
