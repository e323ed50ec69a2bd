"""What the scripts share: flags, a quiet start, and errors of the user as one sentence."""

import argparse
import importlib
import logging
import os
import pkgutil
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import keras_googlenet
from keras_googlenet import commands
from keras_googlenet.errors import LostWorkerError, UserError

USAGE_STATUS = 2  # as argparse's own
RETRY_STATUS = 138  # Kubeflow retries 128 to 255, and reserves this one for what users have
CLOSED_PIPE_STATUS = 141  # as a shell's
INTERRUPTED_STATUS = 130  # as a shell's for Ctrl-C


def parser(docstring: str) -> argparse.ArgumentParser:
    """Returns a parser whose help is the script's docstring and shows every default."""
    return argparse.ArgumentParser(description=docstring, formatter_class=_HelpFormatter)


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Leaves the docstring's lines as they are and adds the defaults that the help leaves out."""

    def _get_help_string(self, action):
        silent = (None, False, argparse.SUPPRESS)
        if any(action.default is one for one in silent) or "default" in action.help:
            return action.help
        return f"{action.help} (default: %(default)s)"


def add_model(parser: argparse.ArgumentParser, several: bool = False):
    """Adds MODEL and `--variant`, which `models.load` takes; `several` adds a list, `models`."""
    parser.add_argument(
        "models" if several else "model",
        metavar="MODEL",
        nargs="+" if several else None,
        type=local,
        help="run directory, .keras file, or imagenet for published weights, downloaded once",
    )
    parser.add_argument(
        "--variant",
        help="variant whose published weights to use (default: paper); docs/weights.md lists them",
    )


def positive(text: str) -> int:
    """The type of a flag that counts something."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more; it is {number}")
    return number


def not_negative(text: str) -> float:
    """The type of a flag that measures something."""
    number = float(text)
    if not number >= 0:
        raise argparse.ArgumentTypeError(f"must be 0 or more; it is {number}")
    return number


def expanded(text: str) -> str:
    """The type of a flag for a path or a name that TensorFlow reads, from a URL too.

    A `~` becomes the home folder: the shell leaves it in `--flag=~/x` and in quotes.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError("must not be empty; a variable of the shell may be unset")
    path = os.path.expanduser(text)
    if path.startswith("~") and not os.path.lexists(path):
        user = path.partition("/")[0]
        raise argparse.ArgumentTypeError(f"there is no user {user[1:]}, whose home {user} would be")
    return path


def local(text: str) -> str:
    """As `expanded`, of a file or folder that must be on this machine."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        raise argparse.ArgumentTypeError(f"must be a path on this machine, not a URL; it is {text}")
    return expanded(text)


def local_path(text: str) -> Path:
    """As `local`, as a `Path`."""
    return Path(local(text))


def run(main: Callable[[], None]):
    """Runs a script's `main`, turning what went wrong outside of it into one line and a status.

    Args:
        main: Parses the flags and does the work.
    """
    if sys.platform == "win32":
        _fail("the scripts run on Linux and macOS; on Windows use them inside WSL 2.", USAGE_STATUS)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        try:
            main()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output, such as `head -1`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(CLOSED_PIPE_STATUS)
    except UserError as error:
        _fail(str(error), USAGE_STATUS)
    except LostWorkerError as error:
        _fail(str(error), RETRY_STATUS)
    except OSError as error:
        _fail(f"{error.filename or 'a file'}: {error.strerror or error}", USAGE_STATUS)
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED_STATUS)


def main():
    """Runs `googlenet COMMAND ...`: `googlenet train` is `python train.py`, and so on."""
    names = [found.name for found in pkgutil.iter_modules(commands.__path__)]
    if len(sys.argv) > 1 and sys.argv[1] in names:
        command = importlib.import_module(f"{commands.__name__}.{sys.argv[1]}")
        sys.argv = [f"googlenet {sys.argv[1]}", *sys.argv[2:]]
        run(command.main)
        return
    overview = parser("GoogLeNet for Keras: `googlenet COMMAND --help` lists the flags of each.")
    overview.add_argument("--version", action="version", version=keras_googlenet.__version__)
    kinds = overview.add_subparsers(metavar="COMMAND", required=True)
    for name in names:
        text = importlib.import_module(f"{commands.__name__}.{name}").__doc__
        kinds.add_parser(name, help=text.partition("\n")[0])
    overview.parse_args()


def start_tensorflow():
    """Imports TensorFlow and Keras, quietly, with the settings that the scripts need.

    TensorFlow's C++ part prints notes before it can be told not to. Call it after the flags are
    parsed, so that `--help` and mistakes are answered at once.
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever keras.json asks for, installed or not
    logging.getLogger("absl").setLevel(logging.ERROR)  # TensorFlow Datasets' notes to developers
    with tempfile.TemporaryFile() as notes:
        stderr = os.dup(2)
        os.dup2(notes.fileno(), 2)
        try:
            importlib.import_module("tensorflow")
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
    keras = importlib.import_module("keras")
    keras.config.set_image_data_format("channels_last")  # keras.json may say otherwise
    keras.config.set_floatx("float32")


def note(text: str):
    """Prints progress and warnings on standard error; standard output is for results."""
    print(text, file=sys.stderr, flush=True)


def fail_if(errors: list[UserError]):
    """Ends with status 2 and a line for each file that went wrong, after the others are done."""
    if errors:
        _fail("\n".join(map(str, errors)), USAGE_STATUS)


def _fail(sentence: str, status: int):
    print(f"{Path(sys.argv[0]).name}: error: {sentence}", file=sys.stderr)
    sys.exit(status)
