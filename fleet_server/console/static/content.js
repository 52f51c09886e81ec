// Files dropped onto a package: sent one after the other, with how far it is and why one was refused. Without it the form is sent as it stands.
"use strict";
(() => {
  const form = document.querySelector("form[data-drop]");
  if (!form) return;
  const zone = form.querySelector(".co-zone");
  const input = form.querySelector("input[type=file]");
  const problem = form.querySelector("[data-problem]");
  const progress = form.querySelector("[data-progress]");
  const bar = progress.querySelector("progress");
  const words = progress.querySelector("[role=status]");
  const button = form.querySelector("button");
  button.hidden = true; // choosing or dropping sends at once

  function refuse(text) {
    problem.textContent = text;
    problem.hidden = false;
    progress.hidden = true;
  }

  function send(file) {
    return new Promise((resolve, reject) => {
      const data = new FormData();
      data.append("file", file);
      const request = new XMLHttpRequest();
      request.upload.addEventListener("progress", (step) => {
        if (!step.lengthComputable) return;
        const percent = Math.floor((step.loaded / step.total) * 100);
        bar.value = percent;
        words.textContent = `${file.name}: ${percent < 100 ? form.dataset.uploading.replace("{percent}", percent) : form.dataset.checking}`;
      });
      request.addEventListener("load", () => (request.status < 300 ? resolve() : reject(new Error(`${file.name}: ${request.responseText.slice(0, 300)}`))));
      request.addEventListener("error", () => reject(new Error(file.name)));
      request.open("POST", form.action);
      request.setRequestHeader("X-CSRF-Token", form.querySelector("[name=_csrf]").value);
      request.setRequestHeader("HX-Request", "true");
      request.send(data);
    });
  }

  async function sendAll(files) {
    problem.hidden = true;
    progress.hidden = false;
    let failed = "";
    for (const file of files) {
      try {
        await send(file);
      } catch (error) {
        failed = error.message;
      }
    }
    if (failed) refuse(failed);
    else window.location.reload();
  }

  input.addEventListener("change", () => sendAll([...input.files]));
  for (const name of ["dragenter", "dragover"]) {
    zone.addEventListener(name, (event) => {
      event.preventDefault();
      zone.classList.add("over");
    });
  }
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    sendAll([...event.dataTransfer.files]);
  });
})();
