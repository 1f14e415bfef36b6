"""Makes a torchvision importable whose compiled operators cannot be loaded.

The tests run on a CPU build of torch beside a torchvision built for another torch. Its compiled
part is then not loaded, and `import torchvision` fails at `torchvision::nms`, as it registers a
fake kernel for this missing operator. No test runs it, so it is enough to declare its schema.

ComfyUI runs this file before it imports torch, so it only installs a finder. When torchvision
imports the module that needs the schemas, the finder declares those that torchvision's own library
did not declare. For a complete torchvision it declares nothing.
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
        self.library = None  # torch removes the schemas when the Library object is deleted

    def find_spec(self, fullname, path=None, target=None):
        """Declare missing schemas, and leave the import to the next finder."""
        if fullname == NEEDING_SCHEMAS and self.library is None:
            self.library = declare_missing_schemas()
        return None


def declare_missing_schemas():
    """Declare the operators that torchvision lacks. Returns the Library to keep alive, or None."""
    import torch

    missing = [name for name in SCHEMAS if not hasattr(torch.ops.torchvision, name)]
    if not missing:
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in missing:
        library.define(SCHEMAS[name])
    return library


def install() -> None:
    """Install the finder, unless it is installed already."""
    if not any(type(finder).__name__ == SchemaFinder.__name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, SchemaFinder())


install()
