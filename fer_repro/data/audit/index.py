"""The committed index: the ids of the images of each finding on the folder copy, so that nobody needs the data for
them.

``python -m fer_repro.data.audit.index`` writes it anew from the data at hand (``--root`` or ``$FER2013_ROOT``). It
holds for the copy with its digest alone: a CSV has other ids, and there the audit is computed.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fer_repro.data.audit import precision
from fer_repro.data.audit.near import ALIKE, NEAR, SHIFT
from fer_repro.data.audit.report import Audit, audit, contradictions, same_answer
from fer_repro.data.dataset import FER2013
from fer_repro.data.load import known_copy, load
from fer_repro.errors import FerReproError
from fer_repro.files import atomic_write

FILE = Path(__file__).with_name("index.json")
COMMAND = "python -m fer_repro.data.audit.index"
CLEAN = ("identical_in_training", "conflicting", "blank")
STRICT = (*CLEAN, "near_in_training")


@dataclass(frozen=True)
class Index:
    """What `document` wrote: the ``digest`` and name of the ``copy`` it holds for, all ``numbers``, the ids of each of
    ``findings``, the ``groups`` of identical images, the near-duplicate pairs ``near`` with their correlation, and the
    ``bands`` of pairs around the threshold."""

    digest: str
    copy: str
    numbers: Mapping[str, Any]
    findings: Mapping[str, Sequence[str]]
    groups: Sequence[Sequence[str]]
    near: Sequence[tuple[str, str, float]]
    bands: Sequence[Mapping[str, Any]]

    def holds_for(self, digest: str, ids: np.ndarray) -> bool:
        """Whether its ids are those of a copy with this digest and these ``ids`` (str [N], of a whole split at least).

        A CSV that was written from the pictures has their digest, but ids of its own.
        """
        return digest == self.digest and bool(np.isin(ids, list(self._named)).any())

    def require(self, data: FER2013) -> None:
        """Raise `FerReproError` where the ids of ``data`` are others than those of the index."""
        if not self.holds_for(data.digest, data.ids):
            raise FerReproError(
                f"the committed index names images of {self.copy} and does not hold for '{data.source}', whose ids are "
                "others: `fer-repro data audit` computes the findings of that copy"
            )

    def flagged(self, ids: np.ndarray, findings: Sequence[str] = CLEAN) -> np.ndarray:
        """Which of ``ids`` (str [N]) are named by any of the ``findings``, bool [N]."""
        return np.isin(ids, [name for finding in findings for name in self.findings[finding]])

    def contradictions(self, usage: str) -> dict[str, int]:
        """`report.contradictions` between the images of one usage; the ids of the folder copy say usage and label."""
        groups = ([_usage_and_label(name) for name in group] for group in self.groups)
        return contradictions(groups, ([_usage_and_label(name) for name in pair[:2]] for pair in self.near), usage)

    def same_answer(self) -> dict[str, int]:
        """`report.same_answer` over all images; the ids of the folder copy say the label."""
        pairs = [pair[:2] for pair in self.near]
        labels = {name: _usage_and_label(name)[1] for names in (*self.groups, *pairs) for name in names}
        return same_answer(labels, self.groups, pairs)

    @cached_property
    def _named(self) -> set[str]:
        return {name for ids in self.findings.values() for name in ids}


def _usage_and_label(name: str) -> tuple[str, str]:
    """Of an id of the folder copy: ``sad/Training_23814``."""
    label, _, file = name.partition("/")
    return file.partition("_")[0], label


def document(found: Audit) -> dict[str, Any]:
    """The index of an audit, JSON-ready; deterministic for a copy. FER+ votes have no part in it."""
    data, frame = found.data, found.duplicates
    groups = [data.ids[one["position"].to_numpy(np.int64)].tolist() for _, one in frame.groupby("group")]
    pairs = found.near[["first", "second", "correlation"]].itertuples(index=False)
    numbers = {name: value for name, value in found.numbers().items() if name != "ferplus"}
    return {
        "made_by": COMMAND,
        "copy": known_copy(data) or "unknown copy",
        "digest": data.digest,
        "near_duplicates": {"cosine_of_hashes": ALIKE, "correlation": NEAR, "shift": SHIFT},
        "numbers": numbers,
        "findings": found.findings(),
        "groups": groups,
        "near": [[str(data.ids[one.first]), str(data.ids[one.second]), float(one.correlation)] for one in pairs],
        "bands": precision.bands(data, found.alike),
    }


@cache
def committed() -> Index:
    """The index that came with the package."""
    content = json.loads(FILE.read_text(encoding="utf-8"))
    near = [(first, second, correlation) for first, second, correlation in content["near"]]
    names = ("digest", "copy", "numbers", "findings", "groups", "bands")
    return Index(**{name: content[name] for name in names}, near=near)


def as_text(content: Mapping[str, Any]) -> str:
    """The file's text: a line for each part."""
    parts = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in content.items())
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the index of the copy at hand. Raises `FerReproError` for another copy than the one it is for."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Write the index of image ids for each finding.")
    parser.add_argument("--root", default=None, help="where FER2013 is; else $FER2013_ROOT, else data/fer2013")
    parser.add_argument("--out", default=str(FILE), help="the file to write; the package's own by default")
    chosen = parser.parse_args(arguments)
    data = load("fer2013", chosen.root)
    if known_copy(data) is None or data.facts.get("layout") != "folder copy":
        raise FerReproError(
            f"'{data.source}' is not the folder copy on Kaggle, whose ids the index holds: name that with --root"
        )
    with atomic_write(Path(chosen.out)) as file:
        file.write(as_text(document(audit(data))).encode())
    print(f"{os.path.basename(chosen.out)}: index of {known_copy(data)}")


if __name__ == "__main__":
    main()
