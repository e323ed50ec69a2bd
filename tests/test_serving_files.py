import re

import pytest
import yaml

from keras_googlenet.exporting import serving_files
from keras_googlenet.exporting.serving_files import write_serving_files

PEERS = pytest.mark.peers("tensorflow_serving")


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def test_batching_is_opt_in(tmp_path):
    assert write_serving_files(tmp_path / "net") == []
    alone = contents(tmp_path / "net")
    assert set(alone) == {"models.config", "compose.yaml"}
    assert "batching" not in alone["compose.yaml"]
    write_serving_files(tmp_path / "net", batching=True)
    merged = contents(tmp_path / "net")
    assert set(merged) == {*alone, "batching_parameters.txt"}
    write_serving_files(tmp_path / "net")  # the next export does not switch it off
    assert contents(tmp_path / "net") == merged
    write_serving_files(tmp_path / "net", batching=False)
    assert contents(tmp_path / "net")["compose.yaml"] == alone["compose.yaml"]


@pytest.mark.parametrize("file", ["models.config", "compose.yaml", "batching_parameters.txt"])
def test_an_edited_file_is_kept_and_named(tmp_path, file):
    write_serving_files(tmp_path / "net", batching=True)
    path = tmp_path / "net" / file
    path.write_text(path.read_text() + "# mine\n")
    before = contents(tmp_path / "net")
    assert write_serving_files(tmp_path / "net", batching=True) == [path]
    assert contents(tmp_path / "net") == before


def test_a_failed_write_leaves_nothing_half_written(tmp_path, monkeypatch):
    def no_room(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(serving_files.Path, "write_text", no_room)
    with pytest.raises(ValueError, match="No space left"):
        write_serving_files(tmp_path / "net")
    assert not (tmp_path / "net").exists()


@pytest.mark.parametrize("name", ["googlenet", "my net: v1", "2024", "on"])
def test_compose_file(tmp_path, name):
    write_serving_files(tmp_path / name, batching=True)
    services = yaml.safe_load((tmp_path / name / "compose.yaml").read_text())["services"]
    (called, service), *others = services.items()
    assert not others and called == name.replace(": ", "_").replace(" ", "_")
    assert service["image"] == "tensorflow/serving:2.21.0"
    assert service["ports"] == ["127.0.0.1:8500:8500", "127.0.0.1:8501:8501"]
    (mount,) = service["volumes"]
    folder = f"/models/{called}"
    assert mount == {"type": "bind", "source": ".", "target": folder, "read_only": True}
    flags = dict(flag.removeprefix("--").split("=") for flag in service["command"])
    assert flags["model_config_file"] == f"{folder}/models.config"
    assert flags["batching_parameters_file"] == f"{folder}/batching_parameters.txt"
    assert flags["enable_batching"] == "true"


def read_config(file):
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    config = model_server_config_pb2.ModelServerConfig()
    (model,) = text_format.Parse(file.read_text(), config).model_config_list.config
    return model


@PEERS
def test_models_config_is_the_official_proto(tmp_path):
    write_serving_files(tmp_path / "my net")
    model = read_config(tmp_path / "my net" / "models.config")
    assert (model.name, model.base_path) == ("my_net", "/models/my_net")
    assert model.model_platform == "tensorflow"
    assert model.model_version_policy.latest.num_versions == 2


@PEERS
def test_the_commented_lines_of_models_config_are_valid_too(tmp_path):
    write_serving_files(tmp_path / "net")
    file = tmp_path / "net" / "models.config"
    lines = [line for line in file.read_text().splitlines() if "latest" not in line]
    file.write_text("\n".join(line.replace("#   ", "") for line in lines))
    model = read_config(file)
    assert list(model.model_version_policy.specific.versions) == [1, 2]
    assert dict(model.version_labels) == {"stable": 1, "canary": 2}


# tensorflow_serving/servables/tensorflow/session_bundle_config.proto, BatchingParameters: those of
# its fields that are a google.protobuf.Int64Value; the published package leaves the file out.
BATCHING_PARAMETERS = {
    "max_batch_size",
    "batch_timeout_micros",
    "max_enqueued_batches",
    "num_batch_threads",
}


def test_batching_parameters_have_the_form_of_the_servers_text_proto(tmp_path):
    write_serving_files(tmp_path / "net", batching=True)
    text = (tmp_path / "net" / "batching_parameters.txt").read_text()
    settings = [line.partition("#")[0].strip() for line in text.splitlines()]
    found = [re.fullmatch(r"(\w+) \{ value: (\d+) \}", line) for line in settings if line]
    parameters = {match[1]: int(match[2]) for match in found}
    assert set(parameters) <= BATCHING_PARAMETERS and len(parameters) == len(found)
    assert parameters["max_batch_size"] == 32 and parameters["batch_timeout_micros"] == 5000
    assert parameters["num_batch_threads"] >= 1
