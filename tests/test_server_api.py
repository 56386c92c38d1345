"""The HTTP interface: what it answers, and that it is what the command line would say."""

import io
import json
import re
import zipfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="needs the extra [server]")
from florentune.images import FORMATS
from server_fakes import SLOW, Running, broken_model, dying_model, pdf, png, spool_of

BOX = [20.0, 30.0, 121.0, 71.0]


@pytest.fixture(scope="module")
def server():
    with Running() as running:
        yield running


@pytest.fixture
def ask(server):
    return server.client


def form(content, name="page.png", field="file"):
    """Body and content type of a form with one file."""
    head = f'--B\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
    return head.encode() + content + b"\r\n--B--\r\n", "multipart/form-data; boundary=B"


def test_an_image_becomes_a_page(ask):
    answer = ask("POST", "/v1/detect", png())
    region = {"label": "table", "bbox": BOX, "score": 0.9}
    assert (answer.status, answer.json) == (
        200,
        {"image": "upload", "width": 200, "height": 150, "regions": [region]},
    )


def test_a_body_that_curl_calls_a_form_is_the_file(ask):
    answer = ask("POST", "/v1/detect", png(), Content_Type="application/x-www-form-urlencoded")
    assert answer.json["regions"][0]["bbox"] == BOX


def test_a_form_carries_the_name(ask):
    body, kind = form(png(), "figures/page 7.png")
    assert ask("POST", "/v1/detect", body, Content_Type=kind).json["image"] == "page 7.png"


def test_florence_is_the_dictionary_of_the_task(ask):
    answer = ask("POST", "/v1/detect?format=florence", png())
    assert answer.json == {"<OD>": {"bboxes": [BOX], "labels": ["table"]}}


def test_conf_filters(ask):
    assert ask("POST", "/v1/detect?conf=0.95", png()).json["regions"] == []


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "reason"),
    [
        ("/v1/detect", b"", {}, 400, "empty"),
        ("/v1/detect", b"hello", {}, 415, "format"),
        ("/v1/detect", png()[:-40], {}, 422, "truncated"),
        ("/v1/detect", png(4000, 10, (1, 1, 5, 5)), {}, 422, "aspect"),
        ("/v1/detect", b'{"url": "http://127.0.0.1/x"}', {"Content_Type": "application/json"}, 415, "format"),
        ("/v1/detect?conf=2", png(), {}, 422, "bad_input"),
        ("/v1/detect?format=xml", png(), {}, 422, "bad_input"),
        ("/v1/detect", b"no form", {"Content_Type": "multipart/form-data; boundary=B"}, 400, "bad_input"),
        ("/v1/detect", b"--B--\r\n", {"Content_Type": "multipart/form-data; boundary=B"}, 400, "empty"),
        ("/v1/detect", b"no form", {"Content_Type": "multipart/form-data"}, 400, "bad_input"),
        ("/v1/extract", b"%PDF-1.4 broken", {}, 422, "damaged"),
        ("/v1/extract", b"hello", {}, 415, "not_pdf"),
        ("/v1/extract", pdf(51), {}, 413, "too_many_pages"),
        ("/v1/extract?dpi=5000", pdf(1), {}, 422, "bad_input"),
    ],
)
def test_errors_are_problem_details(ask, path, body, headers, status, reason):
    answer = ask("POST", path, body, **headers)
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status, answer.json["status"], answer.json["reason"]) == (status, status, reason)
    assert answer.json["detail"]
    assert "/tmp" not in answer.json["detail"]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/detect", 405), ("GET", "/nothing", 404)])
def test_routes_that_are_not_there(ask, method, path, status):
    answer = ask(method, path)
    assert (answer.status, answer.json["status"]) == (status, status)


def test_50_megapixels_are_the_limit(ask):
    stream = io.BytesIO()
    Image.new("1", (8000, 6300)).save(stream, "PNG")
    answer = ask("POST", "/v1/detect", stream.getvalue())
    assert (answer.status, answer.json["reason"]) == (413, "too_large")


@pytest.mark.parametrize("options", [{"format": "TIFF"}, {"format": "TIFF", "big_tiff": True}, {"format": "AVIF"}])
def test_images_are_known_by_their_first_bytes(ask, options):
    if options["format"] not in FORMATS:
        pytest.skip(f"this Pillow does not read {options['format']}")
    stream = io.BytesIO()
    Image.open(io.BytesIO(png())).convert("RGB").save(stream, **options)
    assert ask("POST", "/v1/detect", stream.getvalue()).status == 200


def test_a_pdf_in_place_of_an_image_is_told_where_to_go(ask):
    answer = ask("POST", "/v1/detect", pdf(1))
    assert (answer.status, answer.json["reason"]) == (415, "format")
    assert "/v1/extract" in answer.json["detail"]


def test_a_pdf_becomes_a_document(ask):
    answer = ask("POST", "/v1/extract", pdf(2))
    record = answer.json
    assert (answer.status, record["status"], record["pages_done"]) == (200, "ok", 2)
    assert [figure["page"] for figure in record["figures"]] == [0, 1]
    figure = record["figures"][0]["bbox"]
    assert figure == pytest.approx([100, 100, 501, 301], abs=1.5)  # the detector's box, its edges on blank paper


def test_a_zip_holds_the_crops(ask):
    answer = ask("POST", "/v1/extract", pdf(1), Accept="application/zip")
    with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
        record = json.loads(archive.read("document.json"))
        with Image.open(io.BytesIO(archive.read(record["figures"][0]["crop"]))) as crop:
            left, _, right, _ = record["figures"][0]["bbox"]
            assert crop.width == pytest.approx((right - left) * 200 / 72, abs=3)


def test_nothing_stays_of_what_was_answered(ask, server):
    ask("POST", "/v1/detect", png())
    ask("POST", "/v1/detect", b"hello")
    ask("POST", "/v1/extract", pdf(1))
    ask("POST", "/v1/extract", b"%PDF-broken")
    ask.wait_for("/healthz", lambda answer: not spool_of(server), 5)


def test_a_job_reports_its_pages_and_its_result(ask):
    started = ask("POST", "/v1/extract", pdf(2), Prefer="respond-async")
    assert started.status == 202
    place = started.headers["location"]
    ended = ask.wait_for(place, lambda answer: answer.json["status"] not in ("queued", "running")).json
    assert (ended["status"], ended["progress"]) == ("ok", {"done": 2, "total": 2})
    assert ended["pages"][1]["regions"][0]["label"] == "table"
    assert len(ask("GET", f"{place}/document").json["figures"]) == 2
    picture = ask("GET", f"{place}/pages/1")
    with Image.open(io.BytesIO(picture.body)) as image:
        assert image.size == (ended["pages"][0]["width"], ended["pages"][0]["height"])
    assert ask("GET", f"{place}/pages/3").status == 404
    assert ask("DELETE", place).status == 204
    assert ask("GET", place).status == 404


def test_models_say_what_is_served(ask):
    answer = ask("GET", "/v1/models").json
    assert answer["models"] == [{"name": "ink", "labels": ["table", "figure"], "thresholds": {"table": 0.5}}]
    assert answer["limits"] == {"body": 20 * 2**20, "pages": 50}


def test_openapi_has_every_route_and_no_model_management(ask):
    """A new route is a decision: it is written down here."""
    document = ask("GET", "/openapi.json").json
    assert {path: sorted(methods) for path, methods in document["paths"].items()} == {
        "/v1/detect": ["post"],
        "/v1/extract": ["post"],
        "/v1/jobs/{id}": ["delete", "get"],
        "/v1/jobs/{id}/document": ["get"],
        "/v1/jobs/{id}/pages/{number}": ["get"],
        "/v1/models": ["get"],
        "/healthz": ["get"],
        "/readyz": ["get"],
    }
    for methods in document["paths"].values():
        for operation in methods.values():
            assert operation["summary"]
            assert "application/problem+json" in operation["responses"]["4XX"]["content"]


@pytest.mark.parametrize("path", ["/", "/page.js", "/healthz", "/readyz"])
def test_monitors_may_ask_for_the_head_alone(ask, path):
    answer = ask("HEAD", path)
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["content-length"]) > 0


def test_metrics_count_routes_not_names(ask):
    ask("GET", "/secret-name")
    body, kind = form(png(SLOW), "secret-name.png")
    ask("POST", "/v1/detect", body, Content_Type=kind)
    text = ask("GET", "/metrics").body.decode()
    assert 'route="/v1/detect"' in text
    assert "secret-name" not in text


def test_metrics_do_not_grow_with_what_clients_make_up(ask):
    def series():
        return {line.rpartition(" ")[0] for line in ask("GET", "/metrics").body.decode().splitlines()}

    for number in range(3):  # every combination once
        for method in ("GET", "BREW", f"X{number}"):
            ask(method, f"/v1/jobs/{number}/{number}")
            ask(method, f"/v1/jobs/{number}")
    before = series()
    for number in range(3, 23):
        for method in ("GET", "BREW", f"X{number}"):
            ask(method, f"/v1/jobs/{number}/{number}")
            ask(method, f"/v1/jobs/{number}")
    assert series() == before


def test_a_model_that_cannot_be_loaded_ends_the_server():
    running = Running(broken_model)
    running.thread.join(120)
    assert "no such folder" in str(running.error)


def test_a_model_that_dies_at_every_start_is_said_at_once(tmp_path, monkeypatch, caplog):
    """Nobody waits for it until a deadline, and the server is well as soon as the model is."""
    monkeypatch.setattr("florentune.server.pool._LONGEST_PAUSE", 0.3)
    alive = tmp_path / "alive"
    running = Running(partial(dying_model, alive))
    try:
        paths = ("/v1/detect", "/v1/extract")
        with ThreadPoolExecutor(2) as threads:
            waiting = list(threads.map(lambda path: running.client("POST", path, png()), paths))
        for refused in [*waiting, running.client("GET", "/readyz"), *(running.client("POST", path) for path in paths)]:
            assert (refused.status, refused.json["reason"]) == (503, "worker_died")
            assert "died at each of its last starts" in refused.json["detail"]
        assert "died at its start" in caplog.text
        alive.touch()
        running.client.wait_for("/readyz", lambda answer: answer.status == 200)
        assert running.client("POST", "/v1/detect", png()).status == 200
    finally:
        running.__exit__()


def test_an_image_has_the_same_boxes_alone_and_in_company():
    """The real nano: images of several sizes, one after the other, then all at once, in runs of several.

    In torch: int8 graphs quantise the activations of a batch together (docs/server.md).
    """
    pytest.importorskip("torch", reason="needs the extra [train]")
    images = [png(400, 500, (40, 60, 300, 200)), png(500, 400, (100, 50, 400, 300)), png(300, 300, (30, 30, 200, 280))]
    with Running("nano", engine="torch") as running:

        def regions(image):
            return running.client("POST", "/v1/detect?conf=0", image, timeout=120).json["regions"]

        alone = [regions(image) for image in images]
        assert any(alone)
        with ThreadPoolExecutor(6) as threads:
            together = list(threads.map(regions, images * 2))
        text = running.client("GET", "/metrics").body.decode()
        runs, pages = (
            float(re.search(rf"^florentune_batch_images_{name} (\S+)", text, re.M)[1]) for name in ("count", "sum")
        )
    assert pages > runs  # some did have company
    for image, found in zip(alone * 2, together, strict=True):
        assert [(one["label"], one["bbox"]) for one in found] == [(one["label"], one["bbox"]) for one in image]
        assert [one["score"] for one in found] == pytest.approx([one["score"] for one in image], abs=1e-3)
