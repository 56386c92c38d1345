"""`florentune evaluate`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ImageError, InputError
from ..regions import counted

if TYPE_CHECKING:
    from PIL import Image

    from ..detector import Detector
    from ..evaluation import Evaluation, Problem
    from ..formats import DataSet, ImageFolder
    from ..regions import Page

SETTINGS = {"no_args_is_help": True}


@dataclass(frozen=True)
class _Predictor:
    """What is scored: its predictions at every score, what was odd about them, and the scores it keeps boxes from."""

    name: str
    pages: list[Page]
    problems: list[Problem]
    thresholds: dict[str, float]


def command(
    data: Annotated[Path, typer.Argument(help="The data set with the truth, in any format that is read.")],
    model: Annotated[str, typer.Option("--model", "-m", help="nano, a checkpoint folder, or a hub id.")] = "nano",
    images: Annotated[Path | None, typer.Option(help="Folder or zip of the images, if not beside DATA.")] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Score this file instead of a model: COCO results, or pages as JSON lines.")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Two such files: the second minus the first, with its interval.")
    ] = None,
    conf: Annotated[
        str | None, typer.Option(help="Confidence from which a box counts: 0.4, or table=0.4,figure=0.6.")
    ] = None,
    group_by: Annotated[
        str | None, typer.Option(help="Regular expression: its first group in the image name is the document.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write everything, predictions included, to this file.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write an HTML report into this folder.")] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Fit scores and thresholds to DATA; store them with the model.")
    ] = False,
    engine: Annotated[str, typer.Option(help="torch, onnx or auto.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 (torch).")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Threads of one model run.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Pages a model run.")] = 8,
) -> None:
    """Score a model, or any predictions, on a data set.

    COCO mAP with real scores, page success (every box of a page right, none extra), false alarms, confusion,
    calibration; intervals are resampled by document. Exit code 1 when predictions could not be scored.

    \b
      florentune evaluate data/val.json --images data/images --report report
      florentune evaluate data/val.json --predictions coco_results.json
      florentune evaluate data/val.json --compare before.json after.json
      florentune evaluate data/val.json --model runs/mine/best --calibrate
    """
    from ..files import write_json

    if predictions and (compare or calibrate):
        raise InputError("--predictions goes with neither --compare nor --calibrate")
    if compare and (report or calibrate):
        raise InputError("--compare goes with neither --report nor --calibrate")
    truth = _truth(data, images)
    if compare:
        _compare(truth, data, compare, conf, group_by, json_file)
        return
    if predictions:
        scored = _from_file(predictions, truth, data)
    else:
        detector = _detector(model, engine, device, threads)
        scored = _from_model(detector, truth, batch)
        scored = _calibrated(detector, truth, scored) if calibrate else scored
    result = _evaluated(scored, truth, conf, group_by)
    _print(result)
    if json_file:
        pages = [page.as_dict() for page in scored.pages]
        write_json(json_file, {"name": scored.name, **result.as_dict(), "predictions": pages})
    if report:
        from ..report.html import write_report

        typer.echo(f"\nreport: {write_report(report, result, truth, scored.pages, title=scored.name)}")
    if any(not problem.is_note for problem in result.problems):
        raise typer.Exit(1)


def _truth(data: Path, images: Path | None) -> DataSet:
    from ..formats import read

    truth = read(data, images=images)
    if truth.issues:
        errors = sum(issue.severity == "error" for issue in truth.issues)
        remarks = counted(len(truth.issues) - errors, "remark")
        typer.echo(f"{data}: {counted(errors, 'error')} and {remarks}; see florentune check", err=True)
    return truth


def _detector(model: str, engine: str, device: str, threads: int | None) -> Detector:
    from ..detector import load_detector

    return load_detector(model, engine=engine, device=device, threads=threads)


def _from_file(path: Path, truth: DataSet, data: Path) -> _Predictor:
    from ..evaluation import category_names, read_predictions

    pages, problems = read_predictions(path, truth.pages, category_names(data))
    return _Predictor(path.name, pages, problems, {})


def _from_model(detector: Detector, truth: DataSet, batch: int) -> _Predictor:
    """Predictions of a detector on every page, none left out for its score."""
    from rich.console import Console
    from rich.progress import track

    from ..evaluation import Problem
    from ..scores import DEFAULT_THRESHOLD

    if truth.images is None:
        raise InputError("where the images are is not known: pass --images DIR")
    found = detector.predict(_sources(truth.images, truth.pages), batch=batch, conf=0.0, every_label=True)
    console = Console(stderr=True)
    pages, problems = [], []
    for prediction in track(
        found, "predicting", total=len(truth.pages), console=console, disable=not console.is_terminal, transient=True
    ):
        if prediction.page is not None:
            pages.append(prediction.page)
        else:
            problems.append(Problem("failed", prediction.image, f"{prediction.error}; it counts as an empty page"))
    least = DEFAULT_THRESHOLD if detector.checkpoint.calibration else 0.0
    limits = {label: detector.thresholds.get(label, least) for label in truth.labels}
    return _Predictor(detector.name, pages, problems, limits)


def _sources(images: ImageFolder, pages: list[Page]) -> Iterator[tuple[str, Image.Image | Path]]:
    """Names and images; a broken one is passed on as its path, for the detector to record."""
    for page in pages:
        if images.is_zip:
            try:
                yield page.image, images.open(page.image)
                continue
            except ImageError:
                pass
        yield page.image, images.root / (images.locate(page.image) or page.image)


def _calibrated(detector: Detector, truth: DataSet, scored: _Predictor) -> _Predictor:
    """Store scale and thresholds with the checkpoint, and the predictions as it will score them from now on."""
    from ..evaluation import Scale, align, calibrate
    from ..evaluation.calibration import rescored
    from ..files import write_json

    paired, _ = align(truth.pages, scored.pages, truth.labels)
    found = calibrate(truth.pages, paired, truth.labels, scale=detector.scale)
    target = detector.checkpoint.path / "calibration.json"
    write_json(target, found)
    limits = ", ".join(f"{label} {limit:g}" for label, limit in found["thresholds"].items())
    after = Scale(found["temperature"], found["shift"])
    typer.echo(f"{target}: temperature {after.temperature:g}, shift {after.shift:g}, thresholds {limits}")
    typer.echo("The numbers below are on the pages this was fitted to; measure on others.\n")
    pages = [rescored(page, after.since(detector.scale)) for page in scored.pages]
    return _Predictor(scored.name, pages, scored.problems, found["thresholds"])


def _evaluated(scored: _Predictor, truth: DataSet, conf: str | None, group_by: str | None) -> Evaluation:
    from ..evaluation import evaluate

    limits = {**scored.thresholds, **_confidence(conf, truth.labels)}
    return evaluate(
        truth.pages, scored.pages, truth.labels, thresholds=limits, group_by=group_by, problems=scored.problems
    )


def _confidence(conf: str | None, labels: tuple[str, ...]) -> Mapping[str, float]:
    """`--conf` by label: one number for all, or label=number pairs."""
    if conf is None:
        return {}
    limits: dict[str, float] = {}
    for part in conf.split(","):
        label, equals, value = part.rpartition("=")
        if equals and label.strip() not in labels:
            raise InputError(f"--conf: no label {label.strip()!r}; the labels are {', '.join(labels)}")
        try:
            limits.update(dict.fromkeys([label.strip()] if equals else labels, float(value)))
        except ValueError:
            raise InputError(f"--conf {conf!r}: write a number, or label=number,label=number") from None
    return limits


def _compare(
    truth: DataSet,
    data: Path,
    files: tuple[Path, Path],
    conf: str | None,
    group_by: str | None,
    json_file: Path | None,
) -> None:
    from ..evaluation import compare
    from ..files import write_json
    from ..report.table import difference_lines

    first, second = (_from_file(path, truth, data) for path in files)
    results = [_evaluated(scored, truth, conf, group_by) for scored in (first, second)]
    rows = compare(truth.pages, (first.pages, results[0]), (second.pages, results[1]))
    typer.echo("\n".join(difference_lines(rows, *(str(path) for path in files))))
    if json_file:
        write_json(
            json_file, {"first": str(files[0]), "second": str(files[1]), "rows": [row.as_dict() for row in rows]}
        )


def _print(result: Evaluation) -> None:
    from ..report.table import problem_lines, summary_lines

    typer.echo("\n".join(summary_lines(result)))
    for line in problem_lines(result.problems):
        typer.echo(line, err=True)
