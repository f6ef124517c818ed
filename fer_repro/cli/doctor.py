"""``fer-repro doctor``: what this machine has, what can run on it, and how long that takes."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fer_repro.cli.console import AsJson, Root, print_json


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
        for one in report.facts.values():
            print(f"{one.name:<10}{one.state:<9}{one.text}")
        print("\ncan run here:")
        for what, why in report.can.items():
            print(f"{what:<31}{f'no: {why}' if why else 'yes'}")
        print()
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
