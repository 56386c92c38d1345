"""Checkpoints on disk: whole, verified, pruned, swept."""

import errno
import json
import random
import shutil

import pytest
import torch
from safetensors.torch import load_file

from florentune.errors import CheckpointError, DiskFullError
from florentune.training import state
from florentune.training.state import Progress, find_state, load_state, save_state, sweep, verify

TENSORS = {
    "model": {
        "a": torch.arange(12, dtype=torch.float32).view(3, 4).t(),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(3.5),
    },
    "optimizer": {"a/step": torch.tensor(7.0), "half": torch.randn(5).to(torch.bfloat16), "n": torch.tensor([1, -2])},
}


def save(folder, step, run="r", keep=2):
    return save_state(folder, Progress(run=run, step=step), TENSORS, keep=keep)


def test_what_is_saved_comes_back_bit_for_bit(tmp_path):
    path = save(tmp_path, 5)
    progress, tensors = load_state(path)
    assert progress.step == 5
    assert {name: set(group) for name, group in tensors.items()} == {n: set(g) for n, g in TENSORS.items()}
    for name, group in TENSORS.items():
        for key, value in group.items():
            assert torch.equal(tensors[name][key], value)
            assert tensors[name][key].dtype == value.dtype
    assert torch.equal(load_file(path / "model.safetensors")["a"], TENSORS["model"]["a"]), "the library reads it too"
    assert {file.suffix for file in path.iterdir()} == {".safetensors", ".json"}


def test_only_the_newest_are_kept_and_another_run_goes_when_the_first_of_ours_is_complete(tmp_path):
    for step in (10, 20, 30):
        save(tmp_path, step, run="old")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000020", "step-00000030"]
    save(tmp_path, 5, run="new")
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]


def test_the_newest_is_by_time_not_by_number(tmp_path):
    older = save(tmp_path, 30, run="old", keep=5)
    shutil.copytree(older, tmp_path / "kept")
    newer = save(tmp_path, 5, run="new")
    (tmp_path / "kept").rename(older)
    assert find_state(tmp_path)[0] == newer


def test_saving_a_step_again_replaces_it(tmp_path):
    save(tmp_path, 5, run="a")
    path = save(tmp_path, 5, run="b")
    assert json.loads((path / "manifest.json").read_text())["run"] == "b"
    assert [item.name for item in tmp_path.iterdir()] == ["step-00000005"]


def test_a_hundred_kinds_of_rot_are_detected(tmp_path):
    good = save(tmp_path / "good", 1)
    rng = random.Random(0)
    for _ in range(100):
        bad = tmp_path / "bad"
        shutil.copytree(good, bad)
        file = rng.choice(sorted(bad.iterdir()))
        data = bytearray(file.read_bytes())
        kind = rng.choice(["flip", "cut", "missing"])
        if kind == "flip":
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            file.write_bytes(data)
        elif kind == "cut":
            file.write_bytes(data[: rng.randrange(len(data))])
        else:
            file.unlink()
        if file.name == "manifest.json" and kind == "flip":
            # a flipped time or run name changes no content; all else must be noticed
            changed = file.read_bytes() if file.exists() else b""
            try:
                same = json.loads(changed)["files"] == json.loads((good / "manifest.json").read_text())["files"]
            except (ValueError, KeyError, TypeError):
                same = False
            assert (verify(bad) is None) == same
        else:
            assert verify(bad) is not None, (file.name, kind)
        shutil.rmtree(bad)


def test_a_crash_at_any_write_leaves_the_old_checkpoint_and_nothing_with_a_plain_name(tmp_path, monkeypatch):
    save(tmp_path, 1)
    calls = {"n": 0, "limit": 0}

    class Killed(BaseException):
        pass

    def dying(name, real):
        def call(*arguments, **keywords):
            calls["n"] += 1
            if calls["n"] == calls["limit"]:
                raise Killed
            return real(*arguments, **keywords)

        monkeypatch.setattr(state, name, call)

    for name in ("write_tensors", "write_json", "_sync_folder", "replace_folder"):
        dying(name, getattr(state, name))
    monkeypatch.setattr(state.shutil, "rmtree", lambda *_, **__: None)
    for limit in range(1, 7):
        calls.update(n=0, limit=limit)
        try:
            save(tmp_path, 2)
        except Killed:
            found, warnings = find_state(tmp_path)
            assert not warnings
            assert found.name in ("step-00000001", "step-00000002")
    monkeypatch.undo()
    assert list(tmp_path.glob("*.tmp-*"))
    sweep(tmp_path)
    assert not list(tmp_path.glob("*.tmp-*"))
    assert find_state(tmp_path)[0] is not None


def test_a_folder_set_aside_comes_back_when_its_successor_never_came(tmp_path):
    path = save(tmp_path, 3)
    path.rename(tmp_path / "step-00000003.old-12345678")
    sweep(tmp_path)
    assert find_state(tmp_path)[0] == path


def test_a_disk_that_fills_while_writing_is_a_disk_full_error_and_leaves_no_part(tmp_path, monkeypatch):
    save(tmp_path, 1)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(state.os, "fsync", full)
    with pytest.raises(DiskFullError, match="bytes are free"):
        save(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_a_state_of_another_version_is_one_clear_error(tmp_path):
    path = save(tmp_path, 1)
    (path / "state.json").write_text(json.dumps({"run": "r", "unheard_of": 1}))
    with pytest.raises(CheckpointError, match="another version"):
        load_state(path)
