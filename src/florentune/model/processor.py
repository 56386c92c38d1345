"""Tokenizer and processor files of a checkpoint, written so that stock transformers loads them without edits.

Florence-2's tokenizer is a byte-level BPE (BART's 50,265 entries for the published models) followed by 1,024 tokens in
a fixed order; transformers' processor wants one more, `<image>`. All ids are taken from the tokenizer, never assumed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE

from ..errors import CheckpointError
from ..files import read_json, write_json, written_whole
from ..locations import BINS
from .weights import read_object, safe_file

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
IMAGE_TOKEN = "<image>"
SEQUENCE_TOKENS = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
# The order fixes the ids (Microsoft's processor appends them so); "desciption" is how it is spelled there.
ADDED_TOKENS = (
    *("<od>", "</od>", "<ocr>", "</ocr>"),
    *(f"<loc_{index}>" for index in range(BINS)),
    *("<cap>", "</cap>", "<ncap>", "</ncap>", "<dcap>", "</dcap>", "<grounding>", "</grounding>", "<seg>", "</seg>"),
    *("<sep>", "<region_cap>", "</region_cap>", "<region_to_desciption>", "</region_to_desciption>"),
    *("<proposal>", "</proposal>", "<poly>", "</poly>", "<and>"),
)
# Florence2Processor looks each task's parser up here and refuses those that are missing; the values are its defaults.
POST_PROCESSOR_TASKS = (
    "ocr",
    "phrase_grounding",
    "pure_text",
    "description_with_bboxes",
    "description_with_polygons",
    "polygons",
    "bboxes",
    "description_with_bboxes_or_polygons",
)
_DEFAULT_SIZE = 768


def complete_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer itself with those of Florence-2's 1,024 tokens and `<image>` that it lacks appended in order."""
    missing = [token for token in (*ADDED_TOKENS, IMAGE_TOKEN) if tokenizer.token_to_id(token) is None]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in missing])
    return tokenizer


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of a token; CheckpointError when the tokenizer has no such token."""
    found = tokenizer.token_to_id(token)
    if found is None:
        raise CheckpointError(f"the tokenizer lacks {token}; this is not a Florence-2 tokenizer")
    return found


def read_tokenizer(folder: Path) -> Tokenizer:
    """The complete tokenizer of a model folder, from tokenizer.json or from vocab.json and merges.txt.

    Raises CheckpointError when there is none, when it is no byte-level BPE with `<s> <pad> </s> <unk>`, or when its
    location tokens are not 1,000 successive ids.
    """
    path = safe_file(folder, "tokenizer.json")
    try:
        tokenizer = _from_json(path) if path else _from_merges(folder)
    except CheckpointError:
        raise
    except Exception as error:  # noqa: BLE001 - the tokenizers library raises bare Exception
        raise CheckpointError(f"{path or folder}: is not a tokenizer ({str(error)[:120]})") from None
    where = path or folder
    absent = [token for token in SEQUENCE_TOKENS.values() if tokenizer.token_to_id(token) is None]
    if absent:
        raise CheckpointError(f"{where}: lacks {' '.join(absent)}; this is not a Florence-2 tokenizer")
    complete_tokenizer(tokenizer)
    first = token_id(tokenizer, "<loc_0>")
    if any(tokenizer.token_to_id(f"<loc_{index}>") != first + index for index in range(BINS)):
        raise CheckpointError(f"{where}: the ids of <loc_0> .. <loc_{BINS - 1}> are not successive")
    return tokenizer


def _from_json(path: Path) -> Tokenizer:
    value = read_json(path, CheckpointError)
    model = value.get("model") if isinstance(value, dict) else None
    # Files of older versions of tokenizers leave the type out; a BPE is known by its merges.
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE" or "merges" not in model:
        raise CheckpointError(f"{path}: is not a byte-level BPE tokenizer, which Florence-2 needs")
    return Tokenizer.from_str(json.dumps(value))


def _from_merges(folder: Path) -> Tokenizer:
    from tokenizers import decoders, pre_tokenizers, processors

    vocab, merges = safe_file(folder, "vocab.json"), safe_file(folder, "merges.txt")
    if vocab is None or merges is None:
        raise CheckpointError(f"{folder}: has no tokenizer.json; copy it from the base model or name one with --base")
    tokenizer = Tokenizer(BPE.from_file(str(vocab), str(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = [token for token in SEQUENCE_TOKENS.values() if tokenizer.token_to_id(token) is not None]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in names])
    end, start = ("</s>", token_id(tokenizer, "</s>")), ("<s>", token_id(tokenizer, "<s>"))
    tokenizer.post_processor = processors.RobertaProcessing(end, start, trim_offsets=True, add_prefix_space=False)
    return tokenizer


def feature_map(vision: Mapping[str, Any], height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the tower's feature map for an image of height x width pixels (convolution arithmetic)."""
    for size, stride, padding in zip(
        vision["patch_size"], vision["patch_stride"], vision["patch_padding"], strict=True
    ):
        height = (height + 2 * padding - size) // stride + 1
        width = (width + 2 * padding - size) // stride + 1
    return height, width


def image_seq_length(vision: Mapping[str, Any], image_size: tuple[int, int], where: Path | str = "model") -> int:
    """How many tokens an image of (height, width) pixels becomes: one for the average and one for each cell.

    Raises CheckpointError when the feature map is empty or has more rows or columns than the tower has positions.
    """
    rows, columns = feature_map(vision, *image_size)
    most = vision["max_position_embeddings"]
    if not (1 <= rows <= most and 1 <= columns <= most):
        raise CheckpointError(
            f"{where}: images of {image_size[0]} x {image_size[1]} pixels give a feature map of {rows} x {columns}; "
            f"this model takes 1 to {most} rows and columns"
        )
    return rows * columns + 1


def read_image_settings(folder: Path) -> tuple[tuple[int, int], tuple[float, ...], tuple[float, ...]]:
    """(height, width), mean and standard deviation from processor_config.json or preprocessor_config.json.

    Without either file they are the published models': 768 x 768 and ImageNet's.
    """
    name = "processor_config.json"
    settings = (read_object(folder, name) or {}).get("image_processor")
    if settings is None:
        name = "preprocessor_config.json"
        settings = read_object(folder, name) or {}
    where = folder / name
    if not isinstance(settings, dict):
        raise CheckpointError(f"{where}: image_processor must be a JSON object")
    size = settings.get("size", {"height": _DEFAULT_SIZE, "width": _DEFAULT_SIZE})
    sides = (size.get("height"), size.get("width")) if isinstance(size, dict) else (None, None)
    if not all(isinstance(side, int) and 16 <= side <= 4096 for side in sides):
        raise CheckpointError(f"{where}: size must give height and width in pixels (16 to 4096), not {size!r:.60}")
    mean = _three(settings.get("image_mean", IMAGE_MEAN), where, "image_mean", low=-1.0)
    std = _three(settings.get("image_std", IMAGE_STD), where, "image_std", low=0.001)
    return (int(sides[0] or 0), int(sides[1] or 0)), mean, std


def _three(values: Any, where: Path, field: str, low: float) -> tuple[float, ...]:
    numbers = isinstance(values, list | tuple) and len(values) == 3
    if not numbers or not all(isinstance(value, int | float) and low <= value <= 2 for value in values):
        raise CheckpointError(f"{where}: {field} must be three numbers between {low} and 2, not {values!r:.60}")
    return tuple(float(value) for value in values)


def write_processor(
    folder: Path,
    tokenizer: Tokenizer,
    *,
    image_size: tuple[int, int],
    image_tokens: int,
    max_positions: int,
    mean: Sequence[float] = IMAGE_MEAN,
    std: Sequence[float] = IMAGE_STD,
) -> None:
    """Write tokenizer.json, tokenizer_config.json and processor_config.json for Florence2Processor.

    `image_size` is (height, width) in pixels, `image_tokens` what image_seq_length says for it, `max_positions` the
    longest text the model takes. The tokenizer must be complete.
    """
    with written_whole(folder / "tokenizer.json") as stream:
        stream.write(tokenizer.to_str(pretty=False))
    write_json(folder / "tokenizer_config.json", tokenizer_settings(tokenizer, max_positions))
    write_json(folder / "processor_config.json", processor_settings(image_size, image_tokens, mean, std))


def processor_settings(
    image_size: tuple[int, int],
    image_tokens: int,
    mean: Sequence[float] = IMAGE_MEAN,
    std: Sequence[float] = IMAGE_STD,
) -> dict[str, Any]:
    """processor_config.json, with the image processor's settings inside and an entry for every parser."""
    return {
        "processor_class": "Florence2Processor",
        "image_processor": image_settings(image_size, image_tokens, mean, std),
        "num_additional_image_tokens": 0,
        "post_processor_config": {task: {} for task in POST_PROCESSOR_TASKS},
    }


def tokenizer_settings(tokenizer: Tokenizer, max_positions: int) -> dict[str, Any]:
    """tokenizer_config.json: without model_specific_special_tokens the processor does not find the image token."""
    return {
        "tokenizer_class": "BartTokenizer",
        "processor_class": "Florence2Processor",
        "model_max_length": max_positions,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        **SEQUENCE_TOKENS,
        "cls_token": "<s>",
        "sep_token": "</s>",
        # BartTokenizer appends a `<mask>` of its own, beyond the embedding, unless this says there is none.
        "mask_token": "<mask>" if tokenizer.token_to_id("<mask>") is not None else None,
        "extra_special_tokens": [*ADDED_TOKENS, IMAGE_TOKEN],
        "model_specific_special_tokens": {"image_token": IMAGE_TOKEN},
    }


def image_settings(
    image_size: tuple[int, int], image_tokens: int, mean: Sequence[float], std: Sequence[float]
) -> dict[str, Any]:
    """The image processor's settings: one bicubic resize to (height, width), / 255, normalise."""
    size = {"height": image_size[0], "width": image_size[1]}
    return {
        "image_processor_type": "CLIPImageProcessor",
        "image_seq_length": image_tokens,
        "do_convert_rgb": True,
        "do_resize": True,
        "size": size,
        "resample": 3,
        "do_center_crop": False,
        "crop_size": size,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
    }
