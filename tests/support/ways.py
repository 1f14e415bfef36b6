"""The ways in which convolutions and products are computed."""

import pytest

from uav_core.devices import linear, stripes, winograd


def fewest_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """As large networks compute on a CPU: products that small ones leave alone go the fast ways."""
    monkeypatch.setattr(winograd, "LEAST_CHANNELS", 1)
    monkeypatch.setattr(winograd, "LEAST_POSITIONS", 1)
    monkeypatch.setattr(stripes, "LEAST_POSITIONS", 1)
    monkeypatch.setattr(linear, "LEAST_PRODUCTS", 0)
