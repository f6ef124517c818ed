"""Kaggle's CSV forms: what is read, and what every wrong row is called."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from conftest_data import SMALL

from fer_repro.data import USAGES, csv_reader, drawn, fer2013, load
from fer_repro.data.csv_writer import write_csv
from fer_repro.errors import FerReproError
