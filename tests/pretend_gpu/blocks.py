"""Which lines only a GPU reaches, and whether a run on the pretended GPU has reached them.

A block is a list of statements: what stands under an `if`, in a loop, in a function. GPU blocks are
those under a condition that asks for the GPU, the functions below, and all blocks within. While
this is installed, every GPU block of the project notes that it has been reached.
"""

import ast
import builtins
import sys
from importlib.machinery import PathFinder, SourceFileLoader
from pathlib import Path

ROOT = Path(__file__).parents[2]
ASKS_FOR_GPU = ("cuda", "has_kernel", "takes_packed", "use_graphs")
# Functions that are called from nowhere else.
FUNCTIONS = {
    "fast/head.py": ("ProductOfBf16", "install_norms", "norm"),
    "fast/nucleus.py": ("nucleus_by_halving", "threshold"),
    "fast/packed.py": ("flash_attention", "packed_attention"),
    "fast/paged_kernel.py": ("paged_attention",),
    "fast/sampling.py": ("recorded_step",),
}
FOLDERS = ("", "data", "fast", "plumbing", "study", "tools")


def source_files() -> list[str]:
    """The project's own, relative to its root."""
    names = []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).glob("*.py")):
            names.append(path.relative_to(ROOT).as_posix())
    return names


def gpu_blocks(tree: ast.Module, name: str) -> list[list[ast.stmt]]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            if node.name in FUNCTIONS.get(name, ()):
                found += blocks_within(node)
        elif isinstance(node, ast.If):
            condition = ast.unparse(node.test)
            if "== 'cpu'" in condition and node.orelse:
                found += [node.orelse, *blocks_of(node.orelse)]
            elif any(word in condition for word in ASKS_FOR_GPU):
                found += [node.body, *blocks_of(node.body)]
    unique = {first_line(block): block for block in found}
    return list(unique.values())


def blocks_within(node: ast.AST) -> list[list[ast.stmt]]:
    """All blocks below a statement. Those of a class are no code that is reached."""
    found = []
    for field in ("body", "orelse", "finalbody", "handlers"):
        parts = getattr(node, field, [])
        if field == "handlers":
            for handler in parts:
                found += [handler.body, *blocks_of(handler.body)]
        elif parts:
            if not isinstance(node, ast.ClassDef):
                found.append(parts)
            found += blocks_of(parts)
    return found


def blocks_of(statements: list[ast.stmt]) -> list[list[ast.stmt]]:
    found = []
    for statement in statements:
        found += blocks_within(statement)
    return found


def first_line(block: list[ast.stmt]) -> int:
    """Of the first statement that is no docstring."""
    return block[place_of_first(block)].lineno


def place_of_first(block: list[ast.stmt]) -> int:
    first = block[0]
    is_text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return 1 if is_text and len(block) > 1 else 0


def all_blocks() -> dict[str, str]:
    """ "file:line" of every GPU block -> the text of that line."""
    found = {}
    for name in source_files():
        text = (ROOT / name).read_text(encoding="utf-8")
        for block in gpu_blocks(ast.parse(text), name):
            line = first_line(block)
            found[f"{name}:{line}"] = text.splitlines()[line - 1].strip()
    return found


class Noting(SourceFileLoader):
    """Compiles a file with a note at the beginning of each GPU block."""

    def get_code(self, fullname):
        path = self.get_filename(fullname)
        tree = ast.parse(self.get_data(path))
        name = Path(path).relative_to(ROOT).as_posix()
        for block in gpu_blocks(tree, name):
            note = ast.parse(f"reached_on_gpu.add('{name}:{first_line(block)}')").body[0]
            place = place_of_first(block)
            for node in ast.walk(note):
                ast.copy_location(node, block[place])
            block.insert(place, note)
        return compile(tree, path, "exec")


class Finder:
    @staticmethod
    def find_spec(fullname, path=None, target=None):
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.origin is None or not spec.origin.startswith(f"{ROOT}/"):
            return None
        if Path(spec.origin).relative_to(ROOT).as_posix() not in source_files():
            return None
        spec.loader = Noting(fullname, spec.origin)
        return spec


def install() -> set[str]:
    """Note the GPU blocks of what is imported from here on -> the set that they are noted in."""
    builtins.reached_on_gpu = set()
    sys.meta_path.insert(0, Finder)
    return builtins.reached_on_gpu
