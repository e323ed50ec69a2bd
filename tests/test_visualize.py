"""What visualize.py writes, and what it says to mistakes."""

import numpy as np
import pytest
from PIL import Image


@pytest.mark.slow
def test_features_beside_their_dataset_examples(
    untrained_network, run_script, image_folder, tmp_path
):
    output = tmp_path / "atlas.png"
    outcome = run_script(
        *("visualize.py", untrained_network, "inception_3a_output:2-3"),
        *("--size", 32, "--steps", 2, "--diversity", 2, "--dataset", image_folder),
        *("--output", output),
    )
    assert outcome.status == 0, outcome.err
    assert outcome.out.strip() == str(output)
    assert np.asarray(Image.open(output)).std() > 10


@pytest.mark.slow
def test_a_circuit_is_drawn(untrained_network, run_script, tmp_path):
    output = tmp_path / "circuit.png"
    outcome = run_script(
        *("visualize.py", untrained_network, "--size", 32, "--steps", 1, "--output", output),
        *("--circuit", "inception_3a_output:1,2", "inception_3b_3x3:0"),
    )
    assert outcome.status == 0, outcome.err
    assert Image.open(output).size[0] > 300


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["inception_3z_output:1"], "the nearest are inception_3"),
        (["inception_3a_output:32"], "has channels 0 to 31"),
        (["inception_3a_output:1", "--size", 16], "--size must be 32 or more"),
        (["main:1", "--output", "x.xyz"], "--output must be a figure (.png"),
        (["main:1", "--circuit", "a:1", "b:1"], "one of them only"),
        (["--circuit", "inception_3a_output:1", "inception_5b_3x3:1"], "does not feed"),
        (["--circuit", "a:1", "b:1", "--dataset", "shapes"], "--circuit takes no --dataset"),
        (["--circuit", "a:1", "b:1", "--diversity", 2], "--circuit takes no --diversity"),
        ([], "give LAYER:UNITS or --circuit"),
    ],
)
def test_mistakes_about_features_are_one_sentence(untrained_network, run_script, flags, sentence):
    outcome = run_script("visualize.py", untrained_network, *flags)
    assert outcome.status == 2 and outcome.out == "", outcome
    assert sentence in outcome.err.splitlines()[-1] and "Traceback" not in outcome.err
