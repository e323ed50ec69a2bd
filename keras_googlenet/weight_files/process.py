"""The process that reads a file: SOURCE SCRATCH OUTPUT MOST_MEMORY.

It writes a line of JSON that lists what the file holds. For each line that it reads, with names of
arrays, it writes their numbers to OUTPUT as float32, one after the other, and says that it is done.
Whatever goes wrong is one line, `{"error": …}`.
"""

import contextlib
import json
import sys
from pathlib import Path

from keras_googlenet.errors import UserError
from keras_googlenet.weight_files.arrays import (
    MIB,
    MOST_CPU_SECONDS,
    MOST_UNPACKED,
    Contents,
    as_float32,
    first_line,
)
from keras_googlenet.weight_files.recognition import Format, recognize


@contextlib.contextmanager
def one_error(what: str = ""):
    """Turns all that a library raises for a damaged file into `UserError`.

    Args:
        what: Format that the file was taken for, if it is known.
    """
    taken = f"it was taken for a {what}, but " if what else "it "
    try:
        yield
    except UserError as error:
        raise UserError(f"{taken}{error}" if what else str(error)) from error
    except (MemoryError, RecursionError) as error:
        raise UserError(f"{taken}asks for more memory than weights of GoogLeNet need.") from error
    except Exception as error:  # the libraries raise almost anything
        raise UserError(f"{taken}is damaged or cut off: {first_line(error)}.") from error


def open_weights(path: Path, scratch: Path, most_memory: int | None = None):
    """Opens a file by the reader that its content asks for.

    Args:
        path: A file, the prefix of a checkpoint, or a folder.
        scratch: An empty folder for what an archive holds.
        most_memory: Bytes that this process may take from here on; no bound if not given.

    Returns:
        The name of the format, and the contents.

    Raises:
        UserError: If it cannot be read.
    """
    bound_memory(most_memory)
    with one_error():
        found: Format = recognize(path, scratch)
    if found.needs_tensorflow:
        bound_memory(None)
        import tensorflow  # noqa: F401 - what it takes itself does not count

        bound_memory(most_memory and most_memory // 3)  # for it takes up to 820 MiB
    with one_error(found.name):
        contents: Contents = found.open()
    return found.name, contents


def bound_memory(most_memory: int | None):
    """Bounds what this process may take on top of what it has; where the system can."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if most_memory is None:
            resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
            return
        pages = int(Path("/proc/self/statm").read_text().split()[5])  # data and stack
        limit = pages * resource.getpagesize() + most_memory
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _bound_files_and_time():
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        limit = MOST_UNPACKED + MIB
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU_SECONDS, MOST_CPU_SECONDS))


def main(source: str, scratch: str, output: str, most_memory: str):
    """Serves one file to the process that started this one."""
    _bound_files_and_time()
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
