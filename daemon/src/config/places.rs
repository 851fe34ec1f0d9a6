//! The line of a key in the configuration, for errors that are found when the file is read already.

use std::path::Path;

use toml::de::DeTable;

/// `message`, which may begin with a key and a colon, as in `mqtt.base: it is wrong`, with the file's path and the key's
/// line in its `text`.
pub(super) fn located(message: &str, text: &str, path: &Path) -> String {
    let line = message.split_once(": ").and_then(|(key, _)| line(text, key));
    let line = line.map_or(String::new(), |line| format!("{line}:"));
    format!("{}:{line} {message}", path.display())
}

/// The line, from 1, of a key with dots between the tables' names and its own.
fn line(text: &str, key: &str) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let mut table = document.get_ref();
    let mut parts = key.split('.').peekable();
    while let Some(part) = parts.next() {
        let (name, value) = table.get_key_value(part)?;
        if parts.peek().is_none() {
            return Some(text.get(..name.span().start)?.matches('\n').count() + 1);
        }
        table = value.get_ref().as_table()?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_in_its_table() {
        let text =
            "# base = 1\nmemory = \"1M\"\n\n[mqtt]\nurl = \"mqtt://a\"\nbase = \"b\"\n[panels.hall]\nwidth = 8\n";
        let located = |message: &str| located(message, text, Path::new("c.toml"));
        assert_eq!(located("memory: too little"), "c.toml:2: memory: too little");
        assert_eq!(located("mqtt.base: taken: x"), "c.toml:6: mqtt.base: taken: x");
        assert_eq!(located("panels.hall: wrong"), "c.toml:7: panels.hall: wrong");
        assert_eq!(located("mqtt.key_file: missing"), "c.toml: mqtt.key_file: missing");
        assert_eq!(located("no key here"), "c.toml: no key here");
    }
}
