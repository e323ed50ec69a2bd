"""GoogLeNet in NumPy, written from the paper and Caffe's definitions, without any framework.

Only what the tests need: one dtype (float64), NHWC, plain windows. It shares no code and no table
with the package, so that a mistake there cannot hide here.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

# 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection: typed in from Table 1 of the paper
INCEPTION = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def same_padding(size, window, stride):
    """TensorFlow's "same": before and after, the odd one after."""
    total = max((-(-size // stride) - 1) * stride + window - size, 0)
    return total // 2, total - total // 2


def windows(x, window, stride, padding, fill=0.0):
    """`(n, h, w, c)` -> `(n, h', w', c, window, window)`."""
    pads = [padding if padding != "same" else same_padding(s, window, stride) for s in x.shape[1:3]]
    x = np.pad(x, [(0, 0), *pads, (0, 0)], constant_values=fill)
    return sliding_window_view(x, (window, window), axis=(1, 2))[:, ::stride, ::stride]


def convolve(x, kernel, bias=0.0, stride=1, padding="same"):
    return np.einsum("nhwcyx,yxco->nhwo", windows(x, len(kernel), stride, padding), kernel) + bias


def max_pool(x, window, stride):
    return windows(x, window, stride, "same", fill=-np.inf).max(axis=(-2, -1))


def average_pool(x, window, stride):
    return windows(x, window, stride, (0, 0)).mean(axis=(-2, -1))


def relu(x):
    return np.maximum(x, 0)


def local_response(x, radius=2, bias=1.0, alpha=2e-5, beta=0.75):
    result = np.empty_like(x)
    for channel in range(x.shape[-1]):
        near = x[..., max(0, channel - radius) : channel + radius + 1]
        divisor = (bias + alpha * (near**2).sum(axis=-1)) ** beta
        result[..., channel] = x[..., channel] / divisor
    return result


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def conv_relu(x, weights, name, stride=1, padding="same"):
    kernel, bias = weights[name]
    return relu(convolve(x, kernel, bias, stride, padding))


def inception(x, weights, name):
    return np.concatenate(
        [
            conv_relu(x, weights, f"{name}_1x1"),
            conv_relu(conv_relu(x, weights, f"{name}_3x3_reduce"), weights, f"{name}_3x3"),
            conv_relu(conv_relu(x, weights, f"{name}_5x5_reduce"), weights, f"{name}_5x5"),
            conv_relu(max_pool(x, 3, 1), weights, f"{name}_pool_proj"),
        ],
        axis=-1,
    )


def aux_logits(x, weights, name):
    x = conv_relu(average_pool(x, 5, 3), weights, f"{name}_conv")
    kernel, bias = weights[f"{name}_fc"]
    x = relu(x.reshape(len(x), -1) @ kernel + bias)
    kernel, bias = weights[name]
    return x @ kernel + bias


def googlenet_logits(x, weights):
    """Logits of main, aux1 and aux2 for preprocessed images `(n, h, w, 3)`."""
    x = conv_relu(x, weights, "conv1_7x7_s2", stride=2, padding=(3, 3))
    x = local_response(max_pool(x, 3, 2))
    x = conv_relu(x, weights, "conv2_3x3_reduce")
    x = conv_relu(x, weights, "conv2_3x3")
    x = max_pool(local_response(x), 3, 2)
    maps = {}
    for module in INCEPTION:
        if module in ("4a", "5a"):
            x = max_pool(x, 3, 2)
        maps[module] = x = inception(x, weights, f"inception_{module}")
    kernel, bias = weights["main"]
    main = x.mean(axis=(1, 2)) @ kernel + bias
    return main, aux_logits(maps["4a"], weights, "aux1"), aux_logits(maps["4d"], weights, "aux2")


def weights_of(model):
    """Weights of a Keras model by layer name, in float64."""
    return {
        layer.name: [np.asarray(weight, "float64") for weight in layer.weights]
        for layer in model.layers
        if layer.weights
    }
