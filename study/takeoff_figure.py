"""The figure of study/takeoff.py: shapes of problems before and after RL, and the border."""

import numpy as np

from study.drawing import pyplot
from study.experiment import Experiment
from study.rows import Study
from study.takeoff import OFF, border_in_percent, curve, shapes

LABELS = {
    "rl": "direct RL",
    "sft.rl": "RL after SFT",
    "sft-gold.rl": "RL after SFT-Gold",
    "parallel": "parallel averaging",
}
SHADES = ["#a6cee3", "#1f78b4", "#08306b", "#33a02c", "#ff7f00"]  # earlier checkpoints are lighter


def draw_takeoff(study: Study, experiment: Experiment):
    """A panel for each way to do RL: pass@1 of each shape after RL against that before."""
    there = [recipe for recipe in LABELS if shapes(study, recipe)]
    if not there:
        return None
    size = (3.5 * len(there) + 0.5, 3.9)
    fig, axes = pyplot().subplots(1, len(there), figsize=size, sharey=True, layout="constrained")
    for ax, recipe in zip(np.atleast_1d(axes), there):
        points = shapes(study, recipe)
        for stem, hue in zip(study.stems, SHADES):
            x = [100 * shape.before for shape in points if shape.stem == stem]
            y = [100 * shape.after for shape in points if shape.stem == stem]
            ax.scatter(x, y, s=14, color=hue, alpha=0.8, linewidth=0, label=f"RL from {stem}")
        title = LABELS[recipe]
        found = curve(points)
        if found:
            log_border, slope = found
            x = np.geomspace(0.02, 100, 200)
            y = 100 / (1 + np.exp(-slope * (np.log(x / 100) - log_border)))
            ax.plot(x, y, color="black", linewidth=1, label="share of shapes that take off")
            ax.axvline(100 * np.exp(log_border), color="black", linewidth=0.8, linestyle=":")
            without_interval = f"{100 * np.exp(log_border):.1f} %"
            title += f"\nhalf take off at {border_in_percent(study, recipe) or without_interval}"
        ax.axhline(100 * OFF, color="gray", linewidth=0.8, linestyle=":")
        ax.set_xscale("log")
        ax.set_xticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
        ax.set(xlim=(0.02, 110), ylim=(-3, 103), title=title)
        ax.set_xlabel("right before RL, at temperature 1 (%)")
    axes = np.atleast_1d(axes)
    axes[0].set_ylabel("right after RL (pass@1, %)")
    axes[min(1, len(axes) - 1)].legend(fontsize=7, loc="lower right")
    return fig
