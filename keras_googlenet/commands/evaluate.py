"""Measures networks on a data set: loss, top-1 and top-5 accuracy of each head.

    python evaluate.py runs/shapes
    python evaluate.py runs/shapes --crops 144 --report report
    python evaluate.py runs/a runs/b runs/c --table
    python evaluate.py googlenet.keras --dataset ILSVRC2012_img_val --labels val.txt

Several networks are averaged. A run directory is measured on the validation split that it was
trained beside. --table prints the paper's Table 3 from one pass over the data, --report writes a
page that shows where the networks fail.
"""

import argparse
import json
import os
import time

from keras_googlenet import cli

CROPS = (1, 10, 144)  # Table 3
SIDES = (256, 288, 320, 352)  # section 7


def main():
    """Reads the flags and does what the docstring above says."""
    began = time.time()
    flags = parse_flags()
    cli.start_tensorflow()
    from keras_googlenet.evaluation import class_matching, measure, metrics, report
    from keras_googlenet.evaluation.ensemble import make_plan
    from keras_googlenet.training.distribution import choose_strategy

    os.environ.pop("TF_CONFIG", None)  # an evaluation is one machine's work
    strategy = choose_strategy()
    with strategy.scope():
        networks = load_networks(flags)
    dataset = open_dataset(flags, networks)
    name = dataset.contents.dataset
    cli.note(str(dataset.contents))
    matched = class_matching.match_classes([network.labels for network in networks], dataset.labels)
    plan = make_plan(networks, matched, protocols(flags), tuple(flags.sizes), flags.table)
    partial = None
    if flags.report:
        partial = measure.keep_in(flags.report, plan, dataset.validation, name, flags.resume)
    records = measure.measure_split(
        plan, dataset.validation, flags.batch_size, strategy, partial, cli.note
    )
    records, split = measure.readable(records, dataset.validation)
    result = metrics.head_metrics(records, plan.heads) | {"data": dataset.contents.as_json()}
    if flags.table:
        result["table"] = metrics.table(records, plan.crop_counts)
    print(json.dumps(result) if flags.json else as_text(result))
    if flags.report:
        facts = {"models": flags.models, "dataset": name, "seconds": round(time.time() - began, 1)}
        page = report.write(flags.report, plan, split, records, facts)
        partial.remove()
        cli.note(str(page)) if flags.json else print(page)


def parse_flags() -> argparse.Namespace:
    """Reads the flags and refuses those that do not go together."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    cli.add_model(parser, several=True)
    datasets = "name or folder (default: that of the run directory)"
    add("--dataset", type=cli.expanded, help=datasets)
    add("--data-dir", type=cli.expanded, help="where TensorFlow Datasets keeps its files")
    labels = "file that names the class of each image in the folder"
    add("--labels", metavar="FILE", type=cli.local, help=labels)
    add("--label-columns", nargs=2, metavar=("FILE", "LABEL"), help="columns, if --labels is CSV")
    add("--crops", type=int, choices=CROPS, help="crops an image (default: 1, with --table 144)")
    sizes = "shorter sides of the resized image for a network of 224, scaled for others"
    add("--sizes", type=cli.positive, nargs="+", metavar="SIDE", default=SIDES, help=sizes)
    table = "print errors of the first model, the first two, … at 1, 10, … --crops crops"
    add("--table", action="store_true", help=table)
    add("--batch-size", type=cli.positive, default=100, help="crops a step")
    add("--report", type=cli.local_path, metavar="DIR", help="write a report there")
    add("--resume", action="store_true", help="go on with a --report that was cut off")
    add("--json", action="store_true", help="print the result as JSON")
    flags = parser.parse_args()
    for needing, needed in (
        ("resume", "report"),
        ("labels", "dataset"),
        ("label_columns", "labels"),
    ):
        if getattr(flags, needing) and not getattr(flags, needed):
            parser.error(f"--{needing.replace('_', '-')} needs --{needed}; give it too.")
    return flags


def load_networks(flags: argparse.Namespace) -> list:
    """Loads every MODEL; of several, --variant is for the published weights alone."""
    from keras_googlenet import models

    alone = len(flags.models) == 1
    return [
        models.load(name, flags.variant if alone or name == models.PUBLISHED else None)
        for name in flags.models
    ]


def protocols(flags: argparse.Namespace) -> list[int]:
    """Returns the crop counts to measure, the greatest last."""
    most = flags.crops or (CROPS[-1] if flags.table else CROPS[0])
    return [count for count in CROPS if count == most or (flags.table and count < most)]


def open_dataset(flags: argparse.Namespace, networks: list):
    """Opens what the flags ask for."""
    from keras_googlenet.data.label_files import open_labeled
    from keras_googlenet.evaluation.evaluation_set import dataset_for, runs_of, warn_of_learned

    runs = runs_of(networks)
    if not flags.labels:
        return dataset_for(runs, flags.dataset, flags.data_dir, cli.note)
    labels = networks[0].labels  # what numbers in the file count
    opened = open_labeled(flags.dataset, flags.labels, flags.label_columns, labels, cli.note)
    warn_of_learned(runs, opened, cli.note)
    return opened


def as_text(result: dict) -> str:
    """Lays the metrics out with a line a head, and the table with a line a cell."""
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
