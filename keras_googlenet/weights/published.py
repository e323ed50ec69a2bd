"""`weights="imagenet"`: fetch a publisher's file, check it, convert it once, keep both."""

import contextlib
import hashlib
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from keras_googlenet.atomic import replacing
from keras_googlenet.errors import UserError, WriteError
from keras_googlenet.googlenet import AUX_TAPS, HEADS
from keras_googlenet.labels import imagenet_columns, imagenet_labels
from keras_googlenet.weight_files.arrays import first_line
from keras_googlenet.weights.conversion import convert
from keras_googlenet.weights.porting import LRN_ARGUMENTS, set_normalization
from keras_googlenet.weights.tables import TABLES

_BLOCK = 2**20  # bytes hashed at a time


@dataclass(frozen=True)
class Publisher:
    """Where a variant's published weights come from.

    Attributes:
        name: Of the publisher, with the data set.
        url: Address of the file.
        hash_kind: Algorithm of `hashlib`.
        hash: Its beginning, as far as the publisher gives it; empty if it gives none.
        license: Under which terms.
    """

    name: str
    url: str
    hash_kind: str
    hash: str
    license: str

    @property
    def file_name(self) -> str:
        """The last part of the address."""
        return self.url.rpartition("/")[2]

    def matches(self, path: Path) -> bool:
        """Whether a file has the published hash; true of any file where there is none."""
        return file_hash(path, self.hash_kind).startswith(self.hash)


PUBLISHERS = {
    "paper": Publisher(
        name="BVLC GoogLeNet, trained on ILSVRC 2012",
        url="http://dl.caffe.berkeleyvision.org/bvlc_googlenet.caffemodel",
        hash_kind="sha1",
        hash="405fc5acd08a3bb12de8ee5e23a96bec22f08204",  # the model's readme.md in BVLC/caffe
        license="unrestricted use",
    ),
    "torchvision": Publisher(
        name="torchvision GoogLeNet, IMAGENET1K_V1",
        url="https://download.pytorch.org/models/googlenet-1378be20.pth",
        hash_kind="sha256",
        hash="1378be20",  # part of the file's name, which torch.hub checks
        license="BSD 3-Clause (torchvision); ported by its authors from TF-slim's, Apache 2.0",
    ),
    "slim": Publisher(
        name="TF-slim inception_v1, 2016-08-28, trained on ILSVRC 2012",
        url="http://download.tensorflow.org/models/inception_v1_2016_08_28.tar.gz",
        hash_kind="sha256",
        hash="",  # none is published
        license="Apache 2.0",
    ),
    "google": Publisher(
        name="Google Inception 5h, trained on ImageNet",
        url="https://storage.googleapis.com/download.tensorflow.org/models/inception5h.zip",
        hash_kind="sha256",
        hash="d13569f6a98159de37e92e9c8ec4dae8f674fbf475f69fe6199b514f756d4364",  # TF's WORKSPACE
        license="Apache 2.0",
    ),
}


def provenance(variant: str, path: Path) -> str:
    """Says whether a file is the published one of a variant, and then under which license.

    Args:
        variant: A key of `PUBLISHERS`.
        path: A file of that variant.

    Returns:
        A line.
    """
    publisher = PUBLISHERS[variant]
    if publisher.hash and path.is_file() and publisher.matches(path):
        known = f"{publisher.hash_kind} {publisher.hash}"
        return f"published by {publisher.name} ({known}); license: {publisher.license}"
    if not publisher.hash and path.name == publisher.file_name:
        return (
            f"named as {publisher.name}, which publishes no hash to check; its license: "
            f"{publisher.license}"
        )
    return "no published file that is known here; its license is that of whoever trained it"


def file_hash(path: Path, kind: str) -> str:
    """Returns a file's hash in hexadecimal."""
    digest = hashlib.new(kind, usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


SILENCE = 60.0  # seconds without a byte after which a download is given up
PUBLISHED_MAP = (4, 4)  # what the published auxiliary FC reads; it fits images of 209 to 256 pixels


def load_published(model: keras.Model, variant: str):
    """Fills a network with its variant's published weights, as far as its shapes allow.

    A head of other classes than ImageNet's 1000, or than the published one's, stays as it is, and
    so does an auxiliary head that was never trained or does not fit the size of the image; of the
    latter two a warning tells.

    Args:
        model: A GoogLeNet of that variant, with any classes, size of image, or without heads.
        variant: "paper", "torchvision", "slim" or "google".

    Raises:
        UserError: If the variant has no published weights, or they cannot be had.
        ValueError: If the images have other than three channels.
    """
    published = published_model(variant)
    present = {layer.name for layer in model.layers}
    heads = [head for head in AUX_TAPS if head in present]
    fresh = [head for head in heads if not _fits(model, published, variant, head)]
    for layer in model.layers:
        if layer.name.partition("_")[0] not in fresh:
            _fill(layer, published)
    if fresh:
        why = (
            "the published ones fit images of 209 to 256 pixels"
            if publishes_aux_heads(variant)
            else f"no trained ones are published for {variant}"
        )
        warnings.warn(f"{' and '.join(fresh)} start from random weights: {why}.", stacklevel=3)


def publishes_aux_heads(variant: str) -> bool:
    """Whether trained auxiliary heads are published.

    Args:
        variant: A key of `PUBLISHERS`.

    Raises:
        UserError: If the variant has no published weights.
    """
    _publisher(variant)
    return "aux1" in TABLES[variant].heads


def published_model(variant: str) -> keras.Model:
    """Returns the network as it was published, from the cache if it was converted before.

    Args:
        variant: A key of `PUBLISHERS`.

    Returns:
        What `convert` makes of the file, with the published number of classes.

    Raises:
        UserError: If the variant has no published weights, or they cannot be had.
    """
    publisher = _publisher(variant)
    converted = cache_folder() / f"{publisher.file_name}.{publisher.hash[:8] or 'unchecked'}.keras"
    if converted.exists():
        with contextlib.suppress(Exception):  # a damaged cache is made again
            return keras.models.load_model(converted, compile=False)
    model = convert(published_file(variant), variant)
    with contextlib.suppress(WriteError), replacing(converted) as file:  # a cache may be read-only
        model.save(file)
    return model


def published_file(variant: str) -> Path:
    """Returns the publisher's own file, from the cache if it is there.

    Args:
        variant: A key of `PUBLISHERS`.

    Returns:
        Where it lies.

    Raises:
        UserError: If it cannot be downloaded, or its hash is not the published one.
    """
    publisher = _publisher(variant)
    path = cache_folder() / publisher.file_name
    if path.exists():
        if not publisher.matches(path):
            raise UserError(
                f"{path} is not the file that was published: its {publisher.hash_kind} is "
                f"{file_hash(path, publisher.hash_kind)}, not {publisher.hash}; remove it."
            )
        return path
    _download(publisher, path)
    return path


def cache_folder() -> Path:
    """Returns where downloads are kept: below Keras's own folder, `~/.keras` or `KERAS_HOME`."""
    home = os.environ.get("KERAS_HOME") or "~/.keras"  # keras has no public function for it
    return Path(home).expanduser() / "keras_googlenet"


def _publisher(variant: str) -> Publisher:
    if variant not in PUBLISHERS:
        raise UserError(
            f"nobody has published weights of the variant {variant}; there are those of "
            f"{', '.join(PUBLISHERS)}."
        )
    return PUBLISHERS[variant]


def _download(publisher: Publisher, path: Path):
    """Downloads to a temporary name; only a file with the right hash takes the real one."""
    expected = f"{publisher.hash_kind} {publisher.hash}" if publisher.hash else "no published hash"
    by_hand = f"put the file ({expected}) of {publisher.url} to {path}"
    try:
        with replacing(path) as file:
            _fetch(publisher, file, by_hand)
    except WriteError as error:
        raise UserError(
            f"{path.parent} cannot be written; set KERAS_HOME, or {by_hand}."
        ) from error


def _fetch(publisher: Publisher, file: Path, by_hand: str):
    try:
        with _talking_on_stderr():
            keras.utils.get_file(
                file.name, publisher.url, cache_dir=str(file.parent), cache_subdir="."
            )
    except Exception as error:  # keras.utils.get_file raises bare exceptions
        raise UserError(
            f"the published weights cannot be fetched ({first_line(error)}); {by_hand}."
        ) from error
    if not publisher.matches(file):
        raise UserError(
            f"{publisher.url} gave a file whose {publisher.hash_kind} is "
            f"{file_hash(file, publisher.hash_kind)}, which was thrown away; {by_hand}."
        )


@contextlib.contextmanager
def _talking_on_stderr() -> Iterator[None]:
    """Keeps Keras's progress off standard output, and gives up a connection that fell silent."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        socket.setdefaulttimeout(before)


def _fits(model: keras.Model, published: keras.Model, variant: str, head: str) -> bool:
    """Whether an auxiliary head of `model` can take what was published."""
    if not publishes_aux_heads(variant) or head not in published.output_names:
        return False
    return tuple(model.get_layer(f"{head}_pool").output.shape[1:3]) == PUBLISHED_MAP


def _for_classes(values: list[np.ndarray], classes: int) -> list[np.ndarray] | None:
    """Fits a published classifier to a number of classes, or says that it cannot."""
    published = values[1].size
    if classes == published:
        return values
    if classes == len(imagenet_labels()):
        columns = imagenet_columns(published)
        return [value[..., columns] for value in values]
    return None


def _fill(layer: keras.Layer, published: keras.Model):
    """Copies one layer, unless it is a classifier of other classes."""
    if hasattr(layer, "depth_radius"):  # LocalResponseNormalization
        theirs = published.get_layer(layer.name)
        set_normalization(layer, {name: getattr(theirs, name) for name in LRN_ARGUMENTS})
    if not layer.weights:
        return
    values = published.get_layer(layer.name).get_weights()
    if layer.name in HEADS:
        values = _for_classes(values, layer.units)
        if values is None:
            return
    shapes = [tuple(weight.shape) for weight in layer.weights]
    if shapes != [value.shape for value in values]:
        raise ValueError(
            '`weights="imagenet"` needs images of three channels. '
            f"Received: {layer.name} with weights of {shapes}."
        )
    layer.set_weights(values)
