"""Supervised fine-tuning: M_t -> M_t^SFT (one solution per problem), M_t^SFT-Gold (all of them).

    python sft.py --ckpt out/toy/3.6M.pt
    torchrun --nproc_per_node=8 sft.py --ckpt out/1B/4B.pt --solutions all

The loss is next-token loss on the worked solution and its end-of-text token; the prompt is never
learned. Both recipes take the same number of steps, as the authors' did: Gold sees more solutions
per problem, not more updates. `--setting written` draws the one solution at random; `run` sums the
loss over tokens and keeps the file's order, as the authors' code did.
"""

import gc
import time
from dataclasses import dataclass

from data.lock import exclusive
from plumbing import checkpoint, identity, presets
from plumbing.batches import batch_indices, idle_pass, pack, response_logprobs, split_by_tokens
from plumbing.examples import Example, check_sft, load_examples
from plumbing.flags import launch
from plumbing.log import Log
from plumbing.optimizer import adamw, logged_step, lr_factor, set_lr
from plumbing.prepare import TrainingFlags, prepare
from plumbing.ranks import all_sum, pad_to_longest_rank, print0, rank, world
from plumbing.resume import Resume, collecting_by_hand, stop_signal
from plumbing.watchdog import phase


@dataclass(frozen=True, kw_only=True)
class Config(TrainingFlags):
    ckpt: str  # the checkpoint to start from
    preset: str = "1B"  # scale; read from the checkpoint where not given
    setting: str = "controlled"  # written, run or controlled
    out: str = ""  # default: beside the parent, <parent>.sft.pt or <parent>.sft-gold.pt
    data: str = "openmath-gsm8k"  # problem set, or a jsonl with question, answer and solutions
    solutions: str = "one"  # one per problem (SFT) or all (SFT-Gold)
    pick: str = "first"  # which one: first, or random (keyed by seed and problem)
    seed: int = 0  # order of the data, and what --pick random draws
    max_prompt: int = 512  # tokens; problems with a longer prompt are left out
    max_response: int = 512  # tokens; a longer solution is cut and loses its end token
    # optimizer
    steps: int = 9_500  # optimizer steps; the authors evaluated after these
    batch: int = 512  # solutions per step, over all ranks
    lr: float = 4e-5  # peak learning rate
    schedule: str = "constant"  # constant or cosine
    loss: str = "mean"  # mean over the response tokens of a step, or sum
    shuffle: bool = True  # a new order in every epoch; the authors kept the file's
    # log
    save_every: int = 200  # steps between saves to resume from
    log_every: int = 10  # steps between printed lines

    def check(self) -> None:
        check_sft(self, self.loss, self.schedule, "--loss")


PRESETS = presets.SFT  # other scales; the defaults above are 1B's
SETTINGS = presets.SFT_SETTINGS


def sft_backward(model, batch: list[Example], micro_tokens: int, loss: str = "mean") -> dict:
    """Add the gradient of the next-token loss on the whole step's batch to the model's gradient.

    Every rank takes its share. The summed loss is divided once, by the response tokens of the whole
    step, or for loss "sum" by 1. -> {"loss": nats per response token, "tokens": how many}
    """
    n_tokens = sum(len(example.response) for example in batch)
    denominator = n_tokens if loss == "mean" else 1
    mine = batch[rank() :: world()]
    lengths = [len(example.prompt) + len(example.response) for example in mine]
    total_nll = 0.0
    for members in pad_to_longest_rank(split_by_tokens(lengths, micro_tokens)):
        if members is None:  # other ranks go on, and FSDP needs all of them
            idle_pass(model)
            continue
        packed = pack([mine[i].prompt for i in members], [mine[i].response for i in members])
        logp, _, _ = response_logprobs(model, packed)  # (R,)
        nll = -logp.sum()
        (nll / denominator).backward()
        total_nll += float(nll.detach())
    return {"loss": all_sum(total_nll) / n_tokens, "tokens": n_tokens}


@exclusive
def main(config: Config) -> None:
    config.check()
    recipe = "sft" if config.solutions == "one" else "sft-gold"
    out = checkpoint.output_path(config, recipe)
    model, parent = checkpoint.open_model(config)  # parent: the facts of that checkpoint
    if identity.is_finished(out, config, parent):
        return
    checkpoint.check_length(model, config.max_prompt + config.max_response)
    data = load_examples(config, checkpoint.open_tokenizer(parent, model))
    prepare(model, config)
    optimizer = adamw(model, config.lr, (0.9, config.beta2), config.weight_decay)
    epochs = config.steps * config.batch / len(data)
    print0(f"{config.steps} steps of {config.batch} solutions = {epochs:.1f} passes")
    resume = Resume(out, config, model, optimizer, origin=parent)
    start = resume.load()
    log = Log(out, start)

    with stop_signal() as stop, collecting_by_hand():
        for step in range(start, config.steps):
            phase(f"step {step + 1}")
            clock = time.time()
            lr = config.lr * lr_factor(config.schedule, step, config.steps)
            set_lr(optimizer, lr)
            items = batch_indices(len(data), config.batch, step, config.seed, "sft", config.shuffle)
            batch = [data[i] for i in items]
            metrics = sft_backward(model, batch, config.micro_tokens, config.loss)
            metrics |= logged_step(model, optimizer, config.grad_clip)

            done = step + 1
            log.write(done, **metrics, lr=lr, seconds=time.time() - clock)
            if done % config.log_every == 0 or done == config.steps:
                print0(
                    f"step {done:5d}/{config.steps} | loss {metrics['loss']:.4f} | grad norm "
                    f"{metrics['grad_norm']:6.2f} | lr {lr:.2e}{log.left(done, config.steps)}"
                )

            stopping = stop.asked()
            if done < config.steps and (stopping or done % config.save_every == 0):
                resume.save(done, leave=stopping)
            gc.collect()  # only here, on all ranks at once: each waits for the slowest
    facts = identity.make_facts(config, identity.lineage(parent, recipe), config.steps, parent)
    resume.finish(out, facts)


if __name__ == "__main__":
    launch(main, Config, PRESETS, SETTINGS)
