"""Looks at all public items, as rustdoc writes them in JSON:

    python3 .ci/public_items.py

Each has an example. Modules, types, traits, functions, methods and re-exports of other crates count;
fields, variants and the methods of foreign traits do not. A method has an example, too, if one of its
type calls it by its name, so that the getters of a type share one. That the examples compile and run is
for `cargo test`.

And each crate whose types or traits stand in a public signature stands in the table of docs/semver.md,
and no other one.

It needs a nightly toolchain, and says so where there is none.
"""

import json
import re
import subprocess
import sys

PACKAGES = ["axum-defer", "axum-defer-live"]
KINDS = {"module", "struct", "enum", "union", "trait", "function", "type_alias", "constant", "macro"}
# A fence opens with nothing, or with what rustdoc takes for Rust.
RUST = {"", "rust", "no_run", "should_panic", "edition2024"}


def examples(docs):
    """The code in all examples."""
    code, inside, is_rust = [], False, False
    for line in (docs or "").splitlines():
        fence = re.match(r"\s*```(.*)$", line)
        if fence is None:
            if inside and is_rust:
                code.append(line)
            continue
        if not inside:
            words = re.split(r"[,\s]+", fence.group(1).strip())
            is_rust = all(word in RUST for word in words)
        inside = not inside
    return "\n".join(code)


def is_shown(item, code):
    return re.search(rf"(\.|::|fn ){item['name']}(::<|\(|\))", code) is not None


def without_example(crate):
    index = {int(key): item for key, item in crate["index"].items()}
    missing = []

    def look(item, path, code_of_owner=""):
        kind = next(iter(item["inner"]))
        inner = item["inner"][kind]
        if kind == "use":
            target = index.get(inner["id"])
            if target is not None and target["crate_id"] == 0:
                look(target, path)
                return
            path = path + [inner["name"]]
            if not examples(item["docs"]):
                missing.append(("re-export", path, item))
            return
        path = path + [item["name"]] if item["name"] else path
        code = examples(item["docs"])
        if kind in KINDS and not code and not is_shown(item, code_of_owner):
            missing.append((kind, path, item))
        if kind in ("module", "trait"):
            for child in inner["items"]:
                if child in index:
                    look(index[child], path, code if kind == "trait" else "")
        for block in inner.get("impls", []) if kind in ("struct", "enum", "union") else []:
            block = index.get(block)
            if block is None or block["inner"]["impl"]["trait"] is not None:
                continue
            for child in block["inner"]["impl"]["items"]:
                child = index[child]
                if child["visibility"] == "public":
                    look(child, path, code)

    look(index[crate["root"]], [])
    return missing


# Of the standard library, and of a macro whose expansion nobody can name.
NOT_PUBLIC = {"core", "alloc", "std", "pin_project_lite"}


def crates_in_signatures(crate):
    found = set()

    def look(value):
        if isinstance(value, list):
            for part in value:
                look(part)
        elif isinstance(value, dict):
            path = crate["paths"].get(str(value.get("id")))
            if path and path["crate_id"] != 0 and ("args" in value or "path" in value):
                found.add(crate["external_crates"][str(path["crate_id"])]["name"])
            for key, part in value.items():
                if key not in ("docs", "links", "attrs", "span"):
                    look(part)

    for item in crate["index"].values():
        kind = next(iter(item["inner"]))
        inner = item["inner"][kind]
        is_ours = item["crate_id"] == 0 and kind not in ("module", "extern_crate")
        # Auto traits, and the blanket implementations that every type has.
        is_given = kind == "impl" and (inner["is_synthetic"] or inner["blanket_impl"])
        if is_ours and not is_given:
            look(inner)
    return {name.replace("_", "-") for name in found - NOT_PUBLIC}


def crates_in_table():
    with open("docs/semver.md") as file:
        return set(re.findall(r"^\| `([a-z-]+)` ", file.read(), re.MULTILINE))


def main():
    nightly = ["cargo", "+nightly"]
    try:
        subprocess.run(nightly + ["--version"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        print("skipped: no nightly toolchain, so nobody looked at the public items")
        return
    faults = []
    for package in PACKAGES:
        crate = load(nightly, package)
        for kind, path, item in without_example(crate):
            place = f"{item['span']['filename']}:{item['span']['begin'][0]}" if item["span"] else ""
            faults.append(f"no example: {kind} {'::'.join(path)}  {place}")
        used = crates_in_signatures(crate)
        print(f"public dependencies of {package}:", ", ".join(sorted(used)))
        if package == "axum-defer":
            told = crates_in_table()
            faults += [f"not in the table of docs/semver.md: {name}" for name in sorted(used - told)]
            faults += [f"in no public signature: {name}" for name in sorted(told - used)]
    print(*faults, sep="\n", end="\n" if faults else "")
    if faults:
        sys.exit(f"{len(faults)} faults")
    print("every public item has an example")


def load(nightly, package):
    subprocess.run(
        nightly + ["rustdoc", "--package", package, "--lib", "--all-features", "--target-dir", "target"]
        + ["--", "-Z", "unstable-options", "--output-format", "json"],
        check=True,
    )
    with open(f"target/doc/{package.replace('-', '_')}.json") as file:
        return json.load(file)


if __name__ == "__main__":
    main()
