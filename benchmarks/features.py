"""Feature visualization by this project and by tf-keras-vis' ActivationMaximization.

python -m benchmarks.features imagenet --output features.png
python -m benchmarks.features googlenet.keras --layer inception_4c_output --channels 12 13 14

Both optimize the same network, channels, size and number of steps, tf-keras-vis with its defaults.
The activation is the mean after the ReLU over all positions, of the finished image and of the same
image after a change that neither optimizer was given: reduced to three quarters, saved as JPEG and
enlarged again. An image that keeps its activation shows a feature; one that loses it is noise.
"""

import io
import time
from pathlib import Path

import numpy as np

from keras_googlenet import cli

QUALITY = 60  # of the JPEG
REDUCED = 0.75  # of the side


def main():
    """Prints a row a channel and tool, and draws them side by side."""
    parser = cli.parser(__doc__)
    cli.add_model(parser)
    add = parser.add_argument
    add("--layer", default="inception_4c_output", help="whose channels")
    add("--channels", type=int, nargs="+", default=[12, 13, 14], help="their indices")
    add("--size", type=cli.positive, default=160, help="side of an image in pixels")
    add("--steps", type=cli.positive, default=200, help="steps of both optimizers")
    add("--output", type=Path, default=Path("features.png"), help="file to write")
    flags = parser.parse_args()
    cli.start_tensorflow()
    from keras_googlenet import models
    from keras_googlenet.features import visualization

    loaded = models.load(flags.model, flags.variant)
    network = visualization.unit_network(loaded.model, flags.layer)
    draw = {"keras_googlenet": ours, "tf-keras-vis": theirs}
    images = {name: [] for name in draw}
    print("| channel | by | s | activation | after reduction and JPEG |\n|---|---|---|---|---|")
    for channel in flags.channels:
        for name, draw_image in draw.items():
            start = time.perf_counter()
            image = draw_image(loaded, network, channel, flags)
            seconds = time.perf_counter() - start
            cells = [activation(network, loaded, x, channel) for x in (image, changed(image))]
            print(
                f"| {channel} | {name} | {seconds:.0f} | {cells[0]:.2f} | {cells[1]:.2f} |",
                flush=True,
            )
            images[name].append(image)
    save(images, flags)


def ours(loaded, network, channel, flags):
    """Draws one channel with this project."""
    from keras_googlenet.features import visualization

    return visualization.visualize(
        loaded.model, flags.layer, [channel], size=flags.size, steps=flags.steps
    )[0, 0]


def theirs(loaded, network, channel, flags):
    """Draws one channel with tf-keras-vis, whose defaults are for pixels in [0, 255]."""
    import keras
    import tensorflow as tf
    from tf_keras_vis.activation_maximization import ActivationMaximization
    from tf_keras_vis.utils.scores import CategoricalScore

    from keras_googlenet.imagenet import preprocess_input

    image = keras.Input((flags.size, flags.size, 3))
    pixels = keras.Model([image], network([preprocess_input(image, loaded.variant)]))
    tf.random.set_seed(0)
    np.random.seed(0)  # tf-keras-vis draws from NumPy's global generator
    maximize = ActivationMaximization(pixels)
    return np.asarray(maximize(CategoricalScore([channel]), steps=flags.steps))[0]


def activation(network, loaded, image, channel) -> float:
    """Returns the mean of a channel after its ReLU."""
    from keras_googlenet.imagenet import preprocess_input

    activations = network([preprocess_input(image[None], loaded.variant)], training=False)
    return float(np.maximum(activations[..., channel], 0).mean())


def changed(image: np.ndarray) -> np.ndarray:
    """Reduces an image, saves it as JPEG and enlarges it again."""
    from PIL import Image

    side = len(image)
    small = Image.fromarray(image.astype("uint8")).resize((round(REDUCED * side),) * 2)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=QUALITY)
    return np.asarray(Image.open(file).resize((side, side), Image.BICUBIC), "float32")


def save(images, flags):
    """Draws a row a tool and a column a channel."""
    from matplotlib.figure import Figure

    from keras_googlenet.explaining import figures

    columns = len(flags.channels)
    figure = Figure(figsize=(2.2 * columns, 4.9), layout="constrained")
    grid = figure.subplots(2, columns, squeeze=False)
    for row, (name, drawn) in zip(grid, images.items(), strict=True):
        for cell, image, channel in zip(row, drawn, flags.channels, strict=True):
            cell.imshow(image.astype("uint8"))
            cell.set_title(f"{name}, {channel}", size=9)
            cell.set_axis_off()
    figures.save(figure, flags.output)
    print(flags.output)


if __name__ == "__main__":
    cli.run(main)
