"""Turn generated papers (florentune synth) into a source folder of training pages.

python recipes/nano/ingest.py --synth DIR --out OUT
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

from PIL import Image

HEIGHT = 720
NAMES = {"abstract": "text", "theorem": "text", "footer": "header"}


def boxes_by_image(file: Path) -> tuple[dict[int, dict], dict[int, list]]:  # type: ignore[type-arg]
    """COCO images by id, and [label, xyxy] of each."""
    coco = json.loads(file.read_text())
    labels = {category["id"]: category["name"] for category in coco["categories"]}
    found = defaultdict(list)
    for annotation in coco["annotations"]:
        x, y, w, h = annotation["bbox"]
        label = labels[annotation["category_id"]].replace("_", " ")
        found[annotation["image_id"]].append([NAMES.get(label, label), [x, y, x + w, y + h]])
    return {image["id"]: image for image in coco["images"]}, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--synth", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    images, objects = boxes_by_image(options.synth / "annotations.json")
    same, layout = boxes_by_image(options.synth / "layout.json")
    by_name = {image["file_name"]: identity for identity, image in same.items()}
    with (options.out / "pages.jsonl").open("w") as stream:
        for identity, image in images.items():
            page = Image.open(options.synth / "images" / image["file_name"]).convert("RGB")
            name = Path(image["file_name"]).stem + ".jpg"
            small = page.resize((round(page.width * HEIGHT / page.height), HEIGHT), Image.Resampling.LANCZOS)
            small.save(options.out / name, quality=92)
            record = {
                "image": name,
                "width": page.width,
                "height": page.height,
                "objects": objects[identity],
                "layout": layout[by_name[image["file_name"]]],
                "drop": None,
            }
            stream.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
