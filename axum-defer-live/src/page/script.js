"use strict";
// The page is complete without this script. The script replaces elements as events arrive, shows one
// view at a time, filters, and pauses. All markup comes from the server, which escapes text in it. The
// page's policy does not run scripts in inserted markup.

const byId = (id) => document.getElementById(id);
const lists = {
  now: byId("now-list"),
  requests: byId("requests-list"),
  failures: byId("failures-list"),
  names: byId("names-list"),
};
const limits = {
  requests: +document.body.dataset.maxRequests,
  failures: +document.body.dataset.maxFailures,
};
let version = document.body.dataset.version;
let events = null;
let retry = 0;

function setStatus(text, state) {
  const connection = byId("connection");
  if (connection.textContent !== text) connection.textContent = text;
  connection.className = state;
}

// ── Updates ─────────────────────────────────────────────────────────────────────────────────────

function parse(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  const element = template.content.firstElementChild;
  localize(element);
  filter(element);
  return element;
}

function localize(root) {
  for (const time of root.querySelectorAll("time")) {
    const date = new Date(time.dataset.unix * 1000);
    time.textContent = date.toLocaleTimeString();
    time.title = time.dateTime = date.toISOString();
  }
}

// Keeps the focus on the element, or on the same link in it.
function replace(old, element) {
  const focused = old.contains(document.activeElement) ? document.activeElement : null;
  const link = focused && focused !== old ? [...old.querySelectorAll("a")].indexOf(focused) : -1;
  old.replaceWith(element);
  if (focused) (link >= 0 ? element.querySelectorAll("a")[link] : element)?.focus({ preventScroll: true });
}

function put(list, key, html, before) {
  const element = parse(html);
  const old = byId(key);
  if (old) replace(old, element);
  else list.insertBefore(element, before);
}

function update(changes) {
  if (changes.reset) for (const list of Object.values(lists)) list.replaceChildren();
  const totals = byId("totals");
  if (totals.innerHTML !== changes.totals) totals.innerHTML = changes.totals;
  byId("limits").innerHTML = changes.limits;

  // The whole list, in order.
  const keys = new Set(changes.now.map(([key]) => key));
  for (const item of [...lists.now.children]) if (!keys.has(item.id)) item.remove();
  changes.now.forEach(([key, html], index) => {
    put(lists.now, key, html, null);
    const item = byId(key);
    if (lists.now.children[index] !== item) lists.now.insertBefore(item, lists.now.children[index]);
  });
  // New and changed items, newest first.
  for (const list of ["requests", "failures"]) {
    for (const [key, html] of changes[list].reverse()) put(lists[list], key, html, lists[list].firstChild);
    while (lists[list].childElementCount > limits[list]) lists[list].lastElementChild.remove();
  }
  for (const [key, html] of changes.names) put(lists.names, key, html, null);
}

function follow() {
  clearTimeout(retry);
  events = new EventSource("events?since=" + encodeURIComponent(version));
  events.onopen = () => setStatus("live", "live");
  events.onmessage = (event) => {
    version = event.lastEventId;
    update(JSON.parse(event.data));
  };
  events.onerror = () => {
    setStatus("disconnected, reconnecting", "broken");
    // The browser reconnects, unless the server refused the request.
    if (events.readyState === EventSource.CLOSED) retry = setTimeout(follow, 5000);
  };
}

function pause() {
  const button = byId("pause");
  const paused = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", paused);
  button.textContent = paused ? "Resume" : "Pause";
  if (!paused) return follow();
  clearTimeout(retry);
  events.close();
  setStatus("paused", "");
}

// ── Views ───────────────────────────────────────────────────────────────────────────────────────

// The URL's hash names a view, or an element in a view.
function show() {
  const target = byId(location.hash.slice(1));
  const section = target?.closest("section") ?? byId("now");
  for (const other of document.querySelectorAll("section")) other.classList.toggle("shown", other === section);
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === "#" + section.id) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  // The browser has scrolled to the section, which hides the header.
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
    // Statistics by name have no route.
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

// ── Keyboard ────────────────────────────────────────────────────────────────────────────────────

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
