"""What the tests of the page share."""

import pytest
from explorer import serve


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Of the explorer over a folder without runs."""
    address, process = serve(tmp_path_factory.mktemp("runs"))
    yield address
    process.terminate()
    process.wait(20)
