from __future__ import annotations

import pytest

from amigo_async.cli import notices
from amigo_async.cli.notices import print_delay
from amigo_async.events import Event, LimitHeld, RequestRetried, SignedIn


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (
            LimitHeld("sign_in", delay=43.0, queue=1),
            "sign in: waiting for the rate limit of the organization, until 12:00:00 (in 43 s)\n",
        ),
        (LimitHeld("list", delay=0.9, queue=1), ""),
        (
            RequestRetried("list", attempt=2, delay=4.0, reason="refused\x1b[2J"),
            "list: attempt 2 failed, the next in 4 s: refused�[2J\n",
        ),
        (RequestRetried("list", attempt=1, delay=0.5, reason="refused"), ""),
        (SignedIn(expires_in=3600.0), ""),
    ],
)
def test_delays_of_a_second_are_said(
    event: Event, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "clock", lambda _: "12:00:00")
    print_delay(event)
    assert capsys.readouterr().err == said
