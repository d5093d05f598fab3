"""Experiments as data, and an ablation in one line: what they run, and what they say where they cannot."""

import shlex
import subprocess
import sys
from types import SimpleNamespace

import pytest
from conftest import ROOT

import excursions
from data import UserError
from plumbing.checkpoint import save_checkpoint
from study import vary
from study.durations import seconds_of
from study.experiment import at_scale, stems_of
from study.experiments import DEFAULT, EXPERIMENTS
from study.jobs import Study, all_jobs, stems_for
from study.own_experiments import note_own, read_own
from study.runner import Job
from study.sections import reference_of


def jobs_of(*flags) -> list[Job]:
    args, _ = excursions.read_flags(list(flags))
    experiment, study = excursions.what_to_run(args)
    return all_jobs(study, experiment, stems_for(study, experiment))


def lines(*flags) -> list[str]:
    """The commands without python, the out folder and the seed."""
    found = []
    out = [] if "--out" in flags else ["--out", "o"]
    for job in jobs_of(*flags, *out):
        found.append(" ".join(job.command[1:]).removesuffix(" --seed 0"))
    return found


def refusal(*flags) -> str:
    """The one line by which the command ends."""
    command = [sys.executable, "excursions.py", "--dry_run", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode and done.stderr.count("\n") == 1 and not done.stdout, done.stderr
    return done.stderr.removeprefix("excursions.py: ").strip()


# ---------------------------------------------------------------------------------- experiments


@pytest.mark.parametrize("name", sorted(EXPERIMENTS.keys() - {"public"}))
def test_every_recipe_starts_from_one_that_is_there(name):
    assert EXPERIMENTS[name].question.endswith(("?", "rows."))
    experiment = at_scale(EXPERIMENTS[name], "toy")
    for recipe, (start, line) in experiment.recipes.items():
        assert start == "base" or start in experiment.recipes, recipe
        assert line.split()[0] in ("sft.py", "grpo.py", "parallel.py", "evaluate.py")
    for stem in stems_of(experiment, "toy"):
        assert stem in ("1.5M", "2.4M", "3.6M") or stem in experiment.pretrain


def test_cells_that_experiments_share_are_the_same_commands():
    """In one folder a cell of the same name must be made by the same command, so it runs once."""
    commands = {}
    for name, experiment in EXPERIMENTS.items():
        if not experiment.with_core:
            continue
        study = Study("toy", "controlled", 2, "o")
        for job in all_jobs(study, experiment, stems_for(study, experiment)):
            key = (job.folder, job.name)
            assert commands.setdefault(key, job.command) == job.command, (name, key)
    assert ("o", "3.6M.rl") in commands


def test_the_ladder_has_as_many_updates_as_passes():
    """600 problems in batches of 32: 18.75 updates a pass."""
    for recipe, passes in (("sft-1", 1), ("sft-4", 4), ("sft-61", 61)):
        words = at_scale(EXPERIMENTS["ladder"], "toy").recipes[recipe][1].split()
        assert round(int(words[words.index("--steps") + 1]) / 18.75) == passes


def test_groups_of_the_border_have_equal_rollouts():
    for recipe in EXPERIMENTS["border"].recipes:
        words = EXPERIMENTS["border"].recipes[recipe][1].split()
        prompts = int(words[words.index("--prompts") + 1])
        n = int(words[words.index("--n") + 1])
        assert prompts * n == 384 and recipe == f"rl-{prompts}x{n}"


def test_an_experiment_with_pre_trainings_of_its_own():
    jobs = jobs_of("--only", "edge", "--seeds", "1", "--out", "o")
    pretrains = [job for job in jobs if job.kind == "pretrain"]
    assert [job.folder for job in pretrains] == ["o-d0", "o-d1", "o-d10"]
    assert not any("--keep 1.5M" in " ".join(job.command) for job in jobs)
    trained = [job for job in jobs if job.kind == "rl-edge"]
    assert [job.needs for job in trained] == [["o/d0.pt"], ["o/d1.pt"], ["o/d10.pt"]]
    asked = [job for job in jobs if job.kind == "evaluation"]
    assert all("--task toy-long" in " ".join(job.command) for job in asked) and len(asked) == 15


def test_the_list_has_all_of_them():
    done = subprocess.run(
        [sys.executable, "excursions.py", "--list"], cwd=ROOT, capture_output=True, text=True
    )
    for name, experiment in EXPERIMENTS.items():
        assert name in done.stdout and experiment.question in done.stdout
    assert done.stdout.count(" min") == len(
        EXPERIMENTS
    )  # all but the public checkpoints, and the default


def test_quick_is_a_few_steps_of_the_whole_table():
    quick = lines("--quick")
    assert len(quick) == 1 + 2 * 7 + 2 * 6 + 2  # rl-written from the first alone
    assert all("--steps 1 " in line for line in quick if line.startswith(("grpo", "parallel")))
    assert sum(seconds_of(line.split()) for line in quick) / 2 < 90


# ---------------------------------------------------------------------------------- --vary


def test_vary_runs_the_cell_and_its_variants():
    asked = lines("--vary", "grpo.normalize=std,none", "--on", "3.6M.rl")
    trained = [line for line in asked if line.startswith("grpo")]
    assert trained == [
        "grpo.py --ckpt o/3.6M.pt --setting controlled",
        "grpo.py --ckpt o/3.6M.pt --setting controlled --normalize none "
        "--out o/3.6M.rl-normalize-none.pt",
    ]
    assert len([line for line in asked if line.startswith("evaluate")]) == 3


def test_an_earlier_stage_may_vary():
    asked = lines("--vary", "sft.steps=19,300", "--on", "3.6M.sft.rl")
    assert (
        "grpo.py --ckpt o/3.6M.sft-steps-19.pt --setting controlled --out o/3.6M.sft-steps-19.rl.pt"
        in asked
    )
    assert sum(line.startswith("sft.py") for line in asked) == 2  # 300 is the preset's


def test_several_flags_vary_together():
    experiment = vary.experiment_of(
        DEFAULT, "toy", ["grpo.lr=1e-4,2.5e-4", "grpo.n=8,16"], "3.6M.rl"
    )
    assert list(experiment.recipes) == ["rl", "rl-lr-1e-4-n-8", "rl-lr-1e-4", "rl-n-8"]
    assert experiment.against == "rl"


def test_a_flag_with_one_value_beside_others_is_set_in_every_cell():
    """So the ablation at 300 steps has a cell of 300 steps to compare with, and none of 50."""
    for asked in (
        ["grpo.normalize=std,none", "grpo.steps=300"],
        ["grpo.steps=300", "grpo.normalize=std,none"],
    ):
        experiment = vary.experiment_of(DEFAULT, "toy", asked, "3.6M.rl")
        assert list(experiment.recipes) == ["rl-steps-300", "rl-steps-300-normalize-none"]
        assert experiment.against == "rl-steps-300"
    alone = vary.experiment_of(DEFAULT, "toy", ["grpo.steps=300"], "3.6M.rl")
    assert list(alone.recipes) == ["rl", "rl-steps-300"] and alone.against == "rl"


def test_one_value_of_pre_training_and_of_evaluation_may_stand_in_every_cell():
    asked = ["pretrain.lr=5e-3,2e-2", "pretrain.batch=12", "evaluate.temperature=1"]
    experiment = vary.experiment_of(DEFAULT, "toy", asked, "3.6M.rl")
    assert experiment.stems.split(",") == [
        "3.6M-batch-12",
        "3.6M-batch-12-lr-5e-3",
        "3.6M-batch-12-lr-2e-2",
    ]
    assert experiment.against == "rl-temperature-1"
    study = SimpleNamespace(cell=lambda name: tuple(name.split(".rl")[:1] + ["rl" + name[-14:]]))
    cell = "3.6M-batch-12-lr-2e-2.rl-temperature-1"
    assert reference_of(study, experiment, cell) == "3.6M-batch-12.rl-temperature-1"


def test_every_variant_is_compared_with_its_own_checkpoint():
    """At several checkpoints, and where pre-training varies, too."""
    vary_of = ["grpo.lr=1e-4", "pretrain.lr=5e-3"]
    experiment = vary.experiment_of(DEFAULT, "toy", vary_of, "1.5M.rl,3.6M.rl")
    study = SimpleNamespace(
        cell=lambda name: tuple(name.split(".rl")[:1] + ["rl" + name.split(".rl")[1]])
    )
    for cell, reference in (
        ("3.6M-lr-5e-3.rl-lr-1e-4", "3.6M.rl"),
        ("1.5M-lr-5e-3.rl-lr-1e-4", "1.5M.rl"),
        ("3.6M.rl", ""),
    ):
        assert reference_of(study, experiment, cell) == reference


def test_pre_training_and_evaluation_may_vary():
    asked = lines("--vary", "pretrain.lr=5e-3", "--on", "3.6M.rl")
    assert "pretrain.py --preset toy --keep 3.6M --lr 5e-3 --out o-3.6M-lr-5e-3" in asked
    assert "grpo.py --ckpt o/3.6M-lr-5e-3.pt --setting controlled" in asked
    asked = lines(
        "--vary", "pretrain.lr=1e-3", "--on", "4B.rl", "--preset", "1B"
    )  # at other scales, too
    assert "pretrain.py --preset 1B --keep 4B --lr 1e-3 --out o-4B-lr-1e-3" in asked
    asked = lines("--vary", "evaluate.temperature=1", "--on", "3.6M.rl")
    assert "-sf 3.6M.rl.pt o/3.6M.rl-temperature-1.pt" in asked
    assert any("3.6M.rl-temperature-1.pt --setting controlled --temperature 1" in a for a in asked)


def test_what_is_on_or_off_may_vary():
    asked = lines("--vary", "grpo.recompute_old=true,false")
    assert any("--recompute_old --out o/3.6M.rl-recompute_old-true.pt" in line for line in asked)
    assert "--no-recompute_old" not in " ".join(asked)  # the toy preset has it off


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--vary", "grpo.normalise=std"], "has no flag normalise, did you mean normalize?"),
        (["--vary", "gpro.lr=1"], "no stage 'gpro'; there are pretrain, sft, grpo"),
        (["--vary", "grpo.lr"], "write STAGE.FLAG=VALUE,VALUE"),
        (["--vary", "grpo.normalize=st"], "--normalize st: choose std, mean, none, loo"),
        (["--vary", "grpo.lr=fast"], "invalid float value: 'fast'"),
        (["--vary", "grpo.seed=1"], "--vary grpo.seed=1: say how many seeds by --seeds"),
        (["--vary", "sft.ckpt=a"], "--vary sft.ckpt=a: the cell decides the checkpoint"),
        (["--vary", "pretrain.out=a"], "--vary pretrain.out=a: the study names what"),
        (["--vary", "sft.lr=1", "--on", "3.6M.rl"], "sft.py is no part of 3.6M.rl"),
        (["--vary", "grpo.lr=1", "--on", "9M.rl"], "no such cell; write CHECKPOINT.RECIPE, of"),
        (["--on", "3.6M.rl"], "give --vary, too"),
        (["--vary", "pretrain.lr=1", "--on", "3.6M.rl,3.6M.sft"], "give those of one"),
        (["--recipe", "mine"], 'write "NAME: grpo.py --flag value"'),
        (["--recipe", "sft-x.rl: grpo.py"], "no recipe sft-x to start from; there are sft"),
        (["--from", "/nowhere"], "no such folder"),
        (["--checkpoints", "/nowhere"], "cannot read /nowhere"),
        (["--only", "nothing"], "invalid choice: 'nothing'"),
        (["--recipe", "a: grpo.py 'unclosed"], "--recipe a: No closing quotation"),
        (["--recipe", "a: grpo.py --stepz 1"], "--recipe a: unknown flag --stepz"),
        (["--recipe", "a: grpo.py --n 1"], "at least 2 rollouts"),
        (["--recipe", "a: grpo.py --seed 7"], "--seed is set by the study"),
        (["--recipe", "a: sft.py --ckpt=b.pt"], "--ckpt=b.pt is set by the study"),
        (["--recipe", "a: sft.py", "--recipe", "a: grpo.py"], "give it another name"),
        (["--recipe", "step1: sft.py"], "give it another name"),
        (["--vary", "grpo.n=4", "grpo.n=8"], "--vary grpo.n is given twice"),
        (["--vary", "grpo.data=a_x.jsonl,a/x.jsonl"], "would both be the cell"),
        (["--vary", "pretrain.keep=1.5M"], "the study names the checkpoints"),
        (["--only", "edge", "--preset", "1B"], "give --preset toy, or make one of --vary"),
    ],
)
def test_wrong_names_are_one_line_that_says_what_there_is(flags, words):
    assert words in refusal(*flags)


# ---------------------------------------------------------------------------------- --recipe


def test_a_new_recipe_is_one_row(tmp_path):
    asked = lines(
        "--recipe", "rl-none: grpo.py --normalize none", "--recipe", "sft.mine: grpo.py --lr 1e-4"
    )
    trained = [line for line in asked if line.startswith(("grpo", "sft")) and "3.6M" in line]
    assert trained == [
        "grpo.py --ckpt o/3.6M.pt --setting controlled --normalize none --out o/3.6M.rl-none.pt",
        "sft.py --ckpt o/3.6M.pt --setting controlled",
        "grpo.py --ckpt o/3.6M.sft.pt --setting controlled --lr 1e-4 --out o/3.6M.sft.mine.pt",
    ]


def test_own_experiments_are_kept_for_the_report(tmp_path):
    first = vary.experiment_of(DEFAULT, "toy", ["grpo.lr=1e-4"], "3.6M.rl")
    second = vary.with_recipes(DEFAULT, "toy", ["mine: grpo.py"])
    for experiment in (first, second, first):
        note_own(str(tmp_path), experiment)
    assert list(read_own(str(tmp_path)).values()) == [first, second]
    for text in ("{", '{"a": 1}', '{"a": {"recipes": {"x": "y"}}}', '{"a": {"no": 1}}'):
        (tmp_path / "experiments.json").write_text(text)
        with pytest.raises(UserError, match="experiments.json"):
            read_own(str(tmp_path))


# ---------------------------------------------------------------------------------- --checkpoints


def test_any_checkpoints_are_the_start(tmp_path, tiny_model):
    """Whatever they are called; in the order of their tokens, without what was made of them."""
    facts = {"preset": "toy", "tokenizer": "toy", "id": "a", "config": {}, "seed": 0}
    for name, tokens, recipe in (
        ("step-b", 2000, "base"),
        ("a.1", 1000, "base"),
        ("a.1.rl", 1000, "rl"),
    ):
        save_checkpoint(
            str(tmp_path / f"{name}.pt"), tiny_model, facts | {"tokens": tokens, "recipe": recipe}
        )
    flags = ["--checkpoints", str(tmp_path), "--data", "toy-hard", "--task", "toy-hard"]
    asked = lines(*flags)
    assert not any("pretrain" in line for line in asked)
    assert (
        f"sft.py --ckpt {tmp_path}/a.1.pt --setting controlled --data toy-hard --out o/a.1.sft.pt"
        in asked
    )
    evaluations = [line for line in asked if line.startswith("evaluate")]
    assert all(
        "--task toy-hard" in line and "--out o/results.jsonl" in line for line in evaluations
    )
    assert (
        evaluations[0].startswith(f"evaluate.py --ckpt {tmp_path}/a.1.pt")
        and len(asked) == 2 * 13 + 2
    )
    save_checkpoint(str(tmp_path / "c.pt"), tiny_model, facts | {"tokens": None, "recipe": "base"})
    assert "c do not know their tokens of pre-training" in refusal(*flags)
    (tmp_path / "c.pt").unlink()
    same = [line.replace(f"{tmp_path}/", "o/") for line in asked]
    there = lines(
        "--no-pretrain", "--data", "toy-hard", "--task", "toy-hard", "--out", str(tmp_path)
    )
    assert [line.split()[0] for line in there] == [line.split()[0] for line in same]
    assert (
        f"--ckpt {tmp_path}/a.1.pt" in there[0]
    )  # the folder's own names, in the order of their tokens
    (tmp_path / "3.6M.pt").write_bytes(b"")  # one of the preset's: these are meant
    assert "3.6M.sft.pt" in " ".join(lines("--no-pretrain", "--out", str(tmp_path)))


def test_a_pre_training_alone_can_vary_in_the_default_folder():
    flags = ("--vary", "pretrain.lr=5e-3", "--on", "3.6M")
    assert [
        line for line in lines(*flags) if line.startswith("pretrain.py") and "--lr 5e-3" in line
    ]
    args, _ = excursions.read_flags(list(flags))
    assert excursions.what_to_run(args)[1].out == "out/toy"


def test_paths_are_those_of_the_callers_folder(tmp_path):
    """And a line of --dry_run can be typed, blanks and all."""
    command = [sys.executable, f"{ROOT}/excursions.py", "--dry_run", "--out", "my out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    first = shlex.split(done.stdout.splitlines()[0])
    assert first[first.index("--out") + 1] == str(tmp_path / "my out")


def test_a_checkpoint_whose_name_stands_for_two_is_refused(tmp_path, tiny_model):
    facts = dict(recipe="base", tokens=4000, tokenizer="toy", preset="toy", step=1, seed=0)
    save_checkpoint(str(tmp_path / "a,b.pt"), tiny_model, facts)
    assert "a name with a comma" in refusal("--checkpoints", str(tmp_path))


def test_a_recipe_that_is_another_at_a_scale_is_left_out_there():
    """DAPO's punishment of length is a file with the toy scale's lengths."""
    losses = EXPERIMENTS["losses"]
    assert {"rl-dapo", "rl-dapo-free"} <= at_scale(losses, "toy").recipes.keys()
    assert "rl-dapo-free" not in at_scale(losses, "1B").recipes
    for experiment in EXPERIMENTS.values():
        for preset in ("toy", "1B", "1B-60B", "4B"):
            recipes = list(at_scale(experiment, preset).recipes.values())
            assert all(recipes.count(recipe) == 1 for recipe in recipes)
