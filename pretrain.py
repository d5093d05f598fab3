"""Pre-training: next-token loss on rows of tokens, keeping the checkpoints M_t that everything else starts from.

    python pretrain.py                                         # the toy world, to 3.6M tokens, on a laptop
    torchrun --nproc_per_node=8 pretrain.py --preset 1B        # after python data/corpus.py dolmino-50B

One pass over a global shuffle of rows; batch = f(seed, step). The same command goes on where it was stopped.
Departures from the paper: the toy preset trains on 30 % general text and 60 % mathematics (data/toy.py says why).
"""

import math
import os
import time
from dataclasses import dataclass, replace

import torch

import common
from common import check, print0
from data import UserError
from data.corpus import open_corpus
from data.tokenizer import PAD, get_tokenizer, pad_token
from model import PRESETS as MODELS
from model import Transformer, save_checkpoint


@dataclass(frozen=True)
class Config:
    preset: str = "toy"  # scale: toy, small, 1B, 1B-60B, 4B
    data: str = "toy"  # the embedded world; dolmino-50B or dolmino-60B, prepared before; or text / jsonl files joined by commas
    tokenizer: str = "dolma2"  # toy, dolma2, or the path of a Hugging Face tokenizer.json
    out: str = ""  # folder of the checkpoints; default out/<preset>
    seed: int = 0  # initial weights, text of the toy world, order of rows
    tokens: str = "50B"  # the run's length; the learning rate decays over it
    keep: str = "2B,4B,6B,10B,12B,14B,20B,28B,44B"  # token counts of the checkpoints kept, each a file <t>.pt
    batch: int = 512  # sequences per step, over all ranks
    seq_len: int = 4096  # tokens per sequence
    lr: float = 4e-4  # peak learning rate
    warmup: str = "1B"  # tokens of linear warm-up
    floor: float = 0.1  # of the peak, where the cosine ends
    beta2: float = 0.95  # AdamW; beta1 is 0.9
    weight_decay: float = 0.1  # on everything but the input embedding, as OLMo2
    z_loss: float = 1e-5  # weight of mean(logsumexp^2)
    grad_clip: float = 1.0  # global norm
    fp32_head: bool = False  # on a GPU: factors of the head's products in fp32, not bf16; exact and slow
    micro_tokens: int = 16_384  # tokens per forward pass and rank; memory only
    compile: bool = False  # fuse what surrounds attention: faster; a minute at the start, and a C++ compiler on a CPU
    checkpoint_activations: bool = False  # keep each block's input alone and compute the rest again going back: little memory, a third more work
    save_every: int = 500  # steps between saves to resume from
    log_every: int = 100  # steps between printed lines


PRESETS = {
    "toy": dict(
        tokenizer="toy", tokens="3.6M", keep="1.5M,2.4M,3.6M", batch=24, seq_len=80, lr=1e-2, warmup="100K", floor=0.02,
        z_loss=0.0, save_every=250,
    ),
    "small": dict(
        tokenizer="toy", tokens="300M", keep="50M,100M,200M,300M", batch=512, seq_len=128, lr=2e-3, warmup="5M", z_loss=0.0,
    ),
    "1B": dict(data="dolmino-50B", compile=True),
    "1B-60B": dict(data="dolmino-60B", tokens="60B", keep="10B,20B,30B,34B,44B,56B", compile=True),
    "4B": dict(data="dolmino-50B", keep="10B,28B", micro_tokens=8192, compile=True),
}  # fmt: skip


def new_model(config: Config) -> Transformer:
    """A fresh model of the preset's size; where the preset leaves the vocabulary open, the tokenizer decides it."""
    shape = MODELS[config.preset]
    vocab = get_tokenizer(config.tokenizer).n_vocab
    if not shape.vocab_size:
        shape = replace(shape, vocab_size=vocab, padded_vocab_size=math.ceil(vocab / 64) * 64)
    check(vocab <= shape.vocab_size, f"tokenizer {config.tokenizer} has {vocab} ids, the model {shape.vocab_size}; choose another")
    check(config.seq_len <= shape.max_seq_len, f"--seq_len {config.seq_len} is over the model's {shape.max_seq_len}")
    model = Transformer(shape)
    model.init_weights(config.seed)
    return model.to(common.device())


def corpus_of(config: Config, folder: str, n_tokens: int):
    """Rows (rows, seq_len). Rank 0 makes them where they are not there yet; then all open them, or meet the same error."""
    wanted = config.data, folder, config.tokenizer, config.seq_len, n_tokens, config.seed
    error = ""
    if common.rank() == 0:
        try:
            open_corpus(*wanted)
        except (UserError, OSError) as caught:
            error = str(caught)
    error = common.gather_objects(error)[0]  # the others wait here
    check(not error, error)
    return open_corpus(*wanted)


def read_batches(config: Config, corpus, steps):
    """This rank's rows of each of these steps, in passes of about micro_tokens: lists of (b, seq_len). A function of (seed, step)."""
    b = max(1, config.micro_tokens // config.seq_len)  # rows per pass
    for step in steps:
        rows = common.batch_indices(len(corpus), config.batch, step, config.seed, "pretrain")[common.rank() :: common.world()]
        passes = [torch.from_numpy(corpus[rows[i : i + b]].astype("int64")) for i in range(0, len(rows), b)]
        yield [tokens.pin_memory() for tokens in passes] if common.device().type == "cuda" else passes


def next_token_loss(model: Transformer, tokens: torch.Tensor, z_loss: float):
    """tokens (B, T) -> (sum of -log p of tokens 1..T-1, the same plus z_loss * logsumexp^2)."""
    B, T = tokens.shape
    with common.autocast():
        hidden = model.hidden(tokens.flatten(), [T] * B).view(B, T, -1)  # (B, T, d_model)
        logp, lse, _ = model.logprobs(hidden[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())  # (B*(T-1),)
    nll = -logp.sum()
    return nll, nll + z_loss * lse.square().sum()


def quiet_padding(weights: dict, model: Transformer, encoding) -> None:
    """Give the head's padding rows the row of <|pad|>, which training has made the least likely of tokens.

    We leave these rows out everywhere, so they are never trained; transformers, vLLM and the harness do not know which
    they are. Seen at toy scale (1.5M tokens): random rows would hold 6e-4 of the probability there, these hold 7e-6.
    """
    if PAD in encoding.special_tokens_set:
        head = weights["lm_head.weight"] = weights["lm_head.weight"].clone()  # on one CPU process they are the model's own
        head[model.config.vocab_size :] = head[pad_token(encoding)].clone()


def main(config: Config) -> None:
    folder = config.out or os.path.join("out", config.preset)
    keep = {name: common.count(name) for name in config.keep.split(",")}
    tokens_per_step = config.batch * config.seq_len
    steps = -(-common.count(config.tokens) // tokens_per_step)
    keep_at = {-(-t // tokens_per_step): name for name, t in keep.items()}  # the first step with at least so many tokens
    last = os.path.join(folder, keep_at[max(keep_at)] + ".pt")
    check(0 not in keep_at and max(keep.values()) <= common.count(config.tokens), f"--keep {config.keep} must lie within --tokens {config.tokens}, at a step or more")
    if common.is_finished(last, config):
        return
    corpus = corpus_of(config, folder, steps * tokens_per_step)  # (rows, seq_len)
    model = new_model(config)
    model.expect_equal_rows()
    common.prepare(model, config)
    optimizer = common.adamw(model, config.lr, (0.9, config.beta2), config.weight_decay, decay_embedding=False)
    passes = steps * config.batch / len(corpus)
    print0(
        f"{model.num_parameters():,} parameters ({model.num_parameters(embeddings=False):,} besides embedding and head); {steps} steps of "
        f"{config.batch} x {config.seq_len} = {steps * tokens_per_step:,} tokens, {passes:.2f} passes over {len(corpus):,} rows"
    )
    resume = common.Resume(os.path.join(folder, "pretrain"), config, model, optimizer)
    start = resume.load()
    log = common.Log(os.path.join(folder, "pretrain"), start)
    batches = common.ahead(read_batches(config, corpus, range(start, steps)))  # the next one is read while this one is computed
    clock, clock_step = time.time(), start
    for step, passes in zip(resume.steps(start, steps), batches):
        common.phase(f"step {step + 1}")
        rate = config.lr * common.schedule("cosine", step, steps, common.count(config.warmup) // tokens_per_step, config.floor)
        common.set_lr(optimizer, rate)
        n_targets = config.batch * (config.seq_len - 1)  # of the step, all ranks: the one denominator
        total_nll = 0.0
        for tokens in common.in_step(passes):
            if tokens is None:
                common.idle_pass(model)
                continue
            nll, loss = next_token_loss(model, tokens.to(common.device(), non_blocking=True), config.z_loss)
            (loss / n_targets).backward()
            total_nll += nll.detach()
        grad_norm = common.clipped_step(model, optimizer, config.grad_clip)

        done = step + 1
        loss = common.all_sum(float(total_nll))[0] / n_targets
        log.write(done, tokens=done * tokens_per_step, loss=loss, grad_norm=grad_norm, lr=rate)
        if done % config.log_every == 0 or done == steps:
            speed = (done - clock_step) * tokens_per_step / (time.time() - clock)
            print0(f"step {done:6d}/{steps} | loss {loss:.4f} | grad norm {grad_norm:6.2f} | lr {rate:.2e} | {speed:,.0f} tok/s")
            clock, clock_step = time.time(), done
        if done in keep_at:
            weights = common.full_weights(model)
            if common.rank() == 0:
                quiet_padding(weights, model, get_tokenizer(config.tokenizer))
                facts = common.make_facts(config, "base", done, None, tokens=done * tokens_per_step, tokenizer=config.tokenizer, corpus=config.data)
                path = os.path.join(folder, keep_at[done] + ".pt")
                save_checkpoint(path, model, facts, weights)
                print(f"wrote {path}")
    if common.rank() == 0:
        resume.drop()


if __name__ == "__main__":
    common.launch(main, Config, PRESETS)
