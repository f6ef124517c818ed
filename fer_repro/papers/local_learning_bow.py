"""Local Learning BOW: visual words, presence vectors, and one SVM per test image. No network.

Ionescu, Popescu, Grozea: "Local Learning to Improve Bag of Visual Words Model for Facial Expression Recognition", ICML 2013
workshop Challenges in Representation Learning; fourth of the contest that FER2013 was made for. The leaderboard files it under
the contest's report (Goodfellow et al., arXiv 1307.0414).

Idea: describe a face by which small gradient patterns (words) occur where, as binary vectors; then, instead of one classifier
for all faces, train a little one-against-all SVM on the nearest training faces of each test face and ask it about that face only.

Accuracy claimed: 67.484 % on PrivateTest, whose labels were hidden from the contestants.
Accuracy measured, seconds, memory and machine: ``results/local-learning-bow/official/seed-0/result.json``.
Parameters: none are learned by gradient; the recipe names the vocabulary sizes, the result counts support.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.svm import LinearSVC

from fer_repro import local_svm, visual_words
from fer_repro.data.fer2013 import FER2013
from fer_repro.data.protocol import OFFICIAL, Protocol, Splits
from fer_repro.evaluation.cost import peak_memory
from fer_repro.papers.base import Variant
from fer_repro.training.checkpoint import writer
from fer_repro.training.interrupts import stop_requests
from fer_repro.training.recipe import Deviation, Recipe, Selection, Views, step
from fer_repro.training.run import Interrupted, Run
from fer_repro.training.shelf import Shelf

# The contest: PrivateTest was unknown to everybody, so the claimed protocol is the clean one.
CLAIMED = Protocol("claimed")
