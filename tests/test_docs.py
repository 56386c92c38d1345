"""The documents say what is there."""

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from test_documents import unfinished

ROOT = Path(__file__).parent.parent


def script(name):
    """A program of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_holds_the_tree_of_the_package():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert script("readme_tree").updated(readme) == readme, "run: python docs/readme_tree.py"


@pytest.mark.parametrize("page", ["commands.md", "python.md"])
def test_the_reference_is_what_the_code_says(page):
    written = (ROOT / "docs" / "reference" / page).read_text(encoding="utf-8")
    assert script("reference").MADE[page]() == written, "run: python docs/reference.py"


def test_the_training_page_lists_every_key_with_its_default():
    from florentune.training.config import KEYS

    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.*?) ?\| (.*) \|$", text.split("## All keys")[1], re.M)
    assert [name for name, _, _ in rows] == list(KEYS)
    for name, default, phrase in rows:
        key = KEYS[name]
        assert default == shown(key.default), name
        assert phrase.startswith(key.metadata["help"]), name


def shown(default):
    """A default as the table writes it."""
    if isinstance(default, tuple):
        return ",".join(default)
    return "" if default is None else str(default).lower() if isinstance(default, bool) else str(default)


def test_help_fits_80_columns():
    text = (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if len(line) > 80] == []


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The site as `make docs` builds it: any warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    program = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "true"}
    done = subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_loads_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]* src=\"(https?:[^\"]+)", text)
        loaded += re.findall(r"<link[^>]* href=\"(https?:[^\"]+)", text)
        assert loaded == [], page.name


def test_links_inside_the_site_lead_somewhere(site):
    for page in site.rglob("*.html"):
        for target in re.findall(r"href=\"([^\"#?:]+)[\"#?]", page.read_text(encoding="utf-8")):
            if page.name != "404.html":
                assert (page.parent / target).exists(), f"{page.relative_to(site)} links to {target}"


def test_the_python_reference_has_every_public_name(site):
    import florentune

    text = (site / "reference" / "python.html").read_text(encoding="utf-8")
    for name, home in florentune._PUBLIC.items():
        assert f'id="florentune.{home}.{name}"' in text, name


@pytest.mark.parametrize(
    "page", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("recipes/**/*.md")])
)
def test_links_between_documents_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_command_is_in_the_readme():
    from florentune.cli import COMMANDS

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f"`{name}`" not in readme] == []


def yaml_file(name):
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_hooks_start_what_is_there():
    (repo,) = yaml_file(".pre-commit-config.yaml")["repos"]
    for hook in repo["hooks"]:
        python, *words = hook["entry"].split()
        assert python == ".venv/bin/python", "the tools of .venv, so that a hook and `make check` agree"
        if words[0] == "-m":
            assert importlib.util.find_spec(words[1]), hook["id"]
        assert all((ROOT / word).exists() for word in words if word.endswith(".py")), hook["id"]


def test_the_workflow_runs_what_a_person_runs():
    jobs = yaml_file(".github/workflows/test.yml")["jobs"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = [step["run"].split() for job in jobs.values() for step in job["steps"] if "run" in step]
    commands += [line.split() for line in (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines() if "make" in line]
    for program, target in commands:
        assert program in ("make", "bash")
        assert (ROOT / target).is_file() if program == "bash" else re.search(rf"^{target}:", makefile, re.M), target
    tried = {f"Programming Language :: Python :: {version}" for version in jobs["test"]["strategy"]["matrix"]["python"]}
    assert tried <= set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"])


@pytest.mark.parametrize("form", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")), ids=lambda form: form.stem)
def test_issue_forms_ask_for_something_and_name_commands_that_parse(form):
    text = form.read_text(encoding="utf-8")
    asked = yaml.safe_load(text)
    if form.stem != "config":
        assert {"name", "description", "body"} <= asked.keys()
        assert any(field.get("validations", {}).get("required") for field in asked["body"])
    for line in re.findall(r"`(florentune [^`]+)`", text):
        unfinished(line.split())
