//! The project's own text files, as the rules read them.

use std::fs;
use std::path::Path;

use diffused_tests::root;

/// Where the project's own text lies. Build outputs and whatever a developer keeps beside it are not looked at.
const FOLDERS: [&str; 10] =
    [".ci", ".github", "benches", "cross", "daemon", "docs", "model-prep", "systemd", "tests", ""];

/// What a file of ours ends in; anything else (weights, pictures, vocabularies) is data.
const TEXT: [&str; 13] = ["rs", "toml", "md", "sh", "py", "service", "conf", "yml", "run", "ts", "tsx", "mjs", "css"];

/// What builds put beside the sources.
const BUILT: [&str; 2] = ["target", "node_modules"];

/// One file of the project: its path from the root, with `/` between its parts, and its text.
pub(crate) struct TextFile {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl TextFile {
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    pub(crate) fn is_under(&self, folders: &[&str]) -> bool {
        folders.iter().any(|folder| self.path.starts_with(folder))
    }

    /// `path:line: text` of every line of code (comments left out) for which `offends` holds.
    pub(crate) fn offending_lines(&self, offends: impl Fn(&str) -> bool) -> Vec<String> {
        let code = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
        let numbered = self.text.lines().enumerate();
        numbered
            .filter(|(_, line)| offends(&code(line)))
            .map(|(i, line)| format!("{}:{}: {}", self.path, i + 1, line.trim()))
            .collect()
    }
}

/// Every text file of the project but those of this test, which name what they forbid.
pub(crate) fn text_files() -> Vec<TextFile> {
    let mut found = Vec::new();
    for folder in FOLDERS {
        collect(&root().join(folder), folder, !folder.is_empty(), &mut found);
    }
    assert!(found.iter().any(|s| s.path == "daemon/src/main.rs"), "the project's files were not found");
    found.retain(|file| !file.is_under(&["tests/tidy/"]));
    found
}

fn collect(folder: &Path, name: &str, deep: bool, found: &mut Vec<TextFile>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.map(|entry| entry.expect("a readable folder")) {
        let file_name = entry.file_name().to_string_lossy().into_owned();
        let path = if name.is_empty() { file_name.clone() } else { format!("{name}/{file_name}") };
        match entry.file_type().expect("a file type") {
            kind if kind.is_dir() && deep && !BUILT.contains(&file_name.as_str()) => {
                collect(&entry.path(), &path, true, found)
            }
            kind if kind.is_file() && is_text(&entry.path()) => {
                let text = fs::read_to_string(entry.path()).unwrap_or_else(|e| panic!("{path}: {e}"));
                found.push(TextFile { path, text });
            }
            _ => {}
        }
    }
}

/// By its ending, or, where it has none, by a script's first line.
fn is_text(path: &Path) -> bool {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some(ending) => TEXT.contains(&ending),
        None => fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"#!")),
    }
}

/// Does `text` hold `word` with nothing before it that would make it part of a longer name?
pub(crate) fn has_word(text: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| !text[..at].chars().next_back().is_some_and(part_of_name))
}
