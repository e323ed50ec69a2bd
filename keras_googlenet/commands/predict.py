"""Names what is in a picture.

python predict.py runs/shapes photo.jpg --top 5
python predict.py runs/shapes folder/ --json
python predict.py --server http://localhost:8501 photo.jpg
"""

import json

from keras_googlenet import cli
from keras_googlenet.errors import UserError

LOCAL_OR_REMOTE = {"variant": False, "model_name": True, "model_version": True, "timeout": True}


def main():
    """Reads the flags and does what the docstring above says."""
    flags = read_flags()
    results, errors = [], []
    predict = ask_server if flags.server else run_model
    for file, predictions in predict(flags, errors):
        results.append(as_json(file, predictions))
    print(json.dumps(results) if flags.json else "\n".join(map(as_text, results)))
    cli.fail_if(errors)


def read_flags():
    """Returns the flags; with `--server` the first positional is a picture too."""
    parser = cli.parser(__doc__)
    parser.usage = "%(prog)s [OPTION ...] (MODEL | --server ADDRESS) IMAGE [IMAGE ...]"
    cli.add_model(parser)
    images = "image file, or folder of them"
    parser.add_argument("images", metavar="IMAGE", nargs="*", type=cli.local, help=images)
    parser.add_argument("--top", type=cli.positive, default=5, help="classes to name")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    remote = parser.add_argument_group("a network behind TensorFlow Serving, in place of MODEL")
    remote.add_argument(
        "--server", metavar="ADDRESS", help="http://host:8501 (REST) or grpc://host:8500"
    )
    remote.add_argument("--model-name", default="googlenet", help="its name on the server")
    remote.add_argument("--model-version", help="a number or a label (default: the latest)")
    remote.add_argument(
        "--timeout",
        type=cli.positive,
        default=30,
        help="seconds to wait for an image's answer; REST counts anew whenever some arrives",
    )
    flags = parser.parse_intermixed_args()
    if flags.server:
        flags.images.insert(0, flags.model)
    for flag, remote in LOCAL_OR_REMOTE.items():
        if getattr(flags, flag) != parser.get_default(flag) and remote != bool(flags.server):
            condition = "for --server only" if remote else "not for --server"
            parser.error(f"--{flag.replace('_', '-')} is {condition}; leave it out.")
    if not flags.images:
        parser.error("give a MODEL and an IMAGE, or --server and an IMAGE")
    return flags


def run_model(flags, errors: list[UserError]):
    """Yields each picture's file and `Prediction`s by a network on this machine."""
    cli.start_tensorflow()
    from keras_googlenet import imagenet, models
    from keras_googlenet.data import folders, image_files

    files = folders.list_images(flags.images, cli.note, convertible=True)
    loaded = models.load(flags.model, flags.variant)
    turned = {}
    for batch in image_files.image_batches(files, loaded.image_size, errors, turned=turned):
        scores = loaded.predict(batch.images)
        named = imagenet.decode_predictions(scores, flags.top, loaded.labels)
        for file, row, predictions in zip(batch.files, scores, named, strict=True):
            try:
                imagenet.check_scores(row, file)
            except UserError as error:
                errors.append(error)
                continue
            yield file, predictions
    image_files.note_turned(turned, cli.note)


def ask_server(flags, errors: list[UserError]):
    """Yields each picture's file and `Prediction`s by a network on a server."""
    from keras_googlenet import serving_client
    from keras_googlenet.data import folders, image_files

    if flags.top > serving_client.MOST_CLASSES:
        raise UserError(
            f"a server names {serving_client.MOST_CLASSES} classes at most; give a smaller --top."
        )
    if flags.server.startswith("grpc"):
        cli.start_tensorflow()  # the protos of gRPC need it
    model = serving_client.ServedModel(
        flags.server, flags.model_name, flags.model_version, flags.timeout
    )
    classify = serving_client.connect(model)
    turned = {}
    for file in folders.list_images(flags.images, cli.note, convertible=True):
        try:
            content = image_files.upright_bytes(file, turned)
        except UserError as error:
            errors.append(error)
            continue
        try:
            yield file, classify(content)[: flags.top]
        except serving_client.ImageRefused as error:
            errors.append(UserError(f"{file}: {error}"))
        except UserError as error:  # the next picture would meet it too
            errors.append(error)
            break
    image_files.note_turned(turned, cli.note)


def as_json(file: str, predictions) -> dict:
    """Returns one picture's result as plain JSON values; `wnid`, `index` where there is one."""
    rows = [prediction._asdict() for prediction in predictions]
    kept = [{key: value for key, value in row.items() if value not in ("", None)} for row in rows]
    return {"file": file, "predictions": kept}


def as_text(result: dict) -> str:
    """Lays one picture's result out with a line a class."""
    lines = [f"{row['score']:8.2%}  {row['name']}" for row in result["predictions"]]
    return "\n".join([result["file"], *lines])
