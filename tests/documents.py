"""The blocks of code and commands that the documents show, and how each one is checked.

python tests/documents.py           list every block with how it is checked

A block is a fence with a language. What its language is decides how it is checked, unless a comment stands before it:

    <!-- parsed: why it cannot be run here -->    read by the real argument parser, not run
    <!-- background -->                           started before the rest of the page, ended after it (a server)
    <!-- run: exits with 1 because ... -->        run, and must end with that code
    <!-- theirs -->                               a command of another program, shown for comparison
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "recipes/**/*.md", ".github/**/*.md")
    for page in ROOT.glob(pattern)
    if page.relative_to(ROOT).as_posix() != "docs/reference/commands.md"  # made from --help; has no block of its own
)
CHECKS = {
    "console": "run",
    "sh": "run",
    "python": "run",
    "yaml": "read",
    "json": "read",
    "js": "run",
    "nginx": "shown",
    "ini": "shown",
    "dockerfile": "shown",
    "text": "shown",
}
MARK = re.compile(r"\s*<!-- (parsed|background|run|theirs)(?::\s*(.*?))?\s*-->\s*$", re.S)
EXIT = re.compile(r"exits with (\d+)")
NOT_RUN = ("pip", "make", "pytest", "git")  # they set up, or run, what runs this


@dataclass(frozen=True)
class Block:
    """One fence: where it stands, what it holds and how it is checked."""

    page: Path
    line: int
    language: str
    text: str
    mark: str = ""
    reason: str = ""

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"

    @property
    def check(self) -> str:
        """run, parsed, background, theirs, read or shown; `unknown` for what nobody would check."""
        if self.mark and CHECKS.get(self.language) == "run":
            return self.mark
        return "unknown" if self.mark else CHECKS.get(self.language, "unknown")

    @property
    def exit_code(self) -> int:
        found = EXIT.search(self.reason)
        return int(found[1]) if found else 0

    @property
    def commands(self) -> list[str]:
        """The commands of a console or sh block as bash reads them, continued lines joined."""
        return [command for command, _ in self.steps]

    @property
    def steps(self) -> list[tuple[str, list[str]]]:
        """The commands of a console or sh block, each with the lines of its output that are shown below it."""
        if self.language not in ("console", "sh"):
            return []
        text = re.sub(r"\\\n\s*", "", self.text)
        steps = [(line, []) for line in text.splitlines()] if self.language == "sh" else _typed(text)
        return [step for step in steps if step[0].strip() and not step[0].lstrip().startswith("#")]

    @property
    def file(self) -> str | None:
        """The name of the file that the block is to be saved under: its first line is `# name.yaml`."""
        found = re.match(r"# (\S+\.\w+)\n", self.text)
        return found[1] if found else None


def _typed(text: str) -> list[tuple[str, list[str]]]:
    """What is typed after each `$ ` of a console block, a loop up to its `done`, and what is shown as its output."""
    found = re.finditer(r"^\$ (for .*?^ *done$|.*?$)(.*?)(?=^\$ |\Z)", text, re.M | re.S)
    return [(step[1], [line for line in step[2].splitlines() if line.strip()]) for step in found]


def blocks(page: Path) -> list[Block]:
    """Every block of a page, in order."""
    found, mark = [], None
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        if token.type in ("fence", "code_block"):
            name = token.info.split()[0] if token.info else ""
            kind, reason = (mark[1], mark[2] or "") if mark else ("", "")
            found.append(Block(page, (token.map or [0])[0] + 1, name, token.content, kind, reason))
        mark = MARK.match(token.content) if token.type == "html_block" else None
    return found


def simple_commands(line: str) -> list[list[str]]:
    """The programs that a line of bash starts, each with its words; redirections and loop words are left out."""
    lexer = shlex.shlex(line.replace("\n", " ; "), posix=True, punctuation_chars=True)
    lexer.commenters = "#"
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set(";&|()<>\n") and word:
            found.append(["<"] if word in (">", ">>", "<") else [])
        elif word not in ("do", "done", "time") and not (not found[-1] and re.match(r"[A-Z_]+=", word)):
            found[-1].append(word)
    return [words for words in found if words and words[0] not in ("<", "for")]


ALL = [block for page in PAGES for block in blocks(page)]


if __name__ == "__main__":
    for block in ALL:
        first = next(iter(block.commands), block.text.split("\n")[0])
        print(f"{block.place:<40} {block.language:<10} {block.check:<10} {first[:60]}  {block.reason}".rstrip())
