"""The claims: reads ``claims.yaml`` strictly, and turns its rows into frozen data.

The file holds the pinned leaderboard, what each of its 17 rows claims and what our audit found, every fact with a
source; papers that are not on the leaderboard follow. A wrong or missing field is an error that names the row and the
field; nothing is repaired silently.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, partial
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

from fer_repro.claims import schema as need
from fer_repro.claims.others import Measurement, comparable_scope
from fer_repro.errors import FerReproError, nearest

SCHEMA = 1
FILE = Path(__file__).parents[1] / "claims.yaml"
CLASSES = {
    "A": "official split, clean selection",
    "B": "official images, but swapped test sets, or selected or tuned on the scored one",
    "C": "other data (private, extra, merged, random split or cleaned)",
    "D": "not established by anything we could read",
}
KINDS = ("code", "paper", "author", "run", "third-party", "inference")
HELD_OUT = ("PublicTest", "PrivateTest")
HALF = 3589  # images in PublicTest and in PrivateTest


@dataclass(frozen=True)
class LeaderboardRow:
    """One row of the pinned leaderboard in its own columns; ``accuracy`` in percent."""

    model: Annotated[str, need.text, "ModelName"]
    accuracy: Annotated[float, need.percent, "Accuracy"]
    date: Annotated[str, need.date, "ReleaseDate"]
    paper: Annotated[str, need.text, "Paper"]
    paper_url: Annotated[str, need.url, "PaperURL"]
    code: Annotated[str | None, need.maybe(need.url), "Code"]


@dataclass(frozen=True)
class Paper:
    title: Annotated[str, need.text]
    authors: Annotated[str, need.text]
    year: Annotated[int, need.whole]
    venue: Annotated[str, need.text]
    url: Annotated[str, need.url]
    bibkey: Annotated[str, need.text]


@dataclass(frozen=True)
class Code:
    """``official`` is None where no code is known."""

    url: Annotated[str | None, need.maybe(need.url)]
    official: Annotated[bool | None, need.maybe(need.boolean)]
    note: Annotated[str, need.note]


@dataclass(frozen=True)
class Evidence:
    """One fact with where to look it up; ``kind`` is one of `KINDS`."""

    fact: Annotated[str, need.text]
    source: Annotated[str, need.text]
    kind: Annotated[str, need.one_of(KINDS)]


@dataclass(frozen=True)
class Total:
    """Counts k for which k of ``n`` images print as the claim: ``rounded``, or ``cut`` after the last decimal."""

    n: int
    what: str
    rounded: tuple[int, ...]
    cut: tuple[int, ...]


@dataclass(frozen=True)
class Arithmetic:
    """Can the printed percent be a count of ``n`` images? ``correct`` is the count, None where there is none."""

    n: int
    correct: int | None
    matches: tuple[int, ...]
    cut: tuple[int, ...]
    printed_by: str | None
    others: tuple[Total, ...]
    note: str


@dataclass(frozen=True)
class Audit:
    """How the number was made, as far as known; no ``usages`` and ``n`` "unknown" where the scored images are."""

    scored: Annotated[str, need.text]
    usages: Annotated[tuple[str, ...], need.list_of(need.one_of(HELD_OUT))]
    n: Annotated[int | str, need.whole_or_unknown]
    selected_on: Annotated[str, need.text]
    trained_on: Annotated[str, need.text]
    extra_data: Annotated[str, need.text]
    pretraining: Annotated[str, need.text]
    views: Annotated[str, need.text]
    ensemble: Annotated[int | str, need.whole_or_unknown]
    comparability: Annotated[str, need.one_of(tuple(CLASSES))]
    why: Annotated[str, need.text]
    evidence: Annotated[tuple[Evidence, ...], need.list_of(need.record(Evidence))]
    arithmetic: Arithmetic


@dataclass(frozen=True)
class Claim:
    """One claimed number, its paper, its audit; ``accuracy`` in percent, as printed.

    ``row``: the row of the pinned leaderboard; where ``pinned`` is False the paper is not on it, and the row holds the
    claim's own paper and code.
    """

    variant: Annotated[str, need.identifier]
    slug: Annotated[str, need.identifier]
    model: Annotated[str, need.text]
    accuracy: Annotated[float, need.percent]
    date: Annotated[str, need.date]
    paper: Paper
    code: Code
    audit: Audit
    others: Annotated[tuple[Measurement, ...], need.list_of(need.record(Measurement))]
    row: LeaderboardRow
    pinned: bool


@dataclass(frozen=True)
class Book:
    """The whole file: where the leaderboard was pinned, the claims in its order, the parameter counts."""

    source: Annotated[str, need.text]
    repository: Annotated[str, need.text]
    commit: Annotated[str, need.commit]
    url: Annotated[str, need.url]
    dataset_url: Annotated[str, need.url]
    hashed: Annotated[str, need.text]
    sha256: Annotated[str, need.text]
    claims: dict[str, Claim]
    parameters: dict[str, int | None]


def counts_that_print(accuracy: float, n: int, decimals: int = 2, cut: bool = False) -> tuple[int, ...]:
    """Every k for which ``100 * k / n`` prints as ``accuracy``, rounded to ``decimals`` or (``cut``) cut off there."""
    target, last = Fraction(str(accuracy)), Fraction(1, 10**decimals)
    low = target if cut else target - last / 2
    first, after = math.ceil(low * n / 100), math.ceil((low + last) * n / 100)
    return tuple(range(max(0, first), min(n + 1, after)))


def fingerprint(rows: tuple[LeaderboardRow, ...]) -> str:
    """SHA-256 of the pinned rows, as the field ``leaderboard.hashed`` of claims.yaml describes it."""
    lines = ["\t".join((r.model, f"{r.accuracy:.2f}", r.date, r.paper, r.paper_url, r.code or "")) for r in rows]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@cache
def book() -> Book:
    """The project's claims.yaml, read once."""
    return read(FILE)


def read(path: Path) -> Book:
    """Read and check a claims file. Raises `FerReproError` naming the row and the field that is wrong."""
    name = Path(path).name
    raw = need.load(path)
    schema = partial(need.checked, lambda value: value == SCHEMA, f"{SCHEMA}, the version this fer_repro reads")
    top = need.fields(raw, name, schema=schema, leaderboard=_pinned, parameters=need.as_is, claims=need.as_is)
    rows = top["leaderboard"].pop("rows")
    claims = _claims(top["claims"], rows, name)
    return Book(**top["leaderboard"], claims=claims, parameters=_parameters(top["parameters"], claims, name))


def _pinned(value: Any, where: str) -> dict[str, Any]:
    got = need.fields(value, where, **need.readers(Book), rows=need.list_of(need.record(LeaderboardRow)))
    digest = fingerprint(got["rows"])
    if digest != got["sha256"]:
        raise FerReproError(
            f"{where}: rows hash to {digest}, not to the sha256 {got['sha256']}: the pinned rows changed"
        )
    return got


def _code(value: Any, where: str) -> Code:
    code = need.record(Code)(value, where)
    if (code.url is None) != (code.official is None):
        raise FerReproError(f"{where}: official is true or false where there is a url, and null where there is none")
    return code


def _arithmetic(accuracy: float, value: Any, where: str) -> Arithmetic:
    def total(got: Any, place: str) -> Total:
        part = need.fields(got, place, n=need.images, what=need.text)
        return Total(**part, rounded=matching(part["n"]), cut=matching(part["n"], cut=True))

    printed = need.maybe(partial(need.fields, correct=need.whole, n=need.whole, source=need.text))
    matching = partial(counts_that_print, accuracy)
    got = need.fields(value, where, n=need.images, printed=printed, other_totals=need.list_of(total), note=need.note)
    n, given = got["n"], got["printed"] or {}
    matches = matching(n)
    if given and (given["n"] != n or given["correct"] not in matches):
        shown = f"{given['correct']} of {given['n']}"
        raise need.wrong(f"{where}, field printed", shown, f"a count of {n} images that prints {accuracy:.2f} %")
    correct = given["correct"] if given else matches[0] if len(matches) == 1 else None
    return Arithmetic(n, correct, matches, matching(n, cut=True), given.get("source"), got["other_totals"], got["note"])


def _audit(accuracy: float, value: Any, where: str) -> Audit:
    audit = need.record(Audit, arithmetic=partial(_arithmetic, accuracy))(value, where)
    expected = HALF * len(audit.usages) or need.UNKNOWN
    if audit.n != expected or len(set(audit.usages)) != len(audit.usages):
        raise need.wrong(f"{where}, field n", audit.n, f"{expected}, as usages names {list(audit.usages)}")
    if audit.comparability == "A" and audit.usages != ("PrivateTest",):
        raise need.wrong(f"{where}, field usages", list(audit.usages), "[PrivateTest] for comparability A")
    if audit.comparability == "B" and not audit.usages:
        raise need.wrong(f"{where}, field usages", list(audit.usages), "the scored usage for comparability B")
    strong = {"code", "paper", "run"} & {e.kind for e in audit.evidence}
    if audit.comparability in "AB" and not strong:
        raise FerReproError(
            f"{where}, field evidence: class {audit.comparability} needs a fact of kind code, paper or run"
        )
    return audit


def _claims(value: Any, rows: tuple[LeaderboardRow, ...], name: str) -> dict[str, Claim]:
    if not isinstance(value, list) or len(value) < len(rows):
        count = f"{len(value)} rows" if isinstance(value, list) else "no list of rows"
        raise FerReproError(
            f"{name}: claims has {count}, expected {len(rows)} as in leaderboard.rows, then those of added papers"
        )
    claims: dict[str, Claim] = {}
    for number, (raw, row) in enumerate(zip_longest(value, rows), start=1):
        variant = raw.get("variant") if isinstance(raw, Mapping) else None
        where = f"{name}: row {variant[:40]!r}" if isinstance(variant, str) else f"{name}: row {number}"
        accuracy = need.percent(raw.get("accuracy") if isinstance(raw, Mapping) else None, f"{where}, field accuracy")
        nested = need.readers(Claim, paper=need.record(Paper), code=_code, audit=partial(_audit, accuracy))
        got = need.fields(raw, where, **nested)
        paper, code, audit = got["paper"], got["code"], got["audit"]
        own = LeaderboardRow(got["model"], got["accuracy"], got["date"], paper.title, paper.url, code.url)
        for field in ("model", "accuracy", "date"):
            pinned = getattr(row or own, field)
            if got[field] != pinned:
                expected = f"{pinned!r}, as row {number} of the pinned leaderboard says"
                raise need.wrong(f"{where}, field {field}", got[field], expected)
        comparable_scope(got["others"], audit.usages, where)
        if got["variant"] in claims:
            raise FerReproError(f"{where}: this variant has a row already")
        claims[got["variant"]] = Claim(**got, row=row or own, pinned=row is not None)
    return claims


def _parameters(value: Any, claims: dict[str, Claim], name: str) -> dict[str, int | None]:
    where = f"{name}: parameters"
    if not isinstance(value, Mapping):
        raise need.wrong(where, value, "a mapping from variant to count")
    missing = [variant for variant in claims if variant not in value]
    if missing:
        raise FerReproError(f"{where}: the count of {', '.join(missing)} is missing (null where it is unknown)")
    return {
        need.identifier(k, f"{where}, key"): need.maybe(need.whole)(v, f"{where}, field {k}") for k, v in value.items()
    }


def leaderboard_claims() -> dict[str, Claim]:
    """The claims by variant id: the pinned leaderboard's in its order, then those of added papers."""
    return book().claims


def claim_of(variant_id: str) -> Claim:
    """The claim of one leaderboard row; an unknown id (an ablation has no claim) raises `FerReproError`."""
    known = leaderboard_claims()
    if variant_id in known:
        return known[variant_id]
    raise FerReproError(f"'{variant_id}' is no row of the leaderboard: {nearest(variant_id, known, 'the rows are')}")


def declared_parameters(variant_id: str) -> int | None:
    """Declared trainable parameters of a model or of an ablation, None if unknown; ``-scratch`` has the same."""
    declared = book().parameters
    return declared.get(variant_id, declared.get(variant_id.removesuffix("-scratch")))
