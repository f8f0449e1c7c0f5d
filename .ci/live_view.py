"""The live view in a real browser: headless Chromium, driven by chromedriver on 127.0.0.1.

    cargo build --example live
    python3 .ci/live_view.py test
    python3 .ci/live_view.py screenshots axum-defer-live/screenshots
"""

import base64
import http.server
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

EXAMPLE = os.path.join(os.environ.get("CARGO_TARGET_DIR", "target"), "debug/examples/live")
PAGE = "/admin/deferred"
# Nothing here takes that long.
TIMEOUT = 30


def call(method, url, body=None):
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, {"content-type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            return json.load(response)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(error.read().decode()) from error


def until(true, what):
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        found = true()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"timed out waiting {what}")


class Browser:
    def __enter__(self):
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.driver = subprocess.Popen(
            ["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        for line in self.driver.stdout:
            if "started successfully on port" in line:
                port = line.split()[-1].rstrip(".")
                break
        flags = (
            "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
            "--disable-background-networking --disable-component-update --disable-sync "
            "--disable-dev-shm-usage --force-color-profile=srgb --lang=en-GB"
        ).split()
        flags.append(f"--user-data-dir={self.profile.name}")
        # A foreign host name that resolves to this machine.
        flags.append("--host-resolver-rules=MAP foreign.test 127.0.0.1")
        options = {"args": flags, "binary": os.environ.get("CHROMIUM", "/usr/bin/chromium")}
        base = f"http://127.0.0.1:{port}/session"
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        session = call("POST", base, {"capabilities": {"alwaysMatch": wanted}})
        self.session = f"{base}/{session['sessionId']}"
        return self

    def __exit__(self, *_):
        try:
            call("DELETE", self.session)
        finally:
            self.driver.terminate()
            self.driver.wait()
            self.profile.cleanup()

    def open(self, url):
        call("POST", self.session + "/url", {"url": url})

    def run(self, script, *arguments):
        body = {"script": script, "args": list(arguments)}
        return call("POST", self.session + "/execute/sync", body)

    def devtools(self, command, **parameters):
        body = {"cmd": command, "params": parameters}
        return call("POST", self.session + "/goog/cdp/execute", body)

    def log(self):
        return call("POST", self.session + "/se/log", {"type": "browser"})

    def keys(self, keys):
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        keyboard = {"type": "key", "id": "keyboard", "actions": actions}
        call("POST", self.session + "/actions", {"actions": [keyboard]})


class App:
    def __init__(self, *arguments):
        self.arguments = arguments

    def __enter__(self):
        self.process = subprocess.Popen(
            [EXAMPLE, *self.arguments],
            env={**os.environ, "ADDRESS": "127.0.0.1:0"},
            stdout=subprocess.PIPE,
            text=True,
        )
        self.page = self.process.stdout.readline().strip()
        self.origin = self.page.removesuffix(PAGE)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def send(self, request):
        method, path = request.split()
        body = urllib.request.Request(self.origin + path, method=method)
        try:
            with urllib.request.urlopen(body, timeout=TIMEOUT) as response:
                return response.status
        except urllib.error.HTTPError as error:
            return error.code


class Proxy(http.server.BaseHTTPRequestHandler):
    """A proxy on this machine that adds the address of a remote client, as proxies do."""

    def do_GET(self):
        headers = {"X-Forwarded-For": "203.0.113.9"}
        try:
            url = urllib.request.Request(self.server.origin + self.path, headers=headers)
            response = urllib.request.urlopen(url, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            response = error
        self.send_response(response.status)
        self.end_headers()
        self.wfile.write(response.read())

    def log_message(self, *_):
        pass


# ── Checks ──────────────────────────────────────────────────────────────────────────────────────

SHOWN = """return [...document.querySelectorAll(arguments[0])]
    .filter((item) => item.checkVisibility()).map((item) => item.innerText);"""


def shown(browser, selector):
    return browser.run(SHOWN, selector)


def set_filter(browser, field, value):
    browser.run(
        """const field = document.getElementById(arguments[0]); field.value = arguments[1];
        field.dispatchEvent(new Event("input", {bubbles: true}));""",
        "filter-" + field,
        value,
    )


def page_opens(browser, app):
    browser.open(app.page)
    assert browser.run("return location.pathname") == PAGE + "/view"
    assert browser.run("return document.title") == "Deferred callbacks"
    until(lambda: shown(browser, "#connection") == ["live"], "for the stream of events")
    policy = "return getComputedStyle(document.querySelector('.total')).display"
    assert browser.run(policy) == "flex", "the style is loaded"


def new_request_appears(browser, app):
    browser.keys("2")
    begin = time.monotonic()
    assert app.send("POST /orders/7777") == 201
    path = "#requests-list .path"
    until(lambda: "/orders/7777" in shown(browser, path), "for the request")
    print(f"    after {time.monotonic() - begin:.2f} s")
    item = '[...document.querySelectorAll("#requests-list > li")].find((item) => item.innerText.includes("/orders/7777"))'
    lanes = until(
        lambda: browser.run(
            f'const item = {item}; return item.innerText.includes("pending") || item.innerText.includes("running") ? null '
            ': [...item.querySelectorAll(".lane")].map((lane) => lane.querySelectorAll("rect").length)'
        ),
        "for its callbacks",
    )
    assert lanes == [2, 2, 2, 2], f"two bars each: handler and sending, queued and running: {lanes}"


def failure_shows_error(browser, app):
    app.send("POST /orders/6667")
    browser.keys("3")
    whole = "the order could not be indexed\ncaused by: no answer from 10.0.0.7:9200 within 15 ms"
    until(lambda: whole in shown(browser, "#failures-list pre"), "for the error")
    link = "#failures-list a"
    browser.run("document.querySelector(arguments[0]).click()", link)
    until(lambda: len(shown(browser, "#requests-list > li:target")) == 1, "for its request")


def filters_work(browser, app):
    app.send("POST /sign-up/ada")
    app.send("POST /orders/10")
    browser.keys("2")
    items = "#requests-list > li"
    until(lambda: any("/sign-up/ada" in item for item in shown(browser, items)), "for a sign-up")
    everything = len(shown(browser, items))
    set_filter(browser, "route", "/SIGN-UP/{name}")
    some = shown(browser, items)
    assert 0 < len(some) < everything and all("/sign-up/" in item for item in some), some
    set_filter(browser, "route", "")
    set_filter(browser, "name", "search ind")
    some = shown(browser, items)
    assert 0 < len(some) < everything and all("search index" in item for item in some), some
    set_filter(browser, "outcome", "error panicked timed_out lost")
    some = shown(browser, items)
    assert 0 < len(some) < everything and all("error" in item for item in some), some
    set_filter(browser, "name", "nothing has this name")
    assert shown(browser, items) == []
    assert shown(browser, "#requests .empty"), "the empty list has a text"
    browser.run("document.querySelector('button[type=reset]').click()")
    until(lambda: len(shown(browser, items)) >= everything, "for all of them")


def hostile_name_stays_text(browser, app):
    app.send("POST /sign-up/%3Cimg%20src%3Dx%20onerror%3Ddocument.title%3D1%3E")
    browser.keys("4")
    # The example puts markup into names.
    name = "<b>hello</b> <img src=x onerror=document.title=1>"
    until(lambda: name in shown(browser, "#names-list .name"), "for the name")
    assert browser.run("return document.querySelectorAll('img, .name b').length") == 0
    assert browser.run("return document.title") == "Deferred callbacks"


def pause_stops_updates(browser, app):
    browser.keys("2p")
    assert shown(browser, "#connection") == ["paused"]
    app.send("POST /orders/8888")
    # The server has it.
    snapshot = urllib.request.urlopen(app.page + "/snapshot.json", timeout=TIMEOUT).read().decode()
    assert "/orders/8888" in snapshot
    assert "/orders/8888" not in shown(browser, "#requests-list .path")
    browser.keys("p")
    until(lambda: "/orders/8888" in shown(browser, "#requests-list .path"), "for what was missed")


def every_control_has_a_name(browser, app):
    nodes = browser.devtools("Accessibility.getFullAXTree")["nodes"]
    value = lambda node, key: node.get(key, {}).get("value", "")
    roles = {"button", "link", "searchbox", "combobox", "navigation", "textbox"}
    controls = [node for node in nodes if value(node, "role") in roles and not node.get("ignored")]
    assert len(controls) > 8, len(controls)
    nameless = [node for node in controls if not value(node, "name")]
    assert not nameless, nameless


def page_follows_color_scheme(browser, app):
    grounds = {}
    for scheme in ["light", "dark"]:
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.devtools("Emulation.setEmulatedMedia", features=[feature])
        colour = browser.run("return getComputedStyle(document.body).backgroundColor")
        grounds[scheme] = sum(int(part) for part in re.findall(r"\d+", colour)[:3])
    browser.devtools("Emulation.setEmulatedMedia", features=[])
    assert grounds["light"] > 600 and grounds["dark"] < 150, grounds


def page_has_no_foreign_resource_or_cookie(browser, app):
    loaded = "return performance.getEntriesByType('resource').map((entry) => new URL(entry.name).origin)"
    origins = set(browser.run(loaded))
    assert origins == {app.origin}, origins
    assert browser.devtools("Storage.getCookies")["cookies"] == []


def page_fits_a_phone(browser, app):
    size = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    browser.devtools("Emulation.setDeviceMetricsOverride", **size)
    for view in "1234":
        browser.keys(view)
        width = browser.run("return document.documentElement.scrollWidth")
        assert width <= 360, f"view {view} is {width} wide"
    browser.devtools("Emulation.clearDeviceMetricsOverride")


def page_works_without_script(browser, app):
    app.send("POST /orders/9999")
    browser.open("about:blank")
    browser.devtools("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(app.page)
    # Without scripts, the driver does not wait until the page is loaded.
    tree = lambda: json.dumps(browser.devtools("DOM.getDocument", depth=-1))
    until(lambda: '"limits"' in tree(), "for the whole page")
    browser.devtools("Emulation.setScriptExecutionDisabled", value=False)
    for section in ["#now", "#requests", "#failures", "#names"]:
        assert shown(browser, f"{section} h2"), section
    assert "/orders/9999" in shown(browser, "#requests-list .path")
    assert not shown(browser, "#filters")


def browser_logs_no_warning(browser, app):
    entries = [entry for entry in browser.log() if entry["level"] != "INFO"]
    assert not entries, entries


def foreign_host_is_refused(browser, app):
    port = app.origin.rsplit(":")[-1]
    browser.open(f"http://foreign.test:{port}{PAGE}/view")
    text = browser.run("return document.body.innerText")
    assert "open to this machine only" in text, text
    assert "orders" not in text


def proxied_request_is_refused(browser, app):
    proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    proxy.origin = app.origin
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    browser.open(f"http://127.0.0.1:{proxy.server_port}{PAGE}/view")
    text = browser.run("return document.body.innerText")
    proxy.shutdown()
    assert "came through a proxy" in text, text
    assert "orders" not in text


def test():
    checks = [
        page_opens,
        new_request_appears,
        failure_shows_error,
        filters_work,
        hostile_name_stays_text,
        pause_stops_updates,
        every_control_has_a_name,
        page_follows_color_scheme,
        page_has_no_foreign_resource_or_cookie,
        page_fits_a_phone,
        browser_logs_no_warning,
        page_works_without_script,
        foreign_host_is_refused,
        proxied_request_is_refused,
    ]
    with App() as app, Browser() as browser:
        for check in checks:
            print(check.__name__.replace("_", " "), flush=True)
            check(browser, app)
    print(f"{len(checks)} checks passed")


# ── Screenshots ─────────────────────────────────────────────────────────────────────────────────

def screenshots(folder):
    os.makedirs(folder, exist_ok=True)
    with App() as app, Browser() as browser:
        app.send("POST /export")
        time.sleep(20)
        size = {"width": 1120, "height": 720, "deviceScaleFactor": 1, "mobile": False}
        phone = {"width": 390, "height": 760, "deviceScaleFactor": 1, "mobile": True}
        for scheme in ["light", "dark"]:
            feature = {"name": "prefers-color-scheme", "value": scheme}
            browser.devtools("Emulation.setEmulatedMedia", features=[feature])
            browser.devtools("Emulation.setDeviceMetricsOverride", **size)
            browser.open(app.page)
            until(lambda: shown(browser, "#connection") == ["live"], "for the stream of events")
            for key, view in zip("1234", ["now", "requests", "failures", "names"]):
                app.send("POST /orders/100")
                browser.keys(key)
                time.sleep(0.4)
                save(browser, f"{folder}/{view}-{scheme}.png")
            browser.devtools("Emulation.setDeviceMetricsOverride", **phone)
            browser.keys("2")
            save(browser, f"{folder}/phone-{scheme}.png")


def save(browser, path):
    picture = base64.b64decode(call("GET", browser.session + "/screenshot"))
    with open(path, "wb") as file:
        file.write(picture)
    print(path, len(picture))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["test"]:
            test()
        case ["screenshots", folder]:
            screenshots(folder)
        case _:
            sys.exit(__doc__)
