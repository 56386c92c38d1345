"""What florentune writes, read by the programs of others: stock transformers, peft, Node, LLaMA-Factory."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from florentune.detector import load_detector
from florentune.engines.decode import FreeWalk, decode
from florentune.engines.export import export_onnx
from florentune.engines.onnx_engine import OnnxEngine
from florentune.formats.convert import convert
from florentune.model.checkpoint import open_checkpoint
from florentune.model.preprocess import Preprocessor
from tiny_model import tiny_checkpoint
from training_run import make_workplace, settings

torch = pytest.importorskip("torch")
OLDEST_TRANSFORMERS = "transformers==5.13.0"
NODE_PACKAGE = "onnxruntime-node@1.23"
BROWSER_PACKAGE = "@huggingface/transformers@4.3.1"


def run(*command, **environment):
    """The last line that a program prints, as JSON; it runs outside of this project and offline."""
    settings = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=settings, cwd="/", check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def packages(folder, *names, options=()):
    """A folder with packages of the index that this environment must not get, to be put first on the path."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), *options, *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{', '.join(names)} cannot be installed here: {done.stderr.strip().splitlines()[-1][:200]}")
    return folder


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "native")


# What the remote code at 39ddb41 reads from config.json, by the part it reads it from.
VISION_KEYS = {
    "model_type", "drop_path_rate", "patch_size", "patch_stride", "patch_padding", "patch_prenorm", "enable_checkpoint",
    "dim_embed", "num_heads", "num_groups", "depths", "window_size", "projection_dim", "visual_temporal_embedding",
    "image_pos_embed", "image_feature_source",
}  # fmt: skip
TEXT_KEYS = {
    "vocab_size", "max_position_embeddings", "encoder_layers", "encoder_ffn_dim", "encoder_attention_heads",
    "decoder_layers", "decoder_ffn_dim", "decoder_attention_heads", "encoder_layerdrop", "decoder_layerdrop",
    "activation_function", "d_model", "dropout", "attention_dropout", "activation_dropout", "init_std",
    "classifier_dropout", "use_cache", "scale_embedding", "num_labels", "pad_token_id", "bos_token_id", "eos_token_id",
    "is_encoder_decoder", "decoder_start_token_id", "forced_eos_token_id", "forced_bos_token_id", "num_beams",
    "early_stopping", "no_repeat_ngram_size",
}  # fmt: skip
HAVE_DEFAULTS = {
    "early_stopping",
    "encoder_layerdrop",
    "decoder_layerdrop",
    "classifier_dropout",
    "num_labels",
    "use_cache",
}


def test_microsofts_layout_has_every_key_the_remote_code_reads(native, tmp_path):
    from florentune.model.conversion import convert_checkpoint

    convert_checkpoint(open_checkpoint(native), tmp_path / "ms", to="microsoft")
    config = json.loads((tmp_path / "ms/config.json").read_text())
    vision, text = config["vision_config"], config["text_config"]
    assert vision.keys() >= VISION_KEYS
    assert text.keys() >= TEXT_KEYS - HAVE_DEFAULTS
    assert config.keys() >= {"architectures", "model_type", "projection_dim", "vocab_size", "is_encoder_decoder"}
    assert (config["model_type"], vision["model_type"], text.get("model_type", "bart")) == (
        "florence2",
        "davit",
        "bart",
    )
    assert vision["visual_temporal_embedding"].keys() == {"type", "max_temporal_embeddings"}
    assert vision["visual_temporal_embedding"]["type"] == "COSINE"
    assert vision["image_pos_embed"].keys() == {"type", "max_pos_embeddings"}
    assert vision["image_pos_embed"]["type"] == "learned_abs_2d"
    assert vision["image_feature_source"] == ["spatial_avg_pool", "temporal_avg_pool"]
    assert vision["projection_dim"] == config["projection_dim"] == text["d_model"]
    stages = {len(vision[key]) for key in ("depths", "dim_embed", "num_heads", "num_groups", "patch_size")}
    assert stages == {len(vision["depths"])}
    assert config["auto_map"].keys() == {"AutoConfig", "AutoModelForCausalLM"}
    preprocessor = json.loads((tmp_path / "ms/preprocessor_config.json").read_text())
    assert preprocessor["auto_map"].keys() == {"AutoProcessor"}
    assert preprocessor["image_seq_length"] == open_checkpoint(native).image_tokens
    assert not {"transformers_version", "_name_or_path"} & vision.keys()


@pytest.mark.slow
@pytest.mark.parametrize("which", [OLDEST_TRANSFORMERS, "transformers (the newest)"])
def test_transformers_loads_it_offline_and_writes_the_same_tokens(native, tmp_path, which):
    from florentune.detector import load_detector
    from test_florence import STOCK

    name = which.partition(" ")[0]
    folder = packages(tmp_path / "packages", name, options=("--upgrade",))
    start = "import transformers\nassert transformers.__file__.startswith('FOLDER'), transformers.__file__\n"
    found = run(
        sys.executable, "-W", "ignore", "-c", start.replace("FOLDER", str(folder)) + STOCK, native,
        PYTHONPATH=str(folder), TRANSFORMERS_VERBOSITY="error",
    )  # fmt: skip
    assert found["wrong"] == [[], [], [], []]
    here = run(sys.executable, "-W", "ignore", "-c", STOCK, native, TRANSFORMERS_VERBOSITY="error")
    assert found["answer"] == here["answer"]
    assert found["input_ids"] == here["input_ids"]
    assert load_detector(native, engine="torch").labels == ("table", "figure")


PEFT = """
import json, sys
sys.modules["florentune"] = None
import torch
from peft import PeftModel
from transformers import Florence2ForConditionalGeneration
base, adapter, merged = sys.argv[1:]
load = Florence2ForConditionalGeneration.from_pretrained
adapted = PeftModel.from_pretrained(load(base), adapter).eval()
image = adapted.config.image_token_id
inputs = {
    "input_ids": torch.tensor([[image] * 17 + [0, 300, 301, 302, 2]]),
    "pixel_values": torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64),
    "decoder_input_ids": torch.tensor([[2, 0, 5, 6]]),
}
with torch.no_grad():
    plain, found, whole = (model(**inputs).logits for model in (load(base), adapted, load(merged)))
print(json.dumps({
    "lora": sum("lora_" in name for name in adapted.state_dict()),
    "learned": (found - plain).abs().max().item(), "apart": (found - whole).abs().max().item(),
}))
"""


@pytest.mark.slow
def test_peft_loads_the_adapter_of_a_run(tmp_path):
    from florentune.training import load_config, train

    place, output = make_workplace(tmp_path / "place"), tmp_path / "run"
    changes = {"max_steps": 3, "finetuning_type": "lora", "lora_rank": 4, "ema": 0.9}
    train(load_config(None, settings(place, output, **changes)))
    found = run(sys.executable, "-W", "ignore", "-c", PEFT, place / "tiny", output / "adapter", output / "last")
    assert found["lora"] > 0
    assert found["learned"] > 1e-4
    assert found["apart"] < 1e-5


def page():
    """A page of text with a ruled table and its caption, which nano finds."""
    drawn = Image.new("RGB", (850, 1100), "white")
    draw, font = ImageDraw.Draw(drawn), ImageFont.load_default(13)
    words = "The models were trained on the same pages and compared with the usual measures of detection, as before. "
    for row in range(44):
        if not 10 <= row < 25:
            draw.text((100, 80 + 21 * row), words[row:] + words[: row - 8], fill="black", font=font)
    draw.text((100, 290), "Table 1: Accuracy of five methods on three sets of pages.", fill="black", font=font)
    for row in range(11):
        if row in (0, 1, 10):
            draw.line((150, 322 + 26 * row, 700, 322 + 26 * row), fill="black", width=2)
        if row < 10:
            cells = (
                ["Method", "IoU", "mAP", "F1"] if row == 0 else [f"Model {row}", *(f"{x}{row}.{x}" for x in (5, 7, 9))]
            )
            for column, cell in enumerate(cells):
                draw.text((160 + 150 * column, 327 + 26 * row), cell, fill="black", font=font)
    return drawn


GREEDY = """
const ort = require(process.argv[2] + "/node_modules/onnxruntime-node");
const fs = require("fs");
const task = JSON.parse(fs.readFileSync(process.argv[3]));
const open = (name) => ort.InferenceSession.create(`${task.folder}/${name}${task.suffix}.onnx`);
const big = (list) => BigInt64Array.from(list.map(BigInt));
(async () => {
  const names = ["vision_encoder", "embed_tokens", "encoder_model", "decoder_model_merged"];
  const [vision, embed, encoder, decoder] = await Promise.all(names.map(open));
  const look = async (ids) => {
    const found = await embed.run({ input_ids: new ort.Tensor("int64", big(ids), [1, ids.length]) });
    return found.inputs_embeds;
  };
  const bytes = fs.readFileSync(task.pixels);
  const pixels = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  const image = Object.values(await vision.run({ pixel_values: new ort.Tensor("float32", pixels, task.shape) }))[0];
  const words = await look(task.prompt);
  const length = image.dims[1] + words.dims[1], width = image.dims[2];
  const joined = new Float32Array(length * width);
  joined.set(image.data); joined.set(words.data, image.data.length);
  const mask = new ort.Tensor("int64", new BigInt64Array(length).fill(1n), [1, length]);
  const inputs = { inputs_embeds: new ort.Tensor("float32", joined, [1, length, width]), attention_mask: mask };
  const states = Object.values(await encoder.run(inputs))[0];
  let caches = {};
  for (const name of decoder.inputNames.filter((name) => name.startsWith("past")))
    caches[name] = new ort.Tensor("float32", new Float32Array(0), [1, task.heads, 0, task.depth]);
  let token = task.begin, answer = [token], first = true;
  while (answer.length < task.most - 1 && token !== task.end) {
    const found = await decoder.run({
      encoder_hidden_states: states, encoder_attention_mask: mask, ...caches,
      inputs_embeds: await look(first ? [task.start, token] : [token]),
      use_cache_branch: new ort.Tensor("bool", [!first], [1]),
    });
    for (const name of Object.keys(found)) {
      if (name === "logits" || (!first && name.includes(".encoder."))) continue;
      caches[name.replace("present", "past_key_values")] = found[name];
    }
    const logits = Array.from(found.logits.data.slice(-found.logits.dims[2]));
    token = logits.indexOf(Math.max(...logits)); answer.push(token); first = false;
  }
  console.log(JSON.stringify(answer));
})();
"""


@pytest.mark.slow
def test_node_runs_the_graphs_and_writes_the_same_tokens(tmp_path):
    if shutil.which("npm") is None:
        pytest.skip("there is no npm on this machine")
    command = ["npm", "install", "--silent", "--ignore-scripts", "--prefix", str(tmp_path), NODE_PACKAGE]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip(f"{NODE_PACKAGE} cannot be installed here")
    checkpoint = open_checkpoint("nano")
    assert checkpoint.onnx is not None
    text, preprocessor = checkpoint.config["text_config"], Preprocessor(checkpoint)
    pixels = preprocessor.pixels(page())[np.newaxis]
    (tmp_path / "pixels.bin").write_bytes(pixels.tobytes())
    prompt, heads = preprocessor.prompt_ids("<OD>"), text["decoder_attention_heads"]
    task = {
        "folder": str(checkpoint.onnx), "suffix": "_quantized", "pixels": str(tmp_path / "pixels.bin"),
        "shape": pixels.shape, "prompt": list(prompt), "heads": heads, "depth": text["d_model"] // heads,
        "start": text["decoder_start_token_id"], "begin": text["bos_token_id"], "end": text["eos_token_id"], "most": 40,
    }  # fmt: skip
    (tmp_path / "task.json").write_text(json.dumps(task))
    (tmp_path / "greedy.cjs").write_text(GREEDY)
    theirs = run("node", tmp_path / "greedy.cjs", tmp_path, tmp_path / "task.json")
    engine = OnnxEngine.open(checkpoint, threads=1)
    walk = FreeWalk(task["begin"], task["end"], 40, no_repeat=1)
    decode(engine.start(pixels, prompt), [walk], engine.start_id)
    assert len(theirs) >= 7  # a label and its box, at least
    assert theirs == walk.ids


IN_THE_BROWSER = """
async ([folder, dtype, name]) => {
  const { AutoProcessor, Florence2ForConditionalGeneration, RawImage, env } =
    await import("/node_modules/@huggingface/transformers/dist/transformers.min.js");
  Object.assign(env, { allowRemoteModels: false, allowLocalModels: true, useBrowserCache: false });
  env.localModelPath = "/";
  env.backends.onnx.wasm.wasmPaths = "/node_modules/onnxruntime-web/dist/";
  const model = await Florence2ForConditionalGeneration.from_pretrained(folder, { dtype, device: "wasm" });
  const processor = await AutoProcessor.from_pretrained(folder);
  const image = await RawImage.fromURL("/" + name);
  const inputs = await processor(image, processor.construct_prompts("<OD>"));
  const ids = await model.generate(inputs);
  const text = processor.batch_decode(ids, { skip_special_tokens: false })[0];
  return { text, answer: processor.post_process_generation(text, "<OD>", image.size) };
}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """transformers.js and nano's graphs as export writes them, in a folder and at the address that serves it."""
    if shutil.which("npm") is None:
        pytest.skip("there is no npm on this machine")
    folder = tmp_path_factory.mktemp("site")
    command = ["npm", "install", "--silent", "--ignore-scripts", "--prefix", str(folder), BROWSER_PACKAGE]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip(f"{BROWSER_PACKAGE} cannot be installed here")
    for dtype in ("fp32", "int8"):
        export_onnx("nano", folder / dtype, dtype)
    # The size that the model reads, so that no browser has to resize it and pixels are the same.
    page().resize(open_checkpoint("nano").image_size[::-1]).save(folder / "page.png")
    files = functools.partial(QuietFiles, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class QuietFiles(SimpleHTTPRequestHandler):
    """A folder over HTTP, without a line on the terminal for each file."""

    def log_message(self, format, *arguments):
        pass


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("dtype", "theirs"), [("fp32", "fp32"), ("int8", "q8")])
def test_a_browser_loads_the_graphs_and_finds_the_same_boxes(site, browser, dtype, theirs):
    folder, address = site
    tab = browser.new_page()
    tab.set_default_timeout(0)
    tab.goto(f"{address}/page.png")
    found = tab.evaluate(IN_THE_BROWSER, [dtype, theirs, "page.png"])
    tab.close()
    (ours,) = load_detector(folder / dtype, engine="onnx", dtype=dtype).predict([folder / "page.png"], free=True)
    assert found["text"] == ours.text
    boxes = found["answer"]["<OD>"]["bboxes"]
    assert boxes, "a page without boxes proves nothing"
    assert found["answer"]["<OD>"]["labels"] == ours.answer["<OD>"]["labels"]
    assert np.array(boxes) == pytest.approx(np.array(ours.answer["<OD>"]["bboxes"]))


LLAMAFACTORY = """
import importlib.machinery, json, sys, types
audio = types.ModuleType("torchaudio")  # imported by its plug-in for sounds, which images do not meet
audio.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
sys.modules["torchaudio"] = audio
from llamafactory.data.parser import get_dataset_list
from llamafactory.data.converter import SharegptDatasetConverter
from types import SimpleNamespace
(attributes,) = get_dataset_list(["pages"], sys.argv[1])
rows = json.load(open(sys.argv[1] + "/" + attributes.dataset_name))
convert = SharegptDatasetConverter(attributes, SimpleNamespace(media_dir=sys.argv[2], image_dir=sys.argv[2]))
found = [convert(row) for row in rows]
print(json.dumps({
    "formatting": attributes.formatting, "load_from": attributes.load_from, "images": attributes.images,
    "rows": [{"prompt": row["_prompt"], "response": row["_response"], "images": row["_images"]} for row in found],
}))
"""


@pytest.mark.slow
def test_llamafactorys_own_loader_reads_the_entry_and_the_rows(tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (100, 200), "white").save(tmp_path / "images" / name)
    truth = {
        "images": [
            {"id": i, "file_name": name, "width": 100, "height": 200} for i, name in enumerate(("a.png", "b.png"))
        ],
        "categories": [{"id": 1, "name": "table"}],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 1, "bbox": [10, 20, 30, 40], "area": 1200, "iscrowd": 0}
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(truth))
    convert(
        tmp_path / "coco.json", tmp_path / "data/pages.json", to="llamafactory", images=tmp_path / "images",
        registry=tmp_path / "data/dataset_info.json",
    )  # fmt: skip
    folder = packages(tmp_path / "packages", "llamafactory", options=("--no-deps",))
    packages(folder, "datasets", "omegaconf")
    found = run(
        sys.executable, "-W", "ignore", "-c", LLAMAFACTORY, tmp_path / "data", tmp_path / "images",
        PYTHONPATH=str(folder), DISABLE_VERSION_CHECK="1",
    )  # fmt: skip
    assert (found["formatting"], found["load_from"], found["images"]) == ("sharegpt", "file", "images")
    first, second = found["rows"]
    assert first["response"][0]["content"] == "table<loc_100><loc_100><loc_400><loc_300>"
    assert second["response"][0]["content"] == ""
    assert all(Path(image).is_file() for row in found["rows"] for image in row["images"])
