"""Supervised fine-tuning: M_t -> M_t^SFT (one solution per problem), M_t^SFT-Gold (all of them).

    python sft.py --ckpt out/toy/3.6M.pt
    torchrun --nproc_per_node=8 sft.py --ckpt out/4B.pt --solutions all

The loss is next-token loss on the worked solution and its end-of-text token; the prompt is read and
never learned. Both recipes take the same number of optimizer steps, as the authors' did: Gold sees
more solutions per problem, not more updates.

Settings. `written` is the paper's table, and draws the one solution of a problem as its text says.
`run` is what the authors' code did: it sums the loss over tokens, keeps the file's order and takes
the first solution. `controlled`, the default, takes the mean over the step's tokens and shuffles.
"""

import gc
import time
from dataclasses import dataclass

from plumbing import checkpoint, watchdog
from plumbing.batches import batch_indices, idle_pass, pack, response_logprobs, split_by_tokens
from plumbing.examples import Example, load_examples
from plumbing.flags import check, launch
from plumbing.log import Log
from plumbing.optimizer import adamw, check_schedule, clipped_step, lr_factor, set_lr
from plumbing.prepare import ComputeFlags, prepare
from plumbing.ranks import all_sum, pad_to_longest_rank, print0, rank, world
from plumbing.resume import Resume, collecting_by_hand, stop_signal


@dataclass(frozen=True, kw_only=True)
class Config(ComputeFlags):
    ckpt: str  # the checkpoint to start from
    preset: str = "1B"  # scale; read from the checkpoint where not given
    setting: str = "controlled"  # written, run or controlled
    out: str = ""  # default: beside the parent, <parent>.sft.pt or <parent>.sft-gold.pt
    data: str = "openmath-gsm8k"  # problem set, or a jsonl with question, answer and solutions
    solutions: str = "one"  # one per problem (SFT) or all (SFT-Gold)
    pick: str = "first"  # which one: first, or random (keyed by seed and problem)
    seed: int = 0  # order of the data
    steps: int = 9_500  # optimizer steps; the authors' evaluated ones
    batch: int = 512  # solutions per step, over all ranks
    lr: float = 4e-5  # peak learning rate
    schedule: str = "constant"  # constant or cosine
    beta2: float = 0.999  # AdamW; beta1 is 0.9
    weight_decay: float = 0.01  # on all weights
    grad_clip: float = 1.0  # global norm
    loss: str = "mean"  # over the response tokens of a step, or their sum
    shuffle: bool = True  # a new order in every epoch; the authors kept the file's
    max_prompt: int = 512  # tokens; problems with a longer prompt are left out
    max_response: int = 512  # tokens; a longer solution is cut and loses its end token
    # cost only
    save_every: int = 200  # steps between saves to resume from
    log_every: int = 10  # steps between printed lines


PRESETS = {
    "toy": dict(data="toy", steps=300, batch=32, lr=1e-3, schedule="cosine", max_prompt=160)
    | dict(max_response=64, save_every=100, log_every=100),
    "small": dict(data="toy", steps=400, batch=128, lr=3e-4, schedule="cosine", max_prompt=256)
    | dict(max_response=128),
    "1B": dict(compile=True),
    # The authors' SFT on one solution ran at a rate of 5e-4 in these two.
    "1B-60B": dict(data="openmath", max_prompt=2560, max_response=1024, compile=True),
    "4B": dict(data="openmath", max_prompt=2560, max_response=1024, compile=True)
    | dict(micro_tokens=8192),
}
SETTINGS = {
    "written": dict(pick="random"),
    "run": dict(loss="sum", shuffle=False),
    "controlled": {},
}


def sft_backward(model, batch: list[Example], micro_tokens: int, loss: str = "mean") -> dict:
    """Add the gradient of the next-token loss on the whole step's batch to the model's gradient.

    Every rank takes its share of the examples. The sum over tokens is divided once, by the count
    of the whole step, or by nothing for loss "sum".
    Returns loss (the mean over the step's response tokens, in nats) and tokens (their number).
    """
    n_tokens = sum(len(example.response) for example in batch)
    denominator = n_tokens if loss == "mean" else 1
    mine = batch[rank() :: world()]
    lengths = [len(example.prompt) + len(example.response) for example in mine]
    total_nll = 0.0
    for group in pad_to_longest_rank(split_by_tokens(lengths, micro_tokens)):
        if group is None:
            idle_pass(model)
            continue
        packed = pack([mine[i].prompt for i in group], [mine[i].response for i in group])
        logp, _, _ = response_logprobs(model, packed)  # (R,)
        (-logp.sum() / denominator).backward()
        total_nll -= float(logp.detach().sum())
    return {"loss": all_sum(total_nll) / n_tokens, "tokens": n_tokens}


def check_config(config: Config) -> None:
    check(config.solutions in ("one", "all"), f"--solutions {config.solutions}: choose one or all")
    check(config.pick in ("first", "random"), f"--pick {config.pick}: choose first or random")
    check(config.loss in ("mean", "sum"), f"--loss {config.loss}: choose mean or sum")
    check_schedule(config.schedule)


def main(config: Config) -> None:
    check_config(config)
    recipe = "sft" if config.solutions == "one" else "sft-gold"
    out = checkpoint.output_path(config, recipe)
    model, parent = checkpoint.open_parent(config)
    if checkpoint.is_finished(out, config, parent):
        return
    checkpoint.check_length(model, config.max_prompt + config.max_response)
    data = load_examples(config, checkpoint.open_tokenizer(parent, model))
    prepare(model, config)
    optimizer = adamw(model, config.lr, (0.9, config.beta2), config.weight_decay)
    epochs = config.steps * config.batch / len(data)
    print0(f"{config.steps} steps of {config.batch} solutions = {epochs:.1f} passes")
    resume = Resume(out, config, model, optimizer)
    start = resume.load()
    log = Log(out, start)

    with stop_signal() as stop, collecting_by_hand():
        for step in range(start, config.steps):
            watchdog.phase(f"step {step + 1}")
            clock = time.time()
            lr = config.lr * lr_factor(config.schedule, step, config.steps)
            set_lr(optimizer, lr)
            indices = batch_indices(
                len(data), config.batch, step, config.seed, "sft", config.shuffle
            )
            batch = [data[i] for i in indices]
            metrics = sft_backward(model, batch, config.micro_tokens, config.loss)
            metrics["grad_norm"] = clipped_step(model, optimizer, config.grad_clip)

            done = step + 1
            log.write(done, **metrics, lr=lr, seconds=time.time() - clock)
            if done % config.log_every == 0 or done == config.steps:
                print0(
                    f"step {done:5d}/{config.steps} | loss {metrics['loss']:.4f} | "
                    f"grad norm {metrics['grad_norm']:6.2f} | lr {lr:.2e}"
                )

            stopping = stop.asked()
            if done < config.steps and (stopping or done % config.save_every == 0):
                resume.save(done, leave=stopping)
            gc.collect()  # at the same moment on every rank
    facts = checkpoint.make_facts(config, checkpoint.lineage(parent, recipe), config.steps, parent)
    resume.finish(out, facts)


if __name__ == "__main__":
    launch(main, Config, PRESETS, SETTINGS)
