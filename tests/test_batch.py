"""Many documents: nothing is lost, nothing is done twice, whatever happens to workers and to the driver."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from functools import partial
from pathlib import Path

import pytest

from extraction_pdfs import POISON, Given, poisoned, write_pdf
from florentune.detector import load_detector
from florentune.errors import FlorentuneError, InputError, MissingExtraError
from florentune.extraction import Options
from florentune.extraction.batch import Progress, run_batch
from florentune.extraction.inputs import collect, opened, parse_shard
from florentune.extraction.ledger import FIGURES, MAX_STARTS, Ledger, finalize, read_record
from florentune.extraction.pools import LocalPool
from florentune.extraction.work import Settings, identity

SIZE = (120, 100)
OUTPUTS = ("documents.jsonl", "summary.json", "figures.parquet", "figures.jsonl")


def documents(folder: Path, count: int, poison: int = 0) -> Path:
    """A folder of one-page documents, `poison` of them with a page of a poisonous width."""
    folder.mkdir(parents=True)
    for number in range(count):
        write_pdf(folder / f"good-{number:04}.pdf", [[(20, 20, 8, f"Table {number}: Toy.")]], SIZE)
    for number, (name, width) in zip(range(poison), sorted(POISON.items()) * poison, strict=False):
        write_pdf(folder / f"good-{number * 3:04}-{name}.pdf", [[(20, 20, 8, "Table 1: Bad.")]], (width, 100))
    return folder


def settings_for(out: Path, config: str = "test") -> Settings:
    return Settings(str(out), config, Options(dpi=72), 8.0)


def run(source: Path, out: Path, workers: int = 2, factory=poisoned, **options):
    """Run a folder; (progress, ids of the documents done in this run)."""
    settings, done = settings_for(out, options.pop("config", "test")), []
    progress = run_batch(
        collect([str(source)]).jobs,
        LocalPool(workers, factory, settings),
        settings,
        model="poisoned",
        on_document=lambda record, progress: done.append(record["source"]),
        **options,
    )
    finalize(out)
    return progress, done


def outputs(out: Path) -> dict[str, bytes]:
    """Every file of a run but the attempts and what a killed process did not get to rename."""
    files = [p for p in out.rglob("*") if p.is_file() and p.parent.name != "attempts" and p.suffix != ".tmp"]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def test_a_crash_and_a_hang_cost_only_themselves(tmp_path):
    source, out = documents(tmp_path / "in", 6), tmp_path / "out"
    write_pdf(source / "good-0001-segv.pdf", [[]], (POISON["segv"], 100))
    write_pdf(source / "good-0002-hang.pdf", [[]], (POISON["hang"], 100))
    progress, _ = run(source, out, silence=4)
    assert progress.status == {"ok": 6, "failed": 2}
    assert progress.reasons == {"timeout": 1, "quarantined": 1}


@pytest.mark.slow
def test_poison_costs_only_itself_and_a_second_run_does_nothing(tmp_path):
    source, out = documents(tmp_path / "in", 20, poison=5), tmp_path / "out"
    progress, done = run(source, out, silence=3)
    assert progress.status == {"ok": 20, "failed": 5}
    assert progress.reasons == {"error": 1, "memory": 1, "timeout": 1, "quarantined": 2}
    assert len(done) == len(set(done)) == 25
    rows = [json.loads(line) for line in (out / "documents.jsonl").read_text().splitlines()]
    assert [row["source"] for row in rows] == sorted(done)
    assert all((row["status"] == "ok") == (len(Path(row["source"]).stem) == 9) for row in rows)
    assert sum(row["tables"] for row in rows) == 20
    assert not list((out / "attempts").iterdir())
    before = outputs(out)
    progress, done = run(source, out)
    assert (done, progress.skipped) == ([], 25)
    assert outputs(out) == before


def test_failed_documents_are_done_again_on_request(tmp_path):
    source, out = documents(tmp_path / "in", 3), tmp_path / "out"
    write_pdf(source / "bad.pdf", [[]], (POISON["memory"], 100))
    run(source, out)
    _, done = run(source, out, retry=lambda record: record["reason"] == "memory")
    assert done == [str(source / "bad.pdf")]


def test_another_configuration_is_another_run(tmp_path):
    source, out = documents(tmp_path / "in", 3), tmp_path / "out"
    run(source, out)
    _, done = run(source, out, config="other")
    assert len(done) == 3


DRIVER = """
import sys
sys.path[:0] = [{tests!r}]
from pathlib import Path
from test_batch import run
if __name__ == "__main__":
    _, done = run(Path({source!r}), Path({out!r}), silence=20)
    print(len(done))
"""


def driver(source: Path, out: Path, script: Path) -> subprocess.Popen[str]:
    script.write_text(DRIVER.format(tests=str(Path(__file__).parent), source=str(source), out=str(out)))
    return subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, start_new_session=True)


def kill_and_resume(tmp_path: Path, count: int, kills: int, seed: int) -> None:
    source, out, generator = documents(tmp_path / "in", count), tmp_path / "out", random.Random(seed)
    for _ in range(kills):
        process = driver(source, out, tmp_path / "driver.py")
        already = len(list(out.glob("??/*/document.json")))
        end = time.monotonic() + 60  # wait until it works, then a random moment more
        while len(list(out.glob("??/*/document.json"))) == already and process.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.01)
        time.sleep(generator.random() * 0.3)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finished = len(list(out.glob("??/*/document.json")))
    process = driver(source, out, tmp_path / "driver.py")
    assert int(process.communicate()[0]) == count - finished
    run(source, tmp_path / "whole")
    assert outputs(out) == outputs(tmp_path / "whole")


def test_a_killed_driver_goes_on_and_the_bytes_are_the_same(tmp_path):
    kill_and_resume(tmp_path, 30, kills=1, seed=1)


@pytest.mark.torture
def test_a_driver_killed_twenty_times(tmp_path):
    kill_and_resume(tmp_path, 1000, kills=20, seed=2)


@pytest.mark.torture
def test_a_thousand_documents_with_ten_poison_ones(tmp_path):
    source, out = documents(tmp_path / "in", 990, poison=10), tmp_path / "out"
    progress, _ = run(source, out, silence=5)
    assert progress.status == {"ok": 990, "failed": 10}


@pytest.mark.slow
def test_two_drivers_at_once_give_the_same_bytes(tmp_path):
    source, out = documents(tmp_path / "in", 30), tmp_path / "out"
    processes = [driver(source, out, tmp_path / f"driver{i}.py") for i in range(2)]
    assert [process.wait(120) for process in processes] == [0, 0]
    for process in processes:
        process.stdout.close()
    run(source, tmp_path / "whole")
    finalize(out)
    assert outputs(out) == outputs(tmp_path / "whole")


def test_shards_make_one_run(tmp_path):
    source, out = documents(tmp_path / "in", 12), tmp_path / "out"
    jobs = collect([str(source)]).jobs
    parts = [collect([str(source)], shard=(index, 3)).jobs for index in range(3)]
    parts.append([])  # a part of a small folder may hold no document
    assert max(map(len, parts)) < len(jobs)
    assert sorted(job.id for part in parts for job in part) == sorted(job.id for job in jobs)
    for part in parts:
        run_batch(part, LocalPool(1, poisoned, settings_for(out)), settings_for(out), model="poisoned")
    assert finalize(out)["documents"] == 12
    run(source, tmp_path / "whole")
    for name in OUTPUTS:
        assert (out / name).exists() == (tmp_path / "whole" / name).exists()
        if (out / name).exists():
            assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_table_of_figures_says_what_the_documents_say(tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    source, out = documents(tmp_path / "in", 3), tmp_path / "out"
    (source / "broken.pdf").write_text("<html>")
    run(source, out)
    table = parquet.read_table(out / "figures.parquet")
    assert table.schema.metadata[b"schema"] == FIGURES.encode()
    rows = table.to_pylist()
    assert [row["source"] for row in rows] == [str(source / f"good-000{i}.pdf") for i in range(3)]
    for row in rows:
        record = json.loads((out / row["document"][:2] / row["document"] / "document.json").read_text())
        (figure,) = record["figures"]
        assert {name: row[name] for name in ("id", "number", "caption", "page", "score", "rotation", "text")} == {
            name: figure[name] for name in ("id", "number", "caption", "page", "score", "rotation", "text")
        }
        assert [row[name] for name in ("x1", "y1", "x2", "y2")] == figure["bbox"]
        assert [row[f"caption_{name}"] for name in ("x1", "y1", "x2", "y2")] == figure["caption_bbox"]
        assert (out / row["crop"]).is_file()
        assert (out / row["words"]).is_file()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert finalize(out)["table_of_figures"] == "figures.jsonl"
    assert [json.loads(line) for line in (out / "figures.jsonl").read_text().splitlines()] == rows


def test_a_run_without_figures_has_an_empty_table(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    run(documents(tmp_path / "in", 1), tmp_path / "out", factory=Given)
    table = parquet.read_table(tmp_path / "out" / "figures.parquet")
    assert (table.num_rows, "caption" in table.column_names) == (0, True)


def test_new_weights_under_an_old_name_are_another_model(tmp_path):
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "model.safetensors").write_bytes(b"weights")
    before = identity(str(tmp_path / "best"))
    (tmp_path / "copied").mkdir()
    (tmp_path / "best").rename(tmp_path / "copied" / "best")
    assert identity(str(tmp_path / "copied" / "best")) == before
    (tmp_path / "copied" / "best" / "model.safetensors").write_bytes(b"weights of the next run")
    assert identity(str(tmp_path / "copied" / "best")) != before
    assert identity("nano") == "nano"


def test_documents_without_a_result_are_missing_not_forgotten(tmp_path):
    source, out = documents(tmp_path / "in", 2), tmp_path / "out"
    Ledger(out, "test").plan(collect([str(source)]).jobs)
    assert finalize(out)["status"] == {"missing": 2}
    with pytest.raises(InputError, match="no run was planned"):
        finalize(tmp_path / "other")


def test_a_document_that_ends_the_driver_each_time_is_given_up(tmp_path):
    source, out = documents(tmp_path / "in", 1), tmp_path / "out"
    (job,) = collect([str(source)]).jobs
    ledger = Ledger(out, "test")
    assert all(ledger.start(job) for _ in range(MAX_STARTS))
    progress, _ = run(source, out)
    assert progress.reasons == {"quarantined": 1}


def test_an_interrupted_start_does_not_count(tmp_path):
    (job,) = collect([str(documents(tmp_path / "in", 1))]).jobs
    ledger = Ledger(tmp_path / "out", "test")
    for _ in range(3 * MAX_STARTS):
        assert ledger.start(job)
        ledger.interrupted(job)


def no_model():
    raise MissingExtraError("torch", "train")


def dies():
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_model_that_does_not_load_ends_the_run(tmp_path):
    source = documents(tmp_path / "in", 3)
    with pytest.raises(FlorentuneError, match=r"florentune\[train\]") as error:
        run(source, tmp_path / "out", factory=no_model)
    assert error.value.exit_code == 3


@pytest.mark.slow
def test_workers_that_die_at_the_start_end_the_run(tmp_path):
    with pytest.raises(FlorentuneError, match="while they load the model"):
        run(documents(tmp_path / "in", 3), tmp_path / "out", workers=1, factory=dies)


@pytest.mark.slow
def test_workers_end_when_the_driver_does(tmp_path):
    source, out = documents(tmp_path / "in", 300), tmp_path / "out"
    process = driver(source, out, tmp_path / "driver.py")
    while not list(out.glob("??/*/document.json")):
        assert process.poll() is None
        time.sleep(0.02)
    group = process.pid
    process.kill()
    process.communicate()
    end = time.monotonic() + 30
    while time.monotonic() < end:
        members = [p for p in Path("/proc").glob("[0-9]*/stat") if _group_of(p) == group]
        if not members:
            return
        time.sleep(0.1)
    pytest.fail(f"{members} outlived their driver")


def _group_of(stat: Path) -> int | None:
    """The session a live process belongs to."""
    try:
        state, _, _, session = stat.read_text().rsplit(")", 1)[1].split()[:4]
    except (OSError, ValueError):
        return None
    return int(session) if state != "Z" else None


def test_inputs_of_every_kind(tmp_path, monkeypatch):
    source = documents(tmp_path / "in", 3)
    (source / "sub").mkdir()
    write_pdf(source / "sub" / "deep.PDF", [[]])
    (source / "notes.txt").write_text("no PDF")
    (source / "folder.pdf").mkdir()
    archive = tmp_path / "more.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(source / "good-0000.pdf", "../escape.pdf")
        tar.add(source / "notes.txt", "notes.txt")
    monkeypatch.chdir(tmp_path)
    collected = collect(["in", "more.tar.gz", "in/good-000[01].pdf", "-", "nowhere.pdf"], io.StringIO("in/notes.txt\n"))
    sources = [job.source for job in collected.jobs]
    assert sources == [
        "in/folder.pdf",
        "in/good-0000.pdf",
        "in/good-0001.pdf",
        "in/good-0002.pdf",
        "in/notes.txt",
        "in/sub/deep.PDF",
        "more.tar.gz!../escape.pdf",
        "nowhere.pdf",
    ]
    assert collected.ignored == 2
    (member,) = (job for job in collected.jobs if job.member)
    with opened(member) as path:
        assert path.read_bytes() == (source / "good-0000.pdf").read_bytes()
        assert path.name == "document.pdf"
    for bad in (["in/*.nothing"], ["in/folder.pdf"]):
        with pytest.raises(InputError):
            collect(bad)


@pytest.mark.parametrize("text", ["1", "3/3", "-1/3", "a/b", "1/", "/2"])
def test_shards_that_are_none(text):
    with pytest.raises(InputError, match="I/N"):
        parse_shard(text)


def test_a_member_of_an_archive_is_a_document(tmp_path):
    source, out = documents(tmp_path / "in", 1), tmp_path / "out"
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(source / "good-0000.pdf", "x/good.pdf")
        link = tarfile.TarInfo("link.pdf")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    run(tmp_path / "a.tar", out)
    records = {job.member: read_record(out, job) for job in collect([str(tmp_path / "a.tar")]).jobs}
    assert records["x/good.pdf"]["status"] == "ok"
    assert records["link.pdf"]["reason"] == "not_file"


@pytest.mark.slow
def test_memory_is_flat(tmp_path):
    """A worker's and the driver's memory after many documents, against after a few."""
    import psutil

    source, out = documents(tmp_path / "in", 1500), tmp_path / "out"
    settings, seen = settings_for(out), []

    def watch(record, progress):
        if progress.done in (450, 1450):  # workers are replaced at 500: compare like with like
            seen.append(psutil.Process().memory_info().rss)

    pool = LocalPool(1, partial(Given), settings)
    run_batch(collect([str(source)]).jobs, pool, settings, model="given", on_document=watch)
    assert seen[1] - seen[0] < 5 * 2**20


@pytest.fixture
def ray_pool(monkeypatch):
    """A function that makes a pool of actors of a Ray started here."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'florentune[ray]'")
    from florentune.extraction.pools import RayPool

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # actors import the poisoned detector from here
    return lambda count, factory, settings: RayPool(count, factory, settings, "local")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ray_actors_do_the_same_as_processes(tmp_path, ray_pool):
    source, out = documents(tmp_path / "in", 10, poison=5), tmp_path / "out"
    settings = settings_for(out)
    pool = ray_pool(2, poisoned, settings)
    progress = run_batch(collect([str(source)]).jobs, pool, settings, model="poisoned", silence=20)
    finalize(out)
    assert progress.status == {"ok": 10, "failed": 5}
    assert progress.reasons == {"error": 1, "memory": 1, "timeout": 1, "quarantined": 2}
    run(source, tmp_path / "whole", silence=20)
    assert outputs(out) == outputs(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_killed_ray_actor_costs_no_document(tmp_path, ray_pool):
    import psutil

    source, out = documents(tmp_path / "in", 40), tmp_path / "out"
    settings, killed = settings_for(out), []

    def kill(record, progress):
        if progress.done == 5:
            actors = [p for p in psutil.Process().children(recursive=True) if "_Actor" in p.name() + str(p.cmdline())]
            killed.append(actors[0].pid)
            actors[0].kill()

    pool = ray_pool(2, poisoned, settings)
    progress = run_batch(collect([str(source)]).jobs, pool, settings, model="poisoned", on_document=kill)
    assert len(killed) == 1
    assert progress.status == {"ok": 40}
    assert not list((out / "attempts").iterdir())


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_real_papers_on_ray_are_the_same_as_here(tmp_path, ray_pool, shared):
    chosen = sorted((shared / "data" / "tfid" / "pdfs").glob("*.pdf"), key=lambda path: path.stat().st_size)[:2]
    poison = shared / "bad_inputs" / "pdfs" / "synth_form_billion_laughs.pdf"
    jobs, factory = collect(list(map(str, [*chosen, poison]))).jobs, partial(load_detector, "nano", threads=1)
    found = []
    for name, make in (("ray", ray_pool), ("here", LocalPool)):
        settings = Settings(str(tmp_path / name), "test", Options(dpi=100))
        progress = run_batch(jobs, make(1, factory, settings), settings, model="nano")
        assert (progress.status["ok"], progress.pages > 20) == (2, True)
        finalize(tmp_path / name)
        found.append(outputs(tmp_path / name))
    assert found[0] == found[1]


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "head:port"])
def test_a_ray_that_does_not_answer_is_one_message(tmp_path, monkeypatch, address):
    from florentune.extraction.pools import RayPool

    monkeypatch.setitem(sys.modules, "ray", object())  # it is not asked
    with pytest.raises(FlorentuneError, match=f"--ray {address}: nothing answers there"):
        RayPool(1, poisoned, settings_for(tmp_path), address)


def test_without_ray_the_command_says_what_to_install(monkeypatch, tmp_path):
    from florentune.extraction.pools import RayPool

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"florentune\[ray\]"):
        RayPool(1, poisoned, settings_for(tmp_path), "local")


class Stubborn(LocalPool):
    """Workers of one place never start."""

    def start(self, slot):
        super().start(slot)
        if slot == 0:
            self._workers[slot][0].kill()


def test_a_place_where_no_worker_starts_is_left_alone(tmp_path):
    source, settings = documents(tmp_path / "in", 4), settings_for(tmp_path / "out")
    pool = Stubborn(2, poisoned, settings)
    assert run_batch(collect([str(source)]).jobs, pool, settings, model="poisoned").status == {"ok": 4}


def test_pages_are_told_of_before_their_document_is_done(tmp_path):
    source, settings, heard, told = tmp_path / "in", settings_for(tmp_path / "out"), [], []
    source.mkdir()
    write_pdf(source / "long.pdf", [[]] * 9, SIZE)
    pool = LocalPool(1, poisoned, settings)
    jobs = collect([str(source)]).jobs
    hear = lambda progress: heard.append((progress.done, progress.under_way))  # noqa: E731
    tell = lambda record, progress: told.append((record["pages"], record["tables"], record["figures"]))  # noqa: E731
    progress = run_batch(jobs, pool, settings, model="poisoned", on_page=hear, on_document=tell)
    assert told == [(9, 1, 0)]
    assert heard == [(0, count) for count in range(1, 10)]
    assert (progress.pages, progress.under_way) == (9, 0)


def test_progress_is_a_line_with_rates_what_is_left_and_why_documents_failed():
    progress = Progress(total=1000, skipped=100, done=10, pages=50, started=time.monotonic() - 20)
    progress.reasons.update(["timeout", "password", "timeout"])
    assert progress.line() == (
        "110/1000 documents, 50 pages, 0.50 documents/s, 2.50 pages/s, 30 min left, 1 password, 2 timeout"
    )
    progress.total = 400_000
    assert ", 9.3 days left" in progress.line()
    progress.total = 110
    assert "left" not in progress.line()
