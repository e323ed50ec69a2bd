"""What `pip install .` gives, and that the files that describe the project agree."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest
import yaml
from conftest import ROOT

import keras_googlenet

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
COMMANDS = ["convert", "evaluate", "explain", "export", "predict", "train", "visualize"]


def requirements(name):
    """The lines of a requirements file, without comments and what it includes."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    wanted = [line.partition("#")[0].strip() for line in lines]
    return {line for line in wanted if line and not line.startswith("-r ")}


@pytest.mark.parametrize("extra", ["serving", "bench", "dev"])
def test_extras_agree_with_the_requirements_files(extra):
    listed = set(PROJECT["optional-dependencies"][extra]) - {"keras-googlenet[serving]"}
    assert listed == requirements(f"requirements-{extra}.txt")


def test_versions_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.search(r"^## \[(\d.*)\] - (.*)$", changes, re.MULTILINE)
    assert released[1] == keras_googlenet.__version__ == citation["version"]
    assert released[2] == citation["date-released"]


def test_this_environment_is_within_the_stated_range():
    for line in requirements("requirements.txt"):
        name = re.match(r"[\w-]+", line)[0]
        bounds = re.findall(r"(>=|<|~=)([\d.]+)", line)
        installed = _numbers(importlib.metadata.version(name))
        for sign, bound in bounds:
            inside = installed < _numbers(bound) if sign == "<" else installed >= _numbers(bound)
            assert inside, line


def _numbers(version):
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder, source = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)  # a build in place would leave its folders there
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "keras_googlenet", source / "keras_googlenet", ignore=ignored)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder]
    subprocess.run([*pip, source], check=True)
    (file,) = folder.glob("*.whl")
    return file


@pytest.mark.slow
def test_the_wheel_holds_the_package_alone(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"keras_googlenet", f"keras_googlenet-{keras_googlenet.__version__}.dist-info"}
    expected = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "keras_googlenet").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert expected == {name for name in names if name.startswith("keras_googlenet/")}


@pytest.mark.slow
def test_the_command_works_from_anywhere(wheel, tmp_path):
    """Installed into a folder of its own, beside the packages of this environment."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", tmp_path]
    subprocess.run([*pip, wheel], check=True)
    run = {"cwd": tmp_path, "env": {"PYTHONPATH": str(tmp_path)}, "capture_output": True}
    command = [sys.executable, tmp_path / "bin" / "googlenet"]
    overview = subprocess.run([*command, "--help"], text=True, **run)
    assert overview.returncode == 0 and all(name in overview.stdout for name in COMMANDS)
    wrong = subprocess.run([*command, "train", "--epochs", "0"], text=True, **run)
    assert wrong.returncode == 2 and not wrong.stdout
    assert wrong.stderr.startswith("googlenet train: error: --epochs must be at least 1")
    unknown = subprocess.run([*command, "dance"], text=True, **run)
    assert unknown.returncode == 2 and "invalid choice: 'dance'" in unknown.stderr


def test_every_command_has_its_script():
    modules = {path.stem for path in (ROOT / "keras_googlenet" / "commands").glob("[a-z]*.py")}
    scripts = {path.stem for path in ROOT.glob("*.py")}
    assert modules == scripts == set(COMMANDS)
