"""The status page: every model of the leaderboard and every stored result stand on it, with commands that are real."""

from __future__ import annotations

import shlex

import pytest
import typer
from made_comparisons import package_of, released_of
from made_results import made_result, made_unfinished

from fer_repro import cli, results
from fer_repro.claims import leaderboard_claims
from fer_repro.errors import FerReproError
from fer_repro.leaderboard import leaderboard
from fer_repro.page import status
from fer_repro.page.status import StatusPage, command
from fer_repro.project import default_results_dir
from fer_repro.verification.pages import Words


@pytest.fixture
def page(monkeypatch):
    """The page of the project's own results, without the time that counting operations takes."""
    why = "why {0.variant} was not run"
    monkeypatch.setattr(
        status,
        "reasons",
        lambda claim, runs, how: [
            ("Would take", why.format(claim)),
            ("To run it", f"fer-repro run {claim.variant} --profile full"),
        ],
    )
    return StatusPage()


def test_every_model_of_the_leaderboard_has_its_evidence_or_a_reason(page):
    shown = Words(page.models().body)
    board = leaderboard()
    for row in board.itertuples():
        assert row.variant in shown.pieces and " ".join(row.evidence_text.split()) in shown.pieces
        if row.evidence != "full":
            assert f"why {row.variant} was not run" in shown.pieces
        assert any(f"fer-repro run {row.variant} --profile full" in cell for cell in shown.cells)
    assert len(board) == len(leaderboard_claims())
    assert "To run it again" in shown.cells or "To run it again" in shown.pieces  # some model has a full run


def test_every_stored_result_has_a_row_with_what_it_took(page):
    shown = Words(page.runs().body)
    folders = results.all_folders()
    assert folders
    for folder in folders:
        place = folder.relative_to(default_results_dir()).as_posix()
        assert any(cell.startswith(f"{place}fer-repro ") for cell in shown.cells)
    for one in page.stored:
        assert one.record["code_version"] in shown.pieces
        assert any(cell.endswith(command(one)) for cell in shown.cells)
    assert "/<wbr>" in page.runs().body, "a folder breaks after a slash"
    assert page.runs().body.count("<tr>") == len(folders) + 1


def test_every_command_is_one_of_the_program(page):
    commands = typer.main.get_command(cli.app).commands
    lines = {command(one) for one in page.stored} | {
        f"fer-repro run {row['variant']} --profile full" for row in page.board
    }
    for line in lines:
        _, name, *arguments = shlex.split(line)
        one = commands[name]
        if name == "packages":
            one = one.commands[arguments.pop(0)]
        known = {option for parameter in one.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in arguments if word.startswith("--")} <= known, line


def test_the_summary_counts_every_kind(page):
    plain = page.summary().body
    full = sum(one.kind == results.FULL for one in page.stored)
    assert f"Stored results: {full} full runs, " in plain and " packages" in plain
    assert status._counted(1, ["score", "of", "released", "weights"]) == "1 score of released weights"


def test_a_run_of_mine_appears_and_an_unfinished_one_says_how_far_it_came(tmp_path):
    results.write(made_result(seed=3), tmp_path)
    results.write(made_unfinished(seed=4), tmp_path)
    shown = Words(StatusPage(str(tmp_path)).runs().body)
    assert {"seed-3", "12.5 s"} <= set(shown.pieces)
    assert "unfinished: epoch 2 of 350" in shown.pieces
    made = "fer-repro run vggnet --protocol official --profile full --seed 4 --keep-unfinished"
    assert f"vggnet/official/unfinished/seed-4{made}" in shown.cells


def test_what_may_have_been_trained_on_test_images_says_so_beside_its_accuracy(tmp_path):
    found = [package_of("facemood", 0.90, 0.88), package_of("emotion-model", 0.60, 0.60), package_of("fer", 0.75, 0.65)]
    found += [released_of("deep-emotion", 0.55), released_of("vggnet", 0.70, "PublicTest and PrivateTest")]
    for one in found:
        results.write(one, tmp_path)
    page = StatusPage(str(tmp_path))
    body = page.runs().body
    assert body.index(">PrivateTest<") < body.index(">Kind<"), "the accuracy is the first thing beside the result"
    names = [one.record["package"]["name"] if one.kind == results.PACKAGE else one.variant for one in page.stored]
    rows = dict(zip(names, body.split("<tr>")[2:], strict=True))
    assert "package<br>" in rows["facemood"] and ">trained on test images<" in rows["facemood"]
    assert ">may have been trained on test images<" in rows["emotion-model"]
    assert ">trained on Training, selected on PublicTest and PrivateTest<" in rows["vggnet"]
    assert all("trained on" not in rows[name] for name in ("fer", "deep-emotion"))


def test_a_folder_that_is_not_there_is_one_sentence():
    with pytest.raises(FerReproError, match="there is no folder of results nowhere"):
        StatusPage("nowhere")
