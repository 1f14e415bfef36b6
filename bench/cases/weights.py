"""A state dict as a tree by its dotted keys."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


class Weights:
    """The tensors of a state dict below one prefix."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors, self.prefix = tensors, ""
        # Names of all parts, as searching the keys in every call would take time that is not
        # arithmetic.
        self.names = {key[:i] for key in tensors for i, letter in enumerate(key) if letter == "."}

    def at(self, *path: object) -> Weights:
        """The weights of a part: ``at("resnets", 0)``."""
        part = Weights.__new__(Weights)
        part.tensors, part.names = self.tensors, self.names
        part.prefix = self.prefix + "".join(f"{name}." for name in path)
        return part

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[self.prefix + name]

    def get(self, name: str) -> Tensor | None:
        """The tensor, or None if this part has none (a linear layer without bias)."""
        return self.tensors.get(self.prefix + name)

    def has(self, name: str) -> bool:
        """Whether a part of this name has weights."""
        return self.prefix + name in self.names

    def parts(self, name: str) -> list[Weights]:
        """The numbered parts of a list: ``parts("resnets")``."""
        found = []
        while self.has(f"{name}.{len(found)}"):
            found.append(self.at(name, len(found)))
        return found
