"""Every hyper-parameter, once: its default, its source, its flag and its place in `recipe.json`."""

import argparse
import dataclasses
import json
import math
import os
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from keras_googlenet.atomic import replacing
from keras_googlenet.data.folders import resolve_dataset
from keras_googlenet.errors import UserError
from keras_googlenet.run_files import RECIPE_FILE

LEARNING_RATE_BATCH = 256  # the batch size that `learning_rate` is given for
FINE_TUNING_SHARE = 0.1  # of a recipe's learning rate: weights that are good must not move far


def _setting(default, text: str, **flag):
    """A field that knows what its flag says in `--help`."""
    return dataclasses.field(default=default, metadata={"help": text, **flag})


@dataclass(frozen=True)
class Recipe:
    """How a network is trained, from the data to the last learning rate.

    Each field is a flag of train.py and a key of `recipe.json`; what it means stands beside it.
    The defaults are those of the recipe "modern".
    """

    dataset: str = _setting("shapes", "name in TensorFlow Datasets, or folder of class folders")
    data_dir: str | None = _setting(None, "where TensorFlow Datasets keeps its files")
    validation_split: float = _setting(
        0.1,
        "share to validate on where the data set has no such split: of each class of a folder, by "
        "--seed; of TensorFlow Datasets the last percents, whatever their classes",
    )
    variant: str = _setting("batchnorm", "variant of the network")
    image_size: int = _setting(224, "side of the pictures in pixels")  # 224: section 5
    batch_size: int = _setting(256, "pictures a step, over all devices together")
    epochs: int = _setting(90, "passes over the training split")
    seed: int = _setting(0, "decides weights, order, crops and dropout")
    weights: str | None = _setting(
        None,
        "MODEL to begin with: its trunk, and the layers of its heads whose shapes fit, so a "
        "classifier only if it has as many classes",
    )
    freeze_until: str | None = _setting(None, "layer up to which, itself included, nothing learns")
    optimizer: str = _setting("sgd", "how to step", choices=("sgd", "adam"))
    learning_rate: float = _setting(  # 0.1 per 256: Goyal et al. 2017
        0.1,
        "greatest learning rate at 256 pictures a step; it scales with the batch size, and with "
        f"--weights it is {FINE_TUNING_SHARE} times the recipe's",
    )
    schedule: str = _setting(
        "cosine",
        "how the learning rate falls: by a cosine to 0, in steps, or by a power to 0",
        choices=("cosine", "steps", "power"),
    )
    warmup_epochs: float = _setting(  # Goyal et al. 2017 use 5 of 90, MindCV 2 of 300
        2.0,
        "epochs over which the learning rate rises from near 0 (cosine only); a default that is "
        "longer than the run becomes half of it",
    )
    step_epochs: float = _setting(8.0, "epochs a step of the schedule 'steps'")  # section 6
    step_factor: float = _setting(0.96, "what each of its steps multiplies by")  # section 6
    power: float = _setting(0.5, "exponent of the schedule 'power'")  # BVLC quick_solver
    clip_norm: float = _setting(0.0, "greatest norm of all gradients together; 0: as they come")
    momentum: float = _setting(0.9, "momentum of sgd")  # 0.9: section 6
    nesterov: bool = _setting(True, "Nesterov momentum")
    # 4e-5: MindCV, and 2e-4 below: BVLC. Both add it to the gradient, where a momentum of 0.9 makes
    # it ten times as strong as here.
    weight_decay: float = _setting(4e-5, "decoupled weight decay, off biases and norms")
    average_share: float = _setting(  # 0.04: torchvision's recipe averages over 4% of 600 epochs
        0.04, "share of the run that the averaged weights look back on; 0: keep the raw weights"
    )
    label_smoothing: float = _setting(0.1, "share of a label that goes to all classes")  # MindCV
    class_weights: str = _setting(
        "none",
        "what an example counts: balanced gives every class the same weight in all, however many "
        "examples it has; a set of TensorFlow Datasets is read once more to count them",
        choices=("none", "balanced"),
    )
    dropout: float = _setting(0.4, "dropout before the main classifier")  # 0.4: Table 1
    aux_dropout: float = _setting(  # differs from the paper: section 5 prints 0.7
        0.5, "dropout inside the auxiliary classifiers"
    )
    min_crop_area: float = _setting(  # 0.08: section 6
        0.08, "least share of an image that a training crop shows"
    )
    random_interpolation: bool = _setting(False, "resize by a random one of four interpolations")
    distort_colours: bool = _setting(False, "change brightness, contrast and saturation at random")
    randaugment: bool = _setting(False, "Keras' RandAugment; not with --deterministic")
    mixup: float = _setting(0.0, "alpha of MixUp; 0: none")
    cutmix: float = _setting(0.0, "alpha of CutMix; 0: none")
    precision: str = _setting(
        "float32", "what the network computes in", choices=("float32", "bfloat16", "float16")
    )
    sync_batch_norm: bool = _setting(
        False, "batch normalization looks at the whole batch, not at each device's part of it"
    )
    jit: bool = _setting(False, "compile the training step with XLA; on one device only")
    deterministic: bool = _setting(
        False, "the same weights to the bit in every run, cut off and resumed or not"
    )
    keep: str = _setting(
        "best",
        "which epoch becomes model.keras: the best by validation accuracy of the main head, or "
        "the last",
        choices=("best", "last"),
    )
    max_steps: int | None = _setting(
        None,
        "for a smoke run: stop after so many steps in all, and validate on as many batches",
    )

    @property
    def fitting_warmup_epochs(self) -> float:
        """`warmup_epochs`, or half of the run where a recipe's default is longer than the run."""
        return self.warmup_epochs if self.warmup_epochs < self.epochs else self.epochs / 2

    @property
    def scaled_learning_rate(self) -> float:
        """Greatest learning rate at this batch size: linear scaling, Goyal et al. 2017."""
        return self.learning_rate * self.batch_size / LEARNING_RATE_BATCH

    def __post_init__(self):
        """Refuses what cannot be, in the words of the flags."""
        limits = {  # setting: (least, greatest)
            "batch_size": (1, math.inf),
            "epochs": (1, math.inf),
            "learning_rate": (0, math.inf),
            "warmup_epochs": (0, math.inf),
            "weight_decay": (0, math.inf),
            "momentum": (0, 1),
            "dropout": (0, 1),
            "aux_dropout": (0, 1),
            "min_crop_area": (0, 1),
            "validation_split": (0, 1),
            "average_share": (0, 1),
            "label_smoothing": (0, 1),
            "mixup": (0, math.inf),
            "cutmix": (0, math.inf),
            "power": (0, math.inf),
            "step_factor": (0, 1),
            "step_epochs": (1e-9, math.inf),
            "clip_norm": (0, math.inf),
            "max_steps": (1, math.inf),
        }
        for name, (least, greatest) in limits.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= greatest:
                raise UserError(f"{_flag(name)} must be in [{least}, {greatest}]; it is {value}.")
        if self.validation_split == 1:
            raise UserError(
                "--validation-split must be less than 1, or nothing is left to train on."
            )
        if self.deterministic and self.randaugment:
            raise UserError(
                "--randaugment draws from a state that a resumed run cannot find again; leave it "
                "or --deterministic out."
            )

    def differences(self, other: "Recipe") -> dict[str, tuple]:
        """Returns what changed since `other`, as setting: (theirs, ours)."""
        ours, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return {name: (theirs[name], ours[name]) for name in ours if ours[name] != theirs[name]}

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
        learning_rate=0.08,  # 0.01 at 32 pictures
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
        learning_rate=0.08,  # 0.01 at 32 pictures
        schedule="power",
        warmup_epochs=0.0,
        nesterov=False,
        weight_decay=2e-4,
        average_share=0.0,
        label_smoothing=0.0,
        aux_dropout=0.7,  # its train_val.prototxt
    ),
    "modern": Recipe(),
}


def add_recipe_flags(
    parser: argparse.ArgumentParser, paths: Mapping[str, Callable[[str], str]] | None = None
):
    """Adds `--recipe` and a flag for each field of `Recipe`.

    Args:
        parser: What to add them to.
        paths: Fields that hold a path, and the types of their flags.
    """
    types = {setting.name: _flag_type(setting) for setting in dataclasses.fields(Recipe)}
    types |= paths or {}
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        help="set of defaults (default: small for shapes, modern otherwise)",
    )
    for setting in dataclasses.fields(Recipe):
        text = f"{setting.metadata['help']} ({_defaults_text(setting.name)})"
        if setting.type is bool:
            kind = {"action": argparse.BooleanOptionalAction}
        else:
            kind = {"type": types[setting.name], "choices": setting.metadata.get("choices")}
        parser.add_argument(_flag(setting.name), default=None, help=text, **kind)


def recipe_from_flags(flags: argparse.Namespace) -> Recipe:
    """Picks the recipe and lets the flags that were given beat it."""
    given = {
        setting.name: getattr(flags, setting.name)
        for setting in dataclasses.fields(Recipe)
        if getattr(flags, setting.name) is not None
    }
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
            f"{recipe.epochs}, and the learning rate would never fall."
        )
    return recipe


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _flag_type(setting: dataclasses.Field):
    """The type itself, or the one beside `None`."""
    return (typing.get_args(setting.type) or (setting.type,))[0]


def _defaults_text(name: str) -> str:
    """Says the default once if all recipes agree, otherwise by recipe."""
    values = {recipe: getattr(RECIPES[recipe], name) for recipe in RECIPES}
    if len(set(values.values())) == 1:
        return f"default: {next(iter(values.values()))}"
    return ", ".join(f"{recipe}: {value}" for recipe, value in values.items())
