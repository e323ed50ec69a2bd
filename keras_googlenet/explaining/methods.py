"""The table of explanation methods, which needs neither TensorFlow nor Keras.

To add a method: a row here, its function in cam.py, and a test in tests/test_explaining.py. The
scripts, the figures and the benchmark read the table.

Below, A_k are the channels of a layer, and g_k the gradients of the class's logit with respect to
them. Maps of a layer have its resolution, so those of early modules are finer.
"""

from typing import NamedTuple


class Method(NamedTuple):
    """How a map is computed."""

    function: str  # its name in cam.py
    uses_layer: bool  # layer-based, by the weights of its channels; else pixel-based
    unit: str  # of the color bar


_EVIDENCE, _WEIGHTED = "evidence, logit per cell", "weighted activation"
_GRADIENT = "logit per gray level"

METHODS = {
    # relu(sum over k of mean(g_k) A_k). Selvaraju et al. 2017.
    "gradcam": Method("gradient_cam", True, _EVIDENCE),
    # The same, with the positive gradients weighted by their second and third powers, up to a
    # positive factor. Chattopadhay et al. 2018.
    "gradcam++": Method("gradient_cam_plus_plus", True, _WEIGHTED),
    # relu(sum over k of relu(g_k) A_k). Jiang et al. 2021.
    "layercam": Method("layer_cam", True, _EVIDENCE),
    # relu(sum over k of p_k A_k), where p_k is the class's probability when the image is masked
    # by A_k, over the 256 channels that vary most. Wang et al. 2020. Differs from the paper: p_k
    # is not compared with that of a blank image.
    "scorecam": Method("score_cam", True, _WEIGHTED),
    # The greatest absolute gradient of a pixel's three colors. Simonyan et al. 2014.
    "saliency": Method("saliency", False, _GRADIENT),
    # The same of the mean gradient over 25 noisy copies. Smilkov et al. 2017.
    "smoothgrad": Method("smoothgrad", False, _GRADIENT),
}
