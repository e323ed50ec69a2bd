"""Draws what units respond to, and the weights between channels of two modules.

    python visualize.py imagenet inception_4c_output:12-20 --output atlas.png
    python visualize.py imagenet main:goldfinch --diversity 4
    python visualize.py runs/shapes inception_3b_output:3-5 --dataset shapes
    python visualize.py imagenet --circuit inception_4b_output:3 inception_4c_3x3:17

docs/explaining.md says how to read the figures.
"""

import argparse
from pathlib import Path

from keras_googlenet import cli
from keras_googlenet.commands.explain import FIGURE_SUFFIXES

IMAGES_TOGETHER = 16  # that the optimizer changes at a time: about 2 GB at 160 pixels
EXAMPLES_TOGETHER = 64
LEAST_SIZE = 32  # the network halves an image five times


def main():
    """Draws units, or a circuit, and prints the file."""
    flags = parse_flags()
    cli.start_tensorflow()
    from keras_googlenet import models
    from keras_googlenet.explaining import figures

    loaded = models.load(flags.model, flags.variant)
    draw = draw_circuit if flags.circuit else draw_units
    figures.save(draw(flags, loaded), flags.output)
    print(flags.output)


def parse_flags() -> argparse.Namespace:
    """Reads the flags and refuses those that a circuit would ignore."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    cli.add_model(parser)
    units = "channels or classes, such as inception_4c_output:3,12-20, or a whole LAYER"
    add("units", metavar="LAYER:UNITS", nargs="?", help=units)
    circuit = "draw the weights from the first channels to the second in place of UNITS"
    add("--circuit", nargs=2, metavar="LAYER:UNITS", help=circuit)
    output = "file to write (default: features.png, or circuit.png)"
    add("--output", type=cli.local_path, help=output)
    add("--neuron", action="store_true", help="the center unit instead of the whole channel")
    add("--size", type=cli.positive, default=160, help="pixels across what is drawn")
    add("--steps", type=cli.positive, default=200, help="steps of the optimizer")
    add(
        "--seed", type=int, default=0, help="seed of the initial image and of the random transforms"
    )
    add("--diversity", type=cli.positive, default=1, help="variations to draw of each unit")
    dataset = "name or folder: add the crops of its validation set with the top activations"
    add("--dataset", type=cli.expanded, help=dataset)
    add("--data-dir", type=cli.expanded, help="where TensorFlow Datasets keeps its files")
    flags = parser.parse_intermixed_args()
    if bool(flags.units) == bool(flags.circuit):
        parser.error("give LAYER:UNITS or --circuit, and one of them only.")
    for name in ("diversity", "dataset", "data_dir"):
        if flags.circuit and getattr(flags, name) != parser.get_default(name):
            parser.error(f"--circuit takes no --{name.replace('_', '-')}; leave it out.")
    if flags.size < LEAST_SIZE:
        parser.error(f"--size must be {LEAST_SIZE} or more; it is {flags.size}.")
    flags.output = flags.output or Path("circuit.png" if flags.circuit else "features.png")
    if flags.output.suffix.lower() not in FIGURE_SUFFIXES:
        kinds = ", ".join(FIGURE_SUFFIXES)
        parser.error(f"--output must be a figure ({kinds}); it is {flags.output}.")
    return flags


def draw_units(flags: argparse.Namespace, loaded):
    """Draws units, beside their dataset examples if a data set is given."""
    from keras_googlenet.features import feature_figures, units

    asked = units.parse_units(flags.units, loaded.model, loaded.labels)
    crops = find_examples(flags, loaded, asked) if flags.dataset else None
    return feature_figures.draw_units(*visualize_units(flags, loaded, asked), crops)


def draw_circuit(flags: argparse.Namespace, loaded):
    """Draws the weights between two sets of channels, beside what the channels respond to."""
    from keras_googlenet.features import circuits, feature_figures, units

    ends = [units.parse_units(text, loaded.model, loaded.labels) for text in flags.circuit]
    weights = circuits.expanded_weights(loaded.model, *ends)
    drawn = [visualize_units(flags, loaded, end) for end in ends]
    sources, targets = [list(zip(names, images[:, 0], strict=True)) for names, images in drawn]
    return feature_figures.draw_circuit(weights, sources, targets)


def visualize_units(flags: argparse.Namespace, loaded, asked):
    """Returns the names of units and `(n, diversity, size, size, 3)` images of them."""
    import numpy as np

    from keras_googlenet.features import units, visualization

    how = {name: getattr(flags, name) for name in ("neuron", "size", "steps", "diversity", "seed")}
    channels = asked.channels or [None]
    together = max(1, IMAGES_TOGETHER // flags.diversity)
    images = []
    for start in range(0, len(channels), together):
        part = asked.channels and asked.channels[start : start + together]
        cli.note(f"drawing {asked.layer} {part or ''}: {flags.steps} steps")
        images += [visualization.visualize(loaded.model, asked.layer, part, progress=True, **how)]
    names = [units.unit_name(asked, channel, loaded.labels) for channel in channels]
    return names, np.concatenate(images)


def find_examples(flags: argparse.Namespace, loaded, asked):
    """Returns the crops of the validation set with the top activations of each unit."""
    from keras_googlenet.data import datasets, pipeline
    from keras_googlenet.data.corrupt_images import CorruptImages
    from keras_googlenet.data.image_files import READ_ERRORS
    from keras_googlenet.features.dataset_examples import top_crops
    from keras_googlenet.progress_bar import Progress

    dataset = datasets.open_dataset(flags.dataset, flags.data_dir)
    cli.note(str(dataset.contents))
    split = dataset.validation
    batches = pipeline.evaluation_batches(split, loaded.image_size, EXAMPLES_TOGETHER)
    progress = Progress(split.size)

    def images():
        try:
            for crops, _ in batches:
                yield crops.numpy()
                progress.update(len(crops))
        except READ_ERRORS as error:
            raise CorruptImages(split, cli.note).refusal() from error
        finally:
            progress.close()

    return top_crops(loaded.model, asked.layer, asked.channels, images())
