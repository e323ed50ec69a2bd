"""Turns published weights into a Keras model.

    python convert.py bvlc_googlenet.caffemodel googlenet.keras --verify photo.jpg

SOURCE is a Caffe model, a torchvision .pth or .safetensors, a TF-slim checkpoint or its tar.gz,
or Google's frozen graph or its zip; the content decides which. Class names go beside OUTPUT.
"""

from pathlib import Path

from keras_googlenet import cli
from keras_googlenet.errors import UserError


def main():
    """Reads the flags and does what the docstring above says."""
    parser = cli.parser(__doc__)
    parser.add_argument("source", metavar="SOURCE", type=cli.local, help="published file")
    parser.add_argument(
        "output", metavar="OUTPUT", type=cli.local_path, help=".keras file to write"
    )
    parser.add_argument("--variant", help="refuse a file of any other variant")
    shown = "name what is in a picture"
    parser.add_argument("--verify", metavar="IMAGE", type=cli.local, help=shown)
    flags = parser.parse_args()
    output = Path(flags.output)
    if output.suffix != ".keras":
        raise UserError(f"OUTPUT must end in .keras; it is {output}.")
    cli.start_tensorflow()

    from keras_googlenet.data import image_files
    from keras_googlenet.weights import conversion, publishers

    image = image_files.read_image(flags.verify) if flags.verify else None
    converted = conversion.convert_file(flags.source, flags.variant)
    print(as_table(converted))
    print(publishers.provenance(converted.source.variant, Path(flags.source)))
    conversion.save(converted.model, output)
    if image is not None:
        print(verify(output, image, flags.verify))
    print(output)


def as_table(converted) -> str:
    """Lays out what went where, and what did not."""
    model, source = converted.model, converted.source
    arrays = [
        f"{row.layer:26}  {row.source:56}  {'x'.join(map(str, row.shape)):>16}  {row.norm:10.4f}"
        for row in converted.ported
    ]
    lines = [
        f"{source.format}: variant {source.variant}, {model.outputs[0].shape[-1]} classes, "
        f"{model.count_params():,} parameters",
        f"{'layer':26}  {'in the file':56}  {'shape':>16}  {'norm':>10}",
        *arrays,
        f"absent: {', '.join(converted.absent) or 'nothing'}",
        f"unused: {', '.join(converted.unused) or 'nothing'}",
    ]
    return "\n".join(lines)


def verify(model_file: Path, image, name: str) -> str:
    """Names what the file that was just written sees in a picture."""
    from keras_googlenet import imagenet, models
    from keras_googlenet.data import preprocessing

    loaded = models.load(model_file)
    view = preprocessing.evaluation_view(image, loaded.image_size).numpy()
    best = imagenet.decode_predictions(loaded.predict(view[None]), labels=loaded.labels)[0]
    return "\n".join([name, *(f"{row.score:8.2%}  {row.name}" for row in best)])


if __name__ == "__main__":
    cli.run(main)
