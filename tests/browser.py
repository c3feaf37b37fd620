"""Headless Chromium over its DevTools protocol: nothing but the browser and a websocket."""

import base64
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import websocket

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--remote-debugging-port=0", "--remote-allow-origins=*")  # fmt: skip


class Browser:
    """One page. `open` returns when it is loaded; `requests` and `problems` (console errors, exceptions, failed loads) hold what it did."""

    def __init__(self):
        program = next(filter(None, map(shutil.which, NAMES)), None)
        if program is None:
            pytest.exit(f"no browser: install Chromium (`apt-get install chromium`), looked for {', '.join(NAMES)}", returncode=1)
        self.profile = tempfile.mkdtemp(prefix="trm-browser-")
        self.process = subprocess.Popen([program, *FLAGS, f"--user-data-dir={self.profile}", "about:blank"], stderr=subprocess.DEVNULL)
        port, end = Path(self.profile, "DevToolsActivePort"), time.monotonic() + 60
        while not (port.exists() and len(lines := port.read_text().split()) == 2):
            assert time.monotonic() < end and self.process.poll() is None, f"{program} did not start"
            time.sleep(0.1)
        self.socket = websocket.create_connection("ws://127.0.0.1:{}{}".format(*lines), timeout=30)
        self.number, self.session, self.requests, self.problems, self.loaded = 0, None, [], [], False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        """A command; returns its result. What happens meanwhile is noted."""
        self.number += 1
        session = {"sessionId": self.session} if self.session else {}
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": params} | session))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == self.number:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self.note(message.get("method"), message.get("params"))

    def note(self, event, p):
        if event == "Network.requestWillBeSent":
            self.requests.append(p["request"]["url"])
        elif event == "Network.loadingFailed" and not p.get("canceled"):
            self.problems.append(p["errorText"])
        elif event == "Runtime.exceptionThrown":
            self.problems.append(p["exceptionDetails"]["text"])
        elif event == "Runtime.consoleAPICalled" and p["type"] in ("error", "warning"):
            self.problems.append(str(p["args"]))
        elif event == "Log.entryAdded" and p["entry"]["level"] in ("error", "warning"):
            self.problems.append(p["entry"]["text"])
        elif event == "Page.loadEventFired":
            self.loaded = True

    def open(self, url):
        self.requests, self.problems, self.loaded = [], [], False
        self.call("Page.navigate", url=url)
        end = time.monotonic() + 30
        while not self.loaded:
            assert time.monotonic() < end, f"{url} did not load"
            self.js("0")
        self.js("Promise.all([...document.images].map(i => { i.loading = 'eager'; return i.decode() })).then(() => 0)")  # lazy ones, too

    def js(self, expression):
        """The value of an expression in the page."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def size(self, width, height):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)

    def prefer(self, scheme):
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self):
        self.socket.close()
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.profile, ignore_errors=True)
