"""`python convert.py --help` says how; the code is keras_googlenet/commands/convert.py."""

from keras_googlenet import cli
from keras_googlenet.commands import convert

if __name__ == "__main__":
    cli.run(convert.main)
