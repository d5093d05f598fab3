"""nano-vllm as a peer of tools/bench.py, on a GPU, in a process of its own.

It knows one architecture, Qwen3's: so it samples from a Qwen3 with random weights that has our
model's sizes. The products, keys and values are as large; the norms stand elsewhere. It needs
CUDA and flash-attn, and was never run here. This follows its README and its bench.py (version
0.2.0, commit bb823b3); tests/test_peers.py runs it with a stand-in of that interface, and opens
the model's folder as nano-vllm would.
"""

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from model import ModelConfig

INSTALL = "pip install git+https://github.com/GeeeekExplorer/nano-vllm.git (it needs flash-attn)"
ROOT = Path(__file__).parents[1]


def what_is_missing() -> str:
    """What to install before it can run; "" where it is installed."""
    if importlib.util.find_spec("nanovllm") is None:
        return f"nano-vllm, which is not installed: {INSTALL}"
    return ""


def measure(shape: ModelConfig, loads: dict[str, tuple], most: int, repeats: int, seconds: float):
    """Sample loads with at most `most` rollouts at a time.

    shape: our model's. loads: name -> (prompts, n, lengths). Returns name -> {"seconds" of the
    fastest of the repeats, "peak_bytes"}. Raises RuntimeError where the process fails or takes
    longer than `seconds`; the message is its last line.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_model(shape, folder)
        job = {"folder": folder, "loads": loads, "most": most, "repeats": repeats}
        command = [sys.executable, "-m", "tools.nano_vllm"]
        try:
            done = subprocess.run(
                command,
                input=json.dumps(job),
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"it took longer than {seconds:.0f} seconds") from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise RuntimeError(lines[-1])
    return json.loads(done.stdout.strip().splitlines()[-1])


def write_model(shape: ModelConfig, folder: str) -> None:
    """A Qwen3 of this shape with random weights in bf16, and a tokenizer of two words.

    nano-vllm opens a folder as transformers writes it, and asks the tokenizer for the end of a text
    and for the text of the tokens.
    """
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    from plumbing.ranks import device

    config = Qwen3Config(
        vocab_size=shape.padded_vocab_size,
        hidden_size=shape.d_model,
        intermediate_size=shape.d_ff,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.n_heads,
        num_key_value_heads=shape.n_kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=shape.max_seq_len,
        tie_word_embeddings=False,
    )
    with torch.device(device()):
        peer = Qwen3ForCausalLM(config)
    peer.to(torch.bfloat16).save_pretrained(folder)
    words = Tokenizer(WordLevel({"word": 0, "<end>": 1}, unk_token="word"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>").save_pretrained(folder)


# ---------------------------------------------------------------------------------- the process


def run_job(job: dict) -> dict[str, dict]:
    """What `measure` returns, computed where nano-vllm is imported."""
    import torch
    from nanovllm import LLM, SamplingParams

    longest = 0
    for prompts, _, lengths in job["loads"].values():
        longest = max(longest, max(map(len, prompts)) + max(lengths))
    llm = LLM(job["folder"], max_num_seqs=job["most"], max_model_len=longest)
    llm.generate([[0, 0, 0]], SamplingParams(), use_tqdm=False)
    answers = {}
    for name, (prompts, n, lengths) in job["loads"].items():
        rows = []
        for prompt in prompts:
            rows += [prompt] * n
        params = []
        for length in lengths:
            params.append(SamplingParams(temperature=1.0, ignore_eos=True, max_tokens=length))
        seconds = []
        for _ in range(job["repeats"]):
            start = time.perf_counter()
            outputs = llm.generate(rows, params, use_tqdm=False)
            seconds.append(time.perf_counter() - start)
            sampled = [len(output["token_ids"]) for output in outputs]
            if sampled != lengths:
                raise RuntimeError("the rollouts have other lengths than those asked for")
        peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
        answers[name] = {"seconds": min(seconds), "peak_bytes": peak}
    return answers


if __name__ == "__main__":
    print(json.dumps(run_job(json.load(sys.stdin))))
