"""Train the small network in a process of its own (``worker.py FOLDER [PAUSE]``), to be killed and started again."""

import hashlib
import sys
import time
from pathlib import Path

import small
import torch

from fer_repro.logs import LineHandler, shown
from fer_repro.training.loop import fit


def fingerprint(classifier, history: list[dict]) -> str:
    """Digest of weights, predictions and history (without times)."""
    digest = hashlib.sha256()
    for name, tensor in sorted(classifier.model.state_dict().items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    digest.update(classifier.predict_proba(small.splits().test.images, with_views=True).tobytes())
    digest.update(repr([{k: v for k, v in row.items() if k != "seconds"} for row in history]).encode())
    return digest.hexdigest()


def main(folder: str, pause: float = 0.0) -> None:
    torch.set_num_threads(1)

    def say(line: str) -> None:
        print(line, flush=True)
        time.sleep(pause)

    run, handler = small.run(Path(folder)), LineHandler()
    handler.write = say
    with shown(handler):
        classifier = fit(small.build, small.splits(), run)
    print("fingerprint", fingerprint(classifier, run.history), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *(float(argument) for argument in sys.argv[2:]))
