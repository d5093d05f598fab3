"""One problem through the whole system, with every number printed: from text to pass@k.

    python docs/by_hand.py                              # docs/toy.pt, a few seconds
    python docs/by_hand.py out/toy/3.6M.pt              # a checkpoint that you have pre-trained

Opens as a notebook where `# %%` begins a cell. What it prints is in docs/by_hand.txt. docs/toy.pt
is out/toy/3.6M.pt of `python pretrain.py`, in bf16.
"""

# %% Where the project is
import sys
from functools import partial
from pathlib import Path

here = Path(__file__).resolve().parent if "__file__" in globals() else Path.cwd()
ROOT = here.parent if here.name == "docs" else here
sys.path.insert(0, str(ROOT))

import torch

import grpo
from data.grader import extract, reward
from data.problems import load_problems, prompt_text
from data.toy import verify
from evaluate import pass_at_k
from parallel import average_step
from plumbing.batches import pack, response_logprobs
from plumbing.checkpoint import load_checkpoint, open_tokenizer
from plumbing.examples import Example
from plumbing.optimizer import adamw
from plumbing.rollouts import text_of
from sampler import Cache, Request, Sampler, sample
from sft import sft_backward

# A notebook is started with arguments of its own ("-f kernel.json"), which are ignored.
has_path = len(sys.argv) > 1 and not sys.argv[1].startswith("-")
path = sys.argv[1] if has_path else ROOT / "docs/toy.pt"
try:
    model, facts = load_checkpoint(str(path))
except OSError as error:
    sys.exit(f"by_hand.py: {error}")
encoding = open_tokenizer(facts, model)
print(f"1. A checkpoint M_t: {facts['tokens']:,} tokens of pre-training, "
      f"{model.num_parameters():,} weights")  # fmt: skip

# %% A problem becomes tokens
problem = load_problems("toy", "train")[11]
prompt = encoding.encode_ordinary(prompt_text(problem))  # a list of token ids
print(f"\n2. The problem: {prompt_text(problem)!r}\n   The answer: {problem.answer}")
print(f"   {len(prompt)} tokens: {prompt[:6]} ... stand for "
      f"{[encoding.decode([token]) for token in prompt[:6]]} ...")  # fmt: skip

# %% Prefill: the whole prompt goes through the model once, and leaves its keys and values behind
sampler = Sampler(model, slots=1)
cache = Cache(model, slots=1, limit=128)
request = Request(prompt, budget=52, key=0, slot=0)
with torch.inference_mode():
    logits = sampler.read_prompts([request], cache)  # (1, V): what comes after the last token
probs = logits[0].softmax(-1)  # (V,)
top = probs.topk(3)
first = [f"{encoding.decode([int(i)])!r} {p:.3f}" for i, p in zip(top.indices, top.values)]
print(f"\n3. Prefill: logits {tuple(logits.shape)}; the likeliest first tokens: {', '.join(first)}")

# %% A decode step sends one token through the model; without the cache it would send all of them
request.tokens.append(int(top.indices[0]))
with torch.inference_mode():
    step = sampler.read_tokens([request], cache)[0]  # (V,) through the cache
    hidden = model.hidden(torch.tensor(prompt + request.tokens), [len(prompt) + 1])  # (N, d_model)
    whole = model.logits(hidden)[-1]  # (V,) from all tokens
differs = (step - whole).abs().max().item()
print(f"4. Decode: next {encoding.decode([int(step.argmax())])!r}; without the cache the logits "
      f"differ by {'less than 1e-4' if differs < 1e-4 else differs}")  # fmt: skip

# %% Rollouts: a group of n responses to the same prompt, each with randomness of its own
n = 8
sampling = dict(n=n, max_new_tokens=52, eos=encoding.eot_token, seed=0, step=0)
(rollouts,) = sample(model, [prompt], **sampling)
texts = [text_of(rollout, encoding) for rollout in rollouts]  # without the end-of-text token
print(f"\n5. {n} rollouts at temperature 1, with the answer that the grader finds in each:")
for text in texts:
    print(f"   {extract(text, problem.kind)!s:<8} {text}")

# %% Rewards, and advantages: how much better each is than its group; problem.kind says how to grade
rewards = torch.tensor([[reward(text, problem.answer, problem.kind) for text in texts]])  # (1, n)
advantages = grpo.group_advantages(rewards)  # (1, n)
mean = rewards.mean().item()
std = rewards.std().item()
print(f"\n6. Rewards {rewards[0].int().tolist()}: mean {mean:.3f}, standard deviation {std:.3f}")
if std > 0:
    of_right, of_wrong = (1 - mean) / std, -mean / std
    print(f"   A right one gets (1 - mean) / std = {of_right:.3f}, a wrong one {of_wrong:.3f}; "
          f"group_advantages {advantages.max():.3f} and {advantages.min():.3f}, "
          f"which add up to {advantages.sum().abs():.0f}")  # fmt: skip
verified = [i for i, text in enumerate(texts) if verify(text, problem)]
print(f"   Right, and true equations give both numbers (data/toy.py, verify): responses {verified}")

# %% The loss of one token, by hand
responses = [rollout.tokens for rollout in rollouts]
packed = pack([prompt] * n, responses)
logp, _, _ = response_logprobs(model, packed)  # (R,) of all R response tokens
old_logp = torch.tensor([p for rollout in rollouts for p in rollout.logprobs])  # the sampler's
A = advantages[0][packed.sequence]  # (R,) every token has the advantage of its response
i = int(rewards[0].argmax())  # the first right response
t = sum(map(len, responses[:i])) + 1  # the second token of the first right response
print(f"\n7. Token {encoding.decode([responses[i][1]])!r} of response {i}: log p = {logp[t]:.4f}, "
      f"by the sampler {old_logp[t]:.4f}")  # fmt: skip
for moved in (0.0, 0.1, 0.3):  # how far log p has risen since the rollout
    ratio = torch.tensor(moved).exp()
    by_hand = max(-A[t] * ratio, -A[t] * ratio.clamp(0.8, 1.2))
    loss, metrics = grpo.policy_loss(old_logp[t] + moved, old_logp[t], A[t])
    note = "; clipped, so no gradient" if metrics["clip_fraction"] else ""
    print(f"   ratio {ratio:.3f}: max(-A ratio, -A clip(ratio)) = {by_hand:.4f}, "
          f"policy_loss {loss:.4f}{note}")  # fmt: skip


# %% A gradient step on the group: right responses become likelier, wrong ones less likely
def likelihoods() -> tuple[float, float]:
    """Mean log p of a right and of a wrong response."""
    with torch.no_grad():
        logp, _, _ = response_logprobs(model, packed)
    of_response = torch.zeros(n).index_add(0, packed.sequence, logp)  # (n,) summed over tokens
    right = rewards[0] == 1
    return of_response[right].mean().item(), of_response[~right].mean().item()


def rl_backward() -> None:
    """Leave the gradient of the group's loss in the model."""
    logp, _, _ = response_logprobs(model, packed)
    loss, _ = grpo.policy_loss(logp, old_logp, A)
    loss.mean().backward()  # token-mean


start = [p.detach().clone() for p in model.parameters()]
before = likelihoods()
rl_optimizer = adamw(model, 2.5e-4, (0.9, 0.999), 0.01)
rl_backward()
rl_optimizer.step()
rl_optimizer.zero_grad()
after_rl = [p.detach().clone() for p in model.parameters()]
after = likelihoods()
print(f"\n8. One step: log p of a right response {before[0]:.2f} -> {after[0]:.2f}, "
      f"of a wrong one {before[1]:.2f} -> {after[1]:.2f}")  # fmt: skip

# %% Parallel averaging: an RL step and an SFT step from the same weights, then their mean
solution = [*encoding.encode_ordinary(problem.solutions[0]), encoding.eot_token]
batch = [Example(prompt, solution)]
sft_half = partial(sft_backward, model, batch, 8192)


def steps_from_start(rl_half, sft_half, weight: float) -> list[torch.Tensor]:
    """Go back to the weights `start`, make one `average_step`, and return the new weights."""
    with torch.no_grad():
        for p, at_start in zip(model.parameters(), start):
            p.copy_(at_start)
    optimizers = [adamw(model, rate, (0.9, 0.999), 0.01) for rate in (2.5e-4, 1e-3)]
    average_step(model, *optimizers, rl_half, sft_half, weight, grad_clip=0.0)  # no clipping
    return [p.detach().clone() for p in model.parameters()]


averaged = steps_from_start(rl_backward, sft_half, 0.5)
after_sft = steps_from_start(rl_backward, sft_half, 0.0)
differences = []
for a, rl, sft in zip(averaged, after_rl, after_sft):
    differences.append((a - (rl + sft) / 2).abs().max().item())
print(f"\n9. theta <- (RLStep(theta) + SFTStep(theta)) / 2: differs from the mean of the two by "
      f"{'less than 1e-6' if max(differences) < 1e-6 else max(differences)}")  # fmt: skip

# %% pass@k: the chance that k of the responses hold a right one
c = int(rewards.sum())
for k in (1, 2, 4):
    print(f"{'10.' if k == 1 else '   '} pass@{k} with {c} of {n} right: "
          f"1 - C({n - c}, {k}) / C({n}, {k}) = {pass_at_k(n, c, k):.3f}")  # fmt: skip

# %% Exercises
print("""
Exercises (answers: docs/hour.md, at its end)
a. Take problem 1 instead of 11; none of its rollouts is right, so a mean over right ones is nan.
   What are its advantages, and what does the step then change?
b. Divide by nothing: group_advantages(rewards, "none"). Which of 6, 7 and 8 change, and why does
   the step in 8 hardly?
c. Let the policy lose a right token: moved = -0.3 in 7. Is it clipped? And a wrong token (another
   t) that gains 0.3?
d. Average with weight 0.9 in 9, and call likelihoods() after it. At which weight does log p of the
   right responses rise most?
e. With p = 1 % right, how many rollouts must a group have so that half of all groups hold a right
   one? (1 - (1 - p)^n = 1/2; study/experiments.py, experiment border.)
f. Read the right responses in 5 against the problem. In both every equation is true; in one, an
   equation is not the problem's. Should RL be paid for it? What would a reward have to check?""")
