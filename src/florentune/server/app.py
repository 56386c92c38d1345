"""The application: routes under /v1, the two health routes, metrics, and the page.

There is no route that loads, removes or configures a model, and none that fetches an address.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import zipfile
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, FastAPI, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from .. import __version__
from ..detector import load_detector
from ..images import FORMATS
from . import openapi, problems
from .guard import Guard
from .jobs import Documents, Job
from .limits import Limits
from .metrics import Metrics
from .model_worker import Factory
from .pool import ModelPool
from .problems import Problem, no_model, overloaded, problem_of, stopping
from .uploads import Uploads
from .workspace import Workspace

T = TypeVar("T")
STATIC = Path(__file__).with_name("static")
_PAGE_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/boxes.js": ("boxes.js", "text/javascript; charset=utf-8"),
    "/export.js": ("export.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_SWEEP_SECONDS = 60.0
_ZIP = "application/zip"
Confidence = Annotated[
    float | None, Query(ge=0, le=1, description="Least score of a box; left out, the thresholds of the model.")
]
Dpi = Annotated[float, Query(ge=36, le=400, description="Resolution at which pages are looked at and cropped.")]


class Service:
    """What the routes share. `draining` is set once the server takes no new work."""

    def __init__(self, factory: Factory, workers: int, limits: Limits) -> None:
        self.limits, self.workers, self.metrics = limits, workers, Metrics()
        self._workspace = Workspace()
        self.folder = self._workspace.folder
        self.pool = ModelPool(factory, workers, limits, self.metrics)
        self.documents = Documents(self.folder, self.pool, workers, limits, self.metrics)
        self.uploads = Uploads(self.folder, limits)
        self.draining = False
        self.pool.on_change = self.documents.dispatch
        self.metrics.gauge("florentune_images_in_work", "Images waiting or running.", lambda: self.pool.load)
        self.metrics.gauge("florentune_documents_in_work", "Documents waiting or running.", lambda: self.documents.load)

    @property
    def ready(self) -> bool:
        return self.pool.ready and not self.draining

    def doors(self) -> dict[str, Callable[[], None]]:
        """Where work is posted, and what raises the Problem for which none is taken now."""
        return {"/v1/detect": partial(self._admit, self.pool), "/v1/extract": partial(self._admit, self.documents)}

    def _admit(self, work: ModelPool | Documents) -> None:
        if self.draining:
            raise stopping()
        if self.pool.failing:
            raise no_model()
        if work.full:
            raise overloaded()

    def owes(self, since: float) -> bool:
        """Whether a request is being received or worked on, or a job that ended after `since` was not fetched yet."""
        return self.uploads.open + self.pool.load + self.documents.load > 0 or self.documents.unfetched(since) > 0

    def stop(self) -> None:
        """End all workers; what is still under way is answered with "stopping"."""
        try:
            self.documents.stop()
        finally:
            self.pool.stop()

    @contextlib.asynccontextmanager
    async def run(self, app: FastAPI) -> AsyncIterator[None]:
        """The lifespan: workers from start to end, old results removed meanwhile."""
        self.pool.start()
        self.documents.start()
        sweeper = asyncio.create_task(self._sweep())
        try:
            yield
        finally:
            sweeper.cancel()
            self.stop()
            self._workspace.remove()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            self.documents.sweep()


def create_app(
    model: str | Path | Factory = "nano",
    *,
    engine: str = "auto",
    workers: int = 1,
    limits: Limits | None = None,
    token: str | None = None,
    hosts: Collection[str] | None = None,
) -> FastAPI:
    """The ASGI application.

    `model` is what `load_detector` takes, or a picklable function that returns a detector; every one of `workers`
    processes makes its own. `token` is asked for on every route but /healthz and /readyz; `hosts` are the host names
    answered to (None: any). Deadlines for headers and idle connections need `run.serve`, which sets the protocol.
    """
    bounds = limits or Limits()
    threads = max((os.cpu_count() or 1) // workers, 1)
    factory: Factory = model if callable(model) else partial(load_detector, model, engine=engine, threads=threads)
    service = Service(factory, workers, bounds)
    app = FastAPI(
        title="florentune", version=__version__, lifespan=service.run, docs_url=None, redoc_url=None, openapi_url=None
    )
    app.state.service = service
    app.include_router(router)
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_middleware(Guard, limits=bounds, metrics=service.metrics, token=token, hosts=hosts, doors=service.doors())
    return app


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return problems.response(error)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reasons = {404: "missing", 405: "method"}
    reason = reasons.get(error.status_code, "bad_input")
    return problems.response(Problem(error.status_code, reason, str(error.detail), error.headers))


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = (f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in error.errors())
    return problems.response(Problem(422, "bad_input", "; ".join(faults)))


router = APIRouter()


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


@router.post("/v1/detect", **openapi.DETECT)
async def detect(
    request: Request, format: Literal["page", "florence"] = "page", conf: Confidence = None
) -> JSONResponse:
    """Find the boxes on one image (PNG, JPEG, WebP, TIFF, BMP, GIF or AVIF, raw or as a form's file)."""
    service = _service(request)
    async with service.uploads.receive(request) as upload:
        if upload.path.suffix == ".pdf":
            raise problem_of("format", f"this is no image ({', '.join(FORMATS)}); a PDF goes to /v1/extract")
        answer = service.pool.detect(upload.path, upload.name, conf, service.limits.deadline)
        page = await _unless_gone(request, answer)
    if format == "florence":
        boxes = [region["bbox"] for region in page["regions"]]
        return JSONResponse({"<OD>": {"bboxes": boxes, "labels": [region["label"] for region in page["regions"]]}})
    return JSONResponse(page)


@router.post("/v1/extract", **openapi.EXTRACT)
async def extract(
    request: Request,
    conf: Confidence = None,
    dpi: Dpi = 200.0,
    accept: Annotated[str, Header()] = "application/json",
    prefer: Annotated[str, Header(description="respond-async: answer 202 at once, with the place of the job.")] = "",
) -> Response:
    """Take the tables and figures out of a PDF (or an image): JSON, or with `Accept: application/zip` the crops too."""
    service = _service(request)
    later = "respond-async" in prefer.lower()
    limits = service.limits
    async with service.uploads.receive(request) as upload:
        seconds = limits.job_deadline if later else limits.deadline
        job = service.documents.submit(upload.path, upload.name, conf, dpi, seconds)
    if later:
        return JSONResponse(job.as_dict(), 202, {"Location": f"/v1/jobs/{job.id}"})
    try:
        await _unless_gone(request, job.ended.wait())
        answer = await _document(job, accept)
    except BaseException:
        service.documents.forget(job)
        raise
    answer.background = BackgroundTask(service.documents.forget, job)
    return answer


@router.get("/v1/jobs/{id}", **openapi.JOB)
async def show_job(request: Request, id: str) -> JSONResponse:
    """How a job stands, with the boxes of every page that is done."""
    return JSONResponse(_job(request, id).as_dict())


@router.delete("/v1/jobs/{id}", status_code=204, **openapi.CANCEL)
async def cancel_job(request: Request, id: str) -> Response:
    """End the work on a job and remove what there is of it."""
    _service(request).documents.forget(_job(request, id))
    return Response(status_code=204)


@router.get("/v1/jobs/{id}/document", **openapi.DOCUMENT)
async def show_document(request: Request, id: str, accept: Annotated[str, Header()] = "application/json") -> Response:
    """The result of a job that has ended, as JSON or zip."""
    job = _job(request, id)
    if not job.ended.is_set():
        raise Problem(409, "not_ready", "the job has not ended yet")
    job.fetched = True
    return await _document(job, accept)


@router.get("/v1/jobs/{id}/pages/{number}", **openapi.PAGE_IMAGE)
async def show_page(request: Request, id: str, number: int) -> FileResponse:
    """The image of a page (from 1) as the model saw it, PNG."""
    job = _job(request, id)
    if number - 1 not in job.pages:
        raise Problem(404, "missing", "that page is not done")
    return FileResponse(job.images / f"page-{number}.png", headers={"Cache-Control": "private, max-age=3600"})


@router.get("/v1/models", **openapi.MODELS)
async def list_models(request: Request) -> JSONResponse:
    """The model that is served: name, labels, and the least score of each label."""
    service = _service(request)
    models = [service.pool.model] if service.pool.model else []
    return JSONResponse({"models": models, "limits": {"body": service.limits.body, "pages": service.limits.pages}})


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", **openapi.HEALTH)
async def show_health() -> JSONResponse:
    """Whether the process answers."""
    return JSONResponse({"status": "ok"})


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", **openapi.HEALTH)
async def show_readiness(request: Request) -> JSONResponse:
    """Whether a request would be worked on: a model is warm and the server is not stopping."""
    service = _service(request)
    if service.pool.failing:
        raise no_model()
    if not service.ready:
        raise Problem(503, "not_ready", "the model is being loaded, or the server is stopping")
    return JSONResponse({"status": "ready"})


@router.get("/metrics", include_in_schema=False)
async def show_metrics(request: Request) -> Response:
    return Response(_service(request).metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/openapi.json", include_in_schema=False)
async def show_openapi(request: Request) -> JSONResponse:
    return JSONResponse(request.app.openapi())


async def show_page_file(request: Request) -> FileResponse:
    name, media_type = _PAGE_FILES[request.url.path]
    return FileResponse(STATIC / name, media_type=media_type, headers={"Cache-Control": "no-cache"})


for _path in _PAGE_FILES:
    router.add_api_route(_path, show_page_file, methods=["GET", "HEAD"], include_in_schema=False, response_model=None)


def _job(request: Request, name: str) -> Job:
    job = _service(request).documents.find(name)
    if job is None:
        raise Problem(404, "missing", "there is no such job; results are kept for a limited time")
    return job


async def _document(job: Job, accept: str) -> Response:
    """The result of an ended job. A document that could not be read is a problem, not a result."""
    if job.status in ("failed", "cancelled"):
        raise problem_of(job.reason, job.message if job.source in job.message else f"{job.source}: {job.message}")
    if _ZIP in accept:
        path = job.folder / "result.zip"
        await asyncio.to_thread(_zip, job.out, path)
        return FileResponse(path, media_type=_ZIP, filename="florentune.zip")
    return FileResponse(job.document, media_type="application/json")


def _zip(folder: Path, path: Path) -> None:
    """All files of a result, document.json first; PNG does not get smaller by compression."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.iterdir(), key=lambda file: (file.name != "document.json", file.name)):
            method = zipfile.ZIP_STORED if file.suffix == ".png" else zipfile.ZIP_DEFLATED
            archive.write(file, file.name, method)


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client goes away."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for waiting in (task, gone):
            waiting.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
