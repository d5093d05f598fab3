"""What grpo.py and parallel.py open before their first step."""

from dataclasses import dataclass
from typing import Any

from data.problems import Problem
from plumbing import checkpoint, identity, rl_options
from plumbing.flags import check
from plumbing.own_reward import load_reward
from plumbing.prepare import make_sampler, prepare
from plumbing.ranks import print0


@dataclass
class Run:
    """What stays the same from step to step."""

    config: Any
    out: str  # the file of the result
    parent: dict  # facts of the checkpoint that it starts from
    model: Any
    reference: Any  # the model of the KL term, or None
    encoding: Any  # the tokenizer
    problems: list[Problem]
    held_out: list[Problem]
    own_reward: Any  # the function of --reward, or None: the grader is the reward
    sampler: Any


def set_up(config, recipe: str) -> Run | None:
    """All that a run needs besides its optimizers; None where its result is there already."""
    check_config(config)
    out = checkpoint.output_path(config, recipe)
    model, parent = checkpoint.open_parent(config)
    if identity.is_finished(out, config, parent):
        return None
    checkpoint.check_length(model, config.max_prompt + config.max_response)
    encoding = checkpoint.open_tokenizer(parent, model)
    problems, held_out = rl_options.load_prompts(config, encoding)
    own_reward = load_reward(config.reward, problems[0])
    reference = None
    if config.kl:
        reference, _ = checkpoint.open_parent(config)
        prepare(reference.requires_grad_(False), config)
    prepare(model, config)
    return Run(
        config=config,
        out=out,
        parent=parent,
        model=model,
        reference=reference,
        encoding=encoding,
        problems=problems,
        held_out=held_out,
        own_reward=own_reward,
        sampler=make_sampler(model, config.slots, config.kv_memory),
    )


def check_config(config) -> None:
    """Refuse what cannot work, each in a line that says what would."""
    normalize = config.normalize
    check(normalize in ("std", "none"), f"--normalize {normalize}: choose std or none")
    losses = ("token-mean", "sequence-mean", "constant", "micro-mean")
    check(config.loss in losses, f"--loss {config.loss}: choose {', '.join(losses)}")
    check(config.n >= 2, f"--n {config.n}: a group needs at least 2 rollouts to compare")
    check(
        config.prompts % config.mini_batches == 0,
        f"--prompts {config.prompts} is not a multiple of --mini_batches {config.mini_batches}",
    )
    check(
        config.temperature > 0,
        f"--temperature {config.temperature}: greedy rollouts of a group are all the same; "
        "give more than 0",
    )
    check(
        0 <= config.format_score < 1,
        f"--format_score {config.format_score}: a wrong answer pays less than a right one; "
        "give 0 up to below 1",
    )
    check(
        not config.ref_every or config.kl > 0,
        f"--ref_every {config.ref_every}: there is no reference without --kl; give --kl 0.001",
    )
    check(
        not config.tis or config.recompute_old or config.mini_batches == 1,
        f"--tis {config.tis} compares the trainer's log-probs with the sampler's; "
        "give --recompute_old",
    )
    check(
        config.tis >= 0, f"--tis {config.tis}: the largest weight of a token, usually 2; 0 is off"
    )


def print_plan(run: Run) -> None:
    """How much a run samples and learns."""
    config = run.config
    print0(
        f"{config.steps} steps of {config.prompts} prompts x {config.n} = "
        f"{config.prompts * config.n} rollouts, {config.mini_batches} updates each; "
        f"{config.steps * config.prompts / len(run.problems):.1f} passes"
    )
