"""Responses to problems: what RL, evaluation and difficulty files sample, each rank its share."""

from plumbing.batches import problem_keys
from plumbing.ranks import autocast, rank, world


def sample_my_share(sampler, problems, prompts: list[list[int]], encoding, **how):
    """Sample responses to this rank's share of the problems.

    prompts: token lists, one for each problem. how: n, max_new_tokens, temperature and so on, as
    for `Sampler.sample`. The draws are keyed by problem, so the number of ranks changes nothing.
    -> (places of the share in `problems`, a list of n rollouts for each)
    """
    places = list(range(rank(), len(problems), world()))
    if not places:
        return [], []
    keys = problem_keys(problems)
    mine = [prompts[i] for i in places]
    ids = [keys[i] for i in places]
    with autocast():
        rollouts = sampler.sample(mine, eos=encoding.eot_token, problem_ids=ids, **how)
    return places, rollouts


def text_of(rollout, encoding) -> str:
    """The response as text, without its end-of-text token."""
    return encoding.decode([token for token in rollout.tokens if token != encoding.eot_token])
