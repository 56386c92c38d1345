"""The smallest whole Florence-2: two layers, random weights, a byte-level BPE trained on a few sentences."""

from __future__ import annotations

import functools
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

TEXTS = (
    "Locate the objects with category name in the image.",
    "What is the text in the image? What does the image describe?",
    "table figure caption formula algorithm chart photo text title list",
)


@functools.cache
def _tokenizer_json(labels: tuple[str, ...]) -> str:
    from florentune.model.processor import complete_tokenizer

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*TEXTS, " ".join(labels)] * 4, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    return complete_tokenizer(tokenizer).to_str()


def tiny_tokenizer(labels: tuple[str, ...] = ("table", "figure")) -> Tokenizer:
    """A tokenizer with Florence-2's 1,024 tokens and `<image>`, ids 0..3 as in BART."""
    return Tokenizer.from_str(_tokenizer_json(tuple(labels)))


def tiny_config(vocab_size: int, image_size: int = 64) -> dict:
    """A native configuration of about 0.2 M parameters; 64-pixel images become 4 x 4 + 1 tokens."""
    return {
        "image_size": image_size,
        "text_config": {
            "vocab_size": vocab_size,
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "max_position_embeddings": 128,
            "dropout": 0.0,
        },
        "vision_config": {
            "depths": [1, 1],
            "patch_size": [7, 3],
            "patch_stride": [8, 2],
            "patch_padding": [3, 1],
            "patch_prenorm": [False, True],
            "embed_dim": [16, 32],
            "num_heads": [2, 4],
            "num_groups": [2, 4],
            "window_size": 4,
            "drop_path_rate": 0.0,
            "projection_dim": 32,
        },
    }


def tiny_checkpoint(
    folder: Path,
    *,
    labels: tuple[str, ...] | None = ("table", "figure"),
    image_size: int | tuple[int, int] = 64,
    seed: int = 0,
) -> Path:
    """A native checkpoint folder with random weights of that seed; `image_size` is a side or (height, width)."""
    import torch

    from florentune.model.florence import build_model, save_checkpoint

    sides = (image_size, image_size) if isinstance(image_size, int) else image_size
    tokenizer = tiny_tokenizer(tuple(labels or ()))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_model(tiny_config(tokenizer.get_vocab_size()))
    save_checkpoint(
        model, Path(folder), tokenizer=tokenizer, image_size=sides, labels=labels, max_new_tokens=44, card=None
    )
    return Path(folder)
