"""The Chinese help pages say what the English ones say."""

from __future__ import annotations

import json
import re

import pytest

from scripts.env.layout import ROOT

DOCS = ROOT / "web" / "docs"
PAGES = sorted(DOCS.glob("*/zh.md"))
HEADINGS = {
    "Inputs": "输入",
    "Outputs": "输出",
    "Settings": "设置",
    "What becomes of the input": "输入中各项的去向",
    "What the values mean": "各数值的含义",
    "What is inside": "内部是什么",
    "Two common mistakes": "两个常见错误",
}
CHINESE = re.compile("[\u4e00-\u9fff]")
CODE = re.compile(r"`([^`]+)`")
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
ROW = re.compile(r"^\| (`\w+` \| .+ \| .+) \|$", flags=re.MULTILINE)
# A name in stars, as the page shows it: of a node, or of another thing.
NAME = re.compile(r"(?<!\*)\*([^*\n]+)\*(?!\*)")


def sections(text: str) -> dict[str, str]:
    first, *others = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    return {"": first, **dict(zip(others[::2], others[1::2], strict=True))}


def english(page) -> str:
    return (DOCS / f"{page.parent.name}.md").read_text(encoding="utf-8")


def ids(pages):
    return [page.parent.name for page in pages]


@pytest.fixture(scope="module")
def schemas(pack):
    return {s.node_id: s for s in (node.define_schema() for node in pack.nodes.NODES)}


def test_every_node_has_one(schemas):
    assert set(ids(PAGES)) == set(schemas)


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_the_same_parts_in_the_same_order(page):
    told = sections(page.read_text(encoding="utf-8"))
    assert list(told) == [HEADINGS.get(name, name) for name in sections(english(page))]
    assert all(CHINESE.search(part) for part in told.values())
    assert len(re.findall(r"^- \*\*", told["两个常见错误"], flags=re.MULTILINE)) == 2


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_only_inputs_and_outputs_of_the_node_are_named(page, schemas):
    schema, told = schemas[page.parent.name], sections(page.read_text(encoding="utf-8"))
    inputs = {entry.id for entry in schema.inputs}
    outputs = {(out.display_name or out.io_type) for out in schema.outputs}
    named = set(CODE.findall(told["输入"]))
    assert named and named <= inputs
    assert named == set(CODE.findall(sections(english(page))["Inputs"]))
    assert set(CODE.findall(told.get("输出", ""))) <= outputs


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_the_same_pictures_and_values(page):
    text = page.read_text(encoding="utf-8")
    pictures = PICTURE.findall(text)
    # The page looks for pictures in the folder above, whatever the language.
    assert all(words and (DOCS / target).is_file() for words, target in pictures)
    assert [t for _, t in pictures] == [t for _, t in PICTURE.findall(english(page))]
    assert ROW.findall(text) == ROW.findall(english(page))


def test_nodes_are_called_as_the_page_calls_them():
    names = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
    # Up to the fullwidth bracket before the pack's name.
    ours = {node["display_name"].split("\uff08")[0] for node in names.values()}
    # ComfyUI's own.
    native = {
        *("CLIP文本编码", "加载CLIP", "加载VAE", "加载视频", "VAE解码", "分离图像Alpha"),
        *(
            "反转遮罩",
            "保存图像",
            "创建视频",
            "预览任意",
            "图像对比",
            "自定义采样器\uff08高级\uff09",
        ),
    }
    for page in PAGES:
        for name in NAME.findall(page.read_text(encoding="utf-8")):
            assert not CHINESE.search(name) or name in ours | native, (page.parent.name, name)
