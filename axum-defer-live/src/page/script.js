"use strict";
// The page is whole without this. Here: newer elements take the places of older ones as they are
// told of, one view is shown at a time, and filters and pause. All markup comes from the server,
// which has escaped what is in it; the policy of the page lets no script in it run.

const byId = (id) => document.getElementById(id);
const lists = {
  now: byId("now-list"),
  requests: byId("requests-list"),
  failures: byId("failures-list"),
  names: byId("names-list"),
};
const room = { requests: +document.body.dataset.requests, failures: +document.body.dataset.failures };
let version = document.body.dataset.version;
let events = null;
let retry = 0;

function say(text, state) {
  const connection = byId("connection");
  if (connection.textContent !== text) connection.textContent = text;
  connection.className = state;
}

// ── What is new ─────────────────────────────────────────────────────────────────────────────────

function element(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  const made = template.content.firstElementChild;
  localize(made);
  filter(made);
  return made;
}

function localize(root) {
  for (const time of root.querySelectorAll("time")) {
    time.textContent = new Date(time.dateTime).toLocaleTimeString();
    time.title = time.dateTime;
  }
}

// What has the focus keeps it when it is replaced.
function replace(old, made) {
  const focused = old.contains(document.activeElement) ? document.activeElement : null;
  const place = focused && focused !== old ? [...old.querySelectorAll("a")].indexOf(focused) : -1;
  old.replaceWith(made);
  if (focused) (place >= 0 ? made.querySelectorAll("a")[place] : made)?.focus({ preventScroll: true });
}

function put(list, key, html, before) {
  const made = element(html);
  const old = byId(key);
  if (old) replace(old, made);
  else list.insertBefore(made, before);
}

function change(told) {
  if (told.reset) for (const list of Object.values(lists)) list.replaceChildren();
  const totals = byId("totals");
  if (totals.innerHTML !== told.totals) totals.innerHTML = told.totals;
  byId("bounds").innerHTML = told.bounds;

  // All there is, in its order.
  const there = new Set(told.now.map(([key]) => key));
  for (const item of [...lists.now.children]) if (!there.has(item.id)) item.remove();
  told.now.forEach(([key, html], place) => {
    put(lists.now, key, html, null);
    const item = byId(key);
    if (lists.now.children[place] !== item) lists.now.insertBefore(item, lists.now.children[place]);
  });
  // What is new, the newest first.
  for (const list of ["requests", "failures"]) {
    for (const [key, html] of told[list].reverse()) put(lists[list], key, html, lists[list].firstChild);
    while (lists[list].childElementCount > room[list]) lists[list].lastElementChild.remove();
  }
  for (const [key, html] of told.names) put(lists.names, key, html, null);
}

function follow() {
  clearTimeout(retry);
  events = new EventSource("events?since=" + encodeURIComponent(version));
  events.onopen = () => say("live", "live");
  events.onmessage = (event) => {
    version = event.lastEventId;
    change(JSON.parse(event.data));
  };
  events.onerror = () => {
    say("no connection, trying again", "broken");
    // A refusal ends it; what is broken off, the browser takes up by itself.
    if (events.readyState === EventSource.CLOSED) retry = setTimeout(follow, 5000);
  };
}

function pause() {
  const button = byId("pause");
  const paused = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", paused);
  button.textContent = paused ? "Go on" : "Pause";
  if (!paused) return follow();
  clearTimeout(retry);
  events.close();
  say("paused", "");
}

// ── Views ───────────────────────────────────────────────────────────────────────────────────────

// The hash is a view, or an element in one.
function show() {
  const target = byId(location.hash.slice(1));
  const section = target?.closest("section") ?? byId("now");
  for (const other of document.querySelectorAll("section")) other.classList.toggle("shown", other === section);
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === "#" + section.id) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  // The browser has scrolled to the section, past what is above it.
  if (target === section) scrollTo(0, 0);
  else if (target) {
    target.hidden = false;
    target.focus({ preventScroll: true });
    target.scrollIntoView({ block: "center" });
  }
}

// ── Filters ─────────────────────────────────────────────────────────────────────────────────────

const wanted = { name: "", route: "", outcomes: [] };

function filter(item) {
  const { name, route, outcome } = item.dataset;
  const outcomes = outcome.split(" ");
  item.hidden = !(
    name.toLowerCase().includes(wanted.name) &&
    // By name, routes are not told apart.
    (item.tagName === "TR" || route.toLowerCase().includes(wanted.route)) &&
    (wanted.outcomes.length === 0 || wanted.outcomes.some((one) => outcomes.includes(one)))
  );
}

function filterAll() {
  wanted.name = byId("filter-name").value.toLowerCase();
  wanted.route = byId("filter-route").value.toLowerCase();
  wanted.outcomes = byId("filter-outcome").value.split(" ").filter(Boolean);
  for (const list of Object.values(lists)) for (const item of list.children) filter(item);
}

// ── From the keyboard ───────────────────────────────────────────────────────────────────────────

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, select, textarea")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const view = ["1", "2", "3", "4"].indexOf(event.key);
  if (view >= 0) document.querySelectorAll("nav a")[view].click();
  else if (event.key === "p") pause();
  else if (event.key === "/") byId("filter-name").focus();
  else return;
  event.preventDefault();
});

document.body.classList.add("scripted");
byId("filters").hidden = false;
byId("pause").hidden = false;
byId("pause").addEventListener("click", pause);
byId("filters").addEventListener("input", filterAll);
byId("filters").addEventListener("reset", () => setTimeout(filterAll));
byId("filters").addEventListener("submit", (event) => event.preventDefault());
window.addEventListener("hashchange", show);
localize(document);
filterAll();
show();
follow();
