"""What is generated for the front page: findings from claims and results, the table, and what is out of date."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from fer_repro.book import front
from fer_repro.book.front_findings import escape, front_findings
from fer_repro.claims import CLASSES, leaderboard_claims
from fer_repro.leaderboard import Band, leaderboard
from fer_repro.project import project_root

ROOT = project_root()
BAND = Band(0.69, 0.71, 0.7, (0, 1), "")


@pytest.fixture
def board() -> pd.DataFrame:
    return leaderboard()


def plain(board: pd.DataFrame, band: Band | None = None, results_dir=None) -> str:
    return front_findings(board, band, results_dir).replace("\u00a0", " ")


def test_the_committed_front_page_shows_todays_results():
    assert front.stale(ROOT) == [], "run `make front` and commit chapters/generated"


def test_what_is_out_of_date_or_missing_is_named(tmp_path):
    folder = front.write_front(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == sorted(front.NAMES)
    assert front.stale(tmp_path) == []
    (folder / front.TABLE).write_text("old")
    (folder / front.PICTURE).unlink()
    (folder / front.CHART).write_text("<!-- fer-data-sha256: 0 -->\n")
    assert front.stale(tmp_path) == [front.PICTURE, front.CHART, front.TABLE]


def test_the_findings_count_the_classes_of_the_audit(board):
    classes = [claim.audit.comparability for claim in leaderboard_claims().values() if claim.pinned]
    (first, *_) = plain(board).splitlines()
    assert first.startswith(
        f"- **{classes.count('A')} of {len(classes)} claims** are, by all that we could read, scored on"
    )
    assert f"**{classes.count('D')}** cannot be established" in first
    changed = board.assign(comparability="A")
    assert plain(changed).startswith(f"- **{len(classes)} of {len(classes)} claims** are")


def test_the_largest_gap_of_each_kind_is_named(board):
    """Of full runs the largest difference; of reports only comparable ones, and models that we did not measure."""
    numbers = ["measured", "low", "high", "released", "others_low", "others_high"]
    board = board.assign(**dict.fromkeys(numbers, float("nan")), others_comparable=None, verdict="not run")
    row = {name: board["variant"] == name for name in ("vggnet", "emonext", "resemotenet", "lhc-net")}
    board.loc[row["vggnet"], ["measured", "low", "high", "seeds"]] = 0.7, 0.69, 0.71, 2
    board.loc[row["emonext"], ["measured", "low", "high", "seeds"]] = 0.75, 0.74, 0.76, 1
    board.loc[row["resemotenet"], ["others_low", "others_high", "others_n"]] = 0.6, 0.79, 2
    board.loc[row["lhc-net"], ["others_low", "others_high", "others_n"]] = 0.5, 0.5, 1
    board.loc[row["resemotenet"], "others_comparable"] = True
    board.loc[row["lhc-net"], "others_comparable"] = False
    said = plain(board)
    assert "**2 of 17 models** are measured here by full runs; verdicts: 17 not run." in said
    assert "[VGGNet](papers/vggnet.ipynb), claimed 73.28 %, measured **70.00 %** (69.00 to 71.00 %, 2 seeds). " in said
    letter = board.loc[row["vggnet"], "comparability"].item()
    assert "2 seeds). The verdict: not run." in said, "the row's own"
    other = plain(board.assign(verdict="not comparable"))
    assert f"The verdict is *not comparable*, as the claim is of class {letter} ({CLASSES[letter]}): the meas" in other
    assert "**1 of 1 models** for which third parties report" in said
    assert "[ResEmoteNet](papers/resemotenet.ipynb), claimed 79.79 %, reported **60 to 79 % (2 reports)**" in said
    assert "LHC-Net" not in said and "EmoNeXt" not in said
    bare = plain(board.assign(measured=float("nan"), others_comparable=None))
    assert "**0 of 17 models** are measured" in bare and "largest" not in bare and "third parties" not in bare


def test_packages_and_the_baseline_are_named_with_what_they_score(board, tmp_path):
    said = plain(board, BAND)
    stated = (
        r"`fer` its authors state about 71 % test accuracy on FER2013 \(the maintainer, 2022\); on PrivateTest it "
        r"scores \*\*6\d\."
    )
    assert re.search(stated, said) and "“" not in said, "our words, so no quotation"
    assert re.search(r"`facemood` scores \d\d\.\d\d % there, because it was trained on the test images", said)
    assert "reaches **70.00 %** on PrivateTest, with test-time augmentation (69.00 to 71.00 %, 2 seeds)" in said
    below = int((board.loc[board["pinned"], "claimed"] <= BAND.high).sum())
    assert f"{below} of the 17 claims do not lie above that interval" in said
    bare = plain(board, None, tmp_path)
    assert "package" not in bare and "plain small network" not in bare, "nothing stored, nothing said"


def test_the_table_links_chapters_and_shows_the_best_evidence_of_every_model(board):
    table = front.verdict_table(board, {"vggnet"})
    assert table.count("\n|") == 1 + board["pinned"].sum() and "[VGGNet](papers/vggnet.ipynb)" in table
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert all(cell for line in cells for cell in line), "no empty cell"
    measured = board[board["measured"].notna() & board["pinned"]]
    assert len(measured) and table.count(" measured (") == len(measured)
    assert escape("a|b_c*[d]`") == r"a\|b\_c\*\[d\]\`"


def test_an_unfinished_run_in_the_table_does_not_hide_what_others_report(board):
    """A few epochs of ours may lie far below what third parties reached with the whole recipe."""
    stopped = board.assign(evidence="unfinished", evidence_text="unfinished: epoch 1 of 80, 40.00 %", measured=np.nan)
    lines = front.verdict_table(stopped, ()).replace("\u00a0", " ").splitlines()[2:]
    for line, known in zip(lines, board.loc[board["pinned"], "others_low"].notna(), strict=True):
        assert ("; others: " in line) == known
    resemotenet = next(line for line in lines if line.startswith("| ResEmoteNet,"))
    assert "| unfinished: epoch 1 of 80, 40.00 %; others: 58 to 66 % (6 reports) |" in resemotenet
    reported = front.verdict_table(board.assign(evidence="others", evidence_text="others: 60 %"), ())
    assert reported.count("others:") == board["pinned"].sum(), "said once"
