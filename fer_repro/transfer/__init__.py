"""Checkpoints and weights leave the machine: exports for other programs, runs packed into size-limited chunks."""
