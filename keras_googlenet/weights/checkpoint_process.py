"""Run by `checkpoints` in a process of its own: PREFIX OUTPUT MOST_BYTES MOST_MEMORY.

It imports nothing of the package that needs Keras, so that it starts quickly.
"""

import contextlib
import json
import math
import sys
from pathlib import Path

import numpy as np

from keras_googlenet.errors import UserError


def read_variables(prefix: Path, most_bytes: int) -> dict[str, np.ndarray]:
    """Reads the variables of a checkpoint that are numbers, in this process.

    Args:
        prefix: The checkpoint: a file, or what the names of its files begin with.
        most_bytes: That they may take together.

    Returns:
        Arrays by the names of the variables.

    Raises:
        UserError: If TensorFlow says that it is damaged, or it is too large.
    """
    import tensorflow as tf

    try:
        reader = tf.train.load_checkpoint(str(prefix))
        shapes = reader.get_variable_to_shape_map()
        types = reader.get_variable_to_dtype_map()
        numbers = [name for name, dtype in types.items() if dtype.is_floating or dtype.is_integer]
        size = sum(types[name].size * math.prod(shapes[name]) for name in numbers)
        if size > most_bytes:
            raise UserError(f"its variables take more than {most_bytes // 2**20} MiB.")
        return {name: reader.get_tensor(name) for name in numbers}
    except UserError:
        raise
    except Exception as error:  # TensorFlow's readers raise almost anything for a damaged file
        sentence = str(error).strip().partition("\n")[0].replace(str(prefix), prefix.name)
        raise UserError(f"the checkpoint is damaged or cut off: {sentence[:200]}") from error


def _limit_memory(most_memory: int):
    """Bounds what this process may take on top of what it has; where the system can."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[5])  # data and stack
        limit = pages * resource.getpagesize() + most_memory
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def main(prefix: str, output: str, most_bytes: str, most_memory: str):
    """Writes the variables to `output` and prints their names as JSON, or the error."""
    import tensorflow  # noqa: F401 - before the memory is bounded

    _limit_memory(int(most_memory))
    try:
        variables = read_variables(Path(prefix), int(most_bytes))
        np.savez(output, *variables.values())
        print(json.dumps({"names": list(variables)}), end="")
    except UserError as error:
        print(json.dumps({"error": str(error)}), end="")


if __name__ == "__main__":
    main(*sys.argv[1:])
