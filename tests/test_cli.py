"""The types of the flags that name files and folders, in every script."""

import argparse
import os
import runpy
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from keras_googlenet import cli

SCRIPTS = sorted(path.name for path in ROOT.glob("*.py"))
ANYWHERE = {"dataset", "data_dir", "calibration"}  # TensorFlow reads these, from a URL too
LOCAL = {
    "train.py": {"workdir", "weights"},
    "evaluate.py": {"models", "labels", "report"},
    "predict.py": {"model", "images"},
    "explain.py": {"model", "images", "output", "report"},
    "visualize.py": {"model", "output"},
    "export.py": {"model", "output"},
    "convert.py": {"source", "output", "labels", "verify"},
}
WORDS = ("file", "folder", "directory", "image", "MODEL", "where TensorFlow Datasets", "a page")
OTHERS = {  # these words stand in their help, but they name no path
    *("image_size", "crops", "sizes", "min_crop_area", "table", "method", "quantize", "variant"),
    *(
        "class_weights",
        "label_columns",
        "recipe_of",
        "batching",
        "random_interpolation",
        "format",
        "resume",
    ),
}


class Parsed(Exception):
    """Stops a script once its flags are known."""


def actions_of(script, monkeypatch):
    """Runs a script up to the point where it would parse its command line."""
    parsers = []

    def stop(parser, *arguments, **keywords):
        parsers.append(parser)
        raise Parsed

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
        patch.setattr(argparse.ArgumentParser, "parse_known_intermixed_args", stop)
        patch.setattr(sys, "argv", [script])
        with pytest.raises(Parsed):
            runpy.run_path(str(ROOT / script), run_name="__main__")
    return {action.dest: action for action in parsers[0]._actions}


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_flag_for_a_path_expands_the_home_folder(script, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    actions = actions_of(script, monkeypatch)
    local = LOCAL[script]
    for name in local | (ANYWHERE & set(actions)):
        assert str(actions[name].type("~/x")) == f"{tmp_path}/x", name
        assert str(actions[name].type("./a~b")).endswith("a~b"), name
        if name in local:
            with pytest.raises(argparse.ArgumentTypeError, match="path on this machine, not a URL"):
                actions[name].type("gs://bucket/x")
        else:
            assert actions[name].type("gs://bucket/x") == "gs://bucket/x", name


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_flag_for_a_path_is_forgotten(script, monkeypatch):
    """What speaks of a file has a type for paths, or is listed above as something else."""
    for name, action in actions_of(script, monkeypatch).items():
        speaks = any(word in f"{action.help} {action.metavar}" for word in WORDS)
        takes_text = action.nargs != 0 and action.type not in (int, float, cli.positive)
        if speaks and takes_text and name not in OTHERS:
            assert name in LOCAL[script] | ANYWHERE, f"{script}: {name}: {action.help}"


@pytest.mark.parametrize(
    ("script", "arguments", "sentence"),
    [
        ("train.py", ["--workdir=gs://bucket/run"], "--workdir: must be a path on this machine"),
        ("train.py", ["--weights=https://x/y.keras"], "--weights: must be a path on this machine"),
        ("evaluate.py", ["gs://bucket/run"], "MODEL: must be a path on this machine"),
        ("predict.py", ["imagenet", "https://x/y.jpg"], "IMAGE: must be a path on this machine"),
        ("export.py", ["imagenet", "s3://x/y"], "OUTPUT: must be a path on this machine"),
        ("train.py", ["--data-dir="], "--data-dir: must not be empty"),
        ("evaluate.py", ["~no_such_user/run"], "there is no user no_such_user"),
    ],
)
def test_what_is_no_path_is_refused_at_once(script, arguments, sentence, run_script):
    outcome = run_script(script, *arguments)
    assert outcome.status == 2 and sentence in outcome.err.splitlines()[-1]


def test_the_home_folder_of_another_user(monkeypatch, tmp_path):
    pwd = pytest.importorskip("pwd")
    user = pwd.getpwuid(os.getuid())
    assert cli.local_path(f"~{user.pw_name}/x") == Path(user.pw_dir) / "x"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~odd").mkdir()
    assert cli.expanded("~odd") == "~odd", "there is a folder of this very name"


def test_a_quoted_home_reaches_the_file(run_script, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    outcome = run_script("predict.py", "~/nothing.keras", "--json", "~/nothing.jpg")
    assert outcome.status == 2 and f"{tmp_path}/nothing.jpg" in outcome.err
