"""claims.yaml holds the leaderboard's 17 rows, and the reader refuses everything that is not what it should be."""

from __future__ import annotations

import copy
import json
import re
import time
from pathlib import Path

import pytest
import yaml
from damage import damaged_bytes, damaged_documents

from fer_repro import claims
from fer_repro.claims import schema as need
from fer_repro.claims.others import Measurement, Reported, nobody_measured, reported_range
from fer_repro.errors import FerReproError

ROWS = (
    "efficientfer sdafe resemotenet residual-masking-ensemble mini-resemotenet-a emonext segmentation-vgg19 "
    "deep-and-handcrafted lhc-net residual-masking resnet18-tricks vggnet cnn-hyperparameters ad-corre "
    "mini-resemotenet-b deep-emotion local-learning-bow"
).split()


@pytest.fixture(scope="module")
def raw():
    return yaml.safe_load(claims.FILE.read_text(encoding="utf-8"))


@pytest.fixture
def planted(raw, tmp_path):
    """Write a changed copy of the file: ``change`` gets the whole content and the row by variant."""

    def write(change):
        content = copy.deepcopy(raw)
        change(content, {row["variant"]: row for row in content["claims"]})
        path = tmp_path / "claims.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
        return path

    return write


def rehash(content):
    rows = [claims.LeaderboardRow(*row.values()) for row in content["leaderboard"]["rows"]]
    content["leaderboard"]["sha256"] = claims.fingerprint(tuple(rows))


def test_all_rows_in_the_order_of_the_leaderboard():
    pinned = [claim for claim in claims.book().claims.values() if claim.pinned]
    assert [claim.variant for claim in pinned] == ROWS == list(claims.book().claims)[: len(ROWS)]
    assert len({claim.slug for claim in pinned}) == 15
    accuracies = [claim.accuracy for claim in pinned]
    assert accuracies == sorted(accuracies, reverse=True)
    assert (accuracies[0], accuracies[-1]) == (82.47, 67.48)


def test_claims_say_what_the_pinned_rows_say():
    for claim in claims.book().claims.values():
        assert (claim.model, claim.accuracy, claim.date) == (claim.row.model, claim.row.accuracy, claim.row.date)
    assert re.fullmatch(r"[0-9a-f]{40}", claims.book().commit)
    assert claims.book().commit in claims.book().url


def test_an_untouched_copy_reads_equal(planted):
    assert claims.read(planted(lambda content, rows: None)) == claims.book()


def test_every_row_has_evidence_and_a_reason():
    for claim in claims.book().claims.values():
        assert claim.audit.evidence, claim.variant
        assert claim.audit.why.endswith("."), claim.variant
        assert {fact.kind for fact in claim.audit.evidence} <= set(claims.KINDS)


def test_unknown_is_a_word_and_never_a_blank():
    for claim in claims.book().claims.values():
        for name in ("scored", "selected_on", "trained_on", "extra_data", "pretraining", "views"):
            assert not re.search(r"\?|n/a|tbd|todo", getattr(claim.audit, name), re.I), (claim.variant, name)


def test_the_wrong_code_link_is_kept_in_the_snapshot_and_named_in_the_audit():
    bow = claims.book().claims["local-learning-bow"]
    assert bow.row.code == "https://github.com/phamquiluan/ResidualMaskingNetwork"
    assert bow.code.url is None
    assert "phamquiluan/ResidualMaskingNetwork" in bow.code.note


def test_links_to_other_peoples_code_are_not_called_official():
    book = claims.book()
    assert [v for v, c in book.claims.items() if c.code.official is False] == ["cnn-hyperparameters", "deep-emotion"]
    assert all(c.code.url == c.row.code for c in book.claims.values() if c.code.url)


def test_every_paper_is_in_the_bibliography():
    text = (Path(__file__).parents[1] / "references.bib").read_text(encoding="utf-8")
    keys = set(re.findall(r"^@\w+\{([^,\s]+),", text, re.M))
    assert {claim.paper.bibkey for claim in claims.book().claims.values()} <= keys


def test_the_pin_moves_as_the_page_says(planted):
    """A row more in leaderboard.rows and a claim at its place: the error prints the digest that accepts them."""

    def change(content, rows):
        claim = copy.deepcopy(rows["emonext"]) | {"variant": "emonext-new", "model": "EmoNeXt 2", "accuracy": 76.0}
        claim["audit"]["arithmetic"]["printed"] = None
        content["claims"].insert(6, claim)
        content["parameters"]["emonext-new"] = None
        row = copy.deepcopy(content["leaderboard"]["rows"][5]) | {"ModelName": "EmoNeXt 2", "Accuracy": 76.0}
        content["leaderboard"]["rows"].insert(6, row)

    with pytest.raises(FerReproError, match="the pinned rows changed") as caught:
        claims.read(planted(change))
    digest = re.search(r"rows hash to ([0-9a-f]{64}), ", str(caught.value))[1]
    moved = claims.read(
        planted(lambda content, rows: (change(content, rows), content["leaderboard"].update(sha256=digest)))
    )
    assert sum(claim.pinned for claim in moved.claims.values()) == 18 and list(moved.claims)[6] == "emonext-new"


# ---- what others measured --------------------------------------------------------------------------------------------


def report(result, comparison="comparable"):
    return Measurement("somebody", "a run", "PrivateTest", result, "a page", comparison, "A reason.")


@pytest.mark.parametrize(
    ("result", "bounds"),
    [
        ("71.4127", (0.714127, 0.714127)),
        ("about 60", (0.6, 0.6)),
        ("above 90", (0.9, 0.9)),
        ("at most 52", (0.52, 0.52)),
        ("60 and 66", (0.6, 0.66)),
        ("69 to 69.6", (0.69, 0.696)),
        ("below the networks alone", None),
    ],
)
def test_a_printed_result_has_its_bounds(result, bounds):
    assert report(result).bounds == bounds


def test_the_range_is_of_comparable_reports_where_there_are_any():
    others = [report("60 and 66"), report("58"), report("92", "other training"), report("13", "failed run")]
    assert reported_range(others) == Reported(0.58, 0.66, 2, comparable=True)
    assert reported_range(others[2:]) == Reported(0.92, 0.92, 1, comparable=False)
    assert reported_range([report("13", "failed run"), report("43", "other method"), report("low", "unclear")]) is None
    assert str(Reported(0.58, 0.66, 2, comparable=True)) == "58 to 66\u00a0% (2 reports)"
    assert str(Reported(0.714127, 0.714127, 1, comparable=False)) == "71.41\u00a0% (1 report, not comparable)"
    assert nobody_measured([]) and nobody_measured([report("43", "other method")])
    assert not nobody_measured([report("low", "unclear")])


def test_the_reports_on_the_best_known_claim():
    """Users trained ResEmoteNet on the official images; what the shared data set gives stays out of the range."""
    others = claims.book().claims["resemotenet"].others
    assert reported_range(others) == Reported(0.58, 0.66, 6, comparable=True)
    assert {one.comparison for one in others if one.bounds and one.bounds[1] > 0.7} == {"other training"}


def test_models_without_any_report_are_known():
    nobody = {v for v, claim in claims.book().claims.items() if claim.pinned and nobody_measured(claim.others)}
    assert nobody == {
        *("sdafe", "residual-masking-ensemble", "mini-resemotenet-a", "mini-resemotenet-b", "segmentation-vgg19"),
        *("lhc-net", "ad-corre", "local-learning-bow"),
    }


# ---- arithmetic ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [7, 150, 3588, 3589, 7178])
def test_counts_agree_with_trying_every_count(n):
    for accuracy in (50.0, 67.48, 73.28, 79.79, 99.99):
        rounded = tuple(k for k in range(n + 1) if abs(100 * k / n - accuracy) < 0.005 - 1e-12)
        cut = tuple(k for k in range(n + 1) if int(10000 * k / n + 1e-9) == round(100 * accuracy))
        assert claims.counts_that_print(accuracy, n) == rounded
        assert claims.counts_that_print(accuracy, n, cut=True) == cut


def test_counts_that_a_source_printed_or_that_explain_a_misfit():
    rows = {variant: claim.audit.arithmetic for variant, claim in claims.book().claims.items()}
    assert rows["vggnet"].correct == 2630 and "Evaluation.ipynb" in rows["vggnet"].printed_by
    assert rows["local-learning-bow"].correct == 2422
    assert rows["resemotenet"].correct is None and rows["resemotenet"].cut == (2864,)
    assert [(t.n, t.rounded) for t in rows["resemotenet"].others] == [(3588, (2863,))]
    assert (7178, (5453,)) in [(t.n, t.rounded) for t in rows["segmentation-vgg19"].others]
    impossible = [variant for variant, sums in rows.items() if not sums.matches]
    assert impossible == ["resemotenet", "mini-resemotenet-a", "segmentation-vgg19", "mini-resemotenet-b"]
    shared = claims.book().claims["mini-resemotenet-b"].audit.arithmetic.others
    assert shared[0].rounded == (5039,), "the two students share an audit, but each has its own sums"


def test_parameters_of_rows_and_ablations():
    counts = claims.book().parameters
    assert (counts["vggnet"], counts["resnet18-tricks"]) == (29_890_759, 11_171_271)
    assert counts["local-learning-bow"] is None
    others = (11_180_103, 23_522_375, 42_514_503, 26_054_967, 7_710_857)
    assert counts["residual-masking-ensemble"] == 2 * counts["residual-masking"] + sum(others)
    parts = [counts[f"deep-and-handcrafted-{part}"] for part in ("vgg-face", "vgg-f", "vgg-13")]
    assert counts["deep-and-handcrafted"] == sum(parts)


# ---- bad files -------------------------------------------------------------------------------------------------------


def edit(variant, *path, value):
    def change(content, rows):
        target = rows[variant]
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value

    return change


def drop(variant, *path):
    def change(content, rows):
        target = rows[variant]
        for key in path[:-1]:
            target = target[key]
        del target[path[-1]]

    return change


def inferred_only(content, rows):
    for fact in rows["emonext"]["audit"]["evidence"]:
        fact["kind"] = "inference"


def remembered(content, rows):
    rows["emonext"]["audit"]["evidence"][0]["kind"] = "memory"


def other_rows(content, rows):
    content["leaderboard"]["rows"][3]["Accuracy"] = 77.0


def same_variant_twice(content, rows):
    rows["resnet18-tricks"]["variant"] = "vggnet"


BAD = [
    (edit("vggnet", "colour", value="red"), "row 'vggnet': unknown field 'colour'"),
    (edit("vggnet", "audit", "colour", value="red"), "row 'vggnet', field audit: unknown field 'colour'"),
    (drop("emonext", "audit", "why"), "row 'emonext', field audit: the field why is missing"),
    (drop("lhc-net", "paper", "bibkey"), "row 'lhc-net', field paper: the field bibkey is missing"),
    (edit("vggnet", "audit", "comparability", value="E"), "row 'vggnet', field audit, field comparability is 'E'"),
    (
        edit("vggnet", "paper", "url", value="javascript:alert(1)"),
        "row 'vggnet', field paper, field url is 'javascript",
    ),
    (edit("vggnet", "code", "url", value="http://a b"), "row 'vggnet', field code, field url"),
    (edit("vggnet", "code", "official", value=None), "row 'vggnet', field code: official is true or false"),
    (edit("vggnet", "code", "official", value="yes"), "row 'vggnet', field code, field official is 'yes'"),
    (edit("vggnet", "date", value="8 May 2021"), "row 'vggnet', field date is '8 May 2021'"),
    (edit("vggnet", "accuracy", value="73.28"), "row 'vggnet', field accuracy is '73.28'"),
    (edit("vggnet", "accuracy", value=73.27), "row 'vggnet', field accuracy|row 'vggnet', field audit"),
    (edit("emonext", "accuracy", value=76.13), "row 'emonext', field accuracy is 76.13, expected 76.12"),
    (edit("vggnet", "model", value="VGG"), "row 'vggnet', field model is 'VGG', expected 'VGGNet'"),
    (edit("vggnet", "audit", "views", value=""), "row 'vggnet', field audit, field views is ''"),
    (edit("vggnet", "audit", "views", value=None), "row 'vggnet', field audit, field views is None"),
    (edit("vggnet", "audit", "usages", value=["test"]), r"row 'vggnet', field audit, field usages \[0\] is 'test'"),
    (edit("vggnet", "audit", "n", value=7178), "row 'vggnet', field audit, field n is 7178, expected 3589"),
    (edit("sdafe", "audit", "n", value=3589), "row 'sdafe', field audit, field n is 3589, expected unknown"),
    (edit("ad-corre", "audit", "ensemble", value=0), "row 'ad-corre', field audit, field ensemble is 0"),
    (
        edit("vggnet", "audit", "comparability", value="A"),
        r"row 'vggnet', field audit, field usages is \['PublicTest'\]",
    ),
    (edit("sdafe", "audit", "comparability", value="B"), "row 'sdafe', field audit, field usages"),
    (inferred_only, "row 'emonext', field audit, field evidence: class A needs a fact of kind code, paper or run"),
    (remembered, "is 'memory', expected one of code, paper, author, run, third-party, inference"),
    (edit("vggnet", "audit", "evidence", 0, "kind", value="hearsay"), r"field evidence \[0\], field kind is 'hearsay'"),
    (edit("vggnet", "audit", "evidence", 0, "source", value=" "), r"field evidence \[0\], field source is ' '"),
    (edit("vggnet", "audit", "arithmetic", "printed", "correct", value=2631), "field printed is '2631 of 3589'"),
    (edit("vggnet", "others", value="none"), "row 'vggnet', field others is 'none', expected a list"),
    (edit("vggnet", "others", 0, "result", value=71.52), r"row 'vggnet', field others \[0\], field result is 71.52"),
    (
        edit("vggnet", "others", 0, "result", value="71,52"),
        r"others \[0\], field result is '71,52', expected a percent in",
    ),
    (edit("vggnet", "others", 0, "result", value="below 73"), r"others \[0\], field result is 'below 73', expected"),
    (
        edit("vggnet", "others", 0, "comparison", value="yes"),
        r"others \[0\], field comparison is 'yes', expected one of",
    ),
    (edit("vggnet", "others", 0, "scored", value="test"), r"others \[0\], field scored is 'test', expected one of"),
    (edit("vggnet", "others", 0, "scored", value="PrivateTest"), r"field scored is 'PrivateTest', expected PublicTest"),
    (
        edit("vggnet", "others", 0, "result", value="low"),
        r"others \[0\]: a comparable report needs a number, but its result",
    ),
    (drop("vggnet", "others", 0, "why"), r"row 'vggnet', field others \[0\]: the field why is missing"),
    (edit("vggnet", "variant", value="VGG Net"), "row 'VGG Net', field variant is 'VGG Net', expected lower-case"),
    (same_variant_twice, "row 'vggnet': this variant has a row already"),
    (lambda content, rows: content["claims"].__delitem__(slice(16, None)), "claims has 16 rows, expected 17"),
    (lambda content, rows: content.update(schema=2), "field schema is 2, expected 1"),
    (lambda content, rows: content.update(extra=1), "unknown field 'extra'"),
    (lambda content, rows: content["parameters"].pop("vggnet"), "parameters: the count of vggnet is missing"),
    (lambda content, rows: content["parameters"].update(vggnet="30 M"), "parameters, field vggnet is '30 M'"),
    (lambda content, rows: content["leaderboard"].update(commit="8153fa0"), "field commit is '8153fa0'"),
    (other_rows, "leaderboard: rows hash to"),
]


@pytest.mark.parametrize(("change", "words"), BAD, ids=[words for _, words in BAD])
def test_a_planted_error_is_refused_with_its_place(planted, change, words):
    with pytest.raises(FerReproError, match=words) as caught:
        claims.read(planted(change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("schema: 1\nschema: 1\n", "line 1: the key schema is written twice"),
        ("schema: [1\n", "cannot be read"),
        ("- schema\n", "expected a mapping with schema, leaderboard, parameters, claims"),
        ("", "expected a mapping"),
        ("schema: !!python/object/apply:os.system ['true']\n", "cannot be read"),
    ],
)
def test_a_file_that_is_not_one_is_refused(tmp_path, text, words):
    path = tmp_path / "claims.yaml"
    path.write_text(text)
    with pytest.raises(FerReproError, match=words):
        claims.read(path)
    with pytest.raises(FerReproError, match="nowhere.yaml cannot be read"):
        claims.read(tmp_path / "nowhere.yaml")


def bomb(levels: int, width: int = 9) -> str:
    lines = ["a0: &a0 [x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels)]
    return "\n".join(lines) + "\n"


HOSTILE = {
    "aliases of lists": (bomb(30), "more than 100,000 values, with all aliases written out"),
    "deep aliases": (bomb(60, 1), "more than 32 levels"),
    "aliases of merges": (
        "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 40)),
        "kind 'merge'",
    ),
    "an alias of itself": ("a: &a [*a]\n", "more than 32 levels"),
    "an alias of itself in a mapping": ("&a a: {b: &b {c: *b}}\n", "more than 32 levels"),
    "lists in lists": ("[" * 100_000, "cannot be read"),
    "closed lists in lists": ("[" * 900 + "]" * 900, "more than 32 levels|recursion"),
    "lists in lists by indentation": ("- " * 50_000 + "x", "cannot be read"),
    "mappings in mappings": ("{a: " * 50_000, "cannot be read"),
    "a number of 100,000 digits": ("schema: " + "9" * 100_000, "a number of more than 20 characters"),
    "a hexadecimal number": ("schema: 0x" + "f" * 100_000, "a number of more than 20 characters"),
    "a number in base 60": ("schema: 1" + ":59" * 100_000, "a number of more than 20 characters"),
    "a fraction of 100,000 digits": ("schema: 1." + "9" * 100_000, "a number of more than 20 characters"),
    "a date": ("schema: 2021-05-08", "a value of the kind 'timestamp', expected plain ones"),
    "an impossible date": ("schema: 2021-13-45", "a value of the kind 'timestamp'"),
    "an empty number": ("schema: !!int ''", "a value of the kind 'int'"),
    "a number by its kind": ("schema: !!float x", "a value of the kind 'float'"),
    "a date by its kind": ("schema: !!timestamp x", "a value of the kind 'timestamp'"),
    "bytes": ("schema: !!binary aGVsbG8=", "a value of the kind 'binary'"),
    "a set": ("schema: !!set {a, b}", "a value of the kind 'set'"),
    "one key in two spellings": ("1: a\n0x1: b\n", "the key 1, 0x1 is written twice"),
    "two keys by an alias": ("? &a x\n: 1\n? *a\n: 2\n", "the key x is written twice"),
    "a list as a key": ("? [a]\n: 1\n", "a list or a mapping as a key"),
    "100,000 keys": ("".join(f"k{i}: 1\n" for i in range(60_000)), "more than 100,000 values"),
    "a long key": ("k" * 1000 + ": 1", "unknown field"),
    "a key of two lines": ('"a\\nb": 1', r"unknown field 'a\\nb'"),
    "two documents": ("a: 1\n---\nb: 2\n", "cannot be read"),
    "5 MB": ("# " + "x" * (5 << 20), "more than 4,194,304 bytes"),
    "no UTF-8": (b"\xff\xfe\x00", "cannot be read"),
}


# The parser in Python takes seconds for much text.
LITTLE = [name for name, (text, _) in HOSTILE.items() if len(text) <= 150_000 and "keys" not in name]


@pytest.mark.parametrize(("name", "with_c"), [*((n, True) for n in HOSTILE), *((n, False) for n in LITTLE)])
def test_a_hostile_file_is_refused_in_no_time(tmp_path, monkeypatch, name, with_c):
    """With libyaml, and without it, as on machines that lack it."""
    text, words = HOSTILE[name]
    if not with_c:
        monkeypatch.setattr(need, "Loader", type("Loader", (need.Plain, yaml.SafeLoader), {}))
    path = tmp_path / "claims.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    began = time.process_time()  # aliases that multiply would take hours: the limit leaves room for a slow machine
    with pytest.raises(FerReproError, match=words) as caught:
        claims.read(path)
    assert time.process_time() - began < 60
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize("where", ["n", "other"])
def test_a_huge_total_costs_nothing(planted, where):
    def change(content, rows):
        sums = rows["vggnet"]["audit"]["arithmetic"]
        sums |= {"n": 10**12} if where == "n" else {"other_totals": [{"n": 10**12, "what": "all"}]}

    with pytest.raises(FerReproError, match="n is 1000000000000, expected a number of images"):
        claims.read(planted(change))


def test_damaged_claims_are_refused_or_read_as_they_stand(raw, tmp_path):
    """Never anything but a `FerReproError` of one line; what passes is another text or number of the right kind."""
    path, refused = tmp_path / "claims.yaml", 0
    small = raw | {"claims": raw["claims"][:17]}
    for content in damaged_bytes(claims.FILE.read_bytes(), seed=5, count=64):
        path.write_bytes(content)
        refused += _refused(path)
    for _, document in damaged_documents(small, seed=6, count=120):
        path.write_text(json.dumps(document))  # which is YAML, too
        refused += _refused(path)
    assert refused > 120


def _refused(path):
    try:
        claims.read(path)
    except FerReproError as error:
        assert "\n" not in str(error)
        return True
    return False


def test_markup_in_a_title_stays_text(planted):
    title = "<script>alert('x')</script> & more"

    def change(content, rows):
        rows["vggnet"]["paper"]["title"] = title
        content["leaderboard"]["rows"][ROWS.index("vggnet")]["Paper"] = title
        rehash(content)

    claim = claims.read(planted(change)).claims["vggnet"]
    assert claim.paper.title == claim.row.paper == title
