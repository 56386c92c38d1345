"""Hub ids against a small server that speaks the hub's protocol, reached as users reach a mirror: HF_ENDPOINT."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from florentune.model.hub import is_hub_id
from tiny_model import tiny_checkpoint

pytest.importorskip("huggingface_hub")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
NEVER = ("modeling_florence2.py", "pytorch_model.bin", "optimizer.pt", "README.md", "extra/config.json")


class Hub(ThreadingHTTPServer):
    """One repository, owner/tiny, with one revision (also called v1); remembers what was asked of it."""

    daemon_threads = True

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}
        self.asked = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        path = self.path.split("?")[0].strip("/")
        self.server.asked.append(path)
        api = "api/models/owner/tiny"
        if path in (api, f"{api}/revision/main", f"{api}/revision/v1", f"{api}/revision/{COMMIT}"):
            siblings = [{"rfilename": name} for name in self.server.files]
            return self.send(200, {"id": "owner/tiny", "sha": COMMIT, "siblings": siblings, "private": False}, body)
        if path.startswith(f"{api}/tree/"):
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in self.server.files.items()
            ]
            return self.send(200, tree, body)
        start = f"owner/tiny/resolve/{COMMIT}/"
        if path.startswith(start) and path.removeprefix(start) in self.server.files:
            return self.send(200, self.server.files[path.removeprefix(start)], body)
        return self.send(404, {"error": "Repository not found"}, body, error="RepoNotFound")

    def send(self, status, value, body, error=None):
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    folder = tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny")
    for name in NEVER:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("raise SystemExit('this must never be fetched')")
    server = Hub(folder)
    yield server
    server.shutdown()


def run(code, cache, **environment):
    """Code in a child, as huggingface_hub reads its environment on import; returns (exit code, stdout, stderr)."""
    setting = {**os.environ, "HF_HOME": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
    setting |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment}
    done = subprocess.run([sys.executable, "-c", code], env=setting, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.strip(), done.stderr


OPEN = """
from florentune.errors import FlorentuneError
from florentune.model.checkpoint import open_checkpoint
try:
    found = open_checkpoint({source!r})
    print(found.path, found.labels)
except FlorentuneError as error:
    raise SystemExit(f"error: {{error}}")
"""


def test_a_hub_id_is_downloaded_once_and_then_found_offline(hub, tmp_path):
    hub.asked.clear()
    code, out, error = run(OPEN.format(source="owner/tiny@v1"), tmp_path, HF_ENDPOINT=hub.url)
    assert code == 0, error
    assert out.endswith("('table', 'figure')")
    assert COMMIT in out
    fetched = {path.rpartition(f"{COMMIT}/")[2] for path in hub.asked if "/resolve/" in path}
    assert fetched == set(hub.files) - set(NEVER)
    hub.asked.clear()
    code, again, error = run(OPEN.format(source="owner/tiny@v1"), tmp_path, HF_HUB_OFFLINE="1")
    assert (code, again) == (0, out), error
    assert hub.asked == []


@pytest.mark.parametrize(
    ("source", "setting", "word"),
    [
        ("owner/absent", {}, "cannot be downloaded"),
        ("owner/tiny@no-such-revision", {}, "cannot be downloaded"),
        ("owner/tiny", {"HF_HUB_OFFLINE": "1"}, "not in the local cache"),
        ("owner/tiny", {"HF_ENDPOINT": "http://127.0.0.1:9"}, "not in the local cache"),
    ],
)
def test_what_cannot_be_had_is_one_line(hub, tmp_path, source, setting, word):
    code, _, error = run(OPEN.format(source=source), tmp_path, **{"HF_ENDPOINT": hub.url, **setting})
    assert code == 1
    assert error.startswith("error: ")
    assert word in error
    assert len(error.strip().splitlines()) == 1


def test_what_is_a_hub_id():
    yes = ["microsoft/Florence-2-base-ft", "a/b", "a/b.c_d-1", "a/b@39ddb416", "a/b@refs/pr/6"]
    no = ["nano", "a/b/c", "/a/b", "./a", "../a/b", "a b/c", "a/b@", "-a/b", "https://a/b", ""]
    assert [is_hub_id(source) for source in yes] == [True] * len(yes)
    assert [is_hub_id(source) for source in no] == [False] * len(no)
