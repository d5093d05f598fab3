"""Supervised fine-tuning: M_t -> M_t^SFT (one solution per problem) or M_t^SFT-Gold (all of them).

    python sft.py --ckpt out/toy/3.6M.pt
    torchrun --nproc_per_node=8 sft.py --ckpt out/4B.pt --solutions all --data openmath-gsm8k

Next-token loss on the worked solution and its end-of-text token; the prompt is read, never learned. Both recipes take
the same number of optimizer steps, as the authors' did: Gold sees more solutions per problem, not more updates.
Settings: `written` is the paper's table, and draws the one solution as its text says; `run` sums the loss over tokens,
keeps the file's order and takes each problem's first solution, as the authors' code did; `controlled` takes the mean
over the step's tokens, shuffles, and is the default.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import common
from common import check, print0
from data.problems import Problem, counted, load_problems, prompt_text


@dataclass(frozen=True)
class Config:
    ckpt: str  # the checkpoint to start from
    preset: str = "1B"  # scale; read from the checkpoint where not given
    setting: str = "controlled"  # written, run or controlled
    out: str = ""  # default: beside the parent, <parent>.sft.pt or <parent>.sft-gold.pt
    data: str = "openmath-gsm8k"  # problem set, or a jsonl of question and answer (with solutions)
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
    fp32_head: bool = False  # on a GPU: factors of the head's products in fp32, not bf16; exact and slow
    loss: str = "mean"  # over the response tokens of a step, or their sum
    shuffle: bool = True  # a new order every pass; the authors kept the file's
    max_prompt: int = 512  # tokens; problems with a longer prompt are left out
    max_response: int = 512  # tokens; a longer solution is cut and loses its end token
    micro_tokens: int = 16_384  # tokens per forward pass and rank; memory only
    compile: bool = False  # fuse what surrounds attention: faster; a minute at the start, and a C++ compiler on a CPU
    checkpoint_activations: bool = False  # keep each block's input alone and compute the rest again going back: little memory, a third more work
    save_every: int = 200  # steps between saves to resume from
    log_every: int = 10  # steps between printed lines


PRESETS = {
    "toy": dict(data="toy", steps=300, batch=32, lr=1e-3, schedule="cosine", max_prompt=160, max_response=64, save_every=100, log_every=100),
    "small": dict(data="toy", steps=400, batch=128, lr=3e-4, schedule="cosine", max_prompt=256, max_response=128),
    "1B": dict(compile=True),
    "1B-60B": dict(data="openmath", max_prompt=2560, max_response=1024, compile=True),  # the authors' SFT on one solution ran at 5e-4 here
    "4B": dict(data="openmath", max_prompt=2560, max_response=1024, micro_tokens=8192, compile=True),  # and here
}
SETTINGS = {"written": dict(pick="random"), "run": dict(loss="sum", shuffle=False), "controlled": {}}


@dataclass
class Example:
    prompt: list[int]
    response: list[int]  # with its eos, unless it was cut


class Examples(Sequence):
    """The training examples of a recipe, tokenized when asked for: SFT-Gold on OpenMathInstruct-2 has 14 million.

    `solutions` is one per problem or all; `pick` says which one: the first, or one drawn by (seed, problem).
    """

    def __init__(self, problems: list[Problem], encoding, solutions: str, max_prompt: int, max_response: int, pick: str = "first", seed: int = 0):
        self.encoding, self.max_response = encoding, max_response
        self.problems = [p for p in problems if p.solutions and len(encoding.encode_ordinary(prompt_text(p))) <= max_prompt]
        counts = [1 if solutions == "one" else len(p.solutions) for p in self.problems]
        self.owner = np.repeat(np.arange(len(counts), dtype=np.int32), counts)  # (len(self),) the problem of each example
        if solutions == "one" and pick == "random":
            self.which = np.array([common.generator(seed, "pick", p.id).integers(len(p.solutions)) for p in self.problems], np.int32)
        else:
            self.which = np.concatenate([np.arange(n, dtype=np.int32) for n in counts] or [self.owner])  # (len(self),) its solution

    def __len__(self) -> int:
        return len(self.owner)

    def __getitem__(self, i: int) -> Example:
        """Data text can never become a special token; only we add the eos."""
        problem = self.problems[self.owner[i]]
        response = [*self.encoding.encode_ordinary(problem.solutions[self.which[i]]), self.encoding.eot_token]
        return Example(self.encoding.encode_ordinary(prompt_text(problem)), response[: self.max_response])


def load_examples(config, encoding, problems: list[Problem] | None = None) -> Examples:
    """The training examples of a run (of these problems, or all), with lines that say how many and what was left out or cut."""
    problems = load_problems(config.data, "train") if problems is None else problems
    solved = sum(len(p.solutions) > 0 for p in problems)
    check(solved > 0, f"{config.data} has no worked solutions to learn from; SFT needs a field `solutions` or GSM8K answers")
    data = Examples(problems, encoding, config.solutions, config.max_prompt, config.max_response, config.pick, config.seed)
    check(len(data) > 0, f"every prompt of {config.data} is over --max_prompt {config.max_prompt} tokens")
    looked_at = min(len(data), 10_000)
    cut = sum(data[i].response[-1] != encoding.eot_token for i in range(looked_at))
    print0(counted(config.data, "train", problems))
    print0(
        f"{len(data):,} examples; {solved - len(data.problems):,} problems over {config.max_prompt} prompt tokens left out, {cut:,} solutions"
        + (f" of the first {looked_at:,}" if looked_at < len(data) else "") + f" cut at {config.max_response} tokens"
    )  # fmt: skip
    return data


def sft_backward(model, batch: list[Example], micro_tokens: int, loss: str = "mean") -> dict:
    """Add the gradient of the next-token loss on `batch` (the whole step's examples) to the model's.

    Every rank takes its share; the sum over tokens is divided once by the count of the whole step (or by nothing).
    -> {loss: mean over the step's response tokens, tokens: their number}
    """
    n_tokens = sum(len(e.response) for e in batch)
    mine = batch[common.rank() :: common.world()]
    total = 0.0
    for group in common.in_step(common.micro_batches([len(e.prompt) + len(e.response) for e in mine], micro_tokens)):
        if group is None:
            common.idle_pass(model)
            continue
        packed = common.pack([mine[i].prompt for i in group], [mine[i].response for i in group])
        logp, _, _ = common.response_logprobs(model, packed)  # (R,)
        (-logp.sum() / (n_tokens if loss == "mean" else 1)).backward()
        total -= float(logp.detach().sum())
    return {"loss": common.all_sum(total)[0] / n_tokens, "tokens": n_tokens}


def main(config: Config) -> None:
    check(config.solutions in ("one", "all"), f"--solutions {config.solutions}: choose one or all")
    check(config.pick in ("first", "random"), f"--pick {config.pick}: choose first or random")
    check(config.loss in ("mean", "sum"), f"--loss {config.loss}: choose mean or sum")
    common.check_schedule(config.schedule)
    recipe = "sft" if config.solutions == "one" else "sft-gold"
    out = common.output_path(config, recipe)
    model, parent = common.open_parent(config)
    if common.is_finished(out, config, parent):
        return
    common.check_length(model, config.max_prompt + config.max_response)
    data = load_examples(config, common.open_tokenizer(parent, model))
    common.prepare(model, config)
    optimizer = common.adamw(model, config.lr, (0.9, config.beta2), config.weight_decay)
    print0(f"{config.steps} steps of {config.batch} solutions = {config.steps * config.batch / len(data):.1f} passes")
    resume = common.Resume(out, config, model, optimizer)
    start = resume.load()
    log = common.Log(out, start)
    for step in resume.steps(start, config.steps):
        common.phase(f"step {step + 1}")
        clock = time.time()
        rate = config.lr * common.schedule(config.schedule, step, config.steps)
        common.set_lr(optimizer, rate)
        indices = common.batch_indices(len(data), config.batch, step, config.seed, "sft", config.shuffle)
        metrics = sft_backward(model, [data[i] for i in indices], config.micro_tokens, config.loss)
        metrics["grad_norm"] = common.clipped_step(model, optimizer, config.grad_clip)

        done = step + 1
        log.write(done, **metrics, lr=rate, seconds=time.time() - clock)
        if done % config.log_every == 0 or done == config.steps:
            print0(f"step {done:5d}/{config.steps} | loss {metrics['loss']:.4f} | grad norm {metrics['grad_norm']:6.2f} | lr {rate:.2e}")
    resume.finish(out, common.make_facts(config, common.lineage(parent, recipe), config.steps, parent))


if __name__ == "__main__":
    common.launch(main, Config, PRESETS, SETTINGS)
