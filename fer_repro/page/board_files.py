"""Downloads of the leaderboard's page: its table as CSV and JSON, every stored result with its predictions.

The names and the places of the files are fixed here; `fer_repro.book.downloads` writes them when the book is built.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from fer_repro import papers, results
from fer_repro.leaderboard.stored import folder
from fer_repro.markup import percent, small, text
from fer_repro.results import EVIDENCE, PACKAGE, Result
from fer_repro.results.result import NOT_OURS
from fer_repro.results.schema import place_of

PLACE = PurePosixPath("_static/downloads")  # from the root of the book
TABLES = {"CSV": "fer2013-leaderboard.csv", "JSON": "fer2013-leaderboard.json"}
RESULTS = "results"  # below `PLACE`: laid out as the folder of results
FILES = {"predictions.npz": "predictions", "result.json": "record"}
FROM_CHAPTERS = PurePosixPath("..") / PLACE


def stored_by_model(results_dir: Path | str | None = None) -> dict[str, list[Result]]:
    """Every stored result by the model it belongs to, the models in alphabetical order, then `PACKAGE`.

    A model is a variant id; an ablation belongs to its model. Raises `FerReproError` for results that cannot be read.
    """
    found: dict[str, list[Result]] = {}
    for kind in EVIDENCE:
        for one in results.read_all(folder(results_dir), kind):
            known = papers.variants().get(one.variant)
            model = known.ablation_of if known is not None and known.ablation_of else one.variant
            found.setdefault(model, []).append(one)
    return {model: found[model] for model in sorted(found, key=lambda model: (model == PACKAGE, model))}


def anchor(model: str) -> str:
    """The id of a model's list of results on the page."""
    return f"stored-{model}"


def table_links() -> str:
    """Links to the whole table as files; markup."""
    links = " or ".join(
        f'<a href="{FROM_CHAPTERS / name}" download="{name}">{kind}</a>' for kind, name in TABLES.items()
    )
    return f'<p class="fer-small">Download this table with all its columns: {links}.</p>'


def stored_lists(stored: dict[str, list[Result]], results_dir: Path | str | None = None) -> str:
    """For each model, folded, its stored results with links to their files; markup, empty where nothing is stored."""
    if not stored:
        return ""
    where = folder(results_dir)
    lists = "".join(_list(model, own, where) for model, own in stored.items())
    about = (
        "Stored results, each with its predictions (id, label and seven probabilities of every test image, a NumPy "
        "archive) and its record (recipe, scores, cost and environment, JSON)."
    )
    return f'<p class="fer-small">{about}</p>{lists}'


def _list(model: str, own: list[Result], where: Path) -> str:
    title = "Installable packages" if model == PACKAGE else papers.model_name(model)
    count = f"{title}: {len(own)} stored result{'s' * (len(own) > 1)}"
    items = "".join(f"<li>{_item(one, where)}</li>" for one in own)
    return f'<details id="{text(anchor(model))}"><summary>{text(count)}</summary><ul>{items}</ul></details>'


def _item(one: Result, where: Path) -> str:
    """Where the result lies, its accuracy on the images that stand beside a claim, and its files."""
    place = place_of(one.record)
    usage = one.halves[-1] if one.kind in NOT_OURS else one.scored
    share = f"{percent(one.headline['accuracy'])} on {usage}{f' ({one.remark})' if one.remark else ''}"
    links = ", ".join(_file(file, label, place, where) for file, label in FILES.items())
    return f"<code>{text('/'.join(place))}</code> {text(share)}: {links}"


def _file(file: str, label: str, place: tuple[str, ...], where: Path) -> str:
    size = where.joinpath(*place, file).stat().st_size
    address = FROM_CHAPTERS.joinpath(RESULTS, *place, file)
    saved = "-".join((*place, file))
    return f'<a href="{text(address)}" download="{text(saved)}">{label}</a> {small(f"{size / 1000:.0f} kB")}'
