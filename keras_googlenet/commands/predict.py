"""Names the most probable classes of images.

    python predict.py runs/shapes photo.jpg --top 5
    python predict.py runs/shapes folder/ --json
    python predict.py --server http://localhost:8501 photo.jpg

A folder stands for the images in it. Photos are turned upright by their EXIF orientation.
"""

import argparse
import contextlib
import json

from keras_googlenet import cli
from keras_googlenet.errors import UserError
from keras_googlenet.labels import TOP

NEEDS_SERVER = {"variant": False, "model_name": True, "model_version": True, "timeout": True}


def main():
    """Prints the classes of each image when they are known; with `--json`, all at the end."""
    flags = parse_flags()
    from keras_googlenet.data import folders
    from keras_googlenet.progress_bar import Progress

    errors, results = [], []
    files = folders.list_images(flags.images, cli.note, convertible=True, errors=errors)
    classify = ask_server if flags.server else run_model
    with contextlib.closing(Progress(len(files))) as progress:
        for file, predictions in classify(flags, files, errors):
            if flags.json:
                results.append(as_json(file, predictions))
            else:
                progress.print(as_text(file, predictions))
            progress.update(1)
    if flags.json:
        print(json.dumps(results))
    cli.fail_if(errors)


def parse_flags() -> argparse.Namespace:
    """Reads and checks the flags; with `--server` the first positional is an image too."""
    parser = cli.parser(__doc__)
    parser.usage = "%(prog)s [OPTION ...] (MODEL | --server ADDRESS) IMAGE [IMAGE ...]"
    cli.add_model(parser)
    images = "image file, or folder of them"
    parser.add_argument("images", metavar="IMAGE", nargs="*", type=cli.local, help=images)
    parser.add_argument("--top", type=cli.positive, default=TOP, help="classes to name")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    server = parser.add_argument_group("a network on TensorFlow Serving, in place of MODEL")
    address = "http://host:8501 (REST) or grpc://host:8500"
    server.add_argument("--server", metavar="ADDRESS", help=address)
    server.add_argument("--model-name", default="googlenet", help="its name on the server")
    server.add_argument("--model-version", help="a number or a label (default: the latest)")
    timeout = "seconds to wait for the answer to an image; REST restarts the count with each packet"
    server.add_argument("--timeout", type=cli.positive, default=30, help=timeout)
    flags = parser.parse_intermixed_args()
    if flags.server:
        flags.images.insert(0, flags.model)
    for flag, needed in NEEDS_SERVER.items():
        if getattr(flags, flag) != parser.get_default(flag) and needed != bool(flags.server):
            condition = "for --server only" if needed else "not for --server"
            parser.error(f"--{flag.replace('_', '-')} is {condition}; leave it out.")
    if flags.server and flags.top > TOP:
        parser.error(f"a server names {TOP} classes at most; give a smaller --top.")
    if not flags.images:
        parser.error("give a MODEL and an IMAGE, or --server and an IMAGE")
    return flags


def run_model(flags, files: list[str], errors: list[UserError]):
    """Yields each file and its `Prediction`s from a network on this machine."""
    cli.start_tensorflow()
    from keras_googlenet import imagenet, models
    from keras_googlenet.data import image_files, pillow_images

    loaded, turned = models.load(flags.model, flags.variant), {}
    for batch in image_files.image_batches(files, loaded.image_size, errors, turned=turned):
        scores = loaded.predict(batch.images)
        predictions = imagenet.decode_predictions(scores, flags.top, loaded.labels)
        for file, row, best in zip(batch.files, scores, predictions, strict=True):
            try:
                imagenet.check_scores(row, file)
            except UserError as error:
                errors.append(error)
            else:
                yield file, best
    pillow_images.note_turned(turned, cli.note)


def ask_server(flags, files: list[str], errors: list[UserError]):
    """Yields each file and its `Prediction`s from a network on a server."""
    from keras_googlenet import serving_client
    from keras_googlenet.data import pillow_images

    if flags.server.startswith("grpc"):
        cli.start_tensorflow()  # the protos of gRPC need it
    classify = serving_client.connect(
        serving_client.ServedModel(
            flags.server, flags.model_name, flags.model_version, flags.timeout
        )
    )
    turned = {}
    for file in files:
        try:
            content = pillow_images.upright_bytes(file, turned)
        except UserError as error:
            errors.append(error)
            continue
        try:
            predictions = classify(content)
        except serving_client.ImageRefused as error:
            errors.append(UserError(f"{file}: {error}"))
        except UserError as error:  # every other image would fail in the same way
            errors.append(error)
            break
        else:
            yield file, predictions[: flags.top]
    pillow_images.note_turned(turned, cli.note)


def as_json(file: str, predictions) -> dict:
    """Returns one image's result as JSON values, without an empty `wnid` or unknown `index`."""
    rows = [prediction._asdict() for prediction in predictions]
    known = [{key: value for key, value in row.items() if value not in ("", None)} for row in rows]
    return {"file": file, "predictions": known}


def as_text(file: str, predictions) -> str:
    """Formats one image's result, one line per class."""
    return "\n".join([file, *(f"{each.score:8.2%}  {each.name}" for each in predictions)])
