// The page works without this. With it: it renews itself while nobody types, keeps a search when the language changes,
// and long tables can be filtered.
"use strict";

const every = 15000;

function busy() {
  const at = document.activeElement;
  const typing = at && ["INPUT", "SELECT"].includes(at.tagName) && document.querySelector("main").contains(at);
  const typed = [...document.querySelectorAll("main input:not([type=hidden])")].some((one) => one.value);
  return document.hidden || typing || typed || !getSelection().isCollapsed;
}

async function renew() {
  if (busy()) return;
  try {
    const answer = await fetch(location.href, { credentials: "same-origin" });
    if (!answer.ok) throw new Error(answer.status);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.querySelector("main");
    if (!fresh || busy()) return;
    document.querySelector("main").replaceWith(fresh);
    addFilters();
    document.body.classList.remove("stale");
  } catch {
    document.body.classList.add("stale");
  }
}

function addFilters() {
  for (const table of document.querySelectorAll("table[data-filter]")) {
    if (table.tBodies[0].rows.length < 8) continue;
    const field = document.createElement("input");
    field.type = "search";
    field.className = "filter";
    field.setAttribute("aria-label", document.querySelector(".search button").textContent);
    field.addEventListener("input", () => {
      const wanted = field.value.toLowerCase();
      for (const row of table.tBodies[0].rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
    });
    table.parentElement.before(field);
  }
}

for (const link of document.querySelectorAll("a[data-language]")) {
  const here = new URL(location.href);
  here.searchParams.set("lang", new URL(link.href).searchParams.get("lang"));
  link.href = here.href;
}
addFilters();
if (document.querySelector("main [data-renew], .health, .mails, .timeline")) setInterval(renew, every);
