"""``fer-repro data audit``: what is wrong with the copy of FER2013 on this machine, as text or as one JSON document."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from fer_repro.cli.console import console, print_json, progress, table

Ferplus = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        help="With audit: fer2013new.csv of FER+, to hold the labels against its votes (the original CSV only).",
    ),
]


def audit_data(root: str, ferplus: str, accept_modified: bool, as_json: bool) -> None:
    """Audit the copy at ``root`` (or where it is found), and say whether the committed index of ids holds for it."""
    from fer_repro.data import load
    from fer_repro.data.audit import audit
    from fer_repro.data.audit.index import committed
    from fer_repro.data.audit.precision import bands
    from fer_repro.data.load import copy_name

    faces, index = load("fer2013", root or None, accept_modified=accept_modified), committed()
    progress("comparing all images with each other")
    began = time.perf_counter()
    found = audit(faces, ferplus or None)
    document: dict[str, Any] = {
        "source": faces.source,
        "known_copy": copy_name(faces),
        "modified": faces.difference if faces.modified else None,
        "digest": faces.digest,
        "index_holds": index.holds_for(faces.digest, faces.ids),
        **found.numbers(),
        "bands": bands(faces, found.alike),
        "findings": found.findings(),
        "seconds": round(time.perf_counter() - began, 2),
    }
    print_json(document) if as_json else _print(document, index.copy)


def _print(document: Mapping[str, Any], indexed: str) -> None:
    print(f"{document['source']}: {document['known_copy']}, audited in {document['seconds']:.0f} s")
    if document["modified"]:
        print(f"not the official FER2013: {document['modified']}")
    near, found = document["near"], document["by_usage"]
    print(
        f"identical images: {document['groups']:,} groups with {document['images']:,} images, {document['across']:,} "
        f"groups across splits, {document['conflict']:,} with conflicting labels"
    )
    print(
        f"near-duplicates: {near['pairs']:,} pairs with {near['images']:,} images, {near['across']:,} pairs across "
        f"splits, {near['pairs'] - near['same_label']:,} with different labels"
    )
    names = {
        "identical_in_training": "identical image in Training",
        "near_in_training": "near-duplicate in Training only",
        "conflicting": "conflicting labels",
        "blank": "blank or almost blank",
    }
    console.print(
        table(["images with", *document["counts"]], [[name, *found[key].values()] for key, name in names.items()])
    )
    rows: list[list[Any]] = []
    for usage, kinds in document["lookup"].items():
        for kind, one in kinds.items():
            shares = ["" if one[name] is None else f"{100 * one[name]:.2f}" for name in ("accuracy", "of_test_set")]
            rows.append([usage, kind.replace("_", " "), one["n"], one["correct"], *shares])
    console.print(table(["labels looked up", "by", "images", "right", "% of these", "% of the test set"], rows))
    if document["ferplus"]:
        votes = [[name, *one.values()] for name, one in document["ferplus"].items() if name != "by_label"]
        header = ["FER+ votes", "images", "against the label", "no face", "unknown", "no majority"]
        console.print(table(header, votes))
    holds = "names these images" if document["index_holds"] else f"does not hold for these ids: it is that of {indexed}"
    print(f"the committed index of image ids {holds}")
