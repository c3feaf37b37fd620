// Dark or light: the reader's setting, unless the button was pressed. And a link to a cell opens the cell's code.
const root = document.documentElement
const dark = () => (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark"
try { if (localStorage.theme) root.dataset.theme = localStorage.theme } catch { /* a browser that keeps nothing for files */ }

function open_target() {
  const cell = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)))
  if (cell) for (const code of cell.querySelectorAll("details")) code.open = true
}

addEventListener("DOMContentLoaded", () => {
  document.querySelector("header button").addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark"
    try { localStorage.theme = root.dataset.theme } catch { /* as above */ }
  })
  open_target()
})
addEventListener("hashchange", open_target)
