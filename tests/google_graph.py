"""A frozen graph with the names, shapes and attributes of Google's "inception5h", for tests.

Built from TensorFlow's own operations, so that TensorFlow can run it: the forward pass that it
describes owes nothing to the package.
"""

import numpy as np
import tensorflow as tf
from reference import INCEPTION

WIDTHS = INCEPTION | {
    "4a": (192, 96, 204, 16, 48, 64),
    "5a": (256, 160, 320, 48, 128, 128),
}
LRN = {"depth_radius": 5, "bias": 2.0, "alpha": 1e-4, "beta": 0.5}


def build(seed=0, heads=True, lrn=LRN, padding="SAME", share=1):
    """A GraphDef of random weights with 1008 outputs a head, and a share of the filters."""
    generator = np.random.default_rng(seed)
    nn = tf.compat.v1.nn

    def constant(name, shape):
        values = generator.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:-1]))
        if len(shape) == 1:
            values = generator.uniform(-0.2, 0.2, shape)
        return tf.constant(values.astype("float32"), name=name)

    def conv(x, filters, kernel, name, stride=1):
        w = constant(f"{name}_w", (kernel, kernel, x.shape[-1], filters))
        b = constant(f"{name}_b", (filters,))
        x = nn.conv2d(x, w, stride, padding, name=f"{name}_pre_relu/conv")
        return nn.relu(nn.bias_add(x, b, name=f"{name}_pre_relu"), name=name)

    def linear(x, units, name, pre, activation):
        w, b = constant(f"{name}_w", (x.shape[-1], units)), constant(f"{name}_b", (units,))
        x = nn.bias_add(tf.matmul(x, w, name=f"{name}_{pre}/matmul"), b, name=f"{name}_{pre}")
        return activation(x, name=name)

    def head(x, number):
        x = nn.avg_pool2d(x, 5, 3, "VALID", name=f"head{number}_pool")
        x = conv(x, 128 // share, 1, f"head{number}_bottleneck")
        x = tf.reshape(x, (-1, 2048 // share), name=f"head{number}_bottleneck/reshape")
        x = linear(x, 1024 // share, f"nn{number}", "pre_relu", nn.relu)
        linear(x, 1008, f"softmax{number}", "pre_activation", nn.softmax)

    def module(x, name, widths):
        one, reduce3, three, reduce5, five, pool = (filters // share for filters in widths)
        pooled = nn.max_pool2d(x, 3, 1, "SAME", name=f"{name}_pool")
        branches = [
            conv(x, one, 1, f"{name}_1x1"),
            conv(conv(x, reduce3, 1, f"{name}_3x3_bottleneck"), three, 3, f"{name}_3x3"),
            conv(conv(x, reduce5, 1, f"{name}_5x5_bottleneck"), five, 5, f"{name}_5x5"),
            conv(pooled, pool, 1, f"{name}_pool_reduce"),
        ]
        return tf.concat(branches, 3, name=name)

    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (None, 224, 224, 3), name="input")
        x = nn.max_pool2d(conv(x, 64 // share, 7, "conv2d0", 2), 3, 2, "SAME", name="maxpool0")
        x = conv(nn.lrn(x, **lrn, name="localresponsenorm0"), 64 // share, 1, "conv2d1")
        x = nn.lrn(conv(x, 192 // share, 3, "conv2d2"), **lrn, name="localresponsenorm1")
        x = nn.max_pool2d(x, 3, 2, "SAME", name="maxpool1")
        taps = {}
        for name, widths in WIDTHS.items():
            if name in ("4a", "5a"):
                x = nn.max_pool2d(x, 3, 2, "SAME", name="maxpool4" if name == "4a" else "maxpool10")
            taps[name] = x = module(x, f"mixed{name}", widths)
        if heads:
            head(taps["4a"], 0)
            head(taps["4d"], 1)
        x = nn.avg_pool2d(x, 7, 1, "VALID", name="avgpool0")
        linear(tf.reshape(x, (-1, 1024 // share)), 1008, "softmax2", "pre_activation", nn.softmax)
    return graph.as_graph_def()


def logits(graph_def, images, heads=(2, 0, 1)):
    """What TensorFlow computes from the graph for preprocessed images: main, aux1, aux2."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.import_graph_def(graph_def, name="")
        return session.run([f"softmax{n}_pre_activation:0" for n in heads], {"input:0": images})
