"""Open an image safely as RGB: limits are checked on the header, before anything is decoded.

Allowed are PNG, JPEG, WebP, TIFF, BMP, GIF and AVIF, at most 50 megapixels and at most 50 times as long as wide. Only
the first frame or page is read, the EXIF orientation is applied, alpha is laid on white, 16 bits are scaled to 8.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms, ImageFile, ImageOps, UnidentifiedImageError, features

from .errors import ImageError

MAX_PIXELS = 50_000_000
MAX_ASPECT = 50
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", *(("AVIF",) if features.check("avif") else ()))
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif"})
Source = Path | str | bytes | BinaryIO

_ORIENTATION = 0x0112
_BITS_PER_SAMPLE = 258

# Our limits and our errors say it better. Pillow's warnings are filtered here, once, because warnings.catch_warnings
# changes the state of the whole process and cannot be used from several threads.
for _module in (r"PIL\.Image", r"PIL\.\w+ImagePlugin"):
    warnings.filterwarnings("ignore", category=UserWarning, module=_module)
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning, module=_module)


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What the header says: size in pixels as shown (EXIF orientation applied) and the orientation tag, 1 to 8."""

    width: int
    height: int
    orientation: int


def open_image(source: Source, *, max_pixels: int = MAX_PIXELS, name: str | None = None) -> Image.Image:
    """The image as RGB, upright, without alpha.

    `source` is a path, the bytes of a file or an open binary file; `name` is what errors call it. A decoded array of
    shape (height, width, 3) holds 0..255. Raises ImageError with a reason: "missing", "format", "too_large",
    "aspect", "truncated" or "corrupt".
    """
    label = name or _name_of(source)
    with _opened(source, label) as image:
        _check_limits(image.size, max_pixels, label)
        try:
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return to_rgb(image)
        except Exception as error:  # the decoders raise nearly anything on a broken file
            raise _decoding_error(error, label) from error


def read_header(source: Source, *, name: str | None = None) -> ImageHeader:
    """Size and orientation without decoding the pixels. Raises ImageError as open_image does, limits included."""
    label = name or _name_of(source)
    with _opened(source, label) as image:
        _check_limits(image.size, MAX_PIXELS, label)
        try:
            orientation = _orientation(image)
        except Exception as error:  # broken metadata
            raise _decoding_error(error, label) from error
        width, height = image.size
    # Pillow already gives the upright size of a TIFF.
    if orientation >= 5 and image.format != "TIFF":
        width, height = height, width
    return ImageHeader(width, height, orientation)


def image_size(source: Source) -> tuple[int, int]:
    """(width, height) in pixels as shown, from the header alone: what open_image(source).size will be."""
    header = read_header(source)
    return header.width, header.height


def _name_of(source: Source) -> str:
    if isinstance(source, Path | str):
        return str(source)
    return str(getattr(source, "name", "image"))


@contextmanager
def _opened(source: Source, label: str) -> Iterator[ImageFile.ImageFile]:
    """The image with only its header read, whatever kind of source it comes from."""
    try:
        image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
    except FileNotFoundError:
        raise ImageError(f"{label}: no such image", reason="missing") from None
    except (Image.DecompressionBombError, OverflowError):
        raise ImageError(f"{label}: claims more pixels than any page has", reason="too_large") from None
    except UnidentifiedImageError:
        allowed = ", ".join(FORMATS)
        raise ImageError(f"{label}: is not an image in one of the formats {allowed}", reason="format") from None
    except Exception as error:  # the header parsers raise nearly anything on a broken file
        raise _decoding_error(error, label) from error
    with image:
        yield image


def _check_limits(size: tuple[int, int], max_pixels: int, label: str) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError(
            f"{label}: {width} x {height} are {width * height / 1e6:.0f} megapixels, more than the "
            f"{max_pixels / 1e6:.0f} allowed; scale the image down",
            reason="too_large",
        )
    if min(size) <= 0:
        raise ImageError(f"{label}: has no pixels ({width} x {height})", reason="corrupt")
    if max(size) > MAX_ASPECT * min(size):
        raise ImageError(f"{label}: {width} x {height} is too long and thin for a page", reason="aspect")


def _decoding_error(error: Exception, label: str) -> ImageError:
    if isinstance(error, OSError) and error.strerror:
        return ImageError(f"{label}: cannot be read ({error.strerror})", reason="unreadable")
    reason = "truncated" if "truncated" in str(error).lower() else "corrupt"
    return ImageError(f"{label}: cannot be decoded, the file is {reason} ({error})", reason=reason)


def _orientation(image: ImageFile.ImageFile) -> int:
    """The orientation tag (1 to 8) from EXIF or XMP."""
    if image.format == "PNG" and _has_trailing_metadata(image):
        image.load()
    # PngImageFile.getexif decodes the whole image to look behind it, which _has_trailing_metadata has done cheaply.
    value = Image.Image.getexif(image).get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _has_trailing_metadata(image: ImageFile.ImageFile) -> bool:
    """Whether a PNG has an eXIf or iTXt chunk behind its pixels, found by walking over the chunks."""
    stream = image.fp
    if stream is None:
        return False
    start = stream.tell()
    stream.seek(8)
    behind, found = False, False
    while len(head := stream.read(8)) == 8 and head[4:] != b"IEND":
        behind = behind or head[4:] == b"IDAT"
        found = found or (behind and head[4:] in (b"eXIf", b"iTXt"))
        stream.seek(int.from_bytes(head[:4], "big") + 4, io.SEEK_CUR)
    stream.seek(start)
    return found


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode of Pillow as RGB on white."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return _deep_to_grey(image).convert("RGB")
    if image.mode == "LAB":
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.applyTransform(image, ImageCms.buildTransform(*profiles, "LAB", "RGB"))
        return converted if converted is not None else image.convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        page = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(page, image).convert("RGB")
    return image.convert("RGB") if image.mode != "RGB" else image.copy()


def _deep_to_grey(image: Image.Image) -> Image.Image:
    """Grey of more than 8 bits as 8 bits: from 0 to full scale where that is known, else from darkest to brightest."""
    values = np.asarray(image, dtype=np.float64)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if image.mode != "F" and low >= 0 and high <= 65535:
        bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))[0]
        low, high = 0.0, float(2 ** min(max(bits, 8), 16) - 1)
    scaled = (values - low) * (255 / (high - low)) if high > low else np.zeros_like(values)
    return Image.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8))
