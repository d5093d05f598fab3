"""Which items make a batch, how a batch is cut to fit memory, and how one is scored.

A batch is a function of (seed, step), and so is every random draw: a run that is resumed replays
nothing, and the number of ranks changes nothing.
"""

import functools
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from plumbing.ranks import autocast, device
from plumbing.transfer import send


def generator(seed: int, purpose: str, *ids) -> np.random.Generator:
    """A generator keyed by what it is for, so that no draw depends on how many came before."""
    key = hashlib.blake2b(json.dumps([seed, purpose, *ids]).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))


@functools.lru_cache(maxsize=4)
def permutation(n: int, seed: int, purpose: str, epoch: int) -> np.ndarray:
    """(n,) the order of n items in one epoch."""
    return generator(seed, purpose, epoch).permutation(n)


def batch_indices(
    n: int, batch: int, step: int, seed: int, purpose: str, shuffle: bool = True
) -> list[int]:
    """The items 0 .. n-1 of one global batch: epoch after epoch, each in an order of its own.

    Batches run on across epochs: with n = 10 and batch = 4, step 2 takes the last two items of the
    first epoch and the first two of the second.
    """
    indices = []
    for place in range(step * batch, (step + 1) * batch):
        epoch, i = divmod(place, n)
        if shuffle:
            i = int(permutation(n, seed, purpose, epoch)[i])
        indices.append(i)
    return indices


def problem_keys(problems) -> list[int]:
    """A number for each problem, below 2^62, that keys the samples drawn for it.

    It comes from the problem's id, and from how many times the id has come before in the list: a
    problem that is there twice is sampled twice.
    """
    seen = {}
    keys = []
    for problem in problems:
        seen[problem.id] = seen.get(problem.id, 0) + 1
        name = f"{problem.id}/{seen[problem.id]}"
        digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
        keys.append(int.from_bytes(digest, "little") >> 2)  # fits an int64
    return keys


def ahead(items):
    """Yield the same items, each made by a thread while the caller uses the one before it.

    An exception of the thread is raised here, in its item's turn. A caller that leaves the loop
    early waits for the item that is being made.
    """
    items = iter(items)
    end = object()
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(next, items, end)
        while True:
            item = following.result()
            if item is end:
                return
            following = thread.submit(next, items, end)
            yield item


def split_by_tokens(lengths: list[int], max_tokens: int) -> list[list[int]]:
    """Split sequences of these lengths into groups of at most max_tokens tokens.

    Returns lists of sequence numbers, similar lengths together. A group has at least one sequence,
    however long that is.
    """
    groups = []
    size = 0  # tokens in the last group
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if not groups or size + lengths[i] > max_tokens:
            groups.append([])
            size = 0
        groups[-1].append(i)
        size += lengths[i]
    return groups


@dataclass
class Packed:
    """Prompts and responses in pairs, one sequence after another. R response tokens in all."""

    prompts: list[list[int]]
    responses: list[list[int]]
    targets: torch.Tensor  # (R,) int64, every response token
    sequence: torch.Tensor  # (R,) int64, the response that each belongs to
    lengths: torch.Tensor  # (S,) int64, tokens of each response


def pack(prompts: list[list[int]], responses: list[list[int]]) -> Packed:
    """Pair each response with its prompt. A prompt of several responses is given several times.

    The loss falls on response tokens only, their end-of-text token included.
    """
    targets = []
    sequence = []
    for i, response in enumerate(responses):
        targets.extend(response)
        sequence.extend([i] * len(response))
    lengths = [len(response) for response in responses]
    of_tokens = []
    for numbers in (targets, sequence, lengths):
        of_tokens.append(send(torch.tensor(numbers, dtype=torch.int64), device()))
    return Packed(prompts, responses, *of_tokens)


def response_hidden(model, prompts: list[list[int]], responses: list[list[int]]) -> torch.Tensor:
    """The hidden states that predict each response token, (R, d_model).

    The last token of a prompt predicts the first token of its response. The last token of a
    response predicts nothing that we learn from. Where fast/ is installed, a prompt that is given
    several times, as the same list, is computed once.
    """
    distinct = {id(prompt) for prompt in prompts}
    if len(distinct) < len(prompts) and hasattr(model, "shared_prompt_hidden"):
        return model.shared_prompt_hidden(prompts, responses)
    tokens = []
    lengths = []
    predict = []  # which of the tokens predict a response token
    for prompt, response in zip(prompts, responses, strict=True):
        first = len(tokens) + len(prompt) - 1
        predict.extend(range(first, first + len(response)))
        tokens.extend(prompt + response)
        lengths.append(len(prompt) + len(response))
    device = model.lm_head.weight.device  # a model may be on the CPU of a machine with a GPU
    hidden = model.hidden(send(tokens, device), lengths)  # (N, d_model)
    return hidden[send(predict, device)]


def response_logprobs(model, packed: Packed, temperature: float = 1.0):
    """(log-prob, logsumexp, entropy) of every response token, each (R,)."""
    with autocast():
        hidden = response_hidden(model, packed.prompts, packed.responses)  # (R, d_model)
        return model.logprobs(hidden, packed.targets, temperature)


@torch.no_grad()
def reference_logprobs(reference, packed: Packed, temperature: float) -> torch.Tensor | None:
    """The reference's log-prob of every response token (R,); None if there is none."""
    if reference is None:
        return None
    return response_logprobs(reference, packed, temperature)[0]


def idle_pass(model, reference=None) -> None:
    """Take part in a micro-batch of other ranks where this rank has none left.

    Makes the same passes through the sharded weights as they do, over one token, and adds
    gradients of 0. The order is the same, too, as it has to be: the reference forward, the model
    forward, the model backward.
    """
    packed = pack([[0]], [[0]])
    if reference is not None:
        with torch.no_grad():
            response_logprobs(reference, packed)
    logp = response_logprobs(model, packed)[0]
    if logp.requires_grad:
        (0.0 * logp.sum()).backward()
