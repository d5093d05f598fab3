"""General skills: what pre-training taught besides mathematics, and what post-training may undo.

    items, texts = load_general("toy")     six skills scored by likelihood, and held-out text

Every item is a context and the continuations to choose from, whatever the benchmark; evaluate.py scores them.
"""

from data import UserError
from data.toy import Item, heldout, skills


def load_general(corpus: str) -> tuple[list[Item], list[str]]:
    """Items of the six skills and held-out general texts that fit what a checkpoint was pre-trained on."""
    if corpus != "toy":
        raise UserError(f"general skills are made for the toy world; this checkpoint was pre-trained on {corpus}")
    return skills(), heldout()
