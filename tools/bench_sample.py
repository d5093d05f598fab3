"""`bench.py sample`: tokens per second of our sampler, with fast/ and without, and of the peer."""

import functools

import numpy as np

from model import Transformer
from plumbing.batches import generator
from plumbing.prepare import make_sampler
from plumbing.ranks import autocast, device
from tools import peer
from tools.measure import (
    bench_model,
    clocked,
    copy_bandwidth,
    load_of,
    peak_bytes,
    reset_peak,
    size_of_model,
    where,
)


def load(args, mix: bool, vocab: int) -> tuple[list[list[int]], list[int]]:
    """Prompts (P token lists) and how many tokens each of the P * n rollouts has."""
    rng = generator(args.seed, "bench")
    prompts = rng.integers(0, vocab, (args.prompts, args.prompt_tokens)).tolist()
    total = args.prompts * args.n
    if not mix:
        return prompts, [args.new] * total
    drawn = 1 + rng.exponential(args.mean or args.new / 3, total).astype(int)
    return prompts, np.minimum(args.new, drawn).tolist()


def roofline_seconds(
    model: Transformer, prompts, n: int, lengths: list[int], slots: int, bandwidth: float
) -> float:
    """The least time that reading weights and live keys and values takes, `slots` at a time.

    `model` is what is sampled from. On a GPU that is a copy which has two bytes for each weight of
    a matrix; keys and values have as many as the weights that make them.
    """
    config = model.config
    weights = sum(p.nbytes for p in model.parameters()) - model.embed_tokens.weight.nbytes
    width = model.layers[0].self_attn.k_proj.weight.element_size()  # bytes per number
    per_token = 2 * config.n_layers * config.n_kv_heads * config.head_dim * width
    tokens = np.asarray(lengths)  # (P*n,)
    of_prompt = np.repeat([len(prompt) for prompt in prompts], n)  # (P*n,)
    # Each new token reads the keys and values of all before it, and its own.
    read = (tokens * of_prompt + tokens * (tokens + 1) / 2).sum() * per_token
    steps = max(tokens.max(), tokens.sum() / slots)
    return (steps * weights + read) / bandwidth


def bench_sample(args) -> list[dict]:
    models = {"ours": bench_model(args, compile=args.compile)}
    if args.plain:
        models["ours, plain"] = bench_model(args, plain=True)
    samplers = {}
    for kind, model in models.items():
        for slots in args.slots:
            samplers[kind, slots] = make_sampler(model, slots)
    theirs = peer.peer_of(models["ours"]) if args.peer else None
    bandwidth = copy_bandwidth()
    print(f"{size_of_model(args)}, {load_of(args)} of up to {args.new}")
    print(f"{where()}; copies at {bandwidth / 1e9:.1f} GB/s\n")
    print(
        f"{'work':<6} {'program':<28} {'tokens':>9} {'seconds':>8} {'tokens/s':>9} "
        f"{'roofline':>8} {'peak GB':>8}"
    )
    rows = []
    for work in ("same", "mix") if args.work == "both" else (args.work,):
        of_work = our_rows(args, work, samplers, bandwidth)
        if theirs is not None:
            of_work += peer_rows(args, work, theirs)
        print_best(work, of_work)
        rows += of_work
    return rows


def our_rows(args, work: str, samplers: dict, bandwidth: float) -> list[dict]:
    """samplers: (kind, slots) -> the sampler."""
    rows = []
    for (kind, slots), sampler in samplers.items():
        prompts, lengths = load(args, work == "mix", sampler.model.config.vocab_size)
        how = dict(eos=None, seed=args.seed, progress=args.progress)
        run = functools.partial(sampler.sample, prompts, args.n, lengths, **how)
        least = roofline_seconds(sampler.model, prompts, args.n, lengths, slots, bandwidth)
        with autocast():
            rows.append(sample_row(args, work, f"{kind}, {slots} slots", lengths, run, least))
    return rows


def peer_rows(args, work: str, theirs) -> list[dict]:
    prompts, lengths = load(args, work == "mix", theirs.config.vocab_size)
    few = args.peer_prompts or args.prompts
    prompts = prompts[:few]
    lengths = lengths[: few * args.n]
    rows = []
    for batch in args.batches:
        run = functools.partial(peer.generate, theirs, prompts, args.n, lengths, batch)
        rows.append(sample_row(args, work, f"generate, batch {batch}", lengths, run))
    # On a CPU it multiplies all queries with all cached keys, and hides most: that takes minutes.
    if device().type == "cuda":
        most = max(args.batches)
        run = functools.partial(peer.generate_batch, theirs, prompts, args.n, lengths, most)
        rows.append(sample_row(args, work, f"generate_batch, up to {most}", lengths, run))
    return rows


def sample_row(args, work: str, program: str, lengths: list[int], run, least: float = 0.0) -> dict:
    """Run a program some times; the fastest run is its row, which is printed.

    least: the seconds of the roofline, which is ours alone.
    """
    reset_peak()
    seconds = min(clocked(run) for _ in range(args.repeats or 2))
    tokens = sum(lengths)
    row = {
        "work": work,
        "program": program,
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_s": tokens / seconds,
        "peak_bytes": peak_bytes(),
    }
    share = "-"
    if least:
        row["roofline"] = least / seconds
        share = f"{row['roofline']:.0%}"
    print(
        f"{work:<6} {program:<28} {tokens:>9,} {seconds:>8.2f} {row['tokens_per_s']:>9,.0f} "
        f"{share:>8} {row['peak_bytes'] / 1e9:>8.2f}",
        flush=True,
    )
    return row


def print_best(work: str, rows: list[dict]) -> None:
    """How many times as fast as the others ours is, each at its best size."""
    best = {}  # kind of program -> tokens per second
    for row in rows:
        kind = row["program"].rpartition(",")[0]  # without its size
        best[kind] = max(best.get(kind, 0.0), row["tokens_per_s"])
    for kind, speed in best.items():
        if kind != "ours":
            name = "the plain program" if kind == "ours, plain" else f"transformers' {kind}"
            print(f"{work}: {best['ours'] / speed:.1f} x {name}, each at its best size")
