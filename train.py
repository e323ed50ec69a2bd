"""`python train.py --help` says how; the code is keras_googlenet/commands/train.py."""

from keras_googlenet import cli
from keras_googlenet.commands import train

if __name__ == "__main__":
    cli.run(train.main)
