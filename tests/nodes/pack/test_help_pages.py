"""Every node's help page says what is true of the node now."""

from __future__ import annotations

import re

import pytest

from scripts.env.layout import ROOT
from scripts.workflows.make import long_settings
from scripts.workflows.presets import AUTHORS, INCLUDED

DOCS = ROOT / "web" / "docs"
PAGES = sorted(DOCS.glob("*.md"))
CODE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
LONG = "UpscaleAVideoLongVideo"
LARGEST, LARGEST_TOGETHER = 60_000, 1_060_000


def sections(text: str) -> dict[str, str]:
    """The parts of a page by their headings; what comes before the first by ''."""
    first, *others = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    return {"": first, **dict(zip(others[::2], others[1::2], strict=True))}


@pytest.fixture(scope="module")
def schemas(pack):
    return {s.node_id: s for s in (node.define_schema() for node in pack.nodes.NODES)}


def test_every_node_has_a_page_and_no_page_is_left_over(schemas):
    assert {page.stem for page in PAGES} == set(schemas)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_pictures(page):
    for picture, words, target in LINK.findall(page.read_text()):
        if picture:
            assert (DOCS / target).is_file(), target
            assert words, "a picture without a description"
        else:
            # The page opens links as they are, from its own address: relative ones lead nowhere.
            assert target.startswith("https://"), target


def test_pictures_are_small_and_used():
    used = {target for page in PAGES for _, _, target in LINK.findall(page.read_text())}
    pictures = [path for path in DOCS.iterdir() if path.is_file() and path.suffix != ".md"]
    assert {path.name for path in pictures} <= used
    sizes = [path.stat().st_size for path in pictures]
    assert max(sizes) <= LARGEST
    assert sum(sizes) <= LARGEST_TOGETHER


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_only_inputs_and_outputs_of_the_node_are_named(page, schemas):
    schema, parts = schemas[page.stem], sections(page.read_text())
    inputs = {entry.id for entry in schema.inputs}
    outputs = {(out.display_name or out.io_type) for out in schema.outputs}
    assert set(CODE.findall(parts["Inputs"])) <= inputs
    assert set(CODE.findall(parts.get("Outputs", ""))) <= outputs


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_two_mistakes_are_told(page):
    told = sections(page.read_text())["Two common mistakes"]
    assert len(re.findall(r"^- \*\*", told, flags=re.MULTILINE)) == 2


def recommended(text: str) -> dict[str, tuple[str, ...]]:
    """The table of a page's settings: input -> (included, authors)."""
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", text, flags=re.MULTILINE)
    return {name: (included, authors) for name, included, authors in rows}


def presets(node: str) -> dict[str, list[str]]:
    """What the shipped workflows set in a node, for included and authors' weights."""
    both = [
        long_settings(preset) if node == LONG else preset.get(node, {})
        for preset in (INCLUDED, AUTHORS)
    ]
    return {
        name: [f"{v[name]:g}" if isinstance(v[name], float) else str(v[name]) for v in both]
        for name in both[0]
    }


@pytest.mark.parametrize("node", [*INCLUDED, LONG])
def test_recommended_settings_are_those_of_the_workflows(node):
    told = recommended((DOCS / f"{node}.md").read_text())
    for name, values in presets(node).items():
        assert [value.strip("*") for value in told[name]] == values, name


def test_the_other_choices_are_told_as_they_are(pack):
    """The second table of the page of 'Settings'."""
    text = (DOCS / "UpscaleAVideoSettings.md").read_text()
    rows = dict(re.findall(r"^\| (\w+) \| (.+\|.+) \|$", text, flags=re.MULTILINE))
    table = pack.uav_core.sampling.presets.table()
    told = {"look": r"noise level (\d+), guidance (\d+)", "speed": r"(\d+) steps?\b"}
    for chooser, form in told.items():
        for choice in table["included"][chooser]:
            if choice == "balanced":
                continue
            cells = rows[choice].split("|")
            for weights, cell in zip(("included", "authors'"), cells, strict=True):
                (found,) = re.findall(form, cell)
                numbers = tuple(map(float, [found] if isinstance(found, str) else found))
                assert numbers == tuple(table[weights][chooser][choice].values())[: len(numbers)]
                if chooser == "speed":
                    plan = table[weights][chooser][choice]["propagation_steps"]
                    assert ("no propagation" in cell) == (not plan)
                    assert "*" not in cell or f"*{plan}*" in cell
