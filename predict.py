"""`python predict.py --help` says how; the code is keras_googlenet/commands/predict.py."""

from keras_googlenet import cli
from keras_googlenet.commands import predict

if __name__ == "__main__":
    cli.run(predict.main)
