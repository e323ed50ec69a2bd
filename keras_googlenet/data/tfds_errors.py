"""What TensorFlow Datasets raises, as one sentence that says what to do.

It documents little of that, so every error is taken: those that a user can mend have a sentence of
their own, and any other is told by its type and first line.
"""

import difflib
import errno
import http.client
import json
import lzma
import re
import shutil
import tarfile
import urllib.error
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import requests
import tensorflow as tf
import tensorflow_datasets as tfds
from google.protobuf import json_format
from tensorflow_datasets.core import dataset_info, naming, registered
from tensorflow_datasets.core.download import extractor, util
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.core.utils.version import DatasetVariantBlockedError

from keras_googlenet.data.listing import is_prepared
from keras_googlenet.errors import UserError

_NAMES_SHOWN = 10
_CONNECTION = (
    requests.exceptions.RequestException,
    util.DownloadError,
    urllib.error.URLError,
    http.client.HTTPException,
    ConnectionError,
    TimeoutError,
    *(tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError),
)
_ARCHIVE = (
    extractor.ExtractError,
    extractor.UnsafeArchiveError,
    tarfile.TarError,
    zipfile.BadZipFile,
    *(zlib.error, lzma.LZMAError, EOFError),
)
_DAMAGED = (
    json_format.ParseError,
    json.JSONDecodeError,
    UnicodeDecodeError,
    dataset_info.DatasetInfoFileError,
)
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_RIGHT = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_PLACE = {errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EIO, errno.ESTALE}
_PACKAGES = {  # what to install where it has another name than its module
    "apache_beam": "apache-beam",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python",
    "PIL": "pillow",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
}


def opening_error(error: Exception, name: str, data_dir: str) -> UserError:
    """Says why a data set cannot be opened.

    Args:
        error: What `tfds.builder` or `tfds.builder_from_directory` raised, or a builder's `info`.
        name: The data set as the user called it.
        data_dir: Where TensorFlow Datasets keeps its files.
    """
    causes = list(_causes(error))
    if "://" in name:
        return UserError(
            f"no prepared data set can be read at {name} ({_first_line(error)}); give the address "
            "of its folder with the version, and check the connection and your rights."
        )
    if _first(causes, DatasetVariantBlockedError):
        return UserError(
            f"TensorFlow Datasets has withdrawn {name}: {_first_line(error)}; give another version."
        )
    is_folder = is_prepared(Path(name))
    sentence = _machine_sentence(causes, name, name if is_folder else data_dir)
    damaged = is_folder or _first(causes, _DAMAGED) or "restored proto" in str(error)
    if sentence is None and damaged:
        folder = name if is_folder else f"its folder below {data_dir}"
        sentence = (
            f"what was prepared of {name} is damaged ({_first_line(causes[-1])}); remove {folder} "
            "and prepare it again."
        )
    if sentence is None and isinstance(error, ValueError | AssertionError):
        sentence = _name_sentence(error, name)
    return UserError(sentence or _any_sentence(error, f"open the data set {name}"))


def preparing_error(error: Exception, name: str, builder) -> UserError:
    """Says why a data set cannot be downloaded and prepared.

    Args:
        error: What `download_and_prepare` raised.
        name: The data set as the user called it.
        builder: Its builder.
    """
    causes = list(_causes(error))
    root = builder.data_dir_root
    wrong_file = _first(causes, NonMatchingChecksumError)
    if wrong_file:
        sentence = _checksum_sentence(wrong_file, root / "downloads")
    elif _lacks_room(causes):
        sentence = _room_sentence(causes, name, builder)
    else:
        sentence = _machine_sentence(causes, name, str(root))
    if sentence is None and _first(causes, _ARCHIVE):
        sentence = (
            f"an archive of the data set {name} is damaged ({_first_line(error)}); delete it from "
            f"{root / 'downloads'} and try again."
        )
    missing = (AssertionError, tf.errors.NotFoundError, FileNotFoundError)
    if sentence is None and builder.MANUAL_DOWNLOAD_INSTRUCTIONS and _first(causes, missing):
        instructions = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
        folder = root / "downloads" / "manual"
        sentence = f"the data set {name} must be fetched by hand into {folder}: {instructions}"
    return UserError(sentence or _any_sentence(error, f"prepare the data set {name}"))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and those behind it: TensorFlow Datasets wraps what it catches."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _first(causes: list[BaseException], kinds) -> BaseException | None:
    return next((cause for cause in causes if isinstance(cause, kinds)), None)


def _has_number(causes: list[BaseException], numbers: set[int]) -> bool:
    return any(isinstance(cause, OSError) and cause.errno in numbers for cause in causes)


def _machine_sentence(causes: list[BaseException], name: str, data_dir: str) -> str | None:
    """Says what is wrong outside of the data set: the connection, a right, a package."""
    connection = _first(causes, _CONNECTION)
    if connection:
        return (
            f"the data set {name} cannot be downloaded ({_connection_line(connection)}); check the "
            "connection and try again, or prepare it on a machine that has one and copy its folder "
            f"into {data_dir}."
        )
    refused = (tf.errors.PermissionDeniedError, tf.errors.UnimplementedError)
    not_made = any(data_dir.startswith(str(getattr(cause, "filename", None))) for cause in causes)
    if _first(causes, refused) or _has_number(causes, _NO_RIGHT | _NO_PLACE) or not_made:
        return (
            f"{data_dir} cannot be read and written ({_first_line(causes[-1])}); give another "
            "--data-dir."
        )
    lacking = _first(causes, ImportError)
    if lacking:
        return _package_sentence(causes, name)
    return None


def _package_sentence(causes: list[BaseException], name: str) -> str:
    modules = [cause.name for cause in causes if isinstance(cause, ImportError) and cause.name]
    if not modules:
        return _any_sentence(causes[0], f"import what the data set {name} needs")
    module = modules[0].partition(".")[0]
    package = _PACKAGES.get(module, module)
    return (
        f"the data set {name} needs the package {package}; install it with "
        f"`python -m pip install {package}`."
    )


def _checksum_sentence(error: BaseException, downloads) -> str:
    found = re.search(r"Artifact (\S+), downloaded to (.+?), has wrong checksum", str(error))
    url, file = found.groups() if found else ("an address", downloads)
    return (
        f"what was downloaded from {url} is not the file that was published (its checksum "
        f"differs); delete {file} and try again, and if it stays so, take a newer "
        "tensorflow-datasets."
    )


def _lacks_room(causes: list[BaseException]) -> bool:
    said = any("not enough disk space" in str(cause).lower() for cause in causes)
    full = _first(causes, tf.errors.ResourceExhaustedError)
    return said or bool(full) or _has_number(causes, _NO_ROOM)


def _room_sentence(causes: list[BaseException], name: str, builder) -> str:
    root, needed = builder.data_dir_root, _needed_bytes(builder)
    try:
        free = f", and {tfds.core.units.Size(shutil.disk_usage(root).free)} are free"
    except OSError:  # not there, or no disk
        free = ""
    size = f"it needs {needed}{free}" if needed else _first_line(causes[-1])
    return (
        f"there is no room for the data set {name} in {root}: {size}; make room, or give a "
        "--data-dir on another disk."
    )


def _needed_bytes(builder):
    """What is to be downloaded and made, as far as it is known; 0 if it is not."""
    known = builder.info.download_size + builder.info.dataset_size
    files = [] if builder.BUILDER_CONFIGS else (builder.url_infos or {}).values()
    return known or tfds.core.units.Size(sum(file.size for file in files))


def _name_sentence(error: Exception, name: str) -> str | None:
    """Says what is wrong with a name, as far as it is the name."""
    try:
        parsed, wanted = naming.parse_builder_name_kwargs(name)
    except (ValueError, SyntaxError):
        return (
            f"there is no folder {name}; give one that holds a folder for each class, or what "
            "TensorFlow Datasets reads: name, name/config or name/config:1.2.3."
        )
    if isinstance(error, registered.DatasetNotFoundError) and not _is_known(str(parsed)):
        known = [] if parsed.namespace else registered.list_imported_builders()
        near = difflib.get_close_matches(str(parsed), known)
        return (
            f"TensorFlow Datasets knows no data set {name!r}, and there is no such folder; give "
            "one of its names" + (f" ({', '.join(near)}?)" if near else "") + " or a folder that "
            "holds a folder for each class."
        )
    builder = tfds.builder_cls(str(parsed))
    configs = dict.fromkeys(config.name for config in builder.BUILDER_CONFIGS)
    config, version = wanted.get("config"), wanted.get("version")
    unknown = f"TensorFlow Datasets knows no data set {name!r}: {parsed}"
    if config and config not in configs:
        hint = f"give {parsed}:{config}" if re.fullmatch(r"[\d.*]+", config) else "leave it out"
        has = f"it has {_some(config, list(configs))}" if configs else hint
        return f"{unknown} has no config {config}; {has}."
    if version and "version" in str(error):
        has = ", ".join(_versions(builder, config))
        return f"{unknown} has no version {version}; it has {has}."
    if "ambiguity" in str(error):
        return f"{name} was prepared in several folders; say which by --data-dir."
    return None


def _is_known(name: str) -> bool:
    try:
        return bool(tfds.builder_cls(name))
    except ValueError:
        return False


def _versions(builder, config_name: str | None) -> list[str]:
    """Versions of a builder's class, the usual one first."""
    configs = [config for config in builder.BUILDER_CONFIGS if config.name == config_name]
    config = (configs or builder.BUILDER_CONFIGS or [None])[0]
    usual = (config and config.version) or builder.VERSION
    more = (config and config.supported_versions) or builder.SUPPORTED_VERSIONS
    return list(dict.fromkeys(map(str, (usual, *more))))


def _some(wanted: str, names: list[str]) -> str:
    near = difflib.get_close_matches(wanted, names, n=_NAMES_SHOWN, cutoff=0.0)
    return ", ".join(sorted(near)) + (", …" if len(names) > len(near) else "")


def _any_sentence(error: BaseException, what: str) -> str:
    return (
        f"TensorFlow Datasets cannot {what} ({type(error).__name__}: {_first_line(error)}); try "
        "another version of the data set or of tensorflow-datasets, or give a folder of images."
    )


def _connection_line(error: BaseException) -> str:
    """The host and the kind of error; `requests` says them in the midst of five lines."""
    found = re.search(r"host='([^']+)'.*Caused by (\w+)", str(error), re.DOTALL)
    return ": ".join(found.groups()) if found else _first_line(error)


def _first_line(error: BaseException) -> str:
    text = re.sub(r"^Failed to construct dataset .*?\}\": ", "", str(error), flags=re.DOTALL)
    if isinstance(error, OSError) and error.strerror:
        text = ": ".join(str(part) for part in (error.strerror, error.filename) if part)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0].rstrip(".:;") if lines else type(error).__name__
