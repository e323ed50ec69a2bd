"""What each idea of the paper is worth on CIFAR-10: one change at a time, several seeds.

    python -m benchmarks.ablations cifar10
    python -m benchmarks.ablations cifar10 --only "aux off" "aux 0.1" --seeds 3 4
    KERAS_BACKEND=torch python -m benchmarks.ablations cifar10
    python -m benchmarks.ablations --draw

`cifar10` is the folder with `train/<class>/*.jpg` and `test/<class>/*.jpg`. Each run trains on the
first images of each class and is measured on all test images. A run is a row of the CSV file, and
runs that it has are skipped, so that the same command resumes. Any backend of Keras will do.
"""

import contextlib
import csv
import dataclasses
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.inference import processor
from keras_googlenet import cli
from keras_googlenet.atomic import replacing
from keras_googlenet.errors import UserError

RESULTS = Path("docs/results")
FIGURE = Path("docs/images/ablations.png")
IMAGE_SIZE = 65  # the smallest with auxiliary heads
SHIFT = 8  # pixels: 4 of CIFAR's 32, the usual augmentation
WATCHED = 10  # steps at the start and at the end whose gradients are measured
LEARNING_RATE = 1e-3  # Adam's default, which trains networks with and without normalization
WARMUP_SHARE = 0.1


@dataclass(frozen=True)
class Setting:
    """One network and how it is trained; the defaults are the reference."""

    question: str
    variant: dict = dataclasses.field(default_factory=dict, hash=False)  # fields of `Variant`
    aux_weight: float = 0.3  # section 5
    dropout: float = 0.4  # Table 1
    fully_connected: bool = False  # two linear layers in place of average pooling
    equal_cost: bool = False  # as many multiply-adds as the reference, in fewer steps


LRN = {"batch_norm": False}
NO_NORMALIZATION = {"batch_norm": False, "lrn": {"alpha": 0.0}}  # divides by 1
REFERENCE = "reference"
SETTINGS = {
    REFERENCE: Setting("batch normalization, aux weight 0.3, 5x5, dropout 0.4, average pooling"),
    "aux off": Setting("auxiliary heads", aux_weight=0.0),
    "aux 0.1": Setting("auxiliary heads", aux_weight=0.1),
    "aux 1": Setting("auxiliary heads", aux_weight=1.0),
    "3x3 for 5x5": Setting("kernel of the third branch", {"kernel5x5": 3}),
    "LRN": Setting("normalization", LRN),
    "LRN, aux off": Setting("normalization", LRN, aux_weight=0.0),
    "no normalization": Setting("normalization", NO_NORMALIZATION),
    "naive, equal steps": Setting("reductions", {"reductions": False}),
    "naive, equal cost": Setting("reductions", {"reductions": False}, equal_cost=True),
    "fully connected": Setting("main head", fully_connected=True),
    "dropout 0": Setting("dropout before the main classifier", dropout=0.0),
    "dropout 0.7": Setting("dropout before the main classifier", dropout=0.7),
}
MODULES = ("conv1", "conv2", *(f"inception_{m}" for m in "3a 3b 4a 4b 4c 4d 4e 5a 5b".split()))


def main():
    """Runs what is missing, or draws the figure."""
    parser = cli.parser(__doc__)
    parser.add_argument("data", nargs="?", type=cli.local_path, help="folder of CIFAR-10's images")
    parser.add_argument("--only", nargs="+", choices=SETTINGS, metavar="SETTING", help="settings")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="seeds")
    parser.add_argument("--images", type=cli.positive, default=10_000, help="to train on")
    parser.add_argument("--epochs", type=cli.positive, default=5, help="passes of the reference")
    parser.add_argument("--batch-size", type=cli.positive, default=64, help="images per step")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--output", type=cli.local_path, default=RESULTS, help="folder of the CSVs")
    parser.add_argument("--draw", action="store_true", help="only draw the figure and the table")
    flags = parser.parse_args()
    if flags.draw:
        draw(read(flags.output / "ablations.csv"), FIGURE)
        return
    if flags.data is None:
        raise UserError("give the folder of CIFAR-10's images, or --draw.")
    data = Data.read(flags.data, flags.images)
    for seed in flags.seeds:
        for name in flags.only or SETTINGS:
            run_once(name, seed, data, flags)


def run_once(name: str, seed: int, data: "Data", flags):
    """Trains one network and adds its rows, unless they are there."""
    results, gradients = flags.output / "ablations.csv", flags.output / "gradient_norms.csv"
    key = {"setting": name, "seed": str(seed)}
    if any(key.items() <= row.items() for row in read(results)):
        return
    row, norms = train(SETTINGS[name], seed, data, flags)
    append(gradients, [key | norm for norm in norms])
    append(results, [key | row])  # last: it marks the run as done
    cli.note(f"{name}, seed {seed}: main {row['main_accuracy']:.1%} in {row['seconds']} s")


@dataclass(frozen=True)
class Data:
    """The images, RGB in [0, 255]: `(n, side, side, 3)` uint8, labels `(n,)` int64."""

    images: np.ndarray
    labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray

    @classmethod
    def read(cls, folder: Path, images: int) -> "Data":
        """Reads the first images of each class, and all test images, in the order of names."""
        classes = sorted(path.name for path in (folder / "train").iterdir())
        return cls(
            *_read_split(folder / "train", classes, images // len(classes)),
            *_read_split(folder / "test", classes),
        )

    def batch(self, step: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the shuffled, shifted and mirrored images of a step, float32, and labels."""
        steps = len(self.labels) // size
        epoch, position = divmod(step, steps)
        order = np.random.default_rng((seed, epoch)).permutation(len(self.labels))
        chosen = order[position * size : (position + 1) * size]
        random = np.random.default_rng((seed, epoch, position))
        padded = np.pad(self.images[chosen], ((0, 0), (SHIFT,) * 2, (SHIFT,) * 2, (0, 0)))
        corners = random.integers(0, 2 * SHIFT + 1, (size, 2))
        side = self.images.shape[1]
        crops = [x[y : y + side, z : z + side] for x, (y, z) in zip(padded, corners, strict=True)]
        mirrored = random.random(size) < 0.5
        crops = [c[:, ::-1] if m else c for c, m in zip(crops, mirrored, strict=True)]
        return centered(np.stack(crops)), self.labels[chosen]


def _read_split(folder: Path, classes: list[str], most: int | None = None):
    from PIL import Image

    images, labels = [], []
    for label, name in enumerate(classes):
        for file in sorted((folder / name).iterdir())[:most]:
            with Image.open(file) as image:
                resized = image.convert("RGB").resize((IMAGE_SIZE,) * 2, Image.BILINEAR)
            images.append(np.asarray(resized))
            labels.append(label)
    return np.stack(images), np.array(labels)


def centered(images: np.ndarray) -> np.ndarray:
    """Subtracts the paper's mean: float32."""
    from keras_googlenet.imagenet import preprocess_input

    return preprocess_input(images)


def build(setting: Setting, classes: int, image_size: int = IMAGE_SIZE):
    """Returns the three-output network of a setting."""
    import keras

    from keras_googlenet import googlenet

    spec = googlenet.Variant(**({"batch_norm": True} | setting.variant))
    image = keras.Input((image_size, image_size, 3), name="image")
    x, taps = googlenet.trunk(image, spec)
    if setting.fully_connected:
        x = keras.layers.Flatten(name="flatten")(x)
        x = keras.layers.Dense(spec.aux_fc, "relu", name="fc", kernel_initializer="he_normal")(x)
        x = keras.layers.Dropout(setting.dropout, name="dropout")(x)
        outputs = [googlenet.classifier(x, classes, "softmax", "main")]
    else:
        outputs = [googlenet.main_head(x, classes, "softmax", setting.dropout)]
    for head, tap in taps.items():
        outputs.append(googlenet.aux_head(tap, classes, "softmax", 0.5, head, spec))
    return keras.Model(image, outputs)


def train(setting: Setting, seed: int, data: Data, flags) -> tuple[dict, list[dict]]:
    """Trains and measures one network: its row, and the rows of its gradients."""
    import keras

    from benchmarks.variants import multiply_adds

    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(
        flags.precision if flags.precision == "float32" else f"mixed_{flags.precision}"
    )
    classes = int(data.labels.max()) + 1
    model = build(setting, classes)
    cost = sum(map(multiply_adds, model.layers))
    steps = flags.epochs * (len(data.labels) // flags.batch_size)
    if setting.equal_cost:
        steps = round(steps * sum(map(multiply_adds, build(Setting(""), classes).layers)) / cost)
    optimizer = keras.optimizers.Adam(schedule(steps))
    model.compile(
        optimizer,
        loss=["sparse_categorical_crossentropy"] * 3,
        loss_weights=[1.0, setting.aux_weight, setting.aux_weight],
        jit_compile=keras.backend.backend() == "jax",
    )
    norms, started = Norms(model), time.perf_counter()
    for step in range(steps):
        part = "start" if step < WATCHED else "end" if step >= steps - WATCHED else None
        with norms.measured(part):
            images, labels = data.batch(step, flags.batch_size, seed)
            model.train_on_batch(images, [labels] * 3)
    seconds = time.perf_counter() - started
    return {
        **measure(model, data),
        "parameters": model.count_params(),
        "multiply_adds": cost,
        "steps": steps,
        "seconds": round(seconds, 1),
        "precision": flags.precision,
        "backend": keras.backend.backend(),
        "device": device(),
    }, norms.rows()


def schedule(steps: int):
    """A linear warm-up and a cosine to 0."""
    import keras

    warmup = max(1, round(WARMUP_SHARE * steps))
    return keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - warmup), warmup_target=LEARNING_RATE, warmup_steps=warmup
    )


class Norms:
    """Norms of the gradient by module, the mean over steps, from Adam's first moment.

    A step makes of the moment m and the gradient g: `beta_1 * m + (1 - beta_1) * g`, so that the
    gradient of an ordinary training step can be computed from m before and after it.
    """

    def __init__(self, model):
        self.model, self.parts = model, defaultdict(list)
        model.optimizer.build(model.trainable_variables)
        self.modules = {
            module: [
                i
                for i, variable in enumerate(model.trainable_variables)
                if variable.path.startswith(module) and variable.path.endswith("kernel")
            ]
            for module in MODULES
        }

    @contextlib.contextmanager
    def measured(self, part: str | None):
        """Measures the step inside the block, unless `part` is `None`."""
        if part is None:
            yield
            return
        before = self._moments()
        yield
        beta = self.model.optimizer.beta_1
        gradients = [
            (b - beta * a) / (1 - beta) for a, b in zip(before, self._moments(), strict=True)
        ]
        for module, variables in self.modules.items():
            squares = sum(np.square(gradients[i], dtype="float64").sum() for i in variables)
            self.parts[part, module].append(squares**0.5)

    def _moments(self) -> list[np.ndarray]:
        from keras import ops

        return [np.array(ops.convert_to_numpy(m)) for m in self.model.optimizer._momentums]

    def rows(self) -> list[dict]:
        """Returns a row for each module at the start and at the end."""
        return [
            {"part": part, "module": module, "norm": f"{statistics.mean(norms):.6g}"}
            for (part, module), norms in self.parts.items()
        ]


def measure(model, data: Data, batch_size: int = 500) -> dict[str, float]:
    """Returns the test accuracy of each head and the cross-entropy of the main one."""
    heads = [[], [], []]
    for start in range(0, len(data.test_labels), batch_size):
        outputs = model.predict_on_batch(centered(data.test_images[start : start + batch_size]))
        for head, output in zip(heads, outputs, strict=True):
            head.append(output)
    main, aux1, aux2 = (np.concatenate(head) for head in heads)
    right = main[np.arange(len(main)), data.test_labels]
    return {
        "main_accuracy": float(np.mean(main.argmax(-1) == data.test_labels)),
        "aux1_accuracy": float(np.mean(aux1.argmax(-1) == data.test_labels)),
        "aux2_accuracy": float(np.mean(aux2.argmax(-1) == data.test_labels)),
        "main_loss": round(float(-np.log(np.maximum(right, 1e-7)).mean()), 4),
    }


def device() -> str:
    """Returns the name of the GPU that Keras computes on, or of the processor."""
    import keras

    if keras.backend.backend() == "torch":
        import torch

        if torch.cuda.is_available():
            return torch.cuda.get_device_name()
    if keras.backend.backend() == "jax":
        import jax

        if jax.default_backend() == "gpu":
            return jax.devices()[0].device_kind
    return processor()


def read(file: Path) -> list[dict]:
    """Returns the rows of a CSV file as texts; none if there is no file."""
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def append(file: Path, rows: list[dict]):
    """Adds rows to a CSV file, all of them or none."""
    rows = read(file) + rows
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def summary(rows: list[dict], column: str = "main_accuracy") -> dict[str, tuple[float, float, int]]:
    """Returns mean, standard deviation and number of runs of each setting, in their order."""
    values = defaultdict(list)
    for row in rows:
        values[row["setting"]].append(float(row[column]))
    return {
        name: (statistics.mean(v), statistics.stdev(v) if len(v) > 1 else 0.0, len(v))
        for name in SETTINGS
        if (v := values[name])
    }


def draw(rows: list[dict], file: Path):
    """Prints the table and draws the accuracy of each setting with its standard deviation."""
    from matplotlib.figure import Figure

    if not rows:
        raise UserError("there are no results yet; run the ablations first.")
    results = summary(rows)
    reference = results[REFERENCE][0]
    print("| setting | main accuracy | standard deviation | vs. reference | runs |")
    print("|---|---|---|---|---|")
    for name, (mean, spread, runs) in results.items():
        change = f"{100 * (mean - reference):+.1f}"
        print(f"| {name} | {mean:.1%} | {100 * spread:.1f} | {change} | {runs} |")
    figure = Figure(figsize=(7, 0.36 * len(results) + 1), layout="constrained")
    axes = figure.subplots()
    names = list(results)[::-1]
    means, spreads, _ = zip(*(results[name] for name in names), strict=True)
    colors = ["#b5651d" if name == REFERENCE else "#3b6ea5" for name in names]
    axes.barh(names, [100 * m for m in means], xerr=[100 * s for s in spreads], color=colors)
    axes.axvline(100 * reference, color="#b5651d", linewidth=1, linestyle="--")
    axes.set_xlabel(
        "test accuracy of the main head, %; error bars: standard deviation of the seeds"
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as temporary:
        figure.savefig(temporary, dpi=150, format="png")
    print(f"-> {file}")


if __name__ == "__main__":
    cli.run(main)
