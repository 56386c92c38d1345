"""LoRA adapters: merged, they give what peft gives unmerged, whichever layout they were trained on."""

import json
import shutil

import pytest

from florentune.errors import CheckpointError
from florentune.model.checkpoint import open_checkpoint
from florentune.model.layouts import to_microsoft
from tiny_model import tiny_checkpoint

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
florence = pytest.importorskip("florentune.model.florence")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

CASES = {
    "plain": {},
    "rank-stabilised": {"use_rslora": True},
    "DoRA": {"use_dora": True},
    "saved modules": {"modules_to_save": ["image_proj_norm"]},
    "patterns": {"alpha_pattern": {"q_proj": 32}, "rank_pattern": {"v_proj": 2}},
    "lm_head": {"target_modules": ["q_proj", "lm_head"]},
    "convolution": {"target_modules": ["conv", "fc2"]},
}


def logits(model):
    ids = torch.tensor([[1377] * 17 + [0, 300, 301, 302, 2]])
    pixels = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
    with torch.no_grad():
        return model(input_ids=ids, pixel_values=pixels, decoder_input_ids=torch.tensor([[2, 0, 5, 6]])).logits


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "base")


def train(base, folder, **options):
    """An adapter with random weights, saved by peft; returns its logits before merging."""
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], **options}
    model = peft.get_peft_model(florence.load_model(base), peft.LoraConfig(**settings))
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    model.save_pretrained(folder)
    return logits(model.eval())


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters") / "plain"
    train(base, folder)
    return folder


@pytest.fixture
def adapter(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "adapter")


@pytest.mark.parametrize("case", CASES)
def test_a_merged_adapter_answers_as_peft_does(base, tmp_path, case):
    expected = train(base, tmp_path / "adapter", **CASES[case])
    checkpoint = open_checkpoint(tmp_path / "adapter", base=base)
    assert checkpoint.layout == "adapter"
    model = florence.load_model(checkpoint)
    assert type(model).__name__ == "Florence2ForConditionalGeneration"
    assert not any("lora" in name for name in model.state_dict())
    assert (logits(florence.load_model(base)) - expected).abs().max() > 1e-2
    torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=1e-4)
    florence.save_checkpoint(
        model,
        tmp_path / "merged",
        tokenizer=checkpoint.tokenizer(),
        image_size=(64, 64),
        labels=None,
        max_new_tokens=9,
    )
    torch.testing.assert_close(logits(florence.load_model(tmp_path / "merged")), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], ["lm_head", "fc1", "proj"]])
def test_an_adapter_of_microsofts_layout_fits_the_native_model(base, tmp_path, targets):
    from safetensors.torch import load_file, save_file

    expected = train(base, tmp_path / "adapter", target_modules=targets)
    file = tmp_path / "adapter/adapter_model.safetensors"
    renamed = {}
    for name, tensor in load_file(file).items():
        module, part, _ = name.removeprefix("base_model.model.").rsplit(".", 2)
        theirs = to_microsoft(f"{module}.weight").removesuffix(".weight")
        # the published vocabulary has no row for <image>
        short = tensor[:-1] if module == "lm_head" and tensor.shape[0] == 1378 else tensor
        renamed[f"base_model.model.{theirs}.{part}.weight"] = short.contiguous()
    save_file(renamed, file)
    got = logits(florence.load_model(open_checkpoint(tmp_path / "adapter", base=base)))
    torch.testing.assert_close(got[..., :-1], expected[..., :-1], atol=1e-5, rtol=1e-4)


def test_the_base_is_taken_from_the_adapter_when_it_names_one(base, adapter):
    settings = json.loads((adapter / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = str(base)
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    assert open_checkpoint(adapter).base.path == base


WRONG = [
    ({"peft_type": "IA3"}, "peft_type"),
    ({"lora_alpha": "8"}, "lora_alpha"),
    ({"lora_alpha": float("nan")}, "lora_alpha"),
    ({"init_lora_weights": "pissa"}, "init_lora_weights"),
    ({"layer_replication": [[0, 1]]}, "layer_replication"),
    ({"alpha_pattern": [1]}, "alpha_pattern"),
]


@pytest.mark.parametrize(("change", "word"), WRONG)
def test_settings_that_cannot_be_merged_are_named(base, adapter, change, word):
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(CheckpointError, match=word):
        florence.load_model(open_checkpoint(adapter, base=base))


def test_an_adapter_without_a_base_asks_for_one(adapter):
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": None}))
    with pytest.raises(CheckpointError, match="--base"):
        open_checkpoint(adapter)


def test_an_adapter_of_another_size_is_refused_before_it_is_merged(base, adapter):
    from safetensors.torch import load_file, save_file

    file = adapter / "adapter_model.safetensors"
    save_file({name: torch.cat([tensor, tensor], dim=1) for name, tensor in load_file(file).items()}, file)
    with pytest.raises(CheckpointError, match="another size"):
        florence.load_model(open_checkpoint(adapter, base=base))


def test_half_an_adapter_is_refused(base, adapter):
    from safetensors.torch import load_file, save_file

    file = adapter / "adapter_model.safetensors"
    weights = load_file(file)
    del weights[next(name for name in weights if "lora_B" in name)]
    save_file(weights, file)
    with pytest.raises(CheckpointError, match="one half"):
        florence.load_model(open_checkpoint(adapter, base=base))


def test_an_adapter_as_a_pickle_is_not_opened(base, adapter):
    shutil.move(adapter / "adapter_model.safetensors", adapter / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors"):
        open_checkpoint(adapter, base=base)
