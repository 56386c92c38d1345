"""The weight-name table and the shapes, against transformers' own model and Microsoft's published configuration."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from florentune.errors import CheckpointError
from florentune.model import layouts
from florentune.model.config import generation_settings, microsoft_config, native_config
from florentune.model.sizes import SIZE_NAMES, size_config
from tiny_model import tiny_config


def config_of(size):
    return native_config({"model_type": "florence2", **size})


def meta_model(config):
    import torch
    from transformers import Florence2Config, Florence2ForConditionalGeneration

    with torch.device("meta"):
        return Florence2ForConditionalGeneration(Florence2Config(**config))


@pytest.mark.parametrize("name", SIZE_NAMES)
def test_shapes_are_those_of_the_model_itself(name):
    config = config_of(size_config(name))
    state = {key: tuple(tensor.shape) for key, tensor in meta_model(config).state_dict().items()}
    shapes = layouts.native_shapes(config)
    assert shapes == {key: state[key] for key in shapes}
    assert set(state) - set(shapes) == {*layouts.EMBEDDING_ALIASES[1:], layouts.HEAD}


@pytest.mark.parametrize(("name", "count"), [("base", 231_414_016), ("large", 770_173_952)])
def test_published_sizes_have_the_published_parameter_counts(name, count):
    model = meta_model(config_of(size_config(name)))
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_every_name_survives_the_round_trip():
    native = layouts.native_shapes({**config_of(size_config("large")), "tie_word_embeddings": False})
    theirs = [layouts.to_microsoft(name) for name in native]
    assert None not in theirs
    assert len(set(theirs)) == len(native)
    assert [layouts.to_native(name) for name in theirs] == list(native)


def test_the_names_of_the_published_weights():
    pairs = {
        "image_projection": "model.multi_modal_projector.image_projection.weight",
        "language_model.lm_head.weight": "lm_head.weight",
        "vision_tower.convs.2.proj.bias": "model.vision_tower.convs.2.conv.bias",
        "vision_tower.blocks.2.7.channel_block.channel_attn.norm.weight": (
            "model.vision_tower.blocks.2.7.channel_block.norm1.weight"
        ),
        "vision_tower.blocks.0.0.spatial_block.ffn.fn.net.fc1.bias": (
            "model.vision_tower.blocks.0.0.spatial_block.ffn.fc1.bias"
        ),
        "vision_tower.blocks.0.0.spatial_block.conv1.fn.dw.weight": (
            "model.vision_tower.blocks.0.0.spatial_block.conv1.weight"
        ),
    }
    assert {name: layouts.to_native(name) for name in pairs} == pairs
    assert layouts.to_native("language_model.final_logits_bias") is None


@given(st.text())
def test_strange_names_are_no_weights(name):
    assert layouts.to_native("x" + name) is None
    assert layouts.layout_of(["x" + name]) is None


def test_microsofts_published_config_is_our_large(shared):
    raw = json.loads((shared / "data/florence2_large_files/config.json").read_text())
    assert native_config(raw) == config_of(size_config("large"))
    assert generation_settings(raw["text_config"], "here") == {
        "num_beams": 3,
        "no_repeat_ngram_size": 3,
        "forced_bos_token_id": 0,
        "forced_eos_token_id": 2,
        "early_stopping": True,
    }


def test_the_config_for_remote_code_has_every_field_the_published_one_has_for_the_tower(shared):
    raw = json.loads((shared / "data/florence2_large_files/config.json").read_text())
    written = microsoft_config(native_config(raw), generation_settings(raw["text_config"], "here"))
    assert written["vision_config"] == raw["vision_config"]
    assert written["auto_map"] == raw["auto_map"]
    # add_bias_logits, classif_dropout, ... are read by nobody, in the remote code as here.
    read = [name for name in written["text_config"] if name in raw["text_config"]]
    assert {name: written["text_config"][name] for name in read} == {name: raw["text_config"][name] for name in read}
    assert "model_type" not in written["text_config"]


@given(
    st.fixed_dictionaries(
        {"dropout": st.floats(0, 0.9), "decoder_layers": st.integers(1, 90), "vocab_size": st.integers(1010, 60_000)}
    ),
    st.fixed_dictionaries(
        {"max_temporal_embeddings": st.integers(1, 500), "max_position_embeddings": st.integers(1, 900)}
    ),
)
@settings(max_examples=50)
def test_translation_is_lossless_both_ways(text, vision):
    base = tiny_config(2000)
    config = config_of({"text_config": base["text_config"] | text, "vision_config": base["vision_config"] | vision})
    assert native_config(microsoft_config(config, {})) == config


HOSTILE = [
    ("text_config", "vocab_size", 10**11),
    ("text_config", "vocab_size", -5),
    ("text_config", "vocab_size", 2000.5),
    ("text_config", "encoder_layers", 10**6),
    ("text_config", "d_model", "32"),
    ("text_config", "d_model", True),
    ("text_config", "d_model", 33),
    ("text_config", "dropout", float("nan")),
    ("text_config", "activation_function", "os.system"),
    ("vision_config", "embed_dim", [10**9, 32]),
    ("vision_config", "embed_dim", "wide"),
    ("vision_config", "depths", [1, 1, 1]),
    ("vision_config", "depths", [10**6, 1]),
    ("vision_config", "patch_stride", [0, 2]),
    ("vision_config", "patch_prenorm", [1, 0]),
    ("vision_config", "num_heads", [3, 4]),
    ("vision_config", "projection_dim", 64),
    ("vision_config", "image_feature_source", ["last_frame"]),
]


@pytest.mark.parametrize(("part", "field", "value"), HOSTILE)
def test_a_config_with_an_impossible_field_is_refused_by_name(part, field, value):
    raw = {"model_type": "florence2", **tiny_config(2000)}
    raw[part][field] = value
    with pytest.raises(CheckpointError, match=field):
        native_config(raw)


@pytest.mark.parametrize("raw", [{}, {"model_type": "bert"}, {"model_type": "florence2"}])
def test_a_config_of_something_else_is_refused(raw):
    with pytest.raises(CheckpointError, match=r"config\.json"):
        native_config(raw)


def test_sizes_within_bounds_may_still_be_too_many_together():
    raw = {"model_type": "florence2", **tiny_config(900_000)}
    raw["text_config"] |= {"d_model": 8192, "encoder_layers": 90, "encoder_ffn_dim": 32768}
    raw["vision_config"]["projection_dim"] = 8192
    with pytest.raises(CheckpointError, match="parameters"):
        native_config(raw)


def test_nothing_but_known_fields_reaches_a_library():
    raw = {"model_type": "florence2", **tiny_config(2000), "auto_map": {"AutoConfig": "x"}, "trust_remote_code": True}
    raw["text_config"] |= {"_attn_implementation": "owner/kernel", "quantization_config": {}}
    text = json.dumps(native_config(raw))
    assert not any(word in text for word in ("auto_map", "trust", "kernel", "quantization"))
