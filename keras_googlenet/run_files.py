"""The names of a run directory's files: what train.py writes and the other scripts read."""

RECIPE_FILE = "recipe.json"
LABELS_FILE = "labels.txt"
HISTORY_FILE = "history.csv"
CURVES_FILE = "curves.png"
METRICS_FILE = "metrics.json"
MODEL_FILE = "model.keras"
CHECKPOINTS = "checkpoints"  # folder
LOGS = "logs"  # folder, for TensorBoard
CONTENTS_FILE = "data.json"  # contents of the data set, for people
SPLIT_FILE = "data.npz"  # images of the training and validation set, for comparison

RESULT_FILES = (HISTORY_FILE, CURVES_FILE, MODEL_FILE, METRICS_FILE)
FILES = (RECIPE_FILE, LABELS_FILE, *RESULT_FILES, CONTENTS_FILE, SPLIT_FILE)
