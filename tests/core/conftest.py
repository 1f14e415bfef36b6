"""Fixtures of the core's tests."""

import pytest
from ways import as_on_a_gpu, fewest_products


@pytest.fixture(params=["as chosen", "as large networks", "as on a GPU"])
def ways(request, monkeypatch):
    """A test with this fixture runs in all."""
    if request.param == "as large networks":
        fewest_products(monkeypatch)
    if request.param == "as on a GPU":
        as_on_a_gpu(monkeypatch)
    return request.param
