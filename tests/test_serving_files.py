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


@PEERS
def test_models_config_is_the_official_proto(tmp_path):
    import serving_core

    write_serving_files(tmp_path / "my net")
    config = serving_core.read_config(tmp_path / "my net" / "models.config")
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path) == ("my_net", "/models/my_net")
    assert model.model_platform == "tensorflow"
    assert model.model_version_policy.latest.num_versions == 2


@PEERS
def test_the_commented_lines_of_models_config_are_valid_too(tmp_path):
    import serving_core

    write_serving_files(tmp_path / "net")
    file = tmp_path / "net" / "models.config"
    lines = [line for line in file.read_text().splitlines() if "latest" not in line]
    file.write_text("\n".join(line.replace("#   ", "") for line in lines))
    (model,) = serving_core.read_config(file).model_config_list.config
    assert list(model.model_version_policy.specific.versions) == [1, 2]
    assert dict(model.version_labels) == {"stable": 1, "canary": 2}


@PEERS
def test_batching_parameters_are_the_official_proto(tmp_path):
    import serving_core

    write_serving_files(tmp_path / "net", batching=True)
    parameters = serving_core.read_batching(tmp_path / "net" / "batching_parameters.txt")
    assert parameters.max_batch_size.value == 32
    assert parameters.batch_timeout_micros.value == 5000
    assert parameters.num_batch_threads.value >= 1
