"""What ComfyUI's node search finds for the words of somebody who looks for an upscaler."""

from __future__ import annotations

from comfy_page import ComfyPage

MAIN, LONG = "Upscale Video (Upscale-A-Video)", "Upscale Long Video (Upscale-A-Video)"
OURS = "(Upscale-A-Video)"
# Nothing of ComfyUI has these in its name, which the search ranks before everybody's aliases.
FREE = ("vsr", "flicker", "interlaced", "restore")
NAMED_BY_OTHERS = ("denoise", "super resolution", "seedvr", "enhance")


def open_search(page: ComfyPage) -> None:
    page.page.keyboard.press("Escape")
    page.template_browser.wait_for(state="hidden")
    page.page.evaluate("window.app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
    page.page.wait_for_timeout(1000)  # until it listens to the keyboard


def found(page: ComfyPage, words: str) -> list[str]:
    """The names that the node search lists for these words, best first."""
    options = page.page.get_by_role("option")
    # What no node has, so that the list of the words before is gone.
    for typed in ("qqqqqqqq", words):
        page.page.keyboard.press("Control+A")
        page.page.keyboard.type(typed)
        if typed != words:
            options.filter(has_text=OURS).first.wait_for(state="hidden")
    options.filter(has_text=MAIN).first.wait_for()
    return [text.split("\n")[0] for text in options.all_inner_texts()]


def test_the_main_node_comes_first(page):
    open_search(page)
    for words in FREE:
        assert found(page, words)[0] == MAIN, words
    for words in NAMED_BY_OTHERS:
        assert next(name for name in found(page, words) if OURS in name) == MAIN, words
    assert found(page, "long video")[0] == LONG
