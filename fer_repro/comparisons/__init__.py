"""What stored results say about each other: numbers only, no markup and no pictures.

`gather` brings everything that was scored on PrivateTest onto the same images, each thing with the name of what it is.
The other modules compute from that: `pairs` what differs from what, `ensembles` agreement and what methods know
together, `calibrated` confidence, `protocols` what selection, test-time augmentation and the claimed protocol change.
"""

from __future__ import annotations

from fer_repro.comparisons.entries import Comparison, Entry
from fer_repro.comparisons.gather import gather

__all__ = ["Comparison", "Entry", "gather"]
