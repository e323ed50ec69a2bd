"""What TensorFlow Datasets raises, as one sentence that says what to do.

It documents little of that, so every error is caught: those that a user can fix have a sentence of
their own, and any other is reported by its type and first line.
"""

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
from keras_googlenet.errors import UserError, first_line, nearest

_CONFIGS_SHOWN = 10
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
_REFUSED = (tf.errors.PermissionDeniedError, tf.errors.UnimplementedError)
_MISSING = (AssertionError, tf.errors.NotFoundError, FileNotFoundError)
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_ACCESS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EIO, errno.ESTALE),
}
_PACKAGES = {  # of a module, where it has another name
    "apache_beam": "apache-beam",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python",
    "PIL": "pillow",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
}


def opening_error(error: Exception, name: str, data_dir: str) -> UserError:
    """Explains why the builder of `name`, or its `info`, cannot be made."""
    if str(error).startswith("Failed to construct dataset"):  # and then its arguments
        error.args = (str(error).partition('}": ')[2],)
    causes = list(_causes(error))
    if "://" in name:
        return UserError(
            f"no prepared data set can be read at {name} ({first_line(error)}); give the address "
            "of its folder with the version, and check the connection and your rights."
        )
    if _first(causes, DatasetVariantBlockedError):
        return UserError(
            f"TensorFlow Datasets has withdrawn {name}: {first_line(error)}; give another version."
        )
    is_folder = is_prepared(Path(name))
    sentence = _system_sentence(causes, name, name if is_folder else data_dir)
    damaged = is_folder or _first(causes, _DAMAGED) or "restored proto" in str(error)
    if sentence is None and damaged:
        folder = name if is_folder else f"its folder below {data_dir}"
        sentence = (
            f"the prepared data set {name} is damaged ({first_line(causes[-1])}); remove {folder} "
            "and prepare it again."
        )
    if sentence is None and isinstance(error, ValueError | AssertionError):
        sentence = _name_sentence(error, name)
    return UserError(sentence or _other_sentence(error, f"open the data set {name}"))


def preparing_error(error: Exception, name: str, builder) -> UserError:
    """Explains why `download_and_prepare` of the builder of `name` failed."""
    causes = list(_causes(error))
    root = builder.data_dir_root
    wrong_file = _first(causes, NonMatchingChecksumError)
    if wrong_file:
        sentence = _checksum_sentence(wrong_file, root / "downloads")
    elif _is_disk_full(causes):
        sentence = _space_sentence(causes, name, builder)
    else:
        sentence = _system_sentence(causes, name, str(root))
    if sentence is None and _first(causes, _ARCHIVE):
        sentence = (
            f"an archive of the data set {name} is damaged ({first_line(error)}); delete it from "
            f"{root / 'downloads'} and try again."
        )
    if sentence is None and builder.MANUAL_DOWNLOAD_INSTRUCTIONS and _first(causes, _MISSING):
        instructions = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
        folder = root / "downloads" / "manual"
        sentence = f"download the data set {name} by hand into {folder}: {instructions}"
    return UserError(sentence or _other_sentence(error, f"prepare the data set {name}"))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and its causes: TensorFlow Datasets wraps what it catches."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _first(causes: list[BaseException], kinds) -> BaseException | None:
    return next((cause for cause in causes if isinstance(cause, kinds)), None)


def _has_errno(causes: list[BaseException], numbers: set[int]) -> bool:
    return any(isinstance(cause, OSError) and cause.errno in numbers for cause in causes)


def _system_sentence(causes: list[BaseException], name: str, data_dir: str) -> str | None:
    """Explains what is not about the data set: the connection, the data folder, a package."""
    connection = _first(causes, _CONNECTION)
    if connection:
        # `requests` hides the host and the kind of error in the middle of five lines.
        host = re.search(r"host='([^']+)'.*Caused by (\w+)", str(connection), re.DOTALL)
        reason = ": ".join(host.groups()) if host else first_line(connection)
        return (
            f"the data set {name} cannot be downloaded ({reason}); check the connection and try "
            "again, or prepare it on a machine that has one and copy its folder into "
            f"{data_dir}."
        )
    no_folder = any(data_dir.startswith(str(getattr(cause, "filename", None))) for cause in causes)
    if _first(causes, _REFUSED) or _has_errno(causes, _NO_ACCESS) or no_folder:
        return (
            f"{data_dir} cannot be read and written ({first_line(causes[-1])}); give another "
            "--data-dir."
        )
    if not _first(causes, ImportError):
        return None
    modules = [cause.name for cause in causes if isinstance(cause, ImportError) and cause.name]
    if not modules:
        return _other_sentence(causes[0], f"import what the data set {name} needs")
    module = modules[0].partition(".")[0]
    package = _PACKAGES.get(module, module)
    return (
        f"the data set {name} needs the package {package}; install it with "
        f"`python -m pip install {package}`."
    )


def _checksum_sentence(error: BaseException, downloads) -> str:
    match = re.search(r"Artifact (\S+), downloaded to (.+?), has wrong checksum", str(error))
    url, file = match.groups() if match else ("an address", downloads)
    return (
        f"the file downloaded from {url} is not the one that was published (its checksum differs); "
        f"delete {file} and try again, and if that does not help, install a newer "
        "tensorflow-datasets."
    )


def _is_disk_full(causes: list[BaseException]) -> bool:
    reported = any("not enough disk space" in str(cause).lower() for cause in causes)
    exhausted = _first(causes, tf.errors.ResourceExhaustedError)
    return reported or bool(exhausted) or _has_errno(causes, _DISK_FULL)


def _space_sentence(causes: list[BaseException], name: str, builder) -> str:
    root, info = builder.data_dir_root, builder.info
    files = [] if builder.BUILDER_CONFIGS else (builder.url_infos or {}).values()
    needed = info.download_size + info.dataset_size or sum(file.size for file in files)
    try:
        free = f", and {tfds.core.units.Size(shutil.disk_usage(root).free)} are free"
    except OSError:  # not there, or not a disk
        free = ""
    size = f"it needs {tfds.core.units.Size(needed)}{free}" if needed else first_line(causes[-1])
    return (
        f"there is no space for the data set {name} in {root}: {size}; free some, or give a "
        "--data-dir on another disk."
    )


def _name_sentence(error: Exception, name: str) -> str | None:
    """Explains what is wrong with a name, if it is the name."""
    try:
        parsed, wanted = naming.parse_builder_name_kwargs(name)
    except (ValueError, SyntaxError):
        return (
            f"there is no folder {name}; give one that holds a folder for each class, or what "
            "TensorFlow Datasets reads: name, name/config or name/config:1.2.3."
        )
    if isinstance(error, registered.DatasetNotFoundError) and not _is_known(str(parsed)):
        known = [] if parsed.namespace else registered.list_imported_builders()
        similar = nearest(str(parsed), known)
        return (
            f"TensorFlow Datasets knows no data set {name!r}, and there is no such folder; give "
            "one of its names" + (f" ({', '.join(similar)}?)" if similar else "") + " or a folder "
            "that holds a folder for each class."
        )
    builder = tfds.builder_cls(str(parsed))
    configs = list(dict.fromkeys(config.name for config in builder.BUILDER_CONFIGS))
    config, version = wanted.get("config"), wanted.get("version")
    unknown = f"TensorFlow Datasets knows no data set {name!r}: {parsed}"
    if config and config not in configs:
        hint = f"give {parsed}:{config}" if re.fullmatch(r"[\d.*]+", config) else "leave it out"
        similar = sorted(nearest(config, configs, _CONFIGS_SHOWN, cutoff=0.0))
        more = ", …" if len(configs) > len(similar) else ""
        has = f"it has {', '.join(similar)}{more}" if configs else hint
        return f"{unknown} has no config {config}; {has}."
    if version and "version" in str(error):
        return (
            f"{unknown} has no version {version}; it has {', '.join(_versions(builder, config))}."
        )
    if "ambiguity" in str(error):
        return f"{name} was prepared in several folders; choose one with --data-dir."
    return None


def _is_known(name: str) -> bool:
    try:
        return bool(tfds.builder_cls(name))
    except ValueError:
        return False


def _versions(builder, config_name: str | None) -> list[str]:
    """Returns the versions of a builder's class, the usual one first."""
    configs = [config for config in builder.BUILDER_CONFIGS if config.name == config_name]
    config = (configs or builder.BUILDER_CONFIGS or [None])[0]
    usual = (config and config.version) or builder.VERSION
    more = (config and config.supported_versions) or builder.SUPPORTED_VERSIONS
    return list(dict.fromkeys(map(str, (usual, *more))))


def _other_sentence(error: BaseException, action: str) -> str:
    kind, line = type(error).__name__, first_line(error)
    reason = line if line.startswith(kind) else f"{kind}: {line}"
    return (
        f"TensorFlow Datasets cannot {action} ({reason}); try another version of the data set or "
        "of tensorflow-datasets, or give a folder of images."
    )
