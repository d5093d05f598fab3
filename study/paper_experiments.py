"""The paper's other figures and its future work, as experiments.

study/experiment.py says how to read a line; results/toy/predictions.md what each should show.

    python excursions.py --only figure4 --seeds 4            # at toy scale
    python excursions.py --only figure10 --preset 1B --plan  # the same rows at the paper's scale
"""

from study.experiment import Experiment

# ------------------------------------------------------------------------- the hard family

HARD_RL = "grpo.py {hard rl} [--steps 150]"
HARD = {
    "hard-sft": ("base", "sft.py {hard sft}"),
    "hard-sft-gold": ("base", "sft.py {hard sft} --solutions all"),
    "hard-rl": ("base", HARD_RL),
    "hard-sft.rl": ("hard-sft", HARD_RL),
}
# Stand for 1B-60B (more tokens, all of them targeted mathematics: half as many again here, a fifth
# there) and for 4B (the same data, four times the weights).
TARGETED = "pretrain.py --preset toy --data toy-targeted --tokens 5.4M --keep 3.6M,5.4M"
LARGE = "pretrain.py --preset toy-large --keep 2.4M,3.6M"
TARGETED_STEMS = dict.fromkeys(["targeted-3.6M", "targeted-5.4M"], TARGETED)
LARGE_STEMS = dict.fromkeys(["large-2.4M", "large-3.6M"], LARGE)
ON_HARD = dict(
    seeds=4, with_core=True, anywhere=True, evaluate="--task {hard task}", task="toy-hard"
)


def hard_table(configuration: str, stems: str, pretrain: dict) -> Experiment:
    question = f"What do all recipes do on the hard family{configuration}?"
    return Experiment(question, HARD, stems=stems, pretrain=pretrain, figure="passes", **ON_HARD)


# ------------------------------------------------------------------------- single figures

SEEDS = {}
for i in range(1, 7):
    SEEDS[f"rl-seed{i}"] = ("base", f"grpo.py --seed {i} [--val_every 25 --steps 150]")

SHOTS = {}
for n in (0, 1, 2, 4, 8):
    SHOTS[f"shots-{n}"] = ("base", f"evaluate.py --shots {n} --task {{task}}")
WIDE = "pretrain.py --preset toy --seq_len 640 --batch 3 --keep 1.5M,2.4M,3.6M"
WIDE_STEMS = dict.fromkeys(["wide-1.5M", "wide-2.4M", "wide-3.6M"], WIDE)

AVERAGED = "parallel.py --sft_schedule constant [--steps 300] --sft_lr "
TRAJECTORIES = {
    "parallel-high": ("base", AVERAGED + "{lr of sft}"),
    "parallel-middle": ("base", AVERAGED + "[1e-4|1e-6]"),
    "parallel-low": ("base", AVERAGED + "[1e-5|1e-7]"),
}

ROLLOUTS = {}
for kind in ("easy", "hard"):
    line = f"grpo.py --data {{folder}}/{{stem}}.{kind}.jsonl --prompts [16|64] --mini_batches 1 "
    ROLLOUTS[f"{kind}-n5"] = ("base", line + "--samples 5 --steps [600|6000]")
    ROLLOUTS[f"{kind}-n64"] = ("base", line + "--samples 64 --steps [47|750]")


# ------------------------------------------------------------------------- the settings

SETTINGS = {}
for setting in ("controlled", "written", "run"):
    flags = f"--setting {setting}"
    SETTINGS[f"{setting}-sft"] = ("base", f"sft.py {flags}")
    SETTINGS[f"{setting}-rl"] = ("base", f"grpo.py {flags}")
    SETTINGS[f"{setting}-sft.rl"] = (f"{setting}-sft", f"grpo.py {flags}")
    SETTINGS[f"{setting}-parallel"] = ("base", f"parallel.py {flags}")
# One difference at a time, from the setting `controlled`.
DIFFERENCES = {
    "rl-format-score": ("base", "grpo.py --format_score 0.1"),
    "rl-kl": ("base", "grpo.py --kl 1e-3"),
    "rl-1-update": ("base", "grpo.py --mini_batches 1"),
    "rl-4-updates": ("base", "grpo.py --mini_batches [4|8]"),
    "rl-micro-mean": ("base", "grpo.py --loss micro-mean"),
    "sft-slow": ("base", "sft.py --lr {lr of rl}"),
    "sft-sum": ("base", "sft.py --loss sum"),
    "sft-random": ("base", "sft.py --pick random"),
    "sft-in-order": ("base", "sft.py --no-shuffle"),
    "controlled-sft.rl-fast": ("controlled-sft", "grpo.py --lr {lr of sft}"),
    "controlled-rl.top-p-1": ("controlled-rl", "evaluate.py --top_p 1 --task {task}"),
    "controlled-rl.authors-grader": ("controlled-rl", "evaluate.py --rule authors --task {task}"),
}

# What a cell is compared with, where that is not what it starts from: each difference with the
# setting `controlled`, each other setting with the same recipe of `controlled`.
BESIDE = {"controlled-sft.rl-fast": "controlled-sft.rl"}
for name, (start, _) in DIFFERENCES.items():
    if start == "base":
        stage = name.partition("-")[0]  # rl or sft
        BESIDE[name] = f"controlled-{stage}"
for recipe in ("sft", "rl", "sft.rl", "parallel"):
    for setting in ("written", "run"):
        BESIDE[f"{setting}-{recipe}"] = f"controlled-{recipe}"

# ------------------------------------------------------------------------- future work

SHORT = "[--steps 150]"
WEIGHT = {
    "rl-150": ("base", f"grpo.py {SHORT}"),
    "rl-probe": ("base", f"grpo.py {SHORT} --probe 4 --prompts [16|256]"),
    "rl-probe-180": ("base", "grpo.py [--steps 180] --probe 4 --prompts [16|256]"),  # equal FLOPs
    "parallel-50": ("base", f"parallel.py {SHORT}"),
    "parallel-25": ("base", f"parallel.py {SHORT} --weight 0.25"),
    "parallel-75": ("base", f"parallel.py {SHORT} --weight 0.75"),
    "parallel-line": ("base", f"parallel.py {SHORT} --weight 0 --weight_end 1"),
    "parallel-adapt": ("base", f"parallel.py {SHORT} --adapt"),
}

GSPO_CLIPS = "--clip_low 3e-4 --clip_high 4e-4"
LOSSES = {
    "rl-150": ("base", f"grpo.py {SHORT}"),
    "rl-dr-grpo": ("base", f"grpo.py {SHORT} --normalize none --loss constant"),
    "rl-dapo": (
        "base",
        f"grpo.py {SHORT} --clip_high 0.28 --dynamic_sampling 2 [--reward tools/overlong.py:score]",
    ),
    "rl-dapo-free": ("base", f"grpo.py {SHORT} --clip_high 0.28 --dynamic_sampling 2"),
    "rl-gspo": ("base", f"grpo.py {SHORT} --ratio sequence --loss sequence-mean [|{GSPO_CLIPS}]"),
    "rl-cispo": ("base", f"grpo.py {SHORT} --loss cispo"),
    "rl-rloo": ("base", f"grpo.py {SHORT} --normalize loo"),
    "rl-maxrl": ("base", f"grpo.py {SHORT} --normalize mean"),
    "rl-pass8": ("base", f"grpo.py {SHORT} --normalize pass@8"),
    "rl-entropy": ("base", f"grpo.py {SHORT} --entropy 0.01"),
    "rl-2-epochs": ("base", f"grpo.py {SHORT} --epochs 2"),
    "rft": ("base", f"grpo.py {SHORT} --normalize pass@1"),
}

# ------------------------------------------------------------------------- public checkpoints

# The paper's steps; a name has the tokens rounded up, 2,097,152 a step.
PUBLIC = {}
REVISIONS = {
    "2B": (1000, 3),
    "4B": (2000, 5),
    "6B": (3000, 7),
    "10B": (5000, 11),
    "12B": (6000, 13),
    "14B": (7000, 15),
    "20B": (10000, 21),
    "28B": (14000, 30),
    "44B": (22000, 47),
}
for stem, (step, billions) in REVISIONS.items():
    revision = f"stage1-step{step}-tokens{billions}B"
    repository = "allenai/OLMo-2-0425-1B-early-training"
    PUBLIC[stem] = f"convert.py from-hf {repository} --revision {revision}"


LIKE_CORE = dict(with_core=True, anywhere=True)
PAPER_EXPERIMENTS = {
    "figure4": Experiment(
        "Does targeted pre-training data or a larger model let direct RL gain more?",
        {"hard-rl": HARD["hard-rl"]},
        stems=",".join(["2.4M", "3.6M", *TARGETED_STEMS, *LARGE_STEMS]),
        pretrain=TARGETED_STEMS | LARGE_STEMS,
        figure="configurations",
        **ON_HARD,
    ),
    "figure10": hard_table("", "all", {}),
    "figure11": hard_table(" after more targeted data", ",".join(TARGETED_STEMS), TARGETED_STEMS),
    "figure12": hard_table(" with a larger model", ",".join(LARGE_STEMS), LARGE_STEMS),
    "figure14": Experiment(
        "How much does the seed of RL alone decide, early and late?",
        SEEDS,
        stems="second,last",
        against="base",
        evaluate="--task {task}",
        figure="brittleness",
        **LIKE_CORE,
    ),
    "figure16": Experiment(
        "How many worked examples should a base checkpoint see?",
        SHOTS,
        stems=",".join(WIDE_STEMS),
        seeds=4,
        pretrain=WIDE_STEMS,
        against="shots-0",
        figure="shots",
        **LIKE_CORE,
    ),
    "figure17": Experiment(
        "How does parallel averaging travel, and what does the rate of its SFT half decide?",
        TRAJECTORIES,
        seeds=4,
        copies=dict.fromkeys(TRAJECTORIES, "[25,50,100,200|50,200,600,1400]"),
        against="base",
        figure="trajectories",
        **LIKE_CORE,
    ),
    "figure18": Experiment(
        "Few or many rollouts a problem, on easy and on hard ones?",
        ROLLOUTS,
        seeds=4,
        split=True,
        copies={
            name: "[75,150,300|500,1500,3000]" if name.endswith("n5") else "[6,12,23|60,190,380]"
            for name in ROLLOUTS
        },
        against="base",
        evaluate="--task {task}",
        figure="rollouts",
        **LIKE_CORE,
    ),
    "settings": Experiment(
        "What is each difference between the paper, the authors' code and our setting worth?",
        SETTINGS | DIFFERENCES,
        seeds=4,
        beside=BESIDE,
        figure="differences",
        **LIKE_CORE,
    ),
    "weight": Experiment(
        "Should the weight of RL follow the signal, and rollouts the problems of mixed outcome?",
        WEIGHT,
        stems="first,last",
        seeds=4,
        against="rl-150",
        figure="differences",
        **LIKE_CORE,
    ),
    "losses": Experiment(
        "Which of the losses that others have proposed would change the finding?",
        LOSSES,
        seeds=4,
        evaluate="--task {task}",
        against="rl-150",
        figure="differences",
        **LIKE_CORE,
    ),
    "public": Experiment(
        "What do public OLMo2 checkpoints solve before any post-training?",
        {},
        stems=",".join(PUBLIC),
        pretrain=PUBLIC,
        preset="1B",
        **LIKE_CORE,
    ),
}
