"""What the documents show is true: every command parses, every snippet compiles, and what can run here runs (slow)."""

import ast
import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import typer
import yaml

from documents import ALL, NOT_RUN, PAGES, ROOT, Block, blocks, simple_commands
from florentune.cli import build_app
from florentune.training.config import KEYS
from florentune.training.foreign_keys import NO_EFFECT, UNSUPPORTED

OTHERS = ("curl", "hf", "python", "python3", "sed", "podman", "openssl", "export", "split", "printf", ".")
LAUNCHERS = ("torchrun", "accelerate", "srun")
UNFINISHED = ("MissingParameter", "NoArgsIsHelpError", "BadOptionUsage")  # what a sentence may leave out
ALONE = ("docs/tutorial.md",)  # begins in an empty folder; other pages find the files they name
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def named(block):
    return block.place


@pytest.mark.parametrize("block", ALL, ids=named)
def test_no_block_escapes(block):
    assert block.check != "unknown", f"{block.place}: give the fence a language that tests/documents.py checks"
    if block.mark in ("parsed", "run"):
        assert block.reason, f"{block.place}: say why it is not simply run"


@pytest.mark.parametrize("block", [block for block in ALL if block.language == "text"], ids=named)
def test_no_command_hides_in_plain_text(block):
    assert not re.search(r"^(\$ )?(florentune|pip|python|curl) [\w'-]", block.text, re.M), "make it a console block"


@pytest.mark.parametrize("block", [block for block in ALL if block.check != "theirs" and block.commands], ids=named)
def test_commands_parse(block):
    checked = subprocess.run(["bash", "-n"], input="\n".join(block.commands), capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    for line in block.commands:
        for words in simple_commands(line):
            parse(words)


def parse(words):
    """Read one command with what would read it: the real parser, pyproject.toml, the Makefile, the file it names."""
    program, *rest = words
    if program in LAUNCHERS and "-m" in rest:
        parse_florentune(rest[rest.index("-m") + 2 :])
    elif program in LAUNCHERS:
        script = next(index for index, word in enumerate(rest) if word.endswith(".py"))
        parse_file(rest[script], rest[script:])
    elif program == "florentune":
        parse_florentune(rest)
    elif program == "pip":
        extras = [name for word in rest for name in re.findall(r"florentune\[([\w,]+)\]", word)]
        assert {name for found in extras for name in found.split(",")} <= set(PROJECT["optional-dependencies"])
    elif program == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert all(re.search(rf"^{word}:", makefile, re.M) for word in rest), rest
    elif program in ("python", "python3", "pytest") and rest[0] != "-c":
        parse_file(next((word for word in rest if word.endswith(".py")), None), rest)
    else:
        assert program in (*OTHERS, *NOT_RUN), f"{program}: a program no test knows"


@functools.cache
def command_line():
    """The real parser."""
    return typer.main.get_command(build_app())


def parse_florentune(words):
    """Parse as `main` does, without running anything; the keys of `train` are those that a configuration may hold."""
    app = command_line()
    words = [re.sub(r"\$\{?\w+\}?", "1", word) for word in words]
    context = app.make_context("florentune", words)
    name, command, rest = app.resolve_command(context, context._protected_args + context.args)
    parsed = command.make_context(name, list(rest), parent=context)
    if name == "train":
        for override in parsed.params["overrides"] or ():
            key = override.partition("=")[0]
            assert key in {*KEYS, *NO_EFFECT, *UNSUPPORTED}, f"{key} is no key of a configuration"


def parse_file(name, words):
    """A Python file that is named is there and has the options, or the tests, that are given to it."""
    if name is None:
        return
    text = (ROOT / name).read_text(encoding="utf-8")
    if name.startswith("tests/test_"):
        wanted = words[words.index("-k") + 1] if "-k" in words else "test_"
        assert re.search(rf"def test_\w*{wanted}|{wanted}", text), f"{name} has no test {wanted}"
        return
    for option in (word for word in words[words.index(name) :] if word.startswith("--")):
        assert f'"{option}"' in text, f"{name} has no option {option}"


@pytest.mark.parametrize("block", [block for block in ALL if block.language == "python"], ids=named)
def test_snippets_compile_and_import_what_is_there(block):
    from importlib import import_module

    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("florentune"):
            for name in node.names:
                assert hasattr(import_module(node.module), name.name), f"{node.module} has no {name.name}"


@pytest.mark.parametrize("block", [block for block in ALL if block.check == "read"], ids=named)
def test_configurations_hold_known_keys(block):
    data = json.loads(block.text) if block.language == "json" else yaml.safe_load(block.text)
    if block.language == "yaml" and "dataset" in data:
        assert {*data} <= {*KEYS, *NO_EFFECT, *UNSUPPORTED}


@pytest.mark.parametrize("block", [block for block in ALL if block.language in ("ini", "dockerfile")], ids=named)
def test_services_start_a_command_that_parses(block):
    lines = re.findall(r"^ExecStart=\S*/(florentune .*)$", block.text, re.M)
    lines += [shlex.join(json.loads(found)) for found in re.findall(r"^CMD (\[\"florentune.*\])$", block.text, re.M)]
    assert lines
    for line in lines:
        parse(shlex.split(line))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_in_the_text_parse(page):
    """`florentune ...` in a table or a sentence is held to the same parser; it may leave out what is required."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for line in re.findall(r"`(florentune [a-z][^`]*)`", text):
        if "..." not in line and "NAME" not in line:
            for words in simple_commands(line):
                unfinished(words)


def unfinished(words):
    """Parse a command of a sentence."""
    try:
        parse(words)
    except typer.Exit:
        pass
    except Exception as error:  # click's, or the copy of click inside newer typers: known by name only
        if type(error).__name__ not in UNFINISHED:
            raise


# What runs. Pages find the files they name; each page has a folder of its own.


@pytest.fixture(scope="session")
def stage(tmp_path_factory):
    """A folder with everything the pages speak of: pages, papers, annotations, models."""
    folder = tmp_path_factory.mktemp("stage")
    shell(folder, "florentune synth data --pages 12 --seed 3 --pdf && mkdir scans pages papers dataset runs my_data")
    images = sorted((folder / "data/images").glob("*.png"))
    for name, image in zip(
        ("page.png", "page-1.png", "page-2.png", "scans/1.png", "scans/2.png"), images, strict=False
    ):
        shutil.copy(image, folder / name)
    for image in images:
        shutil.copy(image, folder / "pages" / image.name)
    shutil.make_archive(str(folder / "pages"), "zip", folder / "pages")
    papers = sorted((folder / "data/pdfs").glob("*.pdf"))
    for name in ("paper.pdf", "papers/a.pdf", "papers/b.pdf"):
        shutil.copy(papers[name == "papers/b.pdf"], folder / name)
    shutil.copy(folder / "data/annotations.json", folder / "annotations.json")
    shell(folder, "florentune convert annotations.json data/ --to coco --split 75/25 --group-by '^(paper_[0-9]+)_'")
    for part in ("train", "val"):
        (folder / f"data/annotations_{part}.json").rename(folder / f"data/{part}.json")
    shell(folder, "florentune export nano runs/tables/best --to native && cp -r runs/tables runs/mine")
    shutil.copytree(folder / "runs/tables/best", folder / "runs/old")
    broken = json.loads((folder / "runs/old/config.json").read_text())
    broken["text_config"]["model_type"] = "florence2_language"
    (folder / "runs/old/config.json").write_text(json.dumps(broken))
    for name in ("examples", "benchmarks", "docs", "tests"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def shell(folder: Path, command: str, exit_code: int = 0) -> str:
    """What one command of a page prints in a reader's shell: bash, 80 columns, florentune on the path."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "COLUMNS": "80", "HF_HUB_OFFLINE": "1"}
    run = ["bash", "-o", "pipefail", "-c", command]
    done = subprocess.run(run, cwd=folder, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == exit_code, f"{command}\nexit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


RUNNING = [page for page in PAGES if any(block.check == "run" for block in blocks(page))]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", RUNNING, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_shows_runs(page, request, tmp_path, monkeypatch):
    folder = tmp_path / "reader"
    if page.relative_to(ROOT).as_posix() in ALONE:
        folder.mkdir()
    else:
        shutil.copytree(request.getfixturevalue("stage"), folder, symlinks=True)
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    servers: list[subprocess.Popen[bytes]] = []
    try:
        for block in blocks(page):
            if block.check == "background":
                servers.append(serving(folder, block))
            else:
                perform(block, folder, names)
    finally:
        for server in servers:
            server.terminate()
            server.wait(timeout=60)


def perform(block: Block, folder: Path, names: dict[str, object]) -> None:
    """Run a block, or save it where it is a file of its own."""
    if block.file and block.check == "read":
        (folder / block.file).write_text(block.text, encoding="utf-8")
    if block.check != "run":
        return
    if block.language == "python":
        exec(compile(block.text, block.place, "exec"), names)
    for line, shown in block.steps:
        if not any(words[0] in NOT_RUN for words in simple_commands(line)):
            printed = shell(folder, line, block.exit_code)
            missing = [text for text in shown if text not in printed]
            assert not missing, f"{block.place} shows what {line!r} does not print:\n{missing}\n{printed}"
    if block.language == "js":
        (folder / "snippet.mjs").write_text(block.text, encoding="utf-8")
        shell(folder, "node snippet.mjs")


def serving(folder: Path, block: Block) -> "subprocess.Popen[bytes]":
    """The server of a page, ready to be asked."""
    import time

    program = [str(Path(sys.executable).parent / "florentune"), *shlex.split(block.commands[0])[1:]]
    server = subprocess.Popen(program, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        assert server.poll() is None, f"{block.place} ended with {server.returncode}"
        try:
            urllib.request.urlopen("http://127.0.0.1:8000/readyz")
            return server
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
    server.terminate()
    raise AssertionError(f"{block.place} is not ready after two minutes")
