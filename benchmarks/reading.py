"""How many bytes a worker reads in an epoch, and a resumed run before its first batch.

    python -m benchmarks.reading
    python -m benchmarks.reading --json
    python -m benchmarks.reading --format array_record --data-dir prepared

The kernel counts them for this process (`rchar` of /proc/self/io: what its reads returned, from
the disk or from memory), on a set of drawn images that TensorFlow Datasets prepares once below
--data-dir. This process runs as worker 0 of 1, 2, 4 and 8; workers do not communicate. Linux only.
"""

import argparse
import contextlib
import functools
import io
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from keras_googlenet import cli
from keras_googlenet.data import datasets, pipeline

SIZE, SEED, CLASSES = 224, 0, 10
WORKERS, RESUMES = (1, 2, 4, 8), (10, 50, 90)  # percents of an epoch
DISTINCT = 100  # drawings; no two records have the same length


class DrawnPhotographs(tfds.core.GeneratorBasedBuilder):
    """JPEGs of 500 x 375 pixels, like ImageNet's."""

    VERSION = tfds.core.Version("1.0.0")
    RECORDS = 20_000

    def _info(self):
        image, label = tfds.features.Image(shape=(375, 500, 3), encoding_format="jpeg"), CLASSES
        features = {"image": image, "label": tfds.features.ClassLabel(num_classes=label)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(self.RECORDS), "test": self._generate_examples(1)}

    def _generate_examples(self, count):
        for number in range(count):
            content = drawing(number % DISTINCT) + bytes(number // DISTINCT)
            yield number, {"image": io.BytesIO(content), "label": number % CLASSES}


@functools.cache
def drawing(number: int) -> bytes:
    """Returns smooth noise as a JPEG."""
    noise = np.random.default_rng(number).integers(0, 256, (125, 167, 3), "uint8")
    content = io.BytesIO()
    big = Image.fromarray(noise).resize((500, 375), Image.Resampling.BICUBIC)
    big.save(content, "JPEG", quality=85)
    return content.getvalue()


def main():
    """Prints a table, or one line of JSON."""
    parser = cli.parser(__doc__)
    parser.add_argument("--records", type=cli.positive, default=20_000, help="size of the set")
    parser.add_argument("--batch-size", type=cli.positive, default=256, help="over all workers")
    parser.add_argument("--format", choices=("tfrecord", "array_record"), default="tfrecord")
    parser.add_argument("--data-dir", help="where to prepare it (default: a temporary folder)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        split = prepared(flags, flags.data_dir or folder)
        speed, result = measure(split, flags.batch_size)
    print(json.dumps(result) if flags.json else as_table(result, speed, flags))


def prepared(flags: argparse.Namespace, data_dir: str) -> datasets.Split:
    """Prepares the set, unless it is there, and returns its training set."""
    DrawnPhotographs.RECORDS = flags.records
    folder = str(Path(data_dir).expanduser() / f"{flags.format}_{flags.records}")
    builder = DrawnPhotographs(data_dir=folder, file_format=flags.format)
    with contextlib.redirect_stdout(sys.stderr):
        builder.download_and_prepare()
    return datasets.open_dataset(str(builder.data_dir)).train


def measure(split: datasets.Split, batch_size: int) -> tuple[float, dict]:
    """Returns images/s of one worker, and the bytes that are read."""
    steps = split.size // batch_size
    workers, began = {}, time.perf_counter()
    for count in WORKERS:
        before = bytes_read()
        batches = stream(split, batch_size, 0, pipeline.Worker(0, count))
        for number, _ in enumerate(batches, 1):
            show(f"worker 0 of {count}: step {number} of {steps}")
        workers[str(count)] = bytes_read() - before
        if count == 1:
            speed = steps * batch_size / (time.perf_counter() - began)
    resume = {}
    for percent in RESUMES:
        batches = stream(split, batch_size, steps + steps * percent // 100)  # of the second epoch
        before = bytes_read()
        iterator = iter(batches)
        next(iterator)
        resume[str(percent)] = bytes_read() - before
        del iterator
    show("")
    return speed, {"workers": workers, "resume": resume, "batch": workers["1"] // steps}


def stream(split, batch_size: int, first_step: int, worker=pipeline.ONE_WORKER):
    """Returns the training batches from a step on."""
    augmentation = pipeline.Augmentation()
    return pipeline.train_batches(
        split, SIZE, batch_size, SEED, augmentation, first_step=first_step, worker=worker
    )


def bytes_read() -> int:
    """Returns how many bytes this process has read so far."""
    counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counts["rchar"])


def show(text: str):
    """Shows the progress on a terminal."""
    if sys.stderr.isatty():
        print(f"\r{text:60}", end="\r" if not text else "", file=sys.stderr, flush=True)


def as_table(result: dict, speed: float, flags: argparse.Namespace) -> str:
    """Formats the counts in megabytes, compared with an equal share of the data set."""
    whole, batch = result["workers"]["1"], result["batch"]
    rows = [
        f"{flags.records:,} records as {flags.format}, batches of {flags.batch_size} "
        f"({batch / 1e6:.1f} MB), {len(os.sched_getaffinity(0))} cores, "
        f"{speed:.0f} images/s alone\n",
        "| read by | MB | of its share |",
        "|---|---|---|",
    ]
    for count, read in result["workers"].items():
        share = read / (whole / int(count))
        rows.append(f"| worker 0 of {count}, an epoch | {read / 1e6:.1f} | {share:.3f} |")
    rows += ["", "| read before the first batch of a resume at | MB | batches |", "|---|---|---|"]
    for percent, read in result["resume"].items():
        rows.append(f"| {percent}% of an epoch | {read / 1e6:.1f} | {read / batch:.2f} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
