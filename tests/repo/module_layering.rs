//! Imports between the files of `src/` have no cycles, and neither have imports between its top-level
//! modules (the folders, and the files next to them), as the table in CONTRIBUTING.md shows.
//!
//! `cargo test --test repo module_layering -- --nocapture` prints the top-level modules, each before
//! the modules that it imports from.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// The text of each file, by the path of its module.
type Files = BTreeMap<Vec<String>, String>;
/// The imports of each module.
type Graph = BTreeMap<String, BTreeSet<String>>;

#[test]
fn files_import_without_cycles() {
    let files = read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../src")));
    let graph = imports(&files);
    assert!(graph.len() > 40, "the files were found: {graph:?}");
    order(&graph).unwrap_or_else(|cycle| panic!("a cycle: {}", cycle.join(" -> ")));
}

#[test]
fn folders_import_without_cycles() {
    let files = read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../src")));
    let mut folders = Graph::new();
    for (file, imported) in imports(&files) {
        let folder = |file: &str| file.split("::").next().unwrap_or(file).to_owned();
        let from = folder(&file);
        let others = imported.iter().map(|file| folder(file));
        let others: Vec<_> = others.filter(|other| *other != from).collect();
        folders.entry(from).or_default().extend(others);
    }
    assert!(folders["scope"].contains("callback"), "{folders:?}");
    let order = order(&folders);
    let order = order.unwrap_or_else(|cycle| panic!("a cycle: {}", cycle.join(" -> ")));
    for folder in order.iter().rev() {
        let imported: Vec<_> = folders[folder].iter().map(String::as_str).collect();
        println!("{folder}: {}", imported.join(", "));
    }
}

#[test]
fn test_files_belong_to_a_binary() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(here.join("Cargo.toml")).unwrap();
    let names = |folder: &Path| {
        let entries = fs::read_dir(folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect::<Vec<_>>()
    };
    let (mut binaries, mut modules) = (0, 0);
    for name in names(here) {
        let main = if name.ends_with(".rs") {
            name.clone()
        } else {
            format!("{name}/main.rs")
        };
        if name == "lib.rs" || !here.join(&main).exists() {
            continue;
        }
        binaries += 1;
        let path = format!("path = \"{main}\"");
        assert!(manifest.contains(&path), "tests/Cargo.toml has no {path}");
        let folder = here.join(&name);
        if !folder.is_dir() || folder.join("mod.rs").exists() {
            continue;
        }
        let text = fs::read_to_string(folder.join("main.rs")).unwrap();
        for file in names(&folder) {
            let module = file.strip_suffix(".rs").unwrap();
            let is_built = text.contains(&format!("\nmod {module};\n"));
            assert!(is_built || module == "main", "no mod {module} in {main}");
            modules += 1;
        }
    }
    assert!(binaries > 10 && modules > 40, "{binaries}, {modules}");
}

#[test]
fn cycle_of_any_import_is_found() {
    let file = |path: &[&str], text: &str| {
        let path = path.iter().map(|part| (*part).to_owned()).collect();
        (path, text.to_owned())
    };
    let order_with = |back: &str| {
        let files = Files::from([
            file(&["a"], "use crate::{c, b::{self, inner::Thing}};"),
            file(&["b"], "mod inner;"),
            file(&["b", "inner"], back),
            file(&["c"], ""),
        ]);
        order(&imports(&files))
    };
    assert_eq!(order_with("").unwrap(), ["b", "b::inner", "c", "a"]);
    assert_eq!(
        order_with(
            "// crate::a\n/// [`a`](crate::a)\n#[cfg(test)]\nmod tests { use crate::a::X; }"
        )
        .unwrap()
        .len(),
        4
    );
    for back in [
        "use crate::a::Other;",
        "pub(crate) use crate::{\n    c::{D, E},\n    a::Other as Renamed,\n};",
        "use super::super::a;",
        "fn f() { crate::a::g() }",
    ] {
        assert!(order_with(back).is_err(), "{back}");
    }
}

/// Reads the files of a folder, except modules that only exist in tests, which may import from all
/// others.
fn read(folder: &Path) -> Files {
    let mut files = Files::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if matches!(&*name, "lib" | "tests" | "loom_models") {
            continue;
        }
        if path.is_dir() {
            for (mut inner, text) in read(&path) {
                inner.insert(0, name.clone());
                files.insert(inner, text);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let module = if name == "mod" { vec![] } else { vec![name] };
            files.insert(module, text);
        }
    }
    files
}

/// Returns the modules that each file imports from.
fn imports(files: &Files) -> Graph {
    let mut graph = Graph::new();
    for (module, text) in files {
        let imported = paths(text).into_iter().filter_map(|path| {
            let file = resolve(files, module, &path)?;
            (file != *module).then(|| file.join("::"))
        });
        graph.insert(module.join("::"), imported.collect());
    }
    graph
}

/// Returns all paths in the code that begin in this crate.
fn paths(text: &str) -> Vec<Vec<String>> {
    let text = match text.find("#[cfg(test)]\nmod ") {
        Some(tests) => &text[..tests],
        None => text,
    };
    let code: String = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or(""))
        .collect::<Vec<_>>()
        .join(" ");
    let mut paths = Vec::new();
    for start in ["crate::", "super::", "self::"] {
        for (index, _) in code.match_indices(start) {
            let is_start = !code[..index].ends_with(|c: char| c.is_alphanumeric() || c == ':');
            if is_start {
                expand(&code[index..], &mut Vec::new(), &mut paths);
            }
        }
    }
    paths
}

/// Collects the paths that a `use` tree expands to, and returns the code after it.
fn expand<'a>(code: &'a str, prefix: &mut Vec<String>, paths: &mut Vec<Vec<String>>) -> &'a str {
    let depth = prefix.len();
    let mut rest = code.trim_start();
    loop {
        if let Some(mut inside) = rest.strip_prefix('{') {
            loop {
                inside = expand(inside, prefix, paths).trim_start();
                match inside.strip_prefix(',') {
                    Some(more) if !more.trim_start().starts_with('}') => inside = more,
                    Some(more) => inside = more.trim_start(),
                    None => break,
                }
                if inside.starts_with('}') {
                    break;
                }
            }
            prefix.truncate(depth);
            return inside.strip_prefix('}').unwrap_or(inside);
        }
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
        let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
        prefix.push(word.to_owned());
        match after.strip_prefix("::") {
            Some(more) => rest = more.trim_start(),
            None => {
                paths.push(prefix.clone());
                prefix.truncate(depth);
                let renamed = after.trim_start().strip_prefix("as ");
                return renamed.map_or(after, |name| {
                    name.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_')
                });
            }
        }
    }
}

/// Returns the module of the file that a path refers to.
fn resolve(files: &Files, module: &[String], path: &[String]) -> Option<Vec<String>> {
    let mut at = module.to_vec();
    for (index, part) in path.iter().enumerate() {
        match part.as_str() {
            "crate" => at.clear(),
            "self" if index > 0 => break,
            "self" => {}
            "super" => {
                at.pop();
            }
            part => {
                at.push(part.to_owned());
                if !files.contains_key(&at) {
                    at.pop();
                    break;
                }
            }
        }
    }
    files.contains_key(&at).then_some(at)
}

/// Returns the modules, each after the modules that it imports from, or the modules of a cycle.
fn order(graph: &Graph) -> Result<Vec<String>, Vec<String>> {
    fn visit(
        graph: &Graph,
        at: &str,
        way: &mut Vec<String>,
        done: &mut Vec<String>,
    ) -> Result<(), Vec<String>> {
        if done.iter().any(|known| known == at) {
            return Ok(());
        }
        let before = way.iter().position(|known| known == at);
        way.push(at.to_owned());
        if let Some(before) = before {
            return Err(way.split_off(before));
        }
        for next in &graph[at] {
            visit(graph, next, way, done)?;
        }
        way.pop();
        done.push(at.to_owned());
        Ok(())
    }
    let mut done = Vec::new();
    for file in graph.keys() {
        visit(graph, file, &mut Vec::new(), &mut done)?;
    }
    Ok(done)
}
