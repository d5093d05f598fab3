"""What grpo.py and parallel.py open before their first step."""

from dataclasses import dataclass
from typing import Any

from data.problems import Problem
from plumbing import checkpoint, copies, identity, rl_options
from plumbing.own_reward import load_reward
from plumbing.prepare import make_sampler, prepare
from plumbing.ranks import print0


@dataclass
class Run:
    """What stays the same from step to step."""

    config: Any
    recipe: str  # rl, parallel, ...
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
    config.check()
    out = checkpoint.output_path(config, recipe)
    model, parent = checkpoint.open_model(config)
    if identity.is_finished(out, config, parent):
        return None
    checkpoint.check_length(model, config.max_prompt + config.max_response)
    encoding = checkpoint.open_tokenizer(parent, model)
    problems, held_out = rl_options.load_prompts(config, encoding)
    own_reward = load_reward(config.reward, problems[0])
    reference = None
    if config.kl:
        reference, _ = checkpoint.open_model(config)
        prepare(reference.requires_grad_(False), config)
    prepare(model, config)
    run = Run(
        config=config,
        recipe=recipe,
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
    copies.check_copies(run)
    return run


def print_plan(run: Run) -> None:
    """How much a run samples and learns."""
    config = run.config
    print0(
        f"{config.steps} steps of {config.prompts} prompts x {config.n} = "
        f"{config.prompts * config.n} rollouts, {config.updates} updates each; "
        f"{config.steps * config.prompts / len(run.problems):.1f} passes"
    )
