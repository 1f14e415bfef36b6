"""Fixtures of the core's tests."""

import pytest
from ways import fewest_products


@pytest.fixture(params=["as chosen", "as large networks"])
def ways(request, monkeypatch):
    """A test with this fixture runs in both."""
    if request.param == "as large networks":
        fewest_products(monkeypatch)
    return request.param
