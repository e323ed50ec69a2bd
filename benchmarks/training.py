"""Training speed and memory of our networks and torchvision's, and the overhead of the loop.

    python -m benchmarks.training
    python -m benchmarks.training --only "batchnorm bfloat16" "torchvision bfloat16" --json
    python -m benchmarks.training --device gpu --batch-size 256
    KERAS_BACKEND=jax python -m benchmarks.training --device gpu --batch-size 256

Every row is a process of its own, which trains on one batch of random images: three heads, SGD
with Nesterov momentum, label smoothing. The rows run in turns, so that other load on the machine
affects all of them; the figures are medians over the turns. With JAX only the network and the step
are ours. Peers: `python -m pip install -r requirements-bench.txt`.
"""

import json
import multiprocessing
import os
import statistics

from benchmarks import training_rows
from benchmarks.inference import processor
from benchmarks.variants import multiply_adds
from keras_googlenet import cli
from keras_googlenet.errors import UserError

SPEED_TARGETS = (  # row, least ratio of images/s, peer
    ("batchnorm float32", 1.35, "torchvision float32"),
    ("batchnorm bfloat16", 1.25, "torchvision bfloat16"),
    ("paper float32", 1.25, "torchvision float32"),
    ("paper bfloat16", 1.15, "torchvision bfloat16"),
)
MEMORY_TARGET = 1.1  # greatest ratio of the same pairs


def main():
    """Prints a Markdown table with a row for each network, or JSON."""
    parser = cli.parser(__doc__)
    names = list(training_rows.ROWS)
    parser.add_argument("--turns", type=cli.positive, default=5, help="measurements of each row")
    parser.add_argument("--steps", type=cli.positive, default=2, help="training steps per turn")
    parser.add_argument("--batch-size", type=cli.positive, default=32, help="images per step")
    parser.add_argument("--image-size", type=cli.positive, default=224, help="side in pixels")
    parser.add_argument("--threads", type=cli.positive, default=2, help="CPU threads")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="device")
    parser.add_argument("--only", nargs="+", choices=names, metavar="ROW", help="rows to run")
    parser.add_argument(
        "--all", action="store_true", help="also rows without fusing, and with --deterministic"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    flags = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = os.environ["TF_NUM_INTRAOP_THREADS"] = str(flags.threads)
    context = multiprocessing.get_context("spawn")
    plain = [name for name in names if flags.all or "," not in name]
    rows = {name: Row(context, name, vars(flags)) for name in flags.only or plain}
    for row in rows.values():
        row.ask("turn")  # warm-up: compiles the step
    seconds = {name: [] for name in rows}
    for done in range(flags.turns):
        for name, row in rows.items():
            seconds[name].append(row.ask("turn"))
        cli.note(f"turn {done + 1} of {flags.turns}")
    results = {name: row.ask("facts") | rate(seconds[name], flags) for name, row in rows.items()}
    for name, row in rows.items():
        row.close()
        _, variant, *_ = training_rows.ROWS[name]
        results[name]["multiply_adds"] = multiply_adds_of(variant, flags.image_size)
    if flags.json:
        print(json.dumps({"device": rows[name].device, "rows": results}))
    else:
        print_all(results, flags)


class Row:
    """A network in its own process."""

    def __init__(self, context, name: str, settings: dict):
        self.name = name
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=training_rows.serve, args=(name, settings, theirs), daemon=True
        )
        self.process.start()
        theirs.close()  # otherwise the pipe stays open when the process ends
        self.device = self._receive()

    def ask(self, question: str):
        """Returns the seconds of a "turn", or the dictionary of "facts"."""
        self.pipe.send(question)
        return self._receive()

    def close(self):
        """Ends the process."""
        self.pipe.send(None)
        self.process.join()

    def _receive(self):
        try:
            return self.pipe.recv()
        except EOFError as error:
            raise UserError(f"{self.name} failed; see its error above.") from error


def rate(seconds: list[float], flags) -> dict[str, float]:
    """Returns median, least and greatest speed of the turns."""
    speeds = [flags.steps * flags.batch_size / turn for turn in seconds]
    return {
        "images_per_second": statistics.median(speeds),
        "slowest": min(speeds),
        "fastest": max(speeds),
    }


def multiply_adds_of(variant: str, size: int) -> int:
    """Counts the multiply-adds of the network and its heads for one image."""
    from keras_googlenet import GoogLeNet

    return sum(map(multiply_adds, GoogLeNet(variant=variant, input_shape=(size, size, 3)).layers))


def print_all(results: dict[str, dict], flags):
    """Prints the rows and the comparisons with the targets."""
    where = f"{processor()}, {flags.threads} threads" if flags.device == "cpu" else "GPU"
    print(
        f"{where}, {flags.image_size} px, batch {flags.batch_size}, medians of {flags.turns} turns "
        f"of {flags.steps} steps\n"
    )
    print(
        "| network | images/s | range | of the peak | peak memory, MB | above the import, MB "
        "| reading losses | checkpoint, s | validation, images/s |"
    )
    print("|---" * 9 + "|")
    for name, row in results.items():
        speed = row["images_per_second"]
        achieved = speed * 3 * 2 * row["multiply_adds"]  # forward, and two products backward
        cells = [
            f"{speed:.1f}",
            f"{row['slowest']:.1f}-{row['fastest']:.1f}",
            f"{achieved / row['peak_flops']:.0%}",
            f"{row['peak_bytes'] / 1e6:.0f}",
            f"{(row['peak_bytes'] - row['import_bytes']) / 1e6:.0f}",
        ]
        if "checkpoint_seconds" in row:
            cells += [
                f"{row['read_seconds'] * speed / flags.batch_size:.2%}",
                f"{row['checkpoint_seconds']:.2f}",
                f"{row['validation_images_per_second']:.0f}",
            ]
        print(f"| {name} | {' | '.join(cells + ['-'] * (8 - len(cells)))} |")
    for name, least, peer in SPEED_TARGETS:
        if name in results and peer in results:
            print(target_line(name, results[name], least, peer, results[peer]))


def target_line(name: str, row: dict, least: float, peer: str, other: dict) -> str:
    """Returns the comparison of a row with its peer."""
    speed, memory, above = (
        f(row) / f(other)
        for f in (
            lambda row: row["images_per_second"],
            lambda row: row["peak_bytes"],
            lambda row: row["peak_bytes"] - row["import_bytes"],
        )
    )
    return (
        f"\n{name}: {speed:.2f} x the speed of {peer} (target {least}); {memory:.2f} x its peak "
        f"memory (target {MEMORY_TARGET}), {above:.2f} x without the memory of imports"
    )


if __name__ == "__main__":
    cli.run(main)
