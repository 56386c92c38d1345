"""Write the reference: what every command says of itself, and what Python code may use.

python docs/reference.py            rewrite docs/reference/commands.md and docs/reference/python.md
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import typer

import florentune
from florentune.cli import COMMANDS, build_app

PAGES = Path(__file__).resolve().parent / "reference"
MODULES = ("regions", "detector", "errors")
ROOMS = ("formats", "evaluation", "extraction", "training", "pdf", "synth", "server")
_MADE = "<!-- made by docs/reference.py from the code: change it there -->\n"


def commands() -> str:
    """docs/reference/commands.md: the help of every command at 80 columns."""
    app = typer.main.get_command(build_app())
    quiet = {"resilient_parsing": True, "terminal_width": 78, "max_content_width": 78}
    top = app.make_context("florentune", [], **quiet)
    parts = [_MADE, "# Commands\n", "What `--help` prints, and nothing else.\n", _fenced(app.get_help(top))]
    for name in COMMANDS:
        command = app.commands[name]
        context = command.make_context(name, [], parent=top, **quiet)
        parts += [f"## {name}\n", _fenced(command.get_help(context))]
    return "\n".join(parts)


def _fenced(text: str) -> str:
    return "\n".join(["```text", *(line.rstrip() for line in text.strip().splitlines()), "```\n"])


def python() -> str:
    """docs/reference/python.md: the public names, each documented by its docstring when the site is built."""
    parts = [_MADE, "# Python\n", "From `florentune` itself come:\n"]
    parts += [f"- [`florentune.{name}`][florentune.{home}.{name}]" for name, home in florentune._PUBLIC.items()]
    parts.append("")
    for module in MODULES:
        parts += [f"## florentune.{module}\n", f"::: florentune.{module}", "    options: {show_root_heading: false}\n"]
    for room in ROOMS:
        parts.append(f"## florentune.{room}\n")
        parts += [f"::: florentune.{room}.{name}\n" for name in import_module(f"florentune.{room}").__all__]
    return "\n".join(parts)


MADE = {"commands.md": commands, "python.md": python}


if __name__ == "__main__":
    for page, make in MADE.items():
        (PAGES / page).write_text(make(), encoding="utf-8")
