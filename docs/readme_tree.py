"""Write the tree of the package into README.md: one phrase a file, taken from the file's own docstring.

python docs/readme_tree.py          rewrite the block
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
START, END = "<!-- tree -->", "<!-- /tree -->"
AROUND = {
    "examples/": "the demo and training configurations, each run by a test",
    "recipes/nano/": "how nano was made: teacher labels, data, network, training, one README",
    "benchmarks/": "comparisons with peers, each one command",
    "tests/": "one file a module; tests/test_architecture.py holds the map",
    "docs/": "what the commands do and why it is built so",
}


def phrase(file: Path) -> str:
    """The first sentence of a module's docstring, in one line."""
    text = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split("\n\n")[0].replace("\n", " ")
    return text.rstrip(".")


def tree() -> str:
    """The block of README.md between the two marks."""
    package = ROOT / "src" / "florentune"
    lines = ["```text", "src/florentune/"]
    for file in sorted(package.glob("*.py")):
        lines.append(f"  {file.name:<20} {phrase(file)}")
    for folder in sorted(path for path in package.iterdir() if (path / "__init__.py").exists()):
        lines.append(f"  {folder.name + '/':<20} {phrase(folder / '__init__.py')}")
        files = [file for file in sorted(folder.glob("*.py")) if file.stem != "__init__"]
        lines += [f"    {file.name:<18} {phrase(file)}" for file in files]
    lines += [f"{name:<22} {text}" for name, text in AROUND.items()]
    return "\n".join([*lines, "```"])


def updated(readme: str) -> str:
    """README text with the block as it must be."""
    before, rest = readme.split(START)
    return f"{before}{START}\n{tree()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(updated(path.read_text(encoding="utf-8")), encoding="utf-8")
