"""`python export.py --help` says how; the code is keras_googlenet/commands/export.py."""

from keras_googlenet import cli
from keras_googlenet.commands import export

if __name__ == "__main__":
    cli.run(export.main)
