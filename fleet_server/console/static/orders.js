// The screen of a locked terminal is drawn as it is typed.
"use strict";
(() => {
  document.addEventListener("input", (event) => {
    const name = event.target.dataset ? event.target.dataset.mirror : "";
    const target = name ? document.getElementById(name) : null;
    if (target) target.textContent = event.target.value;
  });
})();
