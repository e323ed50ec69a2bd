"""Measures networks on a data set: loss, top-1 and top-5 accuracy of each head.

    python evaluate.py runs/shapes
    python evaluate.py runs/shapes --crops 144 --report report
    python evaluate.py runs/a runs/b runs/c --table
    python evaluate.py googlenet.keras --dataset ILSVRC2012_img_val --labels val.txt

The predictions of several networks are averaged. A run directory is measured on the images that it
held out. --table prints the paper's Table 3 from one pass over the data. --report writes an HTML
page with the errors by class, the confusion matrix, calibration, and the worst mistakes.
"""

import argparse
import json
import os
import time

from keras_googlenet import cli

CROPS = (1, 10, 144)  # Table 3


def main():
    """Evaluates the models."""
    start = time.time()
    flags = parse_flags()
    cli.start_tensorflow()
    from keras_googlenet.data.multicrop import SIDES
    from keras_googlenet.evaluation import class_matching, measure, metrics, report
    from keras_googlenet.evaluation.ensemble import make_ensemble
    from keras_googlenet.training.distribution import choose_strategy

    os.environ.pop("TF_CONFIG", None)  # evaluation runs on one machine
    strategy = choose_strategy()
    with strategy.scope():
        networks = load_networks(flags)
    dataset = open_dataset(flags, networks)
    name = dataset.contents.dataset
    cli.note(str(dataset.contents))
    classes = class_matching.match_classes([network.labels for network in networks], dataset.labels)
    sides = tuple(flags.sizes or SIDES)
    ensemble = make_ensemble(networks, classes, crop_counts(flags), sides, flags.table)
    split, record_file = dataset.validation, None
    if flags.report:
        settings = ensemble.settings(split, name)
        record_file = measure.RecordFile(flags.report, settings, ensemble.record_type, flags.resume)
    records = measure.measure_split(
        ensemble, split, flags.batch_size, strategy, record_file, cli.note
    )
    records, split = measure.without_corrupt(records, split)
    result = metrics.head_metrics(records, ensemble.heads) | {"data": dataset.contents.as_json()}
    if flags.table:
        result["table"] = metrics.table(records, ensemble.crop_counts)
    print(json.dumps(result) if flags.json else as_text(result))
    if flags.report:
        facts = {"models": flags.models, "dataset": name, "seconds": round(time.time() - start, 1)}
        page = report.write(flags.report, ensemble, split, records, facts)
        record_file.remove()
        cli.note(str(page)) if flags.json else print(page)


def parse_flags() -> argparse.Namespace:
    """Reads and checks the flags."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    cli.add_model(parser, several=True)
    dataset = "name or folder (default: the data set of the run directory)"
    add("--dataset", type=cli.expanded, help=dataset)
    add("--data-dir", type=cli.expanded, help="where TensorFlow Datasets keeps its files")
    labels = "file with the class of each image in the folder"
    add("--labels", metavar="FILE", type=cli.local, help=labels)
    add("--label-columns", nargs=2, metavar=("FILE", "LABEL"), help="columns of a CSV file")
    add("--crops", type=int, choices=CROPS, help="crops per image (default: 1, with --table 144)")
    sizes = "shorter sides of the resized image for a network of 224 (default: the paper's four)"
    add("--sizes", type=cli.positive, nargs="+", metavar="SIDE", help=sizes)
    table = "print Table 3: errors of the first 1, 2, … models, for each number of crops"
    add("--table", action="store_true", help=table)
    add("--batch-size", type=cli.positive, default=100, help="crops a batch")
    add("--report", type=cli.local_path, metavar="DIR", help="folder to write a report to")
    add("--resume", action="store_true", help="resume an interrupted --report")
    add("--json", action="store_true", help="print the result as JSON")
    flags = parser.parse_args()
    for flag, other in (("resume", "report"), ("labels", "dataset"), ("label_columns", "labels")):
        if getattr(flags, flag) and not getattr(flags, other):
            parser.error(f"--{flag.replace('_', '-')} needs --{other}; give it too.")
    return flags


def load_networks(flags: argparse.Namespace) -> list:
    """Loads every MODEL; with several, --variant is for `imagenet` only."""
    from keras_googlenet import models

    alone = len(flags.models) == 1
    return [
        models.load(name, flags.variant if alone or name == models.PUBLISHED else None)
        for name in flags.models
    ]


def crop_counts(flags: argparse.Namespace) -> list[int]:
    """Returns the crop counts to measure, the greatest last."""
    most = flags.crops or (CROPS[-1] if flags.table else CROPS[0])
    return [count for count in CROPS if count == most or (flags.table and count < most)]


def open_dataset(flags: argparse.Namespace, networks: list):
    """Opens the data set that the flags name, or the run's own."""
    from keras_googlenet.data.label_files import open_labeled
    from keras_googlenet.evaluation.evaluation_set import (
        dataset_for,
        runs_of,
        warn_of_training_images,
    )

    runs = runs_of(networks)
    if not flags.labels:
        return dataset_for(runs, flags.dataset, flags.data_dir, cli.note)
    labels = networks[0].labels  # numbers in the file are indices of these
    opened = open_labeled(flags.dataset, flags.labels, flags.label_columns, labels, cli.note)
    warn_of_training_images(runs, opened, cli.note)
    return opened


def as_text(result: dict) -> str:
    """Formats the metrics, one line per head, and the table."""
    heads = [key.removesuffix("_accuracy") for key in result if key.endswith("_accuracy")]
    rows = [f"{result['examples']} examples", "head   accuracy    top-5     loss"]
    for head in heads:
        accuracy, top5, loss = (result[f"{head}_{key}"] for key in ("accuracy", "top5", "loss"))
        rows.append(f"{head:5}  {accuracy:8.2%}  {top5:7.2%}  {loss:7.4f}")
    if "table" in result:
        rows += ["", "models  crops   cost  top-1 error  top-5 error  against the first"]
    for row in result.get("table", ()):
        rows.append(
            f"{row['models']:6}  {row['crops']:5}  {row['cost']:5}  {row['top1_error']:11.2%}  "
            f"{row['top5_error']:11.2%}  {row['compared']:+17.2%}"
        )
    return "\n".join(rows)
