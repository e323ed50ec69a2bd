"""Trainable parameters and multiply-adds of each variant, counted from the built layers.

python -m benchmarks.variants
"""

import numpy as np

from keras_googlenet import cli


def main():
    """Prints a Markdown table with one row per variant."""
    cli.start_tensorflow()
    from keras_googlenet.googlenet import VARIANTS, GoogLeNet, inference_model

    print("| variant | classes | parameters, main | with both heads | multiply-adds, main |")
    print("|---|---|---|---|---|")
    for variant, spec in VARIANTS.items():
        model = GoogLeNet(variant=variant, classes=spec.classes)
        single = inference_model(model)
        print(
            f"| `{variant}` | {spec.classes} | {parameters(single):,} | {parameters(model):,} "
            f"| {sum(map(multiply_adds, single.layers)):,} |"
        )


def parameters(model) -> int:
    """Counts the trainable parameters."""
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def multiply_adds(layer) -> int:
    """Counts the multiplications of a convolution or linear layer; 0 for other layers."""
    kernel = getattr(layer, "kernel", None)
    if kernel is None:
        return 0
    positions = layer.output.shape[1:-1]  # empty for a linear layer
    return int(np.prod(kernel.shape) * np.prod(positions, initial=1))


if __name__ == "__main__":
    cli.run(main)
