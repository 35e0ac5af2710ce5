// The page works without this file; with it, it follows the server.
"use strict";

const same = (element) => element?.closest("form, a, details")?.outerHTML;

const show = (text, lost) => {
  const live = document.getElementById("live");
  live.textContent = text;
  live.classList.toggle("lost", lost);
};

// refresh takes over a section as the server shows it by now.
async function refresh(name) {
  const response = await fetch(`/sections/${name}${location.search}`);
  if (!response.ok || response.redirected) return;
  const section = document.getElementById(name);
  const fresh = document.createElement("section");
  fresh.innerHTML = await response.text();
  section.dataset.tag = response.headers.get("ETag");
  if (name === "actions") return choose(section, fresh);
  if (section.querySelector("details")?.open) fresh.querySelector("details")?.setAttribute("open", "");
  const focused = section.contains(document.activeElement) ? same(document.activeElement) : undefined;
  const box = section.querySelector(".box")?.scrollLeft;
  section.replaceChildren(...fresh.childNodes);
  if (box) section.querySelector(".box").scrollLeft = box;
  if (!focused) return;
  for (const element of section.querySelectorAll("button, a, summary")) if (same(element) === focused) element.focus({ preventScroll: true });
}

// choose takes over what there is to choose; forms that somebody fills in keep what is in them.
function choose(section, fresh) {
  for (const id of ["seen", "clusters"]) document.getElementById(id).replaceChildren(...fresh.querySelector("#" + id).childNodes);
  for (const select of section.querySelectorAll("select")) {
    const next = fresh.querySelector(`form[action="${select.form.getAttribute("action")}"] select[name="${select.name}"]`);
    if (!next || next.innerHTML === select.innerHTML || select === document.activeElement) continue;
    const chosen = select.value;
    select.replaceChildren(...next.childNodes);
    if ([...select.options].some((o) => o.value === chosen)) select.value = chosen;
  }
}

function follow() {
  if (!document.getElementById("live")?.dataset.follow) return;
  const events = new EventSource(`/live${location.search}`);
  let turn = Promise.resolve(); // one after another: a later state is not overwritten by an earlier one
  events.addEventListener("sections", (event) => {
    for (const [name, tag] of Object.entries(JSON.parse(event.data))) {
      turn = turn.then(() => document.getElementById(name).dataset.tag === tag ? undefined : refresh(name)).catch(() => {});
    }
  });
  events.onopen = () => show("live", false);
  events.onerror = async () => {
    show("connection lost, trying again", true);
    if (events.readyState !== EventSource.CLOSED) return; // it tries again by itself
    const answer = await fetch("/sections/journal").catch(() => undefined);
    if (answer?.status === 401) signedOut();
    setTimeout(follow, 3000);
  };
}

// signedOut says so and leaves the page with what somebody has typed as it is.
function signedOut() {
  show("signed out: ", true);
  const link = document.createElement("a");
  Object.assign(link, { href: "/login", target: "_blank", textContent: "sign in in another tab" });
  document.getElementById("live").append(link);
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
      const [, name, data] = event.match(/^event: (\w+)\ndata: ([^\n]*)/);
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
