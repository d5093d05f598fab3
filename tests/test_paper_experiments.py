"""The paper's figures as experiments: every command is one that its stage takes, at every scale,
and says what its words say.
"""

import importlib
import os

import pytest
from test_experiments import jobs_of, lines, refusal

import excursions
import grpo
import parallel
import sft
from data.problems import load_problems
from data.sources import DOCUMENTED
from data.toy_text import CORPORA, documents
from model import PRESETS, Transformer
from plumbing.flags import fields_of, parse_flags
from plumbing.presets import CHECKPOINTS
from study import experiment
from study.experiment import Experiment, filled, stems_of
from study.experiments import EXPERIMENTS
from study.paper_experiments import PAPER_EXPERIMENTS
from study.runner import Job

OF_ALL_SCALES = [*PAPER_EXPERIMENTS]
OF_ALL_SCALES += [name for name, one in EXPERIMENTS.items() if one.anywhere and one.recipes]
OF_ALL_SCALES = list(dict.fromkeys(OF_ALL_SCALES))
CASES = [(name, preset) for preset in ("toy", "1B", "1B-60B", "4B") for name in OF_ALL_SCALES]


def read(job: Job, preset: str):
    """The Config of a command, as its stage reads it."""
    words = job.command[1:]
    stage = importlib.import_module(words[0].removesuffix(".py"))
    parent = {"preset": preset, "recipe": "base"}
    settings = getattr(stage, "SETTINGS", {})
    return parse_flags(stage.Config, stage.PRESETS, settings, words[1:], parent=parent)


@pytest.mark.parametrize("name, preset", CASES)
def test_every_command_is_one_that_its_stage_takes(name, preset, capsys):
    if name == "public" and preset != "1B":
        assert "give --preset 1B" in refusal("--only", name, "--preset", preset)
        return
    made = {"o/" + stem + ".pt" for stem in CHECKPOINTS[preset].split(",")}
    folders = set()  # of pre-trainings, which keep several checkpoints
    for job in jobs_of("--only", name, "--preset", preset, "--seeds", "1", "--out", "o"):
        text = " ".join(job.command)
        assert not set("[]{}|") & set(text), text
        for path in job.needs:
            of_copy = path.split(".step")[0] + ".pt"  # a copy is there when its run is
            assert path in made or of_copy in made or os.path.dirname(path) in folders, (
                job.name,
                path,
            )
        made |= {job.makes}
        if job.kind == "pretrain" and job.folder != "o":
            folders |= {job.folder}
        if not job.command[1].endswith(".py") or job.command[1] == "convert.py":
            continue
        config = read(job, preset)
        if hasattr(config, "normalize"):
            config.check()
        if job.command[1] in ("grpo.py", "parallel.py", "sft.py"):
            in_toy_world = "toy" in config.data or config.data.endswith(
                ".jsonl"
            )  # of tools.difficulty
            assert in_toy_world == (preset == "toy") or name == "figure18", text


def test_words_in_brackets_are_of_a_scale():
    line = "grpo.py --lr [1e-3|4e-5] [--steps 150] --data {folder}/{stem}.hard.jsonl"
    line += " {hard rl} --task {task}"
    toy = filled(line, "toy", folder="out/toy", stem="3.6M")
    assert (
        toy
        == "grpo.py --lr 1e-3 --steps 150 --data out/toy/3.6M.hard.jsonl --data toy-hard --task toy"
    )
    large = filled(line, "1B", folder="f", stem="4B")
    assert (
        large
        == "grpo.py --lr 4e-5 --data f/4B.hard.jsonl --data openmath --samples 64 --task gsm8k"
    )
    words = Experiment("?", {}, stems="second,last")
    assert stems_of(words, "1B") == ["4B", "44B"] and stems_of(words, "4B") == ["28B"]


def test_passes_of_sft_at_both_scales():
    """16 passes are the recipe sft of the toy, 61 that of the paper: each is there once."""
    toy, large = (
        lines("--only", "ladder", "--preset", preset, "--seeds", "1") for preset in ("toy", "1B")
    )
    assert [line for line in toy if "3.6M.sft-61.pt --setting controlled --steps 300" in line]
    trained = [line for line in large if line.startswith("sft.py --ckpt o/44B.pt")]
    steps = [line.split("--steps ")[1].split()[0] for line in trained if "--steps" in line]
    assert steps == ["157", "625", "2500"] and len(trained) == 4
    assert not [line for line in large if "sft-61" in line]
    assert not [line for line in large if line.startswith("grpo.py") and "--steps" in line]


def test_a_flag_of_a_scale_can_be_varied():
    """A line with words in brackets is filled before its flags are read."""
    flags = ("--only", "settings", "--vary", "grpo.kl=0,1e-3", "--on", "3.6M.rl-4-updates")
    assert [line for line in lines(*flags) if "--mini_batches 4 --kl 1e-3" in line]


def test_one_run_makes_the_checkpoints_of_a_configuration():
    jobs = jobs_of("--only", "figure4", "--seeds", "1", "--out", "o")
    trained = [job for job in jobs if job.kind == "pretrain"]
    assert [job.folder for job in trained] == ["o", "o-targeted", "o-large"]
    links = {job.makes: job.command[2:] for job in jobs if job.command[0] == "ln"}
    assert links["o/large-2.4M.pt"] == ["../o-large/2.4M.pt", "o/large-2.4M.pt"]
    assert len(links) == 4
    shared = {job.name for job in jobs} & {
        job.name for job in jobs_of("--only", "figure11", "--seeds", "1")
    }
    assert (
        "targeted-5.4M.hard-rl" in shared
        and "targeted-5.4M.hard-rl evaluation of toy-hard,general" in shared
    )


def test_copies_are_kept_and_tested():
    jobs = {job.name: job for job in jobs_of("--only", "figure17", "--seeds", "1", "--out", "o")}
    assert "--keep 25,50,100,200" in " ".join(jobs["3.6M.parallel-low"].command)
    copy = jobs["3.6M.parallel-low.step50 evaluation"]
    assert (
        copy.needs == ["o/3.6M.parallel-low.step50.pt"]
        and copy.checkpoint == "3.6M.parallel-low.step50"
    )


def test_few_and_many_rollouts_see_as_many_samples():
    config = {
        job.name: read(job, "toy")
        for job in jobs_of("--only", "figure18", "--seeds", "1")
        if job.kind.endswith(("n5", "n64"))
    }
    few, many = config["3.6M.easy-n5"], config["3.6M.easy-n64"]
    assert few.updates == many.updates == 1 and few.prompts == many.prompts
    for a, b in zip(
        [*map(int, few.keep.split(",")), few.steps], [*map(int, many.keep.split(",")), many.steps]
    ):
        assert abs(5 * a / (64 * b) - 1) < 0.03
    assert "leave out --quick" in refusal("--only", "figure18", "--quick")


def test_adaptive_rows_sample_as_much_as_the_plain_one():
    config = {
        job.name: read(job, "toy")
        for job in jobs_of("--only", "weight", "--seeds", "1")
        if job.kind.startswith(("rl", "par"))
    }
    plain, probed = config["3.6M.rl-150"], config["3.6M.rl-probe"]
    assert plain.prompts * plain.n == probed.prompts * (2 * probed.probe + probed.n)
    assert {type(c) for name, c in config.items() if "parallel" in name} == {parallel.Config}


def test_public_checkpoints_are_converted():
    asked = lines("--only", "public", "--preset", "1B")
    first = "convert.py from-hf allenai/OLMo-2-0425-1B-early-training"
    first += " --revision stage1-step1000-tokens3B --out o/2B.pt"
    assert asked[0] == first and sum(line.startswith("convert") for line in asked) == 9
    assert (
        sum(line.startswith("evaluate") and "--shots 8" in line for line in asked) == 9
        and len(asked) == 18
    )


def test_where_results_go(monkeypatch):
    def folder(*flags):
        args, _ = excursions.read_flags(list(flags))
        return excursions.what_to_run(args)[1].out

    assert folder("--only", "public", "--preset", "1B") == "out/public"
    assert (
        folder("--only", "figure10") == "out/toy-study"
        and folder("--only", "figure10", "--preset", "1B") == "out/1B"
    )
    assert folder("--vary", "pretrain.lr=1e-3", "--on", "4B.rl", "--preset", "1B") == "out/1B"
    assert folder("--only", "core") == "out/toy-study" and folder() == "out/toy"


def test_the_targeted_mix_adds_the_hard_family_and_takes_nothing_away():
    """Words of each kind in as much text as a run of the toy mix has, and half more: only hard
    problems are more.
    """

    def words(corpus: str, n: int) -> dict[str, float]:
        found = dict.fromkeys(("general", "other", "word problems", "hard"), 0)
        total = 0
        for kind, text in documents(0, corpus):
            if kind == "mathematics":
                kind = "hard" if "=" in text.split("\n")[0] and "find" in text else "word problems"
            found[kind] += len(text.split())
            total += len(text.split())
            if total >= n:
                return found

    size = sum(CORPORA["toy-targeted"].mix.values())
    assert size == pytest.approx(1.0)
    toy = words("toy", 200_000)
    targeted = words("toy-targeted", 300_000)
    for kind in ("general", "other"):
        assert targeted[kind] == pytest.approx(toy[kind], rel=0.08)
    assert targeted["hard"] > 5 * toy["hard"]


def test_the_large_model_has_four_times_the_weights_and_the_toys_flags():
    small = Transformer(PRESETS["toy"]).num_parameters(embeddings=False)
    large = Transformer(PRESETS["toy-large"]).num_parameters(embeddings=False)
    assert large / small == pytest.approx(4, rel=0.01)
    assert CHECKPOINTS["toy-large"] == CHECKPOINTS["toy"]


def test_what_the_table_of_experiments_knows_of_the_stages():
    """study/experiment.py needs no torch, so it has some of the stages' defaults again."""
    sft_defaults = {name: fields_of(sft.Config)[name].default for name in experiment.OF_SFT}
    assert sft_defaults == experiment.OF_SFT
    assert fields_of(grpo.Config)["lr"].default == experiment.OF_RL["lr"]
    for name, about in experiment.N_PROBLEMS.items():
        least, most = DOCUMENTED.get((name, "train"), (600, 600))
        assert 0.98 * least <= about <= 1.02 * most
    assert len(load_problems("toy")) == experiment.N_PROBLEMS["toy"]
