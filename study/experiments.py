"""The experiments of the study as data: question, recipes, checkpoints, seeds. Needs no torch.

study/experiment.py says what the fields are and how to read a line.
What each experiment should show was written down before it ran: results/toy/predictions.md.
"""

from study.experiment import Experiment, Recipes
from study.paper_experiments import PAPER_EXPERIMENTS
from study.recipes import RECIPES_OF_FIGURE, WRITTEN

# ---------------------------------------------------------------------------------- the table

CORE = {
    "sft": ("base", "sft.py"),
    "sft-gold": ("base", "sft.py --solutions all"),
    "rl": ("base", "grpo.py"),
    "parallel": ("base", "parallel.py"),
    "sft.rl": ("sft", "grpo.py"),
    "sft-gold.rl": ("sft-gold", "grpo.py"),
    # From the earliest checkpoint only.
    WRITTEN: ("base", "grpo.py --setting written"),
}

# RL's training accuracy still rises after 300 steps (docs/log.md has numbers): the experiment
# `length` has twice as many.
LONG_STEPS = 300
LONG = f" [--steps {LONG_STEPS}]"  # elsewhere RL takes the steps of its preset


def long(recipes: Recipes) -> Recipes:
    """The same recipes with long RL."""
    longer = {}
    for name, (start, line) in recipes.items():
        if line.startswith(("grpo.py", "parallel.py")) and name != WRITTEN:
            line += LONG
        longer[name] = (start, line)
    return longer


def some(*names: str) -> Recipes:
    """These recipes of the core, with long RL."""
    return {name: long(CORE)[name] for name in names}


def rl(flags: str, steps: int = LONG_STEPS) -> tuple[str, str]:
    """Direct RL with other flags."""
    return ("base", f"grpo.py [--steps {steps}] {flags}".strip())


RL = some("rl")
AFTER_SFT = some("sft", "sft.rl")

CONTROLS = RL | {"rl-random": rl("--reward random"), "rl-format": rl("--reward format")}

ALONE = RL | {
    "rl-32": rl("--data toy:32"),
    "rl-32-50": rl("--data toy:32", steps=50),
    "rl-21-32": rl("--data toy:21+32"),
}

# The recipe sft itself makes 16 passes at toy scale, and 61 at the paper's 1B.
LADDER = dict(AFTER_SFT)
for passes in (1, 4, 16, 61):
    LADDER[f"sft-{passes}"] = ("base", f"sft.py {{{passes} passes}}")
for passes in (1, 4, 16, 61):
    LADDER[f"sft-{passes}.rl"] = (f"sft-{passes}", "grpo.py" + LONG)

# Direct RL has a rate of 2.5e-4 at toy scale and of 1e-6 in the paper; the authors' RL after SFT
# had 40 times theirs.
RATE = AFTER_SFT | {
    "sft.rl-2x": ("sft", f"grpo.py{LONG} --lr [5e-4|2e-6]"),
    "sft.rl-4x": ("sft", f"grpo.py{LONG} --lr [1e-3|4e-6]"),
    "sft.rl-8x": ("sft", f"grpo.py{LONG} --lr [2e-3|8e-6]"),
}

INTENSITY = AFTER_SFT | {"sft.rl-600": ("sft", "grpo.py --steps 600")}

TAIL_SAMPLES = "evaluate.py --task {task} --n 256 --k 1,8,32,64,128,256"
TAIL = RL | {
    "draw-1": ("base", TAIL_SAMPLES + " --seed 1000"),
    "draw-2": ("base", TAIL_SAMPLES + " --seed 2000"),
    "rl.draw-1": ("rl", TAIL_SAMPLES + " --seed 1000"),
}

BORDER = {
    "rl-96x4": rl("--prompts 96 --n 4", steps=200),
    "rl-24x16": rl("--prompts 24 --n 16", steps=200),
    "rl-6x64": rl("--prompts 6 --n 64", steps=200),
}

NORMALISE = RL | {"rl-none": rl("--normalize none"), "rl-mean": rl("--normalize mean")}

FORGETTING = {
    "sft": CORE["sft"],
    "sft-1e-4": ("base", "sft.py --lr 1e-4"),
    "sft-3e-4": ("base", "sft.py --lr 3e-4"),
    "sft-3e-3": ("base", "sft.py --lr 3e-3"),
    "rl": RL["rl"],
    "rl-1e-4": rl("--lr 1e-4"),
    "rl-1e-3": rl("--lr 1e-3"),
}

LONGER = "--max_response 80"  # seven operations need more tokens than five
EDGE = {
    "rl-inside": rl(f"--data toy-long:12+21+22 {LONGER}", steps=150),
    "rl-edge": rl(f"--data toy-long:23+32 {LONGER}", steps=150),
    "rl-beyond": rl(f"--data toy-long:33+34+43 {LONGER}", steps=150),
    "rl-mixed": rl(f"--data toy-long:23+32+33+34+43 {LONGER}", steps=150),
}
FURTHER = {
    "sft-inside": ("base", "sft.py --data toy-long:12+21+22"),
    "sft-inside.rl-inside": ("sft-inside", EDGE["rl-inside"][1]),
}
# Rows of 128 tokens, so that every position of a long problem occurs in pre-training.
SATURATED = "--tokens 14M --keep 14M --seq_len 128 --batch 15"
EDGE_PRETRAIN = {
    "d0": f"pretrain.py --preset toy --data toy-edge-0 {SATURATED}",
    "d1": f"pretrain.py --preset toy --data toy-edge-1 {SATURATED}",
    "d10": f"pretrain.py --preset toy --data toy-edge-10 {SATURATED}",
}

LENGTH = some("rl", "parallel") | {
    "rl-600": rl("", steps=600),
    "parallel-600": ("base", "parallel.py --steps 600"),
}

AS_RL_SAMPLES = "evaluate.py --task {task} --n 128 --k 1,8,32,128 --temperature 1 --top_p 1"
TAKEOFF = some("sft", "sft-gold", "rl", "sft.rl", "sft-gold.rl", "parallel") | {
    "at-1": ("base", AS_RL_SAMPLES),
    "sft.at-1": ("sft", AS_RL_SAMPLES),
    "sft-gold.at-1": ("sft-gold", AS_RL_SAMPLES),
}

# Experiments that make sense at other scales, too.
ANYWHERE = dict(with_core=True, anywhere=True)

EXPERIMENTS = {
    "core": Experiment(
        "What do SFT, RL and their combinations do, from each checkpoint?",
        long(CORE),
        stems="all",
        seeds=8,
        **ANYWHERE,
        figure="gains",
    ),
    "takeoff": Experiment(
        "At what pass rate does RL begin to work on a shape of problem?",
        TAKEOFF,
        stems="all",
        seeds=8,
        **ANYWHERE,
        figure="takeoff",
    ),
    "controls": Experiment(
        "Is it the reward that teaches?", CONTROLS, seeds=6, **ANYWHERE, against="base"
    ),
    "alone": Experiment(
        "Does a shape of problem get worse because others share its batch, or for lack of signal?",
        ALONE,
        seeds=6,
        with_core=True,
        against="base",
        shape="3,2",
    ),
    "ladder": Experiment(
        "Does deeper SFT make RL sharpen?", LADDER, seeds=6, **ANYWHERE, figure="ladder"
    ),
    "rate": Experiment("Does a higher rate make RL after SFT sharpen?", RATE, seeds=6, **ANYWHERE),
    "intensity": Experiment(
        "Do more rollouts a problem make RL after SFT sharpen?",
        INTENSITY,
        seeds=6,
        with_core=True,
        beside={"sft.rl-600": "sft.rl"},
    ),
    "edge": Experiment(
        "Does RL reach what pre-training did not teach?",
        EDGE,
        stems="d0,d1,d10",
        seeds=3,
        with_core=True,
        evaluate="--task toy-long --n 128 --k 1,8,32,128 --max_response 80",
        pretrain=EDGE_PRETRAIN,
        against="base",
        figure="edge",
    ),
    "further": Experiment(
        "Does RL after SFT sharpen where the test asks for more than was taught?",
        FURTHER,
        stems="d1",
        seeds=6,
        with_core=True,
        evaluate="--task toy-long --n 128 --k 1,8,32,128 --max_response 80",
        pretrain={"d1": EDGE_PRETRAIN["d1"]},
        beside={"sft-inside.rl-inside": "sft-inside"},
    ),
    "border": Experiment(
        "At which pass rate does a group of n rollouts begin to teach?",
        BORDER,
        seeds=6,
        with_core=True,
        against="rl-24x16",
    ),
    "normalise": Experiment(
        "Does dividing the advantage by the deviation, or by the mean, help hard problems?",
        NORMALISE,
        seeds=6,
        **ANYWHERE,
        against="rl",
    ),
    "forgetting": Experiment(
        "Does the distance from the base decide what is forgotten, or the method?",
        FORGETTING,
        seeds=6,
        with_core=True,
        against="base",
        distance=True,
        figure="forgetting",
    ),
    "length": Experiment(
        "Are 300 steps of RL enough to judge by?",
        LENGTH,
        stems="first,last",
        seeds=4,
        with_core=True,
        against="base",
        beside={"rl-600": "rl", "parallel-600": "parallel"},
    ),
    "tail": Experiment(
        "Which problems does RL solve that the base did not solve in 256 samples?",
        TAIL,
        seeds=6,
        **ANYWHERE,
        figure="tail",
    ),
}

EXPERIMENTS["figure5"] = Experiment(
    "Does pass@k of the base tell what RL will make of it?",
    RL,
    stems="all",
    seeds=8,
    **ANYWHERE,
    figure="base against rl",
)
EXPERIMENTS["figure15"] = Experiment(
    "How many passes should SFT make?",
    {name: recipe for name, recipe in LADDER.items() if not name.endswith(".rl")},
    seeds=6,
    **ANYWHERE,
    against="base",
    figure="sft passes",
)
EXPERIMENTS |= PAPER_EXPERIMENTS

# The default: the core table with the presets' RL steps. The paper's figures are parts of it.
DEFAULT = Experiment("What do SFT, RL and their combinations do?", CORE, stems="all")
for figure, recipes in RECIPES_OF_FIGURE.items():
    chosen = {name: CORE[name] for name in CORE if name in recipes}
    EXPERIMENTS[figure] = Experiment(f"The paper's {figure}, from our rows.", chosen, stems="all")
