"""A page in headless Chromium, driven over a pipe in the DevTools protocol, which needs no other package."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

OPTIONS = [
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--no-first-run",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
]
LIMIT_S = 120


class Browser:
    """One page: what it logged and asked for, and what it says to an expression."""

    def __init__(self, commands: Any, events: Any) -> None:
        self._commands, self._events = commands, events
        self._n = 0
        self._session: dict[str, str] = {}
        self.seen: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; events on the way are kept in ``seen``."""
        self._n += 1
        number = self._n
        message = {"id": number, "method": method, "params": parameters, **self._session}
        self._commands.write(json.dumps(message).encode() + b"\0")
        self._commands.flush()
        while (answer := self._receive()).get("id") != number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, page: Path) -> None:
        """Go to a page and wait until it is loaded."""
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not self.events("Page.loadEventFired"):
            self._receive()

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression, once it has settled."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until a condition holds."""
        self.ask(f"(async () => {{ while (!({condition})) await new Promise((go) => setTimeout(go, 20)); }})()")

    def press(self, key: str) -> None:
        """A key that the focused element gets."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def events(self, method: str) -> list[dict[str, Any]]:
        """Parameters of the events of a kind."""
        return [event["params"] for event in self.seen if event["method"] == method]

    def _receive(self) -> dict[str, Any]:
        text = bytearray()
        while (byte := self._events.read(1)) != b"\0":
            assert byte, "Chromium ended"
            text += byte
        message = json.loads(text)
        if "method" in message:
            self.seen.append(message)
        return message


@contextmanager
def chromium(width: int = 1280, height: int = 900) -> Iterator[Browser]:
    """A browser with a page of this size; the test is skipped where there is none.

    No package of Python's brings a browser along; what pages hold is tested without one, too.
    """
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None or shutil.which("bash") is None:
        pytest.skip("no Chromium to open the page with")
    command_read, command_write = os.pipe()
    event_read, event_write = os.pipe()
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = [*OPTIONS, f"--user-data-dir={profile}", f"--window-size={width},{height}"]
        script = f'exec "$@" 3<&{command_read} 4>&{event_write}'  # where it looks for its pipes
        process = subprocess.Popen(
            ["timeout", str(LIMIT_S), "bash", "-c", script, "bash", program, *options],
            pass_fds=(command_read, event_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(command_read)
        os.close(event_write)
        with os.fdopen(command_write, "wb") as commands, os.fdopen(event_read, "rb") as events:
            try:
                yield Browser(commands, events)
            finally:
                process.terminate()
                process.wait()
