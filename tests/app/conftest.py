"""What the tests of the page share."""

import pytest
from explorer import served


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Of the explorer over a folder without runs."""
    with served(tmp_path_factory.mktemp("runs")) as address:
        yield address
