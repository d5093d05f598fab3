"""The peer of tools/bench.py: Hugging Face transformers, with our weights, at the same work.

Its continuous batching has run on an H100 under transformers 5.17, without flash-attn
(results/gpu), and on a CPU with a few tokens under 5.23 (tests/test_peers.py).
"""

import contextlib
import importlib.util
import inspect
import time

import torch

from plumbing.batches import split_by_tokens
from plumbing.hf_format import hf_config, hf_name
from plumbing.ranks import autocast


def peer_of(model):
    """transformers' Olmo2ForCausalLM with our model's weights: in bf16 on a GPU, fp32 on a CPU."""
    import transformers  # the project does not require it

    values = hf_config(model.config)
    for name in ("architectures", "model_type", "torch_dtype"):
        del values[name]  # Olmo2Config has them already
    device = model.lm_head.weight.device
    config = transformers.Olmo2Config(**values, eos_token_id=None, pad_token_id=0)
    with torch.device("meta"):
        peer = transformers.Olmo2ForCausalLM(config)
    peer.to_empty(device=device)
    # The tables of the rotary embedding are no parameters, so they have to be made again.
    rotary = type(peer.model.rotary_emb)(peer.config)
    peer.model.rotary_emb = rotary.to(device)
    weights = {}
    for name, p in model.state_dict().items():
        weights[hf_name(name)] = p
    peer.load_state_dict(weights)
    return peer.eval().to(torch.bfloat16 if device.type == "cuda" else torch.float32)


def generate(peer, prompts: list[list[int]], n: int, lengths: list[int], batch: int) -> None:
    """Sample in static batches, each until its longest rollout ends.

    prompts: P token lists, equally long. lengths: the tokens of each of the P * n rollouts.
    """
    from transformers import StoppingCriteriaList

    device = peer.lm_head.weight.device
    rows = torch.tensor(prompts, device=device).repeat_interleave(n, 0)  # (P*n, prompt_tokens)
    limits = torch.tensor(lengths, device=device)  # (P*n,)
    for tokens, limit in zip(rows.split(batch), limits.split(batch)):
        start = tokens.shape[1]

        def has_ended(ids, scores, start=start, limit=limit, **_):
            return ids.shape[1] - start >= limit  # (batch,): each row ends at its own length

        with torch.inference_mode():
            peer.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=int(limit.max()),
                stopping_criteria=StoppingCriteriaList([has_ended]),
            )


@contextlib.contextmanager
def batching(peer, work: tuple, most: int, patience: float = 120.0):
    """Continuous batching, which refills the batch as our slots are refilled -> run().

    run() samples the work (prompts, n, lengths) as transformers' own generate_batch does, with a
    length for each request, and leaves what is started once outside: memory for at most `most`
    requests at a time, and CUDA graphs. It raises RuntimeError where a request fails or has another
    length than asked for, and where none has ended for `patience` seconds.
    """
    from transformers import ContinuousBatchingConfig, GenerationConfig

    prompts, n, lengths = work
    draws = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=max(lengths),
        eos_token_id=-1,
        pad_token_id=0,
    )
    how = {
        "generation_config": draws,
        "continuous_batching_config": ContinuousBatchingConfig(max_requests_per_batch=most),
    }
    parameters = inspect.signature(peer.continuous_batching_context_manager).parameters
    if "workload_hints" in parameters:  # generate_batch gives them
        from transformers.generation.continuous_batching.utils import WorkloadHints

        longest = max(len(prompt) for prompt in prompts)
        how["workload_hints"] = WorkloadHints(longest, max(lengths), len(lengths))
    with peer.continuous_batching_context_manager(**how) as manager:

        def run() -> None:
            asked = {}  # the name of a request -> its length
            for i, length in enumerate(lengths):
                name = manager.add_request(prompts[i // n], max_new_tokens=length, eos_token_id=-1)
                asked[name] = length
            collect(manager, asked, patience)

        yield run


def collect(manager, asked: dict[str, int], patience: float) -> None:
    """Wait until all requests have ended; asked: the name of each and its length."""
    last = time.monotonic()
    while asked:
        result = manager.get_result(timeout=1)  # seconds
        if result is None:
            if not manager.is_running():
                raise RuntimeError("transformers' continuous batching stopped by itself")
            if time.monotonic() - last > patience:
                raise RuntimeError(f"no request has ended for {patience:.0f} seconds")
        elif result.is_finished():
            length = asked.pop(result.request_id)
            sampled = len(result.generated_tokens)
            if result.error is not None or sampled != length:
                said = result.error or f"{sampled} tokens instead of {length}"
                raise RuntimeError(f"a request failed: {said}")
            last = time.monotonic()


def what_is_missing() -> str:
    """What to install before transformers can run; "" where it is installed."""
    if importlib.util.find_spec("transformers") is None:
        return "transformers, which is not installed: pip install transformers"
    return ""


def backward(peer, sequences: list[list[int]], micro_tokens: int) -> None:
    """Leave the gradient of its own next-token loss, from padded batches of similar lengths."""
    device = peer.lm_head.weight.device
    for group in split_by_tokens([len(sequence) for sequence in sequences], micro_tokens):
        longest = max(len(sequences[i]) for i in group)
        tokens = torch.zeros(len(group), longest, dtype=torch.int64)
        is_real = torch.zeros(len(group), longest, dtype=torch.int64)
        for row, i in enumerate(group):
            length = len(sequences[i])
            tokens[row, :length] = torch.tensor(sequences[i])
            is_real[row, :length] = 1
        tokens = tokens.to(device)
        is_real = is_real.to(device)
        mask = None if bool(is_real.all()) else is_real  # without padding its kernels are quicker
        labels = tokens.masked_fill(is_real == 0, -100)
        with autocast():
            peer(input_ids=tokens, attention_mask=mask, labels=labels).loss.backward()
