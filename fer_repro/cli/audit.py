"""``fer-repro audit``: the audit of every claim, or the claims as counts of images and the published matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fer_repro.cli.console import AsJson, ResultsDir, console, print_damage, print_json, table

if TYPE_CHECKING:
    from fer_repro.claims import arithmetic as sums


def audit(
    results_dir: ResultsDir = "",
    arithmetic: Annotated[
        bool, typer.Option("--arithmetic", help="Instead: which claims can be counts of images, and their matrices.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the audit of every claim: what was scored, what selected the model, how it compares, and the verdict."""
    from fer_repro import leaderboard

    if arithmetic:
        _show_arithmetic(as_json)
        return
    document = leaderboard.audit_json(results_dir or None)
    print_damage(document["problems"])
    if as_json:
        print_json(document)
    else:
        _print_audit(document)
    if document["problems"]:
        raise typer.Exit(1)


def _print_audit(document: dict[str, Any]) -> None:
    rows = []
    for r in document["rows"]:
        audited, verdict = r["audit"], r["verdicts"]["official"]["name"]
        name = r["variant"] if r["pinned"] else f"{r['variant']} (not on the leaderboard)"
        released = ", ".join(f"{one['variant']} {_percents(one['scores'])}" for one in r["released"])
        rows.append([name, f"{r['accuracy']:.2f}", audited["comparability"], audited["scored"], verdict, released])
    console.print(table(["variant", "claimed %", "class", "scored on", "verdict", "released weights"], rows))
    for letter, meaning in document["classes"].items():
        console.print(f"{letter}: {meaning}")


def _percents(scores: dict[str, Any]) -> str:
    """The last kind of each test set: with the paper's test-time augmentation where there is any."""
    return ", ".join(f"{100 * [*kinds.values()][-1]['accuracy']:.2f} % on {half}" for half, kinds in scores.items())


def _show_arithmetic(as_json: bool) -> None:
    """Print the tables, or one JSON document."""
    from fer_repro.claims import arithmetic as sums
    from fer_repro.claims.published import matrices

    if as_json:
        print_json(sums.as_json())
        return
    totals = sums.totals()
    rows = [[each.variant, each.text, *(_counts(sums.fit(each, n)) for n in totals)] for each in sums.printings()]
    console.print(table(["variant", "printed %", *(f"of {n:,}" for n in totals)], rows))
    for n, what in totals.items():
        found = sums.surprise(n)
        console.print(
            f"{n:,} ({what}): {len(found.fitting)} of {found.claims} claims fit, {found.expected:.1f} arbitrary ones "
            f"would ({100 * found.share:.1f} %); probability of as many {found.probability:.4f}"
        )
    readings = [
        [
            matrix.variant,
            one.name,
            f"{sum(one.rows)} of {len(one.rows)}",
            " to ".join(dict.fromkeys(f"{100 * end:.2f}" for end in one.accuracy[::2])),
            "yes" if one.agrees else "no",
        ]
        for matrix in matrices()
        for one in sums.readings(matrix)
    ]
    console.print(table(["matrix of", "read as", "rows that can be", "accuracy %", "agrees with the claim"], readings))


def _counts(found: sums.Fit) -> str:
    """The counts that round to the claim, else those that it would be cut from."""
    cut = f"none (cut: {' or '.join(map(str, found.cut))})" if found.cut else "none"
    return " or ".join(map(str, found.rounded)) or cut
