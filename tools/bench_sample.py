"""`bench.py sample`: tokens per second of our sampler, with fast/ and without, and of the peer."""

import functools

import numpy as np

from model import ModelConfig, Transformer
from plumbing.batches import generator
from plumbing.prepare import make_sampler
from plumbing.ranks import autocast, device
from tools import nano_vllm, peer
from tools.measure import (
    bench_model,
    clocked,
    copy_bandwidth,
    give_memory_back,
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
    """Ours in each size, then the peers: each has the GPU's memory for itself."""
    models = {"ours": bench_model(args, compile=args.compile)}
    if args.plain:
        models["ours, plain"] = bench_model(args, plain=True)
    bandwidth = copy_bandwidth()
    print(f"{size_of_model(args)}, {load_of(args)} of up to {args.new}")
    print(f"{where()}; copies at {bandwidth / 1e9:.1f} GB/s")
    peers = peers_here(args)
    print(
        f"\n{'work':<6} {'program':<28} {'tokens':>9} {'seconds':>8} {'tokens/s':>9} "
        f"{'roofline':>8} {'peak GB':>8}"
    )
    rows = {work: [] for work in works_of(args)}
    for kind, model in models.items():
        for slots in args.slots:
            sampler = make_sampler(model, slots, memory=0.8)  # as evaluate.py: no trainer is there
            for work, of_work in rows.items():
                of_work.append(our_row(args, work, kind, sampler, slots, bandwidth))
            del sampler  # its pages and graphs
            give_memory_back()
    measure_peers(args, peers, models["ours"], rows)
    everything = []
    for of_work in rows.values():
        everything += of_work
    print_best(sample_ratios(everything))
    return everything


def works_of(args) -> tuple[str, ...]:
    return ("same", "mix") if args.work == "both" else (args.work,)


def our_row(args, work: str, kind: str, sampler, slots: int, bandwidth: float) -> dict:
    prompts, lengths = load(args, work == "mix", sampler.model.config.vocab_size)
    how = dict(eos=None, seed=args.seed, progress=args.progress)
    run = functools.partial(sampler.sample, prompts, args.n, lengths, **how)
    least = roofline_seconds(sampler.model, prompts, args.n, lengths, slots, bandwidth)
    with autocast():
        return sample_row(args, work, f"{kind}, {slots} slots", lengths, run, least)


# ---------------------------------------------------------------------------------- peers


def peers_here(args) -> list[str]:
    """Those of --peers that can run; of each other one line says what to install."""
    if not args.peer:
        return []
    missing = {
        "generate": peer.what_is_missing(),
        "generate_batch": peer.what_is_missing(),
        "nano-vllm": nano_vllm.what_is_missing(),
    }
    wanted = []
    for name in args.peers:
        # On a CPU generate_batch multiplies all queries with all cached keys, and hides most: that
        # takes minutes. nano-vllm needs a GPU.
        if name == "generate" or device().type == "cuda":
            wanted.append(name)
    for what in dict.fromkeys(missing[name] for name in wanted):
        if what:
            print(f"not measured: {what}")
    return [name for name in wanted if not missing[name]]


def measure_peers(args, peers: list[str], model: Transformer, rows: dict[str, list]) -> None:
    """Add what the peers reach to the rows of each work. A peer that fails ends nothing but itself:
    one line says why."""
    if not peers:
        return
    vocab = model.config.vocab_size
    work_of = {work: peer_load(args, work == "mix", vocab) for work in rows}
    most = max(args.batches)
    if "nano-vllm" in peers:
        add = functools.partial(add_nano_vllm, args, model.config, work_of, rows)
        attempt(f"nano-vllm, up to {most}", add)
    if not {"generate", "generate_batch"} & set(peers):
        return
    theirs = peer.peer_of(model)
    for work, of_work in rows.items():
        if "generate_batch" in peers:
            add = functools.partial(add_batching, args, work, theirs, work_of[work], of_work)
            attempt(f"generate_batch, up to {most}", add)
            give_memory_back()
        for batch in args.batches if "generate" in peers else ():
            program = f"generate, batch {batch}"
            add = functools.partial(add_generate, args, work, theirs, work_of[work], batch, of_work)
            attempt(program, add)


def attempt(program: str, add) -> None:
    try:
        add()
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        print(f"not measured: {program}: {type(error).__name__}: {said}", flush=True)


def peer_load(args, mix: bool, vocab: int) -> tuple[list[list[int]], int, list[int]]:
    """-> prompts, rollouts of each, and their lengths: those of the first --peer_prompts."""
    prompts, lengths = load(args, mix, vocab)
    few = args.peer_prompts or args.prompts
    return prompts[:few], args.n, lengths[: few * args.n]


def add_nano_vllm(args, shape: ModelConfig, work_of: dict, rows: dict[str, list]) -> None:
    most = max(args.batches)
    answers = nano_vllm.measure(shape, work_of, most, args.repeats or 2, seconds=600)
    for work, answer in answers.items():
        lengths = work_of[work][2]
        row = row_of(work, f"nano-vllm, up to {most}", sum(lengths), **answer)
        rows[work].append(row)
        print_row(row)


def add_batching(args, work: str, theirs, load_of_peer, rows: list[dict]) -> None:
    most = max(args.batches)
    with peer.batching(theirs, load_of_peer, most) as run:
        attention = theirs.config._attn_implementation
        program = f"generate_batch, up to {most}"
        row = sample_row(args, work, program, load_of_peer[2], run)
    rows.append(row)
    if "flash" not in attention:
        print(f"generate_batch attended by {attention}; it is quicker with: pip install flash-attn")


def add_generate(args, work: str, theirs, load_of_peer, batch: int, rows: list[dict]) -> None:
    run = functools.partial(peer.generate, theirs, *load_of_peer, batch)
    rows.append(sample_row(args, work, f"generate, batch {batch}", load_of_peer[2], run))


# ---------------------------------------------------------------------------------- rows


def sample_row(args, work: str, program: str, lengths: list[int], run, least: float = 0.0) -> dict:
    """Run a program some times; the fastest run is its row, which is printed.

    least: the seconds of the roofline, which is ours alone.
    """
    reset_peak()
    seconds = min(clocked(run) for _ in range(args.repeats or 2))
    row = row_of(work, program, sum(lengths), seconds, peak_bytes())
    if least:
        row["roofline"] = least / seconds
    print_row(row)
    return row


def row_of(work: str, program: str, tokens: int, seconds: float, peak_bytes: int) -> dict:
    return {
        "work": work,
        "program": program,
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_s": tokens / seconds,
        "peak_bytes": peak_bytes,
    }


def print_row(row: dict) -> None:
    share = "-"
    if "roofline" in row:
        share = f"{row['roofline']:.0%}"
    print(
        f"{row['work']:<6} {row['program']:<28} {row['tokens']:>9,} {row['seconds']:>8.2f} "
        f"{row['tokens_per_s']:>9,.0f} {share:>8} {row['peak_bytes'] / 1e9:>8.2f}",
        flush=True,
    )


def sample_ratios(rows: list[dict]) -> dict[str, dict]:
    """How many times as fast as the others ours is, each at its best size.

    Returns work -> kind of program -> {"ours": times}.
    """
    best = {}  # work -> kind of program -> tokens per second
    for row in rows:
        speeds = best.setdefault(row["work"], {})
        kind = row["program"].rpartition(",")[0]  # without its size
        speeds[kind] = max(speeds.get(kind, 0.0), row["tokens_per_s"])
    ratios = {}
    for work, speeds in best.items():
        ours = speeds.pop("ours")
        ratios[work] = {kind: {"ours": ours / speed} for kind, speed in speeds.items()}
    return ratios


def print_best(ratios: dict[str, dict]) -> None:
    names = {"ours, plain": "the plain program", "nano-vllm": "nano-vllm"}
    for work, others in ratios.items():
        for kind, times in others.items():
            name = names.get(kind, f"transformers' {kind}")
            print(f"{work}: {times['ours']:.1f} x {name}, each at its best size")
