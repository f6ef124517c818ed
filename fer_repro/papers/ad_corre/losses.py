"""Losses on Pearson correlations between embeddings (Ad-Corre; Fard & Mahoor 2022, released ``custom_loss.py``).

A network gives each of B images k embeddings of D numbers. Three terms have targets of +1 or -1 for the correlations
between them; each equals the released NumPy formula in value, but is made of tensor operations, so that it has a
gradient. All arithmetic is float32, without host-device synchronisation.

|t - r| = 1 - t r for a target t of +1 or -1 and a correlation r. So all three terms are linear in the correlations,
and since m unit vectors sum to a vector whose length cannot be negative, none of them can reach 0: see `floor`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from fer_repro.errors import FerReproError
from fer_repro.training.losses import CLASSES

EPSILON = 1e-7  # Keras' epsilon: the weight of an image in another class's mean, and the smallest probability
TERMS = ("ED", "FD", "MD")


def correlation(rows: Tensor) -> Tensor:
    """Pearson correlation between the rows of each matrix: float [...,N,D] -> float [...,N,N].

    What ``numpy.corrcoef`` gives, except that a row of equal numbers correlates 0 with everything instead of NaN.
    """
    centred = rows - rows.mean(dim=-1, keepdim=True)
    unit = functional.normalize(centred, dim=-1, eps=1e-8)
    return unit @ unit.transpose(-1, -2)


def embedding_discriminator(embeddings: Tensor) -> Tensor:
    """ED: the k embeddings of one image should differ. float [B,k,D] -> scalar; lowest value `floor(k)`.

    Mean of 1 + r over all B k k pairs, with 0 for an embedding and itself.
    """
    return _off_diagonal(1 + correlation(embeddings)).mean()


def feature_discriminator(embeddings: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """FD: images of one class should correlate +1, of different classes -1, in each embedding by itself.

    float [B,k,D], int64 [B] -> scalar: mean of |target - r| over all k B B pairs, each times ``weights`` [B,B] if
    given. Without weights its lowest value is `floor_of_features(labels)`.
    """
    target = torch.where(labels[:, None] == labels, 1.0, -1.0)
    distance = (target - correlation(embeddings.transpose(0, 1))).abs()
    return (distance if weights is None else distance * weights).mean()


def mean_discriminator(embeddings: Tensor, labels: Tensor) -> Tensor:
    """MD: the class means should differ, in each embedding by itself. Lowest value `floor(7)`.

    float [B,k,D], int64 [B] -> scalar: mean of 1 + r over all k 7 7 pairs of means, with 0 for a mean and itself. The
    images of other classes count 1e-7 each, so the mean of a class that the batch lacks is the mean of the batch.
    """
    classes = torch.arange(CLASSES, device=labels.device)
    weights = torch.where(labels == classes[:, None], 1.0, EPSILON)
    means = torch.einsum("cb,bkd->kcd", weights / weights.sum(dim=1, keepdim=True), embeddings)
    return _off_diagonal(1 + correlation(means)).mean()


def _off_diagonal(matrix: Tensor) -> Tensor:
    return matrix * (1 - torch.eye(matrix.shape[-1], device=matrix.device))


def floor(m: int) -> float:
    """The lowest mean of 1 + r over all m x m pairs of m vectors (0 on the diagonal): 1 - 2/m, at r = -1/(m-1).

    The squared length of the sum of m unit vectors, m + sum of r, is not negative. Needs D >= m.
    """
    return 1 - 2 / m


def floor_of_features(labels: Tensor) -> float:
    """The lowest feature discriminator of a batch with these ``labels`` int64 [B], whatever the embeddings.

    With class shares p it is 1 - 2 sum p^2, all images of a class alike and the classes' vectors, weighted by p, adding
    up to nothing. Where one class has more than half of the batch, its vector cannot be balanced: (2 p - 1)^2 on top.
    """
    shares = torch.bincount(labels, minlength=CLASSES).double() / len(labels)
    unbalanced = max(0.0, 2 * shares.max().item() - 1)
    return 1 - 2 * shares.square().sum().item() + unbalanced**2


class RunningRecall(nn.Module):
    """Share of right answers per class over the last ``size`` training predictions; part of the checkpoint.

    It is the diagonal of their row-normalised confusion matrix, the only part that the weights use. A class that has
    not occurred has recall 0, as in the release.
    """

    def __init__(self, size: int = 1000) -> None:
        super().__init__()
        self.register_buffer("labels", torch.full((size,), -1))
        self.register_buffer("answers", torch.full((size,), -1))
        self.register_buffer("next", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """A batch, float [B,7] and int64 [B], replaces the oldest predictions -> float32 [7], the batch included."""
        size = len(self.labels)
        labels, answers = labels[-size:], logits.argmax(dim=1)[-size:]
        place = (self.next + torch.arange(len(labels), device=labels.device)) % size
        self.labels.index_copy_(0, place, labels)
        self.answers.index_copy_(0, place, answers)
        self.next.add_(len(labels)).remainder_(size)
        of_class = self.labels == torch.arange(CLASSES, device=labels.device)[:, None]
        hits = (of_class & (self.answers == self.labels)).sum(dim=1)
        return hits / of_class.sum(dim=1).clamp(min=1)


def pair_weights(recall: Tensor, labels: Tensor) -> Tensor:
    """The adaptive weights: float32 [7], int64 [B] -> [B,B]; 1 + (1 - recall) of both images' classes, 0 for itself.

    A pair counts between once (both classes always recognised) and three times (never).
    """
    missed = 1 - recall[labels]
    return _off_diagonal(1 + missed[:, None] + missed)


class AdCorreLoss(nn.Module):
    """50 CE/7 + ED + FD + MD of (logits [B,7], embeddings [B,k,D]) and int64 [B] labels (released ``train.py``).

    ``cross_entropy``: the weight of the cross-entropy, which the release averages over all B x 7 entries (so the usual
    one is divided by 7). ``terms``: which of ED, FD, MD count; none gives what the released code really minimises.
    ``adaptive``: weight the pairs of FD by `pair_weights`, over the last ``history`` predictions.
    """

    def __init__(
        self, cross_entropy: float = 50.0, terms: tuple[str, ...] = TERMS, adaptive: bool = True, history: int = 1000
    ) -> None:
        super().__init__()
        if unknown := set(terms) - set(TERMS):
            raise FerReproError(f"ad-corre loss: unknown terms {sorted(unknown)}, expected some of {', '.join(TERMS)}")
        self.cross_entropy, self.terms = cross_entropy, terms
        self.recall = RunningRecall(history) if adaptive and "FD" in terms else None

    def forward(self, output: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        return sum(self.parts(output, targets).values())

    def parts(self, output: tuple[Tensor, ...], targets: Tensor) -> dict[str, Tensor]:
        """The summands by name: CE (with its weight), then the terms in use. Adds the predictions to the history."""
        if isinstance(output, Tensor) or len(output) != 2 or targets.is_floating_point():
            raise FerReproError(
                "the ad-corre loss got an output or targets that it cannot score: expected (logits [B,7], embeddings "
                "[B,k,D]) and whole-number labels; mixed images have no single class, so take mixup out of the recipe"
            )
        logits, embeddings = output
        of_target = logits.log_softmax(dim=1).gather(1, targets[:, None]).clamp(min=math.log(EPSILON))
        parts = {"CE": -self.cross_entropy * of_target.mean() / CLASSES}
        if "ED" in self.terms:
            parts["ED"] = embedding_discriminator(embeddings)
        if "FD" in self.terms:
            weights = None if self.recall is None else pair_weights(self.recall(logits, targets), targets)
            parts["FD"] = feature_discriminator(embeddings, targets, weights)
        if "MD" in self.terms:
            parts["MD"] = mean_discriminator(embeddings, targets)
        return parts
