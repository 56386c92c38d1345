"""The numbers of a run reach metrics.jsonl and every tracker, and a tracker that fails costs no run."""

import contextlib
import importlib.util
import json
import sqlite3
import struct
from typing import ClassVar

import pytest
from accelerate import tracking

from florentune.errors import ConfigError
from florentune.training import load_config, train
from training_run import make_workplace, settings


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_workplace(tmp_path_factory.mktemp("place"))


def run(place, output, **changes):
    """Two steps with a validation at the start and after each; the numbers of metrics.jsonl by (name, step)."""
    every_step = {"max_steps": 2, "val_size": 3, "eval_strategy": "steps", "eval_steps": 1}
    train(load_config(None, settings(place, output, **{**every_step, **changes})))
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return {(name, line["step"]): value for line in lines for name, value in line.items() if name != "step"}


class Recorder(tracking.GeneralTracker):
    """A tracker that remembers; `broken` names what it cannot do."""

    name = "recorder"
    requires_logging_directory = False
    main_process_only = True
    broken = ""
    said: ClassVar[list] = []

    def __init__(self, project):
        super().__init__()
        self._say("project", project)

    def _say(self, what, *given):
        if what == self.broken:
            raise ConnectionError("the server is gone")
        print(f"recorder: {what}")
        self.said.append((what, *given))

    @property
    def tracker(self):
        return self

    def start(self):
        self._say("start")

    def store_init_configuration(self, values):
        self._say("settings", values)

    def log(self, values, step=None, **more):
        self._say("log", step, values)

    def finish(self):
        self._say("finish")


@pytest.fixture
def recorder(monkeypatch):
    """The recorder in the place of a tracker that is not installed."""
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "dvclive", Recorder)
    monkeypatch.setattr("florentune.training.config._has_tracker", lambda name: name == "dvclive")
    monkeypatch.setattr(Recorder, "said", [])
    return Recorder


def test_a_tracker_gets_settings_and_every_number_and_stdout_stays_free(place, tmp_path, recorder, capsys):
    numbers = run(place, tmp_path / "run", report_to="dvclive", lora_target="q_proj,v_proj", finetuning_type="lora")
    assert [said[0] for said in recorder.said[:3]] == ["project", "start", "settings"]
    assert recorder.said[0][1] == "florentune"
    values = recorder.said[2][1]
    assert values["learning_rate"] == 1e-3
    assert values["lora_target"] == "q_proj,v_proj"
    assert "base" not in values, "what is not set is no setting"
    logged = {(name, step): value for what, step, got in recorder.said[3:-1] for name, value in got.items()}
    assert logged == numbers
    assert recorder.said[-1] == ("finish",)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("broken", ["project", "start", "settings"])
def test_a_tracker_that_does_not_start_is_an_error_of_the_configuration(place, tmp_path, recorder, monkeypatch, broken):
    monkeypatch.setattr(recorder, "broken", broken)
    with pytest.raises(ConfigError, match=r"report_to: dvclive does not start: the server is gone"):
        run(place, tmp_path / "run", report_to="dvclive")


@pytest.mark.parametrize("broken", ["log", "finish"])
def test_a_tracker_that_fails_later_costs_a_warning(place, tmp_path, recorder, monkeypatch, capsys, broken):
    monkeypatch.setattr(recorder, "broken", broken)
    assert ("loss", 2) in run(place, tmp_path / "run", report_to="dvclive", val_size=0)
    assert capsys.readouterr().err.count("dvclive: the server is gone") == 1
    assert (tmp_path / "run" / "last" / "model.safetensors").is_file()


def installed(*packages):
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@pytest.mark.slow
@installed("tensorboard")
def test_tensorboard_gets_every_number_without_being_asked(place, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    numbers = run(place, tmp_path / "run", report_to="auto")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    found = {(name, e.step): e.value for name in events.Tags()["scalars"] for e in events.Scalars(name)}
    assert found == pytest.approx(numbers, rel=1e-6), "TensorBoard keeps single precision"


@pytest.mark.slow
@installed("wandb")
def test_wandb_gets_every_number(place, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    numbers = run(place, tmp_path / "run", report_to="wandb")
    (file,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    found, names = {}, set()
    for record in wandb_records(file.read_bytes()):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            names.add((record.run.project, record.run.display_name))
        if kind == "history":
            row = {"".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            found |= {(name, row["_step"]): value for name, value in row.items() if not name.startswith("_")}
    assert names == {("florentune", "run")}
    assert found == numbers


def wandb_records(data):
    """The records of a .wandb file: after 7 bytes a log of LevelDB's format, in blocks of 32 KB."""
    from wandb.proto import wandb_internal_pb2

    place, whole = 7, b""
    while place < len(data):
        left = -place % 32768 or 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # all of a record, or its last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


@pytest.mark.slow
@installed("mlflow", "sqlalchemy")
def test_mlflow_gets_every_number(place, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    numbers = run(place, tmp_path / "run", report_to="mlflow")
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        found = {(name, step): value for name, step, value in database.execute("select key, step, value from metrics")}
        assert database.execute("select name, status from runs").fetchall() == [("run", "FINISHED")]
    assert found == numbers


@pytest.mark.slow
@installed("trackio")
def test_trackio_gets_every_number(place, tmp_path, monkeypatch):
    monkeypatch.setattr("trackio.utils.TRACKIO_DIR", tmp_path / "trackio", raising=False)
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "trackio", raising=False)
    numbers = run(place, tmp_path / "run", report_to="trackio")
    with contextlib.closing(sqlite3.connect(tmp_path / "trackio" / "florentune.db")) as database:
        rows = database.execute("select run_name, step, metrics from metrics").fetchall()
    assert {name for name, _, _ in rows} == {"run"}
    assert {(name, step): value for _, step, row in rows for name, value in json.loads(row).items()} == numbers
