"""What training must do: learn, compute the model's own loss, freeze what it says, leave checkpoints that just load."""

import json
import os
import platform
import re
import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from florentune import formats
from florentune.errors import AnnotationError, CheckpointError, ConfigError, InputError
from florentune.locations import box_to_bins, sorted_regions
from florentune.model.checkpoint import open_checkpoint
from florentune.model.florence import load_model
from florentune.training import TrainResult, load_config, train
from florentune.training.batches import AnswerEncoder, PageReader, padded_answers, prompt_ids
from florentune.training.datasets import load_data
from florentune.training.learner import Learner, lora_names
from florentune.training.objective import AnswerLoss
from florentune.training.optimizer import learning_rate_factor, learning_rate_scales
from training_run import HEIGHT, LABELS, WIDTH, losses, make_pages, make_workplace, settings, weights, words

BROKEN = (
    "pillow_bmp_b_badbitcount.bmp",
    "pillow_libtiff_segfault.tif",
    "pillow_seek_too_large.tif",
    "pillow_crash-465703f71a0f0094873a3e0e82c9f798161171b8.sgi",
    "synth_bomb_12000x12000_grey.png",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_workplace(tmp_path_factory.mktemp("place"))


def run(place, output, **changes):
    return train(load_config(None, settings(place, output, **changes)))


def test_two_pages_are_learned_and_come_back_bin_exact_from_stock_transformers(tmp_path):
    """The gate that catches wrong losses, shifts, labels and layouts: overfit, save, load elsewhere, decode."""
    from transformers import Florence2ForConditionalGeneration, Florence2Processor

    place = make_workplace(tmp_path / "place", pages=3)
    data = formats.read(place / "coco.json", images=place / "images")
    data = data.with_pages(page for page in data.pages if page.regions)
    formats.write(data, place / "two.json", format="coco")
    result = run(
        place,
        tmp_path / "run",
        dataset=str(place / "two.json"),
        max_steps=240,
        learning_rate=4e-3,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=60,
        max_grad_norm=0.5,
        logging_steps=60,
    )
    model = Florence2ForConditionalGeneration.from_pretrained(result.last, local_files_only=True).eval()
    processor = Florence2Processor.from_pretrained(result.last, local_files_only=True)
    for page in data.pages:
        image = Image.open(place / "images" / page.image).convert("RGB")
        inputs = processor(text="<OD>", images=image, return_tensors="pt")
        text = processor.batch_decode(model.generate(**inputs, max_new_tokens=40))[0]
        wanted = "".join(
            region.label + "".join(f"<loc_{bin}>" for bin in box_to_bins(region.box, WIDTH, HEIGHT))
            for region in sorted_regions(page.regions, LABELS)
        )
        assert text == f"</s><s>{wanted}</s>"


def test_our_loss_is_the_models_own(place):
    checkpoint = open_checkpoint(place / "tiny")
    data = load_data(load_config(None, settings(place, place / "unused")))
    encode = AnswerEncoder(checkpoint.tokenizer(), data.labels)
    reader = PageReader(data.train, checkpoint, encode, vary=False, seed=0)
    examples = [reader((0, index)) for index in range(len(data.train))]
    answers = torch.from_numpy(padded_answers([example.answer for example in examples]))
    pixels = torch.from_numpy(np.stack([example.pixels for example in examples]))
    prompt = prompt_ids(checkpoint)
    model = load_model(checkpoint)
    with torch.no_grad():
        sums = AnswerLoss(model, prompt)(pixels, None, answers)
        image_ids = [model.config.image_token_id] * checkpoint.image_tokens
        ids = torch.tensor([[*image_ids, *prompt]] * len(examples))
        own = model(input_ids=ids, pixel_values=pixels, labels=answers).loss
    assert float(sums.sum() / (answers >= 0).sum()) == pytest.approx(float(own), rel=1e-5)
    assert len({len(example.answer) for example in examples}) > 1, "answers of one length would hide the padding"


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant", "constant_with_warmup"])
def test_the_learning_rate_follows_transformers(kind):
    from transformers import get_scheduler

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_scheduler(kind, optimizer, num_warmup_steps=7, num_training_steps=40)
    for step in range(40):
        assert learning_rate_factor(step, 40, 7, kind) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        scheduler.step()


def test_lower_layers_learn_more_slowly_if_asked(place):
    names = [name for name, _ in load_model(place / "tiny").named_parameters()]
    assert set(learning_rate_scales(names, tower=1.0, decay=1.0).values()) == {1.0}
    scales = learning_rate_scales(names, tower=0.5, decay=0.9)
    wanted = {
        "model.language_model.shared.weight": 1.0,
        "model.language_model.decoder.layers.1.fc1.weight": 1.0,
        "model.language_model.decoder.layers.0.fc1.weight": 0.9,
        "model.language_model.encoder.layers.1.self_attn.q_proj.bias": 0.9**2,
        "model.language_model.encoder.layers.0.fc2.weight": 0.9**3,
        "model.multi_modal_projector.image_projection.weight": 0.9**4,
        "model.vision_tower.blocks.1.0.channel_block.ffn.fc1.weight": 0.5 * 0.9**5,
        "model.vision_tower.convs.1.conv.weight": 0.5 * 0.9**5,
        "model.vision_tower.blocks.0.0.spatial_block.ffn.fc1.weight": 0.5 * 0.9**6,
    }
    assert {name: scales[name] for name in wanted} == pytest.approx(wanted)


def test_accumulation_is_the_same_as_a_larger_batch(place, tmp_path):
    run(place, tmp_path / "large", max_steps=4, per_device_train_batch_size=4)
    run(place, tmp_path / "small", max_steps=4, per_device_train_batch_size=1, gradient_accumulation_steps=4)
    assert list(losses(tmp_path / "small").values()) == pytest.approx(
        list(losses(tmp_path / "large").values()), rel=1e-5
    )


def test_a_frozen_tower_is_frozen_and_all_else_learns(place, tmp_path):
    result = run(place, tmp_path / "run", max_steps=2, freeze_vision_tower=True)
    before, after = load_file(place / "tiny" / "model.safetensors"), load_file(result.last / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not {name for name in changed if ".vision_tower." in name}
    assert {name.split(".")[1] for name in changed} >= {"multi_modal_projector", "language_model"}


def test_kept_features_give_the_same_run_as_computing_them(place, tmp_path):
    changes = {"max_steps": 8, "freeze_vision_tower": True, "per_device_train_batch_size": 4}
    kept = run(place, tmp_path / "kept", **changes)
    computed = run(place, tmp_path / "computed", cache_features=False, **changes)
    files = list((tmp_path / "kept" / "features").rglob("*.safetensors"))
    assert len(files) == 6, "eight pages, of which the three blank ones are the same image"
    assert not (tmp_path / "computed" / "features").exists()
    assert list(losses(tmp_path / "kept").values()) == pytest.approx(
        list(losses(tmp_path / "computed").values()), rel=1e-4
    )
    assert kept.step == computed.step == 8


def test_the_feature_store_keeps_to_its_limit(tmp_path):
    from florentune.training.features import FeatureStore

    value = torch.randn(4, 8, 8)
    store = FeatureStore(tmp_path, limit=2500, tower="t" * 20)
    for name in ("aa", "bb", "cc"):
        store.put(name, value)
    assert torch.equal(store.get("aa"), value)
    assert torch.equal(store.get("bb"), value)
    assert store.get("cc") is None
    damaged = next(tmp_path.rglob("aa.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:50])
    assert store.get("aa") is None
    assert not damaged.exists()


def test_lora_touches_only_the_text_model_unless_the_tower_is_meant(place, tmp_path):
    model = load_model(place / "tiny")
    names = lora_names(model, ["fc1", "q_proj"], tower=False)
    assert names
    assert all(name.startswith("model.language_model.") for name in names)
    assert any(".vision_tower." in name for name in lora_names(model, ["all"], tower=True))
    with pytest.raises(ConfigError, match="did you mean 'q_proj'"):
        lora_names(model, ["q_prj"], tower=False)

    result = run(place, tmp_path / "run", max_steps=3, finetuning_type="lora", freeze_vision_tower=True, lora_rank=4)
    before, after = load_file(place / "tiny" / "model.safetensors"), load_file(result.last / "model.safetensors")
    assert before.keys() == after.keys(), "the adapter is merged, nothing of it is left in the names"
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("model.language_model.") for name in changed)
    assert all(name.split(".")[-2] in {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"} for name in changed)

    merged = load_model(open_checkpoint(tmp_path / "run" / "adapter", base=str(place / "tiny"))).state_dict()
    assert all(torch.allclose(merged[name], after[name], atol=1e-6) for name in changed)


def test_averaged_weights_are_what_is_shipped(place, tmp_path):
    plain = run(place, tmp_path / "plain", max_steps=3)
    averaged = run(place, tmp_path / "averaged", max_steps=3, ema=0.9)
    assert losses(tmp_path / "plain") == losses(tmp_path / "averaged"), "averaging must not change the training"
    start, end, mean = (load_file(f / "model.safetensors") for f in (place / "tiny", plain.last, averaged.last))
    name = "model.language_model.shared.weight"
    assert torch.dist(mean[name], start[name]) < torch.dist(end[name], start[name])
    assert weights(plain.last) != weights(averaged.last)


def test_gradient_checkpointing_and_bf16_train_to_nearly_the_same_losses(place, tmp_path):
    run(place, tmp_path / "plain", max_steps=3)
    run(place, tmp_path / "checkpointed", max_steps=3, gradient_checkpointing=True)
    run(place, tmp_path / "bf16", max_steps=3, bf16=True)
    plain = list(losses(tmp_path / "plain").values())
    assert list(losses(tmp_path / "checkpointed").values()) == pytest.approx(plain, rel=1e-6)
    found = list(losses(tmp_path / "bf16").values())
    assert found == pytest.approx(plain, rel=0.02)
    assert found != plain


@pytest.mark.skipif(platform.machine() != "x86_64", reason="oneDNN can only be told to do without on x86")
def test_a_cpu_without_bf16_computes_in_fp32_and_says_so(place, tmp_path):
    """In a process whose CPU has no more than AVX2, where a product in bf16 takes a hundred times as long."""
    changes = settings(place, tmp_path / "run", max_steps=1, bf16=True)
    command = [sys.executable, "-m", "florentune", "train", *words(changes)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"})
    assert done.returncode == 0
    assert "bf16: this CPU is far slower in bf16" in done.stderr
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["bf16"] is False
    run(place, tmp_path / "fp32", max_steps=1)
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "fp32"), rel=1e-5)


def test_gradient_checkpointing_computes_the_same_dropout_twice(tmp_path):
    place = make_workplace(tmp_path, 4)
    config = place / "tiny" / "config.json"
    values = json.loads(config.read_text())
    values["text_config"].update(dropout=0.3, attention_dropout=0.3, activation_dropout=0.3)
    config.write_text(json.dumps(values))
    run(place, tmp_path / "checkpointed", gradient_checkpointing=True, max_steps=3)
    run(place, tmp_path / "plain", max_steps=3)
    assert losses(tmp_path / "checkpointed") == losses(tmp_path / "plain")


def test_gradient_checkpointing_keeps_little_of_the_tower(place):
    def kept(**changes):
        config = load_config(None, settings(place, place / "unused", **changes))
        learner = Learner(open_checkpoint(place / "tiny"), config, torch.device("cpu"))
        learner.train()
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.nbytes) or t, lambda t: t):
            found = learner.model.model.vision_tower(torch.zeros(1, 3, 64, 64)).last_hidden_state
        found.sum().backward()
        return sum(sizes)

    assert kept(gradient_checkpointing=True) < kept() / 3


def test_validation_writes_best_with_thresholds_and_pictures(place, tmp_path):
    result = run(place, tmp_path / "run", max_steps=4, val_size=3, eval_strategy="steps", eval_steps=2)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "val_loss" in line] == [0, 2, 4]
    assert result.best is not None
    calibration = json.loads((result.best / "calibration.json").read_text())
    assert set(calibration["thresholds"]) == set(LABELS)
    assert json.loads((result.best / "labels.json").read_text())["labels"] == list(LABELS)
    assert len(result.pictures) == 3
    assert all(path.is_file() for path in result.pictures)
    report = result.report.read_text()
    found = json.loads(re.search(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', report, re.S)[1])
    assert len(found["pages"]) == 4
    assert all((result.report.parent / page["picture"]).is_file() for page in found["pages"])
    assert result.best_metrics["val_loss"] < result.start_metrics["val_loss"]
    report = json.loads((tmp_path / "run" / "data_report.json").read_text())
    assert report["train"]["pages"] + report["validation"]["pages"] == 8


def test_early_stopping_ends_a_run_that_does_not_get_better(place, tmp_path):
    changes = {"max_steps": 50, "val_size": 3, "eval_strategy": "steps", "eval_steps": 1, "best_by": "loss"}
    result = run(place, tmp_path / "run", early_stopping=2, learning_rate=0.0, **changes)
    assert result.step == 3, "one validation sets the mark, two bring nothing better"
    assert result.last is not None
    assert result.report is not None
    thresholds = json.loads((result.best / "calibration.json").read_text())["thresholds"]
    assert set(thresholds) == set(LABELS), "no page is decoded before the end, but then the model is calibrated"


def test_dry_run_says_what_would_happen_and_writes_no_checkpoint(place, tmp_path, capsys):
    config = load_config(None, settings(place, tmp_path / "run", num_train_epochs=2))
    result = train(config, dry_run=True)
    said = capsys.readouterr().err
    assert result.step == 0
    assert result.total_steps == 8
    assert "8 pages" in said
    assert "time" in said
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    assert float(re.search(r"peak +about (\d+\.\d+) GB", said)[1]) == pytest.approx(held, abs=0.02)
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert not (tmp_path / "run" / "last").exists()


def test_broken_images_are_listed_once_and_left_out(place, tmp_path):
    make_pages(tmp_path / "pages", 12)
    broken = tmp_path / "pages" / "images" / "paper0_0.png"
    broken.write_bytes(broken.read_bytes()[:200])
    changes = {"dataset": str(tmp_path / "pages" / "coco.json"), "images": str(tmp_path / "pages" / "images")}
    run(place, tmp_path / "run", num_train_epochs=2, max_bad_share=0.1, **changes)
    lines = [json.loads(line) for line in (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()]
    assert [line["page"] for line in lines] == ["paper0_0.png"]
    with pytest.raises(AnnotationError, match=r"1 of 12 pages.*max_bad_share"):
        run(place, tmp_path / "refused", **changes)
    assert not (tmp_path / "refused" / "checkpoints").exists()


def test_five_broken_images_of_a_hundred(shared, place, tmp_path, capsys):
    """Real broken files, each listed once with its reason; what is left trains, and 1 % is refused before step 1."""
    make_pages(tmp_path / "pages", 100)
    bad = dict(zip([f"paper{i}_0.png" for i in (3, 11, 20, 33, 47)], BROKEN, strict=True))
    for page, file in bad.items():
        shutil.copyfile(shared / "bad_inputs" / "images" / file, tmp_path / "pages" / "images" / page)
    changes = {"dataset": str(tmp_path / "pages" / "coco.json"), "images": str(tmp_path / "pages" / "images")}
    result = run(
        place, tmp_path / "run", num_train_epochs=1, max_bad_share=0.05, per_device_train_batch_size=19, **changes
    )
    assert result.step == 5
    lines = [json.loads(line) for line in (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()]
    assert sorted(line["page"] for line in lines) == sorted(bad)
    assert all(line["reason"] for line in lines)
    with pytest.raises(AnnotationError, match=r"5 of 100 pages cannot be used"):
        run(place, tmp_path / "refused", **changes)
    assert not (tmp_path / "refused" / "metrics.jsonl").exists()


def test_a_page_that_vanishes_during_the_run_is_listed_and_the_run_goes_on(place, tmp_path, monkeypatch):
    from florentune.errors import ImageError
    from florentune.training.datasets import Sample

    opened, whole = [], Sample.open

    def sometimes(sample):
        opened.append(sample.page.image)
        if sample.page.image == "paper1_0.png" and opened.count("paper1_0.png") > 1:
            raise ImageError("paper1_0.png: no such image", reason="missing")
        return whole(sample)

    monkeypatch.setattr(Sample, "open", sometimes)
    result = run(place, tmp_path / "run", num_train_epochs=2)
    assert result.step == 8
    lines = [json.loads(line) for line in (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()]
    assert [line["page"] for line in lines] == ["paper1_0.png"]


def test_two_runs_cannot_share_a_folder(place, tmp_path):
    from florentune.training.state import locked

    with locked(tmp_path / "run"), pytest.raises(InputError, match="another training run"):
        run(place, tmp_path / "run", max_steps=1)


def test_a_missing_model_is_one_error_before_anything_is_trained(place, tmp_path):
    with pytest.raises(CheckpointError):
        run(place, tmp_path / "run", model_name_or_path=str(tmp_path / "nothing"))


def test_the_recipe_of_llamafactory_trains_on_its_own_demo(shared, place, tmp_path, monkeypatch, capsys):
    """The seed's YAML and the seed's two palette-mode pages, through the command line."""
    from florentune.cli import main

    demo = (
        shared / "llamafactory_demo" if (shared / "llamafactory_demo").is_dir() else shared / "data/llamafactory_demo"
    )
    name = "TF-ID-arxiv-papers_example"
    formats.register(tmp_path / "dataset_info.json", {name: demo / f"{name}.json"})
    recipe = Path(__file__).parent.parent / "examples" / "florence2_full_sft.yaml"
    changes = {
        "model_name_or_path": place / "tiny",
        "dataset_dir": tmp_path,
        "media_dir": demo,
        "output_dir": tmp_path / "run",
        "num_train_epochs": 2,
        "use_cpu": "true",
    }
    arguments = [f"{key}={value}" for key, value in changes.items()]
    monkeypatch.setattr("sys.argv", ["florentune", "train", str(recipe), *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 0
    assert "deepspeed: no effect here" in said.err
    assert "1 page, 0 of them empty" in said.err
    assert f"florentune predict PAGE.png --model {tmp_path / 'run' / 'best'}" in said.out
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert written >= {"best", "last", "checkpoints", "metrics.jsonl", "training_loss.png", "config.yaml"}


def test_the_end_tells_what_came_of_it_and_how_to_use_it(place, tmp_path, monkeypatch, florentune):
    monkeypatch.chdir(tmp_path)
    changes = settings(place, Path("runs/x"), max_steps=3, val_size=3, eval_strategy="steps", eval_steps=3)
    code, said, progress = florentune("train", *words(changes))
    assert code == 0
    start, best = [line for line in read_lines(tmp_path / "runs/x/metrics.jsonl") if "val_loss" in line]
    lines = said.splitlines()
    assert lines[0].split() == ["best", "step", "3", "of", "3,", "by", "page_success"]
    figures = [name for name in best if name != "step" and best[name] is not None]
    for name, line in zip(figures, lines[1:], strict=False):
        change = f"({best[name] - start[name]:+.4f}; start model {start[name]:.4f})"
        assert line.split(maxsplit=2) == [name, f"{best[name]:.4f}", change]
    pictures = [line.split()[1] for line in lines if line.startswith("  picture ")]
    assert len(pictures) == 3
    for path in pictures:
        assert Image.open(path).size >= (WIDTH, HEIGHT)
    assert Path(next(line.split()[1] for line in lines if line.startswith("  report "))).is_file()
    assert max(map(len, lines)) <= 80
    assert "step 3/3" in progress, "plain lines, as there is no terminal"
    command = shlex.split(lines[-1])
    page = str(next((place / "images").glob("*.png")))
    assert command[0] == "florentune"
    assert florentune(*[page if word == "PAGE.png" else word for word in command[1:]])[0] == 0


@pytest.mark.parametrize(
    ("best_by", "start", "best", "told"),
    [
        ("page_success", {"page_success": 0.9, "val_loss": 2.0}, {"page_success": 0.8, "val_loss": 1.0}, True),
        ("page_success", {"page_success": 0.8, "val_loss": 1.0}, {"page_success": 0.8, "val_loss": 2.0}, True),
        ("page_success", {"page_success": 0.8, "val_loss": 2.0}, {"page_success": 0.8, "val_loss": 1.0}, False),
        ("map", {"map": None, "val_loss": 1.0}, {"map": 0.1, "val_loss": 2.0}, False),
        ("loss", {"val_loss": 1.0}, {"val_loss": 2.0}, True),
        ("loss", {"val_loss": 2.0}, {"val_loss": 1.0}, False),
    ],
)
def test_a_run_that_made_the_model_worse_says_so(tmp_path, monkeypatch, florentune, place, best_by, start, best, told):
    result = TrainResult(tmp_path, 3, 3, best=tmp_path, best_step=3, start_metrics=start, best_metrics=best)
    monkeypatch.setattr("florentune.training.train", lambda config, dry_run: result)
    changes = settings(place, tmp_path / "run", max_steps=3, val_size=3, best_by=best_by)
    code, said, _ = florentune("train", *words(changes))
    assert code == 0
    assert ("the start model was better" in said) == told
    assert max(map(len, said.splitlines()[:2])) <= 80


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.slow
@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_runs(example, place, tmp_path):
    """Two steps of each with its own keys; only model, data and folder are this test's."""
    demo = "TF-ID-arxiv-papers_example"
    data = formats.read(place / "coco.json", images=place / "images")
    formats.write(data, place / "demo.json", format="llamafactory")
    formats.register(place / "dataset_info.json", {demo: place / "demo.json"})
    registered = "dataset_dir" if "dataset_dir" in example.read_text() or demo in example.read_text() else None
    where = (
        {"dataset_dir": place, "media_dir": place / "images"}
        if registered
        else {"dataset": place / "coco.json", "images": place / "images"}
    )
    changes = {"model_name_or_path": place / "tiny", "output_dir": tmp_path / "run", "max_steps": 2, "use_cpu": True}
    result = train(load_config(example, {**changes, **where}))
    assert result.step == 2
    assert result.best is not None, "each of them validates"
    assert load_model(result.last) is not None


def test_documents_that_are_on_both_sides_are_said(place, tmp_path, capsys):
    def said(**changes):
        train(load_config(None, settings(place, tmp_path / "run", **changes)), dry_run=True)
        return capsys.readouterr().err

    coco = str(place / "coco.json")
    assert "have pages in dataset and in eval_dataset" in said(eval_dataset=coco)
    assert "warning" not in said(val_size=0.25)
    for image in list((place / "images").iterdir()):
        shutil.copy(image, image.with_name(image.name.replace("paper", "x").replace("_", "y")))
    unclear = tmp_path / "unclear.json"
    unclear.write_text(re.sub(r"paper(\d)_", r"x\1y", (place / "coco.json").read_text()))
    assert "do not tell which pages are one document" in said(dataset=str(unclear), val_size=0.25)
