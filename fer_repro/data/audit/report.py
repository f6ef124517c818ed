"""The whole audit, computed once: every finding as a table or a list of ids, and all of it in numbers."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fer_repro.data.audit import exact
from fer_repro.data.audit.lookup import lookup, near_in_training
from fer_repro.data.audit.near import NEAR, near_duplicates
from fer_repro.data.audit.votes import against_votes
from fer_repro.data.dataset import FER2013
from fer_repro.data.ferplus import votes as read_votes
from fer_repro.data.official import LABELS, USAGES

TESTS = USAGES[1:]


@dataclass(frozen=True)
class Audit:
    """The findings of one copy: ``duplicates`` (see `exact.duplicates`), ``alike`` (pairs that look alike, those below
    the threshold too, see `near_duplicates`), ``group`` int64 [N] (see `exact.groups`), and the FER+ ``votes`` or
    None."""

    data: FER2013 = field(repr=False)
    group: np.ndarray = field(repr=False)
    duplicates: pd.DataFrame = field(repr=False)
    alike: pd.DataFrame = field(repr=False)
    votes: pd.DataFrame | None = field(repr=False)

    @property
    def near(self) -> pd.DataFrame:
        """The near-duplicates: the pairs of ``alike`` from the threshold on."""
        return self.alike[self.alike["correlation"] >= NEAR]

    @cached_property
    def partner(self) -> np.ndarray:
        """For each image the group of the Training image that it is most alike, -1 where there is none."""
        return near_in_training(self.data, self.group, self.near)

    def findings(self) -> dict[str, list[str]]:
        """The ids of the images of each finding, in the order of the data.

        ``identical_in_training`` and ``near_in_training`` are test images, the second those without an identical one;
        ``conflicting`` all images of groups with several labels; ``blank`` those within `JPEG_SPREAD` grey values.
        """
        ids, frame = self.data.ids, self.duplicates
        trained = np.isin(self.group, self.group[self.data.usage == USAGES[0]])
        test = self.data.usage != USAGES[0]
        return {
            "identical_in_training": ids[test & trained].tolist(),
            "near_in_training": ids[test & ~trained & (self.partner >= 0)].tolist(),
            "conflicting": ids[np.sort(frame.loc[frame["conflict"], "position"].to_numpy(np.int64))].tolist(),
            "blank": exact.constant_images(self.data, exact.JPEG_SPREAD).tolist(),
        }

    def by_usage(self, finding: str) -> dict[str, int]:
        """How many images of a finding each usage has."""
        usage = self.data.usage[np.isin(self.data.ids, self.findings()[finding])]
        return {name: int((usage == name).sum()) for name in USAGES}

    def contradictions(self, usage: str) -> dict[str, int]:
        """`contradictions` between the images of one usage."""
        labels = np.array(LABELS)[self.data.labels]
        named = list(zip(self.data.usage.tolist(), labels.tolist(), strict=True))
        groups = ([named[at] for at in one["position"]] for _, one in self.duplicates.groupby("group"))
        near = self.near[["first", "second"]].to_numpy(np.int64)
        return contradictions(groups, ([named[at] for at in pair] for pair in near), usage)

    def same_answer(self) -> dict[str, int]:
        """`same_answer` over all images."""
        groups = (one["position"].tolist() for _, one in self.duplicates.groupby("group"))
        pairs = self.near[["first", "second"]].to_numpy(np.int64).tolist()
        return same_answer(dict(enumerate(self.data.labels.tolist())), groups, pairs)

    def _across_by_chance(self) -> float:
        shares = np.array([(self.data.usage == usage).mean() for usage in USAGES])
        sizes = self.duplicates.drop_duplicates("group")["size"].to_numpy(np.int64)
        expected = float((1 - (shares[:, None] ** sizes).sum(axis=0)).sum())
        return round(expected, 3)  # powers differ in the last bit from processor to processor

    def numbers(self) -> dict[str, Any]:
        """Everything in numbers, JSON-ready: exact findings (see `exact.summary`), near-duplicates, the look-up, images
        by usage and class, and what FER+ says (null without votes). ``across_by_chance``: how many groups of identical
        images would reach across usages if every image had been put into one at random, on average."""
        near, data = self.near, self.data
        labels = data.labels[near[["first", "second"]].to_numpy(np.int64)]
        usages = data.usage[near[["first", "second"]].to_numpy(np.int64)]
        across = int((usages[:, 0] != usages[:, 1]).sum())
        images = np.isin(self.group, self.group[near[["first", "second"]].to_numpy(np.int64)])
        names = ("identical_in_training", "near_in_training", "conflicting", "blank")
        return {
            "counts": {u: {c: int(n) for c, n in row.items()} for u, row in data.counts().iterrows()},
            **exact.summary(data),
            "across_by_chance": self._across_by_chance(),
            "near": {
                "threshold": NEAR,
                "pairs": len(near),
                "images": int(images.sum()),
                "across": across,
                "same_label": int((labels[:, 0] == labels[:, 1]).sum()),
                "in_training": {u: n for u, n in self.by_usage("near_in_training").items() if u in TESTS},
            },
            "by_usage": {name: self.by_usage(name) for name in names},
            "chance": float((np.bincount(data.labels, minlength=len(LABELS)) ** 2).sum() / max(1, len(data)) ** 2),
            "lookup": lookup(data, self.group, self.partner),
            "ferplus": None if self.votes is None else against_votes(data, self.votes),
        }


def contradictions(
    groups: Iterable[Sequence[tuple[str, str]]], near: Iterable[Sequence[tuple[str, str]]], usage: str
) -> dict[str, int]:
    """How often the labels of one usage contradict each other.

    ``groups`` of identical images with several labels among those of the usage, near-duplicate ``pairs`` with both
    images in it, and how many of these ``differ`` in their label.

    The arguments ``groups`` and ``near`` hold the usage and the label of each image.
    """
    inside = [[label for own, label in group if own == usage] for group in groups]
    pairs = [labels for pair in near if len(labels := [label for own, label in pair if own == usage]) == 2]
    return {
        "groups": sum(len(set(labels)) > 1 for labels in inside),
        "pairs": len(pairs),
        "differ": sum(first != second for first, second in pairs),
    }


def same_answer(
    labels: Mapping[Any, Hashable], groups: Iterable[Sequence[Hashable]], near: Iterable[Sequence[Hashable]]
) -> dict[str, int]:
    """How many ``images`` are linked by near-duplicate pairs, and how many of them a method gets ``right`` at most that
    answers the same for all linked ones.

    ``labels``: of each image; ``groups`` of identical images, which are linked too; ``near``: the pairs. Links go on
    through further pairs, so each image counts once.
    """
    pairs, place = list(near), {image: at for at, image in enumerate(labels)}
    links = [[place[one] for one in link] for link in (*pairs, *itertools.chain(*map(itertools.pairwise, groups)))]
    first, second = np.array(links, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(links)), (first, second)), shape=(len(place), len(place)))
    parts = connected_components(graph, directed=False)[1]
    counts: dict[int, Counter[Hashable]] = {int(parts[place[image]]): Counter() for pair in pairs for image in pair}
    for image, part in zip(labels, parts.tolist(), strict=True):
        if part in counts:
            counts[part][labels[image]] += 1
    return {
        "images": sum(one.total() for one in counts.values()),
        "right": sum(max(one.values()) for one in counts.values()),
    }


def audit(data: FER2013, ferplus: str | os.PathLike | None = None) -> Audit:
    """Every finding of a copy. ``ferplus``: the file ``fer2013new.csv``, whose votes join to the original CSV only.

    Raises `FerReproError` where the votes do not belong to the data (see `fer_repro.data.ferplus.votes`).
    """
    votes = read_votes(data, ferplus) if ferplus else None  # first: a wrong file is said at once
    group = exact.groups(data)
    return Audit(data, group, exact.duplicates(data), near_duplicates(data, group), votes)
