"""Runs that are killed, stopped, starved or fed with nonsense: what is promised in docs/reliability.md, T1 to T8."""

import functools
import json
import math
import multiprocessing
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections import Counter

import pytest
import torch

from florentune.errors import CheckpointError, ConfigError, DiskFullError, NonFiniteError, OutOfMemoryError
from florentune.training import load_config, train
from florentune.training.loop import Loop
from florentune.training.objective import AnswerLoss
from florentune.training.optimizer import Optimizer
from florentune.training.state import find_state, load_state, verify
from training_run import losses, make_workplace, settings, start, weights, words

STEPS = 10  # two and a half epochs of 8 pages in batches of 2


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Eight pages and a tiny model with dropout, so that a wrong random state cannot go unnoticed."""
    folder = make_workplace(tmp_path_factory.mktemp("place"))
    config = json.loads((folder / "tiny" / "config.json").read_text())
    config["text_config"].update(dropout=0.1, attention_dropout=0.1, activation_dropout=0.1)
    config["vision_config"]["drop_path_rate"] = 0.1
    (folder / "tiny" / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(autouse=True)
def one_thread():
    """The promise holds for one number of threads, and a forked child can have only one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(place, output, **changes):
    return train(load_config(None, settings(place, output, **{"max_steps": STEPS, **changes})))


def stop_after(monkeypatch, step, number=signal.SIGTERM):
    """Let this process get a signal at the end of a step."""
    report = Loop._report

    def reporting(loop, batch):
        report(loop, batch)
        if loop.progress.step == step:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Loop, "_report", reporting)


def in_a_child(function):
    """Start a function in a forked process; its exit code is that of the command line."""

    def target():
        torch.set_num_threads(1)
        try:
            function()
        except SystemExit as end:
            os._exit(end.code or 0)
        except KeyboardInterrupt:
            os._exit(128 + signal.SIGINT)
        except BaseException as error:  # noqa: BLE001 - as the command line ends, whatever it is
            traceback.print_exc()
            os._exit(getattr(error, "exit_code", 99))
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=target)
    process.start()
    return process


def command_line(*arguments):
    """The command in this process, exit code and all."""
    from florentune.cli import main

    sys.argv = ["florentune", *arguments]
    main()


def in_processes(count, function, code=0):
    """Fork `count` processes that find each other as torchrun's do; all must end with `code`. They get their rank."""
    from accelerate import PartialState

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def ranked(rank):
        if count > 1:
            os.environ.update(
                RANK=str(rank),
                LOCAL_RANK=str(rank),
                WORLD_SIZE=str(count),
                LOCAL_WORLD_SIZE=str(count),
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=str(port),
            )
            PartialState._reset_state()
        function(rank)

    processes = [in_a_child(functools.partial(ranked, rank)) for rank in range(count)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [code] * count


def wait_for(condition, process, seconds=60):
    end = time.monotonic() + seconds
    while not condition() and process.is_alive() and time.monotonic() < end:
        time.sleep(0.005)


# T3: resume is exact


def assert_exact(place, tmp_path, monkeypatch, stops, **changes):
    """A run interrupted after each of `stops` equals one that was not, in every logged loss and every weight."""
    whole = run(place, tmp_path / "whole", **changes)
    for number in stops:
        output = tmp_path / f"stopped-{number}"
        with monkeypatch.context() as patch:
            stop_after(patch, number)
            stopped = run(place, output, **changes)
        assert stopped.stopped_by == signal.SIGTERM
        assert stopped.step == number
        assert stopped.last is None
        resumed = run(place, output, resume_from_checkpoint="auto", **changes)
        assert resumed.stopped_by is None
        assert losses(output) == losses(tmp_path / "whole")
        assert weights(resumed.last) == weights(whole.last)


def test_resume_is_bitwise_exact_with_augmentation_and_dropout(place, tmp_path, monkeypatch):
    assert_exact(place, tmp_path, monkeypatch, (1, 7), augment=True)


def test_resume_is_bitwise_exact_with_accumulation_averages_and_validation(place, tmp_path, monkeypatch):
    changes = {
        "gradient_accumulation_steps": 2,
        "per_device_train_batch_size": 1,
        "ema": 0.9,
        "val_size": 2,
        "eval_strategy": "steps",
        "eval_steps": 3,
        "logging_steps": 2,
        "dataloader_num_workers": 0,
    }
    assert_exact(place, tmp_path, monkeypatch, (3,), **changes)
    best = [json.loads((tmp_path / name / "best" / "labels.json").read_text()) for name in ("whole", "stopped-3")]
    assert best[0] == best[1]
    assert weights(tmp_path / "whole" / "best") == weights(tmp_path / "stopped-3" / "best")


def test_resume_is_bitwise_exact_with_kept_features_and_lora(place, tmp_path, monkeypatch):
    changes = {"freeze_vision_tower": True, "finetuning_type": "lora", "lora_dropout": 0.1}
    assert_exact(place, tmp_path, monkeypatch, (3,), **changes)


def test_resume_refuses_other_pages_and_says_which_key(place, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        run(place, tmp_path / "run")
    with pytest.raises(ConfigError, match="other pages"):
        run(place, tmp_path / "run", resume_from_checkpoint="auto", max_samples=5)
    with pytest.raises(ConfigError, match="other seed"):
        run(place, tmp_path / "run", resume_from_checkpoint="auto", seed=1)


def test_a_folder_with_a_run_is_resumed_unless_it_is_to_be_overwritten(place, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        run(place, tmp_path / "run")
    first = losses(tmp_path / "run")
    assert run(place, tmp_path / "run").step == STEPS
    assert {step: losses(tmp_path / "run")[step] for step in first} == first
    again = run(place, tmp_path / "run", overwrite_output_dir=True, seed=7)
    assert again.step == STEPS
    assert losses(tmp_path / "run").keys() == set(range(1, STEPS + 1))
    assert losses(tmp_path / "run")[1] != first[1]


# T1: kill -9


def survive_kills(place, tmp_path, kills, seed):
    """Kill a run that saves at every step at `kills` random moments; no step of what comes out may differ.

    A run that ends before its moment comes is compared and begun anew. Returns what was counted.
    """
    changes = {"save_steps": 1, "augment": True, "resume_from_checkpoint": "auto"}
    began = time.monotonic()
    process = in_a_child(lambda: run(place, tmp_path / "whole", **changes))
    process.join()
    span = time.monotonic() - began
    output, rng = tmp_path / "killed", random.Random(seed)
    counted = dict.fromkeys(("kills", "kills before the first checkpoint", "kills while one was written"), 0)

    def assert_whole():
        assert losses(output) == losses(tmp_path / "whole")
        assert weights(output / "last") == weights(tmp_path / "whole" / "last")
        assert not list(output.rglob("*.tmp-*"))

    while counted["kills"] < kills:
        process = in_a_child(lambda: run(place, output, **changes))
        process.join(rng.uniform(0, 1) * span)
        if not process.is_alive():
            assert process.exitcode == 0
            assert_whole()
            shutil.rmtree(output)
            continue
        process.kill()
        process.join()
        found, warnings = find_state(output / "checkpoints")
        assert not warnings, "a plain name means a complete checkpoint"
        done = max(losses(output), default=0) if (output / "metrics.jsonl").exists() else 0
        assert done <= 1 + (load_state(found)[0].step if found else 0), "more than one save interval was lost"
        counted["kills"] += 1
        counted["kills before the first checkpoint"] += found is None
        counted["kills while one was written"] += any((output / "checkpoints").glob("*.tmp-*"))
    run(place, output, **changes)
    assert_whole()
    return counted


def newest_name(folder):
    names = sorted(path.name for path in folder.glob("step-*") if "." not in path.name) if folder.exists() else []
    return names[-1] if names else None


def test_kill_9_loses_nothing(place, tmp_path):
    survive_kills(place, tmp_path, kills=3, seed=1)


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_kill_9_two_hundred_times(place, tmp_path, record_property):
    for name, count in survive_kills(place, tmp_path, kills=200, seed=0).items():
        record_property(name, count)


# T2: disk full


def test_a_full_disk_ends_with_exit_5_and_the_checkpoint_before_it_stays(place, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        run(place, tmp_path / "run")

    def starved():
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
        run(place, tmp_path / "run", resume_from_checkpoint="auto", save_steps=1)

    process = in_a_child(starved)
    process.join()
    assert process.exitcode == DiskFullError.exit_code
    found, warnings = find_state(tmp_path / "run" / "checkpoints")
    assert found.name == "step-00000002"
    assert not warnings
    assert run(place, tmp_path / "run", resume_from_checkpoint="auto").step == STEPS


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a small disk takes root")
def test_a_small_disk_that_fills_up(place, tmp_path, monkeypatch):
    """A real file system without room: exit 5 with the bytes, the checkpoint before intact, and on with more room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"mount: {mounted.stderr.decode().strip()}")
    try:
        whole = run(place, tmp_path / "whole", save_steps=1)
        with monkeypatch.context() as patch:
            stop_after(patch, 2)
            run(place, disk / "run", save_steps=1)
        free = os.statvfs(disk)
        (disk / "other").write_bytes(bytes(free.f_bavail * free.f_frsize - 1_500_000))
        with pytest.raises(DiskFullError, match=r"bytes are needed and [\d,]+ bytes are free") as caught:
            run(place, disk / "run", save_steps=1)
        assert caught.value.exit_code == 5
        found, warnings = find_state(disk / "run" / "checkpoints")
        assert not warnings
        assert found.name == "step-00000002"
        (disk / "other").unlink()
        resumed = run(place, disk / "run", save_steps=1)
        assert losses(disk / "run") == losses(tmp_path / "whole")
        assert weights(resumed.last) == weights(whole.last)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_too_little_space_is_known_before_a_byte_is_written(place, tmp_path, monkeypatch):
    real = os.statvfs

    def full(path):
        stats = real(path)
        return os.statvfs_result([*stats[:4], 100, *stats[5:]])

    monkeypatch.setattr(os, "statvfs", full)
    with pytest.raises(DiskFullError, match=r"bytes are needed and [\d,]+ bytes are free"):
        run(place, tmp_path / "run", save_steps=2)
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


# T4: not a number


def poison(monkeypatch, indices):
    """Give pages not-a-number pixels."""
    pixels = Loop._pixels
    monkeypatch.setattr(Loop, "_pixels", lambda loop, e: pixels(loop, e) * (math.nan if e.index in indices else 1.0))


def test_a_page_of_nan_is_skipped_named_and_never_reaches_the_weights(place, tmp_path, monkeypatch, capsys):
    poison(monkeypatch, {5})
    result = run(place, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    skipped = [line for line in lines if line.get("event") == "skipped"]
    assert [line["pages"] for line in skipped] == [["paper2_1.png"]] * len(skipped)
    assert 2 <= len(skipped) <= 3, "once an epoch"
    assert all(line["loss"] == "nan" for line in skipped)
    assert "paper2_1.png" in capsys.readouterr().err
    state = load_state(find_state(tmp_path / "run" / "checkpoints")[0])[1]
    assert all(torch.isfinite(value).all() for group in state.values() for value in group.values())
    assert result.step == STEPS


def test_three_bad_steps_in_a_row_end_the_run_and_keep_the_last_good_checkpoint(place, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        run(place, tmp_path / "run")
    poison(monkeypatch, set(range(8)))
    with pytest.raises(NonFiniteError, match="3 times in a row") as caught:
        run(place, tmp_path / "run", resume_from_checkpoint="auto", save_steps=1)
    assert caught.value.exit_code == 4
    _, tensors = load_state(find_state(tmp_path / "run" / "checkpoints")[0])
    assert all(torch.isfinite(value).all() for value in tensors["model"].values())


def test_an_infinite_gradient_is_skipped_too(place, tmp_path, monkeypatch):
    backward = Loop._backward

    def broken(loop, step, *rest):
        sums = backward(loop, step, *rest)
        if step == 2:
            next(iter(loop.optimizer.weights.values())).grad[:] = math.inf
        return sums

    monkeypatch.setattr(Loop, "_backward", broken)
    assert run(place, tmp_path / "run").step == STEPS
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line.get("event") == "skipped"] == [3]


def test_weights_that_are_not_finite_are_never_saved(place, tmp_path, monkeypatch):
    report = Loop._report

    def spoiling(loop, batch):
        report(loop, batch)
        if loop.progress.step == 3:
            next(iter(loop.optimizer.weights.values())).data.view(-1)[0] = math.inf

    monkeypatch.setattr(Loop, "_report", spoiling)
    with pytest.raises(NonFiniteError, match="a weight is not finite"):
        run(place, tmp_path / "run", save_steps=1)
    assert find_state(tmp_path / "run" / "checkpoints")[0].name == "step-00000002"


# T5: signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_exits_with_its_code(place, tmp_path, number, code):
    values = settings(place, tmp_path / "run", max_steps=2000, logging_steps=1)
    (tmp_path / "empty.yaml").touch()
    process = in_a_child(lambda: command_line("train", str(tmp_path / "empty.yaml"), *words(values)))
    wait_for(lambda: (tmp_path / "run" / "metrics.jsonl").exists(), process)
    os.kill(process.pid, number)
    process.join(30)
    assert process.exitcode == code
    found, warnings = find_state(tmp_path / "run" / "checkpoints")
    assert not warnings
    assert load_state(found)[0].step >= max(losses(tmp_path / "run"))


def test_a_signal_during_validation_saves_and_the_validation_is_done_after_the_resume(place, tmp_path, monkeypatch):
    from florentune.training.validation import Validator

    changes = {"val_size": 2, "eval_strategy": "steps", "eval_steps": 5}
    whole = run(place, tmp_path / "whole", **changes)
    validate = Validator.run

    def interrupted(validator, *rest):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return validate(validator, *rest)

    for step in (5, STEPS):  # also the last one: a run without its last validation is not complete
        calls = []
        with monkeypatch.context() as patch:
            patch.setattr(Validator, "run", interrupted)
            stopped = run(place, tmp_path / "run", **changes)
        assert stopped.step == step
        assert stopped.stopped_by == signal.SIGTERM
        assert stopped.last is None
    resumed = run(place, tmp_path / "run", resume_from_checkpoint="auto", **changes)
    assert resumed.best_metrics == whole.best_metrics
    assert weights(resumed.best) == weights(whole.best)


def test_the_second_signal_leaves_at_once_and_corrupts_nothing(place, tmp_path):
    values = settings(place, tmp_path / "run", max_steps=2000, save_steps=1)
    process = in_a_child(lambda: train(load_config(None, values)))
    wait_for(lambda: newest_name(tmp_path / "run" / "checkpoints"), process)
    os.kill(process.pid, signal.SIGTERM)
    os.kill(process.pid, signal.SIGTERM)
    process.join(30)
    assert process.exitcode in (-signal.SIGTERM, 0), "0 when the first one was already served"
    assert find_state(tmp_path / "run" / "checkpoints")[0] is not None
    assert not find_state(tmp_path / "run" / "checkpoints")[1]


# T6: rot


def test_a_rotten_checkpoint_is_left_for_the_one_before(place, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        stop_after(patch, 6)
        run(place, tmp_path / "run", save_steps=2)
    file = tmp_path / "run" / "checkpoints" / "step-00000006" / "optimizer.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    whole = run(place, tmp_path / "whole")
    capsys.readouterr()
    resumed = run(place, tmp_path / "run", resume_from_checkpoint="auto")
    said = capsys.readouterr().err
    assert said.count("optimizer.safetensors is damaged") == 1
    assert "resuming at step 4" in said
    assert weights(resumed.last) == weights(whole.last)


def test_when_every_checkpoint_is_rotten_nothing_is_thrown_away(place, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        run(place, tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints" / "step-00000002"
    (folder / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match="no checkpoint is whole"):
        run(place, tmp_path / "run", resume_from_checkpoint="auto")
    assert folder.is_dir()
    with pytest.raises(CheckpointError, match=r"state\.json is damaged"):
        run(place, tmp_path / "run", resume_from_checkpoint=str(folder))
    assert verify(folder)


# T8: out of memory


def limit_memory(monkeypatch, pages):
    """Let a forward pass of more than `pages` pages run out of memory."""
    forward = AnswerLoss.forward

    def limited(module, pixels, features, answers):
        if len(answers) > pages:
            raise torch.OutOfMemoryError("injected")
        return forward(module, pixels, features, answers)

    monkeypatch.setattr(AnswerLoss, "forward", limited)


def test_out_of_memory_halves_the_micro_batch_and_keeps_the_global_one(place, tmp_path, monkeypatch, capsys):
    quiet = {"per_device_train_batch_size": 4, "model_name_or_path": str(calm(place))}
    run(place, tmp_path / "whole", **quiet)
    limit_memory(monkeypatch, 1)
    result = run(place, tmp_path / "limited", **quiet)
    assert result.step == STEPS
    assert list(losses(tmp_path / "limited").values()) == pytest.approx(
        list(losses(tmp_path / "whole").values()), rel=1e-4
    )
    said = capsys.readouterr().err
    assert "micro-batches of 2" in said
    assert "micro-batches of 1" in said


def calm(place):
    """The model without dropout, whose numbers do not depend on the micro-batch."""
    from tiny_model import tiny_checkpoint

    return tiny_checkpoint(place / "calm") if not (place / "calm").exists() else place / "calm"


def test_what_never_fits_is_exit_6_with_advice(place, tmp_path, monkeypatch):
    limit_memory(monkeypatch, 0)
    with pytest.raises(OutOfMemoryError, match="gradient_checkpointing") as caught:
        run(place, tmp_path / "run")
    assert caught.value.exit_code == 6


def test_when_one_process_runs_out_of_memory_all_halve_together(place, tmp_path):
    quiet = {"model_name_or_path": str(calm(place)), "max_steps": 3}

    def target(rank):
        if rank == 1:
            limit_memory(pytest.MonkeyPatch(), 2)
        run(place, tmp_path / "two", per_device_train_batch_size=4, **quiet)

    run(place, tmp_path / "one", per_device_train_batch_size=8, **quiet)
    in_processes(2, target)
    assert list(losses(tmp_path / "two").values()) == pytest.approx(list(losses(tmp_path / "one").values()), rel=1e-5)
    progress, _ = load_state(find_state(tmp_path / "two" / "checkpoints")[0])
    assert (progress.global_batch, progress.micro_batch, progress.halvings) == (8, 2, 1)


def test_what_never_fits_into_one_process_ends_all_with_exit_6(place, tmp_path):
    def target(rank):
        if rank == 1:
            limit_memory(pytest.MonkeyPatch(), 0)
        run(place, tmp_path / "run")

    in_processes(2, target, code=OutOfMemoryError.exit_code)


def test_memory_that_runs_out_beside_a_batch_is_exit_6_too(place, tmp_path, monkeypatch):
    def starved(optimizer, step):
        raise torch.OutOfMemoryError("no room for the moments")

    monkeypatch.setattr(Optimizer, "apply", starved)
    with pytest.raises(OutOfMemoryError, match=r"no room for the moments.*gradient_checkpointing"):
        run(place, tmp_path / "run")


# T9 and T10: several processes

TWO = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port")


def finish(process, seconds=240):
    output, _ = process.communicate(timeout=seconds)
    return process.returncode, output


@pytest.mark.slow
def test_two_processes_train_as_one_does_and_either_resumes_the_other(place, tmp_path):
    changes = {"max_steps": 6, "model_name_or_path": str(calm(place)), "save_steps": 3, "augment": True}
    one = {**changes, "per_device_train_batch_size": 4}
    two = {**changes, "per_device_train_batch_size": 2}
    code, said = finish(start(place, tmp_path / "one", **one))
    assert code == 0, said
    code, said = finish(start(place, tmp_path / "two", launcher=(*TWO, "29611"), **two))
    assert code == 0, said
    expected = pytest.approx(list(losses(tmp_path / "one").values()), rel=1e-5)
    assert list(losses(tmp_path / "two").values()) == expected

    for name, first, second, launchers in (
        ("two-one", two, one, ((*TWO, "29612"), ())),
        ("one-two", one, two, ((), (*TWO, "29613"))),
    ):
        code, said = finish(start(place, tmp_path / name, launcher=launchers[0], **{**first, "max_steps": 3}))
        assert code == 0, said
        again = {**second, "resume_from_checkpoint": "auto"}
        code, said = finish(start(place, tmp_path / name, launcher=launchers[1], **again))
        assert code == 0, said
        assert "resuming at step 3" in said
        # the learning rate of the first three steps followed a shorter schedule
        assert len(losses(tmp_path / name)) == 6


@pytest.mark.slow
def test_a_dead_rank_ends_the_job(place, tmp_path):
    changes = {"max_steps": 5000, "model_name_or_path": str(calm(place))}
    process = start(place, tmp_path / "run", launcher=(*TWO, "29614"), **changes)
    end = time.monotonic() + 120
    while not (tmp_path / "run" / "metrics.jsonl").exists() and time.monotonic() < end:
        time.sleep(0.1)
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
    ranks = [int(word) for word in listed.stdout.split()]
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    code, _ = finish(process, seconds=60)
    assert code != 0


# T3 again: everywhere


@pytest.fixture(scope="module")
def wide(tmp_path_factory, place):
    """The model of `place` and 32 pages: four steps an epoch of up to eight pages."""
    folder = make_workplace(tmp_path_factory.mktemp("wide"), pages=32)
    shutil.rmtree(folder / "tiny")
    shutil.copytree(place / "tiny", folder / "tiny")
    return folder


@pytest.mark.torture
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("workers", [0, 2])
def test_resume_is_bitwise_exact_everywhere(wide, tmp_path, record_property, workers, accumulation, augment, processes):
    """Stopped after step 1, in the middle of epoch 1, at its end, in the middle of epoch 2, one step before the end."""
    changes = {
        "max_steps": 8,
        "max_samples": 4 * accumulation * processes,
        "gradient_accumulation_steps": accumulation,
        "per_device_train_batch_size": 1,
        "dataloader_num_workers": workers,
        "augment": augment,
    }

    def go(output, stop=None):
        def target(rank):
            if stop is not None and rank == processes - 1:
                stop_after(pytest.MonkeyPatch(), stop)
            run(wide, output, **changes)

        in_processes(processes, target)

    go(tmp_path / "whole")
    points = (1, 2, 4, 6, 7)
    for point in points:
        output = tmp_path / f"stopped-{point}"
        go(output, point)
        assert newest_name(output / "checkpoints") == f"step-{point:08d}"
        assert not (output / "last").exists()
        go(output)
        assert losses(output) == losses(tmp_path / "whole")
        assert len(losses(output)) == 8
        assert weights(output / "last") == weights(tmp_path / "whole" / "last")
    record_property("exact resumes", len(points))


# T5 again: fifty signals


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_fifty_signals_at_random_moments(place, tmp_path, record_property):
    """Also while a checkpoint is written and while the model is validated; one in four gets a second one at once.

    Counted are signals that ended a run; one that ends by itself is compared and begun anew.
    """
    changes = {"save_steps": 1, "val_size": 2, "eval_strategy": "steps", "eval_steps": 2}
    began = time.monotonic()
    process = in_a_child(lambda: run(place, tmp_path / "whole", **changes))
    process.join()
    span = time.monotonic() - began
    output, rng = tmp_path / "signalled", random.Random(0)
    codes = Counter()

    def target():
        sys.exit(128 + (run(place, output, **changes).stopped_by or -128))

    def assert_whole():
        assert losses(output) == losses(tmp_path / "whole")
        assert weights(output / "best") == weights(tmp_path / "whole" / "best")

    while codes.total() < 50:
        process = in_a_child(target)
        process.join(rng.uniform(0, 1) * span)
        number = rng.choice((signal.SIGTERM, signal.SIGINT))
        if process.is_alive():
            for _ in range(1 + (rng.random() < 0.25)):
                os.kill(process.pid, number)
            process.join(60)
        if process.exitcode == 0:
            assert_whole()
            shutil.rmtree(output)
            continue
        assert process.exitcode in (128 + number, -number), "saved, or left at once"
        codes[process.exitcode] += 1
        assert not find_state(output / "checkpoints")[1]
    run(place, output, **changes)
    assert_whole()
    for code, count in sorted(codes.items()):
        record_property(f"ended with {code}", count)
