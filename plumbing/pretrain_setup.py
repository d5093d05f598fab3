"""What pretrain.py opens before its first step, and how it writes the checkpoints that it keeps."""

import math
import os
from dataclasses import replace

import torch

from data import UserError
from data.corpus import open_corpus
from data.tokenizer import PAD, get_tokenizer, pad_token
from model import PRESETS as MODELS
from model import ModelConfig, Transformer
from plumbing.batches import batch_indices
from plumbing.checkpoint import save_checkpoint
from plumbing.flags import check
from plumbing.identity import content_of, make_facts
from plumbing.ranks import device, gather_objects, print0, rank, world
from plumbing.sharding import full_weights
from plumbing.units import count


def with_vocabulary(shape: ModelConfig, vocab: int) -> ModelConfig:
    """A size with this vocabulary; the rows of embedding and head are a multiple of 64."""
    return replace(shape, vocab_size=vocab, padded_vocab_size=math.ceil(vocab / 64) * 64)


def check_config(config) -> None:
    """Refuse what cannot work, before text is tokenized for hours."""
    longest = MODELS[config.preset].max_seq_len
    check(
        2 <= config.seq_len <= longest,
        f"--seq_len {config.seq_len} must lie between 2 tokens and the model's {longest}",
    )
    check(count(config.warmup) >= 0, f"--warmup {config.warmup}: give 0 or more tokens")
    for name in config.keep.split(","):
        check(count(name) > 0, f"--keep {name}: a checkpoint is kept after a step or more")
        check(
            count(name) <= count(config.tokens),
            f"--keep {name} lies beyond --tokens {config.tokens}: --keep {config.keep} must lie "
            "within --tokens",
        )


def new_model(config) -> Transformer:
    """A fresh model of the preset's size, on this rank's device.

    Where the preset leaves the vocabulary open, the tokenizer decides its size.
    """
    shape = MODELS[config.preset]
    vocab = get_tokenizer(config.tokenizer).n_vocab
    if shape.vocab_size == 0:
        shape = with_vocabulary(shape, vocab)
    check(
        vocab <= shape.vocab_size,
        f"tokenizer {config.tokenizer} has {vocab} ids, the model {shape.vocab_size}; "
        "choose another",
    )
    model = Transformer(shape)
    model.init_weights(config.seed)
    return model.to(device())


def open_corpus_together(config, folder: str, n_tokens: int):
    """Rows of token ids, (rows, seq_len), for a run of n_tokens.

    Rank 0 makes them where they are not there yet. Then all ranks open them, or all raise the same
    UserError.
    """
    wanted = (config.data, folder, config.tokenizer, config.seq_len, n_tokens, config.seed)
    error = ""
    if rank() == 0:
        try:
            open_corpus(*wanted)
        except (UserError, OSError) as caught:
            error = str(caught)
    error = gather_objects(error)[0]  # the other ranks wait here for rank 0
    check(not error, error)
    return open_corpus(*wanted)


def identity_of(corpus) -> dict:
    """A hash that stands for the rows that are trained on: of a manifest, or of the toy's file."""
    return {"id": getattr(corpus, "content", None) or content_of(str(corpus.filename))}


def steps_for(tokens: int, config) -> int:
    """The number of steps that read at least so many tokens."""
    tokens_per_step = config.batch * config.seq_len
    return (tokens + tokens_per_step - 1) // tokens_per_step


def checkpoints_to_keep(config, folder: str) -> dict[int, str]:
    """Number of steps -> path of the checkpoint that is kept after them. Raises UserError."""
    names = {}
    for name in config.keep.split(","):
        steps = steps_for(count(name), config)
        other = names.setdefault(steps, name)
        if other != name:
            raise UserError(
                f"--keep {config.keep}: {other} and {name} are the same step, {steps:,}; leave one "
                f"out (a step has {config.batch * config.seq_len:,} tokens)"
            )
    return {steps: os.path.join(folder, f"{name}.pt") for steps, name in names.items()}


def keep_checkpoint(path: str, model: Transformer, config, done: int, origin: dict) -> None:
    """Write M_t after `done` steps. All ranks have to come here, rank 0 writes."""
    weights = full_weights(model)
    if rank() > 0:
        return
    quiet_padding(weights, model, get_tokenizer(config.tokenizer))
    tokens = done * config.batch * config.seq_len
    about = dict(tokens=tokens, tokenizer=config.tokenizer, corpus=config.data)
    about["corpus_content"] = origin["id"]
    save_checkpoint(path, model, make_facts(config, "base", done, None, **about), weights)
    print(f"wrote {path}")


def quiet_padding(weights: dict, model: Transformer, encoding) -> None:
    """Give the head's padding rows the row of <|pad|>, the token that training makes least likely.

    We leave these rows out everywhere, so they are never trained. But transformers, vLLM and the
    evaluation harness do not know which they are. Seen at toy scale (1.5M tokens): random rows
    would hold 6e-4 of the probability there, these hold 7e-6.
    """
    if PAD in encoding.special_tokens_set:
        head = weights["lm_head.weight"].clone()  # with one process on a CPU it is the model's own
        head[model.config.vocab_size :] = head[pad_token(encoding)].clone()
        weights["lm_head.weight"] = head


def print_plan(model: Transformer, config, steps: int, n_rows: int) -> None:
    """How large the model is, and how much it will read."""
    inner = model.num_parameters(embeddings=False)
    tokens = steps * config.batch * config.seq_len
    epochs = steps * config.batch / n_rows
    print0(
        f"{model.num_parameters():,} parameters ({inner:,} besides embedding and head); "
        f"{steps} steps of {config.batch} x {config.seq_len} = {tokens:,} tokens, "
        f"{epochs:.2f} passes over {n_rows:,} rows"
    )


def read_batches(config, corpus, steps):
    """For each step, yield this rank's rows as micro-batches: a list of (b, seq_len) tensors."""
    b = max(1, config.micro_tokens // config.seq_len)  # rows per micro-batch
    for step in steps:
        rows = batch_indices(len(corpus), config.batch, step, config.seed, "pretrain")
        rows = rows[rank() :: world()]
        micro_batches = []
        for i in range(0, len(rows), b):
            tokens = torch.from_numpy(corpus[rows[i : i + b]].astype("int64"))  # (b, seq_len)
            if device().type == "cuda":
                tokens = tokens.pin_memory()  # so that the copy to the GPU runs while it computes
            micro_batches.append(tokens)
        yield micro_batches
