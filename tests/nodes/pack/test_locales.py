"""The texts of the nodes in each language are complete and current."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from scripts.make_locales import LOCALES, node_definitions, to_text

CHINESE = re.compile("[\u4e00-\u9fff]")
# The page takes these in a message for code.
CODE = re.compile(r"[{}@|]")
LANGUAGES = ("en", "zh")
# Words of ComfyUI's own categories, and a name.
KNOWN = {"video", "upscaling", "loaders", "sampling", "Upscale-A-Video"}


def read(language: str, name: str = "nodeDefs") -> dict[str, Any]:
    return json.loads((LOCALES / language / f"{name}.json").read_text(encoding="utf-8"))


def leaves(tree: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple, str]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


@pytest.fixture(scope="module")
def schemas(pack):
    return [node.define_schema() for node in pack.nodes.NODES]


def test_english_is_what_the_nodes_say(schemas):
    written = (LOCALES / "en" / "nodeDefs.json").read_text(encoding="utf-8")
    assert written == to_text(node_definitions(schemas)), "run python -m scripts.make_locales"


@pytest.mark.parametrize("name", ["nodeDefs", "main"])
def test_chinese_has_the_same_keys(name):
    english, chinese = (dict(leaves(read(language, name))) for language in LANGUAGES)
    assert list(chinese) == list(english)


def test_no_sentence_is_left_in_english():
    english = dict(leaves(read("en")))
    for path, text in leaves(read("zh")):
        if path[-1] == "name":
            assert text
        else:
            assert CHINESE.search(text), path
            assert text != english[path]


def test_the_same_english_is_the_same_chinese():
    chinese, seen = dict(leaves(read("zh"))), {}
    for path, text in leaves(read("en")):
        if path[-1] != "name":
            assert seen.setdefault(text, chinese[path]) == chinese[path], path


@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_is_taken_for_code(language):
    for path, text in leaves(read(language)):
        assert not CODE.search(text), path


@pytest.mark.parametrize("language", LANGUAGES)
def test_our_own_categories_are_translated(schemas, language):
    words = {word for schema in schemas for word in schema.category.split("/")}
    assert words - KNOWN == set(read(language, "main")["nodeCategories"])
