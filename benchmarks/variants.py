"""What each variant costs: trainable parameters and multiply-adds, counted from the built layers.

python -m benchmarks.variants
"""

import numpy as np

from keras_googlenet import cli

CLASSES = {"slim": 1001, "google": 1008}  # of the published weights; 1000 otherwise


def main():
    """Prints a Markdown table with a row a variant."""
    cli.start_tensorflow()
    from keras_googlenet.googlenet import VARIANTS, GoogLeNet, inference_model

    print("| variant | classes | parameters, main | with both heads | multiply-adds, main |")
    print("|---|---|---|---|---|")
    for variant in VARIANTS:
        classes = CLASSES.get(variant, 1000)
        model = GoogLeNet(variant=variant, classes=classes)
        single = inference_model(model)
        print(
            f"| `{variant}` | {classes} | {parameters(single):,} | {parameters(model):,} "
            f"| {sum(map(multiply_adds, single.layers)):,} |"
        )


def parameters(model) -> int:
    """Counts what is trained."""
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def multiply_adds(layer) -> int:
    """Counts the products of a convolution or linear layer; 0 for any other."""
    kernel = getattr(layer, "kernel", None)
    if kernel is None:
        return 0
    positions = layer.output.shape[1:-1]  # none of a linear layer
    return int(np.prod(kernel.shape) * np.prod(positions, initial=1))


if __name__ == "__main__":
    cli.run(main)
