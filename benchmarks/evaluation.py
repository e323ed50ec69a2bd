"""What 1, 10 and 144 crops cost, beside the forward passes alone.

    python -m benchmarks.evaluation
    python -m benchmarks.evaluation --image-size 72 --images 2880

An evaluation, from JPEG files of ImageNet's size (500 x 375) to records, is compared with as many
forward passes of the same network (random weights, the same batch size) on a batch in memory, timed
before and after it. The time until the first records, mostly TensorFlow tracing the network, is in
a column of its own. The last column is the ratio of processor times, which holds on a busy machine.
"""

import tempfile
import time
from pathlib import Path

import numpy as np

from keras_googlenet import cli
from keras_googlenet.commands.evaluate import CROPS

LEAST = 12  # images a row
LIMIT = 1.15  # times the forward passes, for 144 crops: more means that cutting crops is too slow


def main():
    """Prints a Markdown table with one row per crop set."""
    parser = cli.parser(__doc__)
    parser.add_argument("--images", type=cli.positive, default=1440, help="crops a row")
    parser.add_argument("--image-size", type=cli.positive, default=224, help="side of a crop")
    parser.add_argument("--batch-size", type=cli.positive, default=64, help="crops a step")
    parser.add_argument("--variant", default="paper", help="variant of the network")
    flags = parser.parse_args()
    cli.start_tensorflow()
    from keras_googlenet.evaluation.class_matching import match_classes
    from keras_googlenet.evaluation.ensemble import Ensemble, Member
    from keras_googlenet.evaluation.measure import measure_split
    from keras_googlenet.googlenet import GoogLeNet
    from keras_googlenet.labels import imagenet_labels

    size = flags.image_size
    model = GoogLeNet(input_shape=(size, size, 3), variant=flags.variant, aux_heads=False)
    classes = match_classes([imagenet_labels()], imagenet_labels())
    member = Member(model, flags.variant, np.arange(1000))
    batch = np.random.default_rng(0).uniform(0, 255, (flags.batch_size, size, size, 3))
    forward = forward_pass(member, batch.astype("float32"))
    print(
        "| crops | start, s | images/s | ms an image | n x one crop | passes alone | ratio | CPU |"
    )
    print("|---|---|---|---|---|---|---|---|")
    one_crop = None
    with tempfile.TemporaryDirectory() as folder:
        for crops in CROPS:
            split = drawn_split(Path(folder) / str(crops), max(LEAST, flags.images // crops))
            ensemble = Ensemble([member], (size,), classes, (crops,))
            before = forward(flags.images)
            clock = Clock(ensemble.record_type)
            measure_split(ensemble, split, flags.batch_size, record_file=clock)
            passes, passes_cpu = crops * (before + forward(flags.images)) / 2
            seconds, cpu = clock.an_image()
            one_crop = one_crop or seconds
            print(
                f"| {crops} | {clock.start:.1f} | {1 / seconds:.2f} | {1000 * seconds:.1f} "
                f"| {1000 * crops * one_crop:.1f} | {1000 * passes:.1f} "
                f"| {seconds / passes:.2f} | {cpu / passes_cpu:.2f} |",
                flush=True,
            )
    print(f"\nat 144 crops the ratio should be {LIMIT} at most")


class Clock:
    """Takes the part of a `RecordFile`, and notes when records arrive."""

    def __init__(self, dtype):
        self.records = np.empty(0, dtype)
        self.counts, self.times = [0], [now()]

    def read(self):
        """Returns no records: there is nothing to resume."""
        return self.records

    def append(self, records):
        """Notes the time, and drops the records."""
        self.counts.append(self.counts[-1] + len(records))
        self.times.append(now())

    @property
    def start(self) -> float:
        """Seconds until the first records arrived."""
        return self.times[1][0] - self.times[0][0]

    def an_image(self) -> np.ndarray:
        """Returns seconds and processor seconds an image after that."""
        return (self.times[-1] - self.times[1]) / (self.counts[-1] - self.counts[1])


def now() -> np.ndarray:
    """Returns the time and the processor time of all threads, in seconds."""
    return np.array([time.perf_counter(), time.process_time()])


def forward_pass(member, batch):
    """Returns a function from a number of images to `now()` seconds an image of forward passes."""
    import tensorflow as tf

    from keras_googlenet.normal_form import preprocessing_for

    prepare = preprocessing_for(member.model, member.variant)

    @tf.function
    def network(images):
        return member.model(prepare(images), training=False)

    images = tf.constant(batch)
    network(images)

    def seconds(count: int) -> np.ndarray:
        steps = -(-count // len(batch))
        start = now()
        for _ in range(steps):
            network(images).numpy()
        return (now() - start) / (steps * len(batch))

    return seconds


def drawn_split(folder: Path, count: int):
    """Draws JPEG files and opens them."""
    from keras_googlenet.data import datasets, shapes

    folder.mkdir()
    files = []
    for number in range(count):
        image, _ = shapes.draw("star", np.random.default_rng(number))
        files.append(str(folder / f"{number}.jpg"))
        image.resize((500, 375)).save(files[-1], quality=92)
    return datasets.folder_split({"star": files}, ["star"])


if __name__ == "__main__":
    cli.run(main)
