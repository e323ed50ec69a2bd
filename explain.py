"""`python explain.py --help` says how; the code is keras_googlenet/commands/explain.py."""

from keras_googlenet import cli
from keras_googlenet.commands import explain

if __name__ == "__main__":
    cli.run(explain.main)
