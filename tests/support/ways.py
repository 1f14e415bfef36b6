"""Patches that choose the way in which convolutions and products are computed."""

import pytest

from uav_core.devices import attention, linear, norms, stripes, ways, winograd
from uav_core.devices.gpu import GPU


def fewest_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make small networks use the fast ways of a CPU, which otherwise only large ones use."""
    monkeypatch.setattr(winograd, "LEAST_CHANNELS", 1)
    monkeypatch.setattr(winograd, "LEAST_POSITIONS", 1)
    monkeypatch.setattr(stripes, "LEAST_POSITIONS", 1)
    monkeypatch.setattr(linear, "LEAST_PRODUCTS", 0)


def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute as on a GPU without Triton, with attention of every head width in several blocks."""
    monkeypatch.setattr(ways, "of", lambda _: GPU)
    monkeypatch.setattr(norms, "keeps_layout", lambda _: False)
    monkeypatch.setattr(attention, "WIDEST_FLASH", 0)
    monkeypatch.setattr(attention, "BLOCK", 2**14)
