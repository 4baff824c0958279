// Light or dark, before anything is painted; main.js has the button. It is no module, which would
// wait.
"use strict";
try {
  const chosen = localStorage.getItem("unimodal-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // A browser that keeps nothing has the system's theme.
}
