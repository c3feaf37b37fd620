"""The notebooks in a real JupyterLab (`make test-browser`): opened from a fresh clone, run from top to bottom, a control moved."""

import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from browser import Browser

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(p.stem for p in (ROOT / "notebooks").glob("*.ipynb"))
SHOTS = ROOT / "dist" / "screenshots"
PORT = 18888
MINUTES = 5  # a notebook may take, with a cold start
PICTURES = "[...document.querySelectorAll('.jp-Notebook .jp-OutputArea img')]"
STATE = """(() => {
  const panel = window.panel, cells = panel.content.model.sharedModel.cells.filter(c => c.cell_type === 'code' && c.source.trim());
  const outputs = cells.flatMap(c => c.outputs || []);
  return {
    busy: panel.sessionContext.session?.kernel?.status !== 'idle', ran: cells.filter(c => c.execution_count).length, of: cells.length,
    errors: outputs.filter(o => o.output_type === 'error').map(o => o.ename + ': ' + o.evalue),
    noise: outputs.filter(o => o.output_type === 'stream' && o.name === 'stderr').map(o => String(o.text).slice(0, 200)),
  };
})()"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab on a fresh clone of the last commit."""
    clone = tmp_path_factory.mktemp("lab") / "report"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    options = [
        "--no-browser",
        f"--port={PORT}",
        "--ServerApp.port_retries=0",
        "--IdentityProvider.token=",
        "--expose-app-in-browser",
        "--allow-root",
    ]
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyter", "lab", *options], cwd=clone, env={**os.environ, "PYTHONPATH": str(clone)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    address, end = f"http://127.0.0.1:{PORT}", time.monotonic() + 60
    while True:
        assert time.monotonic() < end and server.poll() is None, f"JupyterLab did not start on port {PORT}; is it in use?"
        try:
            urllib.request.urlopen(f"{address}/api", timeout=5)
            break
        except OSError:
            time.sleep(0.5)
    yield address
    server.terminate()
    server.wait()


@pytest.fixture(scope="module")
def browser():
    browser = Browser()
    SHOTS.mkdir(parents=True, exist_ok=True)
    browser.size(1280, 1600)
    yield browser
    browser.close()


def until(look, what, seconds=60):
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, what
        time.sleep(0.5)
    return found


@pytest.fixture
def run(lab, browser):
    """Open a notebook, run all its cells; nothing may go wrong."""

    def run(name):
        browser.open(f"{lab}/lab?reset")
        until(lambda: browser.js("!!window.jupyterapp"), "JupyterLab did not come up")
        browser.js(f"""(async () => {{
          const app = window.jupyterapp;
          await app.restored;
          window.panel = await app.commands.execute('docmanager:open', {{path: 'notebooks/{name}.ipynb', factory: 'Notebook'}});
          await window.panel.context.ready;
          await window.panel.sessionContext.ready;
          const content = window.panel.content;
          content.notebookConfig = {{...content.notebookConfig, windowingMode: 'none'}};  // cells out of sight stay in the page
          await app.commands.execute('application:toggle-left-area');
        }})()""")
        browser.js("void window.jupyterapp.commands.execute('notebook:run-all-cells')")
        until(
            lambda: (s := browser.js(STATE)) and (s["errors"] or (s["ran"] == s["of"] and not s["busy"])),
            f"{name} did not end",
            60 * MINUTES,
        )
        state = browser.js(STATE)
        assert (state["errors"], state["noise"]) == ([], [])
        return browser

    yield run
    browser.js("window.panel ? window.panel.sessionContext.shutdown().then(() => window.panel.context.save()).then(() => 0) : 0")


@pytest.mark.parametrize("name", [n for n in NOTEBOOKS if not n.startswith("08")])
def test_a_notebook_runs_from_top_to_bottom(run, name):
    browser = run(name)
    assert browser.js(f"{PICTURES}.length") > 0
    assert browser.js(f"{PICTURES}.filter(i => !i.naturalWidth).map(i => i.src)") == []
    browser.screenshot(SHOTS / f"lab-{name}.png")


def test_the_explorers_answer_to_their_controls(run):
    browser = run("08_explorers")
    browser.screenshot(SHOTS / "lab-08_explorers.png")
    pictures = "[...document.querySelectorAll('.jp-Notebook .jupyter-widgets img')].map(i => i.src)"
    find = "(e => { e?.scrollIntoView({block: 'center'}); e?.focus(); e?.select?.(); return !!e })"
    for kind, act in {
        ".widget-slider .noUi-handle": lambda: press(browser, "ArrowRight", 39),
        ".widget-text input:not([placeholder^=or])": lambda: (
            browser.call("Input.insertText", text="the _ of the _ ."),
            browser.js("document.activeElement.blur()"),
        ),
    }.items():
        before = until(lambda: browser.js(pictures), "the explorers show no picture")
        assert browser.js(f"{find}(document.querySelector('.jp-Notebook {kind}'))"), kind
        act()
        until(lambda before=before: browser.js(pictures) != before and browser.js(pictures), f"no picture changed with {kind}")
        until(lambda: not browser.js(STATE)["busy"], "the kernel stays busy")
        time.sleep(1)  # the new picture is drawn
        browser.screenshot(SHOTS / f"lab-08{kind.split()[0].replace('.', '-')}.png")
    assert browser.js(STATE)["errors"] == []


def press(browser, key, code):
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)
