"""Let a torchvision whose compiled operators cannot load be imported all the same.

The tests run on a CPU build of torch beside a torchvision built for another torch. Its compiled
part then stays unloaded, and `import torchvision` stops at `torchvision::nms`, for which it
registers a fake kernel without there being such an operator. Nothing in the tests runs that
operator, so its schema is all that is missing.

ComfyUI runs this file before it imports torch, so it only leaves a finder behind: when torchvision
reaches the module that needs the schemas, they are declared if its own library did not declare
them. Where torchvision is complete, nothing is declared at all.
"""

import sys
from importlib.abc import MetaPathFinder

NEEDING_SCHEMAS = "torchvision._meta_registrations"
SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


class SchemaFinder(MetaPathFinder):
    """Declares the schemas just before torchvision needs them; finds no module itself."""

    def __init__(self) -> None:
        """Start with nothing declared."""
        self.library = None  # torch drops the schemas when the Library object dies

    def find_spec(self, fullname, path=None, target=None):
        """Declare what is missing on the way past, and leave the import to the next finder."""
        if fullname == NEEDING_SCHEMAS and self.library is None:
            self.library = declare_missing_schemas()
        return None


def declare_missing_schemas():
    """Declare the operators torchvision lacks; the Library to keep alive, or None."""
    import torch

    missing = [name for name in SCHEMAS if not hasattr(torch.ops.torchvision, name)]
    if not missing:
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in missing:
        library.define(SCHEMAS[name])
    return library


def install() -> None:
    """Put the finder in place, once."""
    if not any(type(finder).__name__ == SchemaFinder.__name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, SchemaFinder())


install()
