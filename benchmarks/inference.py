"""A page from PNG to boxes: florentune beside its peers, the same weights, pages and machine, interleaved.

    python benchmarks/inference.py                            # nano: real boxes, PDF to boxes, process start
    python benchmarks/inference.py --size base --pages 3      # real size, random weights, 24 tokens a page
    python benchmarks/inference.py --size base --only int8 dynamic static bf16 compiled openvino   # what lost

Every contender lives in a process of its own, so its threads and its memory are its own; all take turns page by page.
Peers: what the demo does (Florence2Processor, `generate` greedily and with three beams, single precision), and ONNX
Runtime with its defaults over torch's own export of tower and encoder (with florentune's decoder, which favours it).
For `openvino` run it with the Python of an environment that has both packages. Medians; CPU time counts all threads.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from florentune import load_detector
from florentune.engines.decode import decode
from florentune.engines.onnx_engine import OnnxDecoding, OnnxEngine, graph_files
from florentune.images import open_image
from florentune.model.checkpoint import open_checkpoint
from florentune.model.preprocess import Preprocessor
from florentune.synth import Settings, synthesize

Way = Callable[[Path], object]
PROMPT = "<OD>"
LONGEST = 48
"""Tokens an answer of nano may have; enough for every page of the benchmark."""


class FixedWalk:
    """The best token every time, and neither a grammar nor an end before a number of tokens is written."""

    def __init__(self, start: int, tokens: int) -> None:
        self.ids, self.tokens, self.done = [start], tokens, False

    def advance(self, logits: NDArray[np.float32]) -> list[int]:
        self.ids.append(int(logits.argmax()))
        self.done = len(self.ids) > self.tokens
        return [] if self.done else self.ids[-1:]


def by_engine(engine: Any, folder: Path, tokens: int) -> Way:
    """PNG to a fixed number of tokens."""
    preprocessor = Preprocessor(open_checkpoint(folder))
    prompt = preprocessor.prompt_ids(PROMPT)

    def answer(path: Path) -> object:
        pixels = preprocessor.pixels(open_image(path))[None]
        walk = FixedWalk(prompt[0], tokens)
        decode(engine.start(pixels, prompt), [walk], engine.start_id)
        return walk.ids

    return answer


def ours(engine: str, dtype: str) -> Callable[[Path, int, int], Way]:
    def way(work: Path, threads: int, tokens: int) -> Way:
        folder = work / dtype if engine == "onnx" else work / "model"
        detector = load_detector(folder, engine=engine, dtype=dtype, threads=threads)
        if tokens:
            return by_engine(detector.engine, folder, tokens)
        return lambda path: next(detector.detect([path]))

    return way


def compiled(work: Path, threads: int, tokens: int) -> Way:
    """torch in bf16 with a compiled tower."""
    import torch

    detector = load_detector(work / "model", engine="torch", dtype="bf16", threads=threads)
    engine: Any = detector.engine
    engine.model.model.vision_tower = torch.compile(engine.model.model.vision_tower)
    return by_engine(engine, work / "model", tokens)


class Graphs:
    """An engine of any two functions for tower and encoder, with florentune's decoder behind them."""

    def __init__(self, decoder: OnnxEngine, tower: Callable[..., Any], encoder: Callable[..., Any]) -> None:
        self._decoder, self._tower, self._encoder = decoder, tower, encoder
        self.start_id = decoder.start_id

    def start(self, pixels: NDArray[np.float32], prompt: Sequence[int], tokens: None = None) -> OnnxDecoding:
        joined = np.concatenate([self._tower(pixels), self._decoder.embed(np.array([prompt]))], axis=1)
        mask = np.ones(joined.shape[:2], dtype=np.int64)
        return OnnxDecoding(self._decoder, self._encoder(joined, mask), mask, tokens)


def exported(folder: str) -> Callable[[Path, int, int], Way]:
    """ONNX Runtime as it comes, over torch's export or what ONNX Runtime's own quantiser made of it."""

    def way(work: Path, threads: int, tokens: int) -> Way:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        tower, encoder = (
            ort.InferenceSession(str(work / folder / f"{name}.onnx"), options, providers=["CPUExecutionProvider"])
            for name in ("tower", "encoder")
        )
        decoder = OnnxEngine.open(open_checkpoint(work / "fp32"), threads=threads)
        graphs = Graphs(
            decoder,
            lambda pixels: tower.run(None, {"pixels": pixels})[0],
            lambda joined, mask: encoder.run(None, {"joined": joined})[0],
        )
        return by_engine(graphs, work / "fp32", tokens)

    return way


def openvino(work: Path, threads: int, tokens: int) -> Way:
    """OpenVINO in the precision it chooses for this CPU, over florentune's fp32 graphs."""
    import openvino as ov

    files = graph_files(work / "fp32" / "onnx", "fp32")
    core = ov.Core()
    core.set_property("CPU", {"INFERENCE_NUM_THREADS": threads})
    tower, encoder = (core.compile_model(str(files[name]), "CPU") for name in ("vision_encoder", "encoder_model"))
    decoder = OnnxEngine.open(open_checkpoint(work / "fp32"), threads=threads)
    graphs = Graphs(
        decoder,
        lambda pixels: tower({"pixel_values": pixels})[0],
        lambda joined, mask: encoder({"inputs_embeds": joined, "attention_mask": mask})[0],
    )
    return by_engine(graphs, work / "fp32", tokens)


def transformers(beams: int) -> Callable[[Path, int, int], Way]:
    """PNG to dictionary with nothing but transformers."""

    def way(work: Path, threads: int, tokens: int) -> Way:
        import torch
        from PIL import Image
        from transformers import Florence2ForConditionalGeneration, Florence2Processor

        torch.set_num_threads(threads)
        processor = Florence2Processor.from_pretrained(work / "model")
        model = Florence2ForConditionalGeneration.from_pretrained(work / "model", dtype=torch.float32).eval()
        lengths = {"min_new_tokens": tokens, "max_new_tokens": tokens} if tokens else {"max_new_tokens": LONGEST}

        def answer(path: Path) -> object:
            image = Image.open(path).convert("RGB")
            inputs = processor(text=PROMPT, images=image, return_tensors="pt")
            with torch.inference_mode():
                ids = model.generate(**inputs, **lengths, num_beams=beams, do_sample=False)
            text = processor.batch_decode(ids, skip_special_tokens=False)[0]
            return processor.post_process_generation(text=text, task=PROMPT, image_size=image.size)

        return answer

    return way


CONTENDERS: dict[str, tuple[str, Callable[[Path, int, int], Way]]] = {
    "int8": ("florentune, ONNX int8", ours("onnx", "int8")),
    "fp32": ("florentune, ONNX fp32", ours("onnx", "fp32")),
    "torch": ("florentune, torch fp32", ours("torch", "fp32")),
    "bf16": ("florentune, torch bf16", ours("torch", "bf16")),
    "plain": ("ONNX Runtime, plain export", exported("plain")),
    "greedy": ("transformers, greedy", transformers(1)),
    "beams": ("transformers, 3 beams", transformers(3)),
    "dynamic": ("its dynamic int8", exported("dynamic")),
    "static": ("its static int8", exported("static")),
    "compiled": ("torch bf16, compiled tower", compiled),
    "openvino": ("OpenVINO", openvino),
}
USUAL = {
    "nano": ["int8", "torch", "greedy", "beams"],
    "base": ["int8", "fp32", "bf16", "plain", "greedy", "beams"],
}
QUANTISED = {"dynamic", "static"}
COUNTED = {"plain", "compiled", "openvino"} | QUANTISED
"""Contenders that write a given number of tokens and no real answers."""


def serve(name: str, work: Path, threads: int, tokens: int) -> None:
    """One contender: a path on stdin is a page to do, an answer on stdout says what it took."""
    began = time.perf_counter()
    way = CONTENDERS[name][1](work, threads, tokens)
    print(json.dumps({"load": time.perf_counter() - began}), flush=True)
    for line in sys.stdin:
        began, used = time.perf_counter(), time.process_time()
        way(Path(line.strip()))
        spent = {"wall": time.perf_counter() - began, "cpu": time.process_time() - used, "peak": peak_memory()}
        print(json.dumps(spent), flush=True)


def peak_memory() -> float:
    """The most memory this process has had, in MB. getrusage would count the parent that it was forked from."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


class Child:
    """A contender in its process."""

    def __init__(self, name: str, options: argparse.Namespace, work: Path, tokens: int) -> None:
        settings = ["--threads", str(options.threads), "--tokens", str(tokens), "--work", str(work)]
        command = [sys.executable, __file__, "--serve", name, *settings]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.load = self._answer()["load"]

    def page(self, path: Path) -> dict[str, float]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _answer(self) -> dict[str, float]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(self.process.args[2:4])} died; its message is above")
        found: dict[str, float] = json.loads(line)
        return found


def prepare(work: Path, size: str, names: Iterable[str]) -> None:
    """The checkpoint and the exports that these contenders need, kept from run to run."""
    from florentune.engines.export import export_onnx
    from florentune.model.florence import build_model, save_checkpoint

    model, shipped = work / "model", open_checkpoint("nano")
    if not model.exists() and size == "nano":
        model.symlink_to(shipped.path)
    elif not model.exists():
        network = build_model(size)
        save_checkpoint(
            network, model, tokenizer=shipped.tokenizer(), image_size=(768, 768), labels=None, max_new_tokens=LONGEST
        )
    used = set(names)
    for dtype in ("int8", "fp32"):
        is_wanted = dtype in used or (dtype == "fp32" and used & (COUNTED - {"compiled"}))
        if is_wanted and not (work / dtype).exists():
            export_onnx(model.resolve(), work / dtype, dtype)
    if used & ({"plain"} | QUANTISED) and not (work / "plain" / "encoder.onnx").exists():
        export_plain(model.resolve(), work / "plain")
    for kind in QUANTISED & used:
        if not (work / kind / "encoder.onnx").exists():
            quantise(work, kind)


def export_plain(model: Path, out: Path) -> None:
    """Tower and encoder as torch's own exporter writes them."""
    import torch

    from florentune.model.florence import load_model

    class Part(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

    class Tower(Part):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            features: torch.Tensor = self.network.get_image_features(pixels).pooler_output
            return features

    class Encoder(Part):
        def forward(self, joined: torch.Tensor) -> torch.Tensor:
            encoder = self.network.model.language_model.encoder
            states: torch.Tensor = encoder(inputs_embeds=joined).last_hidden_state
            return states

    checkpoint = open_checkpoint(model)
    network = load_model(checkpoint)
    text = checkpoint.config["text_config"]
    pixels = torch.zeros(1, 3, *checkpoint.image_size)
    joined = torch.zeros(1, checkpoint.image_tokens + 16, text["d_model"])
    out.mkdir(exist_ok=True)
    with torch.inference_mode():
        for module, name, example, axes in (
            (Tower(), "tower", {"pixels": pixels}, {0: "batch"}),
            (Encoder(), "encoder", {"joined": joined}, {0: "batch", 1: "length"}),
        ):
            ((key, value),) = example.items()
            settings: dict[str, Any] = {"dynamo": False, "opset_version": 17, "dynamic_axes": {key: axes}}
            torch.onnx.export(module, (value,), str(out / f"{name}.onnx"), input_names=[key], **settings)


def quantise(work: Path, kind: str) -> None:
    """Linear layers of the plain export in 8 bits by ONNX Runtime's quantiser; scales come from two inputs."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static

    class Inputs(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, name: str, *shape: int) -> None:
            generator = np.random.default_rng(0)
            self.left = [{name: generator.normal(size=shape).astype(np.float32)} for _ in range(2)]

        def get_next(self) -> dict[str, Any] | None:
            return self.left.pop() if self.left else None

    checkpoint = open_checkpoint(work / "model")
    readers = {
        "tower": Inputs("pixels", 1, 3, *checkpoint.image_size),
        "encoder": Inputs("joined", 1, checkpoint.image_tokens + 16, checkpoint.config["text_config"]["d_model"]),
    }
    (work / kind).mkdir(exist_ok=True)
    for name, reader in readers.items():
        source, target = (work / folder / f"{name}.onnx" for folder in ("plain", kind))
        settings = {"op_types_to_quantize": ["MatMul", "Gemm"], "weight_type": QuantType.QInt8, "per_channel": True}
        if kind == "dynamic":
            quantize_dynamic(source, target, **settings)
        else:
            quantize_static(source, target, reader, activation_type=QuantType.QUInt8, **settings)


def compare(options: argparse.Namespace, work: Path, pages: Sequence[Path], tokens: int) -> None:
    children = {name: Child(name, options, work, tokens) for name in options.only}
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in children}
    for child in children.values():
        child.page(pages[0])
    for page in pages:
        for name, child in children.items():
            rows[name].append(child.page(page))
    for child in children.values():
        child.close()
    first = options.only[0]
    base = statistics.median(row["wall"] for row in rows[first])
    what = f"{tokens} tokens a page" if tokens else "real answers"
    print(f"{options.size}, {len(pages)} pages at 200 dpi, {options.threads} threads, {what}\n")
    print(f"{'':<30}{'load s':>8}{'wall ms':>9}{'CPU ms':>9}{'peak MB':>9}{'times first':>13}")
    for name, found in rows.items():
        wall, cpu = (statistics.median(row[key] for row in found) for key in ("wall", "cpu"))
        peak = max(row["peak"] for row in found)
        line = f"{children[name].load:>8.1f}{1000 * wall:>9.0f}{1000 * cpu:>9.0f}{peak:>9.0f}{wall / base:>13.2f}"
        print(f"{CONTENDERS[name][0]:<30}{line}")


def tower_share(options: argparse.Namespace, work: Path) -> None:
    """The tower's arithmetic a second, as a share of what one big matrix product reaches in the same precision."""
    import onnxruntime as ort
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from florentune.model.florence import build_model

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = build_model(options.size)
        side = open_checkpoint(work / "model").image_size
        network.model.vision_tower(torch.empty(1, 3, *side))
    work_flops = counter.get_total_flops()
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads
    pixels = np.random.default_rng(0).normal(size=(1, 3, *side)).astype(np.float32)
    print(f"\ntower: {work_flops / 1e9:.0f} GFLOP an image")
    for dtype in (dtype for dtype in ("int8", "fp32") if (work / dtype).exists()):
        file = graph_files(work / dtype / "onnx", dtype)["vision_encoder"]
        tower = ort.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])
        spent = _best(lambda tower=tower: tower.run(None, {"pixel_values": pixels}), 4)
        peak = matmul_peak(dtype, settings)
        share = work_flops / spent / peak
        print(f"{dtype}: {spent:.2f} s, {share:.0%} of the {peak / 1e9:.0f} GFLOPS a matrix product of 4096 reaches")


def matmul_peak(dtype: str, settings: Any, side: int = 4096) -> float:
    """Operations a second of one product of square matrices in ONNX Runtime."""
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(0)
    if dtype == "int8":
        left: NDArray[Any] = generator.integers(0, 256, (side, side)).astype(np.uint8)
        right: NDArray[Any] = generator.integers(-127, 128, (side, side)).astype(np.int8)
        kind, types = "MatMulInteger", (TensorProto.UINT8, TensorProto.INT32)
    else:
        left, right = (generator.random((side, side), dtype=np.float32) for _ in range(2))
        kind, types = "MatMul", (TensorProto.FLOAT, TensorProto.FLOAT)
    shape = [side, side]
    graph = helper.make_graph(
        [helper.make_node(kind, ["left", "right"], ["out"])],
        "product",
        [helper.make_tensor_value_info("left", types[0], shape)],
        [helper.make_tensor_value_info("out", types[1], shape)],
        [numpy_helper.from_array(right, "right")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    session = ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return 2 * side**3 / _best(lambda: session.run(None, {"left": left}), 4)


def _best(run: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


def whole_pdf(pdfs: Path, threads: int) -> None:
    """PDFs to boxes in this process: rendering at 200 dpi, detection, scores."""
    from florentune.pdf import PageFailure, PdfReader

    detector = load_detector("nano", threads=threads)
    detector.warm_up()
    began, count = time.perf_counter(), 0
    with PdfReader() as reader:
        for pdf in sorted(pdfs.glob("*.pdf")):
            pages = reader.pages(pdf, dpi=200)
            images = ((str(page.index), page.image) for page in pages if not isinstance(page, PageFailure))
            count += sum(1 for _ in detector.detect(images))
    spent = time.perf_counter() - began
    print(f"\nPDF to boxes: {count} pages, {count / spent:.1f} pages/s")


def process_start(page: Path, repeats: int = 5) -> None:
    """`florentune predict PAGE` from nothing to the end of the process."""
    command = [sys.executable, "-m", "florentune", "predict", str(page)]
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    print(f"florentune predict PAGE: {statistics.median(times):.2f} s from start to exit, median of {repeats}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(USUAL), default="nano")
    parser.add_argument("--only", nargs="+", choices=list(CONTENDERS), help="the first is compared to")
    parser.add_argument("--pages", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--tokens", type=int, help="tokens to write a page; 24 for random weights, real answers of nano"
    )
    parser.add_argument("--work", type=Path, help="where models and exports are kept; a temporary folder if not given")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    tokens = options.tokens if options.tokens is not None else 0 if options.size == "nano" else 24
    options.only = options.only or USUAL[options.size]
    if not tokens and COUNTED.intersection(options.only):
        parser.error(f"{', '.join(sorted(COUNTED))} need --tokens")
    if options.serve:
        serve(options.serve, options.work, options.threads, tokens)
        return
    with tempfile.TemporaryDirectory() as place:
        work = (options.work or Path(place)) / options.size
        work.mkdir(parents=True, exist_ok=True)
        synthesize(Path(place) / "set", Settings(pages=options.pages, seed=5, dpi=200, pdf=True))
        pages = sorted((Path(place) / "set" / "images").glob("*.png"))
        prepare(work, options.size, options.only)
        compare(options, work, pages, tokens)
        if options.size == "nano":
            whole_pdf(Path(place) / "set" / "pdfs", options.threads)
            process_start(pages[0])
        else:
            tower_share(options, work)


if __name__ == "__main__":
    main()
