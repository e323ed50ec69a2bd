"""`python evaluate.py --help` says how; the code is keras_googlenet/commands/evaluate.py."""

from keras_googlenet import cli
from keras_googlenet.commands import evaluate

if __name__ == "__main__":
    cli.run(evaluate.main)
