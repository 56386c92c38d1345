"""Images: every mode as RGB, limits before decoding, one reason for each broken file."""

import io
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from florentune.errors import ImageError
from florentune.images import image_size, open_image, read_header
from manifest import manifest_rows

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")
GREY = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


def encoded(image, format="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def pixels(data):
    return np.asarray(open_image(data))


def reason_of(data, opener=open_image):
    with pytest.raises(ImageError) as caught:
        opener(data)
    return caught.value.reason


def outcome_of(source):
    """ "ok" for an RGB image, else the reason of the ImageError; any other exception fails the test."""
    try:
        return {"RGB": "ok"}[open_image(source).mode]
    except ImageError as error:
        return error.reason


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I", "I;16", "F", "LAB"])
def test_every_mode_becomes_rgb(mode):
    format = "PNG" if mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else "TIFF"
    image = Image.fromarray(GREY)
    image = image.convert("I").convert(mode) if mode == "I;16" else _converted(image, mode)
    found = open_image(encoded(image, format))
    assert (found.mode, found.size) == ("RGB", (8, 8))


def _converted(image, mode):
    return Image.new("LAB", image.size) if mode == "LAB" else image.convert(mode)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bits_are_scaled_to_the_8_bit_version(format):
    deep = Image.fromarray(GREY.astype(np.uint16) * 257)
    assert np.array_equal(pixels(encoded(deep, format)), pixels(encoded(Image.fromarray(GREY), format)))


def test_12_bit_tiff_is_scaled_by_its_own_depth(shared):
    path = shared / "bad_inputs/images/pillow_12bit.cropped.tif"
    with Image.open(path) as image:
        brightest = np.asarray(image).max()
    assert np.asarray(open_image(path)).max() == round(brightest * 255 / 4095) > 0


def test_float_images_are_stretched_and_nan_is_black():
    values = np.linspace(-3, 7, 64).reshape(8, 8).astype(np.float32)
    values[0, 1] = np.nan
    found = pixels(encoded(Image.fromarray(values), "TIFF"))
    assert (found[0, 0, 0], found[-1, -1, 0]) == (0, 255)
    assert found[0, 1].max() < 80  # zero of the scale, not a random value


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_laid_on_white(mode):
    assert (pixels(encoded(Image.new(mode, (2, 2)))) == 255).all()


def test_palette_transparency_is_laid_on_white():
    assert (pixels(encoded(Image.new("P", (2, 2)), transparency=0)) == 255).all()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_and_the_header_agrees(format, orientation):
    image = Image.new("RGB", (30, 20), "white")
    exif = image.getexif()
    exif[0x0112] = orientation
    data = encoded(image, format, exif=exif)
    expected = (30, 20) if orientation < 5 else (20, 30)
    header = read_header(data)
    assert open_image(data).size == expected
    assert (header.width, header.height, header.orientation) == (*expected, orientation)


def test_orientation_behind_the_pixels_of_a_png_is_found():
    image = Image.new("RGB", (30, 20))
    exif = image.getexif()
    exif[0x0112] = 6
    plain, tagged = encoded(image), encoded(image, exif=exif)
    start = tagged.index(b"eXIf") - 4
    chunk = tagged[start : start + int.from_bytes(tagged[start : start + 4], "big") + 12]
    late = plain[:-12] + chunk + plain[-12:]
    assert image_size(late) == open_image(late).size == (20, 30)


def test_only_the_first_frame_is_read():
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    data = encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    assert (pixels(data) == (255, 0, 0)).all()


@pytest.mark.parametrize("kind", ["path", "str", "bytes", "file"])
def test_every_kind_of_source(kind, tmp_path):
    path = tmp_path / "page.png"
    path.write_bytes(encoded(Image.new("RGB", (3, 2))))
    with path.open("rb") as stream:
        source = {"path": path, "str": str(path), "bytes": path.read_bytes(), "file": stream}[kind]
        assert open_image(source).size == (3, 2)


def png_of_size(width, height):
    """A PNG whose header claims a size that its data does not have."""
    plain = encoded(Image.new("1", (1, 1)))
    header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + plain[24:29]
    return plain[:12] + header + zlib.crc32(header).to_bytes(4, "big") + plain[33:]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (png_of_size(8000, 6251), "too_large"),
        (png_of_size(12000, 12000), "too_large"),
        (png_of_size(2**31 - 1, 2**31 - 1), "too_large"),
        (png_of_size(1, 51), "aspect"),
        (b"", "format"),
        (b"<html></html>", "format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "format"),
    ],
)
def test_limits_and_formats_hold_before_decoding(data, reason):
    assert reason_of(data) == reason_of(data, read_header) == reason


def test_a_truncated_image_is_named():
    data = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)))
    with pytest.raises(ImageError, match=r"page 7\.png.*truncated"):
        open_image(data[: len(data) // 2], name="page 7.png")


def test_a_missing_image_is_named(tmp_path):
    with pytest.raises(ImageError, match="nowhere") as caught:
        open_image(tmp_path / "nowhere.png")
    assert caught.value.reason == "missing"


def test_a_folder_is_no_image(tmp_path):
    assert reason_of(tmp_path) == "unreadable"


def test_the_pixel_limit_can_be_lowered():
    with pytest.raises(ImageError):
        open_image(encoded(Image.new("L", (11, 10))), max_pixels=100)


@settings(max_examples=300)
@given(st.data())
def test_broken_bytes_give_an_image_or_an_image_error(data):
    good = encoded(Image.fromarray(GREY), data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])))
    broken = bytearray(good)
    for _ in range(data.draw(st.integers(1, 5))):
        broken[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    assert outcome_of(bytes(broken)) in {"ok", "format", "too_large", "aspect", "truncated", "corrupt"}


# What MANIFEST.tsv expects of a file, in terms of the reasons an ImageError gives. Every other file must only end in
# an RGB image or an ImageError.
EXPECTED = {
    "synth_16bit_grey.png": {"ok"},
    "synth_1x1.png": {"ok"},
    "synth_apng_100k_frames_claim.png": {"ok"},
    "synth_bomb_12000x12000_grey.png": {"too_large"},
    "synth_bomb_16000x16000_rgb.png": {"too_large"},
    "synth_bomb_50000x50000_1bit.png": {"too_large"},
    "synth_dims_2e31.png": {"too_large"},
    "synth_eps.eps": {"format"},
    "synth_html.jpg": {"format"},
    "synth_svg_billion_laughs.svg": {"format"},
    "synth_svg_script.svg": {"format"},
    "synth_text.png": {"format"},
    "synth_ztxt_bomb.png": {"corrupt"},
}
EITHER = ("decoded or reject", "same", "200 or 422")


@pytest.mark.parametrize(("name", "expected"), manifest_rows("images/"))
def test_broken_images_end_as_the_manifest_expects(shared, name, expected):
    path = shared / "bad_inputs" / name
    outcome = outcome_of(path)
    if outcome == "ok":
        assert image_size(path) == open_image(path).size
    if path.name in EXPECTED:
        assert outcome in EXPECTED[path.name]
    else:
        assert expected.startswith(EITHER)
