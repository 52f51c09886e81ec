// The upload of a release pack: says how far it is, and why it was refused. Without it the form is sent as it stands.
"use strict";
(() => {
  const form = document.querySelector("form[data-upload]");
  if (!form) return;
  const problem = form.querySelector("[data-problem]");
  const progress = form.querySelector("[data-progress]");
  const bar = progress.querySelector("progress");
  const words = progress.querySelector("[role=status]");
  const button = form.querySelector("button");

  function refuse(text) {
    problem.textContent = text;
    problem.hidden = false;
    progress.hidden = true;
    button.disabled = false;
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const file = form.querySelector("input[type=file]").files[0];
    if (!file) {
      refuse(form.dataset.none);
      return;
    }
    problem.hidden = true;
    progress.hidden = false;
    button.disabled = true;
    const data = new FormData();
    data.append("file", file);
    const request = new XMLHttpRequest();
    request.upload.addEventListener("progress", (step) => {
      if (!step.lengthComputable) return;
      const percent = Math.floor((step.loaded / step.total) * 100);
      bar.value = percent;
      words.textContent = percent < 100 ? form.dataset.uploading.replace("{percent}", percent) : form.dataset.checking;
    });
    request.addEventListener("load", () => {
      const target = request.getResponseHeader("HX-Redirect");
      if (request.status < 300 && target) window.location.assign(target);
      else refuse(request.responseText.slice(0, 500));
    });
    request.addEventListener("error", () => refuse(document.getElementById("lost").textContent || "…"));
    request.open("POST", form.action);
    request.setRequestHeader("X-CSRF-Token", form.querySelector("[name=_csrf]").value);
    request.setRequestHeader("HX-Request", "true");
    request.send(data);
  });
})();
