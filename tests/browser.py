"""Headless Chromium, driven over the DevTools protocol: opens pages, presses buttons, takes screenshots."""

import base64
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import websocket

PATIENCE = 60.0
NAMES = ("chromium", "chromium-browser", "google-chrome")
# The sandbox does not work for root, and containers have little shared memory.
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--mute-audio",
    "--disable-extensions", "--disable-background-networking", "--disable-component-update",
    "--remote-debugging-port=0", "--remote-allow-origins=*", "--window-size=1280,1000", "--no-proxy-server",
)  # fmt: skip
Message = dict[str, Any]


def find_browser() -> str | None:
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Navigated(Exception):
    """The page was replaced while a script ran in it."""


class Page:
    """A tab. Scripts are expressions, which may be promises, with JSON values."""

    def __init__(self, socket: websocket.WebSocket, downloads: Path) -> None:
        self.downloads = downloads
        self.errors: list[str] = []
        self._socket = socket
        self._numbers = itertools.count(1)
        for domain in ("Page", "Runtime", "DOM", "Network", "Log"):
            self.send(f"{domain}.enable")
        self.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))

    def send(self, method: str, **parameters: Any) -> Message:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message: Message = json.loads(self._socket.recv())
            self._note_errors(message)
            if message.get("id") == number:
                if "navigated" in message.get("error", {}).get("message", ""):
                    raise Navigated
                assert "error" not in message, message
                result: Message = message["result"]
                return result

    def _note_errors(self, message: Message) -> None:
        """Record script errors, and security errors such as blocked requests."""
        parameters = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.errors.append(str(details.get("exception", {}).get("description", details["text"])))
        if message.get("method") == "Log.entryAdded" and parameters["entry"]["source"] in ("security", "javascript"):
            self.errors.append(parameters["entry"]["text"])

    def open(self, url: str) -> None:
        self.send("Page.navigate", url="about:blank")
        self.send("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        evaluation = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in evaluation, evaluation["exceptionDetails"]
        return evaluation["result"].get("value")

    def wait(self, script: str, seconds: float = PATIENCE) -> None:
        """Wait until the script's value is truthy in JavaScript."""
        deadline = time.monotonic() + seconds
        while not self._is_true(script):
            assert time.monotonic() < deadline, (
                f"never became true: {script}\n{self.run('document.body.innerText')[-3000:]}"
            )
            time.sleep(0.05)

    def _is_true(self, script: str) -> bool:
        try:
            return bool(self.run(f"Boolean({script})"))
        except Navigated:
            return False

    def choose(self, selector: str, *files: Path) -> None:
        """Choose files in a file input."""
        chooser = self.send("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")
        assert "objectId" in chooser["result"], selector
        self.send("DOM.setFileInputFiles", files=[str(file) for file in files], objectId=chooser["result"]["objectId"])

    def key(self, name: str, modifiers: int = 0) -> None:
        code = {"Enter": 13, "Tab": 9, "Space": 32}[name]
        text = {"Enter": "\r", "Space": " "}.get(name, "")
        for kind in ("keyDown", "keyUp"):
            self.send(
                "Input.dispatchKeyEvent",
                type=kind,
                key={"Space": " "}.get(name, name),
                code=name,
                windowsVirtualKeyCode=code,
                modifiers=modifiers,
                **({"text": text} if kind == "keyDown" and text and not modifiers else {}),
            )

    def resize(self, width: int, height: int) -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def dark(self, dark: bool) -> None:
        value = "dark" if dark else "light"
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": value}])

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        screenshot = self.send("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(screenshot["data"]))

    def downloaded(self, is_wanted: Callable[[Path], bool] = lambda _path: True) -> Path:
        """Wait for a saved file that is wanted, and return its path."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            files = [path for path in self.downloads.iterdir() if path.suffix != ".crdownload" and is_wanted(path)]
            if files:
                return files[0]
            self.run("1")
            time.sleep(0.05)
        raise AssertionError(f"nothing was saved: {[path.name for path in self.downloads.iterdir()]}")


@contextmanager
def open_browser(folder: Path) -> Iterator[Page]:
    """Open a tab in a new browser; at the end, close the browser."""
    program = find_browser()
    assert program is not None
    profile, downloads = folder / "profile", folder / "downloads"
    downloads.mkdir(parents=True)
    process = subprocess.Popen(
        [program, *OPTIONS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with closing(_tab(profile, process)) as socket:
            yield Page(socket, downloads)
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _tab(profile: Path, process: "subprocess.Popen[bytes]") -> websocket.WebSocket:
    port_file = profile / "DevToolsActivePort"
    deadline = time.monotonic() + PATIENCE
    while not (port_file.exists() and port_file.read_text("utf-8").count("\n") >= 1):
        assert process.poll() is None, "the browser ended"
        assert time.monotonic() < deadline, "the browser did not start"
        time.sleep(0.05)
    port = int(port_file.read_text("utf-8").split("\n")[0])
    address = f"ws://127.0.0.1:{port}{port_file.read_text('utf-8').split()[1]}"
    with closing(websocket.create_connection(address, timeout=PATIENCE)) as browser:
        browser.send(json.dumps({"id": 1, "method": "Target.getTargets"}))
        while (answer := json.loads(browser.recv())).get("id") != 1:
            pass
    target = next(tab["targetId"] for tab in answer["result"]["targetInfos"] if tab["type"] == "page")
    return websocket.create_connection(f"ws://127.0.0.1:{port}/devtools/page/{target}", timeout=PATIENCE)
