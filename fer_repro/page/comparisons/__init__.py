"""The sections of the chapter that compares everything that is stored: one class, a method for each cell."""

from __future__ import annotations

from functools import cached_property

from fer_repro.comparisons import Comparison, gather, protocols
from fer_repro.comparisons.calibrated import Calibrated, calibrated
from fer_repro.comparisons.pairs import Pairs
from fer_repro.markup import Html, text
from fer_repro.page.comparisons import accuracy, confidence, cost, protocol, together
from fer_repro.page.comparisons.words import nothing, one_only
from fer_repro.page.findings import bullets
from fer_repro.plots.figure import Figure

DRAWS, SEED = 10_000, 0

__all__ = ["ComparisonsPage"]


class ComparisonsPage:
    """``results_dir``: folder of stored results, empty for the project's own. Raises `FerReproError` where it does not
    exist or holds a result that cannot be read.

    Every section says so where too little is stored for it.
    """

    def __init__(self, results_dir: str = "") -> None:
        self.comparison: Comparison = gather(results_dir)

    @cached_property
    def _pairs(self) -> Pairs:
        return Pairs(self.comparison, DRAWS, SEED)

    @cached_property
    def _calibrated(self) -> list[Calibrated]:
        return calibrated(self.comparison.entries)

    @cached_property
    def _both_sets(self) -> list[protocols.BothSets]:
        return protocols.both_sets(self.comparison)

    @cached_property
    def _epochs(self) -> list[protocols.Epochs]:
        return protocols.by_epoch(self.comparison)

    @cached_property
    def _augmented(self) -> list[protocols.Augmented]:
        return protocols.augmented(self.comparison)

    @cached_property
    def _claimed(self) -> list[protocols.Claimed]:
        return protocols.both_protocols(self.comparison)

    def _missing(self, what: str, models: int = 1, deciding: int = 0) -> Html | None:
        """What stands in place of a section that needs so many models, or so many that decide; None where there are."""
        if not self.comparison:
            return nothing(what)
        enough = len(self.comparison.entries) >= models and len(self.comparison.deciding) >= deciding
        return None if enough else one_only(what)

    def findings(self) -> Html:
        """What the numbers of this page come to, in sentences that are made from them."""
        if missing := self._missing("What we found"):
            return missing
        lines = [
            *accuracy.found(self.comparison, self._pairs),
            *protocol.found(self._both_sets, self._epochs, self._augmented, self._claimed),
            *together.found(self.comparison),
            *confidence.found(self._calibrated),
        ]
        return Html(bullets(map(text, lines)).body, " ".join(lines))

    def forest(self) -> Figure | Html:
        """Claims and measurements."""
        return self._missing("Claims and measurements") or accuracy.forest_plot(self.comparison)

    def overview(self) -> Html:
        """Every model that takes part."""
        return self._missing("All models") or accuracy.overview(self.comparison)

    def pair_picture(self) -> Figure | Html:
        """The differences of all pairs."""
        return self._missing("All pairs", 2) or accuracy.pair_picture(self._pairs)

    def pairs(self) -> Html:
        """The tests of all pairs."""
        return self._missing("The tests of all pairs", 2, 2) or accuracy.pair_tables(self._pairs)

    def ranks(self) -> Html:
        """Rank intervals and groups."""
        return self._missing("Ranks and groups", 2, 2) or accuracy.ranks(self._pairs)

    def test_sets(self) -> Html:
        """PublicTest beside PrivateTest."""
        return self._missing("Both test sets") or protocol.both_sets(self._both_sets)

    def epochs(self) -> Html:
        """Last epoch, best on PublicTest, best on PrivateTest."""
        return self._missing("The choice of the epoch") or protocol.epochs(self._epochs)

    def epoch_curves(self) -> Html:
        """Both test sets by epoch."""
        return self._missing("Accuracy by epoch") or protocol.epoch_curves(self._epochs)

    def augmentation(self) -> Html:
        """Plain against test-time augmentation."""
        return self._missing("Test-time augmentation") or protocol.augmentation(self._augmented)

    def claimed(self) -> Html:
        """Official against claimed."""
        return self._missing("Both protocols") or protocol.claimed(self._claimed, self.comparison)

    def agreement(self) -> Figure | Html:
        """Cohen's kappa of all pairs."""
        return self._missing("Agreement", 2) or together.agreement(self.comparison.entries)

    def ensembles(self) -> Html:
        """What the models know together."""
        return self._missing("Ensembles", 2, 2) or together.ensembles(self.comparison)

    def calibration(self) -> Html:
        """Calibration errors before and after a temperature."""
        return self._missing("Calibration") or confidence.errors(self._calibrated)

    def reliability(self) -> Figure | Html:
        """Accuracy against confidence."""
        return self._missing("Reliability", 1, 1) or confidence.reliability(self._calibrated)

    def recalls(self) -> Html:
        """Recall by class of every model."""
        return self._missing("Recall by class") or together.recalls(self.comparison)

    def hardest(self) -> Html:
        """The images that the fewest models get right."""
        return self._missing("The hardest images", 2, 2) or together.hardest(self.comparison)

    def cost(self) -> Html:
        """Accuracy against parameters, multiply-adds, seconds and year."""
        return self._missing("Cost") or cost.cost(self.comparison)
