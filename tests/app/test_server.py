"""What an operator behind a reverse proxy needs."""

import pytest
from starlette.testclient import TestClient

from app.guard import Served, origin_of
from app.operator import Operator
from app.server import application, listening

PROXIED = Served("127.0.0.1", (origin_of("https://example.org"),))


@pytest.mark.parametrize(
    ("headers", "root"),
    [
        ({"Host": "example.org", "X-Forwarded-Proto": "https"}, "https://example.org/explorer"),
        ({"Host": "127.0.0.1:7860", "X-Forwarded-Host": "example.org", "X-Forwarded-Proto": "https"}, "https://example.org/explorer"),
        ({"Host": "127.0.0.1:7860"}, "http://127.0.0.1:7860/explorer"),
    ],
)  # fmt: skip
def test_a_page_under_a_path_of_a_proxy_knows_where_it_is(tmp_path, headers, root):
    with TestClient(application(Operator(tmp_path), PROXIED, 7860, root_path="/explorer")) as client:
        page = client.get("/", headers=headers)
        assert page.status_code == 200 and f'"root":"{root}"' in page.text
        answer = client.post("/gradio_api/queue/join", headers=headers | {"Origin": "https://example.org"}, json={})
        assert answer.status_code in (400, 422), "not refused, and nothing was asked"


def test_it_listens_where_it_is_told_and_says_where_it_cannot():
    with listening("127.0.0.1", 0) as listener, pytest.raises(OSError):
        listening("127.0.0.1", listener.getsockname()[1])
    with pytest.raises(OSError):
        listening("no.such.name.invalid", 0)
