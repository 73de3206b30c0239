"""What holds for every test."""

import os

import pytest


def pytest_collection_modifyitems(items):
    """Whole refreshes first: they are one long chain, and beside them another process gets through all the rest."""
    items.sort(key=lambda item: item.path.parent.name != "flows")


@pytest.fixture(scope="module", autouse=True)
def environment_as_found():
    """A module that sets the services' environment in this process leaves none of it to the next."""
    kept = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(kept)
