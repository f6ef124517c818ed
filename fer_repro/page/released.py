"""Published weights on a page: which there are, whether they were scored here, and how to score them."""

from __future__ import annotations

from collections.abc import Iterable

from fer_repro import papers
from fer_repro.markup import interval, link, percent, small, table, text
from fer_repro.papers.base import Released
from fer_repro.recipe import Views
from fer_repro.results import Result

SHOWN = ("at", "url", "file", "licence", "published", "trained_on", "selected_on", "why", "test_sets")
ABSENT = "the file has not been fetched to a machine that runs this book"


def released_table(slug: str, released: Iterable[Result], runs: Iterable[Result]) -> str:
    """A row for each release that is known of a paper's networks, with its score beside those of our own ``runs``;
    markup, empty where none is."""
    groups: dict[tuple[object, ...], tuple[Released, list[str]]] = {}
    for variant in papers.variants().values():
        if variant.slug == slug and variant.released is not None:
            alike = tuple(getattr(variant.released, name) for name in SHOWN)
            groups.setdefault(alike, (variant.released, []))[1].append(variant.id)
    rows = []
    for release, names in groups.values():
        known = text(release.at) if release.url is None else f"{text(release.at)}<br>{link(release.url, release.url)}"
        file = f"<code>{text(release.file)}</code>" if release.file else "no file name is known"
        scores = [_score(one, len(names) > 1, runs) for one in released if one.variant in names]
        why = release.at if not release.published else ABSENT
        file_name = release.file if release.file and " " not in release.file else "FILE"
        command = f"fer-repro score {names[0] if len(names) == 1 else 'VARIANT'} --checkpoint {file_name}"
        limits = f"{text(' and '.join(release.test_sets))} may be scored: {text(release.why)}" if release.why else ""
        rows.append(
            [
                "<br>".join(map(text, names)),
                f"{known}<br>{file}<br>{small(f'licence: {release.licence}')}",
                f"trained on: {text(release.trained_on)}<br>selected on: {text(release.selected_on)}",
                "<br>".join(
                    filter(None, [*(scores or [f"not scored here, because {text(why)}"]), limits, _code(command)])
                ),
            ]
        )
    header = ["Released weights of", "Where", "Images", "Scored here"]
    return table(header, rows, "Weights that were published, and what they score") if rows else ""


def _code(command: str) -> str:
    return f"<code>{text(command)}</code>"


def _score(one: Result, named: bool, runs: Iterable[Result]) -> str:
    """The released weights give x % on each test set that may be scored, and our own training of that network y %."""
    parts = []
    for half in one.halves:
        score = one.score(half)
        views = "" if not one.has_views else f", {text(Views(**one.record['recipe']['views']))}"
        count = f"{score['correct']:,} of {score['n']:,}, {interval(score['interval'])}"
        parts.append(f"<strong>{percent(score['accuracy'])}</strong> on {text(half)}{views}<br>{small(count)}")
    own = [run.score(one.halves[-1])["accuracy"] for run in runs if _alike(run, one)]
    if own:
        shares = ", ".join(percent(share) for share in own)
        parts.append(f"our own training of this network gave {shares} on {text(one.halves[-1])}")
    where = "/".join(("results", one.variant, one.protocol, one.name))
    whose = f"the released weights{f' of {text(one.variant)}' if named else ''}"
    return f"{whose} give {'<br>'.join(parts)}<br>{small(where)}"


def _alike(run: Result, one: Result) -> bool:
    return run.variant == one.variant and run.protocol == "official" and run.storable
