"""The section "Arithmetic of the claims": which printed numbers can be counts of images, and how far that surprises;
what published confusion matrices add up to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fer_repro.claims import arithmetic as sums
from fer_repro.claims import leaderboard_claims
from fer_repro.claims.arithmetic import Fit, Reading
from fer_repro.claims.published import Matrix, Printed, matrices
from fer_repro.data import LABELS
from fer_repro.markup import Html, interval, percent, small, table, text, whole

NONE = "none"
SURPRISING = 0.05  # the probability below which chance is said not to explain a number of fits


def fits() -> Html:
    """Every claim as it is printed, and which counts of which numbers of test images print as it."""
    totals = sums.totals()
    rows, plain = [], []
    for printed in sums.printings():
        found = [sums.fit(printed, n) for n in totals]
        rows.append([_name(printed), text(printed.text), *map(_counts, found)])
        fitting = [whole(one.n) for one in found if one.rounded]
        plain.append(f"{_model(printed.variant)} {printed.text}: {', '.join(fitting) or NONE}")
    what = "; ".join(f"{whole(n)}: {what}" for n, what in totals.items())
    header = ["Claim", "Printed, %", *(f"of {whole(n)}" for n in totals)]
    caption = f"Numbers of right answers that print as the claim. {what}."
    return Html(table(header, rows, caption, range(1, len(header))), "; ".join(plain))


def _name(printed: Printed) -> str:
    model = text(_model(printed.variant))
    return model if printed.decimals == 2 else f"{model}<br>{small(printed.source)}"


def _model(variant: str) -> str:
    return leaderboard_claims()[variant].model


def _counts(found: Fit) -> str:
    """The counts that round to the claim; where there is none, those that it would be cut from."""
    if found.rounded:
        return " or ".join(map(whole, found.rounded))
    return f"{NONE}<br>{small('cut: ' + ' or '.join(map(whole, found.cut)))}" if found.cut else NONE


def chance() -> Html:
    """How many claims fit each number of test images, beside how many arbitrary numbers would."""
    rows, plain = [], []
    for n, what in sums.totals().items():
        two, three = sums.surprise(n), sums.share_that_fits(n, 3)
        rows.append(
            [
                f"{whole(n)}<br>{small(what)}",
                f"{percent(two.share, 1)}<br>{small(f'{percent(float(three), 1)} of three')}",
                f"{len(two.fitting)} of {two.claims}",
                f"{two.expected:.1f}",
                _probability(two.probability),
                f"{two.factor:.1f}",
            ]
        )
        plain.append(f"{len(two.fitting)} of {two.claims} claims fit {whole(n)} images, {two.expected:.1f} by chance")
    header = [
        "Test images",
        "Two-decimal numbers that fit",
        "Claims that fit",
        "Expected by chance",
        "Probability of as many",
        "Factor for the odds",
    ]
    one, both, *others = map(whole, sums.totals())
    caption = (
        "Rounded numbers. Expected and probability: if every claim were an arbitrary number of its own. Factor: "
        "how much one fit raises the odds that a number was made with so many images, against an arbitrary one. "
        f"Every fit of {one} is one of {both}, so that row is no evidence of its own"
        + (f"; {' and '.join(others)} are there because an audit names them." if others else ".")
    )
    return Html(table(header, rows, caption, range(1, len(header))), "; ".join(plain))


def _probability(p: float) -> str:
    return "below 0.0001" if p < 0.0001 else f"{p:.4f}"


def row_sums() -> Html:
    """What the rows of the published matrices add up to, beside the class counts of the official test sets."""
    rows = [[text(name), *map(whole, images)] for name, images in sums.SETS.items()]
    plain = []
    for matrix in matrices():
        model, counts = _model(matrix.variant), matrix.class_counts
        digits = {"images": 0, "percent": 1, "share": 2}[matrix.unit]
        name = f"{text(model)}<br>{small(f'{_unit(matrix)}, {matrix.source}')}"
        rows.append([name, *(f"{total:,.{digits}f}" for total in sums.row_sums(matrix)[0])])
        if counts is not None:
            rows.append([f"{text(model)}<br>{small('class counts of the source')}", *map(whole, counts)])
        plain.append(f"{model}: {sum(sums.whole_rows(matrix))} of 7 rows add up within their rounding")
    header = ["Row sums", *LABELS]
    caption = "Each row of a matrix holds the images of one true class; rows of shares add up to the whole."
    return Html(table(header, rows, caption, range(1, len(header))), "; ".join(plain))


def _unit(matrix: Matrix) -> str:
    return {"images": "in images", "percent": "in percent", "share": "in shares"}[matrix.unit]


def published_matrices() -> Html:
    """The published matrices read as one of each test set: which rows can be, what accuracy follows, and the claim."""
    rows, plain = [], []
    for matrix in matrices():
        model, claimed = _model(matrix.variant), leaderboard_claims()[matrix.variant].accuracy
        for reading in sums.readings(matrix):
            wrong = _classes(reading)
            fitting = f"{sum(reading.rows)} of 7" + (f"<br>{small(f'not {wrong}')}" if wrong else "")
            agree = "yes" if reading.agrees else "<strong>no</strong>"
            cells = (text(reading.name), fitting, _accuracy(reading), f"{claimed:.2f}\u00a0%", agree)
            rows.append([text(model), *cells])
        plain.append(f"{model}: {_agreement(matrix)}")
    header = ["Matrix of", "Read as", "Rows that can be", "Accuracy that follows", "Claimed", "Agree"]
    caption = (
        "A row can be where whole numbers of images, as many as the class has in that set, print as its figures. The "
        "accuracy weights the diagonal with these numbers; its bounds follow from the rounding of the figures."
    )
    return Html(table(header, rows, caption, (3, 4)), "; ".join(plain))


def _classes(reading: Reading) -> str:
    """The classes whose row cannot be, but for a reading in which none can."""
    wrong = [label for label, fits_ in zip(LABELS, reading.rows, strict=True) if not fits_]
    return ", ".join(wrong) if len(wrong) < len(LABELS) else ""


def _accuracy(reading: Reading) -> str:
    low, value, high = reading.accuracy
    return percent(value) if low == high else f"{percent(value)}<br>{small(interval((low, high)))}"


def _agreement(matrix: Matrix) -> str:
    found = sums.readings(matrix)
    most = max(sum(one.rows) for one in found)
    best = " or ".join(one.name for one in found if sum(one.rows) == most)
    agreeing = "agrees" if any(one.agrees for one in found) else "does not agree"
    return f"{most} of 7 rows can be those of {best}, the accuracy {agreeing} with the claim"


def findings() -> Html:
    """What follows from these numbers, in sentences made from them."""
    lines = [*_of_claims(), *(_of_matrix(matrix) for matrix in matrices())]
    body = "<ul>" + "".join(f"<li>{text(line)}</li>" for line in lines) + "</ul>"
    return Html(body, " ".join(lines))


def _of_claims() -> list[str]:
    one, both = (sums.surprise(n) for n in list(sums.totals())[:2])
    n, known = whole(one.n), sums.printings()
    missing = [each for each in known if each.decimals == one.decimals and each.variant not in one.fitting]
    beyond = one.probability < SURPRISING
    reading = (
        "That is more than chance explains: some claims were made with a set of this size"
        if beyond
        else "Chance explains as many"
    )
    lines = [
        f"{len(one.fitting)} of {one.claims} claims can be a rounded count of {n} images. Of arbitrary numbers "
        f"with {one.decimals} decimals {percent(one.share, 0)} can, so that {one.expected:.1f} of {one.claims} would "
        f"(probability of as many or more: {_probability(one.probability)}). {reading}. For a single claim a fit says "
        f"little: it raises the odds of this size by a factor of {one.factor:.1f}, against an arbitrary number."
    ]
    if missing:
        also = [each for each in missing if each.variant in both.fitting]
        rest = (both.share - one.share) / (1 - one.share)
        alike = sums.at_least(len(also), len(missing), rest)
        lines += [
            f"No count of {n} images rounds to {_listed(missing)}: these are no accuracies over one official test set, "
            f"unless they were cut or are a mean of several runs or batches. {_cut(missing, one.n)}",
            f"{'All' if also == missing else len(also)} of these {len(missing)} can be a rounded count of "
            f"{whole(both.n)} images; of arbitrary numbers that miss {n} images {percent(rest, 0)} can, and the "
            f"probability that as many of {len(missing)} do is {alike:.2f}. (Whatever fits {n} fits twice as many.)",
        ]
    for each in known:
        if each.decimals > one.decimals and (counts := sums.fit(each, one.n).rounded):
            share = 100 * float(sums.share_that_fits(one.n, each.decimals))
            lines.append(
                f"{_model(each.variant)} is also printed as {each.text} %: {' or '.join(map(whole, counts))} of {n} "
                f"images, which {share:.2g} % of numbers with {each.decimals} decimals would fit."
            )
    return lines


def _listed(printed: Iterable[Printed]) -> str:
    return ", ".join(f"{each.text} % ({_model(each.variant)})" for each in printed) or NONE


def _cut(printed: Sequence[Printed], n: int) -> str:
    """Which of the numbers that miss ``n`` images fit cut instead of rounded, beside arbitrary ones that miss it."""
    cut = [each for each in printed if sums.fit(each, n).cut]
    rounded, either = (float(sums.share_that_fits(n, printed[0].decimals, or_cut=cut)) for cut in (False, True))
    chance = percent((either - rounded) / (1 - rounded), 0)
    which = f"{_listed(cut)} would fit" if cut else "none of them would fit"
    return f"Cut after the last decimal, {which}, and so would {chance} of arbitrary numbers that miss it."


def _of_matrix(matrix: Matrix) -> str:
    model, found = _model(matrix.variant), sums.readings(matrix)
    official = [one for one in found if one.name in sums.SETS]  # a source's own class counts are no test set
    fitting = [one for one in official if all(one.rows)]
    if len(fitting) == len(official):
        where = "fit every official test set"
    elif fitting:
        where = f"fit, of the official test sets, only {' or '.join(one.name for one in fitting)}"
    else:
        most = max(sum(one.rows) for one in official)
        where = (
            f"do not all fit any official test set (at most {most} of 7 do), so that some figures are no rounded "
            "shares of such images"
        )
    chosen = fitting or list(found)
    low, high = min(one.accuracy[0] for one in chosen), max(one.accuracy[2] for one in chosen)
    follows = percent(low) if low == high else interval((low, high))
    verdict = "agrees" if any(one.agrees for one in chosen) else "does not agree"
    sentence = (
        f"{model}: the rows of its matrix {where}. The accuracy that follows, {follows}, {verdict} with the claim."
    )
    usage = sums.same_numbers(matrix.class_counts) if matrix.class_counts else ""
    if usage:
        sentence += f" The class counts of its source are the seven numbers of {usage}, under other classes."
    return sentence
