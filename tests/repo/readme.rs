//! Checks that the tests, files, and pages that the README and CONTRIBUTING name exist.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn text(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the cells of the first table below a heading, without the header.
fn table<'a>(text: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let (_, below) = text.split_once(heading).expect("the heading exists");
    let rows = below.lines().skip_while(|line| !line.starts_with('|'));
    let rows = rows.take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

#[test]
fn promises_name_existing_tests() {
    let contributing = text("CONTRIBUTING.md");
    let promises = table(&contributing, "## Promises and their tests\n");
    assert!(promises.len() > 10, "the table was found");
    for promise in promises {
        let [name, pinned_by] = promise[..] else {
            panic!("not two cells: {promise:?}");
        };
        let mut tests = 0;
        // `one` and `other` in [file](path), `third` in [file](path)
        let (mut names, mut rest) = (Vec::new(), pinned_by);
        while let Some((before, link)) = rest.split_once("](") {
            let (path, after) = link.split_once(')').expect("a link ends");
            names.extend(quoted(before));
            assert!(!names.is_empty(), "{name}: {path} without a test");
            let file = text(path);
            for test in names.drain(..) {
                assert!(is_test(&file, test), "{name}: no test {test} in {path}");
                tests += 1;
            }
            rest = after;
        }
        assert!(tests > 0, "{name}: no test is named");
        assert_eq!(quoted(rest).next(), None, "{name}: in no file");
    }
}

/// Returns the texts between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Returns `true` if the file has this function, with the attribute of a test above it.
fn is_test(file: &str, name: &str) -> bool {
    let lines: Vec<_> = file.lines().map(str::trim).collect();
    let [plain, future] = ["fn ", "async fn "].map(|start| format!("{start}{name}("));
    let place = lines
        .iter()
        .position(|line| line.starts_with(&plain) || line.starts_with(&future));
    place.is_some_and(|place| {
        let above = lines[..place].iter().rev();
        above
            .take_while(|line| line.starts_with("#["))
            .any(|line| *line == "#[test]" || line.starts_with("#[tokio::test"))
    })
}

#[test]
fn front_page_has_the_program_of_the_readme() {
    let readme = text("README.md");
    let (_, program) = readme
        .split_once("```rust,no_run\n")
        .expect("the README has a program");
    let program: Vec<_> = program.lines().take_while(|line| *line != "```").collect();
    let front_page = text("src/lib.rs");
    let lines = front_page.lines().map(|line| {
        let line = line.strip_prefix("//!").unwrap_or_default();
        line.strip_prefix(' ').unwrap_or(line)
    });
    let shown = lines
        .skip_while(|line| *line != "```no_run")
        .skip(1)
        .take_while(|line| *line != "```")
        .filter(|line| !line.starts_with("# "));
    assert_eq!(shown.collect::<Vec<_>>(), program);
}

#[test]
fn functions_without_the_attribute_are_no_tests() {
    let file = "#[test]\nfn one() {}\n\n#[tokio::test(start_paused = true)]\nasync fn two() {}\n\n\
                fn three() {}\n";
    assert!(is_test(file, "one") && is_test(file, "two"));
    assert!(!is_test(file, "three") && !is_test(file, "on") && !is_test(file, "four"));
}

/// Returns the targets of all links: `[text](target)` and `[text]: target`.
fn links(text: &str) -> BTreeSet<&str> {
    let mut links = BTreeSet::new();
    let mut is_code = false;
    for line in text.lines() {
        is_code ^= line.trim_start().starts_with("```");
        if is_code {
            continue;
        }
        let targets = line.split("](").skip(1);
        links.extend(targets.filter_map(|rest| Some(rest.split_once(')')?.0)));
        if let (true, Some((_, target))) = (line.starts_with('['), line.split_once("]: ")) {
            links.insert(target.trim());
        }
    }
    links
}

#[test]
fn links_have_existing_targets() {
    for document in [
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "docs/semver.md",
    ] {
        let text = text(document);
        let folder = Path::new(document).parent().unwrap();
        for link in links(&text) {
            let (link, anchor) = link.split_once('#').unwrap_or((link, ""));
            if link.is_empty() {
                assert!(has_heading(&text, anchor), "{document}: no #{anchor}");
            } else if let Some(page) = link.strip_prefix(DOCS) {
                assert_page(document, page, anchor);
            } else if let Some(file) = link.strip_prefix(SOURCE) {
                assert!(root().join(file).exists(), "{document}: no {file}");
            } else if !link.contains("://") {
                let file = root().join(folder).join(link);
                assert!(file.exists(), "{document}: no {link}");
            }
        }
    }
}

const DOCS: &str = "https://docs.rs/axum-defer/latest/axum_defer/";
const SOURCE: &str = "https://docs.rs/crate/axum-defer/latest/source/";

/// Panics if the module of this page does not exist, or the heading on a page of the guide.
fn assert_page(document: &str, page: &str, anchor: &str) {
    let module = page.strip_suffix("index.html").expect("a module's page");
    let module = module.trim_end_matches('/');
    if let Some(name) = module.strip_prefix("guide/") {
        let guide = text("src/guide.rs");
        assert!(
            guide.contains(&format!("pub mod {name} {{")),
            "{document}: no {page}"
        );
        let file = format!("docs/{}.md", name.replace('_', "-"));
        let is_there = anchor.is_empty() || has_heading(&text(file), anchor);
        assert!(is_there, "{document}: no #{anchor} in {page}");
    } else if !module.is_empty() {
        let folder: PathBuf = root().join("src").join(module);
        assert!(folder.join("mod.rs").exists(), "{document}: no {page}");
    }
}

/// Returns `true` if a heading has this anchor, as rustdoc and GitHub derive it.
fn has_heading(text: &str, anchor: &str) -> bool {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let mut anchors = headings.map(|heading| {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.collect::<String>().replace(' ', "-")
    });
    anchors.any(|known| known == anchor)
}
