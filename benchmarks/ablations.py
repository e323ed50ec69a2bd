"""What each idea of the paper is worth on CIFAR-10: one change to the network at a time, by seed.

    python -m benchmarks.ablations cifar10
    python -m benchmarks.ablations cifar10 --only "aux off" "aux 0.1" --seeds 3 4
    KERAS_BACKEND=torch python -m benchmarks.ablations cifar10
    python -m benchmarks.ablations --draw

`cifar10` is the folder with `train/<class>/*.jpg` and `test/<class>/*.jpg`. Each run trains on the
first images of each class and is measured on all test images. A run is a row of the CSV file; one
with the same settings that is already there is skipped, so that the same command resumes. Any
backend of Keras will do. Without batch normalization, convolutions also get the biases and the
initializer of the variant `paper`.
"""

import contextlib
import dataclasses
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from benchmarks import ablation_results
from benchmarks.ablation_results import REFERENCE, read, write
from benchmarks.inference import processor
from benchmarks.variants import multiply_adds
from keras_googlenet import cli, googlenet
from keras_googlenet.errors import UserError
from keras_googlenet.imagenet import preprocess_input
from keras_googlenet.training.recipe import Recipe

RESULTS = Path("docs/results")
IMAGE_SIZE = 65  # the smallest with auxiliary heads
SHIFT = 8  # pixels: 4 of CIFAR's 32, the usual augmentation
WATCHED = 10  # steps at the start and at the end whose gradients are measured
LEARNING_RATE = 1e-3  # Adam's default, which trains networks with and without normalization
WARMUP_SHARE = 0.1


@dataclass(frozen=True)
class Setting:
    """One network and how it is trained; the defaults are the reference."""

    variant: dict = dataclasses.field(default_factory=dict)  # fields of `Variant`
    aux_weight: float = 0.3  # section 5
    dropout: float = Recipe.dropout
    fully_connected: bool = False  # two linear layers in place of average pooling
    equal_cost: bool = False  # as many multiply-adds as the reference, in fewer steps


LRN = {"batch_norm": False}
NO_NORMALIZATION = {"batch_norm": False, "lrn": {"alpha": 0.0}}  # divides by 1
NAIVE = {"reductions": False}
SETTINGS = {
    REFERENCE: Setting(),
    "aux off": Setting(aux_weight=0.0),
    "aux 0.1": Setting(aux_weight=0.1),
    "aux 1": Setting(aux_weight=1.0),
    "3x3 for 5x5": Setting({"kernel5x5": 3}),
    "LRN": Setting(LRN),
    "LRN, aux off": Setting(LRN, aux_weight=0.0),
    "no normalization": Setting(NO_NORMALIZATION),
    "naive, equal steps": Setting(NAIVE),
    "naive, equal cost": Setting(NAIVE, equal_cost=True),
    "fully connected": Setting(fully_connected=True),
    "dropout 0": Setting(dropout=0.0),
    "dropout 0.7": Setting(dropout=0.7),
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
    parser.add_argument("--draw", action="store_true", help="only draw figure and tables")
    flags = parser.parse_args()
    if flags.draw:
        ablation_results.draw(read(flags.output / "ablations.csv"), list(SETTINGS))
        ablation_results.print_gradients(read(flags.output / "gradient_norms.csv"))
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
    key = {"setting": name, "seed": seed, "backend": keras.backend.backend()}
    key |= {name: getattr(flags, name) for name in ("images", "epochs", "batch_size", "precision")}
    key = {name: str(value) for name, value in key.items()}
    if any(key.items() <= row.items() for row in read(results)):
        return
    row, norms = train(SETTINGS[name], seed, data, flags)
    # The results come last, since they mark the run as done; a kill between the two may repeat it.
    others = [norm for norm in read(gradients) if not key.items() <= norm.items()]
    write(gradients, others + [key | norm for norm in norms])
    write(results, [*read(results), key | row])
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
        classes = sorted(path.name for path in (folder / "train").iterdir() if path.is_dir())
        return cls(
            *_read_split(folder / "train", classes, images // len(classes)),
            *_read_split(folder / "test", classes),
        )

    def batch(self, step: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the shuffled, shifted and mirrored images of a step, and their labels.

        They are `(size, side, side, 3)` float32 minus the mean, and `(size,)` int64.
        """
        steps = len(self.labels) // size
        epoch, position = divmod(step, steps)
        order = np.random.default_rng((seed, epoch)).permutation(len(self.labels))
        chosen = order[position * size : (position + 1) * size]
        random = np.random.default_rng((seed, epoch, position))
        padded = np.pad(self.images[chosen], ((0, 0), (SHIFT,) * 2, (SHIFT,) * 2, (0, 0)))
        corners = random.integers(0, 2 * SHIFT + 1, (size, 2))
        side = self.images.shape[1]
        crops = [
            image[top : top + side, left : left + side]
            for image, (top, left) in zip(padded, corners, strict=True)
        ]
        mirrored = random.random(size) < 0.5
        crops = [c[:, ::-1] if m else c for c, m in zip(crops, mirrored, strict=True)]
        return preprocess_input(np.stack(crops)), self.labels[chosen]


def _read_split(folder: Path, classes: list[str], most: int | None = None):
    """Returns images `(n, side, side, 3)` uint8, at most so many per class, and labels `(n,)`."""
    from PIL import Image

    images, labels = [], []
    for label, name in enumerate(classes):
        for file in sorted((folder / name).glob("[!.]*"))[:most]:
            with Image.open(file) as image:
                resized = image.convert("RGB").resize((IMAGE_SIZE,) * 2, Image.BILINEAR)
            images.append(np.asarray(resized))
            labels.append(label)
    return np.stack(images), np.array(labels)


def build(setting: Setting, classes: int):
    """Returns the three-output network of a setting."""
    spec = googlenet.Variant(**({"batch_norm": True} | setting.variant))
    image = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 3), name="image")
    x, taps = googlenet.trunk(image, spec)
    if setting.fully_connected:
        x = keras.layers.Flatten(name="flatten")(x)
        x = keras.layers.Dense(spec.aux_fc, "relu", name="fc", kernel_initializer="he_normal")(x)
        x = keras.layers.Dropout(setting.dropout, name="dropout")(x)
        outputs = [googlenet.classifier(x, classes, "softmax", "main")]
    else:
        outputs = [googlenet.main_head(x, classes, "softmax", setting.dropout)]
    for head, tap in taps.items():
        outputs.append(googlenet.aux_head(tap, classes, "softmax", Recipe.aux_dropout, head, spec))
    return keras.Model(image, outputs)


def train(setting: Setting, seed: int, data: Data, flags) -> tuple[dict, list[dict]]:
    """Trains and measures one network: its row, and the rows of its gradients.

    `multiply_adds` are those of an image in all three heads, also where two have no weight.
    """
    where = device()  # before the work that would be lost if this failed
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(
        flags.precision if flags.precision == "float32" else f"mixed_{flags.precision}"
    )
    classes = int(data.labels.max()) + 1
    model = build(setting, classes)
    cost = sum(map(multiply_adds, model.layers))
    steps = flags.epochs * (len(data.labels) // flags.batch_size)
    if setting.equal_cost:
        steps = round(steps * sum(map(multiply_adds, build(Setting(), classes).layers)) / cost)
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
        "device": where,
    }, norms.rows()


def schedule(steps: int):
    """A linear warm-up and a cosine to 0."""
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
        self.model, self.norms = model, defaultdict(list)
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
            self.norms[part, module].append(squares**0.5)

    def _moments(self) -> list[np.ndarray]:
        return [np.array(keras.ops.convert_to_numpy(m)) for m in self.model.optimizer._momentums]

    def rows(self) -> list[dict]:
        """Returns a row for each module at the start and at the end."""
        return [
            {"part": part, "module": module, "norm": f"{statistics.mean(norms):.6g}"}
            for (part, module), norms in self.norms.items()
        ]


def measure(model, data: Data, batch_size: int = 500) -> dict[str, float]:
    """Returns the test accuracy of each head and the cross-entropy of the main one."""
    heads = [[], [], []]
    for start in range(0, len(data.test_labels), batch_size):
        outputs = model.predict_on_batch(
            preprocess_input(data.test_images[start : start + batch_size])
        )
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
    """Returns the device that Keras computes on, by the name of its backend, or the processor."""
    where = str(keras.ops.zeros(()).device)
    return processor() if "cpu" in where.lower() else where


if __name__ == "__main__":
    cli.run(main)
