"""Servers on this machine that carry requests to a function, and its answers or errors back.

Neither is TensorFlow Serving. The requests are checked as its interfaces document them (the
official stubs of gRPC, the paths and documents of REST); what is computed is the C++ loader's.
"""

import base64
import contextlib
import http.server
import json
import re
import socketserver
import threading
from concurrent import futures

import numpy as np
import tensorflow as tf
from saved_model_loader import LoaderError

PREDICTION = re.compile(r"/v1/models/\w+(?:/versions/\d+|/labels/[\w%]+)?:predict")


@contextlib.contextmanager
def grpc_server(predict, options=()):
    """Answers `Predict` by `predict(request, context)`; gives the address."""
    import grpc
    from tensorflow_serving.apis import prediction_service_pb2_grpc as services

    class Service(services.PredictionServiceServicer):
        def Predict(self, request, context):
            return predict(request, context)

    server = grpc.server(futures.ThreadPoolExecutor(4), options=options)
    services.add_PredictionServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@contextlib.contextmanager
def http_server(answer):
    """Answers by `answer(path, body)`: status, bytes or JSON, headers; or None to hang up."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.respond(answer(self.path, None))

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.respond(answer(self.path, body))

        def respond(self, answered):
            if answered is None:
                return
            status, document, *headers = answered
            content = document if isinstance(document, bytes) else json.dumps(document).encode()
            with contextlib.suppress(OSError):  # the client may have given up
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                for name, value in headers[0].items() if headers else ():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


@contextlib.contextmanager
def socket_server(talk):
    """Runs `talk(connection)` for each client that connects; gives host and port."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            with contextlib.suppress(OSError):  # the client may have given up
                talk(self.request)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def grpc_of(model):
    """What answers `grpc_server` by a `SavedModel` of the loader."""
    import grpc
    from tensorflow_serving.apis import predict_pb2

    def predict(request, context):
        inputs = {name: tf.make_ndarray(proto) for name, proto in request.inputs.items()}
        try:
            outputs = model.run(request.model_spec.signature_name, inputs)
        except LoaderError as error:
            context.abort(getattr(grpc.StatusCode, error.code), error.message)
        protos = {name: tf.make_tensor_proto(array) for name, array in outputs.items()}
        return predict_pb2.PredictResponse(outputs=protos)

    return predict


def rest_of(model):
    """What answers `http_server` by a `SavedModel`: rows (`instances`) or columns (`inputs`)."""

    def answer(path, body):
        assert PREDICTION.fullmatch(path), path
        document = json.loads(body)
        signature = document["signature_name"]
        (name,) = model.signatures[signature].inputs
        rows = document["instances"] if "instances" in document else document["inputs"][name]
        images = [base64.b64decode(row["b64"]) for row in rows]
        try:
            outputs = model.run(signature, {name: np.array(images, object)})
        except LoaderError as error:
            return 400, {"error": error.message}
        scores, classes = outputs["scores"].tolist(), outputs["classes"].astype(str).tolist()
        if "inputs" in document:
            return 200, {"outputs": {"classes": classes, "scores": scores}}
        pairs = zip(classes, scores, strict=True)
        return 200, {"predictions": [{"classes": c, "scores": s} for c, s in pairs]}

    return answer
