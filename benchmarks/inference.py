"""Speed of each exported form, beside torchvision's network in three engines.

python -m benchmarks.inference
python -m benchmarks.inference --variant batchnorm --rounds 30
python -m benchmarks.inference googlenet.keras
python -m benchmarks.inference --only "SavedModel float32" "plain model.export"

Every form is loaded in a process of its own, and they take turns, round after round, so that other
load on the machine slows all of them. The figures are medians over the rounds. The peers are given
preprocessed images; ours preprocess inside. Without MODEL the weights of --variant are random,
which run as fast.
"""

import functools
import multiprocessing
import platform
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import inference_forms
from keras_googlenet import cli
from keras_googlenet.errors import UserError
from keras_googlenet.googlenet import VARIANTS

TURN = {1: 8, 32: 1}  # batch size -> calls a turn
PERCENTILES = (50, 90, 99)  # of the latency at batch 1
TARGETS = (  # form, batch size, least ratio, to which form
    ("SavedModel float32", 32, 0.9, "torchvision ONNX Runtime float32"),
    ("SavedModel float32", 32, 0.95, "ONNX Runtime float32"),
    ("SavedModel float32", 1, 1.2, "plain model.export"),
    ("SavedModel bfloat16", 32, 0.9, "OpenVINO bfloat16"),
    ("LiteRT int8", 1, 1.0, "torchvision OpenVINO int8"),
)


def main():
    """Prints a Markdown table with a row for each form, and the ratios to reach."""
    parser = cli.parser(__doc__)
    names = list(inference_forms.FORMS)
    parser.add_argument("model", metavar="MODEL", nargs="?", help="run directory or .keras file")
    parser.add_argument("--variant", choices=VARIANTS, default="paper", help="without MODEL")
    parser.add_argument("--rounds", type=cli.positive, default=15, help="turns of each form")
    parser.add_argument("--threads", type=cli.positive, default=2, help="processor cores to use")
    parser.add_argument("--only", nargs="+", choices=names, metavar="FORM", help="some forms")
    flags = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        names = flags.only or names
        write = functools.partial(
            inference_forms.write_all, Path(folder), flags.model, flags.variant, names
        )
        writer = context.Process(target=cli.run, args=(write,))
        writer.start()
        writer.join()
        if writer.exitcode:  # its message is printed
            sys.exit(writer.exitcode)
        forms = {name: Form(context, name, Path(folder), flags.threads) for name in names}
        seconds = {batch: take_turns(forms, batch, flags.rounds) for batch in TURN}
        memory = {name: form.close() for name, form in forms.items()}
    print(f"{processor()}, {flags.threads} threads, medians of {flags.rounds} turns\n")
    print_table(forms, seconds, memory)
    print_targets(seconds)


class Form:
    """A form in a process of its own."""

    def __init__(self, context, name: str, folder: Path, threads: int):
        self.pipe, theirs = context.Pipe()
        target = inference_forms.serve_turns
        arguments = (name, folder, threads, theirs)
        self.process = context.Process(target=target, args=arguments, daemon=True)
        self.process.start()
        theirs.close()  # else the end of the process would not end the pipe
        try:
            self.load_seconds, self.file_bytes = self.pipe.recv()
        except EOFError as error:
            raise UserError(f"{name} cannot be loaded; its error stands above.") from error

    def turn(self, batch: int) -> list[float]:
        """Returns the seconds of each call of a turn."""
        self.pipe.send((batch, TURN[batch]))
        return self.pipe.recv()

    def close(self) -> int:
        """Ends the process and returns its peak memory in bytes."""
        self.pipe.send(None)
        memory = self.pipe.recv()
        self.process.join()
        return memory


def take_turns(forms: dict[str, Form], batch: int, rounds: int) -> dict[str, np.ndarray]:
    """Returns the seconds of all calls of each form, after one turn of warm-up."""
    for form in forms.values():
        form.turn(batch)
    calls = {name: [] for name in forms}
    for done in range(rounds):
        for name, form in forms.items():
            calls[name] += form.turn(batch)
        cli.note(f"batch {batch}: round {done + 1} of {rounds}")
    return {name: np.array(seconds) for name, seconds in calls.items()}


def print_table(forms: dict[str, Form], seconds: dict, memory: dict[str, int]):
    """Prints a row for each form."""
    rates = " | ".join(f"images/s, batch {batch}" for batch in TURN)
    percents = " | ".join(f"ms, {percent}%" for percent in PERCENTILES)
    print(f"| form | {rates} | {percents} | file, MB | load, s | peak memory, MB |")
    print("|---" * (4 + len(TURN) + len(PERCENTILES)) + "|")
    for name, form in forms.items():
        cells = [f"{rate(seconds, name, batch):.1f}" for batch in TURN]
        cells += [f"{1000 * value:.1f}" for value in np.percentile(seconds[1][name], PERCENTILES)]
        cells += [f"{form.file_bytes / 1e6:.1f}", f"{form.load_seconds:.1f}"]
        print(f"| {name} | {' | '.join(cells)} | {memory[name] / 1e6:.0f} |")


def print_targets(seconds: dict):
    """Prints each target with what was reached."""
    for name, batch, least, peer in TARGETS:
        if name in seconds[1] and peer in seconds[1]:
            ratio = rate(seconds, name, batch) / rate(seconds, peer, batch)
            print(f"\n{name}, batch {batch}: {ratio:.2f} of {peer}, to reach {least}", end="")
    print()


def rate(seconds: dict, name: str, batch: int) -> float:
    """Returns images a second."""
    return batch / float(np.median(seconds[batch][name]))


def processor() -> str:
    """Returns the processor's name and the instructions that matter here."""
    if not Path("/proc/cpuinfo").exists() or platform.machine() != "x86_64":
        return platform.processor() or platform.machine()
    pairs = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    facts = {key.strip(): value.strip() for key, _, value in pairs}
    useful = ("avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8")
    present = [flag for flag in useful if flag in facts["flags"].split()]
    family = f"family {facts['cpu family']}, model {facts['model']}"
    return f"{facts['model name']} ({family}) with {', '.join(present) or 'none of these'}"


if __name__ == "__main__":
    cli.run(main)
