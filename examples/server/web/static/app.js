// The page works without this file; with it, it follows the server and remembers who you are.
"use strict";

const actors = () => document.querySelectorAll("input[name=actor]");

function fillActors() {
  for (const input of actors()) if (!input.value) input.value = localStorage.getItem("actor") || "";
}

async function refresh() {
  const response = await fetch("/", { headers: { Accept: "text/html" } });
  if (!response.ok || response.redirected) return;
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  for (const section of document.querySelectorAll("[data-live]")) {
    const next = fresh.getElementById(section.id);
    const open = section.querySelector("details")?.open;
    if (!next || next.innerHTML === section.innerHTML || section.contains(document.activeElement)) continue;
    section.replaceChildren(...next.childNodes);
    if (open) section.querySelector("details").open = true;
  }
  for (const select of document.querySelectorAll("select")) {
    const next = [...fresh.querySelectorAll("select")].find((s) => s.name === select.name && s.form.action === select.form.action);
    if (!next || next.innerHTML === select.innerHTML || select === document.activeElement) continue;
    const chosen = select.value;
    select.replaceChildren(...next.childNodes);
    if ([...select.options].some((o) => o.value === chosen)) select.value = chosen;
  }
  fillActors();
}

function follow() {
  const live = document.getElementById("live");
  if (!live) return;
  let waiting = false;
  const events = new EventSource("/api/v1/events");
  events.addEventListener("change", () => {
    if (waiting) return;
    waiting = true; // several changes in a row are one look
    setTimeout(() => { waiting = false; refresh(); }, 150);
  });
  events.onopen = () => { live.textContent = "live"; };
  events.onerror = () => { live.textContent = "connection lost, trying again"; };
}

function followLog() {
  const log = document.getElementById("log");
  if (!log || !log.dataset.stream) return;
  log.textContent = "";
  const controller = new AbortController();
  fetch(log.dataset.stream, { headers: { Accept: "text/event-stream" }, signal: controller.signal }).then(async (response) => {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      for (const event of events) {
        const [, name, data] = event.match(/^event: (\w+)\ndata: (.*)$/s);
        if (name === "line") log.append(data + "\n");
        if (name === "end") location.reload();
      }
    }
  });
}

document.addEventListener("submit", (event) => {
  const actor = event.target.querySelector("input[name=actor]");
  if (actor && actor.value) localStorage.setItem("actor", actor.value);
  event.target.querySelector("button").disabled = true;
});

document.addEventListener("change", (event) => {
  if (event.target.name !== "template") return;
  for (const fields of document.querySelectorAll("fieldset[data-template]")) {
    fields.hidden = fields.disabled = fields.dataset.template !== event.target.value;
  }
});

fillActors();
follow();
followLog();
