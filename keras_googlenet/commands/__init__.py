"""The commands: `python train.py` and `googlenet train` run the same code, a module each."""
