// The page works without this file; with it, it follows the server.
"use strict";

const same = (element) => element?.closest("form, a, details")?.outerHTML;

// refresh takes over what the server shows by now; forms that somebody fills in keep what is in them.
async function refresh() {
  const response = await fetch("/", { headers: { Accept: "text/html" } });
  if (!response.ok || response.redirected) return;
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  for (const section of document.querySelectorAll("[data-live]")) {
    const next = fresh.getElementById(section.id);
    const open = section.querySelector("details")?.open;
    if (open) next?.querySelector("details")?.setAttribute("open", "");
    if (!next || next.innerHTML === section.innerHTML) continue;
    const focused = section.contains(document.activeElement) ? same(document.activeElement) : undefined;
    section.replaceChildren(...next.childNodes);
    if (!focused) continue;
    for (const element of section.querySelectorAll("button, a, summary")) if (same(element) === focused) element.focus({ preventScroll: true });
  }
  for (const select of document.querySelectorAll("#actions select")) {
    const next = fresh.querySelector(`form[action="${select.form.getAttribute("action")}"] select[name="${select.name}"]`);
    if (!next || next.innerHTML === select.innerHTML || select === document.activeElement) continue;
    const chosen = select.value;
    select.replaceChildren(...next.childNodes);
    if ([...select.options].some((o) => o.value === chosen)) select.value = chosen;
  }
}

function follow() {
  const live = document.getElementById("live");
  if (!live) return;
  let waiting = false;
  const events = new EventSource("/api/v1/events");
  const show = (text, lost) => { live.textContent = text; live.classList.toggle("lost", lost); };
  events.addEventListener("change", () => {
    if (waiting) return;
    waiting = true; // several changes in a row are one look
    setTimeout(() => { waiting = false; refresh().catch(() => {}); }, 150);
  });
  events.onopen = () => show("live", false);
  events.onerror = () => show("connection lost, trying again", true);
}

async function followLog() {
  const log = document.getElementById("log");
  if (!log?.dataset.stream) return;
  const response = await fetch(log.dataset.stream, { headers: { Accept: "text/event-stream" } });
  if (!response.ok) return;
  log.textContent = "";
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ;) {
    const { value, done } = await reader.read();
    if (done) break;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const [, name, data] = event.match(/^event: (\w+)\ndata: (.*)$/s);
      if (name === "line") log.append(data + "\n");
      if (name === "end") return location.reload();
    }
  }
  setTimeout(followLog, 1000); // the server went away before the build's end
}

document.addEventListener("submit", (event) => { event.target.querySelector("button").disabled = true; });
addEventListener("pageshow", () => { for (const button of document.querySelectorAll("button:disabled")) button.disabled = false; });

document.addEventListener("change", (event) => {
  if (event.target.name !== "template") return;
  for (const fields of document.querySelectorAll("fieldset[data-template]")) {
    fields.hidden = fields.disabled = fields.dataset.template !== event.target.value;
  }
});

document.getElementById("problem")?.focus();
follow();
followLog();
