"""These tests need the book extra; without it they are skipped, not failed."""

from __future__ import annotations

import pytest

pytest.importorskip("papermill", reason="the book extra is not installed")
