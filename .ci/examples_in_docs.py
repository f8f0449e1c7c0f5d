"""Lists the public items whose docs have no example, and fails if there is one.

    python3 .ci/examples_in_docs.py

Modules, types, traits, functions, methods and re-exports of other crates count; fields, variants and
the methods of foreign traits do not. A method has an example, too, if one of its type calls it by its
name, so that the getters of a type share one. It reads what rustdoc writes as JSON, so it needs a nightly
toolchain, and says so where there is none. That the examples compile and run is for `cargo test`.
"""

import json
import re
import subprocess
import sys

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


def main():
    nightly = ["cargo", "+nightly"]
    try:
        subprocess.run(nightly + ["--version"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        print("skipped: no nightly toolchain, so nobody looked for items without an example")
        return
    subprocess.run(
        nightly + ["rustdoc", "--lib", "--all-features", "--target-dir", "target"]
        + ["--", "-Z", "unstable-options", "--output-format", "json"],
        check=True,
    )
    with open("target/doc/axum_defer.json") as file:
        missing = without_example(json.load(file))
    for kind, path, item in missing:
        place = f"{item['span']['filename']}:{item['span']['begin'][0]}" if item["span"] else ""
        print(f"no example: {kind} {'::'.join(path)}  {place}")
    if missing:
        sys.exit(f"{len(missing)} public items have no example")
    print("every public item has an example")


if __name__ == "__main__":
    main()
