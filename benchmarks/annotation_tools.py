"""Does what `florentune label` writes open in CVAT and in Label Studio? Their own importers answer.

    python benchmarks/annotation_tools.py --work /tmp/tools

CVAT reads COCO with datumaro, Label Studio with the converter of its SDK; each is installed into an environment of its
own under --work. Both read the file of a labelled folder, and every box must come out where it was. Exit code 1 if one
does not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

SLACK = 0.01  # pixels; the file has four decimals
IMPORTERS = {
    "datumaro": """
import json, sys
from datumaro.components.dataset import Dataset
found = []
for item in Dataset.import_from(sys.argv[1], "coco_instances"):
    for box in item.annotations:
        found.append([item.id, box.label, *box.get_bbox()])
print(json.dumps(found))
""",
    "label-studio-sdk": """
import json, sys
from label_studio_sdk.converter.imports.coco import convert_coco_to_ls
convert_coco_to_ls(sys.argv[1], sys.argv[1] + ".tasks.json", out_type="predictions", image_root_url="/")
names = [entry["name"] for entry in json.load(open(sys.argv[1]))["categories"]]
found = []
for task in json.load(open(sys.argv[1] + ".tasks.json")):
    for item in task["predictions"][0]["result"]:
        value, width, height = item["value"], item["original_width"] / 100, item["original_height"] / 100
        box = [value["x"] * width, value["y"] * height, value["width"] * width, value["height"] * height]
        name = task["data"]["image"].lstrip("/").rpartition(".")[0]
        found.append([name, names.index(value["rectanglelabels"][0]), *box])
print("\\n" + json.dumps(found))
""",
}


def environment(package: str, work: Path) -> Path:
    """The Python of an environment with `package`, made when it is not there yet."""
    folder = work / package
    python = folder / "bin" / "python"
    done = folder / "installed"
    if not done.is_file():
        venv.create(folder, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--only-binary", ":all:", package], check=True)
        done.touch()
    return python


def labelled(work: Path, model: str) -> Path:
    """The COCO file that `florentune label` writes for three pages with a table each, one of them in a folder below."""
    folder = work / "images"
    (folder / "more").mkdir(parents=True, exist_ok=True)
    for name, size in (("a_0.png", (850, 1100)), ("a_1.png", (1000, 800)), ("more/b_0.jpg", (1700, 2200))):
        page_with_table(*size).save(folder / name)
    out = work / "annotations" / "boxes.json"  # where the COCO format, and so datumaro, has it
    out.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "florentune", "label", str(folder), "--out", str(out), "--model", model]
    subprocess.run([*command, "--conf", "0"], check=True, stdout=subprocess.DEVNULL)
    return out


def page_with_table(width: int, height: int) -> Image.Image:
    """A white page with a ruled table of numbers in its upper half."""
    page = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(page)
    font = ImageFont.load_default(size=height // 60)
    left, top, across, down = width // 6, height // 6, width // 9, height // 30
    for row in range(9):
        pen.line((left, top + row * down, left + 6 * across, top + row * down), fill="black", width=2)
        for column in range(6) if row < 8 else ():
            place = (left + column * across + 8, top + row * down + 8)
            pen.text(place, f"{row * 7 + column * 3:.2f}", fill="black", font=font)
    return page


def written(path: Path) -> list[list[Any]]:
    """The boxes of a COCO file as [image without its suffix, place of the label, x, y, width, height]."""
    coco = json.loads(path.read_text(encoding="utf-8"))
    images = {entry["id"]: entry["file_name"].rpartition(".")[0] for entry in coco["images"]}
    places = {entry["id"]: place for place, entry in enumerate(coco["categories"])}
    return [[images[a["image_id"]], places[a["category_id"]], *a["bbox"]] for a in coco["annotations"]]


def imported(python: Path, package: str, path: Path) -> list[list[Any]]:
    done = subprocess.run(
        [str(python), "-c", IMPORTERS[package], str(path)], check=True, stdout=subprocess.PIPE, text=True
    )
    found: list[list[Any]] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def alike(one: list[list[Any]], other: list[list[Any]]) -> bool:
    def close(a: list[Any], b: list[Any]) -> bool:
        return a[:2] == b[:2] and all(abs(x - y) <= SLACK for x, y in zip(a[2:], b[2:], strict=True))

    return len(one) == len(other) and all(close(a, b) for a, b in zip(sorted(one), sorted(other), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="environments and files; outside a work tree")
    parser.add_argument("--model", default="nano")
    options = parser.parse_args()
    path = labelled(options.work.resolve(), options.model)
    expected = written(path)
    failed = not expected
    for package in IMPORTERS:
        found = imported(environment(package, options.work.resolve()), package, path)
        same = alike(found, expected)
        failed = failed or not same
        print(f"{package}: {len(found)} of {len(expected)} boxes, {'each where it was' if same else 'NOT the same'}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
