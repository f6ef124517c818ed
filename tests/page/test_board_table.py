"""The leaderboard's table as markup: whole without its script, and what its filters, search and links stand on."""

from __future__ import annotations

import re

import pytest
from test_page import EVIL, Words, made_up, shown

from fer_repro import leaderboard, page, results
from fer_repro.claims import CLASSES, claim_of, leaderboard_claims
from fer_repro.page import board_files, board_table
from fer_repro.results.schema import place_of


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A results folder with a VGGNet run under each protocol, and one of an ablation."""
    folder = tmp_path_factory.mktemp("stored")
    for protocol, right in (("official", 0.72), ("claimed", 0.735)):
        results.write(made_up(protocol=protocol, right=right), folder)
    results.write(made_up("deep-emotion-no-stn"), folder)
    return folder


@pytest.fixture(scope="module")
def board(stored):
    return leaderboard.leaderboard(stored)


@pytest.fixture(scope="module")
def markup(board, stored):
    return page.leaderboard_table(board, stored).body


def rows_of(markup: str) -> list[str]:
    return re.findall(r"<tr [^>]*>.*?</tr>", markup)


def test_it_has_the_leaderboards_columns_beside_ours_and_all_rows(board, markup):
    words = str(Words(markup))
    ours = ("Measured", "Verdict", "Best evidence", "Class")
    for name in ("ModelName", "Accuracy", "ReleaseDate", "Paper", "Code", *ours):
        assert re.search(f"<th scope=col[^>]*>{name}</th>", markup)
    assert len(rows_of(markup)) == len(board), "the table is whole without its script"
    for row, markup_of_row in zip(board.itertuples(), rows_of(markup), strict=True):
        said = str(Words(markup_of_row))
        for part in (row.ModelName, f"{row.Accuracy:.2f}", row.verdict, row.evidence_text, row.ReleaseDate, row.Paper):
            assert part in said
        assert f'<a href="papers/{row.slug}.html">' in markup_of_row
    row = board[board["variant"] == "vggnet"].iloc[0]
    assert f"{100 * row['measured']:.2f}{100 * row['low']:.2f} to {100 * row['high']:.2f}" in words
    assert words.count("not run○\u00a0not run") == int((board["verdict"] == "not run").sum()), (
        "measured, then the verdict"
    )
    assert 'href="https://arxiv.org/abs/2105.03588v1"' in markup
    assert f"{board['pinned'].sum()} models" in words


def test_a_range_of_reports_stands_beside_other_evidence_once(board, markup):
    for row, markup_of_row in zip(board.itertuples(), rows_of(markup), strict=True):
        assert str(Words(markup_of_row)).count("others: ") == (row.others_n > 0)


def test_the_filters_have_labels_and_offer_what_some_model_has(board, markup):
    columns = ("verdict", "comparability", "evidence", "extra_data", "test_time_augmentation")
    offered = {
        name: set(re.findall(r'<option value="([^"]+)"', options))
        for name, options in re.findall(r"<label>[^<]+ <select name=(\w+)>(.*?)</select></label>", markup)
    }
    assert list(offered) == ["verdict", "class", "evidence", "year", "extra", "tta"]
    assert offered.pop("year") == set(board["date"].str[:4])
    assert list(offered.values()) == [set(board[column]) for column in columns]
    for row, markup_of_row in zip(board.to_dict("records"), rows_of(markup), strict=True):
        attributes = dict(re.findall(r' data-(\w+)="([^"]*)"', markup_of_row.partition(">")[0]))
        assert [attributes[name] for name in offered] == [row[column] for column in columns]
        assert attributes["year"] == row["date"][:4] and f"class-{row['comparability']}" in attributes["words"]


def test_every_kind_of_evidence_and_class_has_words():
    assert tuple(board_table.EVIDENCE) == leaderboard.KINDS
    assert board_table.FILTERS[1][3].keys() == CLASSES.keys()


def test_a_wrong_code_link_is_marked_where_it_stands(board, markup):
    marked = 0
    for row, markup_of_row in zip(board.itertuples(), rows_of(markup), strict=True):
        cell = markup_of_row.rpartition("<td")[2]
        if row.Code is None:
            assert ">none<" in cell
            continue
        assert f'href="{row.Code}"' in cell, "the leaderboard's own link stays"
        assert ("fer-flag" in cell) == (row.code_remark is not None)
        marked += "fer-flag" in cell
    assert marked == board["code_remark"].notna().sum() > 0
    bow = rows_of(markup)[list(board["variant"]).index("local-learning-bow")]
    assert f'title="{claim_of("local-learning-bow").code.note}"' in bow and ">wrong link<" in bow


def test_the_best_evidence_sorts_by_kind_then_by_accuracy(board):
    found = [board_table._evidence(row, 0) for row in board.to_dict("records")]
    order = [board.loc[at, "evidence"] for at in sorted(board.index, key=lambda at: found[at][0])]
    assert order == sorted(order, key=leaderboard.KINDS.index) and {"full", "others", "none"} <= set(order)
    reports = sorted(
        (key, board.loc[at, "others_high"])
        for at, (key, _) in enumerate(found)
        if board.loc[at, "evidence"] == "others"
    )
    numbers = [number for _, number in reports]
    assert numbers == sorted(numbers, reverse=True) and len(numbers) > 3


def test_every_stored_result_has_links_to_its_files_below_its_model(markup, stored):
    lists = dict(re.findall(r'<details id="stored-([\w-]+)">(.*?)</details>', markup))
    assert list(lists) == ["deep-emotion", "vggnet"], "an ablation belongs to its model"
    for model, variant, count in (("deep-emotion", "deep-emotion-no-stn", 1), ("vggnet", "vggnet", 2)):
        assert lists[model].count("<li>") == count
        assert f'href="#{board_files.anchor(model)}">{count} stored result' in markup
        own = [one for one in results.read_all(stored) if one.variant == variant]
        for one in own:
            place = "/".join(place_of(one.record))
            for name in ("predictions.npz", "result.json"):
                assert f'href="../_static/downloads/results/{place}/{name}" download="' in lists[model]


def test_a_table_without_stored_results_offers_its_own_files_only(tmp_path):
    markup = page.leaderboard_table(leaderboard.leaderboard(tmp_path), tmp_path).body
    assert "<details" not in markup and 'href="#' not in markup
    assert re.findall(r'href="\.\./_static/downloads/([^"]+)"', markup) == list(board_files.TABLES.values())


def test_a_script_in_the_leaderboard_stays_text(tmp_path):
    board = leaderboard.leaderboard(tmp_path)
    board["code_note"] = board["code_note"].astype(object)
    board.loc[0, ["ModelName", "Paper", "ReleaseDate", "code_remark", "code_note"]] = EVIL
    board.loc[0, ["PaperURL", "Code"]] = "javascript:alert(1)"
    words = shown(page.leaderboard_table(board, tmp_path))
    assert words.tags.count("script") == 1, "only the table's own"
    assert EVIL.split('"')[0] in str(words)
    assert not any(a.startswith("javascript") for a in words.addresses)
    assert shown(page.verdict_summary(board)).tags.count("script") == 0


def test_every_chapter_that_it_links_to_is_a_papers():
    from fer_repro.project import project_root

    chapters = {path.stem for path in (project_root() / "chapters" / "papers").glob("*.ipynb")}
    assert {claim.slug for claim in leaderboard_claims().values()} <= chapters
