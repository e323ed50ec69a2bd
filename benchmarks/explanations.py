"""How good the maps are on `shapes`, whose objects are known: a table of methods x modules.

python -m benchmarks.explanations runs/shapes
python -m benchmarks.explanations runs/shapes --images 1000 --few 100

Prints Markdown: pointing game on the mask and in the box around it, energy inside the mask, IoU of
the map above half its maximum, and the areas under the deletion (less is better) and insertion
curves; then the rank correlation of maps with those of networks that are random from the end down
to a module. The explained class is the true one.
"""

import time

import numpy as np

from keras_googlenet import cli
from keras_googlenet.explaining.methods import METHODS

MODULES = ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")
SLOW = ("scorecam", "smoothgrad")
RANDOM_FROM = {"main": "main", "5a": "inception_5a_1x1", "4a": "inception_4a_1x1", "all": None}
SANITY_MODULES = ("4d", "5b")
BATCH = 50


def main():
    """Prints the two tables."""
    parser = cli.parser(__doc__)
    cli.add_model(parser)
    parser.add_argument("--images", type=cli.positive, default=200, help="of the validation set")
    few = "images for Score-CAM, SmoothGrad, the curves and the sanity check"
    parser.add_argument("--few", type=cli.positive, default=20, help=few)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=[*METHODS], help="rows")
    size = "side of the images (default: the network's own); larger ones give finer maps"
    parser.add_argument("--image-size", type=cli.positive, help=size)
    modules = "whose maps are measured"
    parser.add_argument("--modules", nargs="+", choices=MODULES, default=MODULES, help=modules)
    parser.add_argument("--data-dir", help="where TensorFlow Datasets keeps its files")
    flags = parser.parse_args()
    cli.start_tensorflow()
    from keras_googlenet import models
    from keras_googlenet.explaining.cam import logit_network
    from keras_googlenet.normal_form import copy_trunk

    loaded = models.load(flags.model)
    size = flags.image_size or loaded.image_size
    crops, masks, labels = read_examples(flags.images, flags.data_dir, size)
    network = logit_network(loaded.model)
    network = copy_trunk(network, network.output, any_size=True)
    bench = Bench(network, loaded, crops, masks, labels, flags.few)
    score = (bench.predict(crops).argmax(axis=-1) == labels).mean()
    print(
        f"{len(crops)} images of {size} pixels, accuracy {score:.1%}; "
        f"the object covers {masks.mean():.1%} of one"
    )
    print_quality(bench, flags.methods, flags.modules)
    print_sanity(bench, flags.methods)


class Bench:
    """Examples, and a network that ends in logits."""

    def __init__(self, network, loaded, crops, masks, labels, few):
        import tensorflow as tf

        from keras_googlenet.normal_form import trunk_inputs

        self.network, self.loaded = network, loaded
        self.crops, self.masks, self.labels, self.few = crops, masks, labels, few
        self.prepare = trunk_inputs(loaded.model, any_size=True)
        self.inputs = np.asarray(self.prepare(crops), "float32")
        self.softmax = tf.function(lambda x: tf.nn.softmax(network([x], training=False)))

    def predict(self, images):
        """Maps images, RGB in [0, 255], to probabilities."""
        return self.softmax(np.asarray(self.prepare(images), "float32")).numpy()

    def maps(self, method, module, count, network=None):
        """Returns maps of the first `count` examples."""
        from keras_googlenet.explaining.cam import map_logits

        parts = []
        for start in range(0, count, BATCH):
            rows = slice(start, min(start + BATCH, count))
            layer = f"inception_{module}_output"
            classes = self.labels[rows].tolist()
            found = map_logits(network or self.network, self.inputs[rows], classes, layer, method)
            parts.append(found)
        return np.concatenate(parts)


def read_examples(count, data_dir, size):
    """Reads crops, `(n, size, size, 3)`, masks as the network sees them, and labels."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    from keras_googlenet.data import datasets, preprocessing

    datasets.open_dataset("shapes", data_dir)  # draws it on first use
    split = tfds.load("shapes", split="validation", data_dir=data_dir)
    crops, masks, labels = [], [], []
    for example in split.take(count):
        mask = tf.tile(example["mask"], (1, 1, 3))
        crops.append(preprocessing.evaluation_crop(example["image"], size).numpy())
        masks.append(preprocessing.evaluation_crop(mask, size).numpy()[..., 0] > 127.5)
        labels.append(int(example["label"]))
    return np.stack(crops), np.stack(masks), np.array(labels)


def print_quality(bench: Bench, methods, modules):
    """Prints a row a method and module."""
    names = ("method", "module", "images", "on mask", "in box", "energy", "IoU")
    print(f"\n| {' | '.join(names)} | deletion | insertion | ms |")
    print("|---" * 10 + "|")
    print_baselines(bench)
    for method in methods:
        for module in modules if METHODS[method].uses_layer else ("5b",):
            print_row(bench, method, module)


def print_baselines(bench: Bench):
    """Prints what maps without a network reach: noise, and a bright middle."""
    generator = np.random.default_rng(0)
    size = bench.crops.shape[1]
    away = np.hypot(*(np.mgrid[:size, :size] - (size - 1) / 2))
    middle = np.broadcast_to(away.max() - away, bench.masks.shape)
    for name, maps in (("noise", generator.random(bench.masks.shape)), ("middle", middle)):
        print(f"| {name} | - | {len(maps)} | {figures(bench, maps)} | - |", flush=True)


def print_row(bench: Bench, method, module):
    """Prints the figures of one method at one module, with the time of a map."""
    count = bench.few if method in SLOW else len(bench.crops)
    began = time.perf_counter()
    maps = bench.maps(method, module, count)
    each = 1000 * (time.perf_counter() - began) / count
    where = module if METHODS[method].uses_layer else "pixels"
    print(f"| {method} | {where} | {count} | {figures(bench, maps)} | {each:.0f} |", flush=True)


def figures(bench: Bench, maps) -> str:
    """Returns the cells of a row."""
    from benchmarks import map_metrics

    masks, few = bench.masks[: len(maps)], slice(0, bench.few)
    curves = [
        curve(bench.predict, bench.crops[few], maps[few], bench.labels[few])
        for curve in (map_metrics.deletion_curve, map_metrics.insertion_curve)
    ]
    cells = [
        map_metrics.pointing_game(maps, masks).mean(),
        map_metrics.pointing_game(maps, map_metrics.boxes(masks)).mean(),
        map_metrics.energy_inside(maps, masks).mean(),
        map_metrics.thresholded_iou(maps, masks).mean(),
        *(map_metrics.area_under(curve).mean() for curve in curves),
    ]
    return " | ".join(f"{cell:.3f}" for cell in cells)


def print_sanity(bench: Bench, methods):
    """Prints rank correlations with maps of networks that are random from the end downwards."""
    from benchmarks import map_metrics

    print(f"\n| method | module | {' | '.join(f'random from {name}' for name in RANDOM_FROM)} |")
    print("|---" * (2 + len(RANDOM_FROM)) + "|")
    first = next(layer.name for layer in bench.network.layers if layer.weights)
    random = [
        map_metrics.randomize(bench.network, lowest or first) for lowest in RANDOM_FROM.values()
    ]
    for method in methods:
        if method == "scorecam":  # too slow for four more networks
            continue
        for module in SANITY_MODULES if METHODS[method].uses_layer else ("5b",):
            original = bench.maps(method, module, bench.few)
            cells = [
                map_metrics.rank_correlation(
                    original, bench.maps(method, module, bench.few, network)
                )
                for network in random
            ]
            row = " | ".join(f"{cell.mean():+.2f}" for cell in cells)
            where = module if METHODS[method].uses_layer else "pixels"
            print(f"| {method} | {where} | {row} |", flush=True)


if __name__ == "__main__":
    cli.run(main)
