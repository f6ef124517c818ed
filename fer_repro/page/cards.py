"""The boxes at the head of a chapter: what is claimed, and the verdict on it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from fer_repro import leaderboard, results
from fer_repro.claims import CLASSES, Arithmetic, Claim, Code, Total, leaderboard_claims
from fer_repro.errors import FerReproError, nearest
from fer_repro.evaluation import cost
from fer_repro.leaderboard import Verdict
from fer_repro.markup import Html, details, facts, interval, link, percent, small, sourced, table, text, whole, words
from fer_repro.page.not_run import reasons
from fer_repro.page.released import released_cards
from fer_repro.plots.theme import CLAIMED, CLASS_COLOURS, VERDICT_COLOURS
from fer_repro.results import Result

# The word always stands beside a verdict's mark, so neither mark nor colour carries the meaning alone.
MARKS = {"reproduced": "✓", "above": "▲", "below": "▼", "not comparable": "≠", "not run": "○"}
ADDED = "added to this book, not on the leaderboard"
AUDITED = ("scored", "selected_on", "trained_on", "extra_data", "pretraining")


def verdict_mark(name: str) -> str:
    """A verdict's mark and word, as markup."""
    return f'<span style="color:{VERDICT_COLOURS[name]}" aria-hidden="true">{MARKS[name]}</span>\u00a0{text(name)}'


def claims_of(slug: str) -> list[Claim]:
    """The claims of one paper, in the leaderboard's order. Raises `FerReproError` for an unknown slug."""
    found = [claim for claim in leaderboard_claims().values() if claim.slug == slug]
    if not found:
        hint = nearest(slug, dict.fromkeys(claim.slug for claim in leaderboard_claims().values()), "the papers are")
        raise FerReproError(f"no row of the leaderboard has the slug '{slug}': {hint}")
    return found


def claim_card(slug: str) -> Html:
    """What a paper claims and how the claim was made: one card with a part for each of its rows."""
    rows = claims_of(slug)
    paper = rows[0].paper
    title = f"{link(paper.url, paper.title)}<br>{text(paper.authors)}, {text(paper.venue)}, {text(paper.year)}"
    about = facts([("Paper", title), ("Code", _code(rows[0].code))])
    parts = "".join(_claim(claim) for claim in rows)
    plain = "; ".join(f"{c.model}: {c.accuracy:.2f} % claimed, class {c.audit.comparability}" for c in rows)
    return Html(f'<div class="fer-card">{about}</div>{parts}', f"Claim card of {slug}. {plain}.")


def _code(code: Code) -> str:
    whose = "the authors’ own" if code.official else "not the authors’"
    shown = f"{link(code.url, code.url.removeprefix('https://'))} ({whose})" if code.url else "none known"
    return f"{shown}<br>{small(code.note)}" if code.note else shown


def _claim(claim: Claim) -> str:
    audit = claim.audit
    badge = f'<span class="fer-badge" style="color:{CLASS_COLOURS[audit.comparability]}">{audit.comparability}</span> '
    known = [[text(e.fact), sourced(e.source), text(e.kind)] for e in audit.evidence]
    evidence = table(["What is known", "Where it stands", "Kind"], known)
    body = facts(
        [
            ("Released", text(claim.date)),
            *([] if claim.pinned else [("Leaderboard", ADDED)]),
            ("Comparability", f"{badge}{text(CLASSES[audit.comparability])}<br>{text(audit.why)}"),
            *((name.capitalize().replace("_", " "), words(getattr(audit, name))) for name in AUDITED),
            ("Test-time augmentation", words(audit.views)),
            ("Networks", "1, no ensemble" if audit.ensemble == 1 else words(audit.ensemble)),
            ("Arithmetic", arithmetic(claim.accuracy, audit.arithmetic)),
        ]
    )
    return (
        f'<div class="fer-card" style="--fer-tone:{CLAIMED}">'
        '<div class="fer-kicker">Claimed</div><div class="fer-head">'
        f'<span class="fer-big">{claim.accuracy:.2f}\u00a0%</span> '
        f'<span class="fer-name">{text(claim.model)}</span></div>'
        f"{body}{details(f'Evidence ({len(audit.evidence)} facts)', evidence)}</div>"
    )


def arithmetic(accuracy: float, count: Arithmetic) -> str:
    """Whether the printed percent can be a count of that many images; markup, with the note below."""
    n, shown = whole(count.n), f"{accuracy:.2f}\u00a0%"
    matches, cut = (" or ".join(whole(k) for k in counts) for counts in (count.matches, count.cut))
    if count.printed_by and count.correct is not None:
        first = f"{whole(count.correct)} of {n} images prints as {shown}; the count is published"
    elif matches:
        first = f"{matches} of {n} images would print as {shown}"
    elif cut:
        first = f"no count of {n} images rounds to {shown}; cut instead, {cut} would"
    else:
        first = f"no count of {n} images prints as {shown}"
    return "<br>".join([text(first), *map(_total, count.others), *([small(count.note)] if count.note else [])])


def _total(total: Total) -> str:
    counts = total.rounded or total.cut
    if not counts:
        return text(f"{whole(total.n)} images ({total.what}): no count fits")
    how = "" if total.rounded else ", if cut instead of rounded"
    return text(f"{whole(total.n)} images ({total.what}): {' or '.join(whole(c) for c in counts)} would fit{how}")


def verdict(slug: str, results_dir: str | Path | None = None) -> Html:
    """The verdict on each row of a paper from the stored results, where they come from, and when this page was made;
    below it the weights that were published, and what they score."""
    where, rows = Path(results_dir) if results_dir else None, claims_of(slug)
    runs, released, unfinished = (
        results.read_all(where, kind) for kind in (results.FULL, results.RELEASED, results.UNFINISHED)
    )
    verdicts = [leaderboard.verdict(claim, runs) for claim in rows]
    boxes = "".join(
        _verdict(claim, one, runs, unfinished, len(rows) > 1) for claim, one in zip(rows, verdicts, strict=True)
    )
    boxes += released_cards(slug, released, runs)
    stamp = f'<p class="fer-small">Last executed {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.</p>'
    plain = "; ".join(f"{c.model}: {v.name}. {v.reason}" for c, v in zip(rows, verdicts, strict=True))
    return Html(boxes + stamp, f"Verdict. {plain}")


def _verdict(claim: Claim, found: Verdict, runs: list[Result], unfinished: list[Result], named: bool) -> str:
    again = leaderboard.verdict(claim, runs, "claimed")
    pairs = provenance(found, claim, runs)
    outcome = f"{text(again.name)}: {text(again.reason)}" if again.n_seeds else "not run under the claimed protocol"
    pairs.append(("As claimed", outcome))
    stopped = [one for one in unfinished if one.variant == claim.variant]
    pairs += [("Unfinished", "<br>".join(map(_stopped, stopped)))] if stopped else []
    pairs += reasons(claim, runs) if not found.n_seeds else []
    model = f'<span class="fer-name">{text(claim.model)}</span>' if named else ""
    return (
        f'<div class="fer-card" style="--fer-tone:{VERDICT_COLOURS[found.name]}">'
        '<div class="fer-kicker">Verdict</div><div class="fer-head">'
        f'<span class="fer-big">{verdict_mark(found.name)}</span>{model}'
        f"</div><p>{text(found.reason)}</p>{facts(pairs)}</div>"
    )


def _stopped(run: Result) -> str:
    """What a run that was stopped gives so far: no verdict."""
    share, how = percent(run.headline["accuracy"]), f"{run.protocol} protocol, seed {run.seed}; {run.progress}"
    return text(f"a run was stopped and gives {share} on {run.scored} so far ({how}); it decides nothing")


def provenance(found: Verdict, claim: Claim, runs: Iterable[Result]) -> list[tuple[str, str]]:
    """Where a measured number comes from, as (term, markup): interval, seeds, date, machine, data, code, files."""
    own = [r for r in runs if r.variant == claim.variant and r.protocol == found.protocol and r.seed in found.seeds]
    if not own:
        return [("Claimed", f"{claim.accuracy:.2f}\u00a0%"), ("Measured", "not run")]

    def distinct(values: Iterable[str]) -> str:
        return text("; ".join(dict.fromkeys(values)))

    folder = f"results/{claim.variant}/{found.protocol}/"
    return [
        ("Claimed", f"{claim.accuracy:.2f}\u00a0%"),
        ("Measured", f"<strong>{percent(found.measured)}</strong> on {words(found.usages)}, {text(found.views)}"),
        ("95 % interval", interval(found.interval)),
        _seeds(found),
        ("Run date", text(found.run_date)),
        ("Hardware", distinct(hardware(r) for r in own)),
        ("Data", distinct(f"{r.record['data']['name']}, sha256 {r.record['data']['digest'][:16]}…" for r in own)),
        ("Code", distinct(r.record["code_version"] for r in own)),
        ("Stored in", f"<code>{text(folder)}</code>"),
    ]


def _seeds(found: Verdict) -> tuple[str, str]:
    """The runs behind a measured number: the seed of one, or all seeds with each accuracy and their spread."""
    if found.n_seeds == 1:
        return "Seed", f"{found.seeds[0]} (one run)"
    each = ", ".join(f"{seed} ({percent(a)})" for seed, a in zip(found.seeds, found.accuracies, strict=True))
    spread = "" if found.spread is None else f"; standard deviation {100 * found.spread:.2f} points"
    return "Seeds", text(f"{each}; the number is the mean of {found.n_seeds} runs{spread}")


def hardware(result: Result) -> str:
    """The device of a run: the GPU's name, or the CPU's with its cores."""
    return cost.hardware(result.record)


def computed_with(result: Result) -> str:
    """Precision and torch's threads, which the last digits of a run depend on; empty where neither is known.

    A run that went on with other threads has them all, in turn.
    """
    facts, environment = result.record["facts"], result.record["environment"]
    counts = facts.get("threads") or [environment.get("threads")]
    threads = "then ".join(f"{count} thread{'s' * (count != 1)} " for count in counts if count)
    return ", ".join(part for part in (result.precision, threads.strip()) if part)
