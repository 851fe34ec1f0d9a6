//! One name, one thing: types that are called the same in two places of the workspace.

use std::collections::BTreeMap;

use crate::files::TextFile;

/// Names that may occur more than once, and why.
const SHARED: [(&str, &str); 8] = [
    ("Args", "each program's command line"),
    ("Case", "a case of the golden file that a test reads"),
    ("Cli", "each program's command line"),
    ("Command", "each program's command line"),
    ("Error", "each library has its own"),
    ("Options", "each program's or library's own"),
    ("Output", "what an operation of a trait gives"),
    ("Result", "each library has its own, of its error"),
];

/// A type's declaration: its name, and where it is.
fn declarations(file: &TextFile) -> Vec<(String, String)> {
    if !file.is_rust() {
        return vec![];
    }
    let lines = file.text.lines().enumerate();
    lines.filter_map(|(i, line)| Some((declared(line)?.to_owned(), format!("{}:{}", file.path, i + 1)))).collect()
}

/// The type that a line declares. A `type` that is indented belongs to a trait.
fn declared(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub"));
    let keyword = words.next()?;
    let declares =
        ["struct", "enum", "trait", "union"].contains(&keyword) || line.starts_with(['p', 't']) && keyword == "type";
    let name = words.next().filter(|_| declares)?;
    let name = name.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
    name.starts_with(char::is_uppercase).then_some(name)
}

pub(crate) fn twice_declared(files: &[TextFile]) -> Vec<String> {
    let mut places = BTreeMap::<String, Vec<String>>::new();
    for (name, place) in files.iter().flat_map(declarations) {
        places.entry(name).or_default().push(place);
    }
    let shared = |name: &str| SHARED.iter().any(|(known, _)| *known == name);
    let offending = places.into_iter().filter(|(name, places)| places.len() > 1 && !shared(name));
    offending.map(|(name, places)| format!("{name} is declared in {}", places.join(", "))).collect()
}
