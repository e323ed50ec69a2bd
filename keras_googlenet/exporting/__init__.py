"""A trained network as files that run without this project."""

from keras_googlenet.exporting.litert import export_litert
from keras_googlenet.exporting.onnx_file import export_onnx
from keras_googlenet.exporting.openvino_file import export_openvino
from keras_googlenet.exporting.saved_model import export_saved_model

__all__ = ["export_litert", "export_onnx", "export_openvino", "export_saved_model"]
