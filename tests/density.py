"""How dense the code is: widths, and what packs much into one line, per 1,000 non-blank lines.

    python -m tests.density            # this tree
    python -m tests.density FOLDER     # another one, for example an older version

Counted are all Python files outside tests/. tests/test_house.py holds the tree to the limits below.
"""

import ast
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# What a newcomer reads in an hour, in this order.
HOUR = (
    "model.py",
    "pretrain.py",
    "sft.py",
    "sampler.py",
    "grpo.py",
    "parallel.py",
    "evaluate.py",
    "data/problems.py",
    "data/grader.py",
)
HOUR_LINES = 1_500  # at most, all of them together, blank lines included
WIDTH = 100  # columns, at most
COMPREHENSIONS = 40  # at most so many per 1,000 non-blank lines
TUPLE_ASSIGNMENTS = 8

NO_CODE = {"tests", "out", "results", "docs", "__pycache__"}  # and whatever begins with a dot

KINDS = ("comprehensions", "ternaries", "tuples", "lambdas")


@dataclass
class Density:
    """Counts over some files. Everything is divided by the non-blank lines."""

    files: int = 0
    lines: int = 0
    non_blank: int = 0
    columns: int = 0  # characters of the non-blank lines, their indentation included
    over_100: int = 0  # lines
    over_120: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))

    def per_1000(self, kind: str) -> float:
        return 1000 * self.counts[kind] / max(1, self.non_blank)

    def mean_width(self) -> float:
        return self.columns / max(1, self.non_blank)


def kind_of(node: ast.AST) -> str | None:
    """Which of KINDS a node of the syntax tree is, or None."""
    if isinstance(node, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
        return "comprehensions"
    if isinstance(node, ast.IfExp):
        return "ternaries"
    if isinstance(node, ast.Lambda):
        return "lambdas"
    if isinstance(node, ast.Assign) and isinstance(node.value, (ast.Tuple, ast.List)):
        # `a, b = x, y`. Unpacking the result of a call is another thing, and so is `a = x, y`.
        if any(isinstance(target, (ast.Tuple, ast.List)) for target in node.targets):
            return "tuples"
    return None


def measure(paths: list[Path]) -> Density:
    """The density of these files together."""
    total = Density()
    for path in paths:
        text = path.read_text(encoding="utf-8")
        total.files += 1
        for line in text.splitlines():
            total.lines += 1
            if line.strip():
                total.non_blank += 1
                total.columns += len(line)
            total.over_100 += len(line) > 100
            total.over_120 += len(line) > 120
        for node in ast.walk(ast.parse(text)):
            kind = kind_of(node)
            if kind:
                total.counts[kind] += 1
    return total


def code_files(root: Path = ROOT) -> list[Path]:
    """All Python files outside tests/, sorted."""
    found = []
    for folder, subfolders, names in os.walk(root):
        for name in list(subfolders):
            if name in NO_CODE or name.startswith("."):
                subfolders.remove(name)  # os.walk does not enter it then
        found.extend(Path(folder, name) for name in names if name.endswith(".py"))
    return sorted(found)


def hour_files(root: Path = ROOT) -> list[Path]:
    return [root / name for name in HOUR]


def folder_of(path: Path, root: Path) -> str:
    """`data/` for data/toy.py; what stands at the top is in `top`."""
    parts = path.relative_to(root).parts
    return f"{parts[0]}/" if len(parts) > 1 else "top"


def print_row(name: str, density: Density) -> None:
    wide = 100 * density.over_100 / max(1, density.non_blank)
    very_wide = 100 * density.over_120 / max(1, density.non_blank)
    rates = "".join(f"{density.per_1000(kind):>15.1f}" for kind in KINDS)
    print(
        f"{name:<12}{density.files:>6}{density.lines:>8,}{density.non_blank:>11,}"
        f"{density.mean_width():>7.1f}{wide:>8.1f} %{very_wide:>6.1f} %{rates}"
    )


def main(root: Path) -> None:
    print(f"{'':<44}{'lines over':>16}    per 1,000 non-blank lines")
    head = f"{'':<12}{'files':>6}{'lines':>8}{'non-blank':>11}{'width':>7}{'100':>10}{'120':>8}"
    print(head + "".join(f"{kind:>15}" for kind in KINDS))
    files = code_files(root)
    by_folder = {}
    for path in files:
        by_folder.setdefault(folder_of(path, root), []).append(path)
    for folder in sorted(by_folder):
        print_row(folder, measure(by_folder[folder]))
    print_row("all", measure(files))
    there = [path for path in hour_files(root) if path.is_file()]
    print_row("the hour", measure(there))
    print(f"\nthe hour: {measure(there).lines:,} lines, at most {HOUR_LINES:,}")
    for path in there:
        print(f"  {str(path.relative_to(root)):<18}{measure([path]).lines:>6}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
