"""Flags of grpo.py and parallel.py that cannot work together."""

from plumbing.control_rewards import CONTROLS
from plumbing.copies import steps_to_keep
from plumbing.flags import check
from plumbing.modes import check_parallel
from plumbing.other_losses import check_losses


def check_config(config) -> None:
    """Refuse what cannot work, each in a line that says what would."""
    if hasattr(config, "mode"):
        check_parallel(config)
    normalize = config.normalize
    check(
        normalize != "mean" or not config.reward or config.reward in CONTROLS,
        f"--normalize mean divides by the mean, which --reward {config.reward} may make negative; "
        "choose std or none",
    )
    check_losses(config)
    steps_to_keep(config)
    both = f"--probe {config.probe} and --dynamic_sampling are two ways to find mixed groups"
    check(not config.probe or not config.dynamic_sampling, f"{both}; give one of them")
    check(config.probe != 1, "--probe 1: one rollout cannot be mixed; give 2 or more")
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
        not config.tis or config.recompute_old or config.updates == 1,
        f"--tis {config.tis} compares the trainer's log-probs with the sampler's; "
        "give --recompute_old",
    )
    check(
        config.tis >= 0, f"--tis {config.tis}: the largest weight of a token, usually 2; 0 is off"
    )
