"""What quantizing to int8 costs a network, and how much of it local response normalization costs.

    python -m benchmarks.quantization googlenet.keras --calibration photos

photos holds class folders; every other image calibrates the ranges, the rest are compared on. The
second row has the normalizations in float between integer layers, so that the difference from the
first is their own share. The operators of the int8 file follow the table.
"""

import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_googlenet import cli, models
from keras_googlenet.data import datasets, samples
from keras_googlenet.exporting import agreement, litert
from keras_googlenet.exporting.serving_network import serving_network

CALIBRATION_IMAGES = 200


def main():
    """Prints a Markdown table with a row for each file, and the operators of the first."""
    parser = cli.parser(__doc__)
    cli.add_model(parser)
    parser.add_argument("--calibration", required=True, help="folder of class folders")
    flags = parser.parse_args()
    loaded = models.load(flags.model, flags.variant)
    dataset = samples.open_images(flags.calibration) or datasets.open_dataset(flags.calibration)
    images, classes = samples.read_sample(
        dataset.validation, dataset.labels, loaded.labels, loaded.image_size, CALIBRATION_IMAGES
    )
    everything = agreement.SampleImages(images, classes, f"half of {len(images)} images")
    calibration, compared = litert.split_samples(everything)
    int8 = litert.litert_bytes(loaded.model, "int8", calibration)
    partly = partly_in_float(loaded.model, calibration)
    rows = {"int8": int8, "int8, normalizations in float": partly}
    print("| | largest | mean | same class | accuracy before | after |\n|---|---|---|---|---|---|")
    for name, content in rows.items():
        result = agreement.compare(loaded.model, litert.runner(content), 1.0, compared)
        accuracies = [f"{share:.1%}" for share in result.accuracies or ()] or ["-", "-"]
        cells = [f"{result.largest:.2e}", f"{result.mean:.2e}", f"{result.same_class:.1%}"]
        print(f"| {name} | {' | '.join(cells + accuracies)} |")
    with tempfile.NamedTemporaryFile(suffix=".tflite") as file:
        Path(file.name).write_bytes(int8)
        for name, count in litert.operators(file.name).most_common():
            print(f"{name}: {count}")


def partly_in_float(model: keras.Model, calibration: np.ndarray) -> bytes:
    """Converts again, with the layers that have "norm" in their names left in float."""
    replacements = litert.integer_normalizations(model, calibration)
    with tempfile.TemporaryDirectory() as folder:
        serving_network(model, replacements=replacements).export(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=["serving_default"]
        )
        settings = litert.converter_options("int8", calibration, "float32")
        converter.target_spec.supported_ops = settings.pop("target_spec")["supported_ops"]
        for name, value in settings.items():
            setattr(converter, name, value)
        options = tf.lite.experimental.QuantizationDebugOptions(
            denylisted_nodes=names_of_norms(converter.convert())
        )
        debugger = tf.lite.experimental.QuantizationDebugger(
            converter=converter,
            debug_dataset=converter.representative_dataset,
            debug_options=options,
        )
        return debugger.get_nondebug_quantized_model()


def names_of_norms(content: bytes) -> list[str]:
    """Returns the names of the tensors of a LiteRT file that normalizations compute."""
    from ai_edge_litert.interpreter import Interpreter

    tensors = Interpreter(model_content=content).get_tensor_details()
    return [tensor["name"] for tensor in tensors if "_norm" in tensor["name"]]


if __name__ == "__main__":
    cli.run(main)
