"""A loopback peer of TensorFlow Serving: the same REST and gRPC interfaces over the same loader.

    python tests/serving_peer.py serving/googlenet --rest-port 8501 --grpc-port 8500

It stands in for `tensorflow_model_server`, which no package registry has, built on the official
protos and stubs of tensorflow-serving-api. It is for tests and for trying clients, not for use.
"""

import argparse
import contextlib
import http.server
import json
import threading
import time
from concurrent import futures
from pathlib import Path

import grpc
import serving_core
import serving_rest
from serving_core import Core, ServingError
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)

HOST = "127.0.0.1"
THREADS = 32
NO_LIMIT = [("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)]


@contextlib.contextmanager
def _errors_to(context):
    """Ends the call as the server would."""
    try:
        yield
    except ServingError as error:
        context.abort(getattr(grpc.StatusCode, error.code), error.message)


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """`Predict`, `GetModelMetadata`, and the refusal of `Classify` and `Regress`."""

    def __init__(self, core: Core):
        self.core = core

    def Predict(self, request, context):
        with _errors_to(context):
            return self.core.predict(request, context.time_remaining())

    def Classify(self, request, context):
        self._refuse("classify", request, context)

    def Regress(self, request, context):
        self._refuse("regress", request, context)

    def _refuse(self, verb, request, context):
        with _errors_to(context):
            _, model = self.core.find(request.model_spec)
            name = request.model_spec.signature_name or serving_core.DEFAULT_SIGNATURE
            if name not in model.signatures:
                raise ServingError(
                    "INVALID_ARGUMENT", f"No signature was found with the name: {name}"
                )
            raise serving_rest.wrong_method(verb, model.signatures[name].method_name)

    def GetModelMetadata(self, request, context):
        with _errors_to(context):
            version, model = self.core.find(request.model_spec)
            signatures = get_model_metadata_pb2.SignatureDefMap()
            for key, signature in model.signatures.items():
                signatures.signature_def[key].CopyFrom(signature)
            response = get_model_metadata_pb2.GetModelMetadataResponse()
            response.model_spec.name = request.model_spec.name
            response.model_spec.version.value = version
            response.metadata["signature_def"].Pack(signatures)
            return response


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """Status of the versions, and a new configuration while the server runs."""

    def __init__(self, core: Core):
        self.core = core

    def GetModelStatus(self, request, context):
        with _errors_to(context):
            return self.core.status(request.model_spec)

    def HandleReloadConfigRequest(self, request, context):
        with _errors_to(context):
            self.core.apply(request.config)
            return model_management_pb2.ReloadConfigResponse()


class Peer:
    """Both interfaces on free or given ports; a context manager that stops them.

    Attributes:
        core: What answers.
        rest: Address for `predict.py --server`, `http://127.0.0.1:…`.
        grpc: The same of gRPC, `grpc://127.0.0.1:…`.
    """

    def __init__(self, core: Core, rest_port: int = 0, grpc_port: int = 0):
        self.core = core
        self._rest = http.server.ThreadingHTTPServer(
            (HOST, rest_port), serving_rest.handler(core), bind_and_activate=False
        )
        self._rest.daemon_threads = True
        self._rest.request_queue_size = 128
        self._rest.server_bind()
        self._rest.server_activate()
        self._grpc = grpc.server(futures.ThreadPoolExecutor(THREADS), options=NO_LIMIT)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            PredictionService(core), self._grpc
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(core), self._grpc)
        self.grpc = f"grpc://{HOST}:{self._grpc.add_insecure_port(f'{HOST}:{grpc_port}')}"
        self.rest = f"http://{HOST}:{self._rest.server_address[1]}"

    def __enter__(self):
        self._grpc.start()
        threading.Thread(target=self._rest.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._rest.shutdown()
        self._rest.server_close()
        self._grpc.stop(grace=None).wait()


def core_of(folder, batching: bool = False) -> Core:
    """A core over what `export.py` wrote into a folder, mounted as its compose file mounts it."""
    folder = Path(folder).resolve()
    config = serving_core.read_config(folder / "models.config")
    mounts = {model.base_path: folder for model in config.model_config_list.config}
    parameters = (
        serving_core.read_batching(folder / "batching_parameters.txt") if batching else None
    )
    return Core(config, mounts, parameters)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="OUTPUT of export.py")
    parser.add_argument("--rest-port", type=int, default=8501)
    parser.add_argument("--grpc-port", type=int, default=8500)
    parser.add_argument("--batching", action="store_true")
    flags = parser.parse_args()
    core = core_of(flags.folder, flags.batching)
    with Peer(core, flags.rest_port, flags.grpc_port) as peer:
        print(json.dumps({"rest": peer.rest, "grpc": peer.grpc}), flush=True)
        while True:
            time.sleep(1)
            with contextlib.suppress(ServingError):
                core.apply(serving_core.read_config(Path(flags.folder) / "models.config"))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
