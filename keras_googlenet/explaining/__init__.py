"""What the network sees: maps of evidence by method, module, branch and head, and features."""

from keras_googlenet.explaining.branches import branch_maps
from keras_googlenet.explaining.cam import gradcam

__all__ = ["branch_maps", "gradcam"]
