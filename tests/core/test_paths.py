import os

import pytest

from uav_core.errors import InputError, UnsafePathError, UpscaleAVideoError
from uav_core.paths import inside, plain_name

REFUSED = [
    "",
    ".",
    "..",
    "a/b",
    "a\\b",
    "/etc/passwd",
    "a\0.mp4",
    "a\n.mp4",
    "a\x7f",
    "\ud800.mp4",
    "C:",
    "C:a.mp4",
    "a.mp4:stream",
    "a.",
    "a ",
    "...",
    "CON",
    "nul.mp4",
    "Aux .txt",
    "com1",
    "COM\u00b2.mp4",
    "lpt9.tar.gz",
    "conin$",
    "\u00e9" * 128,
]


@pytest.mark.parametrize("name", REFUSED, ids=ascii)
def test_names_that_are_no_plain_name_anywhere(name, tmp_path):
    with pytest.raises(UnsafePathError, match="Use a"):
        plain_name(name)
    if "/" not in name and "\\" not in name:
        with pytest.raises(UnsafePathError):
            inside(tmp_path, "folder", name)


@pytest.mark.parametrize(
    "name",
    [
        "a.mp4",
        ".hidden",
        "a b",
        "\u0432\u0438\u0434\u0435\u043e.mp4",
        "a..b",
        "console",
        "com",
        "com10",
        "x" * 255,
        "what?.mp4",
    ],
)
def test_plain_names_stay_as_they_are(name, tmp_path):
    assert plain_name(name) == name
    assert inside(tmp_path, name) == tmp_path.resolve() / name


@pytest.mark.parametrize(
    "part",
    [
        "..",
        "../x",
        "a/../../x",
        "a/..",
        "/etc",
        "\\\\server\\share",
        "//server/share",
        "C:\\x",
        "c:/x",
        "a//b",
        "a/",
        "a/CON/b",
        "a\\..\\b",
        "./a",
        "\\x",
    ],
)
def test_parts_that_lead_out(part, tmp_path):
    with pytest.raises(UnsafePathError):
        inside(tmp_path, part)
    with pytest.raises(UnsafePathError):
        inside(tmp_path, "a", part)


def test_nested_parts(tmp_path):
    root = tmp_path.resolve()
    assert inside(tmp_path) == root
    assert inside(tmp_path, "a", "b/c", "d\\e.mp4") == root / "a" / "b" / "c" / "d" / "e.mp4"
    assert issubclass(UnsafePathError, UpscaleAVideoError)
    assert not issubclass(UnsafePathError, InputError)


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege")
def test_links(tmp_path):
    root, other = tmp_path / "root", tmp_path / "root-other"
    for folder in (root / "in", other):
        folder.mkdir(parents=True)
    (root / "out").symlink_to(other)
    (root / "up").symlink_to("..")
    (root / "same").symlink_to("in")
    (root / "loop").symlink_to("loop")
    (tmp_path / "alias").symlink_to(root)
    for parts in (("out",), ("out", "a.mp4"), ("up", "root-other"), ("in/../out",)):
        with pytest.raises(UnsafePathError):
            inside(root, *parts)
    assert inside(root, "same", "a.mp4") == (root / "in" / "a.mp4").resolve()
    assert inside(tmp_path / "alias", "a.mp4") == root.resolve() / "a.mp4"
    assert inside(root, "loop", "a").is_relative_to(root.resolve())
