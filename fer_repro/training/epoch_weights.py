"""The weights of every epoch, kept in a run's folder, and what they predict once training has ended.

So the accuracy on PrivateTest can be followed over the epochs although training never sees PrivateTest: while a network
is trained only files are written, and the test images are looked at when its last batch is done.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from fer_repro.errors import FerReproError
from fer_repro.evaluation import progress
from fer_repro.evaluation.predict import NetworkClassifier
from fer_repro.evaluation.tta import view_count
from fer_repro.files import atomic_write, writable
from fer_repro.training.weights import Weights, copied

log = logging.getLogger(__name__)

FOLDER = "epochs"


def keep(run_folder: Path, epoch: int, weights: Weights) -> None:
    """Write the ``weights`` of an epoch (from 1); a run that is repeated from a checkpoint replaces its later ones.

    Raises `FerReproError` where nothing can be written.
    """
    path = Path(run_folder) / FOLDER / f"{epoch:05d}.safetensors"
    plain = {name: tensor.detach().to("cpu").contiguous() for name, tensor in weights.items()}
    with writable(path), atomic_write(path) as file:
        file.write(save(plain))


def kept(run_folder: Path, last: int) -> dict[int, Path]:
    """The file of each epoch that was kept, up to the ``last`` one of the run, in order."""
    return {epoch: path for epoch, path in _files(run_folder).items() if epoch <= last}


def _files(run_folder: Path) -> dict[int, Path]:
    paths = (Path(run_folder) / FOLDER).glob("[0-9]*.safetensors")
    return {int(path.stem): path for path in sorted(paths) if path.stem.isdigit()}


def resume(run_folder: Path, epochs: int, wanted: bool) -> None:
    """Settle what was kept of a run that goes on after ``epochs`` of them: later ones belong to a history that is
    gone. If the weights of epochs are ``wanted``, those that lack are named."""
    discard(run_folder, after=epochs)
    lacking = epochs - len(_files(run_folder))
    if wanted and lacking:
        log.warning(
            f"the weights of {lacking} of {epochs} epochs were not kept and will lack in epochs.npz: --no-resume "
            "trains all of them again"
        )


def discard(run_folder: Path, after: int = 0) -> None:
    """Forget what was kept in ``run_folder`` of the epochs ``after`` this one. Raises `FerReproError`."""
    folder = Path(run_folder) / FOLDER
    try:
        for epoch, path in _files(run_folder).items():
            if epoch > after:
                path.unlink()
        if folder.exists() and not any(folder.iterdir()):
            folder.rmdir()
    except OSError as error:
        raise FerReproError(f"{folder} cannot be deleted ({error.strerror}): delete it yourself") from error


def predicted(
    run_folder: Path, epochs: int, classifier: object, images: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The class that the weights of each epoch give to every image, without test-time augmentation.

    ``epochs``: how many the run has. ``classifier``: the run's; its network gets the weights in turn and its own back.
    ``images``: uint8 [N,48,48] by test set. Gives ``epoch`` int64 [E] and of each test set uint8 [E,N]; nothing where
    no epoch was kept, which is logged. Raises `FerReproError` for a file that does not fit the network.
    """
    files = kept(run_folder, epochs)
    if not files or not isinstance(classifier, NetworkClassifier):
        log.warning(
            "no weights of single epochs were kept by this run, so none are scored: --score-epochs --no-resume trains "
            "them again, where no result is stored yet"
        )
        return {}
    rows: dict[str, list[np.ndarray]] = {usage: [] for usage in images}
    own, count = copied(classifier.model), sum(len(part) for part in images.values())
    log.info(f"scoring the weights of {len(files)} epochs")
    inputs = len(files) * count * view_count(classifier.recipe.plain)
    with progress.scoring(classifier.model, inputs):
        for path in files.values():
            try:
                classifier.model.load_state_dict(load_file(path))
            except (OSError, RuntimeError, SafetensorError) as error:
                raise FerReproError(
                    f"{path} does not hold the weights of an epoch of this network ("
                    f"{' '.join(str(error).split())[:200]}): delete its folder "
                    "and run again without --score-epochs; the checkpoint is kept"
                ) from error
            for usage, part in images.items():
                rows[usage].append(classifier.predict_proba(part).argmax(axis=1).astype(np.uint8))
    classifier.model.load_state_dict(own)
    return {"epoch": np.array(list(files), np.int64)} | {usage: np.stack(each) for usage, each in rows.items()}
