"""FER2013 in memory: readers, the synthetic faces, the splits."""

from fer_repro.data.dataset import FER2013
from fer_repro.data.load import describe, faces_of, load
from fer_repro.data.official import LABELS, USAGES
from fer_repro.data.protocol import OFFICIAL, Protocol, Splits

__all__ = ["FER2013", "LABELS", "OFFICIAL", "USAGES", "Protocol", "Splits", "describe", "faces_of", "load"]
