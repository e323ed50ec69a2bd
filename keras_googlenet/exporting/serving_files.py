"""The files beside the version directories: how TensorFlow Serving is configured and started."""

import re
from pathlib import Path

from keras_googlenet.atomic import replacing

IMAGE = "tensorflow/serving:2.21.0"  # of the TensorFlow that wrote the SavedModel
KEPT_VERSIONS = 2  # the newest, and the one to return to
CONFIG_POLL_SECONDS = 10  # between two looks of the server at models.config

MODELS_CONFIG = f"""\
# A ModelServerConfig of TensorFlow Serving; it is read again every {CONFIG_POLL_SECONDS} s.
model_config_list {{
  config {{
    name: "NAME"
    base_path: "/models/NAME"
    model_platform: "tensorflow"
    # The newest versions are served. To stay at one, in place of the next line:
    #   model_version_policy {{ specific {{ versions: 1 versions: 2 }} }}
    model_version_policy {{ latest {{ num_versions: {KEPT_VERSIONS} }} }}
    # Names for versions, which clients can ask for:
    #   version_labels {{ key: "stable" value: 1 }}
    #   version_labels {{ key: "canary" value: 2 }}
  }}
}}
"""

BATCHING_PARAMETERS = """\
# BatchingParameters of TensorFlow Serving: requests that arrive together run as one batch.
# One corrupt image then fails every request of its batch: see docs/serving.md.
max_batch_size { value: 32 }
batch_timeout_micros { value: 5000 }
max_enqueued_batches { value: 100 }
num_batch_threads { value: 2 }
"""

COMPOSE = f"""\
# TensorFlow Serving with REST on port 8501 and gRPC on 8500: docker compose up
# It has no passwords, so only this machine can reach the ports.
services:
  "NAME":
    image: {IMAGE}
    restart: unless-stopped
    ports:
      - "127.0.0.1:8500:8500"
      - "127.0.0.1:8501:8501"
    volumes:
      - type: bind
        source: .
        target: /models/NAME
        read_only: true
    command:
      - --model_config_file=/models/NAME/models.config
      - --model_config_file_poll_wait_seconds={CONFIG_POLL_SECONDS}
      - --allow_version_labels_for_unavailable_models=true
"""

BATCHING_FLAGS = """\
      - --enable_batching=true
      - --batching_parameters_file=/models/NAME/batching_parameters.txt
"""


def write_serving_files(folder: str | Path, batching: bool | None = None) -> list[Path]:
    """Writes `models.config`, `compose.yaml` and, if asked for, `batching_parameters.txt`.

    Args:
        folder: Holds the version directories; its name becomes the name of the model.
        batching: Whether the server merges requests into batches; `None` leaves it as it is,
            which is off in a new folder.

    Returns:
        The files that a user has edited; they are left as they are.
    """
    folder = Path(folder).resolve()
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", folder.name)  # fit for addresses and paths
    alone, merged = (text.replace("NAME", name) for text in (COMPOSE, COMPOSE + BATCHING_FLAGS))
    if batching is None:
        batching = _read(folder / "compose.yaml") == merged
    texts = {
        "models.config": MODELS_CONFIG.replace("NAME", name),
        "compose.yaml": merged if batching else alone,
    }
    if batching:
        texts["batching_parameters.txt"] = BATCHING_PARAMETERS
    edited = []
    for file, text in texts.items():
        present = _read(folder / file)
        if present not in (None, text, alone, merged):
            edited.append(folder / file)
        elif present != text:
            with replacing(folder / file) as temporary:
                temporary.write_text(text, encoding="utf-8")
    return edited


def _read(file: Path) -> str | None:
    return file.read_text(encoding="utf-8") if file.exists() else None
