"""The table of export formats beside the functions that it describes."""

import inspect
import subprocess
import sys

import pytest
from conftest import ROOT

from keras_googlenet import exporting
from keras_googlenet.exporting.formats import FORMATS


@pytest.mark.parametrize("name", FORMATS)
def test_the_table_has_the_arguments_of_each_function(name):
    function = getattr(exporting, f"export_{name}")
    parameters = inspect.signature(function).parameters
    assert list(parameters)[:3] == ["model", "path", "labels"]
    own = {option.name: option.values[0] for option in FORMATS[name].options}
    assert {key: parameters[key].default for key in list(parameters)[3:]} == own | {"samples": None}
    assert function.__name__ in exporting.__all__


def test_other_names_are_no_formats():
    with pytest.raises(AttributeError, match="no attribute 'export_caffe'"):
        _ = exporting.export_caffe


def test_the_table_is_read_without_a_framework():
    loaded = "{'keras', 'tensorflow', 'numpy'} & set(sys.modules)"
    code = f"import sys, keras_googlenet.exporting.formats; print({loaded})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
