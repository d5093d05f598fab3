"""Every stage as one command of a few tenths of a second, and what it needs beforehand.

{world} is the folder of small.make_world, which is only read; {folder} is the command's own.
"""

import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.faults import children, compare, operations, small

DATA = "--data {world}/problems.jsonl --max_prompt 80 --max_response 8"
RL = f"{DATA} --steps 4 --prompts 2 --n 2 --mini_batches 1 --save_every 1"
SFT = f"{DATA} --steps 8 --batch 4 --save_every 2"
BASE = "--ckpt {world}/base.pt"
PRETRAIN = f"pretrain.py --preset toy --tokens 2K {small.PRETRAIN}"

COMMANDS = {
    "pretrain": PRETRAIN + " --out {folder}/run --keep 1K,2K",
    # The last kept checkpoint comes before the end of the run.
    "pretrain-beyond": PRETRAIN + " --out {folder}/run --keep 1K",
    "pretrain-texts": PRETRAIN
    + " --out {folder}/run --keep 2K --data {world}/texts/*.jsonl --tokenizer toy",
    "sft": f"sft.py {BASE} --out {{folder}}/a.sft.pt {SFT}",
    "sft-gold": f"sft.py {BASE} --out {{folder}}/a.sft-gold.pt --solutions all {SFT}",
    "rl": f"grpo.py {BASE} --out {{folder}}/a.rl.pt {RL}",
    # With all that a run of RL may write and keep.
    "rl-options": f"grpo.py {BASE} --out {{folder}}/a.rl.pt {RL} --save_rollouts --samples_every 2 "
    "--val_every 2 --val 2 --kl 0.1 --ref_every 2 --reward {world}/reward.py:score",
    "rl-ranks": f"torchrun 2 grpo.py {BASE} --out {{folder}}/a.rl.pt {RL}",
    "parallel": f"parallel.py {BASE} --out {{folder}}/a.parallel.pt --sft_batch 4 {RL}",
    "interleave": f"parallel.py {BASE} --out {{folder}}/a.interleave.pt --mode interleave "
    f"--interleave 2 --sft_batch 4 {RL}",
    "evaluate": f"evaluate.py {BASE} --out {{folder}}/results.jsonl --problems 4 --n 4 --k 1,4 "
    "--max_response 8 --task {world}/problems.jsonl,{world}/math.jsonl",
    "general": f"evaluate.py {BASE} --out {{folder}}/results.jsonl --problems 4 "
    "--task general,piqa,arc_easy --benchmarks {world}/benchmarks",
    # So many samples that it saves after every four problems.
    "difficulty": "-m tools.difficulty --ckpt {folder}/base.pt --data {world}/problems.jsonl "
    "--samples 2048 --max_response 1",
    "to-hf": "convert.py to-hf {world}/base.pt {folder}/hf",
    "from-hf": "convert.py from-hf {world}/shards --out {folder}/from.pt",
    "corpus": "data/corpus.py {world}/texts/*.jsonl --tokenizer toy --out {folder}/corpus "
    "--workers 1",
    "excursions": "excursions.py --out {folder}/study --workers 2",
}


@dataclass
class Stage:
    """A command, and the results of a run that nothing disturbs."""

    name: str
    world: Path
    scratch: Path  # runs have their folder in it

    def new_folder(self) -> Path:
        folder = children.own_folder(self.scratch)
        folder.mkdir()
        if self.name == "difficulty":
            shutil.copy(self.world / "base.pt", folder)
        return folder

    def argv(self, folder: Path) -> list[str]:
        words = COMMANDS[self.name].split()
        return [word.format(world=self.world, folder=folder) for word in words]

    def is_there(self, outcome: children.Outcome) -> bool:
        """Whether it says that its result is there: to-hf does not know its own from others."""
        return self.name == "to-hf" and "exists and is not an empty directory" in outcome.stderr

    def sound(self) -> "Sound":
        return sound_run(self.name, self.world, self.scratch)


@dataclass
class Sound:
    """What an undisturbed run did."""

    files: dict  # compare.snapshot of its folder
    seconds: float
    operations: list[str]  # "write", "rename", ..., in their order
    stdout: str


@cache
def sound_run(name: str, world: Path, scratch: Path) -> Sound:
    """Run a stage twice, once with its operations noted, and see that both ends are the same."""
    stage = Stage(name, world, scratch)
    folder = stage.new_folder()
    note = folder.with_suffix(".operations")
    before = lambda: operations.watch(str(folder), note=str(note))
    noted = children.run(stage.argv(folder), before=before)
    files = compare.snapshot(folder)
    kinds = [line.split()[0] for line in note.read_text().splitlines()]
    note.unlink()
    folder = stage.new_folder()
    plain = children.run(stage.argv(folder))
    differing = compare.differences(files, compare.snapshot(folder))
    if noted.status != 0 or plain.status != 0 or differing:
        ends = f"{noted.end()} / {plain.end()} / {'; '.join(differing)}"
        raise children.Broken(f"tests.faults: two sound runs of {name} differ or fail: {ends}")
    return Sound(files, plain.seconds, kinds, plain.stdout)
