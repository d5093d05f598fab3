"""The study's recipes: their order, and which of them each figure shows. Needs no torch."""

# Direct RL in the setting `written`, from the earliest checkpoint: the collapse.
WRITTEN = "rl-written"

# The order in tables and legends.
RECIPES = ["base", "sft", "sft-gold", "rl", "sft.rl", "sft-gold.rl", "parallel", WRITTEN]

# As legends spell them.
NAMES = {
    "base": "base",
    "sft": "SFT, one solution",
    "sft-gold": "SFT, all solutions (Gold)",
    "rl": "direct RL",
    "sft.rl": "SFT, then RL",
    "sft-gold.rl": "Gold, then RL",
    "parallel": "RL and SFT averaged",
    WRITTEN: "direct RL, the written setting",
}

# The paper's figures that we draw, with their recipes.
RECIPES_OF_FIGURE = {
    "figure2": ["base", "sft", "sft.rl", "rl"],
    "figure3": ["base", "sft-gold", "sft-gold.rl", "rl"],
    "figure6": ["base", "sft", "sft.rl", "rl"],
    "figure7": ["base", "rl", "sft", "sft-gold"],
    "figure9": ["base", "sft", "sft.rl", "rl", "parallel"],
    "figure13": ["rl", WRITTEN],
}
