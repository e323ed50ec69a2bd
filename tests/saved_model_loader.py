"""The C++ loader that TensorFlow Serving uses, by the C API of the installed TensorFlow.

`tensorflow_model_server` loads a SavedModel into a C++ session and runs it there, without
Python's objects, functions or registrations. So does this: an export that runs here needs nothing
but its own files.
"""

import contextlib
import ctypes
import weakref
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2

STRING = types_pb2.DT_STRING
STRING_BYTES = 24  # sizeof(TF_TString)
ERROR_NAMES = {code: name for name, code in vars(tf.errors).items() if name.isupper()}


class LoaderError(Exception):
    """What the C++ library refused: the code's name, such as INVALID_ARGUMENT, and its message."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = ERROR_NAMES[code]
        self.message = message


class _Output(ctypes.Structure):  # TF_Output
    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


class _Buffer(ctypes.Structure):  # TF_Buffer
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
        ("deallocator", ctypes.c_void_p),
    ]


def _library() -> ctypes.CDLL:
    """The library with the result type of each function that is used; the default is int."""
    library = ctypes.CDLL(str(Path(tf.__file__).parent / "libtensorflow_cc.so.2"))
    pointers = """NewStatus NewSessionOptions NewGraph NewBuffer
        LoadSessionFromSavedModel GraphOperationByName AllocateTensor TensorData
        StringGetDataPointer"""
    for name in pointers.split():
        getattr(library, f"TF_{name}").restype = ctypes.c_void_p
    library.TF_Message.restype = ctypes.c_char_p
    for name in ("TensorByteSize", "StringGetSize", "TensorElementCount", "Dim"):
        getattr(library, f"TF_{name}").restype = ctypes.c_size_t
    return library


C = _library()


@contextlib.contextmanager
def _status():
    """A TF_Status for one call; raises what the call left in it."""
    status = ctypes.c_void_p(C.TF_NewStatus())
    try:
        yield status
        if C.TF_GetCode(status):
            message = C.TF_Message(status).decode("utf-8", "replace")
            raise LoaderError(C.TF_GetCode(status), message)
    finally:
        C.TF_DeleteStatus(status)


class SavedModel:
    """A SavedModel in a C++ session.

    Attributes:
        signatures: `SignatureDef`s by name, as the loader read them.
    """

    def __init__(self, folder):
        self._graph = ctypes.c_void_p(C.TF_NewGraph())
        options = ctypes.c_void_p(C.TF_NewSessionOptions())
        meta_graph = ctypes.c_void_p(C.TF_NewBuffer())
        tags = (ctypes.c_char_p * 1)(b"serve")
        try:
            with _status() as status:
                self._session = ctypes.c_void_p(
                    C.TF_LoadSessionFromSavedModel(
                        options,
                        None,
                        str(folder).encode(),
                        tags,
                        1,
                        self._graph,
                        meta_graph,
                        status,
                    )
                )
            content = _Buffer.from_address(meta_graph.value)
            self.signatures = meta_graph_pb2.MetaGraphDef.FromString(
                ctypes.string_at(content.data, content.length)
            ).signature_def
        finally:
            C.TF_DeleteBuffer(meta_graph)
            C.TF_DeleteSessionOptions(options)
        weakref.finalize(self, _close, self._session, self._graph)

    def run(self, signature: str, inputs: dict) -> dict:
        """Runs a signature; any number of threads may at once.

        Args:
            signature: Key of `signatures`.
            inputs: Arrays by the signature's input names; of strings, arrays of `bytes`.

        Returns:
            Arrays by the signature's output names.
        """
        definition = self.signatures[signature]
        keep_alive = []
        feeds = [(definition.inputs[name], value) for name, value in inputs.items()]
        input_tensors = [
            _to_tensor(np.asarray(value), info.dtype, keep_alive) for info, value in feeds
        ]
        names = list(definition.outputs)
        outputs = self._run(
            [self._endpoint(info) for info, _ in feeds],
            input_tensors,
            [self._endpoint(definition.outputs[name]) for name in names],
        )
        return dict(zip(names, outputs, strict=True))

    def _run(self, feeds, input_tensors, fetches) -> list[np.ndarray]:
        outputs = (ctypes.c_void_p * len(fetches))()
        try:
            with _status() as status:
                C.TF_SessionRun(
                    self._session,
                    None,
                    (_Output * len(feeds))(*feeds),
                    (ctypes.c_void_p * len(feeds))(*input_tensors),
                    len(feeds),
                    (_Output * len(fetches))(*fetches),
                    outputs,
                    len(fetches),
                    None,
                    0,
                    None,
                    status,
                )
            return [_to_array(ctypes.c_void_p(output)) for output in outputs]
        finally:
            for tensor in [*input_tensors, *outputs]:
                C.TF_DeleteTensor(ctypes.c_void_p(tensor))

    def _endpoint(self, info) -> _Output:
        operation, _, index = info.name.rpartition(":")
        return _Output(C.TF_GraphOperationByName(self._graph, operation.encode()), int(index))


def _close(session: ctypes.c_void_p, graph: ctypes.c_void_p):
    with _status() as status:
        C.TF_CloseSession(session, status)
    with _status() as status:
        C.TF_DeleteSession(session, status)
    C.TF_DeleteGraph(graph)


def _to_tensor(array: np.ndarray, dtype: int, keep_alive: list) -> int:
    """Copies an array into a new TF_Tensor; strings are views of bytes that `keep_alive` holds."""
    sizes = (ctypes.c_int64 * array.ndim)(*array.shape)
    if dtype != STRING:
        array = np.ascontiguousarray(array, tf.as_dtype(dtype).as_numpy_dtype)
    length = array.size * (STRING_BYTES if dtype == STRING else array.itemsize)
    tensor = C.TF_AllocateTensor(dtype, sizes, array.ndim, ctypes.c_size_t(length))
    data = C.TF_TensorData(ctypes.c_void_p(tensor))
    if dtype != STRING:
        ctypes.memmove(data, array.ctypes.data, length)
        return tensor
    for index, text in enumerate(array.ravel()):
        keep_alive.append(text)
        address = ctypes.c_void_p(data + index * STRING_BYTES)
        C.TF_StringInit(address)
        C.TF_StringAssignView(address, ctypes.c_char_p(text), ctypes.c_size_t(len(text)))
    return tensor


def _to_array(tensor: ctypes.c_void_p) -> np.ndarray:
    shape = [C.TF_Dim(tensor, axis) for axis in range(C.TF_NumDims(tensor))]
    data, dtype = C.TF_TensorData(tensor), C.TF_TensorType(tensor)
    if dtype != STRING:
        content = ctypes.string_at(data, C.TF_TensorByteSize(tensor))
        return np.frombuffer(content, tf.as_dtype(dtype).as_numpy_dtype).reshape(shape)
    addresses = [
        ctypes.c_void_p(data + index * STRING_BYTES)
        for index in range(C.TF_TensorElementCount(tensor))
    ]
    texts = [
        ctypes.string_at(C.TF_StringGetDataPointer(text), C.TF_StringGetSize(text))
        for text in addresses
    ]
    return np.array(texts, object).reshape(shape)
