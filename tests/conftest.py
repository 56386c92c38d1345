"""Fixtures every test may use."""

import os
import platform
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parent.parent

# Time says nothing on a machine that does other work as well.
settings.register_profile("florentune", deadline=None)
settings.load_profile("florentune")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real pages and broken inputs beside a checkout; tests that need it skip where it is missing."""
    folder = Path(os.environ.get("FLORENTUNE_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no folder of real data at {folder} (set FLORENTUNE_SHARED)")
    return folder


@pytest.fixture
def florentune(monkeypatch, capsys):
    """Runs a command line in this process: its exit code, standard output and standard error."""
    from florentune.cli import main

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["florentune", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        output = capsys.readouterr()
        return stop.value.code or 0, output.out, output.err

    return run


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium, driven by Playwright (a module long, since its event loop is in the way of asyncio's own)."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


def pytest_addoption(parser):
    parser.addoption("--torture-report", type=Path, help="write what the torture tests counted into this Markdown file")


def pytest_terminal_summary(terminalreporter, config):
    """One row for each torture test: how it ended, how long it took, and what it gave to `record_property`."""
    target = config.getoption("--torture-report")
    done = [report for group in terminalreporter.stats.values() for report in group if _is_torture(report)]
    if target is None or not done:
        return
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    lines = [
        "# What the torture tests counted",
        "",
        f"`make torture` on {os.cpu_count()} cores, Python {platform.python_version()}, {packages}.",
        "",
        "| test | result | seconds | counted |",
        "|---|---|---|---|",
    ]
    for report in sorted(done, key=lambda report: report.nodeid):
        counted = ", ".join(f"{value} {name}" for name, value in report.user_properties)
        name = report.nodeid.split("::")[-1]
        lines.append(f"| `{name}` | {report.outcome} | {report.duration:.0f} | {counted} |")
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _is_torture(report):
    return getattr(report, "when", None) == "call" and "torture" in getattr(report, "keywords", ())
