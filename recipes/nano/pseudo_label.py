"""Label real papers: teacher boxes, joined into whole figures by the captions of the PDF's own text.

    python recipes/nano/pseudo_label.py --papers DIR --teacher pp_doclayout_s.onnx --exclude DIR --out OUT

Writes OUT/<paper>_<page>.jpg (720 px high) and OUT/pages.jsonl, one line a page with `objects` (table and figure boxes
without captions), `layout` (every other region the teacher saw) and `drop` (why the page is not used, or null).
A page is kept only where teacher and text agree: as many boxes of each kind as captions, no doubtful box left over.
`--exclude` names papers that must not be used; they are recognised by content hash, arXiv number and title.
Pages that text and teacher disagree about were looked at: corrections.jsonl beside this file holds their boxes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import re
from pathlib import Path
from typing import Any

import numpy as np
import pypdfium2
from PIL import Image
from teacher import Teacher

DPI = 100
HEIGHT = 720
MARGIN = 5  # pixels at 100 dpi: the habit of TF-ID, about 10 at 200 dpi
SURE, DOUBTFUL = 0.45, 0.2
CAPTION = re.compile(
    r"^(?P<kind>Figure|Fig\.?|FIGURE|FIG\.?|Table|TABLE|Tab\.)\s*(?:[A-Z]{0,2}\.?-?\d+(?:[.-]\d+)*|[IVXL]+)\s*(?:[:.|—–(]|$)"
)
LAYOUT = {
    "paragraph_title": "heading",
    "text": "text",
    "abstract": "text",
    "content": "list",
    "figure_title": "caption",
    "table_title": "caption",
    "chart_title": "caption",
    "formula": "equation",
    "reference": "reference",
    "doc_title": "title",
    "footnote": "footnote",
    "header": "header",
    "number": "header",
    "footer": "header",
    "algorithm": "algorithm",
}
Found = tuple[str, float, np.ndarray]


def text_lines(page: pypdfium2.PdfPage) -> list[tuple[str, np.ndarray]]:
    """(text, xyxy in pixels at DPI) of each line of the page's text layer."""
    layer, scale, top = page.get_textpage(), DPI / 72, page.get_height()
    pieces = []
    for index in range(min(layer.count_rects(), 4000)):
        left, bottom, right, upper = layer.get_rect(index)
        text = layer.get_text_bounded(left, bottom, right, upper).strip()
        if text:
            pieces.append((text, np.array([left, top - upper, right, top - bottom]) * scale))
    lines: list[tuple[str, np.ndarray]] = []
    for text, box in pieces:
        if lines:
            last_text, last = lines[-1]
            same_row = min(last[3], box[3]) - max(last[1], box[1]) > 0.5 * min(last[3] - last[1], box[3] - box[1])
            if same_row and -3 < box[0] - last[2] < 14:
                lines[-1] = (f"{last_text} {text}", np.r_[np.minimum(last[:2], box[:2]), np.maximum(last[2:], box[2:])])
                continue
        lines.append((text, box))
    return lines


def covered(inner: np.ndarray, outer: np.ndarray) -> float:
    """Share of `inner` that lies inside `outer`."""
    size = np.maximum(np.minimum(inner[2:], outer[2:]) - np.maximum(inner[:2], outer[:2]), 0)
    return float(size.prod() / max((inner[2:] - inner[:2]).prod(), 1e-6))


def panels_of(found: list[Found]) -> list[tuple[str, float, np.ndarray]]:
    """Table and figure boxes, best first, without those that repeat or lie inside a better one."""
    kinds = {"table": "table", "image": "figure", "chart": "figure"}
    kept: list[Found] = []
    for label, score, box in sorted((f for f in found if f[0] in kinds), key=lambda f: -f[1]):
        if not any(covered(box, other) > 0.7 or covered(other, box) > 0.8 for _, _, other in kept):
            kept.append((kinds[label], score, box))
    return kept


def captions_of(lines: list[tuple[str, np.ndarray]], found: list[Found]) -> list[tuple[str, np.ndarray]]:
    """(kind, box) of each caption: a line that starts one and is not the middle of a paragraph."""
    texts = [box for label, score, box in found if label in ("text", "reference", "abstract") and score > 0.5]
    titles = [box for label, score, box in found if LAYOUT.get(label) == "caption" and score > 0.25]
    captions = []
    for text, line in lines:
        match = CAPTION.match(text)
        if not match:
            continue
        title = next((box for box in titles if covered(line, box) > 0.5), None)
        inside = [box for box in texts if covered(line, box) > 0.6 and line[1] - box[1] > 8]
        if title is None and inside:
            continue
        box = line if title is None else np.r_[np.minimum(line[:2], title[:2]), np.maximum(line[2:], title[2:])]
        kind = "table" if match["kind"].lower().startswith("tab") else "figure"
        captions.append((kind, box))
    return captions


def distance(panel: np.ndarray, caption: np.ndarray, texts: list[np.ndarray]) -> float:
    """How far a caption is from a panel in pixels; infinite where a paragraph lies between or they do not face."""
    across = min(panel[2], caption[2]) - max(panel[0], caption[0])
    along = min(panel[3], caption[3]) - max(panel[1], caption[1])
    if across > 0:
        gap = max(panel[1] - caption[3], caption[1] - panel[3], 0.0)
        low, high = min(panel[3], caption[3]), max(panel[1], caption[1])
        between = np.array([max(panel[0], caption[0]), low, min(panel[2], caption[2]), high])
    elif along > 0:
        gap = max(panel[0] - caption[2], caption[0] - panel[2], 0.0) * 1.5 + 10
        between = np.array([min(panel[2], caption[2]), max(panel[1], caption[1]), max(panel[0], caption[0]), 0])
        between[3] = min(panel[3], caption[3])
    else:
        return float("inf")
    if between[2] > between[0] and between[3] - between[1] > 4 and any(covered(between, t) > 0.25 for t in texts):
        return float("inf")
    return float(gap)


def with_lines_between(
    union: np.ndarray, caption: np.ndarray, lines: list[tuple[str, np.ndarray]], texts: list[np.ndarray]
) -> np.ndarray:
    """The union grown over sub-captions and axis labels that stand between the panels and the caption."""
    for text, line in lines:
        middle = (line[1] + line[3]) / 2
        below = union[3] - 3 < middle < caption[1] and line[3] < caption[1] + 3
        above = caption[3] < middle < union[1] + 3 and line[1] > caption[3] - 3
        faces = line[0] > union[0] - 40 and line[2] < union[2] + 40
        near = line[1] - union[3] < 60 if below else union[1] - line[3] < 60
        if (
            (below or above)
            and faces
            and near
            and not CAPTION.match(text)
            and not any(covered(line, t) > 0.5 for t in texts)
        ):
            union = np.r_[np.minimum(union[:2], line[:2]), np.maximum(union[2:], line[2:])]
    return union


def snapped(box: np.ndarray, ink: np.ndarray, keep_out: list[np.ndarray]) -> np.ndarray:
    """The box moved to the ink it holds, then given the margin, without entering a caption."""
    height, width = ink.shape
    x1, y1, x2, y2 = (int(v) for v in np.clip(np.round(box), 0, [width - 1, height - 1, width, height]))
    for _ in range(14):  # grow while ink crosses a side
        grow = [
            x1 > 0 and ink[y1:y2, x1].any(),
            y1 > 0 and ink[y1, x1:x2].any(),
            x2 < width and ink[y1:y2, x2 - 1].any(),
            y2 < height and ink[y2 - 1, x1:x2].any(),
        ]
        if not any(grow):
            break
        x1, y1, x2, y2 = x1 - grow[0], y1 - grow[1], x2 + grow[2], y2 + grow[3]
    inside = ink[y1:y2, x1:x2]
    if not inside.any():
        return box
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    tight = np.array([x1 + columns[0], y1 + rows[0], x1 + columns[-1] + 1, y1 + rows[-1] + 1], float)
    padded = np.clip(tight + np.array([-MARGIN, -MARGIN, MARGIN, MARGIN]), 0, [width, height, width, height])
    for other in keep_out:
        if min(padded[2], other[2]) - max(padded[0], other[0]) > 0:
            if tight[3] <= other[1] + 2:
                padded[3] = min(padded[3], max((tight[3] + other[1]) / 2, tight[3]))
            elif tight[1] >= other[3] - 2:
                padded[1] = max(padded[1], min((tight[1] + other[3]) / 2, tight[1]))
    return padded


Panel = tuple[str, float, np.ndarray]


def grouped(
    panels: list[Panel], captions: list[tuple[str, np.ndarray]], texts: list[np.ndarray]
) -> tuple[list[list[Panel]], list[Panel]]:
    """The panels of each caption, the nearest one's, and those of none."""
    groups: list[list[Panel]] = [[] for _ in captions]
    loose = []
    for panel in panels:
        gaps = [distance(panel[2], box, texts) + 12 * (kind != panel[0]) for kind, box in captions]
        nearest = int(np.argmin(gaps)) if gaps else -1
        limit = 200 if panel[1] >= SURE else 60
        if gaps and gaps[nearest] < limit and panel[1] >= DOUBTFUL:
            groups[nearest].append(panel)
        else:
            loose.append(panel)
    return groups, loose


def defect(objects: list[tuple[str, np.ndarray]], texts: list[np.ndarray]) -> str | None:
    """What is wrong with the boxes of a page, if anything."""
    for index, (_, box) in enumerate(objects):
        size = box[2:] - box[:2]
        if any(covered(t, box) > 0.6 and (t[2:] - t[:2]).prod() > 0.15 * size.prod() for t in texts):
            return "a box holds a paragraph"
        if any(covered(box, other) > 0.05 for _, other in objects[:index] + objects[index + 1 :]):
            return "boxes overlap"
        if size.min() < 18:
            return "a box is too small"
    return None


def label_page(image: Image.Image, lines: list[tuple[str, np.ndarray]], found: list[Found]) -> dict[str, Any]:
    """Objects, layout regions and the reason to drop the page, boxes in pixels of `image`."""
    ink = np.asarray(image.convert("L")) < 235
    captions = captions_of(lines, found)
    paragraphs = ("text", "reference", "abstract", "doc_title")
    texts = [box for label, score, box in found if label in paragraphs and score > 0.55]
    groups, loose = grouped(panels_of(found), captions, texts)
    keep_out = [box for _, box in captions]
    objects, drop = [], None
    for (kind, caption), group in zip(captions, groups, strict=True):
        if not group or max(score for _, score, _ in group) < SURE:
            drop = f"a {kind} caption without a sure box"
            continue
        union = np.r_[np.min([b[:2] for *_, b in group], 0), np.max([b[2:] for *_, b in group], 0)]
        union = with_lines_between(union, caption, lines, texts)
        objects.append((kind, snapped(union, ink, keep_out)))
    for kind, score, box in loose:
        inside = any(covered(box, other) > 0.6 for _, other in objects)
        if score >= 0.8 and kind == "table" and not inside:
            objects.append((kind, snapped(box, ink, keep_out)))
        elif score >= DOUBTFUL + 0.05 and not inside:
            drop = drop or f"a {kind} at {score:.2f} without a caption"
    layout = [(LAYOUT[label], box) for label, score, box in found if label in LAYOUT and score > 0.4]
    return {
        "objects": [[kind, [round(float(v), 1) for v in box]] for kind, box in objects],
        "layout": [[kind, [round(float(v), 1) for v in box]] for kind, box in layout],
        "drop": drop or defect(objects, texts),
    }


def title_of(document: pypdfium2.PdfDocument) -> str:
    """The letters of the first 300 characters of page one: equal for two versions of one paper."""
    return re.sub(r"[^a-z]", "", document[0].get_textpage().get_text_range(0, 300).lower())[:60]


def excluded_keys(folder: Path | None) -> set[str]:
    """Content hashes, titles and arXiv numbers of the papers that must not be used."""
    keys: set[str] = set()
    for file in sorted(folder.rglob("*.pdf")) if folder else ():
        keys |= {hashlib.sha256(file.read_bytes()).hexdigest(), title_of(pypdfium2.PdfDocument(file))}
    for file in sorted(folder.rglob("*.json")) if folder else ():
        keys |= {found.replace("_", ".") for found in re.findall(r"arxiv_(\d{4}_\d{4,5})_", file.read_text())}
    return keys - {""}


def corrections() -> dict[str, list[Any]]:
    """Objects by image name of the pages that were labelled by eye, boxes in pixels at DPI."""
    lines = (Path(__file__).parent / "corrections.jsonl").read_text().splitlines()
    return {record["image"]: record["objects"] for record in map(json.loads, lines)}


def label_paper(job: tuple[Path, Path, Path, set[str], int]) -> list[dict[str, Any]]:
    """Label one PDF, each page with a caption and every n-th of the others; writes the page images."""
    file, out, teacher_file, excluded, every = job
    document = pypdfium2.PdfDocument(file)
    arxiv = re.search(r"\d{4}\.\d{4,5}", file.name)
    mine = {hashlib.sha256(file.read_bytes()).hexdigest(), title_of(document), arxiv.group() if arxiv else ""}
    if mine & excluded:
        return [{"image": file.name, "drop": "the paper is one that must not be trained on"}]
    teacher, records, corrected = Teacher(teacher_file), [], corrections()
    for index in range(len(document)):
        page = document[index]
        if not (200 < page.get_width() < 1200 and 200 < page.get_height() < 1200) or page.get_rotation():
            continue
        lines = text_lines(page)
        if index % every and not any(CAPTION.match(text) for text, _ in lines):
            continue
        image = page.render(scale=DPI / 72).to_pil().convert("RGB")
        record = label_page(image, lines, teacher(image))
        name = f"{file.stem[:40]}_{index}.jpg"
        if name in corrected:
            record |= {"objects": corrected[name], "drop": None, "by_eye": True}
        small = image.resize((round(image.width * HEIGHT / image.height), HEIGHT), Image.Resampling.LANCZOS)
        small.save(out / name, quality=92)
        records.append({"image": name, "width": image.width, "height": image.height, **record})
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--papers", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--exclude", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--every", type=int, default=1, help="of pages without a caption, label every n-th")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    excluded = excluded_keys(options.exclude)
    files = sorted(options.papers.rglob("*.pdf"))
    jobs = [(file, options.out, options.teacher, excluded, options.every) for file in files]
    kept = dropped = 0
    with multiprocessing.Pool(options.workers) as pool, (options.out / "pages.jsonl").open("w") as stream:
        for records in pool.imap_unordered(label_paper, jobs):
            for record in records:
                stream.write(json.dumps(record) + "\n")
                kept, dropped = kept + (record["drop"] is None), dropped + (record["drop"] is not None)
            stream.flush()
    print(f"{kept} pages kept, {dropped} dropped, of {len(jobs)} papers")


if __name__ == "__main__":
    main()
