//! Wildcards in prompts, as `dynamicprompts` has them: `{red|blue}`, `{2$$a|b|c}`, `{3::often|seldom}` and `__file__`, a line
//! of a file. They are drawn from the seed by a generator of our own, so that a seed gives the same prompt on every device.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use diffused_engine::request::Request;
use serde::{Deserialize, Serialize};

use crate::contract::fault::Fault;

/// How deep wildcards may lie in each other, those in files included.
const DEEPEST: usize = 20;
/// The longest prompt that may come of them, bytes.
const MOST_TEXT: usize = 20_000;
/// The largest file that is read, bytes.
const MOST_FILE: u64 = 1 << 20;
/// Between several choices.
const SEPARATOR: &str = ",";

/// Where the files of wildcards are.
#[derive(Debug, Clone, Default)]
pub struct Wildcards {
    folder: Option<PathBuf>,
}

/// What was drawn for a request: its prompt and its negative prompt, then those of its second pass, where it has its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrawnPrompts(
    pub String,
    pub String,
    #[serde(default)] pub Option<String>,
    #[serde(default)] pub Option<String>,
);

impl DrawnPrompts {
    /// The prompts of `request` as they stand there.
    pub fn templates(request: &Request) -> DrawnPrompts {
        let hires = request.hires.as_ref();
        DrawnPrompts(
            request.prompt.clone(),
            request.negative_prompt.clone(),
            hires.and_then(|hires| hires.prompt.clone()),
            hires.and_then(|hires| hires.negative_prompt.clone()),
        )
    }
}

/// An option and how often it is drawn.
#[derive(Debug, Clone, PartialEq)]
struct WeightedOption {
    text: String,
    weight: f64,
}

impl WeightedOption {
    /// `text`, or `weight::text`.
    fn parse(text: &str) -> WeightedOption {
        let weighted = text.split_once("::").and_then(|(weight, rest)| {
            let weight: f64 = weight.trim().parse().ok().filter(|weight: &f64| weight.is_finite() && *weight >= 0.0)?;
            Some(WeightedOption { text: rest.trim().to_owned(), weight })
        });
        weighted.unwrap_or_else(|| WeightedOption { text: text.trim().to_owned(), weight: 1.0 })
    }
}

/// SplitMix64 (Steele, Lea & Flood 2014).
struct Draws(u64);

impl Draws {
    /// 0 to 1, 1 excluded.
    fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Takes one of `options` out, by their weights.
    fn take(&mut self, options: &mut Vec<WeightedOption>) -> Option<String> {
        let total: f64 = options.iter().map(|option| option.weight).sum();
        let mut left = self.fraction() * total;
        let at = options.iter().position(|option| {
            left -= option.weight;
            left < 0.0
        });
        let at = at.or_else(|| options.len().checked_sub(1))?;
        Some(options.remove(at).text)
    }
}

/// Draws what a prompt leaves open.
struct Drawing<'a> {
    wildcards: &'a Wildcards,
    field: &'a str,
    draws: &'a mut Draws,
}

impl Wildcards {
    /// With the files in `folder`; without one, prompts may not name files.
    pub fn new(folder: Option<PathBuf>) -> Wildcards {
        Wildcards { folder }
    }

    /// What the prompts of `request` become with this seed. A prompt of the second pass that is the first one's word by word
    /// becomes what that became.
    ///
    /// # Errors
    ///
    /// What is wrong with a file that they name, or that too much comes of them.
    pub fn draw(&self, request: &Request, seed: u64) -> Result<DrawnPrompts, Fault> {
        let DrawnPrompts(prompt, negative_prompt, hires, hires_negative) = DrawnPrompts::templates(request);
        let mut draws = Draws(seed);
        let mut draw = |field, text: &str| Drawing { wildcards: self, field, draws: &mut draws }.text(text, 0);
        let first = draw("prompt", &prompt)?;
        let negative = draw("negative_prompt", &negative_prompt)?;
        let mut own = |field, text: Option<String>, template: &String, drawn: &String| match text {
            Some(text) if text == *template => Ok(Some(drawn.clone())),
            Some(text) => draw(field, &text).map(Some),
            None => Ok(None),
        };
        let hires = own("hires.prompt", hires, &prompt, &first)?;
        let hires_negative = own("hires.negative_prompt", hires_negative, &negative_prompt, &negative)?;
        Ok(DrawnPrompts(first, negative, hires, hires_negative))
    }

    /// The lines of the file that `__name__` stands for.
    fn lines(&self, name: &str, field: &str) -> Result<Vec<WeightedOption>, Fault> {
        let wrong = |message: String| Fault::param(field, format!("__{name}__: {message}"));
        let Some(folder) = &self.folder else {
            return Err(wrong("no folder of wildcards is known; set `wildcards` in the configuration".into()));
        };
        if !Path::new(name).components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(wrong("the name of a file in the folder of wildcards is expected".into()));
        }
        let path = folder.join(format!("{name}.txt"));
        let unread = |error: std::io::Error| wrong(format!("{} cannot be read: {error}", path.display()));
        let inside = path.canonicalize().map_err(unread)?.starts_with(folder.canonicalize().map_err(unread)?);
        if !inside {
            return Err(wrong(format!("{} leads out of the folder of wildcards", path.display())));
        }
        let mut bytes = vec![];
        File::open(&path).and_then(|file| file.take(MOST_FILE).read_to_end(&mut bytes)).map_err(unread)?;
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
        let lines: Vec<_> = lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        match lines.is_empty() {
            true => Err(wrong(format!("{} has no lines", path.display()))),
            false => Ok(lines.into_iter().map(WeightedOption::parse).collect()),
        }
    }
}

impl Drawing<'_> {
    fn text(&mut self, text: &str, depth: usize) -> Result<String, Fault> {
        if depth > DEEPEST {
            return Err(Fault::param(self.field, "its wildcards lie in each other without end"));
        }
        let ends = brace_ends(text);
        let (mut drawn, mut rest) = (String::new(), text);
        while let Some(first) = rest.chars().next() {
            let (mut taken, mut found) = (first.len_utf8(), None);
            if first == '\\' {
                taken += rest.chars().nth(1).map_or(0, char::len_utf8);
            } else if let Some(end) = ends.get(&(text.len() - rest.len())) {
                let inner = &text[text.len() - rest.len() + 1..*end];
                (taken, found) = (inner.len() + 2, self.choice(inner, depth)?);
            } else if let Some((name, len)) = file_name(rest) {
                let mut lines = self.wildcards.lines(name, self.field)?;
                let line = self.draws.take(&mut lines).unwrap_or_default();
                (taken, found) = (len, Some(self.text(&line, depth + 1)?));
            }
            // Braces that leave nothing open are text, and so is what they hold, which may leave something open.
            if found.is_none() && first == '{' {
                taken = 1;
            }
            drawn += found.as_deref().unwrap_or(&rest[..taken]);
            rest = &rest[taken..];
            if drawn.len() > MOST_TEXT {
                return Err(Fault::param(self.field, format!("more than {MOST_TEXT} bytes come of its wildcards")));
            }
        }
        Ok(drawn)
    }

    /// What comes of the braces around `inner`; `None` where they leave nothing open.
    fn choice(&mut self, inner: &str, depth: usize) -> Result<Option<String>, Fault> {
        let (count, separator, options) = bounds(inner);
        let options = split(options);
        if count.is_none() && options.len() < 2 {
            return Ok(None);
        }
        let (least, most) = count.unwrap_or((1, 1));
        let mut options: Vec<WeightedOption> = match &options[..] {
            // Several lines of one file.
            [only] if file_name(only.trim()).is_some_and(|(_, len)| len == only.trim().len()) => {
                let only = only.trim();
                self.wildcards.lines(&only[2..only.len() - 2], self.field)?
            }
            options => options.iter().map(|option| WeightedOption::parse(option)).collect(),
        };
        let (least, most) = (least.min(options.len()), most.min(options.len()));
        let range = most.saturating_sub(least) + 1;
        let count = if range > 1 { least + (self.draws.fraction() * range as f64) as usize } else { least };
        let mut drawn = vec![];
        for _ in 0..count {
            let Some(option) = self.draws.take(&mut options) else { break };
            drawn.push(self.text(&option, depth + 1)?);
        }
        Ok(Some(drawn.join(separator)))
    }
}

/// Where each brace of `text` that is closed is closed.
fn brace_ends(text: &str) -> HashMap<usize, usize> {
    let (mut ends, mut open, mut escaped) = (HashMap::new(), vec![], false);
    for (at, char) in text.char_indices() {
        match char {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '{' => open.push(at),
            '}' => ends.extend(open.pop().map(|start| (start, at))),
            _ => {}
        }
    }
    ends
}

/// The name in `__name__` at the beginning of `text`, and the length of all.
fn file_name(text: &str) -> Option<(&str, usize)> {
    let rest = text.strip_prefix("__")?;
    let name = &rest[..rest.find("__")?];
    let plain = |c: char| c.is_alphanumeric() || "-_/. ".contains(c);
    (!name.trim().is_empty() && name.chars().all(plain)).then_some((name, name.len() + 4))
}

/// How many options are drawn, what goes between them, and the options: `2$$`, `1-3$$`, `2$$ and $$`.
fn bounds(inner: &str) -> (Option<(usize, usize)>, &str, &str) {
    let none = (None, SEPARATOR, inner);
    let Some((count, rest)) = inner.split_once("$$") else { return none };
    let number = |text: &str, default| if text.is_empty() { Some(default) } else { text.parse().ok() };
    let count = match count.trim().split_once('-') {
        Some((least, most)) => number(least, 1).zip(number(most, usize::MAX)),
        None => count.trim().parse().ok().map(|count| (count, count)),
    };
    let Some((a, b)) = count else { return none };
    let separated = rest.split_once("$$").filter(|(separator, _)| !separator.contains(['{', '}']));
    let (separator, options) = separated.unwrap_or((SEPARATOR, rest));
    (Some((a.min(b), a.max(b))), separator, options)
}

/// The options between the bars that lie in no inner braces.
fn split(options: &str) -> Vec<&str> {
    let (mut found, mut start, mut depth, mut escaped) = (vec![], 0, 0i64, false);
    for (at, char) in options.char_indices() {
        match char {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '{' => depth += 1,
            '}' => depth -= 1,
            '|' if depth == 0 => {
                found.push(&options[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(&options[start..]);
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use diffused_engine::hires::HiresRequest;

    use super::*;

    fn draw(wildcards: &Wildcards, prompt: &str, seed: u64) -> Result<String, Fault> {
        wildcards.draw(&Request { prompt: prompt.into(), ..Request::default() }, seed).map(|drawn| drawn.0)
    }

    /// How often each text came of `prompt` in a thousand seeds.
    fn counts(wildcards: &Wildcards, prompt: &str) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        (0..1000).for_each(|seed| *counts.entry(draw(wildcards, prompt, seed).unwrap()).or_default() += 1);
        counts
    }

    #[test]
    fn options_are_drawn_by_their_weights() {
        let none = Wildcards::default();
        let found = counts(&none, "a {red|3::blue |0::green} house");
        assert_eq!(found.keys().collect::<Vec<_>>(), ["a blue house", "a red house"]);
        assert!((680..820).contains(&found["a blue house"]), "{found:?}");
        let found = counts(&none, "{2$$a|b|c}");
        assert_eq!(found.len(), 6, "{found:?}");
        assert!(found.keys().all(|text| text.len() == 3 && text.as_bytes()[0] != text.as_bytes()[2]));
        assert_eq!(counts(&none, "{1-2$$ and $$a|b}").keys().collect::<Vec<_>>(), ["a", "a and b", "b", "b and a"]);
        assert_eq!(counts(&none, "{{a|b}|c {d|e}}").len(), 4);
        assert_eq!(draw(&none, "{5$$a}", 1).unwrap(), "a");
    }

    #[test]
    fn what_leaves_nothing_open_is_text() {
        for text in
            ["a house", "{a}", "{a|b", "a|b}", "}{", r"\{a|b\}", "_a_", "____", "__a", "[a|b]", "{ }", "__a:b__"]
        {
            assert_eq!(draw(&Wildcards::default(), text, 7).unwrap(), text);
        }
        assert_eq!(draw(&Wildcards::default(), "{x {a|a}}", 7).unwrap(), "{x a}");
    }

    #[test]
    fn a_seed_draws_the_same_everywhere_and_the_next_one_anew() {
        let four = "{a|b|c|d}";
        let hires = |prompt: &str| HiresRequest { prompt: Some(prompt.into()), ..HiresRequest::default() };
        let request = |hires: Option<HiresRequest>| Request {
            prompt: format!("{four} {four}"),
            negative_prompt: four.into(),
            hires,
            ..Request::default()
        };
        let drawn = |hires| Wildcards::default().draw(&request(hires), 42).unwrap();
        assert_eq!(drawn(None), DrawnPrompts("c a".into(), "b".into(), None, None));
        // The second pass's are drawn on from there, or are the first one's.
        assert_eq!(drawn(Some(hires("{a|b|c|d} {a|b|c|d}"))).2.as_deref(), Some("c a"));
        let own = drawn(Some(HiresRequest { negative_prompt: Some(four.into()), ..hires("{x|y|z} {x|y|z} {x|y|z}") }));
        assert_eq!((own.0.as_str(), own.1.as_str(), own.3.as_deref()), ("c a", "b", Some("b")));
        assert!(own.2.is_some_and(|text| text.split(' ').all(|word| ["x", "y", "z"].contains(&word))));
        // A journal of two prompts.
        let kept: DrawnPrompts = serde_json::from_str(r#"["c a", "b"]"#).unwrap();
        assert_eq!(kept, drawn(None));
        assert!(counts(&Wildcards::default(), "{a|b|c|d}").values().all(|count| (180..320).contains(count)));
    }

    #[test]
    fn files_are_read_by_line_and_only_in_their_folder() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("wild");
        fs::create_dir_all(inside.join("more")).unwrap();
        fs::write(folder.path().join("secret.txt"), "secret").unwrap();
        fs::write(inside.join("colours.txt"), "\u{feff}# colours\nred\r\n\n 2::blue \n").unwrap();
        fs::write(inside.join("more/things.txt"), "a __colours__ house\na {big|small} car").unwrap();
        fs::write(inside.join("loop.txt"), "x __loop__").unwrap();
        fs::write(inside.join("twice.txt"), "__twice__ __twice__").unwrap();
        fs::write(inside.join("empty.txt"), "#").unwrap();
        std::os::unix::fs::symlink("../secret.txt", inside.join("link.txt")).unwrap();
        let wildcards = Wildcards::new(Some(inside));
        assert_eq!(counts(&wildcards, "__colours__").keys().collect::<Vec<_>>(), ["blue", "red"]);
        assert_eq!(counts(&wildcards, "__more/things__").len(), 4);
        assert_eq!(counts(&wildcards, "{2$$__colours__}").keys().collect::<Vec<_>>(), ["blue,red", "red,blue"]);
        let refused = |prompt: &str| draw(&wildcards, prompt, 1).unwrap_err().message;
        assert!(refused("__nothing__").contains("nothing.txt cannot be read"));
        assert!(refused("__../secret__").contains("the name of a file"));
        assert!(refused("__/etc/passwd__").contains("the name of a file"));
        assert!(refused("__link__").contains("leads out"));
        assert!(refused("__empty__").contains("has no lines"));
        assert!(refused("__loop__").contains("without end"));
        assert!(refused("__twice__").contains("without end"));
        assert!(draw(&Wildcards::default(), "__colours__", 1).unwrap_err().message.contains("`wildcards`"));
    }

    #[test]
    fn what_grows_too_large_is_refused() {
        let text = format!("{{{}|{}}}", "x".repeat(20_001), "y".repeat(20_001));
        assert!(draw(&Wildcards::default(), &text, 1).unwrap_err().message.contains("more than 20000 bytes"));
        let deep = format!("{}a|b{}", "{a|".repeat(5000), "}".repeat(5000));
        assert!(draw(&Wildcards::default(), &deep, 1).is_ok() || draw(&Wildcards::default(), &deep, 1).is_err());
    }
}
