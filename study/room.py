"""What decides whether RL after SFT raises the widest pass@k: how far its pass@1 gets.

RL brings pass@1 and pass@k closer together. So pass@k rises where pass@1 comes near enough to what
pass@k was before, and falls elsewhere. A sentence, and a figure with the paper's cells in it.
"""

import itertools
from collections import Counter
from dataclasses import dataclass

from study.drawing import pyplot
from study.estimates import Estimate, direction
from study.experiment import Experiment
from study.paper import PAPER
from study.predictions import Term, value_of
from study.rows import Study

COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"]  # of tasks
OF_PAPER = [("figure2", "sft.rl", "sft"), ("figure3", "sft-gold.rl", "sft-gold")]


@dataclass(frozen=True)
class Cell:
    """RL after SFT against its SFT, in points."""

    name: str  # 3.6M.sft.rl
    task: str
    gap: Estimate  # widest pass@k - pass@1 of SFT
    reach: Estimate  # pass@1 after RL - widest pass@k of SFT: above 0, pass@k had to rise
    change: Estimate  # widest pass@k after RL - that of SFT

    @property
    def gap_after(self) -> float:
        return self.change.mean - self.reach.mean


def cells_after_sft(study: Study) -> list[Cell]:
    """Every cell in which RL began at an SFT that has rows, too, by task and name."""
    starts = rl_after_sft(study)
    tasks = study.tasks_with_problems()
    found = []
    for task, stem, recipe in sorted(study.rows):
        start = starts.get(recipe, "")
        if task not in tasks or (task, stem, start) not in study.rows:
            continue
        wide = f"pass@{study.ks(task, stem, recipe)[-1]}"
        after = f"{stem}.{recipe}"
        before = f"{stem}.{start}"
        of_task = study.on(task)
        less_wide = Term(-1.0, wide, "", before)
        gap = value_of(of_task, [Term(1.0, wide, "", before), Term(-1.0, "pass@1", "", before)])
        reach = value_of(of_task, [Term(1.0, "pass@1", "", after), less_wide])
        change = value_of(of_task, [Term(1.0, wide, "", after), less_wide])
        if gap and reach and change:
            found.append(Cell(after, task, gap, reach, change))
    return found


def rl_after_sft(study: Study) -> dict[str, str]:
    """Recipe of RL after SFT -> the SFT that it starts from."""
    found = {}
    for experiment in study.experiments.values():
        for recipe, (start, line) in experiment.recipes.items():
            line_of_start = experiment.recipes.get(start, ("", ""))[1]
            if line.startswith("grpo.py") and line_of_start.startswith("sft.py"):
                found[recipe] = start
    return found


def sentence(cells: list[Cell]) -> str:
    """How close pass@1 and pass@k come, and in how many cells pass@k rises."""
    narrower = [cell for cell in cells if cell.gap_after < cell.gap.mean]
    forced = [cell for cell in cells if cell.reach.mean > 0]
    others = [cell for cell in cells if cell.reach.mean <= 0]
    counts = Counter(direction(cell.change) for cell in others)
    gaps_of_paper = []
    gaps_of_paper_after = []
    for figure, after, before in OF_PAPER:
        for stem, of_rl in PAPER[figure][after].items():
            gaps_of_paper.append(gap_of(PAPER[figure][before][stem]))
            gaps_of_paper_after.append(gap_of(of_rl))
    return (
        "RL after SFT brings pass@1 and the widest pass@k closer together in "
        f"{len(narrower)} of {len(cells)} cells: before it pass@k is "
        f"{lowest_to_highest([cell.gap.mean for cell in cells])} points above pass@1, after it "
        f"{lowest_to_highest([cell.gap_after for cell in cells])} (in the paper "
        f"{lowest_to_highest(gaps_of_paper)} and {lowest_to_highest(gaps_of_paper_after)}). So "
        "what it does to pass@k depends on how far pass@1 gets. "
        f"In {len(forced)} of them pass@1 ends above SFT's pass@k, so that pass@k had to rise. In "
        f"the others pass@k is lower in {counts['lower']}, higher in {counts['higher']} and "
        f"undecided in {counts['undecided'] + counts['one seed']}. This was seen in the rows, not "
        "predicted."
    )


def gap_of(passes: dict[str, float]) -> float:
    return passes["pass@32"] - passes["pass@1"]


def lowest_to_highest(values: list[float]) -> str:
    return f"{min(values):.0f} to {max(values):.0f}"


def draw_room(study: Study, experiment: Experiment):
    """The change of the widest pass@k against the distance of RL's pass@1 from SFT's pass@k."""
    found = cells_after_sft(study)
    if len(found) < 3:
        return None
    fig, ax = pyplot().subplots(figsize=(7, 4.8), layout="constrained")
    tasks = list(dict.fromkeys(cell.task for cell in found))
    for task, hue in zip(tasks, itertools.cycle(COLOURS)):
        of_task = [cell for cell in found if cell.task == task]
        x = [cell.reach.mean for cell in of_task]
        y = [cell.change.mean for cell in of_task]
        below = [cell.change.mean - cell.change.low for cell in of_task]
        above = [cell.change.high - cell.change.mean for cell in of_task]
        ax.errorbar(x, y, [below, above], fmt="o", markersize=4, color=hue, linewidth=1, label=task)
    for figure, after, before in OF_PAPER:
        x, y = paper_cells(figure, after, before)
        label = "the paper, GSM8K" if figure == "figure2" else None
        ax.scatter(x, y, s=26, marker="D", facecolor="none", edgecolor="black", label=label)
    low, high = ax.get_xlim()
    bottom, top = ax.get_ylim()
    ax.fill_between([bottom, high], [bottom, high], bottom, color="#eeeeee", linewidth=0, zorder=0)
    ax.text(high, bottom, "pass@1 above pass@k: impossible ", ha="right", va="bottom", fontsize=8)
    ax.axhline(0, color="black", linewidth=0.8)
    ax.axvline(0, color="black", linewidth=0.8, linestyle=":")
    ax.set(xlim=(low, high), ylim=(bottom, top))
    ax.set_xlabel("pass@1 after RL - widest pass@k of its SFT (points)")
    ax.set_ylabel("change of the widest pass@k (points)")
    ax.legend(fontsize=8, loc="upper left")
    return fig


def paper_cells(figure: str, after: str, before: str) -> tuple[list[float], list[float]]:
    """-> (pass@1 after RL - pass@32 of SFT, change of pass@32) at the paper's checkpoints."""
    x = []
    y = []
    for stem, of_rl in PAPER[figure][after].items():
        of_sft = PAPER[figure][before][stem]
        x.append(of_rl["pass@1"] - of_sft["pass@32"])
        y.append(of_rl["pass@32"] - of_sft["pass@32"])
    return x, y
