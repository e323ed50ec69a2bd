"""The recipe: every hyper-parameter once, with its default, its source, its limits and its help."""

import argparse
import dataclasses
import json
import math
import os
import shlex
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from keras_googlenet.atomic import replacing
from keras_googlenet.data.folders import resolve_dataset
from keras_googlenet.errors import UserError
from keras_googlenet.run_files import RECIPE_FILE

LEARNING_RATE_BATCH = 256  # the batch size that `learning_rate` is given for
FINE_TUNING_SHARE = 0.1  # of a recipe's learning rate: pretrained weights must not move far
SHARE, NOT_NEGATIVE, COUNT = (0, 1), (0, math.inf), (1, math.inf)  # limits


def _setting(default, text: str, limits: tuple = (), **flag):
    """A field with its help, its limits, the choices of its flag, and the group that it starts."""
    return dataclasses.field(default=default, metadata={"help": text, "limits": limits, **flag})


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Each field is a flag of train.py, whose help stands beside it, and a key of `recipe.json`. The
    defaults are those of the recipe "modern".
    """

    dataset: str = _setting(
        "shapes",
        "shapes (built in), a name in TensorFlow Datasets, or a folder of class folders",
        group="data",
    )
    data_dir: str | None = _setting(None, "folder of TensorFlow Datasets")
    validation_split: float = _setting(
        0.1,
        "share of the images to hold out where the data set has no validation split: of each "
        "class of a folder, chosen by --seed; of TensorFlow Datasets, the end of its train split",
        SHARE,
    )
    image_size: int = _setting(224, "side of the input images in pixels")  # 224: section 5
    variant: str = _setting("batchnorm", "variant of the network", group="network")
    weights: str | None = _setting(
        None,
        "MODEL to start from: run directory, .keras file or imagenet. Layers of its heads are used "
        "where their shapes match, so a classifier only for the same number of classes",
    )
    freeze_until: str | None = _setting(None, "freeze this layer and all that it depends on")
    dropout: float = _setting(0.4, "dropout rate before the main classifier", SHARE)  # Table 1
    aux_dropout: float = _setting(  # differs from the paper: section 5 prints 0.7
        0.5, "dropout rate in the auxiliary classifiers", SHARE
    )
    sync_batch_norm: bool = _setting(
        False, "batch normalization over the whole batch, not over each device's part of it"
    )
    batch_size: int = _setting(
        256, "images per step, over all devices together", COUNT, group="optimization"
    )
    epochs: int = _setting(90, "passes over the training set", COUNT)
    optimizer: str = _setting("sgd", "optimizer", choices=("sgd", "adam"))
    learning_rate: float = _setting(  # 0.1 per 256: Goyal et al. 2017
        0.1,
        f"peak learning rate for batches of {LEARNING_RATE_BATCH}; it scales with --batch-size. "
        f"With --weights the default is {FINE_TUNING_SHARE} times that of the recipe",
        NOT_NEGATIVE,
    )
    schedule: str = _setting(
        "cosine",
        "decay of the learning rate: a cosine to 0, steps, or a power of the remaining time",
        choices=("cosine", "steps", "power"),
    )
    warmup_epochs: float = _setting(  # Goyal et al. 2017 use 5 of 90, MindCV 2 of 300
        2.0,
        "epochs of linear warm-up before the cosine; a default that is longer than the run is "
        "reduced to half of the run",
        NOT_NEGATIVE,
    )
    step_epochs: float = _setting(  # section 6
        8.0, "epochs between the steps of --schedule steps", (1e-9, math.inf)
    )
    step_factor: float = _setting(0.96, "learning rate factor at each step", SHARE)  # section 6
    power: float = _setting(0.5, "exponent of --schedule power", NOT_NEGATIVE)  # BVLC quick_solver
    clip_norm: float = _setting(
        0.0, "greatest norm of all gradients together; 0: no clipping", NOT_NEGATIVE
    )
    momentum: float = _setting(0.9, "momentum of SGD", SHARE)  # 0.9: section 6
    nesterov: bool = _setting(True, "Nesterov momentum")
    # 4e-5: MindCV, and 2e-4 below: BVLC. Both add it to the gradient, where a momentum of 0.9 makes
    # it ten times as strong as here.
    weight_decay: float = _setting(
        4e-5, "decoupled weight decay, except on biases and normalization", NOT_NEGATIVE
    )
    average_share: float = _setting(  # 0.04: torchvision's recipe averages over 4% of 600 epochs
        0.04, "share of the run that the moving average of the weights spans; 0: no average", SHARE
    )
    label_smoothing: float = _setting(  # MindCV
        0.1, "share of each label that is divided among all classes", SHARE
    )
    class_weights: str = _setting(
        "none",
        "weights of the examples in the loss. balanced: each class has the same total weight, "
        "however many images it has (counting them reads TensorFlow Datasets once more)",
        choices=("none", "balanced"),
    )
    min_crop_area: float = _setting(  # 0.08: section 6
        0.08, "smallest share of an image that a training crop covers", SHARE, group="augmentation"
    )
    random_interpolation: bool = _setting(False, "resize by one of four methods at random")
    distort_colours: bool = _setting(False, "change brightness, contrast and saturation at random")
    randaugment: bool = _setting(False, "Keras' RandAugment; not with --deterministic")
    mixup: float = _setting(0.0, "alpha of MixUp; 0: off", NOT_NEGATIVE)
    cutmix: float = _setting(0.0, "alpha of CutMix; 0: off", NOT_NEGATIVE)
    precision: str = _setting(
        "float32",
        "data type of the computation; the weights stay float32",
        choices=("float32", "bfloat16", "float16"),
        group="precision and reproducibility",
    )
    seed: int = _setting(0, "seed of initial weights, image order, augmentation and dropout")
    jit: bool = _setting(False, "compile the training step with XLA; on one device only")
    deterministic: bool = _setting(
        False, "bitwise identical weights in every run, interrupted and resumed or not"
    )
    keep: str = _setting(
        "best",
        "epoch that is saved as model.keras: the one with the best validation accuracy of the "
        "main head, or the last",
        choices=("best", "last"),
        group="run",
    )
    max_steps: int | None = _setting(
        None, "for a smoke test: train for this many steps, validate on as many batches", COUNT
    )

    @property
    def fitting_warmup_epochs(self) -> float:
        """`warmup_epochs`, or half of the run where a recipe's default is longer than the run."""
        return self.warmup_epochs if self.warmup_epochs < self.epochs else self.epochs / 2

    @property
    def scaled_learning_rate(self) -> float:
        """Peak learning rate at this batch size: linear scaling, Goyal et al. 2017."""
        return self.learning_rate * self.batch_size / LEARNING_RATE_BATCH

    def __post_init__(self):
        for setting in dataclasses.fields(self):
            value = getattr(self, setting.name)
            least, greatest = setting.metadata["limits"] or (value, value)
            if value is not None and not least <= value <= greatest:
                limit = f"in [{least}, {greatest}]" if greatest < math.inf else f"at least {least}"
                raise UserError(f"{_flag(setting.name)} must be {limit}; it is {value}.")
        if self.validation_split == 1:
            raise UserError("--validation-split must be less than 1, to leave images to train on.")
        if self.deterministic and self.randaugment:
            raise UserError(
                "--randaugment has a random state that a resumed run cannot restore; leave out "
                "either it or --deterministic."
            )

    def differences(self, other: "Recipe") -> dict[str, tuple]:
        """Returns what changed since `other`, as setting: (theirs, ours)."""
        ours, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return {name: (theirs[name], ours[name]) for name in ours if ours[name] != theirs[name]}

    def command(self) -> str:
        """Returns the command that trains by this recipe, without the folders of one machine.

        Example:
        >>> Recipe(dataset="cifar10", epochs=5, nesterov=False).command()
        'python train.py --recipe modern --dataset cifar10 --epochs 5 --no-nesterov'
        """
        name = min(RECIPES, key=lambda name: len(self.differences(RECIPES[name])))
        settings = {key: ours for key, (_, ours) in self.differences(RECIPES[name]).items()}
        if self.weights is not None:  # with which the default is another one
            settings["learning_rate"] = self.learning_rate
        parts = ["python train.py --recipe", name]
        for setting, value in settings.items():
            if isinstance(value, bool):
                parts.append(_flag(setting) if value else _flag(f"no_{setting}"))
                continue
            text = str(value)
            if os.path.isabs(text):
                text = os.path.join("path", "to", os.path.basename(text))
            parts += [_flag(setting), shlex.quote(text)]
        return " ".join(parts)

    @classmethod
    def load(cls, folder: Path) -> "Recipe":
        """Reads `recipe.json`."""
        try:
            recipe = cls(**json.loads((folder / RECIPE_FILE).read_text(encoding="utf-8")))
            return dataclasses.replace(recipe, dataset=resolve_dataset(recipe.dataset))
        except (json.JSONDecodeError, TypeError) as error:
            raise UserError(f"{folder / RECIPE_FILE} is not a recipe: {error}.") from error

    def save(self, folder: Path):
        """Writes `recipe.json`."""
        text = json.dumps(dataclasses.asdict(self), indent=2)
        with replacing(folder / RECIPE_FILE) as file:
            file.write_text(text + "\n", encoding="utf-8")


RECIPES = {
    # What `python train.py` does: 95% on the built-in data set in under four minutes of two cores.
    "small": Recipe(
        image_size=72,
        batch_size=64,
        epochs=5,
        optimizer="adam",
        learning_rate=0.008,
        warmup_epochs=0.5,
        weight_decay=0.0,
        average_share=0.0,
        label_smoothing=0.0,
        dropout=0.0,
        aux_dropout=0.0,
        min_crop_area=0.8,
    ),
    # Section 6. The paper has no learning rate, batch size, weight decay, length or span of the
    # average: the first three are BVLC's, the last two ours.
    "paper": Recipe(
        variant="paper",
        batch_size=32,
        epochs=250,
        learning_rate=0.08,  # 0.01 at 32 images
        schedule="steps",
        warmup_epochs=0.0,
        nesterov=False,
        weight_decay=2e-4,
        label_smoothing=0.0,
        aux_dropout=0.7,  # section 5
        random_interpolation=True,
        distort_colours=True,
    ),
    # BVLC's quick_solver.prototxt. Differs from it: biases learn at the same rate as kernels, not
    # twice; decay is decoupled from the momentum; crops are those of section 6.
    "bvlc-quick": Recipe(
        variant="paper",
        batch_size=32,
        epochs=60,
        learning_rate=0.08,  # 0.01 at 32 images
        schedule="power",
        warmup_epochs=0.0,
        nesterov=False,
        weight_decay=2e-4,
        average_share=0.0,
        label_smoothing=0.0,
        aux_dropout=0.7,  # its train_val.prototxt
    ),
    # CIFAR-10 on two CPU cores: docs/results.md. Decay is what others write as 5e-4, which they add
    # to the gradient. The last epoch, since the best of many on the test images would flatter.
    "cifar": Recipe(
        image_size=65,
        batch_size=128,
        epochs=30,
        learning_rate=0.2,
        weight_decay=5e-3,
        min_crop_area=0.4,
        keep="last",
    ),
    "modern": Recipe(),
}


def add_recipe_flags(
    parser: argparse.ArgumentParser, paths: Mapping[str, Callable[[str], str]] | None = None
):
    """Adds `--recipe` and a flag for each field of `Recipe`; returns the last group, "run".

    Args:
        parser: Parser of train.py.
        paths: Types of the flags that hold a path, by field.
    """
    group = parser
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        help="set of defaults for the flags below (default: small for shapes, otherwise modern)",
    )
    for setting in dataclasses.fields(Recipe):
        if "group" in setting.metadata:
            group = parser.add_argument_group(setting.metadata["group"])
        if setting.type is bool:
            options = {"action": argparse.BooleanOptionalAction}
        else:  # the type itself, or the one beside `None`
            plain = (typing.get_args(setting.type) or (setting.type,))[0]
            options = {"type": (paths or {}).get(setting.name, plain)}
            options["choices"] = setting.metadata.get("choices")
        text = f"{setting.metadata['help']} ({_defaults_text(setting.name)})"
        group.add_argument(_flag(setting.name), default=None, help=text, **options)
    return group


def recipe_from_flags(flags: argparse.Namespace) -> Recipe:
    """Returns the recipe of the flags, whose own values override its defaults."""
    names = [setting.name for setting in dataclasses.fields(Recipe)]
    given = {name: getattr(flags, name) for name in names if getattr(flags, name) is not None}
    dataset = given["dataset"] = resolve_dataset(given.get("dataset", Recipe.dataset))
    if given.get("data_dir") and "://" not in given["data_dir"]:
        given["data_dir"] = os.path.abspath(given["data_dir"])
    recipe = RECIPES[flags.recipe or ("small" if dataset == "shapes" else "modern")]
    if "weights" in given:
        given = {"learning_rate": FINE_TUNING_SHARE * recipe.learning_rate} | given
    recipe = dataclasses.replace(recipe, **given)
    if recipe.schedule == "cosine" and given.get("warmup_epochs", 0) >= recipe.epochs:
        raise UserError(
            f"--warmup-epochs must be less than --epochs; it is {recipe.warmup_epochs:g} of "
            f"{recipe.epochs}, so the learning rate would never decay."
        )
    return recipe


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _defaults_text(name: str) -> str:
    """Returns the default, or the default of each recipe where they differ."""
    values = {recipe: getattr(RECIPES[recipe], name) for recipe in RECIPES}
    if len(set(values.values())) == 1:
        return f"default: {values['modern']}".replace("None", "none")
    return ", ".join(f"{recipe}: {value}" for recipe, value in values.items())
