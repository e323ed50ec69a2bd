"""TensorFlow's checkpoints and frozen graphs, read by TensorFlow.

Its reader of checkpoints aborts the process for some damaged ones.
"""

import re
from pathlib import Path

from keras_googlenet.errors import UserError
from keras_googlenet.weight_files.arrays import MOST_DIMENSIONS, Array, Contents, check_names

TABLE_MAGIC = bytes.fromhex("57fb808b247547db")  # last bytes of an index, and of a file of 2016
PART_OF_CHECKPOINT = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")
LRN_DEFAULTS = {"depth_radius": 5, "bias": 1.0, "alpha": 1.0, "beta": 0.5}  # of TensorFlow's op


def prefix_of(path: Path) -> Path | None:
    """Finds the checkpoint of a file, a folder, or the common start of its files' names.

    Returns:
        The file (of 2016), or what the names of the files start with; `None` if it is none.
    """
    if path.is_dir() or (path.name == "checkpoint" and path.is_file()):
        return _latest(path if path.is_dir() else path.parent)
    prefix = path.with_name(PART_OF_CHECKPOINT.sub("", path.name))
    if Path(f"{prefix}.index").is_file():
        return prefix
    if path.is_file() and path.stat().st_size > 8:
        with open(path, "rb") as file:
            file.seek(-8, 2)
            if file.read() == TABLE_MAGIC:
                return path
    if PART_OF_CHECKPOINT.search(path.name):
        raise UserError(f"{prefix.name}.index is not beside it; give all files of the checkpoint.")
    return None


def _latest(folder: Path) -> Path | None:
    """Returns the checkpoint that the file `checkpoint` names, in any folder, or the only one."""
    prefixes = {index.with_suffix("") for index in folder.glob("*.index")}
    if (folder / "checkpoint").is_file():
        text = (folder / "checkpoint").read_text(encoding="utf-8", errors="replace")
        named = re.search(r'^model_checkpoint_path: "(.*)"', text, re.MULTILINE)
        latest = folder / Path(named[1]).name if named else None
        if latest in prefixes or (latest and latest.is_file()):
            return latest
    if len(prefixes) > 1:
        names = ", ".join(sorted(prefix.name for prefix in prefixes)[:5])
        raise UserError(
            f"the folder holds {len(prefixes)} checkpoints ({names}); give one of them."
        )
    return next(iter(prefixes), None)


def open_checkpoint(prefix: Path) -> Contents:
    """Lists the variables of a checkpoint."""
    import tensorflow as tf

    if Path(f"{prefix}.index").is_file() and not list(prefix.parent.glob(f"{prefix.name}.data-*")):
        raise UserError(f"{prefix.name}.data-… is not beside its index; give all of its files.")
    reader = tf.train.load_checkpoint(str(prefix))
    shapes, types = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    check_names(shapes)
    arrays = {
        name: Array(types[name].name, tuple(shape))
        for name, shape in sorted(shapes.items())
        if types[name].is_floating or types[name].is_integer
    }
    return Contents(arrays, reader.get_tensor)


def open_graph(content: bytes) -> Contents:
    """Lists the constants of a GraphDef; its facts are the arguments of its operations."""
    import tensorflow as tf

    graph = tf.compat.v1.GraphDef()
    graph.ParseFromString(content)
    constants = [node for node in graph.node if node.op == "Const"]
    check_names(node.name for node in constants)
    tensors = {node.name: node.attr["value"].tensor for node in constants}
    if len(tensors) < len(constants):
        raise UserError("two of its nodes have the same name; the file is damaged.")
    arrays = {}
    for name, tensor in tensors.items():
        shape = tuple(dimension.size for dimension in tensor.tensor_shape.dim)
        if tf.dtypes.as_dtype(tensor.dtype).is_floating and len(shape) <= MOST_DIMENSIONS:
            arrays[name] = Array(tf.dtypes.as_dtype(tensor.dtype).name, shape)
    facts = {
        "lrn": {node.name: _normalization(node) for node in graph.node if node.op == "LRN"},
        "windows": {
            node.name: _window(node)
            for node in graph.node
            if node.op in ("Conv2D", "MaxPool", "AvgPool")
        },
        "operations": sorted({node.op for node in graph.node})[:200],
    }

    return Contents(arrays, lambda name: tf.make_ndarray(tensors[name]), facts)


def _window(node) -> tuple[str, str, int, int]:
    """Returns the operation, its padding, its stride, and the side of a pool's window."""
    strides, sides = (list(node.attr[name].list.i) for name in ("strides", "ksize"))
    padding = node.attr["padding"].s.decode()
    return node.op, padding, max(strides, default=0), max(sides, default=0)


def _normalization(node) -> dict[str, float]:
    # float32 has seven digits: 1e-4, not 9.999999747378752e-05
    given = {n: float(f"{node.attr[n].f:.7g}") for n in ("bias", "alpha", "beta") if n in node.attr}
    if "depth_radius" in node.attr:
        given["depth_radius"] = node.attr["depth_radius"].i
    return LRN_DEFAULTS | given
