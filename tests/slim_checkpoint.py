"""A checkpoint with the names and shapes of TF-slim's inception_v1, and its forward pass.

Names, order and arguments are typed in from slim's inception_v1.py; the forward pass is plain
TensorFlow operations on the variables by their names.
"""

import numpy as np
import tensorflow as tf

# module -> widths; slim counts the pools, so that Mixed_3b is the paper's 3a
MODULES = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
EPSILON = 0.001  # inception_arg_scope


def convolutions(module, widths):
    """The six convolutions of a module: name, kernel, filters."""
    one, reduce3, three, reduce5, five, pool = widths
    last = "0a" if module == "Mixed_5b" else "0b"  # the misnamed one
    return [
        (f"{module}/Branch_0/Conv2d_0a_1x1", 1, one),
        (f"{module}/Branch_1/Conv2d_0a_1x1", 1, reduce3),
        (f"{module}/Branch_1/Conv2d_0b_3x3", 3, three),
        (f"{module}/Branch_2/Conv2d_0a_1x1", 1, reduce5),
        (f"{module}/Branch_2/Conv2d_{last}_3x3", 3, five),
        (f"{module}/Branch_3/Conv2d_0b_1x1", 1, pool),
    ]


def variables(seed=0, share=1):
    """Random variables of a network with a share of its filters, by name."""
    generator = np.random.default_rng(seed)
    found = {"global_step": np.int64(7)}

    def add(name, kernel, depth, filters):
        scope = f"InceptionV1/{name}"
        filters = filters // share
        shape = (kernel, kernel, depth if depth == 3 else depth // share, filters)
        values = generator.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:-1]))
        found[f"{scope}/weights"] = values.astype("float32")
        for part, low, high in (("beta", -0.2, 0.2), ("moving_mean", -0.2, 0.2)):
            found[f"{scope}/BatchNorm/{part}"] = generator.uniform(low, high, filters)
        found[f"{scope}/BatchNorm/moving_variance"] = generator.uniform(0.5, 1.5, filters)

    add("Conv2d_1a_7x7", 7, 3, 64)
    add("Conv2d_2b_1x1", 1, 64, 64)
    add("Conv2d_2c_3x3", 3, 64, 192)
    depth = 192
    for module, widths in MODULES.items():
        inputs = (depth, depth, widths[1], depth, widths[3], depth)
        for (name, kernel, filters), given in zip(
            convolutions(module, widths), inputs, strict=True
        ):
            add(name, kernel, given, filters)
        depth = widths[0] + widths[2] + widths[4] + widths[5]
    logits_scope = "InceptionV1/Logits/Conv2d_0c_1x1"
    found[f"{logits_scope}/weights"] = generator.standard_normal((1, 1, depth // share, 1001)) / 32
    found[f"{logits_scope}/biases"] = generator.uniform(-0.2, 0.2, 1001)
    return {n: v if n == "global_step" else v.astype("float32") for n, v in found.items()}


def save(values, prefix, old_form=True):
    """Writes a checkpoint: one file as in 2016, or an index and a data file."""
    v1 = tf.compat.v1
    version = v1.train.SaverDef.V1 if old_form else v1.train.SaverDef.V2
    with tf.Graph().as_default(), v1.Session() as session:
        made = [v1.get_variable(n, initializer=v, use_resource=False) for n, v in values.items()]
        session.run(v1.global_variables_initializer())
        v1.train.Saver(made, write_version=version).save(
            session, str(prefix), write_meta_graph=False
        )
    return prefix


def logits(values, images):
    """The 1001 logits of preprocessed images."""

    def conv(x, name, stride=1):
        scope = f"InceptionV1/{name}"
        x = tf.nn.conv2d(x, values[f"{scope}/weights"], stride, "SAME")
        norm = {p: values[f"{scope}/BatchNorm/{p}"] for p in ("moving_mean", "moving_variance")}
        beta = values[f"{scope}/BatchNorm/beta"]
        return tf.nn.relu(
            tf.nn.batch_normalization(
                x, norm["moving_mean"], norm["moving_variance"], beta, None, EPSILON
            )
        )

    x = tf.nn.max_pool2d(conv(tf.constant(images), "Conv2d_1a_7x7", 2), 3, 2, "SAME")
    x = conv(conv(x, "Conv2d_2b_1x1"), "Conv2d_2c_3x3")
    x = tf.nn.max_pool2d(x, 3, 2, "SAME")
    for module, widths in MODULES.items():
        if module == "Mixed_4b":
            x = tf.nn.max_pool2d(x, 3, 2, "SAME")
        if module == "Mixed_5b":
            x = tf.nn.max_pool2d(x, 2, 2, "SAME")
        names = [name for name, _, _ in convolutions(module, widths)]
        branches = [
            conv(x, names[0]),
            conv(conv(x, names[1]), names[2]),
            conv(conv(x, names[3]), names[4]),
            conv(tf.nn.max_pool2d(x, 3, 1, "SAME"), names[5]),
        ]
        x = tf.concat(branches, 3)
    x = tf.nn.avg_pool2d(x, 7, 1, "VALID")
    scope = "InceptionV1/Logits/Conv2d_0c_1x1"
    x = tf.nn.conv2d(x, values[f"{scope}/weights"], 1, "SAME") + values[f"{scope}/biases"]
    return x[:, 0, 0].numpy()
