"""The process that reads a weight file: SOURCE SCRATCH OUTPUT MOST_MEMORY.

It prints one line of JSON with the contents of the file. For each line of standard input, a list of
names, it writes these arrays to OUTPUT as float32, one after the other, and prints
`{"done": true}`. Any error is one line `{"error": …}`.
"""

import contextlib
import json
import sys
from pathlib import Path

from keras_googlenet.errors import UserError, first_line
from keras_googlenet.weight_files.arrays import (
    MIB,
    MOST_CPU_SECONDS,
    MOST_UNPACKED,
    as_float32,
)
from keras_googlenet.weight_files.recognition import recognize


@contextlib.contextmanager
def one_error(format_name: str = ""):
    """Turns any error of a library into `UserError`."""
    subject = f"it looks like a {format_name}, but" if format_name else "it"
    try:
        yield
    except UserError as error:
        raise UserError(f"{subject} {error}" if format_name else str(error)) from error
    except (MemoryError, RecursionError) as error:
        raise UserError(
            f"{subject} asks for more memory than weights of GoogLeNet need."
        ) from error
    except Exception as error:  # the libraries raise almost anything
        raise UserError(f"{subject} is damaged or cut off: {first_line(error)}.") from error


def open_weights(path: Path, scratch: Path, most_memory: int | None = None):
    """Opens a file with the reader for its content.

    Args:
        path: A file, the prefix of a checkpoint, or a folder.
        scratch: An empty folder for the contents of an archive.
        most_memory: Bytes that this process may use in addition; by default any number.

    Returns:
        The name of the format, and the contents.

    Raises:
        UserError: If it cannot be read.
    """
    bound_memory(most_memory)
    with one_error():
        recognized = recognize(path, scratch)
    if recognized.needs_tensorflow:
        bound_memory(None)
        import tensorflow  # noqa: F401 - its own memory does not count

        bound_memory(most_memory and most_memory // 3)  # for TensorFlow takes up to 820 MiB
    with one_error(recognized.name):
        contents = recognized.open()
    return recognized.name, contents


def bound_memory(most_memory: int | None):
    """Bounds the additional memory of this process, on systems that can."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if most_memory is None:
            resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
            return
        pages = int(Path("/proc/self/statm").read_text().split()[5])  # data and stack
        limit = pages * resource.getpagesize() + most_memory
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def main(source: str, scratch: str, output: str, most_memory: str):
    """Reads one file for the process that started this one."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_UNPACKED + MIB,) * 2)
        resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU_SECONDS,) * 2)
    try:
        name, contents = open_weights(Path(source), Path(scratch), int(most_memory))
        _answer(format=name, arrays=contents.arrays, facts=contents.facts)
        for request in sys.stdin:
            with one_error(name), open(output, "wb") as file:
                for wanted in json.loads(request):
                    file.write(as_float32(contents.read(wanted)).data)
            _answer(done=True)
    except UserError as error:
        _answer(error=str(error))


def _answer(**answer):
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
