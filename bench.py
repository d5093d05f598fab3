"""Speed, against the hardware's limits and against a peer on the same machine, weights and work.

    python bench.py sample                   # a 1.3M-parameter model on a CPU
    python bench.py sample --peer            # and transformers' generate, where it is installed; on a GPU its generate_batch too
    python bench.py sample --preset 1B --prompts 512 --n 32 --new 2048 --mean 200 --work mix --slots 256,512 --compile \\
        --peer --peer_prompts 64 --batches 512     # random weights, on a GPU

`sample` is a GRPO-like load: prompts x n rollouts of random prompts. `same`: every rollout has --new tokens. `mix`: lengths
are drawn from an exponential with mean --mean, cut at --new; both programs get the same ones, the peer those of the first
--peer_prompts. Speed counts the tokens asked for, so work on rollouts that have ended is nobody's gain.

roofline: the time to read all weights but the embedding once per decode step, and every live token's keys and values
once per step and layer, at the bandwidth measured by copying; per cent of it that the run reached. The peak is that of
the run on a GPU, that of the process so far on a CPU.

    python bench.py train --peer             # one optimizer step of pre-training, SFT and the RL update; and transformers'
    python bench.py train --preset 1B --batch 8 --seq_len 4096 --peer --compile      # both compiled too
    python bench.py step                     # one whole GRPO step by phase

Each program of `train` has a process of its own. On a CPU they take steps in turn, so that a machine whose speed varies is the
same for all; transformers runs as its users have it, and once more keeping freed memory as our scripts do.

MFU: 6 FLOPs per multiplying weight and token, and attention counted over all pairs, of 989 TFLOP/s (H100 and H200, bf16,
dense), or of the matrix products measured in the same run on a CPU. In the RL update a prompt is computed once for all
its rollouts: speed counts it for each, as the peer computes it, MFU counts it once.
"""

import argparse
import contextlib
import importlib
import multiprocessing
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
KEPT = "freed memory kept"


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
    drawn = 1 + rng.exponential(args.mean or args.new / 3, args.prompts * args.n).astype(int)
    lengths = np.minimum(args.new, drawn) if mix else np.full(args.prompts * args.n, args.new)
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
    """-> (program, rollouts at a time, prompts, lengths, what to run)"""
    prompts, lengths = load(args, work == "mix", samplers[0].model.config.vocab_size)
    runs = [(f"ours, {s.slots} slots", s.slots, prompts, lengths, lambda s=s: ours(s, prompts, args, lengths)) for s in samplers]
    if peer is not None:
        few = args.peer_prompts or args.prompts
        prompts_of_peer, lengths_of_peer = prompts[:few], lengths[: few * args.n]
        for batch in args.batches:
            run = lambda batch=batch: generate(peer, prompts_of_peer, args, lengths_of_peer, batch)
            runs.append((f"generate, batch {batch}", batch, prompts_of_peer, lengths_of_peer, run))
        if common.device().type == "cuda":  # on a CPU it multiplies all queries with all cached keys, and hides most: minutes
            most = max(args.batches)
            run = lambda: generate_batch(peer, prompts_of_peer, args, lengths_of_peer, most)
            runs.append((f"generate_batch, up to {most}", most, prompts_of_peer, lengths_of_peer, run))
    return runs


def empty_model(args) -> Transformer:
    shape = MODELS[args.preset]
    return Transformer(shape if shape.vocab_size else replace(shape, vocab_size=1024, padded_vocab_size=1024))


def new_model(args) -> Transformer:
    model = empty_model(args)
    model.init_weights(args.seed)
    return model.to(common.device())


def peak_bytes(device) -> int:
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def bench_sample(args) -> list[dict]:
    device, model = common.device(), new_model(args).requires_grad_(False)
    bandwidth = copy_bandwidth(device)
    peer = peer_of(model) if args.peer else None
    if args.compile:
        model.fuse()
    print(f"{model.num_parameters():,} parameters, {args.prompts} prompts of {args.prompt_tokens} tokens x {args.n} rollouts of up to {args.new}")
    print(f"{where(device)}; copies at {bandwidth / 1e9:.1f} GB/s\n")
    print(f"{'work':<6} {'program':<28} {'tokens':>9} {'seconds':>8} {'tokens/s':>9} {'roofline':>8} {'peak GB':>8}")
    rows, samplers = [], [Sampler(model, slots) for slots in args.slots]
    for work in ("same", "mix") if args.work == "both" else (args.work,):
        best = {}
        for program, at_once, prompts, lengths, run in runs_of(work, samplers, peer, args):
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            seconds = min(clocked(run, device) for _ in range(args.repeats or 2))
            ideal = roofline_seconds(model, prompts, args.n, lengths, at_once, bandwidth)
            peak = peak_bytes(device)
            tokens, kind = sum(lengths), program.split(",")[0]
            rows.append({"work": work, "program": program, "tokens": tokens, "seconds": seconds, "tokens_per_s": tokens / seconds, "roofline": ideal / seconds, "peak_bytes": peak})
            best[kind] = max(best.get(kind, 0), tokens / seconds)
            print(f"{work:<6} {program:<28} {tokens:>9,} {seconds:>8.2f} {tokens / seconds:>9,.0f} {ideal / seconds:>8.0%} {peak / 1e9:>8.2f}", flush=True)
        for kind in [k for k in best if k != "ours"]:
            print(f"{work}: {best['ours'] / best[kind]:.1f} x transformers' {kind}, each at its best size")
    return rows


# ---------------------------------------------------------------------------------------------- training


def matmul_rate(device, size: int = 0) -> float:
    """FLOP/s of large matrix products, as the forward pass multiplies them: bf16 on a GPU, fp32 on a CPU."""
    size = size or (8192 if device.type == "cuda" else 1024)
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16 if device.type == "cuda" else torch.float32) for _ in range(2))
    a @ b
    return 2 * size**3 / min(clocked(lambda: a @ b, device) for _ in range(10))


def flops(model: Transformer, lengths: list[int], n_tokens: int) -> float:
    """Of forward and backward: 6 per weight that multiplies and each of n_tokens, and 12 per layer, width and pair of tokens
    for attention in sequences of these lengths, all pairs (as published figures count; a causal kernel does half of them)."""
    config, n = model.config, np.asarray(lengths, dtype=np.float64)
    weights = model.num_parameters() - model.embed_tokens.weight.numel()
    return float(6 * weights * n_tokens + 12 * config.n_layers * config.n_heads * config.head_dim * (n * n).sum())


def training_work(args, config: ModelConfig) -> dict:
    """Step -> (its sequences, how many tokens we compute for them, what leaves the gradient of the loss in our model)."""
    from grpo import Config as RLConfig, Groups, policy_backward
    from pretrain import next_token_loss
    from sampler import Rollout
    from sft import Example, sft_backward

    rng = common.generator(args.seed, "bench train")
    draw = lambda n: rng.integers(0, config.vocab_size, n).tolist()
    rows = [draw(args.seq_len) for _ in range(args.batch)]
    pairs = [Example(draw(args.prompt_tokens), draw(int(n))) for n in rng.integers(1, 2 * args.new, args.batch * args.seq_len // (args.prompt_tokens + args.new))]
    groups = Groups(
        problems=[None] * args.prompts, prompts=[draw(args.prompt_tokens) for _ in range(args.prompts)], place=list(range(args.prompts)),
        rollouts=[[Rollout(draw(int(n)), [-5.0] * int(n), True) for n in rng.integers(1, 2 * args.new, args.n)] for _ in range(args.prompts)],
        advantages=torch.from_numpy(rng.normal(size=(args.prompts, args.n)).astype(np.float32)),
    )  # fmt: skip
    rl = RLConfig(ckpt="", n=args.n, prompts=args.prompts, micro_tokens=args.micro_tokens, mini_batches=1)

    def pretrain(model):
        per_pass = max(1, args.micro_tokens // args.seq_len)
        for i in range(0, len(rows), per_pass):
            tokens = torch.tensor(rows[i : i + per_pass], device=common.device())
            (next_token_loss(model, tokens, 1e-5)[1] / (args.batch * (args.seq_len - 1))).backward()

    examples = [[*e.prompt, *e.response] for e in pairs]
    rollouts = [[*p, *r.tokens] for p, group in zip(groups.prompts, groups.rollouts) for r in group]
    once = sum(map(len, rollouts)) - args.prompts * (args.n - 1) * args.prompt_tokens
    return {
        "pretrain": (rows, sum(map(len, rows)), pretrain),
        "sft": (examples, sum(map(len, examples)), lambda model: sft_backward(model, pairs, args.micro_tokens)),
        "rl update": (rollouts, once, lambda model: policy_backward(model, None, groups, list(range(args.prompts)), rl)),
    }


def peer_backward(hf, sequences: list[list[int]], micro_tokens: int) -> None:
    """The same gradient through transformers: padded batches of similar lengths, their own loss."""
    device = hf.lm_head.weight.device
    for group in common.micro_batches([len(s) for s in sequences], micro_tokens):
        longest = max(len(sequences[i]) for i in group)
        tokens = torch.tensor([sequences[i] + [0] * (longest - len(sequences[i])) for i in group], device=device)
        real = torch.tensor([[1] * len(sequences[i]) + [0] * (longest - len(sequences[i])) for i in group], device=device)
        ragged = None if bool(real.all()) else real
        with common.autocast():
            hf(input_ids=tokens, attention_mask=ragged, labels=tokens.masked_fill(real == 0, -100)).loss.backward()


def programs_of(args) -> list[str]:
    """The programs of `train`. On a CPU transformers runs twice: as its users have it, and keeping freed memory as our scripts do."""
    names = ["ours"] + ["ours, compiled"] * args.compile
    if args.peer:
        names += ["transformers"] + [f"transformers, {KEPT}"] * (common.device().type == "cpu") + ["transformers, compiled"] * args.compile
    return names


def serve(pipe, name: str, args) -> None:
    """In a process of its own: build the program, then take a step of each kind asked for; answers (seconds, peak bytes)."""
    if "ours" in name or KEPT in name:
        common.keep_freed_memory()
    device, program = common.device(), new_model(args)
    work = training_work(args, program.config)
    if "ours" not in name:
        program = peer_of(program).float().train().requires_grad_(True)
    if "compiled" in name:
        program.fuse() if "ours" in name else program.compile()
    optimizer = torch.optim.AdamW(program.parameters(), lr=1e-6, fused=True)

    def run(sequences, ours_backward):
        ours_backward(program) if "ours" in name else peer_backward(program, sequences, args.micro_tokens)
        common.clipped_step(program, optimizer, 1.0)

    while step := pipe.recv():
        sequences, _, ours_backward = work[step]
        if "ours" in name:
            program.expect_equal_rows(step == "pretrain")
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        pipe.send((clocked(lambda: run(sequences, ours_backward), device), peak_bytes(device)))


@contextlib.contextmanager
def processes(names: list[str], args):
    """-> ask(name, step): seconds of one such step of that program, and its peak bytes."""
    context, pipes, children = multiprocessing.get_context("spawn"), {}, []
    for name in names:
        pipes[name], theirs = context.Pipe()
        children.append(context.Process(target=serve, args=(theirs, name, args), daemon=True))
        children[-1].start()
        theirs.close()

    def ask(name, step):
        time.sleep(0.05)  # the threads of the program before wait in a loop for some milliseconds
        try:
            pipes[name].send(step)
            return pipes[name].recv()
        except (EOFError, OSError):
            raise UserError(f"{name} ended within {step}; its own message is above") from None

    yield ask
    for pipe in pipes.values():
        pipe.send(None)
    for child in children:
        child.join()


def bench_train(args) -> list[dict]:
    """One optimizer step of pre-training, SFT and the RL update: gradient, clipping, AdamW."""
    device, names = common.device(), programs_of(args)
    with torch.device("meta"):
        model = empty_model(args)
    if args.peer:
        importlib.import_module("transformers")  # missing, it is said before work starts
    rate = matmul_rate(device)
    peak = 989e12 if device.type == "cuda" else rate  # H100 and H200, bf16, dense
    print(f"{model.num_parameters():,} parameters; {where(device)}; matrix products at {rate / 1e12:.3f} TFLOP/s; MFU of {peak / 1e12:.3f} TFLOP/s\n")
    print(f"{'step':<10} {'program':<32} {'tokens':>8} {'seconds':>8} {'tokens/s':>9} {'MFU':>5} {'of matmul':>9} {'peak GB':>8}")
    work = {step: (sequences, computed) for step, (sequences, computed, _) in training_work(args, model.config).items()}
    rows, speeds = [], {}
    for together in [names] if device.type == "cpu" else [[name] for name in names]:  # a GPU's memory holds one
        with processes(together, args) as ask:
            for step, (sequences, computed) in work.items():
                for _ in range(2):  # moments are made, kernels compiled
                    [ask(name, step) for name in together]
                turns = [[ask(name, step) for name in together] for _ in range(args.repeats or 9)]
                for name, answers in zip(together, zip(*turns)):
                    seconds, memory = (float(f(values)) for f, values in zip((np.median, max), zip(*answers)))
                    n_tokens = sum(map(len, sequences))
                    done = flops(model, [len(s) for s in sequences], computed if "ours" in name else n_tokens)
                    speeds[step, name] = n_tokens / seconds
                    rows.append({"step": step, "program": name, "tokens": n_tokens, "seconds": seconds, "tokens_per_s": n_tokens / seconds, "mfu": done / seconds / peak, "of_matmul": done / seconds / rate, "peak_bytes": memory})  # fmt: skip
                    print(f"{step:<10} {name:<32} {n_tokens:>8,} {seconds:>8.3f} {n_tokens / seconds:>9,.0f} {done / seconds / peak:>5.0%} {done / seconds / rate:>9.0%} {memory / 1e9:>8.2f}", flush=True)
    for step, theirs in [key for key in speeds if "ours" not in key[1]]:
        print(f"{step}: " + "; ".join(f"{ours} {speeds[step, ours] / speeds[step, theirs]:.2f} x" for ours in names if "ours" in ours) + f" as fast as {theirs}")
    return rows


def bench_step(args) -> list[dict]:
    """One GRPO step on random prompts, phase by phase; grading is left out, there is no text."""
    from grpo import Config as RLConfig, Groups, group_advantages, old_logprobs, policy_backward

    device, model = common.device(), new_model(args)
    optimizer = common.adamw(model, 1e-6, (0.9, 0.999), 0.01)
    config = RLConfig(ckpt="", n=args.n, prompts=args.prompts, micro_tokens=args.micro_tokens, mini_batches=2)
    prompts, lengths = load(args, True, model.config.vocab_size)
    if args.compile:
        model.fuse()
    sampler, groups, seconds = Sampler(model, args.slots[-1]), None, {}

    def update():
        for half in (range(args.prompts // 2), range(args.prompts // 2, args.prompts)):
            policy_backward(model, None, groups, list(half), config)
            common.clipped_step(model, optimizer, 1.0)

    for _ in range(2):  # the first makes moments, pages and graphs
        seconds["refresh"] = clocked(lambda: sampler.refresh(model), device)
        rollouts = []
        seconds["sample"] = clocked(lambda: rollouts.extend(sampler.sample(prompts, args.n, lengths, seed=args.seed)), device)
        groups = Groups([None] * args.prompts, prompts, rollouts, list(range(args.prompts)))
        groups.advantages = group_advantages(torch.from_numpy(common.generator(args.seed, "rewards").random((args.prompts, args.n)) < 0.5).float())
        seconds["old log-probs"] = clocked(lambda: old_logprobs(model, groups, config), device)
        seconds["update"] = clocked(update, device)
    print(f"{model.num_parameters():,} parameters, {args.prompts} prompts of {args.prompt_tokens} tokens x {args.n} rollouts, {sum(lengths):,} sampled tokens")
    print(f"{where(device)}\n")
    for phase, value in seconds.items():
        print(f"{phase:<14} {value:>8.2f} s {value / sum(seconds.values()):>5.0%} {sum(lengths) / value:>10,.0f} tokens/s")
    return [{"phase": phase, "seconds": value, "tokens": sum(lengths), "peak_bytes": peak_bytes(device)} for phase, value in seconds.items()]


def where(device) -> str:
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    return f"{name}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}"


def main() -> None:
    parser = common.OneLineParser(prog="bench.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = lambda text: [int(part) for part in text.split(",")]
    parser.add_argument("what", choices=["sample", "train", "step"])
    parser.add_argument("--preset", default="bench", choices=[*MODELS], help="the model; random weights")
    parser.add_argument("--prompts", type=int, help="default 64; in train 16")
    parser.add_argument("--prompt_tokens", type=int, default=40)
    parser.add_argument("--n", type=int, help="rollouts per prompt; default 16; in train 8")
    parser.add_argument("--new", type=int, default=64, help="tokens per rollout, at most")
    parser.add_argument("--mean", type=float, default=0, help="their mean in mix, where nothing is cut; default a third of --new")
    parser.add_argument("--work", choices=["same", "mix", "both"], default="both", help="of sample")
    parser.add_argument("--slots", type=sizes, default=[256, 512, 1024], help="rollouts decoded at a time; several joined by commas")
    parser.add_argument("--batch", type=int, default=32, help="sequences of a pre-training step")
    parser.add_argument("--seq_len", type=int, default=256, help="their tokens")
    parser.add_argument("--micro_tokens", type=int, default=8192, help="tokens per forward pass in training")
    parser.add_argument("--peer", action="store_true", help="transformers on the same work as well")
    parser.add_argument("--compile", action="store_true", help="our regions compiled; in train a row more, and transformers' model compiled too")
    parser.add_argument("--peer_prompts", type=int, default=0, help="transformers samples from the first so many prompts; default all")
    parser.add_argument("--batches", type=sizes, default=[128, 256, 512], help="batch sizes of its generate")
    parser.add_argument("--repeats", type=int, default=0, help="runs of each: the fastest of 2 in sample, the median of 9 in train")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--progress", action="store_true")
    parser.add_argument("--out", default="", help="a jsonl to append the rows to")
    args = parser.parse_args()
    for name, usual in {"prompts": (64, 16), "n": (16, 8)}.items():
        setattr(args, name, usual[args.what == "train"] if getattr(args, name) is None else getattr(args, name))
    for name in ("prompts", "prompt_tokens", "n", "new", "slots", "batch", "seq_len", "micro_tokens", "batches"):
        common.check(np.min(getattr(args, name)) >= 1, f"--{name}: 1 or more")
    for name in ("mean", "peer_prompts", "repeats"):
        common.check(getattr(args, name) >= 0, f"--{name}: 0, which is the default, or more")
    common.keep_freed_memory()  # as the training scripts do
    rows = {"sample": bench_sample, "train": bench_train, "step": bench_step}[args.what](args)
    for row in rows if args.out else []:
        common.append_row(args.out, {**row, "what": args.what, "where": where(common.device()), "args": vars(args), "code": common.code_version()})


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError, ImportError) as error:
        common.leave(f"bench.py: {error}")
