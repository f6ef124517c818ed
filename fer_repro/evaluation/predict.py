"""From a network to probabilities: views of each test image, averaged on the device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from fer_repro.data import LABELS
from fer_repro.data.pictures import Pictures, faces
from fer_repro.errors import FerReproError
from fer_repro.evaluation.tta import view_batch, view_count, view_draws, view_weights
from fer_repro.layers import as_input, logits_of, normalise_
from fer_repro.recipe import Recipe, Views

# Input pixels per forward pass: enough to fill the device, little enough for its memory (a crop of 40 pixels is 1,600).
PIXELS_PER_PASS = {"cuda": 3_200_000, "cpu": 200_000}


def require_network(given: object, name: str, protocol: str, needed_by: str) -> None:
    """Raise `FerReproError` unless ``given`` is a network fitted under ``protocol``: ``needed_by`` needs ``name``."""
    if not isinstance(given, NetworkClassifier) or given.recipe.protocol.name != protocol:
        raise FerReproError(
            f"{needed_by} needs {name} as a network fitted under the {protocol} protocol: fit the right one first"
        )


class NetworkClassifier:
    """A trained network with its recipe's normalisation and views; scores in float32, without autocast.

    ``model`` returns logits [B,7], alone or first in a tuple; it is put on ``device`` in ``memory_format``.
    """

    labels = LABELS

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        device: str | torch.device,
        memory_format: torch.memory_format = torch.channels_last,
    ) -> None:
        self.recipe, self.device, self.memory_format = recipe, torch.device(device), memory_format
        self.model = model.to(self.device, memory_format=memory_format)  # type: ignore[call-overload]

    def predict_proba(self, images: Pictures, with_views: bool = False) -> np.ndarray:
        """uint8 [N,48,48] -> float32 [N,7], a column per label of ``labels``; rows sum to 1.

        Also one or a list of paths, PIL pictures or uint8 [48,48] arrays; `fer_repro.data.pictures` says how they
        become grey and 48x48. ``with_views`` averages over the recipe's views. Raises `FerReproError` for others.
        """
        # A copy: the data set is a read-only memory map.
        resident = torch.tensor(np.asarray(faces(images)), device=self.device)
        return self.log_probabilities(resident, with_views).exp().cpu().numpy()

    @torch.inference_mode()
    def log_probabilities(self, images: Tensor, with_views: bool = False) -> Tensor:
        """uint8 [N,48,48] on the device -> float32 [N,7] there: log probabilities, without synchronisation.

        The mean over views is taken of the logits or of the probabilities, as the recipe's views say.
        """
        views, size = self.recipe.views if with_views else self.recipe.plain, self.recipe.input_size
        count = view_count(views)
        batch = max(1, PIXELS_PER_PASS.get(self.device.type, 200_000) // (size * size * count))
        was_training = self.model.training
        self.model.eval()
        draws = view_draws(views, self.device)
        parts = [self._part(part, views, draws) for part in images.split(batch) if len(part)]
        self.model.train(was_training)
        return torch.cat(parts) if parts else torch.empty(0, 7, device=self.device)

    def _part(self, images: Tensor, views: Views, draws: torch.Generator | None) -> Tensor:
        recipe, whole = self.recipe, as_input(images)
        # Normalised before it is cut, once per image, not once per view; what works on grey levels gets them plain.
        cuts = views.kind not in ("random", "lanczos4")
        if cuts:
            normalise_(whole, recipe.mean, recipe.std)
        inputs = view_batch(whole, views, recipe.input_size, draws)
        if not cuts:
            normalise_(inputs, recipe.mean, recipe.std)
        output = self.model(inputs.contiguous(memory_format=self.memory_format))
        weights = view_weights(views)
        logits = logits_of(output).float().unflatten(0, (-1, len(weights)))
        if len(set(weights)) > 1:
            return self._weighted(logits, views, weights)
        if views.average == "logits":
            return logits.mean(dim=1).log_softmax(dim=1)
        return logits.log_softmax(dim=2).logsumexp(dim=1) - float(np.log(len(weights)))

    def _weighted(self, logits: Tensor, views: Views, weights: list[float]) -> Tensor:
        """The weighted mean over the views of float32 [B,V,7], as log probabilities [B,7]."""
        shares = torch.tensor(weights, pin_memory=self.device.type == "cuda").to(self.device, non_blocking=True)
        if views.average == "logits":
            return (logits * shares[:, None]).sum(dim=1).log_softmax(dim=1)
        return (logits.log_softmax(dim=2) + shares.log()[:, None]).logsumexp(dim=1)
