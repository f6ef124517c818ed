"""What the pages say agrees with the code: links, citations, formulas, parameters, the example of a new paper."""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from fer_repro import papers, parameters
from fer_repro.claims import claim_of, leaderboard_claims
from fer_repro.papers import PROFILES, PROTOCOLS

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = ROOT / "chapters"
PAGES = sorted(CHAPTERS.rglob("*.md")) + sorted(CHAPTERS.rglob("*.ipynb")) + [ROOT / "README.md"]
PAPERS = sorted(CHAPTERS.glob("papers/*.ipynb"))


def text_of(page: Path) -> str:
    """The prose of a page: a Markdown file, or the Markdown cells of a notebook."""
    if page.suffix == ".md":
        return page.read_text(encoding="utf-8")
    cells = json.loads(page.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def without_code(text: str) -> str:
    return re.sub(r"`[^`]*`", "", re.sub(r"```.*?```", "", text, flags=re.S))


def example_of_a_module() -> str:
    found = re.findall(r"```python\n(# \S+: a new file\n.*?)```", text_of(CHAPTERS / "add-a-paper.md"), flags=re.S)
    assert len(found) == 1
    return found[0]


@pytest.fixture
def small_net(monkeypatch):
    """The module that "Add a paper" prints, imported and listed as a paper for one test."""
    name = "fer_repro.papers.small_net"
    module = types.ModuleType(name)
    exec(compile(example_of_a_module(), "add-a-paper.md", "exec", dont_inherit=True), module.__dict__)
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(papers, "MODULES", tuple(dict.fromkeys((*papers.MODULES, "small_net"))))
    monkeypatch.setattr(papers, "listed", lambda: ["small-net"])  # its line in claims.yaml, which the page prints too
    papers.variants.cache_clear()
    yield module
    papers.variants.cache_clear()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_to_files_resolve(page):
    folder = CHAPTERS if page.parent.name == "generated" else page.parent  # the front page includes what is generated
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(text_of(page))):
        if re.match(r"\w+:", target) or target.startswith("#"):
            continue
        path, _, heading = target.partition("#")
        assert (folder / path).is_file(), f"{page.name} links to {target}"
        if heading:
            headings = re.findall(r"^#+ (.+)$", text_of(folder / path), flags=re.M)
            slugs = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
            assert heading in slugs, f"{page.name} links to {target}, headings are {slugs}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_no_line_of_prose_is_taken_for_a_comment(page):
    """MyST drops a line that begins with a percent sign, as a wrapped "67.48 / % to ..." once did."""
    assert not re.findall(r"^%.*$", without_code(text_of(page)), flags=re.M)


def test_every_citation_has_an_entry_and_every_claim_a_paper():
    known = re.findall(r"^@\w+\{([^,]+),", (ROOT / "references.bib").read_text(encoding="utf-8"), flags=re.M)
    assert len(known) == len(set(known))
    cited = {key for page in PAGES for key in re.findall(r"\{footcite\}`([^`]+)`", text_of(page))}
    claimed = {claim.paper.bibkey for claim in leaderboard_claims().values()}
    assert cited and cited | claimed <= set(known)


@pytest.mark.parametrize("page", PAPERS, ids=lambda p: p.stem)
def test_a_chapter_cites_its_own_paper_and_lists_its_references(page):
    text = text_of(page)
    own = {claim.paper.bibkey for claim in leaderboard_claims().values() if claim.slug == page.stem}
    assert own & set(re.findall(r"\{footcite\}`([^`]+)`", text))
    assert "```{footbibliography}" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_formulas_become_mathml(page, monkeypatch):
    pytest.importorskip("latex2mathml")
    monkeypatch.syspath_prepend(str(ROOT / "_ext"))
    import fer_mathml

    prose = without_code(text_of(page))
    shown = re.findall(r"\$\$(.+?)\$\$", prose, flags=re.S)
    inline = re.findall(r"\$([^$]+)\$", re.sub(r"\$\$.+?\$\$", "", prose, flags=re.S))
    for tex in shown + inline:
        assert fer_mathml.to_mathml(tex, display=tex in shown).startswith("<math")


def python_blocks() -> list[tuple[str, str]]:
    """(page, code) of every Python example in the Markdown pages but the module of "Add a paper", tested below."""
    shown = [
        (page.name, code) for page in PAGES for code in re.findall(r"```python\n(.*?)```", text_of(page), flags=re.S)
    ]
    return [(name, code) for name, code in shown if not code.startswith("# ")]


@pytest.mark.parametrize(("name", "code"), python_blocks(), ids=lambda text: text.partition("\n")[0])
def test_the_examples_in_python_call_what_exists(name, code):
    """Their imports work, and what they call of this library takes the arguments that they give."""
    space: dict[str, object] = {}
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            exec(compile(ast.Module([node], []), name, "exec"), space)
    for call in [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]:
        first = ast.unparse(call.func).partition(".")[0]
        if getattr(space.get(first), "__module__", getattr(space.get(first), "__name__", "")).startswith("fer_repro"):
            called = eval(ast.unparse(call.func), space)
            inspect.signature(called).bind(*call.args, **{given.arg: given.value for given in call.keywords})


def test_no_page_calls_a_module():
    assert python_blocks()
    for page in PAGES:
        assert not re.findall(r"fer_repro\.reproduce\(", text_of(page)), page.name


def test_the_table_of_parameters_is_the_real_one():
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \|", text_of(CHAPTERS / "rerun.md"), flags=re.M)
    assert [name for name, _ in rows] == list(parameters.FIELDS)
    for name, told in rows[1:]:
        default = parameters.FIELDS[name].default
        assert told == ("empty" if default == "" else f"`{default}`"), name


def test_the_proof_of_the_swapped_halves_adds_up():
    text = text_of(CHAPTERS / "papers/vggnet.ipynb")
    rows = re.findall(r"^\| (row sums[^|]*|PublicTest|PrivateTest) \|(.+)\|$", text, flags=re.M)
    counts = {name.split()[0]: [int(n) for n in cells.split("|")] for name, cells in rows}
    assert counts["row"] == counts["PublicTest"] != counts["PrivateTest"]
    assert {sum(values) for values in counts.values()} == {3589}
    evidence = " ".join(fact.fact for fact in claim_of("vggnet").audit.evidence)
    for values in counts.values():
        assert ", ".join(map(str, values)) in evidence


def test_the_printed_module_is_a_paper(small_net):
    variant = papers.get("small-net")
    for protocol in PROTOCOLS:
        for profile in PROFILES[:2]:
            recipe = variant.recipe(protocol, profile)
            assert recipe.protocol.name == protocol
            logits = variant.build(recipe)(torch.zeros(2, 1, recipe.input_size, recipe.input_size))
            assert logits.shape == (2, 7)
    assert variant.recipe("official", "smoke").epochs < variant.recipe("official", "full").epochs


def test_the_printed_module_runs_the_whole_road(small_net):
    from fer_repro.reproduce import reproduce

    result = reproduce("small-net", profile="smoke", device="cpu")
    assert result.status == "done" and result.synthetic
    assert 0 <= result.headline["accuracy"] <= 1
    assert np.isfinite(result.predictions["PrivateTest_views"].astype(np.float32)).all()


def test_no_page_types_how_many_seeds_are_stored_where_more_may_be():
    """The tables beside these sentences grow with the results."""
    assert not re.search(r"\b(?:two|three|four|\d+) seeds give", text_of(CHAPTERS / "papers" / "lhc-net.ipynb"), re.I)
    assert not re.search(r"\brun (?:twice|\w+ times)\b", text_of(CHAPTERS / "index.md"))


def test_what_is_not_provable_is_said_with_its_reservation():
    index = " ".join(text_of(CHAPTERS / "index.md").split())
    assert "do not reach the network in the released code" in index and "never reached" not in index
    compared = " ".join(text_of(CHAPTERS / "comparisons.ipynb").split())
    [sentence] = re.findall(r"[^.]*resnet18-tricks\.ipynb[^.]* made in this way\.", compared)
    assert "as its README says" in sentence
