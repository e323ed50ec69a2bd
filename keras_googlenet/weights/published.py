"""`weights="imagenet"`: downloads the publisher's file, checks it, converts it, and caches both."""

import contextlib
import hashlib
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import keras

from keras_googlenet.atomic import replacing
from keras_googlenet.errors import UserError, WriteError, first_line
from keras_googlenet.googlenet import AUX_TAPS, HEADS, VARIANTS, Publisher
from keras_googlenet.labels import imagenet_columns, imagenet_labels
from keras_googlenet.weights.conversion import convert
from keras_googlenet.weights.porting import LRN_ARGUMENTS, set_normalization

SILENCE = 60.0  # seconds without a byte after which a download fails
PUBLISHED_MAP = (4, 4)  # input of the published auxiliary FC: images of 209 to 256 pixels


def load_published(model: keras.Model, variant: str):
    """Loads the published weights of a variant into every layer that they fit.

    A head with other classes than ImageNet's 1000 or the published ones keeps its weights. So does
    an auxiliary head that was never trained or does not fit the image size; a warning names it.

    Args:
        model: A GoogLeNet of that variant, with any classes and image size, with or without heads.
        variant: A key of `VARIANTS`.

    Raises:
        UserError: If no weights of the variant are published, or they cannot be downloaded.
        ValueError: If the images do not have three channels.
    """
    published = published_model(variant)
    trained = publishes_aux_heads(variant)
    random = []
    for head in AUX_TAPS:
        if head in model.output_names:
            size = tuple(model.get_layer(f"{head}_pool").output.shape[1:3])
            fits = trained and head in published.output_names and size == PUBLISHED_MAP
            random += [] if fits else [head]
    for layer in model.layers:
        if layer.name.partition("_")[0] not in random:
            _copy_layer(published.get_layer(layer.name), layer)
    if random:
        reason = (
            "the published ones fit images of 209 to 256 pixels"
            if trained
            else f"no trained ones are published for {variant}"
        )
        warnings.warn(f"{' and '.join(random)} start from random weights: {reason}.", stacklevel=3)


def _copy_layer(source: keras.Layer, layer: keras.Layer):
    """Copies the weights of a layer, unless it is a classifier of other classes."""
    if hasattr(layer, "depth_radius"):  # LocalResponseNormalization
        set_normalization(layer, {name: getattr(source, name) for name in LRN_ARGUMENTS})
    if not layer.weights:
        return
    values = source.get_weights()
    if layer.name in HEADS and layer.units != source.units:
        if layer.units != len(imagenet_labels()):
            return
        columns = imagenet_columns(source.units)
        values = [value[..., columns] for value in values]
    shapes = [tuple(weight.shape) for weight in layer.weights]
    if shapes != [value.shape for value in values]:
        raise ValueError(
            '`weights="imagenet"` needs images of three channels. '
            f"Received: {layer.name} with weights of {shapes}."
        )
    layer.set_weights(values)


def published_model(variant: str) -> keras.Model:
    """Returns the published network with all of its classes, cached after the first conversion.

    Raises:
        UserError: If no weights of the variant are published, or they cannot be downloaded.
    """
    publisher = _publisher(variant)
    name = f"{file_name(publisher)}.{publisher.hash[:8] or 'unchecked'}.keras"
    converted = cache_folder() / name
    if converted.exists():
        with contextlib.suppress(Exception):  # a damaged cache is converted again
            return keras.models.load_model(converted, compile=False)
    model = convert(published_file(variant), variant)
    with contextlib.suppress(WriteError), replacing(converted) as file:  # a cache may be read-only
        model.save(file)
    return model


def publishes_aux_heads(variant: str) -> bool:
    """Whether trained auxiliary heads are published; `UserError` if no weights are."""
    return _publisher(variant).aux_heads


def _publisher(variant: str) -> Publisher:
    publisher = VARIANTS[variant].publisher if variant in VARIANTS else None
    if publisher is None:
        names = [name for name, spec in VARIANTS.items() if spec.publisher]
        raise UserError(
            f"nobody has published weights of the variant {variant}; choose one of "
            f"{', '.join(names)}."
        )
    return publisher


def file_name(publisher: Publisher) -> str:
    """Returns the last part of the address."""
    return publisher.url.rpartition("/")[2]


def cache_folder() -> Path:
    """Returns the folder of downloads, below Keras' own: `~/.keras` or `KERAS_HOME`."""
    home = os.environ.get("KERAS_HOME") or "~/.keras"  # keras has no public function for it
    return Path(home).expanduser() / "keras_googlenet"


def published_file(variant: str) -> Path:
    """Returns the path of the publisher's own file, downloaded unless it is in the cache.

    Raises:
        UserError: If it cannot be downloaded, or has another hash than the published one.
    """
    publisher = _publisher(variant)
    path = cache_folder() / file_name(publisher)
    if not path.exists():
        _download(publisher, path)
    elif not _has_published_hash(path, publisher):
        raise UserError(
            f"{path} is not the file that was published: its {publisher.hash_kind} is "
            f"{file_hash(path, publisher.hash_kind)}, not {publisher.hash}; remove it."
        )
    return path


def _download(publisher: Publisher, path: Path):
    """Downloads to a temporary name, which becomes `path` if the hash is right."""
    expected = f"{publisher.hash_kind} {publisher.hash}" if publisher.hash else "no published hash"
    by_hand = f"put the file ({expected}) of {publisher.url} to {path}"
    try:
        with replacing(path) as file:
            try:
                with _progress_on_stderr():
                    keras.utils.get_file(
                        file.name, publisher.url, cache_dir=str(file.parent), cache_subdir="."
                    )
            except Exception as error:  # keras.utils.get_file raises bare exceptions
                raise UserError(
                    f"the published weights cannot be fetched ({first_line(error)}); {by_hand}."
                ) from error
            if not _has_published_hash(file, publisher):
                raise UserError(
                    f"{publisher.url} gave a file whose {publisher.hash_kind} is "
                    f"{file_hash(file, publisher.hash_kind)}, which was thrown away; {by_hand}."
                )
    except WriteError as error:
        raise UserError(
            f"{path.parent} cannot be written; set KERAS_HOME, or {by_hand}."
        ) from error


@contextlib.contextmanager
def _progress_on_stderr() -> Iterator[None]:
    """Keeps Keras' progress off standard output, and ends a download without data."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        socket.setdefaulttimeout(before)


def _has_published_hash(path: Path, publisher: Publisher) -> bool:
    """Whether a file has the published hash; true for any file if none is published."""
    return file_hash(path, publisher.hash_kind).startswith(publisher.hash)


def file_hash(path: Path, kind: str) -> str:
    """Returns a file's hash in hexadecimal."""
    digest = hashlib.new(kind, usedforsecurity=False)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: digest).hexdigest()


def provenance(variant: str, path: Path) -> str:
    """Returns a line that says whether a file is the published one, and then its license."""
    publisher = VARIANTS[variant].publisher
    if publisher.hash and path.is_file() and _has_published_hash(path, publisher):
        known = f"{publisher.hash_kind} {publisher.hash}"
        return f"published by {publisher.name} ({known}); license: {publisher.license}"
    if not publisher.hash and path.name == file_name(publisher):
        return (
            f"has the name of {publisher.name}, for which no hash is published; license of that: "
            f"{publisher.license}"
        )
    return "no published file of a known hash; its license is that of whoever trained it"
