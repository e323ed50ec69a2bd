"""Records and metrics, compared with loops in plain Python."""

import math

import numpy as np
import pytest

from keras_googlenet.errors import UserError
from keras_googlenet.evaluation import metrics
from keras_googlenet.evaluation.measure import RecordFile
from keras_googlenet.evaluation.metrics import cumulative_means, make_records, record_type
from keras_googlenet.evaluation.report import most_confident_mistakes

LABELS = [f"class {number}" for number in range(8)]
HEADS = ["main", "aux1"]


@pytest.fixture(scope="module")
def example():
    """Probabilities of 3 networks, 2 crop sets, 2 heads, 50 examples, 8 classes; and labels."""
    generator = np.random.default_rng(0)
    scores = generator.dirichlet([0.4] * 8, size=(3, 2, 2, 50))
    return generator.integers(0, 8, 50), scores


def rank(row, label):
    return sorted(range(len(row)), key=lambda c: -row[c]).index(label)


def test_the_reported_cell_is_all_networks_and_the_last_crop_set(example):
    labels, scores = example
    records = make_records(labels, cumulative_means(scores))
    found = metrics.head_metrics(records, HEADS)
    assert found["examples"] == 50
    for number, head in enumerate(HEADS):
        rows = (scores[0, -1, number] + scores[1, -1, number] + scores[2, -1, number]) / 3
        ranks = [rank(row, label) for row, label in zip(rows, labels, strict=True)]
        losses = [-math.log(row[label]) for row, label in zip(rows, labels, strict=True)]
        assert found[f"{head}_accuracy"] == pytest.approx(ranks.count(0) / 50)
        assert found[f"{head}_top5"] == pytest.approx(sum(r < 5 for r in ranks) / 50)
        assert found[f"{head}_loss"] == pytest.approx(sum(losses) / 50)


def test_the_most_confident_mistakes_come_first(example):
    labels, scores = example
    records = make_records(labels, scores[:1, :1, :1])
    rows = scores[0, 0, 0]
    wrong = [n for n in range(50) if rank(rows[n], labels[n])]
    by_hand = sorted(wrong, key=lambda n: -max(rows[n]))[:7]
    assert most_confident_mistakes(records, 7) == by_hand


def test_the_table_has_every_ensemble_and_crop_set(example):
    labels, scores = example
    rows = metrics.table(make_records(labels, cumulative_means(scores)), [1, 10])
    assert [(row["models"], row["crops"], row["cost"]) for row in rows] == [
        (1, 1, 1),
        (1, 10, 10),
        (2, 1, 2),
        (2, 10, 20),
        (3, 1, 3),
        (3, 10, 30),
    ]
    for row, (models, crop_set) in zip(rows, np.ndindex(3, 2), strict=True):
        mean = sum(scores[k, crop_set, 0] for k in range(models + 1)) / (models + 1)
        ranks = [rank(values, label) for values, label in zip(mean, labels, strict=True)]
        assert row["top1_error"] == pytest.approx(1 - ranks.count(0) / 50)
        assert row["top5_error"] == pytest.approx(1 - sum(r < 5 for r in ranks) / 50)
        assert row["compared"] == pytest.approx(row["top5_error"] - rows[0]["top5_error"])


def test_calibration_error_by_hand():
    """Two of ten classes at 0.85, one right; three at 0.3, all wrong; one at 1, right."""
    scores = np.full((6, 10), 0.0)
    for row, confidence in enumerate((0.85, 0.85, 0.3, 0.3, 0.3, 1.0)):
        scores[row] = (1 - confidence) / 9
        scores[row, 4] = confidence
    labels = np.array([4, 0, 1, 2, 3, 4])
    results = metrics.final_results(make_records(labels, scores[None, None, None]))
    expected = (2 * abs(0.5 - 0.85) + 3 * 0.3 + 1 * 0) / 6
    assert metrics.calibration_error(results) == pytest.approx(expected)
    rows = metrics.calibration(results)
    assert [row["examples"] for row in rows] == [3, 2, 1]
    assert all(row["least"] < row["confidence"] <= row["greatest"] for row in rows)


def test_classes_and_confusions(example):
    labels, scores = example
    records = make_records(labels, scores[:1, :1])
    guesses = [max(range(8), key=lambda c: row[c]) for row in scores[0, 0, 1]]
    pairs = {}
    for label, guess in zip(labels.tolist(), guesses, strict=True):
        pairs[LABELS[label], LABELS[guess]] = pairs.get((LABELS[label], LABELS[guess]), 0) + 1
    found = metrics.confusion_pairs(records, LABELS, head=1)
    assert {(row["label"], row["predicted"]): row["count"] for row in found} == {
        pair: count for pair, count in pairs.items() if pair[0] != pair[1]
    }
    assert [row["count"] for row in found] == sorted((row["count"] for row in found), reverse=True)
    for row in metrics.class_accuracies(records, LABELS, head=1):
        total = labels.tolist().count(LABELS.index(row["label"]))
        assert row["examples"] == total
        assert row["accuracy"] == pytest.approx(pairs.get((row["label"],) * 2, 0) / total)


def test_the_five_best_are_kept(example):
    labels, scores = example
    record = make_records(labels, scores)[7]
    row = scores[-1, -1, 0, 7]
    best = sorted(range(8), key=lambda c: -row[c])[:5]
    assert record["top"].tolist() == best
    assert record["scores"].tolist() == [row[c] for c in best]
    few = make_records(np.array([1]), np.array([0.2, 0.8]).reshape(1, 1, 1, 1, 2))
    assert few["top"].tolist() == [[1, 0, -1, -1, -1]]


def test_of_equal_scores_the_first_class_comes_first():
    even = np.full((1, 1, 1, 8, 8), 1 / 8)
    records = make_records(np.arange(8), even)
    assert metrics.final_results(records)["rank"].tolist() == list(range(8))
    assert metrics.head_metrics(records, ["main"])["main_accuracy"] == 1 / 8


def test_a_certain_mistake_has_a_finite_loss():
    scores = np.array([1.0, 0.0]).reshape(1, 1, 1, 1, 2)
    loss = make_records(np.array([1]), scores)["results"]["loss"].item()
    assert loss == pytest.approx(-math.log(2.0**-126))  # the smallest normal float32


SETTINGS = {"model": ["a"], "set of crops": (1, 10)}


def test_an_unfinished_evaluation_resumes_after_the_last_whole_record(example, tmp_path):
    labels, scores = example
    records = make_records(labels, scores)
    dtype = record_type(3, 2, 2)
    RecordFile(tmp_path, SETTINGS, dtype, resume=False).append(records[:20])
    with open(tmp_path / "evaluation.partial" / "records", "ab") as file:
        file.write(records[20:21].tobytes()[:-3])  # a crash in the middle of a row
    record_file = RecordFile(tmp_path, SETTINGS, dtype, resume=True)
    assert record_file.read().tobytes() == records[:20].tobytes()
    record_file.append(records[20:])
    assert record_file.read().tobytes() == records.tobytes()
    assert len(RecordFile(tmp_path, SETTINGS, dtype, resume=False).read()) == 0
    record_file.remove()
    assert not list(tmp_path.iterdir())


def test_resuming_with_other_settings_is_refused(tmp_path):
    dtype = record_type(1, 1, 1)
    RecordFile(tmp_path, SETTINGS, dtype, resume=False)
    with pytest.raises(UserError, match="started with another set of crops"):
        RecordFile(tmp_path, SETTINGS | {"set of crops": (1,)}, dtype, resume=True)
