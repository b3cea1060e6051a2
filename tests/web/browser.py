"""Headless Chromium over its DevTools protocol: enough to use a page as a person would."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import websockets

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")

LONGEST_S = 120.0

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--mute-audio",
    "--autoplay-policy=no-user-gesture-required",
    "--remote-debugging-port=0",
    "--use-fake-device-for-media-stream",
)


class Page:
    """One open page."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self._socket = socket
        self._number = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.complaints: list[str] = []
        """Uncaught exceptions and errors of the console."""
        self._reader = asyncio.create_task(self._read())

    async def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a DevTools command and wait for its answer."""
        self._number += 1
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[self._number] = answer
        message = {"id": self._number, "method": method, "params": parameters}
        await self._socket.send(json.dumps(message))
        async with asyncio.timeout(LONGEST_S):
            result = await answer
        if "error" in result:
            raise RuntimeError(f"{method}: {result['error']['message']}")
        return result["result"]

    async def open(self, url: str) -> None:
        """Go to an address and wait until its page is there."""
        for domain in ("Page", "Runtime", "Log"):
            await self.command(f"{domain}.enable")
        await self.command("Page.navigate", url=url)
        await self.until("document.readyState === 'complete' && !!document.getElementById('start')")

    async def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression, promises awaited."""
        found = await self.command(
            "Runtime.evaluate",
            expression=script,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        if "exceptionDetails" in found:
            details = found["exceptionDetails"]
            raise RuntimeError(details.get("exception", details).get("description", details))
        return found["result"].get("value")

    async def until(self, condition: str, seconds: float = LONGEST_S) -> Any:
        """The value of an expression, once it is true."""
        try:
            async with asyncio.timeout(seconds):
                while not (value := await self.evaluate(condition)):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            state = await self.evaluate("document.body.innerText")
            raise AssertionError(f"never true: {condition}\nthe page says:\n{state}") from None
        return value

    async def click(self, selector: str) -> None:
        """Click the first element of a CSS selector."""
        await self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    async def screenshot(
        self, path: Path, *, width: int = 1200, height: int = 800, dark: bool = False
    ) -> None:
        """Keep what the page looks like."""
        await self.look(width=width, height=height, dark=dark)
        found = await self.command("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(found["data"]))

    async def look(self, *, width: int, height: int, dark: bool = False) -> None:
        """Give the page a size and a colour scheme."""
        await self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        await self.command(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )

    async def _read(self) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):  # the browser is gone
            async for text in self._socket:
                self._take(json.loads(text))

    def _take(self, message: dict[str, Any]) -> None:
        answer = self._answers.pop(message.get("id", -1), None)
        if answer is not None and not answer.done():
            answer.set_result(message)
        elif message.get("method") == "Runtime.exceptionThrown":
            details = message["params"]["exceptionDetails"]
            self.complaints.append(str(details.get("exception", details)))
        elif message.get("method") == "Log.entryAdded":
            entry = message["params"]["entry"]
            if entry["level"] == "error":
                self.complaints.append(f"{entry['text']} {entry.get('url', '')}")


@contextlib.asynccontextmanager
async def chromium(microphone: Path | None = None, *, allowed: bool = True) -> AsyncIterator[Page]:
    """A browser whose microphone hears a recording once; ``allowed`` is the person's answer."""
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        raise RuntimeError("Chromium is missing: apt-get install chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = [*FLAGS, f"--user-data-dir={profile}"]
        if allowed:
            flags.append("--use-fake-ui-for-media-stream")
        else:
            flags.append("--deny-permission-prompts")
        if microphone is not None:
            flags.append(f"--use-file-for-fake-audio-capture={microphone}%noloop")
        process = await asyncio.create_subprocess_exec(
            program,
            *flags,
            "about:blank",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            address = await _page_address(Path(profile) / "DevToolsActivePort")
            async with websockets.connect(address, max_size=64 << 20) as socket:
                yield Page(socket)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


async def _page_address(file: Path) -> str:
    """The DevTools address of the browser's first page."""
    async with asyncio.timeout(LONGEST_S):
        while not (file.exists() and len(file.read_text().splitlines()) == 2):
            await asyncio.sleep(0.05)
        port, path = file.read_text().splitlines()
        while True:
            async with websockets.connect(f"ws://127.0.0.1:{port}{path}") as socket:
                await socket.send(json.dumps({"id": 1, "method": "Target.getTargets"}))
                found = json.loads(await socket.recv())["result"]["targetInfos"]
            pages = [target["targetId"] for target in found if target["type"] == "page"]
            if pages:
                return f"ws://127.0.0.1:{port}/devtools/page/{pages[0]}"
            await asyncio.sleep(0.05)
