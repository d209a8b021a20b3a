"""The whole server of the explorer, without a socket."""

import pytest
from starlette.testclient import TestClient

from app.guard import Served
from app.operator import Operator
from app.server import application

PORT = 7860
HERE = Served("127.0.0.1")


@pytest.fixture(scope="session")
def made_page(tmp_path_factory):
    """(runs, users, served) -> the application; the page is built anew each time."""

    def made(served=HERE, users=None, runs=None, **more):
        return application(Operator(runs or tmp_path_factory.mktemp("runs")), served, PORT, users, **more)

    return made


@pytest.fixture(scope="session")
def page(made_page):
    """The server as `proxsparse app` starts it: for this machine only, without a login."""
    with TestClient(made_page(), base_url=f"http://127.0.0.1:{PORT}") as client:
        yield client
