"""Which modules may import which, and what importing costs."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "keras_googlenet"
# About files, pages and mistakes, not about networks: anyone may use them.
FREE = {"errors", "atomic", "figure_text", "html", "progress_bar", "run_files"}
NETWORK = {"googlenet", "imagenet", "labels", "normal_form"}
MAY_IMPORT = {
    "__init__": set(),
    **dict.fromkeys(FREE, set()),
    "cli": {"__init__", "commands"},
    "commands": {"commands", "cli", "models", "data", "training", "evaluation", "explaining"}
    | {"features", "exporting", "weights", "serving_client", *NETWORK},
    "layers": set(),
    "labels": set(),
    "model_arguments": set(),
    "googlenet": {"model_arguments", "layers"},
    "imagenet": {"googlenet", "labels"},
    "flattening": set(),
    "parts": {"flattening", "googlenet"},
    "normal_form": {"parts", "flattening", "googlenet", "imagenet"},
    "models": {*NETWORK, "weights"},
    "weight_files": {"weight_files"},  # without Keras: they run in a process that starts quickly
    "weights": {"weights", "weight_files", "googlenet", "imagenet", "labels"},
    "data": {"data", "labels"},
    "data.file_kinds": set(),
    "data.image_headers": {"data.file_kinds"},
    "data.preprocessing": {"data.image_headers"},
    "training": {"training", "data", "googlenet", "imagenet", "labels", "weights.saved_weights"},
    "evaluation": {"evaluation", "data", *NETWORK},
    # layers: the constants of local response normalization, which integers compute otherwise
    "exporting": {"exporting", "data.preprocessing", "layers", *NETWORK},
    "explaining": {"explaining", "data.preprocessing", *NETWORK},
    "features": {"features", "data.preprocessing", "layers", *NETWORK},
    "serving_client": {"labels"},
}
INSIDE_A_FUNCTION = {("googlenet", "weights")}  # the one exception: for loading weights only
KERAS_ONLY = {"googlenet", "model_arguments", "layers", "imagenet", "labels", "flattening", "parts"}
KERAS_ONLY |= {"normal_form"}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(part for part in parts if part != "__init__") or "__init__", path


def imported(path, only_at_the_top=False):
    tree = ast.parse(path.read_text())
    for node in tree.body if only_at_the_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def allowed(name):
    """The rule of the module itself, otherwise that of its folder."""
    return MAY_IMPORT[name] if name in MAY_IMPORT else MAY_IMPORT[name.partition(".")[0]]


@pytest.mark.parametrize(("name", "path"), modules())
def test_imports_follow_the_rules(name, path):
    siblings = {target for target, _ in modules()}
    for target in imported(path):
        if not target.startswith("keras_googlenet."):
            continue
        target = target.removeprefix("keras_googlenet.")
        target = target if target in siblings else target.rpartition(".")[0]
        if (name, target.partition(".")[0]) in INSIDE_A_FUNCTION:
            top = imported(path, only_at_the_top=True)
            assert not any(found.startswith(f"keras_googlenet.{target}") for found in top)
            continue
        may = allowed(name) | FREE
        assert target in may or target.partition(".")[0] in may, f"{name} imports {target}"


def test_no_two_modules_share_a_name():
    names = [path.stem for _, path in modules() if path.stem != "__init__"]
    assert len(names) == len(set(names)), [name for name in names if names.count(name) > 1]


@pytest.mark.parametrize("name", sorted(KERAS_ONLY))
def test_the_network_needs_keras_only(name):
    """A fused kernel of one backend is imported where the backend was asked for."""
    path = PACKAGE / f"{name}.py"
    targets = imported(path, only_at_the_top=name == "layers")
    roots = {target.partition(".")[0] for target in targets}
    standard = set(sys.stdlib_module_names)
    assert roots - standard <= {"keras", "numpy", "keras_googlenet"}


@pytest.mark.parametrize(
    ("module", "others"),
    [("keras_googlenet", {"numpy"}), ("keras_googlenet.weight_files.process", set())],
)
def test_importing_loads_no_framework(module, others):
    frameworks = others | {"keras", "tensorflow", "torch", "matplotlib"}
    code = f"import sys, {module}; print({frameworks} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


@pytest.mark.parametrize("order", ["keras_googlenet, keras", "keras, keras_googlenet"])
def test_a_saved_network_loads_after_a_bare_import(order, tmp_path):
    from keras_googlenet import GoogLeNet

    path = tmp_path / "model.keras"
    GoogLeNet(include_top=False, input_shape=(32, 32, 3)).save(path)
    code = f"import {order}; print(keras.models.load_model({str(path)!r}).name)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "googlenet", done.stderr


def test_public_names():
    """Those that DESIGN promises and README imports, each defined in the package itself."""
    import keras_googlenet

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    imported_by_readme = re.findall(r"^from keras_googlenet import (.*)$", readme, re.MULTILINE)
    promised = {"GoogLeNet", "inference_model", "variant_of", "preprocess_input"}
    promised |= {name for names in imported_by_readme for name in names.split(", ")}
    assert promised <= set(keras_googlenet.__all__) <= set(dir(keras_googlenet))
    for name in promised:
        value = getattr(keras_googlenet, name)
        assert value.__name__ == name and value.__module__.startswith("keras_googlenet.")
    with pytest.raises(AttributeError, match="no attribute 'InceptionV4'"):
        _ = keras_googlenet.InceptionV4
