"""``fer-repro doctor``: what this machine has, what can run on it, and how long that takes."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fer_repro.cli.console import AsJson, Root, console, print_json, table


def doctor(
    root: Root = "",
    device: Annotated[str, typer.Option(help="For the times: auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Say what this machine has and what can run on it; exit status 1 if a full recipe on FER2013 cannot."""
    from fer_repro import doctor as facts
    from fer_repro.training import checked_device

    checked_device(device)
    report = facts.examine(root, device)
    if as_json:
        print_json(report.as_json())
    else:
        rows = [[one.name, one.state, one.text] for one in report.facts.values()]
        console.print(table(["what", "state", "here"], rows), markup=False)
        console.print(
            table(["can run here", "", "why not"], [[w, "no" if y else "yes", y] for w, y in report.can.items()])
        )
        print(_times(report.time) if report.time else "times: unknown until the problems above are solved")
    if not report.ok:
        raise typer.Exit(1)


def _times(found: dict[str, Any]) -> str:
    from fer_repro.training.progress import duration

    ends = [
        f"{which}: {found[which]['variant']}, about {duration(found[which]['seconds'])} ({found[which]['source']})"
        for which in ("cheapest", "dearest")
    ]
    unknown = f"; of {found['unknown']} more nothing is known" if found["unknown"] else ""
    return "\n".join([f"one full run on {found['device']}, of {found['models']} models{unknown}", *ends])
