"""FER2013 reproducibility: every row of the leaderboard, audited and re-run under one protocol."""

__version__ = "0.1.0"
