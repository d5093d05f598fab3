"""Speed, against the hardware's limits and against a peer on the same machine, weights and work.

    python bench.py sample                   # a 1.3M-parameter model on a CPU
    python bench.py sample --peer            # and transformers' generate, where it is installed; on a GPU its generate_batch too
    python bench.py sample --preset 1B --prompts 512 --n 32 --new 2048 --slots 256,512     # random weights, on a GPU

`sample` is a GRPO-like load: prompts x n rollouts of random prompts. `same`: every rollout has --new tokens. `mix`: lengths
are drawn from an exponential with a third of that as its mean, cut at --new; both programs get the same ones. Speed
counts the tokens asked for, so work on rollouts that have ended is nobody's gain.

roofline: the time to read all weights but the embedding once per decode step, and every live token's keys and values
once per step and layer, at the bandwidth measured by copying; per cent of it that the run reached. The peak is that of
the run on a GPU, that of the process so far on a CPU.
"""

import argparse
import platform
import resource
import time
from dataclasses import replace

import numpy as np
import torch

import common
from data import UserError
from model import PRESETS, ModelConfig, Transformer
from sampler import Sampler

BENCH = ModelConfig(vocab_size=1024, padded_vocab_size=1024, d_model=128, n_layers=4, n_heads=4, n_kv_heads=4, d_ff=512, max_seq_len=2048)
MODELS = {"bench": BENCH, **PRESETS}  # 1.3M parameters, and the real ones


def copy_bandwidth(device) -> float:
    """Bytes per second that a large copy reads and writes."""
    x = torch.empty(2**28 if device.type == "cuda" else 2**26, device=device)  # 1 GB, 256 MB
    y = torch.empty_like(x)
    y.copy_(x)
    seconds = min(clocked(lambda: y.copy_(x), device) for _ in range(5))
    return 2 * x.numel() * x.element_size() / seconds


def clocked(work, device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def load(args, mix: bool, vocab: int) -> tuple[list[list[int]], list[int]]:
    """Prompts (P token lists) and how many tokens each of the P * n rollouts has."""
    rng = common.generator(args.seed, "bench")
    prompts = rng.integers(0, vocab, (args.prompts, args.prompt_tokens)).tolist()
    lengths = np.minimum(args.new, 1 + rng.exponential(args.new / 3, args.prompts * args.n).astype(int)) if mix else np.full(args.prompts * args.n, args.new)
    return prompts, lengths.tolist()


def roofline_seconds(model: Transformer, prompts, n: int, lengths: list[int], slots: int, bandwidth: float) -> float:
    """The least time that reading weights and live keys and values takes, with `slots` rollouts decoded at a time."""
    config, width = model.config, model.lm_head.weight.element_size()
    weights = (model.num_parameters() - model.embed_tokens.weight.numel()) * width
    per_token = 2 * config.n_layers * config.n_kv_heads * config.head_dim * width  # keys and values
    tokens = np.asarray(lengths)
    of_prompt = np.repeat([len(p) for p in prompts], n)
    read = (tokens * of_prompt + tokens * (tokens + 1) / 2).sum() * per_token  # each new token reads all before it
    steps = max(tokens.max(), tokens.sum() / slots)
    return (steps * weights + read) / bandwidth


def ours(sampler: Sampler, prompts, args, lengths) -> None:
    sampler.sample(prompts, args.n, lengths, eos=None, seed=args.seed, progress=args.progress)


def peer_of(model: Transformer):
    """transformers' Olmo2ForCausalLM with the same weights."""
    import transformers

    from convert import hf_config, hf_name

    config = {k: v for k, v in hf_config(model.config).items() if k not in ("architectures", "model_type", "torch_dtype")}
    with torch.device("meta"):
        hf = transformers.Olmo2ForCausalLM(transformers.Olmo2Config(**config, eos_token_id=None, pad_token_id=0))
    hf.to_empty(device=model.lm_head.weight.device)
    hf.model.rotary_emb = type(hf.model.rotary_emb)(hf.config).to(model.lm_head.weight.device)  # its tables are no parameters
    hf.load_state_dict({hf_name(name): p for name, p in model.state_dict().items()})
    return hf.eval().to(torch.bfloat16 if model.lm_head.weight.is_cuda else torch.float32)


def generate(hf, prompts, args, lengths, batch: int) -> None:
    """Static batches, each until its longest rollout ends; the criterion ends a row at its own length."""
    from transformers import StoppingCriteriaList

    device = hf.lm_head.weight.device
    rows = torch.tensor([p for p in prompts for _ in range(args.n)], device=device)  # (P*n, prompt_tokens)
    for mine, limit in zip(rows.split(batch), torch.tensor(lengths, device=device).split(batch)):
        ended = lambda ids, scores, start=mine.shape[1], limit=limit, **_: ids.shape[1] - start >= limit
        with torch.inference_mode():
            hf.generate(
                mine, attention_mask=torch.ones_like(mine), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                max_new_tokens=int(limit.max()), stopping_criteria=StoppingCriteriaList([ended]),
            )  # fmt: skip


def generate_batch(hf, prompts, args, lengths, batch: int) -> None:
    """Continuous batching: what generate_batch does, with a number of tokens for each request. It sizes itself."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    how = ContinuousBatchingConfig(max_requests_per_batch=batch)
    draws = GenerationConfig(do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=args.new, eos_token_id=-1, pad_token_id=0)
    with hf.continuous_batching_context_manager(generation_config=draws, continuous_batching_config=how) as manager:
        for i, length in enumerate(lengths):
            manager.add_request(prompts[i // args.n], max_new_tokens=length, eos_token_id=-1)
        open_requests = len(lengths)
        while open_requests:
            result = manager.get_result(timeout=1)
            if result is None and not manager.is_running():
                raise RuntimeError("transformers' continuous batching stopped by itself")
            open_requests -= result is not None and result.is_finished()


def runs_of(work: str, samplers: list[Sampler], peer, args) -> list[tuple]:
    """-> (program, rollouts at a time, lengths, what to run)"""
    vocab = samplers[0].model.config.vocab_size
    prompts, lengths = load(args, work == "mix", vocab)
    runs = [(f"ours, {s.slots} slots", s.slots, lambda s=s: ours(s, prompts, args, lengths)) for s in samplers]
    if peer is not None:
        for batch in args.batches:
            runs.append((f"generate, batch {batch}", batch, lambda batch=batch: generate(peer, prompts, args, lengths, batch)))
        if common.device().type == "cuda":  # on a CPU it multiplies all queries with all cached keys, and hides most: minutes
            most = max(args.batches)
            runs.append((f"generate_batch, up to {most}", most, lambda: generate_batch(peer, prompts, args, lengths, most)))
    return [(name, at_once, prompts, lengths, run) for name, at_once, run in runs]


def bench_sample(args) -> list[dict]:
    device = common.device()
    shape = MODELS[args.preset]
    model = Transformer(shape if shape.vocab_size else replace(shape, vocab_size=1024, padded_vocab_size=1024))
    model.init_weights(args.seed)
    model.to(device).requires_grad_(False)
    bandwidth = copy_bandwidth(device)
    peer = peer_of(model) if args.peer else None
    print(f"{model.num_parameters():,} parameters, {args.prompts} prompts of {args.prompt_tokens} tokens x {args.n} rollouts of up to {args.new}")
    print(f"{where(device)}; copies at {bandwidth / 1e9:.1f} GB/s\n")
    print(f"{'work':<6} {'program':<28} {'tokens':>9} {'seconds':>8} {'tokens/s':>9} {'roofline':>8} {'peak GB':>8}")
    rows, samplers = [], [Sampler(model, slots) for slots in args.slots]
    for work in ("same", "mix"):
        best = {}
        for program, at_once, prompts, lengths, run in runs_of(work, samplers, peer, args):
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            seconds = min(clocked(run, device) for _ in range(args.repeats))
            ideal = roofline_seconds(model, prompts, args.n, lengths, at_once, bandwidth)
            peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            tokens, kind = sum(lengths), program.split(",")[0]
            rows.append({"work": work, "program": program, "tokens": tokens, "seconds": seconds, "tokens_per_s": tokens / seconds, "roofline": ideal / seconds, "peak_bytes": peak})
            best[kind] = max(best.get(kind, 0), tokens / seconds)
            print(f"{work:<6} {program:<28} {tokens:>9,} {seconds:>8.2f} {tokens / seconds:>9,.0f} {ideal / seconds:>8.0%} {peak / 1e9:>8.2f}", flush=True)
        for kind in [k for k in best if k != "ours"]:
            print(f"{work}: {best['ours'] / best[kind]:.1f} x transformers' {kind}, each at its best size")
    return rows


def where(device) -> str:
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    return f"{name}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}"


def main() -> None:
    parser = common.OneLineParser(prog="bench.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = lambda text: [int(part) for part in text.split(",")]
    parser.add_argument("what", choices=["sample"])
    parser.add_argument("--preset", default="bench", choices=[*MODELS], help="the model; random weights")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--prompt_tokens", type=int, default=40)
    parser.add_argument("--n", type=int, default=16, help="rollouts per prompt")
    parser.add_argument("--new", type=int, default=64, help="tokens per rollout, at most")
    parser.add_argument("--slots", type=sizes, default=[256, 512, 1024], help="rollouts decoded at a time; several joined by commas")
    parser.add_argument("--peer", action="store_true", help="transformers' generate as well")
    parser.add_argument("--batches", type=sizes, default=[128, 256, 512], help="its batch sizes")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each; the fastest counts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--progress", action="store_true")
    parser.add_argument("--out", default="", help="a jsonl to append the rows to")
    args = parser.parse_args()
    rows = bench_sample(args)
    for row in rows if args.out else []:
        common.append_row(args.out, {**row, "what": args.what, "where": where(common.device()), "args": vars(args), "code": common.code_version()})


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError, ImportError) as error:
        common.leave(f"bench.py: {error}")
