"""DAPO's soft overlong punishment, as a reward of your own:

    python grpo.py --ckpt out/toy/3.6M.pt --reward tools/overlong.py:score --out out/overlong.pt

Yu et al. 2025 (2503.14476), section 3.4: nothing up to LONGEST - SOFT tokens, then in a line down
to -1 at LONGEST, added to the reward of the answer. Theirs is 1 or -1 for an answer, ours 1 or 0.
Copy this file and set the two lengths to those of your run.
"""

from data.grader import reward

LONGEST = 52  # tokens: --max_response of the toy scale
SOFT = 12  # tokens over which the punishment grows; DAPO: 4,096 of 20,480


def score(response: str, problem, rollout) -> float:
    right = reward(response, problem.answer, problem.kind)
    over = len(rollout.tokens) - (LONGEST - SOFT)
    return right - min(max(over / SOFT, 0.0), 1.0)
