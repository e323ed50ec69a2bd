"""What TensorFlow Serving does behind its two interfaces, over the C++ loader.

Written after the server's documentation and the texts of its errors, for tests: versions and
their policies, labels, prediction, and batches of several clients' requests.
"""

import threading
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from saved_model_loader import LoaderError, SavedModel
from serving_batches import Batches
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import get_model_status_pb2, predict_pb2
from tensorflow_serving.config import model_server_config_pb2

DEFAULT_SIGNATURE = "serving_default"


class ServingError(Exception):
    """An answer that is an error: the name of its status code and its message."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code, self.message = code, message


def batching_parameters_class():
    """`tensorflow.serving.BatchingParameters`, which the published package leaves out.

    Field numbers: tensorflow_serving/servables/tensorflow/session_bundle_config.proto.
    """
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="batching_parameters.proto",
        package="tensorflow.serving",
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    message = file.message_type.add(name="BatchingParameters")
    wrapped = [
        ("max_batch_size", 1),
        ("batch_timeout_micros", 2),
        ("max_enqueued_batches", 3),
        ("num_batch_threads", 4),
    ]
    for name, number in wrapped:
        message.field.add(
            name=name,
            number=number,
            type=field.TYPE_MESSAGE,
            label=field.LABEL_OPTIONAL,
            type_name=".google.protobuf.Int64Value",
        )
    message.field.add(
        name="allowed_batch_sizes", number=6, type=field.TYPE_INT64, label=field.LABEL_REPEATED
    )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    descriptor = pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(descriptor.message_types_by_name["BatchingParameters"])


BatchingParameters = batching_parameters_class()


def read_config(file) -> model_server_config_pb2.ModelServerConfig:
    text = Path(file).read_text()
    return text_format.Parse(text, model_server_config_pb2.ModelServerConfig())


def read_batching(file):
    return text_format.Parse(Path(file).read_text(), BatchingParameters())


class Core:
    """The models of a configuration.

    Args:
        config: A `ModelServerConfig`.
        mounts: Folders of this machine by the path that the configuration calls them, as a
            container's mounts are.
        batching: `BatchingParameters`, or `None` to run each request by itself.
    """

    def __init__(self, config, mounts=None, batching=None):
        self._mounts = {str(key): Path(value) for key, value in (mounts or {}).items()}
        self._batching = batching
        self._changing = threading.Lock()
        self.models = {}  # name -> version -> whatever runs it
        self.labels = {}  # name -> label -> version
        self.ended = {}  # name -> versions that were served before
        self.apply(config)

    def apply(self, config):
        """Loads what a configuration asks for, then unloads the rest."""
        with self._changing:
            self.config = config
            for model in config.model_config_list.config:
                self._apply(model)
            for name in set(self.models) - {
                model.name for model in config.model_config_list.config
            }:
                self.ended.setdefault(name, set()).update(self.models.pop(name))

    def poll(self):
        """Looks for new versions, as the server does every second."""
        self.apply(self.config)

    def _apply(self, model):
        base = self._mounts.get(model.base_path, Path(model.base_path))
        loaded = self.models.setdefault(model.name, {})
        wanted = _wanted_versions(model.model_version_policy, base)
        for version in wanted - set(loaded):
            saved_model = SavedModel(base / str(version))
            loaded[version] = (
                Batches(saved_model, self._batching) if self._batching else saved_model
            )
        for label, version in model.version_labels.items():
            if version not in wanted:
                raise ServingError(
                    "FAILED_PRECONDITION",
                    f"Request to assign label to version {version} of model {model.name}, which "
                    "is not currently available for inference",
                )
            self.labels.setdefault(model.name, {})[label] = version
        for version in set(loaded) - wanted:  # its session ends with the last request
            del loaded[version]
            self.ended.setdefault(model.name, set()).add(version)

    def find(self, spec) -> tuple[int, SavedModel | Batches]:
        """The version that a `ModelSpec` means, and what runs it."""
        loaded = self.models.get(spec.name, {})
        version = max(loaded, default=None)
        asked = f"Latest({spec.name})"
        if spec.HasField("version"):
            version = spec.version.value
            asked = f"Specific({spec.name}, {version})"
        elif spec.HasField("version_label"):
            version = self.labels.get(spec.name, {}).get(spec.version_label)
            if version is None:
                raise ServingError(
                    "INVALID_ARGUMENT", f"Unrecognized servable version label: {spec.version_label}"
                )
        if version not in loaded:
            raise ServingError("NOT_FOUND", f"Servable not found for request: {asked}")
        return version, loaded[version]

    def status(self, spec) -> get_model_status_pb2.GetModelStatusResponse:
        """The state of a model's versions, or of the one that is asked for."""
        loaded, ended = self.models.get(spec.name, {}), self.ended.get(spec.name, set())
        versions = sorted(set(loaded) | ended, reverse=True)
        if not versions:
            raise ServingError("NOT_FOUND", f"Could not find any versions of model {spec.name}")
        if spec.HasField("version"):
            versions = [version for version in versions if version == spec.version.value]
            if not versions:
                raise ServingError(
                    "NOT_FOUND",
                    f"Could not find version {spec.version.value} of model {spec.name}",
                )
        response = get_model_status_pb2.GetModelStatusResponse()
        for version in versions:
            state = response.model_version_status.add(version=version)
            state.state = state.AVAILABLE if version in loaded else state.END
            state.status.error_code = 0
        return response

    def predict(self, request, timeout: float | None = None):
        """Answers a `PredictRequest`."""
        version, model = self.find(request.model_spec)
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        if name not in model.signatures:
            raise ServingError("FAILED_PRECONDITION", f'Serving signature key "{name}" not found.')
        expected = set(model.signatures[name].inputs)
        if set(request.inputs) != expected:
            extra, missing = set(request.inputs) - expected, expected - set(request.inputs)
            raise ServingError(
                "INVALID_ARGUMENT",
                f"input size does not match signature: {len(request.inputs)}!={len(expected)}. "
                f"Sent extra: {{{','.join(sorted(extra))}}}. "
                f"Missing but required: {{{','.join(sorted(missing))}}}.",
            )
        inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
        try:
            outputs = model.run(name, inputs, timeout)
        except LoaderError as error:
            raise ServingError(error.code, error.message) from error
        response = predict_pb2.PredictResponse()
        response.model_spec.name, response.model_spec.signature_name = request.model_spec.name, name
        response.model_spec.version.value = version
        for key, array in outputs.items():
            response.outputs[key].CopyFrom(to_proto(array))
        return response


def _wanted_versions(policy, base: Path) -> set[int]:
    found = sorted(int(path.name) for path in base.iterdir() if path.name.isdecimal())
    if policy.HasField("all"):
        return set(found)
    if policy.HasField("specific"):
        return set(policy.specific.versions) & set(found)
    return set(found[-(policy.latest.num_versions or 1) :])


def to_proto(array: np.ndarray) -> tensor_pb2.TensorProto:
    """The form in which the server answers: one value a field entry."""
    proto = tensor_pb2.TensorProto()
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if array.dtype == object:
        proto.dtype = types_pb2.DT_STRING
        proto.string_val.extend(array.ravel())
    else:
        assert array.dtype == np.float32, "TensorFlow Serving is to answer float32 or strings"
        proto.dtype = types_pb2.DT_FLOAT
        proto.float_val.extend(array.ravel().tolist())
    return proto
