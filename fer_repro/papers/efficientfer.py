"""EfficientFER: so far only the measurement of what pretraining is worth (`fer_repro.lite0`)."""

from __future__ import annotations

from fer_repro import lite0

VARIANTS = lite0.VARIANTS
