// A choice in a form of figures takes effect at once; without a script its button does it.
(() => {
  "use strict";
  for (const form of document.querySelectorAll("[data-figures-form]")) {
    form.classList.add("scripted");
    form.addEventListener("change", (event) => {
      if (!(event.target instanceof HTMLSelectElement)) return;
      const area = form.querySelector("[name=area]");
      const site = form.querySelector("[name=site]");
      if (event.target === area && site) site.value = "";
      if (form.reportValidity()) form.requestSubmit();
    });
    form.addEventListener("submit", () => {
      for (const field of form.querySelectorAll("select, input")) if (!field.value) field.disabled = true;
    });
  }
  // Figures that take long are asked for again until they are there.
  const again = document.querySelector("[data-again-after]");
  if (again) setTimeout(() => location.reload(), Number(again.dataset.againAfter));
  // Disabled fields would stay so in a page that the browser kept.
  window.addEventListener("pageshow", () => {
    for (const field of document.querySelectorAll("[data-figures-form] :disabled")) field.disabled = false;
  });
})();
