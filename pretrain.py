"""Pre-training: next-token loss on rows of tokens, keeping the checkpoints M_t.

    python pretrain.py                                  # the toy world, to 3.6M tokens, on a laptop
    torchrun --nproc_per_node=8 pretrain.py --preset 1B # after python data/corpus.py dolmino-50B

Everything else in this project starts from the checkpoints that are kept on the way. The rows of
the corpus are taken in one global shuffle; a batch is a function of (seed, step). The largest
departure from the paper: the toy world is 60 % mathematics, not 21 % (data/toy_text.py says why).
"""

import gc
import os
import time
from dataclasses import dataclass

import torch

from data.lock import exclusive
from model import Transformer
from plumbing import presets, pretrain_run, pretrain_setup
from plumbing.batches import ahead, idle_pass
from plumbing.flags import launch
from plumbing.log import Log
from plumbing.optimizer import adamw, logged_step, lr_factor, set_lr
from plumbing.prepare import LoggedFlags, prepare
from plumbing.ranks import all_sum, autocast, device, pad_to_longest_rank, print0
from plumbing.resume import Resume, collecting_by_hand, stop_signal
from plumbing.units import count
from plumbing.watchdog import phase


@dataclass(frozen=True, kw_only=True)
class Config(LoggedFlags):
    preset: str = "toy"  # scale: toy, toy-large, small, 1B, 1B-60B, 4B
    data: str = "toy"  # toy, dolmino-50B, dolmino-60B, or text and jsonl files joined by commas
    tokenizer: str = "dolma2"  # toy, dolma2, or the path of a Hugging Face tokenizer.json
    out: str = ""  # folder of the checkpoints; default out/<preset>
    seed: int = 0  # initial weights, text of the toy world, order of rows
    tokens: str = "50B"  # the run's length; the learning rate decays over it
    keep: str = presets.CHECKPOINTS["1B"]  # token counts of the checkpoints that are kept
    # optimizer
    batch: int = 512  # sequences per step, over all ranks
    seq_len: int = 4096  # tokens per sequence
    lr: float = 4e-4  # peak learning rate
    warmup: str = "1B"  # tokens of linear warm-up
    floor: float = 0.1  # of the peak, where the cosine ends
    beta2: float = 0.95  # AdamW; beta1 is 0.9
    weight_decay: float = 0.1  # on everything but the input embedding, as OLMo2
    z_loss: float = 1e-5  # weight of mean(logsumexp^2)
    grad_clip: float = 1.0  # global norm
    # log
    save_every: int = 500  # steps between saves to resume from
    log_every: int = 100  # steps between printed lines

    def check(self) -> None:
        pretrain_setup.check_config(self)


PRESETS = presets.PRETRAIN  # other scales; the defaults above are 1B's, except preset and data


def next_token_loss(model: Transformer, tokens: torch.Tensor, z_loss: float):
    """tokens (B, T) -> (nll, loss), sums over the tokens 1 .. T-1 of each row.

    nll is -log p of these tokens; the loss adds z_loss * logsumexp^2, which keeps logits small.
    """
    B, T = tokens.shape
    with autocast():
        hidden = model.hidden(tokens.flatten(), [T] * B).view(B, T, -1)  # (B, T, d_model)
        predicting = hidden[:, :-1].flatten(0, 1)  # (B*(T-1), d_model)
        targets = tokens[:, 1:].flatten()  # (B*(T-1),)
        logp, logsumexp, _ = model.logprobs(predicting, targets)  # (B*(T-1),) each
    nll = -logp.sum()
    return nll, nll + z_loss * logsumexp.square().sum()


@exclusive
def main(config: Config) -> None:
    config.check()
    folder = config.out or os.path.join("out", config.preset)
    tokens_per_step = config.batch * config.seq_len
    steps = pretrain_setup.steps_for(count(config.tokens), config)
    keep = pretrain_setup.checkpoints_to_keep(config, folder)
    if pretrain_run.is_finished(config, folder, keep, steps):
        return
    n_tokens = steps * tokens_per_step
    corpus = pretrain_setup.open_corpus_together(config, folder, n_tokens)  # (rows, seq_len)
    model = pretrain_setup.new_model(config)
    prepare(model, config, equal_rows=True)
    betas = (0.9, config.beta2)
    optimizer = adamw(model, config.lr, betas, config.weight_decay, decay_embedding=False)
    pretrain_run.note_start(config, folder)
    pretrain_setup.print_plan(model, config, steps, len(corpus))
    origin = pretrain_setup.identity_of(corpus)
    resume = Resume(os.path.join(folder, "pretrain"), config, model, optimizer, origin=origin)
    start = resume.load()
    log = Log(os.path.join(folder, "pretrain"), start)
    batches = ahead(pretrain_setup.read_batches(config, corpus, range(start, steps)))
    warmup_steps = count(config.warmup) // tokens_per_step
    n_targets = config.batch * (config.seq_len - 1)  # of a step, over all ranks
    clock = time.time()
    done_at_clock = start  # steps done when the clock was set

    with stop_signal() as stop, collecting_by_hand():
        for step, micro_batches in zip(range(start, steps), batches):
            phase(f"step {step + 1}")
            lr = config.lr * lr_factor("cosine", step, steps, warmup_steps, config.floor)
            set_lr(optimizer, lr)
            total_nll = 0.0
            for tokens in pad_to_longest_rank(micro_batches):
                if tokens is None:  # other ranks go on, and FSDP needs all of them
                    idle_pass(model)
                    continue
                tokens = tokens.to(device(), non_blocking=True)
                nll, loss = next_token_loss(model, tokens, config.z_loss)
                (loss / n_targets).backward()  # all micro-batches and ranks are summed
                total_nll += nll.detach()
            update = logged_step(model, optimizer, config.grad_clip)

            done = step + 1
            mean_nll = all_sum(float(total_nll)) / n_targets  # nats per token, without z-loss
            log.write(done, tokens=done * tokens_per_step, loss=mean_nll, lr=lr, **update)
            if done % config.log_every == 0 or done == steps:
                speed = (done - done_at_clock) * tokens_per_step / max(time.time() - clock, 1e-9)
                clock = time.time()
                done_at_clock = done
                print0(
                    f"step {done:6d}/{steps} | loss {mean_nll:.4f} | "
                    f"grad norm {update['grad_norm']:6.2f} | lr {lr:.2e} | {speed:,.0f} tok/s"
                    f"{log.left(done, steps)}"
                )
            if done in keep:
                pretrain_setup.keep_checkpoint(keep[done], model, config, done, origin)

            stopping = stop.asked()
            if done < steps and (stopping or done % config.save_every == 0):
                resume.save(done, leave=stopping)
            gc.collect()  # only here, on all ranks at once: each waits for the slowest
    pretrain_run.end(config, folder, resume)


if __name__ == "__main__":
    launch(main, Config, PRESETS)
