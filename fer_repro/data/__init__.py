"""FER2013 in memory: readers, the drawn faces, the splits."""

from fer_repro.data.load import FER2013, describe, load
from fer_repro.data.official import LABELS
from fer_repro.data.protocol import OFFICIAL, USAGES, Protocol, Splits

__all__ = ["FER2013", "LABELS", "OFFICIAL", "USAGES", "Protocol", "Splits", "describe", "load"]
