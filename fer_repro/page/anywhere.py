"""What the whole table would cost on a GPU that is free, rented or borrowed: counted, and what was measured."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from fer_repro import papers, results
from fer_repro.campaign.hours import DEVICES, SHARES, Hardware, Hours, gpu_hours, hours_of_all
from fer_repro.claims import leaderboard_claims
from fer_repro.durations import span
from fer_repro.errors import FerReproError
from fer_repro.markup import Html, seconds, small, table, text

SEEDS = 3  # of the whole table
HOW = (
    "Counted, not measured: floating-point operations of training, of measuring every epoch and of scoring, divided by "
    f"{100 * SHARES[1]:g} and by {100 * SHARES[0]:g}\u00a0% of the peak that the data sheet states. Early stopping may "
    "end a run sooner. A T4 computes in fp16 what a recipe allows in bf16."
)


class AnywherePage:
    """``results_dir``: folder of stored results, empty for the project's own. Raises `FerReproError` for a folder that
    does not exist and for results that cannot be read."""

    def __init__(self, results_dir: str = "") -> None:
        if results_dir and not Path(results_dir).is_dir():
            raise FerReproError(f"there is no folder of results {results_dir}: `fer-repro run --results-dir` makes one")
        where = Path(results_dir) if results_dir else None
        self.stored = [one for one in results.read_all(where, arrays=False) if one.storable]
        self.models = [name for name, claim in leaderboard_claims().items() if claim.pinned]

    def whole_table(self) -> Html:
        """GPU hours of one seed and of the whole table, on each device."""
        rows, summaries = [], []
        for device in DEVICES:
            once, both = (
                hours_of_all(self.models, protocols, device) for protocols in (["official"], papers.PROTOCOLS)
            )
            whole = _amount(both, SEEDS)
            peaks = f"{device.peak['bf16'] / 1e12:g} and {device.peak['fp32'] / 1e12:g}"
            rows.append([text(device.name), text(peaks), text(_amount(once)), text(whole), text(_days(both, SEEDS))])
            summaries.append(f"{device.name}: {whole} hours")
        header = ["GPU", "Peak, TFLOP/s in half precision and fp32", "One seed, official protocol: hours"]
        header += [f"Both protocols, {SEEDS} seeds: hours", "The same in days of one GPU"]
        missing = f" Without an estimate, as they have no network to count: {', '.join(both.uncounted)}."
        note = f"{HOW} The {len(self.models)} models, and the networks that they build on."
        return Html(
            table(header, rows, numeric=(2, 3, 4)) + f'<p class="fer-small">{text(note + missing)}</p>',
            "; ".join(summaries),
        )

    def each_model(self) -> Html:
        """The time on a GPU of one full run of every model under the official protocol with all that it builds on, and
        of its own run alone; the cheapest first."""
        whole = {name: [gpu_hours(name, "official", hardware=device) for device in DEVICES] for name in self.models}
        rows = [
            [
                _id(name),
                *(self._times(name, *pair) for pair in zip(whole[name], DEVICES, strict=True)),
                _builds_on(name),
            ]
            for name in sorted(self.models, key=lambda name: whole[name][0].high)
        ]
        header = ["Model", *(device.name for device in DEVICES), "Builds on"]
        caption = "Time of one seed with all that the model builds on; small: of its own run alone, where that is less"
        return Html(table(header, rows, caption, numeric=(1, 2, 3)), f"{len(rows)} models")

    def _times(self, name: str, whole: Hours, device: Hardware) -> str:
        """The time of a model with all that it builds on, and below it that of its own run; markup."""
        if not papers.needs(name):
            return text(_time(whole))
        return f"{text(_time(whole))}<br>{small(_time(self._alone(name, device)))}"

    def _alone(self, name: str, device: Hardware) -> Hours:
        return gpu_hours(name, "official", frozenset(papers.needs(name)), device)

    def measured(self) -> Html:
        """What the stored full runs were made on, and what they took."""
        counts = Counter(one.record["cost"]["device"] for one in self.stored)
        if not counts:
            return Html("<p>No full run is stored: nothing of this was measured.</p>", "no full run is stored")
        took = {
            device: sum(one.record["cost"]["seconds"] for one in self.stored if one.record["cost"]["device"] == device)
            for device in counts
        }
        names = {"cuda": "a GPU", "cpu": "a CPU"}
        shown = "; ".join(
            f"{n} on {names.get(device, device)}, {seconds(took[device])} in all" for device, n in counts.items()
        )
        gpu = "" if counts["cuda"] else " None ran on a GPU, so no hour of the table above has been measured."
        are = "run is" if len(self.stored) == 1 else "runs are"
        sentence = f"Measured: {len(self.stored)} full {are} stored: {shown}.{gpu}"
        return Html(f"<p>{text(sentence)}</p>", sentence)


def _amount(found: Hours, times: int = 1) -> str:
    """ "3.1 to 31" hours; two digits, as an estimate has no more."""
    return f"{_rounded(times * found.low)} to {_rounded(times * found.high)}" if found.low else "no network"


def _time(found: Hours) -> str:
    """ "3.1 to 31 h", in the unit that suits it."""
    return span(3600 * found.low, 3600 * found.high) if found.low else "no network"


def _days(found: Hours, times: int) -> str:
    return f"{_rounded(times * found.low / 24)} to {_rounded(times * found.high / 24)}"


def _rounded(amount: float) -> str:
    return f"{float(f'{amount:.2g}'):,g}"


def _builds_on(name: str) -> str:
    """Markup: the models whose fitted networks a model needs."""
    return ", ".join(map(_id, papers.get(name).requires)) or "nothing"


def _id(name: str) -> str:
    """A model's id, which breaks after a dash only; markup."""
    return f'<code class="fer-id">{text(name)}</code>'
