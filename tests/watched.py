"""A child process that opens hostile folders and watches itself: what ran, what was imported, written or connected."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

_WATCHER = """
import json, sys, time
{prepare}
from florentune.errors import FlorentuneError
top = sys.argv[1]
seen = []
def watch(event, arguments):
    named = str(arguments[0]) if arguments else ""
    if event in ("exec", "compile"):
        code = getattr(arguments[0], "co_filename", named)
        if str(code).startswith(top): seen.append((event, str(code)))
    elif event == "import" and named.startswith(("torch", "transformers", "configuration_", "modeling_")):
        seen.append((event, named))
    elif event in ("pickle.find_class", "subprocess.Popen", "os.system", "socket.connect", "ctypes.dlopen"):
        seen.append((event, named))
    elif event == "open" and isinstance(arguments[2], int) and arguments[2] & 3:
        seen.append((event, named))
    elif event == "open" and not named.startswith(top) and ("passwd" in named or "secret" in named):
        seen.append((event, named))
sys.addaudithook(watch)
found = {{}}
slowest = 0.0
for name in sys.argv[2:]:
    begun = time.process_time()
    try:
        {call}(top + "/" + name)
        found[name] = "opened"
    except FlorentuneError as error:
        found[name] = f"{{error.exit_code}} {{error}}"
    slowest = max(slowest, time.process_time() - begun)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
kilobytes = int(status["VmHWM"].split()[0])
print(json.dumps({{"found": found, "seen": seen, "kilobytes": kilobytes, "slowest": slowest}}))
"""


def opened_by_a_child(top: Path, names: list[str], *, prepare: str, call: str) -> dict:
    """What became of `call(top/name)` for each name, and what else happened.

    `found` maps names to "opened" or "<exit code> <message>"; `seen` lists the audit events that must not happen;
    `kilobytes` is the most memory the process ever had and `slowest` the CPU seconds of its slowest call.
    """
    code = _WATCHER.format(prepare=prepare, call=call)
    done = subprocess.run([sys.executable, "-c", code, str(top), *names], capture_output=True, text=True, cwd=top)
    assert done.returncode == 0, done.stderr[-2000:]
    answer: dict = json.loads(done.stdout)
    print(f"{len(names)} folders: {answer['kilobytes'] / 1000:.0f} MB, slowest {answer['slowest']:.2f} s")
    return answer
