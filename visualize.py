"""`python visualize.py --help` says how; the code is keras_googlenet/commands/visualize.py."""

from keras_googlenet import cli
from keras_googlenet.commands import visualize

if __name__ == "__main__":
    cli.run(visualize.main)
