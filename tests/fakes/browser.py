"""A real Chromium without a window, driven by the WebDriver protocol (W3C) through Debian's chromedriver."""

from __future__ import annotations

import base64
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.journeys.clients import program

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Browser:
    """One window. Blocking: a journey calls it in a thread. Elements are named by CSS selectors."""

    def __init__(self, driver: httpx.Client, session: str) -> None:
        self._driver = driver
        self._path = f"/session/{session}"

    def open(self, url: str) -> None:
        self._post("/url", url=url)

    @property
    def url(self) -> str:
        return str(self._get("/url"))

    def text(self, selector: str = "body") -> str:
        """What a person can read there."""
        return str(self._get(f"/element/{self._find(selector)}/text"))

    def sees(self, text: str, selector: str = "main", *, not_any_more: bool = False) -> None:
        """Waits until a person can read `text` there, or cannot any more: a click may still be on its way."""
        deadline = time.monotonic() + 30
        while True:
            found = self._post("/elements", using="css selector", value=selector)
            answers = [self._driver.get(f"{self._path}/element/{one[_ELEMENT]}/text") for one in found]
            whole = all(answer.status_code == 200 for answer in answers)  # else the page went away meanwhile
            seen = "\n".join(str(answer.json()["value"]) for answer in answers)
            if found and whole and (text in seen) is not not_any_more:
                return
            assert time.monotonic() < deadline, f"{text!r} in {selector}:\n{seen}"
            time.sleep(0.05)

    def count(self, selector: str) -> int:
        return len(self._post("/elements", using="css selector", value=selector))

    def click(self, selector: str) -> None:
        self._post(f"/element/{self._find(selector)}/click")

    def press(self, words: str) -> None:
        """The button or link with these words."""
        self.sees(words)
        found = self._post("/elements", using="xpath", value=f'//main//*[self::button or self::a][.="{words}"]')
        assert found, f"no button {words!r} on the page:\n{self.text()}"
        self._post(f"/element/{found[0][_ELEMENT]}/click")

    def type(self, selector: str, text: str) -> None:
        self._post(f"/element/{self._find(selector)}/value", text=text)

    def run(self, script: str) -> Any:
        """The value of a script; a promise is waited for."""
        return self._post("/execute/sync", script=f"return ({script})", args=[])

    def devtools(self, command: str, **parameters: object) -> Any:
        return self._post("/goog/cdp/execute", cmd=command, params=parameters)

    def prefer(self, scheme: str) -> None:
        """`dark` or `light`, as the reader's system would say."""
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def no_scripts(self) -> None:
        self.devtools("Emulation.setScriptExecutionDisabled", value=True)

    def size(self, width: int, height: int, *, phone: bool = False) -> None:
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone
        )

    def picture(self, file: Path) -> None:
        """What the window shows, as PNG."""
        file.write_bytes(base64.b64decode(self._get("/screenshot")))

    def complaints(self) -> list[str]:
        """What the browser itself found wrong: scripts that failed, things that the policy stopped, lost files."""
        return [str(entry["message"]) for entry in self._post("/se/log", type="browser")]

    def asks(self) -> bool:
        """Whether an alert stands before the page: then somebody's script ran."""
        return self._driver.get(f"{self._path}/alert/text").status_code == 200

    def _find(self, selector: str) -> str:
        return str(self._post("/element", using="css selector", value=selector)[_ELEMENT])

    def _get(self, path: str) -> Any:
        return _value(self._driver.get(self._path + path))

    def _post(self, path: str, **body: object) -> Any:
        return _value(self._driver.post(self._path + path, json=body))


@contextmanager
def chromium(languages: str = "en", flags: Sequence[str] = ()) -> Iterator[Browser]:
    """A window on an empty profile. `languages` as in Accept-Language."""
    driver_program, browser_program = program("chromedriver"), program("chromium")
    with tempfile.TemporaryDirectory(prefix="chromium-") as profile:
        process = subprocess.Popen(
            [driver_program, "--port=0", "--allowed-ips="], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            port = _port(process)
            arguments = [*_FLAGS, *flags, f"--user-data-dir={profile}", f"--accept-lang={languages}"]
            options = {"binary": browser_program, "args": arguments}
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=90) as driver:
                made = _value(driver.post("/session", json={"capabilities": {"alwaysMatch": wanted}}))
                try:
                    yield Browser(driver, made["sessionId"])
                finally:
                    driver.delete(f"/session/{made['sessionId']}")
        finally:
            process.terminate()
            process.wait(30)
            assert process.stdout
            process.stdout.close()


def _port(process: subprocess.Popen[str]) -> int:
    assert process.stdout
    deadline = time.monotonic() + 60
    for line in process.stdout:
        found = re.search(r"started successfully on port (\d+)", line)
        if found:
            return int(found[1])
        assert time.monotonic() < deadline, "chromedriver did not start"
    raise AssertionError("chromedriver ended")


def _value(answer: httpx.Response) -> Any:
    value = answer.json()["value"]
    assert answer.status_code == 200, f"{value['error']}: {value['message']}"
    return value
