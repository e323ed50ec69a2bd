"""The names of a run directory's files: what train.py writes and the other scripts read."""

RECIPE_FILE = "recipe.json"
LABELS_FILE = "labels.txt"
HISTORY_FILE = "history.csv"
CURVES_FILE = "curves.png"
METRICS_FILE = "metrics.json"
MODEL_FILE = "model.keras"
CHECKPOINTS = "checkpoints"  # folder
LOGS = "logs"  # folder, for TensorBoard
CONTENTS_FILE = "data.json"  # what was found in the data set, for people
SPLIT_FILE = "data.npz"  # which images were trained and validated on, for comparison
