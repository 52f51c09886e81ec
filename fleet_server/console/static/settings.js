// Forms of the settings pages: periods and days that can be added and removed. Without it each list offers one empty line.
"use strict";
(() => {
  let fresh = 100;
  const WORKDAYS = ["tue", "wed", "thu", "fri"];

  /** A copy of the list's template under names of its own: `mark` stands for the number in them. */
  function add(list, mark) {
    const template = list.querySelector(":scope > template");
    const holder = document.createElement("div");
    holder.innerHTML = template.innerHTML.replaceAll(mark, `.${fresh++}${mark.endsWith(".") ? "." : ""}`);
    const made = holder.firstElementChild;
    template.before(made);
    return made;
  }

  function addSpan(list, from = "", to = "") {
    const made = add(list, ".N.");
    const [start, end] = made.querySelectorAll("input");
    start.value = from;
    end.value = to;
    return made;
  }

  function addDate(list) {
    const made = add(list, ".M");
    made.querySelector("input").focus();
  }

  /** Focus goes to what stands next, never back to the top of the page. */
  function remove(part, list) {
    part.remove();
    list.querySelector("[data-add-span], [data-add-date]")?.focus();
  }

  function copyWeek(form) {
    const pairs = [...form.querySelectorAll('[data-spans="mon"] > [data-span]')].map((pair) => [...pair.querySelectorAll("input")].map((field) => field.value));
    for (const day of WORKDAYS) {
      const list = form.querySelector(`[data-spans="${day}"]`);
      for (const old of list.querySelectorAll(":scope > [data-span]")) old.remove();
      for (const [from, to] of pairs) addSpan(list, from, to);
    }
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const data = button.dataset;
    if ("addSpan" in data) addSpan(button.closest("[data-spans]")).querySelector("input").focus();
    else if ("removeSpan" in data) remove(button.closest("[data-span]"), button.closest("[data-spans]"));
    else if ("copyWeek" in data) copyWeek(button.closest("[data-hours]"));
    else if ("addDate" in data) addDate(button.closest("[data-hours]").querySelector("[data-dates]"));
    else if ("removeDate" in data) remove(button.closest("[data-date]"), button.closest("[data-hours]"));
  });

  // `900` and `9` become `09:00` when the field is left.
  document.addEventListener("change", (event) => {
    const field = event.target;
    if (!field.matches || !field.matches("input.time")) return;
    const found = field.value.replace("：", ":").trim().match(/^(\d{1,2})(?::?(\d{2}))?$/);
    if (found) field.value = `${found[1].padStart(2, "0")}:${found[2] || "00"}`;
  });

  document.addEventListener("submit", (event) => {
    const question = event.target.dataset.confirm;
    if (question && !window.confirm(question)) event.preventDefault();
  });

  // After a form came back, the first field that is wrong.
  document.querySelector('[aria-invalid="true"]')?.focus();
})();
