"""What the paper's figures are drawn with: curves of ours with dots for seeds, and the paper's."""

import numpy as np

from plumbing.units import count
from study import cells
from study.drawing import pyplot, token_axis
from study.estimates import Estimate
from study.rows import Study

HUES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7f7f7f", "#e69f00"]
Curve = list[tuple[float, Estimate]]  # x, and what was measured there


def put_legend_below(fig, ax, title: str | None = None) -> None:
    """One legend for all panels, where it hides no point."""
    handles, labels = ax.get_legend_handles_labels()
    how = dict(loc="outside lower center", ncols=max(1, len(labels)), frameon=False, fontsize=8)
    fig.legend(handles, labels, title=title, **how)


def new_figure(rows: int, columns: int):
    size = (3.5 * columns + 0.6, 3.0 * rows + 0.5)
    return pyplot().subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)


def put_curve(ax, curve: Curve, label: str, hue: str, style: str = "-") -> None:
    """A line through the means, and a dot for each seed."""
    xs = [x for x, _ in curve]
    for x, estimate in curve:
        seeds = estimate.of_seeds
        ax.scatter([x] * len(seeds), seeds, s=9, color=hue, alpha=0.45, linewidth=0)
    means = [estimate.mean for _, estimate in curve]
    halves = [np.nan_to_num(estimate.half_width()) for _, estimate in curve]
    ax.errorbar(xs, means, yerr=halves, color=hue, capsize=3, label=label, fmt=style)


def put_papers(ax, xs: list[float], ys: list[float], label: str, hue: str) -> None:
    ax.plot(xs, ys, color=hue, marker="o", markersize=4, label=label)


def same_height(axes) -> None:
    """These panels get the same y axis."""
    low = min(ax.get_ylim()[0] for ax in axes)
    high = max(ax.get_ylim()[1] for ax in axes)
    for ax in axes:
        ax.set_ylim(low, high)


def curve_over(study: Study, places: list[tuple[float, str]], quantity: str) -> Curve:
    """(x, cell) -> (x, estimate), where there is one."""
    curve = []
    for x, cell in places:
        estimate = cells.value(study, cell, quantity)
        if estimate:
            curve.append((x, estimate))
    return curve


def columns_of_table(table: dict, column: str, quantity: str) -> tuple[list[str], list[float]]:
    """The rows of one of the paper's tables that have this quantity, and its values."""
    names = []
    values = []
    for name, of_name in table[column].items():
        if quantity in of_name:
            names.append(name)
            values.append(of_name[quantity])
    return names, values


def papers_token_axis(ax, table: dict) -> None:
    """Ticks at the checkpoints, "10B" and so on, of one of the paper's tables."""
    names = {name for values in table.values() for name in values}
    token_axis(ax, {name: count(name) for name in sorted(names, key=count)})


def our_token_axis(ax, study: Study, stems: list[str]) -> None:
    """Ticks at our checkpoints: "targeted-5.4M" stands at 5.4M."""
    ordered = sorted(stems, key=study.tokens.get)
    token_axis(ax, {stem.rpartition("-")[2]: study.tokens[stem] for stem in ordered})


def run_of(stem: str) -> str:
    """The pre-training that a checkpoint is from: "targeted-5.4M" -> "targeted", "3.6M" -> ""."""
    return stem.rpartition("-")[0]
