"""What is wrong with FER2013 itself: duplicates, near-duplicates, contradicting labels, blank images, votes against
labels.

``exact`` compares pixels, ``near`` finds the same photograph in other crops, sizes and qualities, ``lookup`` scores
what the duplicates alone give away, ``votes`` holds the labels against FER+, ``report`` is all of it as one document.
``index`` is the committed list of image ids for each finding, and ``precision`` the sample that the threshold of
``near`` rests on.
"""

from __future__ import annotations

from fer_repro.data.audit.exact import JPEG_SPREAD, constant_images, duplicates, duplicates_in_training, groups, summary
from fer_repro.data.audit.near import NEAR, near_duplicates
from fer_repro.data.audit.report import Audit, audit

__all__ = [
    "JPEG_SPREAD",
    "NEAR",
    "Audit",
    "audit",
    "constant_images",
    "duplicates",
    "duplicates_in_training",
    "groups",
    "near_duplicates",
    "summary",
]
