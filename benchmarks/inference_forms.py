"""The forms that `benchmarks.inference` compares: how each is written, loaded and called."""

import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from keras_googlenet.errors import UserError

SIZE = 224  # pixels
CALIBRATION = 32  # random images to calibrate int8 with: speed does not depend on them


def write_all(folder: Path, model_name: str | None, variant: str, names: list[str]):
    """Writes every form below `folder`, in a process of its own."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    from keras_googlenet import models

    model = models.load(model_name).model if model_name else random_network(variant)
    for name in names:
        try:
            write, _, file = FORMS[name]
            write(folder / file, model)
        except ImportError as error:
            raise UserError(
                f"{name} needs {error.name}; install it with `python -m pip install -r "
                "requirements-bench.txt`, or choose others with --only."
            ) from error


def random_network(variant: str):
    """Builds a network that costs what a trained one does.

    A fresh one with batch normalization has offsets of zero, which TensorFlow leaves out, and with
    them the fusion of convolution, bias and ReLU.
    """
    from keras_googlenet.googlenet import GoogLeNet

    model = GoogLeNet(variant=variant, aux_heads=False, input_shape=(SIZE, SIZE, 3))
    generator = np.random.default_rng(0)
    for weight in model.weights:
        if weight.name == "beta":
            weight.assign(generator.uniform(0, 0.1, weight.shape))
    kernel = model.get_layer("main").kernel
    kernel.assign(kernel / 100)  # else the softmax is all or nothing, and precision all
    return model


def serve_turns(name: str, folder: Path, threads: int, pipe):
    """Loads a form, then answers `(batch, calls)` with seconds until it is sent `None`."""
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": str(threads)}
    path = folder / FORMS[name][2]
    began = time.perf_counter()
    run = FORMS[name][1](path, threads)
    parts = [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
    files = [file for part in parts for file in ([part] if part.is_file() else part.rglob("*"))]
    pipe.send((time.perf_counter() - began, sum(f.stat().st_size for f in files if f.is_file())))
    batches = {}
    while (turn := pipe.recv()) is not None:
        batch, calls = turn
        if batch not in batches:
            batches[batch] = np.random.default_rng(0).uniform(0, 255, (batch, SIZE, SIZE, 3))
            batches[batch] = batches[batch].astype("float32")
        pipe.send([_timed(run, batches[batch]) for _ in range(calls)])
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def _timed(run: Callable, images: np.ndarray) -> float:
    began = time.perf_counter()
    run(images)
    return time.perf_counter() - began


def write_plain(path: Path, model):
    """Writes what Keras does by itself, with the same preprocessing before it."""
    import keras

    from keras_googlenet.googlenet import inference_model, variant_of
    from keras_googlenet.imagenet import preprocess_input

    network = inference_model(model)
    image = keras.Input(network.inputs[0].shape[1:], name="image")
    whole = keras.Model(image, network(preprocess_input(image, variant_of(model))))
    whole.export(str(path), verbose=False)


def export(kind: str, **options) -> Callable:
    """Returns the function that writes one of our formats."""

    def write(path: Path, model):
        from keras_googlenet import exporting
        from keras_googlenet.exporting.agreement import SampleImages

        if options.get("quantize") == "int8":
            images = np.random.default_rng(1).uniform(0, 255, (CALIBRATION, SIZE, SIZE, 3))
            options["samples"] = SampleImages(images.astype("float32"), None, "noise")
        getattr(exporting, f"export_{kind}")(model, path, **options)

    return write


def torchvision_network():
    """Builds torchvision's GoogLeNet without auxiliary heads, with random weights."""
    import torch

    sys.path.append(str(Path(__file__).parent.parent / "tests"))
    from torchvision_peer import import_models

    torch.manual_seed(0)
    network = import_models().googlenet(weights=None, aux_logits=False, init_weights=False)
    return network.eval()


def write_torch(path: Path, model):
    """Writes torchvision's weights as PyTorch does."""
    import torch

    torch.save(torchvision_network().state_dict(), path)


def write_torch_onnx(path: Path, model):
    """Writes torchvision's network as torch.onnx does."""
    import torch

    if not path.exists():
        torch.onnx.export(
            torchvision_network(),
            (torch.zeros(2, 3, SIZE, SIZE),),
            str(path),
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "n"}, "logits": {0: "n"}},
            dynamo=False,
        )


def write_torch_int8(path: Path, model):
    """Writes torchvision's network as quantized by ONNX Runtime (QDQ), for OpenVINO to run."""
    from onnxruntime import quantization

    source = path.with_name("torchvision.onnx")
    write_torch_onnx(source, model)
    generator = np.random.default_rng(1)

    class Reader(quantization.CalibrationDataReader):
        left = CALIBRATION

        def get_next(self):
            self.left -= 1
            image = generator.normal(0, 1, (1, 3, SIZE, SIZE)).astype("float32")
            return {"image": image} if self.left >= 0 else None

    quantization.quantize_static(str(source), str(path), Reader(), per_channel=True)


def load_saved_model(path: Path, threads: int):
    """Loads a SavedModel, or the first version in a folder of them."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    if (path / "1").exists():
        path = path / "1"
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    return lambda images: next(iter(serve(image=tf.constant(images)).values())).numpy()


def load_litert(path: Path, threads: int):
    """Loads a LiteRT file."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    serve = interpreter.get_signature_runner("serving_default")
    return lambda images: serve(image=images)["probabilities"]


def load_onnx(path: Path, threads: int):
    """Loads an ONNX file into ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options)
    (needed,) = session.get_inputs()
    return lambda images: session.run(None, {needed.name: as_needed(needed.shape, images)})


def load_openvino(precision: str):
    """Returns the function that loads a file into OpenVINO."""

    def load(path: Path, threads: int):
        import openvino

        options = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads}
        options["PERFORMANCE_HINT"] = "LATENCY"
        compiled = openvino.Core().compile_model(str(path), "CPU", options)
        needed = [d.get_length() if d.is_static else None for d in compiled.input().partial_shape]
        return lambda images: compiled(as_needed(needed, images))

    return load


def load_torch(path: Path, threads: int):
    """Loads torchvision's weights into PyTorch."""
    import torch

    torch.set_num_threads(threads)
    network = torchvision_network()
    network.load_state_dict(torch.load(path, weights_only=True))

    def run(images):
        with torch.inference_mode():
            return network(torch.from_numpy(as_needed((None, 3), images))).numpy()

    return run


def as_needed(shape, images: np.ndarray) -> np.ndarray:
    """Puts the channels where a network has them; the layout in memory is made beforehand."""
    return images.reshape(len(images), 3, SIZE, SIZE) if shape[1] == 3 else images


FORMS = {  # name -> function that writes it, function that loads it, file or folder
    "plain model.export": (write_plain, load_saved_model, "plain"),
    "SavedModel float32": (export("saved_model"), load_saved_model, "float32"),
    "SavedModel bfloat16": (
        export("saved_model", precision="bfloat16"),
        load_saved_model,
        "bfloat16",
    ),
    "LiteRT float32": (export("litert"), load_litert, "none.tflite"),
    "LiteRT int8": (export("litert", quantize="int8"), load_litert, "int8.tflite"),
    "ONNX Runtime float32": (export("onnx"), load_onnx, "ours.onnx"),
    "OpenVINO float32": (export("openvino"), load_openvino("f32"), "ours.xml"),
    "OpenVINO bfloat16": (export("openvino"), load_openvino("bf16"), "ours.xml"),
    "torchvision PyTorch eager": (write_torch, load_torch, "torchvision.pth"),
    "torchvision ONNX Runtime float32": (write_torch_onnx, load_onnx, "torchvision.onnx"),
    "torchvision OpenVINO float32": (write_torch_onnx, load_openvino("f32"), "torchvision.onnx"),
    "torchvision OpenVINO bfloat16": (write_torch_onnx, load_openvino("bf16"), "torchvision.onnx"),
    "torchvision OpenVINO int8": (write_torch_int8, load_openvino("f32"), "torchvision_int8.onnx"),
}
