"""Pickles become safetensors in a child process that can do nothing else; no other code opens them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import florentune
from florentune.cli import build_app
from florentune.errors import CheckpointError
from florentune.model.checkpoint import open_checkpoint
from tiny_model import tiny_checkpoint

torch = pytest.importorskip("torch")
conversion = pytest.importorskip("florentune.model.conversion")
from florentune.model.import_weights import _tensors, import_weights  # noqa: E402


@pytest.fixture(scope="module")
def microsoft(tmp_path_factory):
    top = tmp_path_factory.mktemp("models")
    conversion.convert_checkpoint(open_checkpoint(tiny_checkpoint(top / "native")), top / "ms", to="microsoft")
    return top / "ms"


def test_a_pickled_microsoft_model_becomes_a_folder_that_opens(microsoft, tmp_path):
    import shutil

    from safetensors.torch import load_file

    folder = shutil.copytree(microsoft, tmp_path / "model")
    original = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    shared = original["language_model.model.shared.weight"]
    tied = {f"language_model.{name}.weight": shared for name in ("model.encoder.embed_tokens", "lm_head")}
    torch.save({**original, **tied}, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match="import-weights"):
        open_checkpoint(folder)
    result = CliRunner().invoke(build_app(), ["import-weights", str(folder / "pytorch_model.bin"), str(folder)])
    assert result.exit_code == 0, result.output
    written = load_file(folder / "model.safetensors")
    assert written.keys() == original.keys()
    assert all(torch.equal(written[name], original[name]) for name in original)
    assert open_checkpoint(folder).layout == "microsoft"


class Evil:
    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.system, (f"touch '{self.mark}'",)


@pytest.mark.parametrize("content", ["evil", "other", "garbage"])
def test_anything_but_florence_weights_is_refused_and_leaves_nothing(tmp_path, content):
    mark, pickle, out = tmp_path / "ran", tmp_path / "evil.bin", tmp_path / "out"
    if content == "evil":
        torch.save({"language_model.lm_head.weight": torch.zeros(2), "args": Evil(mark)}, pickle)
    elif content == "other":
        torch.save({"encoder.weight": torch.zeros(1)}, pickle)
    else:
        pickle.write_bytes(b"not a pickle")
    word = {"evil": r"posix\.system", "other": "none of Florence-2's names", "garbage": "Unsupported operand"}[content]
    with pytest.raises(CheckpointError, match=word) as caught:
        import_weights(pickle, out)
    assert "\n" not in str(caught.value)
    assert not mark.exists()
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("content", [{"epoch": 3}, [torch.zeros(1)], {}, {3: torch.zeros(1)}, {"model": {"a": "b"}}])
def test_what_is_no_dictionary_of_tensors_is_named(content):
    with pytest.raises(ValueError, match=r"named tensor|no dictionary"):
        _tensors(content)


def test_wrapped_dictionaries_are_unwrapped():
    weight = torch.ones(2)
    assert set(_tensors({"state_dict": {"module.lm_head.weight": weight}, "epoch": 3})) == {"lm_head.weight"}


def test_existing_weights_are_not_replaced(microsoft):
    with pytest.raises(CheckpointError, match="exists already"):
        import_weights(Path(__file__), microsoft)


ATTEMPTS = [
    "os.system('touch {mark}')",
    "open('{mark}', 'w')",
    "os.open('{mark}', os.O_CREAT | os.O_WRONLY)",
    "subprocess.run(['touch', '{mark}'])",
    "os.fork()",
    "os.execv('/bin/true', ['true'])",
    "os.remove('{out}')",
    "os.rename('{out}', '{mark}')",
    "__import__('ftplib')",
    "socket.create_connection(('127.0.0.1', 9))",
    "socket.socket().bind(('127.0.0.1', 0))",
    "ctypes.CDLL(None)",
]


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_even_code_that_ran_in_the_child_could_do_nothing(tmp_path, attempt):
    """The second wall: were torch's restricted loader ever to run code, this is what that code would meet."""
    mark, out = tmp_path / "ran", tmp_path / "out"
    code = (
        "import ctypes, os, socket, subprocess, sys\n"
        "from florentune.model.import_weights import _confine\n"
        f"_confine({str(out)!r})\nopen({str(out)!r}, 'w').close()\n"
        f"{attempt.format(mark=mark, out=out)}\nprint('escaped')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "escaped" not in done.stdout
    assert done.returncode == 3
    assert "the pickle tried" in done.stderr
    assert not mark.exists()
    assert out.exists()


def test_no_other_module_can_open_a_pickle_or_run_a_folders_code():
    package = Path(florentune.__file__).parent
    for path in package.rglob("*.py"):
        text = path.read_text()
        assert "trust_remote_code=True" not in text, path
        assert "import pickle" not in text, path
        assert "AutoModel." not in text, path
        if path.name != "import_weights.py":
            assert "torch.load(" not in text, path
