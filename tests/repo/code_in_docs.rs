//! Code in the docs that needs more than the crate itself may build is code of an example or a test,
//! which is built and run.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::Path};

/// The documents, and where what is not compiled in them comes from.
const SHOWN: &[(&str, &[&str])] = &[
    ("docs/recipes.md", &["tests/testing/recipes.rs"]),
    (
        "docs/serve.md",
        &["examples/integrations/tls.rs", "tests/serve/tls.rs"],
    ),
    ("src/serve/shutdown.rs", &["examples/websocket/src/main.rs"]),
];

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Line by line, without what differs between a page and a program.
fn normalised<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let lines = lines.map(|line| line.trim().replace("pub(crate) ", ""));
    lines.collect::<Vec<_>>().join("\n")
}

/// The code blocks that rustdoc does not compile.
fn ignored(document: &str) -> Vec<String> {
    let lines = document
        .lines()
        .map(|line| line.trim_start_matches("///").trim());
    let mut lines = lines.peekable();
    let mut blocks = Vec::new();
    while lines.any(|line| line == "```ignore") {
        blocks.push(normalised(lines.by_ref().take_while(|line| *line != "```")));
    }
    blocks
}

#[test]
fn what_is_not_compiled_in_the_docs_is_compiled_elsewhere() {
    for (document, sources) in SHOWN {
        let blocks = ignored(&read(document));
        assert!(!blocks.is_empty(), "{document} has none");
        let sources = sources
            .iter()
            .map(|source| normalised(read(source).lines()));
        let sources: Vec<_> = sources.collect();
        for block in &blocks {
            let whole = block.split("\n\n").filter(|part| !part.starts_with("use "));
            for part in whole {
                assert!(
                    sources.iter().any(|source| source.contains(part)),
                    "{document} has code that no program has:\n{part}"
                );
            }
        }
    }
}
