"""What a preset (scale) and a setting (fidelity to the paper) mean in every stage, in one place.

The value of a flag is its default, overridden by the preset, then by the setting, then by the
command line. excursions.py reads this too, so importing it needs no torch.
"""

# The checkpoints M_t that pretrain.py keeps (its --keep) and that the recipes start from.
# The earliest toy checkpoint is too early for RL on purpose.
CHECKPOINTS = {
    "toy": "1.5M,2.4M,3.6M",
    "small": "50M,100M,200M,300M",
    "1B": "2B,4B,6B,10B,12B,14B,20B,28B,44B",
    "1B-60B": "10B,20B,30B,34B,44B,56B",
    "4B": "10B,28B",
}

# What evaluate.py asks (its --task).
TASKS = {
    "toy": "toy,general",
    "small": "toy,general",
    "1B": "gsm8k,general",
    "1B-60B": "math,general",
    "4B": "math,general",
}

# -------------------------------------------------------------------------------------- pretrain.py

PRETRAIN = {
    "toy": dict(tokenizer="toy", tokens="3.6M", keep=CHECKPOINTS["toy"], batch=24, seq_len=80)
    | dict(lr=1e-2, warmup="100K", floor=0.02, z_loss=0.0, save_every=250),
    "small": dict(tokenizer="toy", tokens="300M", keep=CHECKPOINTS["small"], batch=512, seq_len=128)
    | dict(lr=2e-3, warmup="5M", z_loss=0.0),
    "1B": dict(data="dolmino-50B", compile=True),
    "1B-60B": dict(data="dolmino-60B", tokens="60B", keep=CHECKPOINTS["1B-60B"], compile=True),
    "4B": dict(data="dolmino-50B", keep=CHECKPOINTS["4B"], micro_tokens=8192, compile=True),
}

# -------------------------------------------------------------------------------------- sft.py

SFT = {
    "toy": dict(data="toy", steps=300, batch=32, lr=1e-3, schedule="cosine", max_prompt=160)
    | dict(max_response=64, save_every=100, log_every=100),
    "small": dict(data="toy", steps=400, batch=128, lr=3e-4, schedule="cosine", max_prompt=256)
    | dict(max_response=128),
    "1B": dict(compile=True),
    # The authors' SFT on one solution ran at a rate of 5e-4 in these two.
    "1B-60B": dict(data="openmath", max_prompt=2560, max_response=1024, compile=True),
    "4B": dict(data="openmath", max_prompt=2560, max_response=1024, compile=True)
    | dict(micro_tokens=8192),
}
SFT_SETTINGS = {
    "written": dict(pick="random"),
    "run": dict(loss="sum", shuffle=False),
    "controlled": {},
}

# -------------------------------------------------------------------------------------- grpo.py

RL = {
    "toy": dict(data="toy", steps=50, prompts=24, n=16, max_prompt=160, max_response=52)
    | dict(mini_batches=2, lr=2.5e-4, recompute_old=False)
    | dict(slots=512, micro_tokens=8192, save_every=10, log_every=10),
    "small": dict(data="toy", steps=80, prompts=128, n=16, max_prompt=256, max_response=128)
    | dict(mini_batches=2, lr=1e-4, slots=2048),
    "1B": dict(val_every=20, micro_tokens=8192, compile=True),
    "1B-60B": dict(data="openmath", val_every=20, micro_tokens=8192, compile=True),
    "4B": dict(data="openmath", val_every=20, micro_tokens=4096, kv_memory=0.3, compile=True),
}
RL_SETTINGS = {
    "written": dict(format_score=0.1, kl=1e-3),
    "run": dict(kl=1e-3, loss="micro-mean"),
    "controlled": {},
}
# (setting, preset): what the authors' RL from SFT checkpoints had instead. Rate and lengths are
# those of their SFT script, 40 times the rate of direct RL. The small scales keep rates of their
# own, which were found for two updates per step.
RL_AFTER_SFT = {
    ("run", "toy"): dict(kl=0.0, mini_batches=1),
    ("run", "small"): dict(kl=0.0, mini_batches=1),
    ("run", "1B"): dict(kl=0.0, mini_batches=1, lr=4e-5, max_prompt=512, max_response=512),
    ("run", "1B-60B"): dict(kl=0.0, mini_batches=1, lr=4e-5, max_prompt=2560, max_response=1024),
    ("run", "4B"): dict(kl=0.0, mini_batches=1, lr=4e-5, max_prompt=2560, max_response=1024),
}

# -------------------------------------------------------------------------------------- parallel.py

PARALLEL = {
    "toy": RL["toy"]
    | dict(sft_batch=32, sft_lr=1e-3, sft_schedule="cosine", interleave=6, curriculum=35),
    "small": RL["small"] | dict(sft_batch=128, sft_lr=3e-4, sft_schedule="cosine"),
    "1B": dict(val_every=25, micro_tokens=8192, compile=True),
    "1B-60B": dict(data="openmath", max_prompt=2560, max_response=1024, val_every=25)
    | dict(micro_tokens=8192, compile=True),
    "4B": dict(data="openmath", max_prompt=2560, max_response=1024, val_every=25)
    | dict(micro_tokens=4096, kv_memory=0.3, compile=True),
}
PARALLEL_SETTINGS = {
    "written": dict(format_score=0.1, pick="random"),
    "run": dict(loss="micro-mean", sft_loss="sum", shuffle=False),
    "controlled": {},
}

# -------------------------------------------------------------------------------------- evaluate.py

EVALUATE = {
    "toy": dict(task=TASKS["toy"], max_response=52, progress=False),
    "small": dict(task=TASKS["small"], max_response=128, slots=2048),
    "1B": dict(task=TASKS["1B"], compile=True),
    "1B-60B": dict(task=TASKS["1B-60B"], compile=True),
    "4B": dict(task=TASKS["4B"], compile=True),
}
EVALUATE_SETTINGS = {
    "written": dict(top_p=1.0),
    "run": dict(style="authors", rule="authors"),
    "controlled": {},
}

# -------------------------------------------------------------------------------------- toy-large

# Four times the weights of toy; all else is the same.
for table in (CHECKPOINTS, TASKS, PRETRAIN, SFT, RL, PARALLEL, EVALUATE):
    table["toy-large"] = table["toy"]
RL_AFTER_SFT["run", "toy-large"] = RL_AFTER_SFT["run", "toy"]
