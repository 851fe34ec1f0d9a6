//! The modules at the top of a crate depend on each other in one direction: to understand one, read those below it.

use std::collections::{BTreeMap, BTreeSet};

use crate::files::TextFile;

/// The crates' sources.
const CRATES: [&str; 6] =
    ["daemon/engine/src/", "daemon/heap/src/", "daemon/kernels/src/", "daemon/src/", "model-prep/src/", "tests/src/"];

/// The crate's root, `lib.rs`, as a module.
const ROOT: &str = "lib";

/// Who names whom.
type Uses = BTreeMap<String, BTreeSet<String>>;

pub(crate) fn circles(files: &[TextFile]) -> Vec<String> {
    CRATES.iter().flat_map(|folder| circles_of(folder, files)).collect()
}

fn circles_of(folder: &str, files: &[TextFile]) -> Vec<String> {
    let uses = uses(folder, files);
    let mut found = BTreeMap::<BTreeSet<&str>, String>::new();
    for module in uses.keys() {
        if let Some(circle) = way(&uses, module, module) {
            // Several circles through the same modules are told once, by one of the shortest.
            found.entry(circle.iter().copied().collect()).or_insert_with(|| circle.join(" → "));
        }
    }
    found.values().map(|circle| format!("{folder}: {circle}")).collect()
}

/// A shortest way from one module to another, both included.
fn way<'a>(uses: &'a Uses, from: &'a str, to: &str) -> Option<Vec<&'a str>> {
    let mut ways = vec![vec![from]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in &ways {
            for next in uses.get(way[way.len() - 1]).into_iter().flatten().filter(|next| seen.insert(*next)) {
                let way = [&way[..], &[next]].concat();
                if next == to {
                    return Some(way);
                }
                longer.push(way);
            }
        }
        ways = longer;
    }
    None
}

/// Which modules of a crate name which, outside of tests. A name that the root passes on leads to the module that it is of.
fn uses(folder: &str, files: &[TextFile]) -> Uses {
    let sources: Vec<(&str, &TextFile)> = files.iter().filter_map(|file| Some((module(folder, file)?, file))).collect();
    let modules: BTreeSet<&str> = sources.iter().map(|(module, _)| *module).collect();
    let root = sources.iter().find(|(module, _)| *module == ROOT);
    let passed_on = root.map(|(_, file)| passed_on(&file.text)).unwrap_or_default();
    let mut uses = Uses::new();
    for (module, file) in sources {
        let code = without_tests(&file.text);
        let mut names = names_after(&code, "crate::");
        let at_the_top = file.path.trim_start_matches(folder) == format!("{module}.rs");
        if at_the_top && module != ROOT {
            names.extend(names_after(&code, "super::"));
        } else if module == ROOT {
            names.extend(names_after(&code, "use "));
            names.extend(names_after(&code, "use self::"));
        }
        let target = |name: &String| match passed_on.get(name) {
            _ if modules.contains(&**name) => Some(name.clone()),
            Some(module) => Some(module.clone()),
            None if name.starts_with(char::is_uppercase) && module != ROOT => Some(ROOT.to_owned()),
            None => None,
        };
        let targets = names.iter().filter_map(target).filter(|target| target != module);
        uses.entry(module.to_owned()).or_default().extend(targets);
    }
    uses
}

/// The module at the top of the crate in `folder` to which a file belongs; a program's `main.rs` stands above all, and
/// files of tests use what they like.
fn module<'a>(folder: &str, file: &'a TextFile) -> Option<&'a str> {
    let path = file.path.strip_prefix(folder).filter(|path| path.ends_with(".rs") && !path.ends_with("/tests.rs"))?;
    let first = path.split('/').next()?;
    Some(first.trim_end_matches(".rs")).filter(|module| *module != "main")
}

/// What comes before the tests at a file's end, without comments; nothing of a file that is all tests.
fn without_tests(text: &str) -> String {
    let code = text.lines().take_while(|line| line.trim() != "#[cfg(test)]");
    code.map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// By its name, the module whose item the root passes on: `pub use module::{Name, Other};`.
fn passed_on(root: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for declaration in root.split(';').filter_map(|text| text.split("pub use ").nth(1)) {
        let Some((module, names)) = declaration.split_once("::") else { continue };
        let names = names.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|name| !name.is_empty());
        found.extend(names.map(|name| (name.to_owned(), module.trim().to_owned())));
    }
    found
}

/// The first names of all paths that follow `prefix`, of `prefix{a, b::c}` too.
fn names_after(code: &str, prefix: &str) -> Vec<String> {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        if code[..at].ends_with(|c| part_of_name(c) || c == ':' || c == '$') {
            continue;
        }
        let after = &code[at + prefix.len()..];
        let (group, after) = after.strip_prefix('{').map_or((false, after), |after| (true, after));
        let (mut depth, mut name, mut fresh) = (0, String::new(), true);
        for c in after.chars() {
            match c {
                c if part_of_name(c) && fresh && depth == 0 => name.push(c),
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' if depth == 0 && group => {
                    found.push(std::mem::take(&mut name));
                    fresh = true;
                }
                c if c.is_whitespace() && name.is_empty() => {}
                _ if !group || c == '}' => break,
                _ => fresh = false,
            }
        }
        found.push(name);
    }
    found.retain(|name| !name.is_empty());
    found
}
