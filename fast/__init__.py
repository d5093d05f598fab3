"""All that makes the plain program quick, or small enough for a preset. One call installs it.

Nothing outside this folder needs it: without it, or with `--plain`, every command runs to the same
tokens and, but for rounding, to the same numbers. A part may stand here if it saves 10 % of a real
step of a preset, or memory that decides whether a preset runs. Its measured worth stands at the top
of its file, and tests/test_fast.py holds it to the plain form in value, gradient and tokens.

    cpu.py          norms, SwiGLU and attention on a CPU, and freed memory that is kept
    onednn.py       products of pre-training on a CPU
    packed.py       attention over sequences of any length, and prompts shared by their responses
    head.py         log-probs in chunks, with a backward pass of their own, in bf16 on a GPU
    compiled.py     --compile: what surrounds attention in one kernel
    recompute.py    --checkpoint_activations: keep the input of a block alone
    sampling.py     slots on the device, CUDA graphs, prompts read once
    schedule.py     which rollout is in which slot
    nucleus.py      top_p without sorting the vocabulary
    shared_cache.py keys and values of a prompt kept once: on a CPU
    paged.py        the same in pages, with the kernel that reads them: on a GPU
"""

import functools
import types

from fast import compiled, cpu, head, onednn, packed, recompute
from fast.sampling import FastSampler


def install(
    model, compile: bool = False, checkpoint_activations: bool = False, fp32_head: bool = False
) -> None:
    """Put the quick functions in the place of the plain ones, on this model alone.

    The model must be on its device already. The flags are those of the training scripts.
    """
    model.attention = packed.causal_attention
    model.hidden = types.MethodType(packed.hidden, model)
    model.shared_prompt_hidden = types.MethodType(packed.shared_prompt_hidden, model)
    model.sampler_class = FastSampler
    model.expect_equal_rows = functools.partial(onednn.expect_equal_rows, model)
    model.install_on = functools.partial(install, compile=compile)  # for a copy to sample from
    head.install(model, fp32_head, compile)
    if model.lm_head.weight.device.type == "cpu":
        cpu.install(model)
    else:
        head.install_norms(model)
    if compile:
        compiled.install(model)
    if checkpoint_activations:
        recompute.install(model)
