"""Published weights on a page: which there are, whether they were scored here, and how to score them."""

from __future__ import annotations

from collections.abc import Sequence

from fer_repro import papers
from fer_repro.markup import facts, interval, link, percent, shell, small, text, whole
from fer_repro.papers.base import Released
from fer_repro.plots.theme import EXTRA
from fer_repro.recipe import Views
from fer_repro.results import Result

SHOWN = ("at", "url", "file", "licence", "published", "trained_on", "selected_on", "why", "test_sets")
ABSENT = "the file has not been fetched to a machine that runs this book"


def released_cards(slug: str, released: Sequence[Result], runs: Sequence[Result]) -> str:
    """A card for each release that is known of a paper's networks (those described alike share one), with its score
    beside those of our own ``runs``; markup, empty where none is."""
    groups: dict[tuple[object, ...], tuple[Released, list[str]]] = {}
    for variant in papers.variants().values():
        if variant.slug == slug and variant.released is not None:
            alike = tuple(getattr(variant.released, name) for name in SHOWN)
            groups.setdefault(alike, (variant.released, []))[1].append(variant.id)
    return "".join(_card(release, names, released, runs) for release, names in groups.values())


def _card(release: Released, names: list[str], released: Sequence[Result], runs: Sequence[Result]) -> str:
    scores = [line for one in released if one.variant in names for line in _scores(one, runs)]
    file = release.file if release.file and " " not in release.file else "FILE"
    command = f"fer-repro score {names[0] if len(names) == 1 else 'VARIANT'} --checkpoint {file}"
    head = '<div class="fer-kicker">Released weights</div>'
    if not release.published and not scores:
        body = f"<p>{_unpublished(release, names)} To score a file: {shell(command)}</p>"
        return f'<div class="fer-card" style="--fer-tone:{EXTRA}">{head}{body}</div>'
    if release.why:
        scores.append(f"only {text(' and '.join(release.test_sets))} may be scored: {text(release.why)}")
    if not any(one.variant in names for one in released):
        scores.insert(0, f"not scored here, because {ABSENT}")
    pairs = [
        ("Networks", text(", ".join(names))),
        ("Where", "<br>".join([text(release.at), *([link(release.url, release.url)] if release.url else [])])),
        ("File", f"<code>{text(release.file)}</code>" if release.file else "no name is known"),
        ("Licence", text(release.licence)),
        ("Trained on", text(release.trained_on)),
        ("Selected on", text(release.selected_on)),
        ("Scored here", "<br>".join(scores)),
        ("To score it", shell(command)),
    ]
    return f'<div class="fer-card" style="--fer-tone:{EXTRA}">{head}{facts(pairs)}</div>'


def _unpublished(release: Released, names: list[str]) -> str:
    """That there is nothing to fetch, and the repository where one would look; it need not be the authors'. Markup."""
    usable = "usable " if "usable" in release.at else ""
    more = "" if release.at.startswith("nothing") else f" ({text(release.at)})"
    said = f"No {usable}weights of {text(', '.join(names))} are published{more}."
    if release.url:
        said += f" The repository that was read: {link(release.url, release.url.removeprefix('https://'))}."
    return said


def _scores(one: Result, runs: Sequence[Result]) -> list[str]:
    """The released weights give x % on each test set that may be scored, and our own training of that network y %."""
    lines = []
    for half in one.halves:
        score = one.score(half)
        views = f", {text(Views(**one.record['recipe']['views']))}" if one.has_views else ""
        count = f"{whole(score['correct'])} of {whole(score['n'])}, {interval(score['interval'])}"
        share = f"<strong>{percent(score['accuracy'])}</strong>"
        lines.append(f"the released weights give {share} on {text(half)}{views} {small(f'({count})')}")
    own = [run for run in runs if run.variant == one.variant and run.protocol == "official" and run.storable]
    if own:
        shares = ", ".join(percent(run.score(one.halves[-1])["accuracy"]) for run in own)
        lines.append(f"our own training of this network, official protocol: {shares} on {text(one.halves[-1])}")
    folder = "/".join(("results", one.variant, one.protocol, one.name))
    return [*lines, f"stored in <code>{text(folder)}/</code>"]
