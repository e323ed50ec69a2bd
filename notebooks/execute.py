"""Executes the Colab notebook in a temporary folder and stores its outputs in it.

    python -m notebooks.execute

What cells print on standard error, which is progress and speed, is not stored. Pictures get a
palette of 256 colors, which halves the file. The metadata get a hash of the code and the version of
the package, by which a test tells stale outputs.
"""

import base64
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

from keras_googlenet import __version__
from keras_googlenet.atomic import replacing

NOTEBOOK = Path(__file__).with_name("googlenet_colab.ipynb")
EXECUTED = "executed"  # key of the metadata


def main():
    """Executes the notebook and replaces the file."""
    notebook = read()
    with tempfile.TemporaryDirectory() as folder:
        execute(notebook, folder)
    remove_standard_error(notebook)
    reduce_pictures(notebook)
    notebook.metadata[EXECUTED] = origin(notebook)
    with replacing(NOTEBOOK) as file:
        nbformat.write(notebook, file)
    print(NOTEBOOK)


def read() -> NotebookNode:
    """Returns the notebook as it is stored."""
    return nbformat.read(NOTEBOOK, as_version=nbformat.current_nbformat)


def execute(notebook: NotebookNode, folder: str | Path, settings: Mapping[str, str] | None = None):
    """Executes all code cells in a new kernel of this Python, and puts the outputs into them.

    Args:
        notebook: The notebook; it is changed.
        folder: Where the kernel starts.
        settings: Environment variables in addition to those of this process.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell fails.
    """
    paths = [str(NOTEBOOK.parent.parent), os.environ.get("PYTHONPATH", "")]
    package = {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    where = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=None, resources=where, record_timing=False)
    client.execute(env={**os.environ, **package, **(settings or {})})


def origin(notebook: NotebookNode) -> dict[str, str]:
    """Returns what the outputs come from: a hash of all code, and the version of the package."""
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    code = json.dumps(sources).encode()
    return {"code_sha256": hashlib.sha256(code).hexdigest(), "version": __version__}


def remove_standard_error(notebook: NotebookNode):
    """Removes the outputs that are no results: progress, speed and notes of libraries."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]


def reduce_pictures(notebook: NotebookNode):
    """Gives every PNG picture a palette of its own."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            encoded = output.get("data", {}).get("image/png")
            if encoded:
                picture, reduced = Image.open(io.BytesIO(base64.b64decode(encoded))), io.BytesIO()
                picture.convert("RGB").quantize(256).save(reduced, "png", optimize=True)
                output["data"]["image/png"] = base64.b64encode(reduced.getvalue()).decode() + "\n"


if __name__ == "__main__":
    main()
