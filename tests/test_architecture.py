"""The map: what each room may import from its siblings. Edit it on purpose, together with docs/design.md."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "florentune"
MAP = {
    "errors": "",
    "files": "errors",
    "regions": "errors",
    "scores": "",
    "images": "errors",
    "locations": "errors regions",
    "formats": "errors files regions locations images",
    "synth": "errors files regions formats",
    "model": "errors files regions locations images",
    "grammar": "errors locations",
    "engines": "errors files model grammar",
    "detector": "errors files regions scores locations images model grammar engines",
    "evaluation": "errors files regions scores formats",
    "report": "errors files regions images formats evaluation",
    "training": "errors files regions locations images formats model grammar engines detector evaluation report",
    "pdf": "errors files regions images",
    "extraction": "errors files regions images pdf detector",
    "server": "errors files regions images pdf detector extraction",
    "cli": "errors files regions scores locations images formats synth model grammar engines detector evaluation "
    "report training pdf extraction server",
    "": "errors regions formats detector training evaluation",
    "__main__": "cli",
}
ALLOWED = {room: set(names.split()) for room, names in MAP.items()}
NEEDS_TORCH = (
    "engines.torch_engine",
    "engines.export",
    "engines.graph",
    "model.florence",
    "model.adapters",
    "model.conversion",
)


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def room_of(module: str) -> str:
    return module.split(".")[0]


def imports_of(path: Path) -> set[str]:
    """The rooms of this package that a file imports, inside functions too."""
    package = list(path.relative_to(PACKAGE).parent.parts)
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            full = [*base, *(node.module.split(".") if node.module else [])]
            rooms |= {full[0]} if full else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            absolute = [name for name in names if name.split(".")[0] == PACKAGE.name]
            assert not absolute, f"{path}: import siblings relatively, not {absolute}"
    return rooms


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def test_every_room_is_on_the_map():
    assert {room_of(module) for module in MODULES} <= set(MAP)


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_map(module):
    room = room_of(module)
    extra = imports_of(MODULES[module]) - ALLOWED[room] - {room} - {"__version__"}
    assert not extra, f"{module or 'the package'} may not import {sorted(extra)}"


def test_the_map_has_no_cycles():
    list(TopologicalSorter(ALLOWED).static_order())


def test_the_light_modules_import_no_heavy_package():
    """Everything but training and the torch modules imports without torch, transformers and matplotlib."""
    light = [m for m in MODULES if m and not m.startswith((*NEEDS_TORCH, "training", "server", "__main__"))]
    blocked = [
        "torch",
        "transformers",
        "accelerate",
        "peft",
        "matplotlib",
        "typst",
        "fastapi",
        "ray",
        "pyarrow",
        "onnx",
        "faster_coco_eval",
    ]
    code = f"import sys\nfor name in {blocked}: sys.modules[name] = None\nimport importlib\n"
    code += f"for name in {light}: importlib.import_module('florentune.' + name)\n"
    subprocess.run([sys.executable, "-c", code], check=True)
