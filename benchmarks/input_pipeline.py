"""How fast photographs become training crops, compared with torchvision and bare decoding.

    python -m benchmarks.input_pipeline
    python -m benchmarks.input_pipeline --photos hymenoptera.tar

All rows are measured in one run, taking turns, and the table has the medians. The ratios of
processor time are valid on a busy machine too. Without --photos it draws images of usual size.
torchvision: `python -m pip install -r requirements-bench.txt`.
"""

import io
import os
import resource
import statistics
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_googlenet import cli
from keras_googlenet.data import datasets, pipeline, preprocessing

SIZE, BATCH = 224, 32
CORES = len(os.sched_getaffinity(0))
WANTED = {"torchvision": 2.3, "decode and crop": 0.65}  # least ratio of the fused row to these
PAPER = pipeline.Augmentation(random_interpolation=True, distort_colours=True)


def main():
    """Prints a Markdown table of images/s, milliseconds of processor time, and ratios."""
    parser = cli.parser(__doc__)
    parser.add_argument("--photos", type=Path, help="tar of JPEG photographs")
    parser.add_argument("--turns", type=cli.positive, default=3, help="measurements of each row")
    parser.add_argument("--images", type=cli.positive, default=1200, help="images a turn")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = unpack(flags.photos, Path(folder)) if flags.photos else draw(Path(folder))
        files = (files * (flags.images // len(files) + 1))[: flags.images]
        rows = {
            "decode and crop": lambda: measure(decode_only(files)),
            "torchvision": lambda: measure(torchvision_loader(files)),
            "crop, resize, flip": lambda: measure(training(files, pipeline.Augmentation())),
            "the paper's": lambda: measure(training(files, PAPER)),
        }
        turns = {name: [] for name in rows}
        for _ in range(flags.turns):
            for name, row in rows.items():
                turns[name].append(row())
    print_table({name: list(zip(*turn, strict=True)) for name, turn in turns.items()}, len(files))


def print_table(turns: dict[str, list[tuple]], images: int):
    """Prints the rows, and whether the fused one reaches the ratios that are wanted."""
    seconds, processor = (
        {name: statistics.median(columns[kind]) for name, columns in turns.items()}
        for kind in (0, 1)
    )
    fused = "crop, resize, flip"
    print(f"{CORES} cores, {images} images a turn, {SIZE} pixels, load {os.getloadavg()[0]:.1f}\n")
    print("| | images/s | CPU ms an image | fused / row | the same of CPU time |")
    print("|---|---|---|---|---|")
    for name in turns:
        print(
            f"| {name} | {1 / seconds[name]:.0f} | {1000 * processor[name]:.2f} | "
            f"{seconds[name] / seconds[fused]:.2f} | {processor[name] / processor[fused]:.2f} |"
        )
    for name, least in WANTED.items():
        ratios = [spent[name] / spent[fused] for spent in (seconds, processor)]
        results = ["met" if ratio >= least else "missed" for ratio in ratios]
        print(f"\nwanted: {least} of {name}: {results[0]} in time, {results[1]} in processor time")


def unpack(archive: Path, folder: Path) -> list[str]:
    """Unpacks an archive and returns its JPEG files."""
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return sorted(str(file) for file in folder.rglob("*.jp*g"))


def draw(folder: Path, count: int = 100) -> list[str]:
    """Writes smooth noise as JPEGs of 500 x 375 pixels and about 100 kB, as ImageNet's are."""
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 256, (125, 167, 3), "uint8")
        content = io.BytesIO()
        Image.fromarray(noise).resize((500, 375), Image.Resampling.BICUBIC).save(
            content, "JPEG", quality=95
        )
        (folder / f"{number}.jpg").write_bytes(content.getvalue())
    return sorted(str(file) for file in folder.glob("*.jpg"))


def split_of(files: list[str]) -> datasets.Split:
    """Makes a split of files, all of class 0."""
    return datasets.folder_split({"photograph": files}, ["photograph"])


def training(files: list[str], augmentation: pipeline.Augmentation) -> tf.data.Dataset:
    """Returns the batches of the project's own pipeline."""
    return pipeline.train_batches(split_of(files), SIZE, BATCH, 0, augmentation)


def decode_only(files: list[str]) -> tf.data.Dataset:
    """Returns the same crops, only decoded: an upper limit for any pipeline of TensorFlow."""

    def decode(file, number):
        seed = tf.stack([tf.constant(0, tf.int64), number])
        return tf.shape(preprocessing.decode_random_crop(tf.io.read_file(file), seed))

    numbered = tf.data.Dataset.from_tensor_slices((files, np.arange(len(files), dtype="int64")))
    decoded = numbered.map(decode, num_parallel_calls=tf.data.AUTOTUNE)
    return decoded.batch(BATCH, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def torchvision_loader(files: list[str]):
    """Returns RandomResizedCrop and flip by torchvision, with as many workers as cores."""
    import torch

    sys.path.append(str(Path(__file__).parent.parent / "tests"))
    import torchvision_peer

    torchvision_peer.import_models()
    from torchvision import transforms

    steps = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE),
            transforms.RandomHorizontalFlip(),
            transforms.PILToTensor(),
        ]
    )
    return torch.utils.data.DataLoader(
        Photographs(files, steps), BATCH, shuffle=True, num_workers=CORES, drop_last=True
    )


class Photographs:
    """Image files as a data set of torch."""

    def __init__(self, files, steps):
        self.files, self.steps = files, steps

    def __len__(self):
        return len(self.files)

    def __getitem__(self, number):
        return self.steps(Image.open(self.files[number]).convert("RGB"))


def measure(batches) -> tuple[float, float]:
    """Returns seconds an image, and seconds of processor time with that of workers.

    The first batch, which builds the pipeline, is not counted, except in the processor time of
    workers, which is known only after they end.
    """
    workers = _processor_time(resource.RUSAGE_CHILDREN)
    iterator = iter(batches)
    next(iterator)
    began, own, count = time.perf_counter(), _processor_time(resource.RUSAGE_SELF), 0
    for _ in iterator:
        count += BATCH
    seconds = time.perf_counter() - began
    own = _processor_time(resource.RUSAGE_SELF) - own
    del iterator
    workers = _processor_time(resource.RUSAGE_CHILDREN) - workers
    return seconds / count, own / count + workers / (count + BATCH)


def _processor_time(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
