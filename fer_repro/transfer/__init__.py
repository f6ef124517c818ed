"""Checkpoints and weights leave the machine: exports for other programs, runs packed into size-limited chunks."""

from fer_repro.transfer.exported import load

__all__ = ["load"]
