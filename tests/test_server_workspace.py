"""The server's folder in the temporary directory: its own while it lives, nobody's after kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from florentune.server.workspace import Workspace

HOLD = """
import time
from florentune.server.workspace import Workspace
print(Workspace().folder, flush=True)
time.sleep(60)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_is_private_and_goes_with_what_is_in_it(place):
    workspace = Workspace()
    assert list(place.iterdir()) == [workspace.folder]
    assert workspace.folder.stat().st_mode & 0o777 == 0o700
    (workspace.folder / "upload").write_bytes(b"x")
    workspace.remove()
    assert not list(place.iterdir())


def test_what_a_killed_server_left_goes_at_the_next_start_and_what_lives_stays(place):
    with subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True) as other:
        theirs = place / os.path.basename(other.stdout.readline().strip())
        (theirs / "upload").write_bytes(b"x")
        Workspace().remove()
        assert (theirs / "upload").is_file(), "a server that lives keeps its folder"
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert theirs.is_dir()
    Workspace().remove()
    assert not theirs.exists()


def test_only_folders_of_the_name_are_touched_and_links_are_not_followed(place):
    (place / "precious").mkdir()
    (place / "precious" / "file").write_bytes(b"x")
    (place / "florentune-server-link").symlink_to(place / "precious")
    (place / "florentune-server-file").write_bytes(b"x")
    Workspace().remove()
    assert (place / "precious" / "file").is_file()
    assert (place / "florentune-server-file").is_file()
