"""Readers of weight files of unknown origin: arrays by name, whatever the format.

They run in their own process (`process`) with bounds on memory, disk and time; each uses the
library of its format. Nothing here imports Keras, and no code of a file runs.
"""
