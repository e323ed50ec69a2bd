"""Readers of weight files that nobody vouches for: arrays by name, whatever the container.

They run in a process of their own (`process`), which bounds memory, disk and time; each leaves the
format to the library that owns it. Nothing here imports Keras, and nothing of a file is executed.
"""
