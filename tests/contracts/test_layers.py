"""Imports run one way, down the list of rooms in CONTRIBUTING, and never in a circle; lazy and type-only ones count."""

from __future__ import annotations

import ast
from pathlib import Path

import longtail

ROOT = Path(longtail.__file__).parent
FILES = {
    ".".join(file.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): file
    for file in sorted(ROOT.rglob("*.py"))
}
LAYERS = [
    {"__main__"},
    {"cli"},
    {"commands"},
    {"experiments", "integrations", "report"},
    {"training", "predict", "compare"},
    {"run"},
    {"analysis", "config"},
    {"evaluation"},
    {"models"},
    {"data"},
    {"losses", "ray_cluster"},
    {"device", "files", "validation"},
    {"remote"},
    {"counts", "errors", "console"},
    {"formatting", "version"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}


def imports(name: str) -> set[str]:
    """Return the modules of ours that a module imports anywhere in its file."""
    targets = set()
    for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            # ``from longtail.run import checkpoint`` names a module alone; a class or function is the package's own.
            targets |= parts if parts <= FILES.keys() else parts | {node.module}
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOME":
            # The files that a package imports its public names from, when they are first asked for.
            targets |= {f"{name}.{file}" for file in ast.literal_eval(node.value).values()}
    return {target for target in targets & FILES.keys() if target != name}


def room(name: str) -> str:
    return name.split(".")[1]


def test_every_import_runs_down_the_list() -> None:
    wrong = [
        f"{name} -> {target}"
        for name in FILES
        if "." in name
        for target in imports(name)
        if "." not in target or (room(name) != room(target) and LEVEL[room(target)] <= LEVEL[room(name)])
    ]
    assert not wrong


def test_no_import_goes_in_a_circle() -> None:
    left = {name: imports(name) for name in FILES}
    while free := [name for name, targets in left.items() if not targets & left.keys()]:
        for name in free:
            del left[name]
    assert not left
