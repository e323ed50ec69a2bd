"""Damaged images, requests that do not fit, and many clients, in the C++ loader."""

import io
import json

import mutated_images
import pytest
from conftest import needs_linux
from PIL import Image
from processes import Process

from keras_googlenet import exporting
from keras_googlenet.googlenet import VARIANTS, GoogLeNet

MAPS = ("serving_default", "features")  # signatures for decoded images

DAMAGED, FEW_DAMAGED = 2000, 200
CLIENTS, ROUNDS = 16, 60  # requests of each client
TOLERANCE = 1e-5  # of a probability, whatever other clients send
GROWTH = 16  # MiB in the last two thirds of the rounds, whose images are some 70 MiB decoded


@pytest.mark.parametrize(
    "count", [FEW_DAMAGED, pytest.param(DAMAGED, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_damaged_images_get_an_answer_or_one_error(count, serving_folder, tmp_path):
    """In a process of its own, so that a crash is seen; its last line then names the image."""
    version = serving_folder[0] / "1"
    text = Process(mutated_images.main, version, count, folder=tmp_path).finish()
    counts = json.loads(text.splitlines()[-1])
    print(json.dumps(counts, indent=1))
    assert counts["answered"] + counts["refused"] == count
    assert counts["slowest"][0] < 60
    assert counts["answered"] > count / 20 and counts["refused"] > count / 4


def slow(value):
    return pytest.param(value, marks=pytest.mark.slow)


def send_what_does_not_fit(folder, size):
    """Sends one request of each wrong kind; prints the answer to each."""
    import numpy as np
    from saved_model_loader import LoaderError, SavedModel

    model, images = SavedModel(folder), np.full((2, size, size, 3), 100, "float32")
    wrong = {
        "no batch": images[0],
        "a batch of batches": images[None],
        "one number": images[0, 0, 0, 0],
        "a row": images.reshape(2, -1),
        "channels first": images.transpose(0, 3, 1, 2),
        "one channel": images[..., :1],
        "four channels": np.ones((1, size, size, 4)),
        "too small": images[:, 1:, 1:],
        "too wide": np.ones((1, size, size + 1, 3)),
        "no pixels": images[:, :0, :0],
        "no image": images[:0],
        "NaN": np.where(np.arange(3) == 1, np.nan, images),
        "infinity": np.where(np.arange(3) == 1, np.inf, images),
    }
    requests = [(name, "image", case, wrong[case]) for name in MAPS for case in wrong]
    encoded = jpeg(images[0])
    for case, value in {"no batch": encoded, "a table": [[encoded]], "no image": []}.items():
        requests.append(("classify", "image_bytes", case, np.array(value, object)))
    answers = {}
    for signature, name, case, value in requests:
        try:
            model.run(signature, {name: value})
            answers[f"{signature}: {case}"] = "answered"
        except LoaderError as error:
            answers[f"{signature}: {case}"] = error.code
    right = {signature: model.run(signature, {"image": images}) for signature in MAPS}
    finite = all(np.isfinite(array).all() for found in right.values() for array in found.values())
    print(json.dumps({"answers": answers, "finite": finite}))


@pytest.mark.parametrize("precision", ["float32", slow("bfloat16")])
@pytest.mark.parametrize(
    "variant", [name if name == "paper" else slow(name) for name in VARIANTS if name != "naive"]
)
def test_requests_that_do_not_fit(variant, precision, tmp_path):
    """In a process of its own: without checks, oneDNN aborts it (tensorflow #112555)."""
    model = GoogLeNet(classes=4, input_shape=(65, 65, 3), variant=variant, aux_heads=False)
    version, _ = exporting.export_saved_model(model, tmp_path / "net", precision=precision)
    process = Process(send_what_does_not_fit, version, 65, folder=tmp_path)
    found = json.loads(process.finish().splitlines()[-1])
    assert len(found["answers"]) == 13 * len(MAPS) + 3
    assert set(found["answers"].values()) == {"INVALID_ARGUMENT"}, found
    assert found["finite"]


def send_at_once(folder, encoded_images):
    """Sends requests to one session from many threads; prints errors and MiB of memory."""
    import threading

    import numpy as np
    from saved_model_loader import SavedModel

    model, errors, memory = SavedModel(folder), [], []

    def scores_of(encoded):
        return model.run("classify", {"image_bytes": np.array([encoded], object)})["scores"]

    alone = [scores_of(encoded) for encoded in encoded_images]
    apart = float(np.abs(alone[0] - alone[1]).max())
    meeting = threading.Barrier(CLIENTS, lambda: memory.append(memory_of_this_process()))

    def send(index):
        index %= len(alone)
        for round_ in range(ROUNDS):
            scores = scores_of(encoded_images[index])
            errors.append(float(np.abs(scores - alone[index]).max()))
            if round_ % 20 == 19:
                meeting.wait()

    threads = [threading.Thread(target=send, args=(index,)) for index in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers = {"count": len(errors), "largest error": max(errors), "apart": apart}
    print(json.dumps(answers | {"memory": memory}))


def memory_of_this_process() -> float:
    """MiB that a process holds and no file can give back: libraries come and go."""
    with open("/proc/self/status") as file:
        (line,) = (line for line in file if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


def jpeg(photograph) -> bytes:
    file = io.BytesIO()
    Image.fromarray(photograph.astype("uint8")).save(file, "JPEG")
    return file.getvalue()


@needs_linux
def test_many_clients_get_what_each_gets_alone(serving_folder, photographs, tmp_path):
    encoded = [jpeg(photograph) for photograph in photographs]
    process = Process(send_at_once, serving_folder[0] / "1", encoded, folder=tmp_path)
    found = json.loads(process.finish().splitlines()[-1])
    print(found)
    assert found["count"] == CLIENTS * ROUNDS
    assert found["apart"] > 10 * TOLERANCE, "a mix-up would not be seen"
    assert found["largest error"] < TOLERANCE
    first, *_, last = found["memory"]  # pools of threads, arenas and caches have grown by then
    assert len(found["memory"]) == 3 and last - first < GROWTH
