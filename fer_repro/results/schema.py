"""What a result's record holds: the type of every field that anything reads, and the digest of the whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from fer_repro.data import LABELS, USAGES
from fer_repro.data.official import MODIFIED as MODIFIED_DATA
from fer_repro.results import shapes
from fer_repro.results.shapes import (
    ANY,
    COUNT,
    DIGEST,
    FLAG,
    FRACTION,
    NAME,
    NOTHING,
    NUMBER,
    SHARE,
    TEXT,
    TIME,
    WHOLE,
    Both,
    Rule,
    Shape,
    one_of,
    pattern_of,
)

SCHEMA = 1
HALVES = ("PublicTest", "PrivateTest")
STATUSES = ("done", "stopped early", "diverged", "interrupted", "error")
FINISHED = ("done", "stopped early")
KEYS = frozenset(
    "schema variant protocol profile seed status recipe recipe_sha256 code_version data usages selection "
    "selected_epoch parameters multiply_adds scores cost environment started ended facts".split()
)
BESIDE = ("predictions.npz", "history.csv")
"""The files that ``result.json`` is stored with; its ``files`` holds the sha256 of each."""
EPOCHS = "epochs.npz"
"""One more file of a run that was asked for it: what the weights of every epoch predict."""
FULL, RELEASED, UNFINISHED, PACKAGE, MODIFIED = "full", "released", "unfinished", "package", "modified"
"""The kinds of a stored result. A full run is one that came to its recipe's end. Weights that others published and
packages were not trained here, so they have no history. An unfinished run was stopped, and was scored by its best
weights so far. A modified one is a full run on a copy of FER2013 that somebody changed on purpose: no result of its
model."""


def _seven(shape: Shape) -> Both:
    size = len(LABELS)
    length = {"minItems": size, "maxItems": size}
    return Both([shape], Rule(f"{size} entries", (list,), lambda entries: len(entries) == size, length))


def _rises(pair: list[float]) -> bool:
    return len(pair) == 2 and pair[0] <= pair[1]


def _are_test_sets(names: list[str]) -> bool:
    return 0 < len(names) == len(set(names)) and set(names) <= set(HALVES)


USAGES_LIST = [one_of(*USAGES)]
INTERVAL = Both([FRACTION], Rule("two numbers, the lower one first", (list,), _rises, {"minItems": 2, "maxItems": 2}))
STEP = {"name": TEXT, ...: ANY}
VIEWS = {
    "kind": TEXT,
    "size": COUNT,
    "average": TEXT,
    "resize?": COUNT,
    "count?": COUNT,
    "steps?": [STEP],
    "seed?": COUNT,
    "poses?": [[ANY]],
}
RECIPE = {
    "variant": NAME,
    "network": STEP,
    "protocol": {"name": NAME, "finetune": (NOTHING, USAGES_LIST)}
    | dict.fromkeys(("train", "select", "test"), USAGES_LIST),
    "stages": [{"name": TEXT, "epochs": WHOLE, ...: ANY}],
    "augment": [STEP],
    "selection": {"rule": TEXT, "views": FLAG, "measure": one_of("accuracy", "loss")},
    "views": VIEWS,
    "plain": VIEWS,
    "options": STEP,
    "deviations": [dict.fromkeys(("section", "what", "why"), TEXT)],
    ...: ANY,
}
PER_CLASS = {"n": WHOLE, "correct": WHOLE, "interval": (NOTHING, INTERVAL)}
METRICS: dict[Any, Any] = {
    "n": WHOLE,
    "correct": WHOLE,
    "interval": INTERVAL,
    "log_loss": NUMBER,
    "per_class": dict.fromkeys(LABELS, PER_CLASS | dict.fromkeys(("recall", "precision", "f1"), SHARE)),
    "confusion": _seven(_seven(WHOLE)),
} | dict.fromkeys(("accuracy", "balanced_accuracy", "macro_f1", "ece", "top2"), FRACTION)
KINDS = {"plain": METRICS, "views?": METRICS}
TEST_USAGES = Both(
    USAGES_LIST,
    Rule(
        f"{' or '.join(HALVES)}, or both",
        (list,),
        _are_test_sets,
        {"minItems": 1, "uniqueItems": True, "items": {"enum": [*HALVES]}},
    ),
)
NOT_OF_A_PACKAGE = ("recipe", "recipe_sha256", "selection", "selected_epoch")
RECORD: dict[Any, Shape] = {
    "schema": Rule(str(SCHEMA), (int,), SCHEMA.__eq__, {"const": SCHEMA}),
    "variant": NAME,
    "protocol": NAME,
    "profile": one_of("smoke", "full"),
    "seed": WHOLE,
    "status": one_of(*STATUSES),
    "recipe": RECIPE,
    "recipe_sha256": DIGEST,
    "code_version": TEXT,
    "data": {"name": TEXT, "source": TEXT, "digest": TEXT},
    "usages": dict.fromkeys(("train", "select", "finetune"), USAGES_LIST) | {"test": TEST_USAGES},
    "selection": TEXT,
    "selected_epoch": COUNT,
    "parameters": COUNT,
    "multiply_adds": COUNT,
    "scores": dict.fromkeys(HALVES, KINDS)
    | dict.fromkeys(("+".join(HALVES) + "?", "+".join(HALVES[::-1]) + "?"), KINDS),
    "cost": {"seconds": (NOTHING, NUMBER), "images_per_second": (NOTHING, NUMBER), "device": TEXT, ...: ANY},
    "environment": {...: (NOTHING, TEXT, FLAG, NUMBER)},
    "started": TIME,
    "ended": TIME,
    "facts": {...: ANY},
    "files?": dict.fromkeys(BESIDE, DIGEST) | {f"{EPOCHS}?": DIGEST},
    "sha256?": DIGEST,
    ...: ANY,
}
PUBLISHED = {
    "name": pattern_of(r"(?!seed-)[A-Za-z0-9][\w.-]*", "a name of letters, digits, '.', '-' and '_', not like seed-0"),
    "sha256": DIGEST,
    "url": (NOTHING, TEXT),
    ...: TEXT,
} | dict.fromkeys("at file published_file licence conversion trained_on selected_on why differs".split(), TEXT)
RELEASED_RECORD: dict[Any, Shape] = RECORD | {
    "kind": one_of(RELEASED),
    "released": PUBLISHED,
    "protocol": one_of(RELEASED),
    "seed": NOTHING,
    "usages": {"test": TEST_USAGES},
    "scores": {f"{half}?": KINDS for half in HALVES},
    "files?": {BESIDE[0]: DIGEST},
}
UNFINISHED_RECORD: dict[Any, Shape] = RECORD | {
    "kind": one_of(UNFINISHED),
    "profile": one_of("full"),
    "status": one_of("interrupted"),
    "unfinished": Both(
        dict.fromkeys(("epochs_done", "epochs"), WHOLE),
        Rule("some epochs of a recipe, but not all", (dict,), lambda said: 0 < said["epochs_done"] < said["epochs"]),
    ),
}
COUNTS = dict.fromkeys(USAGES, dict.fromkeys(LABELS, WHOLE))
MODIFIED_RECORD: dict[Any, Shape] = RECORD | {
    "kind": one_of(MODIFIED),
    "data": {"name": one_of(MODIFIED_DATA), "source": TEXT, "digest": DIGEST},
    "modified": {"counts": COUNTS},
}
# A package's own name may hold what a folder's must not (@owner/name), which ``slug`` leaves out.
PACKED = {
    "slug": NAME,
    "version": NAME,
    "sha256": DIGEST,
    "files": [{"member": TEXT, "sha256": DIGEST}],
    "labels": [one_of(*LABELS)],
    "sample": {"usage": one_of(USAGES[0]), "images": WHOLE, "rule": TEXT},
} | dict.fromkeys("name registry released licence family preprocessing".split(), TEXT)
PACKAGE_RECORD: dict[Any, Shape] = {name: shape for name, shape in RECORD.items() if name not in NOT_OF_A_PACKAGE} | {
    "kind": one_of(PACKAGE),
    "package": PACKED,
    "variant": one_of(PACKAGE),
    "protocol": one_of(PACKAGE),
    "seed": NOTHING,
    "usages": {"test": TEST_USAGES},
    "scores": dict.fromkeys(USAGES, KINDS),
    "files?": {BESIDE[0]: DIGEST},
}


@dataclass(frozen=True)
class Kind:
    """One kind of stored results: the ``shape`` of its records, the files ``beside`` them, the test sets with
    ``predictions``, its ``status``es, the name of its ``data``, and the ``place`` of a record below results/
    (``folders``: of all of them, as patterns)."""

    shape: dict[Any, Shape]
    folders: tuple[str, ...]
    place: Callable[[Mapping[str, Any]], tuple[str, ...]]
    beside: tuple[str, ...] = BESIDE
    predictions: Callable[[Mapping[str, Any]], tuple[str, ...]] = lambda record: HALVES
    status: tuple[str, ...] = FINISHED
    data: str = "fer2013"


def _seed(record: Mapping[str, Any]) -> str:
    return f"seed-{record['seed']}"


EVIDENCE = {
    FULL: Kind(
        RECORD | {"kind?": one_of(FULL)},
        ("*", "*", "seed-*"),
        lambda record: (record["variant"], record["protocol"], _seed(record)),
    ),
    RELEASED: Kind(
        RELEASED_RECORD,
        ("*", RELEASED, "*"),
        lambda record: (record["variant"], record["protocol"], record["released"]["name"]),
        beside=BESIDE[:1],
        predictions=lambda record: tuple(record["usages"]["test"]),
    ),
    UNFINISHED: Kind(
        UNFINISHED_RECORD,
        ("*", "*", UNFINISHED, "seed-*"),
        lambda record: (record["variant"], record["protocol"], UNFINISHED, _seed(record)),
        status=("interrupted",),
    ),
    PACKAGE: Kind(
        PACKAGE_RECORD,
        ("packages", "*"),
        lambda record: ("packages", f"{record['package']['slug']}-{record['package']['version']}"),
        beside=BESIDE[:1],
        predictions=lambda record: USAGES,
    ),
    MODIFIED: Kind(
        MODIFIED_RECORD,
        ("*", "*", MODIFIED, "*", "seed-*"),
        lambda record: (record["variant"], record["protocol"], MODIFIED, record["data"]["digest"][:12], _seed(record)),
        data=MODIFIED_DATA,
    ),
}
"""Every kind of evidence that is stored, by name."""
KIND = one_of(*EVIDENCE)


def kind_of(record: Mapping[str, Any]) -> str:
    """The kind of a record: one of `EVIDENCE`, if it is whole."""
    return record.get("kind", FULL)


def beside(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The files that a record is stored with."""
    more = (EPOCHS,) if EPOCHS in record.get("files", {}) else ()
    return (*EVIDENCE[kind_of(record)].beside, *more)


def scored_halves(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The test sets that a record has predictions of: both, but of released weights only those that may be scored; of a
    package a sample of Training before them."""
    return EVIDENCE[kind_of(record)].predictions(record)


def place_of(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The parts of a record's folder below results/, by its kind: variant, protocol and seed of a full run."""
    return EVIDENCE[kind_of(record)].place(record)


def fault(record: Any) -> str:
    """The first thing that is wrong with a record (JSON data), in words; empty where it is whole."""
    kind = kind_of(record) if isinstance(record, dict) else FULL
    if wrong := shapes.fault(kind, KIND, ((), "kind")):
        return wrong
    shape = EVIDENCE[kind].shape
    return " ".join((shapes.fault(record, shape) or shapes.not_finite(record)).split())


def content_digest(record: Mapping[str, Any]) -> str:
    """sha256 of a record's content, whatever the order of its fields; its own field ``sha256`` is left out.

    ``record``: JSON data, as `json.loads` gives it.
    """
    content = {name: value for name, value in record.items() if name != "sha256"}
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
