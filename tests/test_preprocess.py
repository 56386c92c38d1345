"""The arrays the model reads, bit for bit those of transformers' Pillow image processor."""

import numpy as np
import pytest
from PIL import Image

from florentune.model.checkpoint import open_checkpoint
from florentune.model.preprocess import Preprocessor
from tiny_model import tiny_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return open_checkpoint(tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny", image_size=(64, 96)))


def test_pixels_equal_transformers(checkpoint):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    noise = np.random.default_rng(0).integers(0, 256, (131, 77, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    theirs = CLIPImageProcessorPil(
        size={"height": 64, "width": 96},
        do_center_crop=False,
        image_mean=list(checkpoint.image_mean),
        image_std=list(checkpoint.image_std),
        resample=3,
    )(image, return_tensors="np")["pixel_values"][0]
    ours = Preprocessor(checkpoint).pixels(image)
    assert ours.dtype == np.float32
    assert ours.shape == (3, 64, 96)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK"])
def test_other_modes_become_rgb(checkpoint, mode):
    image = Image.new("RGB", (40, 50), "white").convert(mode)
    white = Preprocessor(checkpoint).pixels(Image.new("RGB", (40, 50), "white"))
    np.testing.assert_array_equal(Preprocessor(checkpoint).pixels(image), white)


def test_prompt_ids_are_between_start_and_end(checkpoint):
    tokenizer = checkpoint.tokenizer()
    ids = Preprocessor(checkpoint).prompt_ids("<OD>")
    assert (ids[0], ids[-1]) == (tokenizer.token_to_id("<s>"), tokenizer.token_to_id("</s>"))
    assert tokenizer.decode(ids[1:-1]) == "Locate the objects with category name in the image."


def test_prompt_ids_of_the_published_tokenizer(shared):
    """The 13 ids the reference's processor gives for <OD>."""
    from florentune.model.processor import read_tokenizer

    class Files:
        image_size, image_mean, image_std = (768, 768), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

        def tokenizer(self):
            return read_tokenizer(shared / "data/florence2_large_files")

    expected = [0, 574, 22486, 5, 8720, 19, 4120, 766, 11, 5, 2274, 4, 2]
    assert Preprocessor(Files()).prompt_ids("<OD>") == expected
