"""Published weights on a page: which there are, whether they were scored here, and how to score them."""

from __future__ import annotations

from collections.abc import Iterable

from fer_repro import papers
from fer_repro.markup import interval, link, percent, small, table, text
from fer_repro.papers.base import Released
from fer_repro.recipe import Views
from fer_repro.results import Result

ABSENT = "the file has not been fetched to a machine that runs this book"


def released_table(slug: str, released: Iterable[Result]) -> str:
    """A row for each release that is known of a paper's networks; markup, empty where none is."""
    groups: dict[int, tuple[Released, list[str]]] = {}
    for variant in papers.variants().values():
        if variant.slug == slug and variant.released is not None:
            groups.setdefault(id(variant.released), (variant.released, []))[1].append(variant.id)
    rows = []
    for release, names in groups.values():
        known = text(release.at) if release.url is None else f"{text(release.at)}<br>{link(release.url, release.url)}"
        file = f"<code>{text(release.file)}</code>" if release.file else "no file name is known"
        scores = [_score(one) for one in released if one.variant in names]
        why = release.at if not release.published else ABSENT
        command = f"fer-repro score {names[0]} --checkpoint {release.file.split(' and ')[0] or 'FILE'}"
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


def _score(one: Result) -> str:
    """The released weights give x % on each test set that may be scored."""
    parts = []
    for half in one.halves:
        score = one.score(half)
        views = "" if not one.has_views else f", {text(Views(**one.record['recipe']['views']))}"
        count = f"{score['correct']:,} of {score['n']:,}, {interval(score['interval'])}"
        parts.append(f"<strong>{percent(score['accuracy'])}</strong> on {text(half)}{views}<br>{small(count)}")
    where = "/".join(("results", one.variant, one.protocol, one.name))
    return f"the released weights give {', '.join(parts)}<br>{small(where)}"
