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
from typing import Any

from fer_repro.claims import schema as need
from fer_repro.errors import FerReproError, nearest

SCHEMA = 1
FILE = Path(__file__).parents[1] / "claims.yaml"
CLASSES = {
    "A": "official split, clean selection",
    "B": "official images, but swapped halves, or selected or tuned on the scored half",
    "C": "other data (private, extra, merged, random split or cleaned)",
    "D": "not established by anything we could read",
}
KINDS = ("code", "paper", "author", "run", "third-party", "inference", "memory")
HELD_OUT = ("PublicTest", "PrivateTest")
HALF = 3589  # images in either held-out half


@dataclass(frozen=True)
class LeaderboardRow:
    """One row of the pinned leaderboard in its own columns; ``accuracy`` in percent."""

    model: str
    accuracy: float
    date: str
    paper: str
    paper_url: str
    code: str | None


@dataclass(frozen=True)
class Paper:
    title: str
    authors: str
    year: int
    venue: str
    url: str
    bibkey: str


@dataclass(frozen=True)
class Code:
    """``official`` is None where no code is known."""

    url: str | None
    official: bool | None
    note: str


@dataclass(frozen=True)
class Evidence:
    """One fact with where to look it up; ``kind`` is one of `KINDS`."""

    fact: str
    source: str
    kind: str


@dataclass(frozen=True)
class Measurement:
    """What somebody else measured; ``result`` in percent, or words where the source gives no number."""

    who: str
    protocol: str
    result: float | str
    source: str


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

    scored: str
    usages: tuple[str, ...]
    n: int | str
    selected_on: str
    trained_on: str
    extra_data: str
    pretraining: str
    views: str
    ensemble: int | str
    comparability: str
    why: str
    evidence: tuple[Evidence, ...]
    arithmetic: Arithmetic


@dataclass(frozen=True)
class Claim:
    """One claimed number, its paper, its audit; ``accuracy`` in percent, as printed.

    ``row``: the row of the pinned leaderboard; where ``pinned`` is False the paper is not on it, and the row holds the
    claim's own paper and code.
    """

    variant: str
    slug: str
    model: str
    accuracy: float
    date: str
    paper: Paper
    code: Code
    audit: Audit
    others: tuple[Measurement, ...]
    row: LeaderboardRow
    pinned: bool


@dataclass(frozen=True)
class Book:
    """The whole file: where the leaderboard was pinned, the claims in its order, the parameter counts."""

    source: str
    repository: str
    commit: str
    url: str
    dataset_url: str
    hashed: str
    sha256: str
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
    top = need.fields(raw, name, schema=_schema, leaderboard=_pinned, parameters=need.as_is, claims=need.as_is)
    rows = top["leaderboard"].pop("rows")
    claims = _claims(top["claims"], rows, name)
    return Book(**top["leaderboard"], claims=claims, parameters=_parameters(top["parameters"], claims, name))


def _schema(value: Any, where: str) -> int:
    if value != SCHEMA:
        raise need.wrong(where, value, f"{SCHEMA}, the version this fer_repro reads")
    return value


def _pinned(value: Any, where: str) -> dict[str, Any]:
    got = need.fields(
        value,
        where,
        source=need.text,
        repository=need.text,
        commit=need.commit,
        url=need.url,
        dataset_url=need.url,
        hashed=need.text,
        sha256=need.text,
        rows=need.list_of(_leaderboard_row),
    )
    found = fingerprint(got["rows"])
    if found != got["sha256"]:
        raise FerReproError(
            f"{where}: rows hash to {found}, not to the sha256 {got['sha256']}: the pinned rows changed"
        )
    return got


def _leaderboard_row(value: Any, where: str) -> LeaderboardRow:
    got = need.fields(
        value,
        where,
        ModelName=need.text,
        Accuracy=need.percent,
        ReleaseDate=need.date,
        Paper=need.text,
        PaperURL=need.url,
        Code=partial(need.maybe, need.url),
    )
    return LeaderboardRow(*got.values())


def _paper(value: Any, where: str) -> Paper:
    got = need.fields(
        value,
        where,
        title=need.text,
        authors=need.text,
        year=need.whole,
        venue=need.text,
        url=need.url,
        bibkey=need.text,
    )
    return Paper(**got)


def _code(value: Any, where: str) -> Code:
    web, flag = partial(need.maybe, need.url), partial(need.maybe, need.boolean)
    code = Code(**need.fields(value, where, url=web, official=flag, note=need.note))
    if (code.url is None) != (code.official is None):
        raise FerReproError(f"{where}: official is true or false where there is a url, and null where there is none")
    return code


def _evidence(value: Any, where: str) -> Evidence:
    return Evidence(**need.fields(value, where, fact=need.text, source=need.text, kind=partial(need.one_of, KINDS)))


def _measurement(value: Any, where: str) -> Measurement:
    def result(got: Any, place: str) -> float | str:
        return need.text(got, place) if isinstance(got, str) else need.percent(got, place)

    got = need.fields(value, where, who=need.text, protocol=need.text, result=result, source=need.text)
    return Measurement(**got)


def _arithmetic(accuracy: float, value: Any, where: str) -> Arithmetic:
    def printed(got: Any, place: str) -> dict[str, Any]:
        return need.fields(got, place, correct=need.whole, n=need.whole, source=need.text)

    def total(got: Any, place: str) -> Total:
        part = need.fields(got, place, n=need.whole, what=need.text)
        n = part["n"]
        return Total(n, part["what"], counts_that_print(accuracy, n), counts_that_print(accuracy, n, cut=True))

    given, totals = partial(need.maybe, printed), need.list_of(total)
    got = need.fields(value, where, n=need.whole, printed=given, other_totals=totals, note=need.note)
    n, told = got["n"], got["printed"]
    matches = counts_that_print(accuracy, n)
    if told and (told["n"] != n or told["correct"] not in matches):
        shown = f"{told['correct']} of {told['n']}"
        raise need.wrong(f"{where}, field printed", shown, f"a count of {n} images that prints {accuracy:.2f} %")
    correct = told["correct"] if told else matches[0] if len(matches) == 1 else None
    cut = counts_that_print(accuracy, n, cut=True)
    return Arithmetic(n, correct, matches, cut, told["source"] if told else None, got["other_totals"], got["note"])


def _audit(accuracy: float, value: Any, where: str) -> Audit:
    got = need.fields(
        value,
        where,
        scored=need.text,
        usages=need.list_of(partial(need.one_of, HELD_OUT)),
        n=need.whole_or_unknown,
        selected_on=need.text,
        trained_on=need.text,
        extra_data=need.text,
        pretraining=need.text,
        views=need.text,
        ensemble=need.whole_or_unknown,
        comparability=partial(need.one_of, tuple(CLASSES)),
        why=need.text,
        evidence=need.list_of(_evidence),
        arithmetic=partial(_arithmetic, accuracy),
    )
    audit = Audit(**got)
    expected = HALF * len(audit.usages) or need.UNKNOWN
    if audit.n != expected or len(set(audit.usages)) != len(audit.usages):
        raise need.wrong(f"{where}, field n", audit.n, f"{expected}, as usages names {list(audit.usages)}")
    if audit.comparability == "A" and audit.usages != ("PrivateTest",):
        raise need.wrong(f"{where}, field usages", list(audit.usages), "[PrivateTest] for comparability A")
    if audit.comparability == "B" and not audit.usages:
        raise need.wrong(f"{where}, field usages", list(audit.usages), "the scored half for comparability B")
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
        where = f"{name}: row '{variant}'" if isinstance(variant, str) else f"{name}: row {number}"
        accuracy = need.percent(raw.get("accuracy") if isinstance(raw, Mapping) else None, f"{where}, field accuracy")
        got = need.fields(
            raw,
            where,
            variant=need.identifier,
            slug=need.identifier,
            model=need.text,
            accuracy=need.percent,
            date=need.date,
            paper=_paper,
            code=_code,
            audit=partial(_audit, accuracy),
            others=need.list_of(_measurement),
        )
        paper, code, added = got["paper"], got["code"], row is None
        own = LeaderboardRow(got["model"], got["accuracy"], got["date"], paper.title, paper.url, code.url)
        for field in ("model", "accuracy", "date"):
            pinned = getattr(row or own, field)
            if got[field] != pinned:
                expected = f"{pinned!r}, as row {number} of the pinned leaderboard says"
                raise need.wrong(f"{where}, field {field}", got[field], expected)
        if got["variant"] in claims:
            raise FerReproError(f"{where}: this variant has a row already")
        claims[got["variant"]] = Claim(**got, row=row or own, pinned=not added)
    return claims


def _parameters(value: Any, claims: dict[str, Claim], name: str) -> dict[str, int | None]:
    where = f"{name}: parameters"
    if not isinstance(value, Mapping):
        raise need.wrong(where, value, "a mapping from variant to count")
    missing = [variant for variant in claims if variant not in value]
    if missing:
        raise FerReproError(f"{where}: the count of {', '.join(missing)} is missing (null where it is unknown)")
    return {
        need.identifier(k, f"{where}, key"): need.maybe(need.whole, v, f"{where}, field {k}") for k, v in value.items()
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
    """Declared trainable parameters of a row or an ablation; None where no network or no count is known.

    A twin that starts from random weights (``-scratch``) is the same network.
    """
    declared = book().parameters
    return declared.get(variant_id, declared.get(variant_id.removesuffix("-scratch")))
