//! The documentation against the code: every key, code and name that a user may write stands in its table once, nothing
//! else stands there, and links between the pages lead somewhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use diffused::config::Config;
use diffused::display::palette::PaletteChoice;
use diffused::display::panels::KnownPanels;
use diffused_engine::sampler::{NoiseSchedule, SamplerKind};
use diffused_tests::contract::description;
use diffused_tests::root;

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The `code` spans of a text.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The `code` spans in the first column of the first table that follows `heading`.
fn first_column(page: &str, heading: &str) -> Vec<String> {
    let text = format!("\n{}", read(page));
    let (_, after) = text.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("{page}: {heading}"));
    let rows = after.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    cells.flat_map(quoted).map(str::to_owned).collect()
}

/// Both hold the same names, each once.
fn check_same(documented: Vec<String>, known: Vec<String>, least: usize) {
    let unique: BTreeSet<&String> = documented.iter().collect();
    assert_eq!(unique.len(), documented.len(), "documented twice: {documented:?}");
    let known: BTreeSet<&String> = known.iter().collect();
    assert!(known.len() >= least, "the code's names were not found: {known:?}");
    assert_eq!(unique, known, "left: documented, right: in the code");
}

/// The keys that the parser lists when it meets an unknown one.
fn configuration_keys(section: &str) -> Vec<String> {
    let (header, prefix) = match section {
        "" => (String::new(), String::new()),
        section => (format!("[{section}]\n"), format!("{section}.")),
    };
    let error = Config::parse(&format!("{header}no_such_key = 1"), Path::new("c.toml")).unwrap_err().to_string();
    let (_, expected) = error.split_once("expected").unwrap_or_else(|| panic!("{error}"));
    quoted(expected).into_iter().map(|key| format!("{prefix}{key}")).collect()
}

#[test]
fn every_configuration_key_is_documented_once() {
    let sections = ["mqtt", "home_assistant", "fleet"];
    let top = configuration_keys("").into_iter().filter(|key| !sections.contains(&key.as_str()));
    let known = top.chain(sections.into_iter().flat_map(configuration_keys)).collect();
    check_same(first_column("docs/configuration.md", "# Configuration"), known, 15);
}

#[test]
fn every_request_key_is_documented_once() {
    let mut code = read("daemon/src/jobs/request.rs");
    let folder = fs::read_dir(root().join("daemon/src/jobs/request")).expect("the request's folder");
    for file in folder.map(|entry| entry.expect("a file").path()).filter(|path| !path.ends_with("tests.rs")) {
        code += &read(file.to_str().expect("a path"));
    }
    let mut known: Vec<String> = vec!["init_images".to_owned()];
    for call in ["take", "text", "size", "number", "whole", "flag"] {
        let start = format!("fields.{call}(\"");
        let keys = code.split(&start).skip(1);
        known.extend(keys.filter_map(|rest| rest.split('"').next()).map(str::to_owned));
    }
    let described = description()["components"]["schemas"]["Img2ImgRequest"]["properties"].as_object();
    check_same(described.expect("a schema").keys().cloned().collect(), known.clone(), 15);
    check_same(first_column("docs/mqtt.md", "## Requests"), known, 15);
}

#[test]
fn every_error_code_is_documented_once() {
    let code = read("daemon/src/contract/fault.rs");
    let (_, rest) = code.split_once("pub enum Code {").expect("the codes");
    let body = rest.split('}').next().expect("the enum's end");
    let variants = body.lines().map(str::trim).filter(|line| line.starts_with(char::is_uppercase));
    let snake = |name: &str| {
        let mut text = String::new();
        for c in name.trim_end_matches(',').chars() {
            if c.is_uppercase() && !text.is_empty() {
                text.push('_');
            }
            text.extend(c.to_lowercase());
        }
        text
    };
    check_same(first_column("docs/mqtt.md", "## Errors"), variants.map(snake).collect(), 9);
}

#[test]
fn every_sampler_is_documented() {
    let page = read("docs/mqtt.md");
    let row = page.lines().find(|line| line.starts_with("| `sampler_name`")).expect("the samplers' row");
    let names = quoted(row).into_iter().skip(1).filter(|name| *name != "Euler a").map(str::to_owned);
    check_same(names.collect(), SamplerKind::ALL.map(|kind| kind.name().to_owned()).to_vec(), 7);
    let listed = first_column("docs/samplers.md", "# Samplers");
    check_same(listed, SamplerKind::ALL.map(|kind| kind.name().to_owned()).to_vec(), 7);
    let listed = first_column("docs/samplers.md", "## Noise schedules");
    check_same(listed, NoiseSchedule::ALL.map(|schedule| schedule.name().to_owned()).to_vec(), 7);
}

/// The doctor's output names a section for each of its findings.
#[test]
fn every_finding_of_the_doctor_is_explained() {
    let files = fs::read_dir(root().join("daemon/src/commands/doctor")).expect("the doctor's folder");
    let code: String = files.map(|entry| read(entry.expect("a file").path().to_str().expect("a path"))).collect();
    let code = code + &read("daemon/src/commands/doctor.rs");
    let name = |rest: &str| rest.strip_prefix('"').and_then(|rest| rest.split('"').next()).map(str::to_owned);
    let kinds = ["Finding::ok(", "Finding::warning(", "Finding::error(", "let name = "];
    let known: BTreeSet<String> = kinds.iter().flat_map(|kind| code.split(kind).skip(1).filter_map(name)).collect();
    let page = read("docs/doctor.md");
    let documented = page.lines().filter_map(|line| line.strip_prefix("## ")).map(str::to_owned).collect();
    check_same(documented, known.into_iter().collect(), 20);
}

/// The table of displays is the program's.
#[test]
fn every_panel_is_documented_as_it_is() {
    let page = read("docs/panels.md");
    let (_, after) = page.split_once("\n## Displays that are known\n").expect("the table of displays");
    let rows = after.lines().skip_while(|line| !line.starts_with('|')).skip(2).take_while(|line| line.starts_with('|'));
    let documented: Vec<&str> = rows.collect();
    let panels = KnownPanels::default();
    let row = |name: &str| {
        let panel = panels.entry(name).expect("a panel that is listed");
        let (PaletteChoice::Named(palette), about) = (&panel.palette, &panel.about) else { panic!("{name}: a name") };
        let packing = serde_json::to_value(panel.packing).expect("a name");
        let scan = match u16::from(panel.scan) {
            0 => String::new(),
            degrees => format!(", {degrees}°"),
        };
        let (width, height, packing) = (panel.width, panel.height, packing.as_str().unwrap_or_default());
        format!("| `{name}` | {about} | {width} × {height} | `{palette}` | `{packing}`{scan} |")
    };
    let known: Vec<String> = panels.names().into_iter().map(row).collect();
    assert!(known.len() > 20);
    assert_eq!(documented, known);
}

/// The pages for people: those at the root, and all in these folders.
fn pages() -> Vec<PathBuf> {
    let listed = |folder: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        entries.map(|entry| entry.expect("an entry").path()).collect()
    };
    let is_page = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "md");
    let mut found: Vec<PathBuf> = listed(&root()).into_iter().filter(is_page).collect();
    let mut folders = [".github", "daemon", "docs", "model-prep", "tests"].map(|name| root().join(name)).to_vec();
    while let Some(folder) = folders.pop() {
        let (inner, files): (Vec<_>, Vec<_>) = listed(&folder).into_iter().partition(|path| path.is_dir());
        // Packages of npm, where the page has been built, have pages of their own.
        folders.extend(inner.into_iter().filter(|folder| !folder.ends_with("node_modules")));
        found.extend(files.into_iter().filter(is_page));
    }
    assert!(found.len() > 10, "the pages were not found: {found:?}");
    found
}

/// A heading as links name it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// What the links of `page` lead to that is not there.
fn broken_links(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).expect("a page");
    let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let images = text.split("src=\"").skip(1).filter_map(|rest| rest.split('"').next());
    let local = links.chain(images).filter(|target| !target.contains("://"));
    let is_there = |target: &&str| {
        let (file, wanted) = target.split_once('#').unwrap_or((target, ""));
        let file = if file.is_empty() { page.to_owned() } else { page.with_file_name(file) };
        let has_anchor = || {
            let text = fs::read_to_string(&file).unwrap_or_default();
            text.lines().any(|line| line.starts_with('#') && anchor(line) == wanted)
        };
        file.exists() && (wanted.is_empty() || has_anchor())
    };
    local.filter(|target| !is_there(target)).map(|target| format!("{}: {target}", page.display())).collect()
}

#[test]
fn links_lead_somewhere() {
    let broken: Vec<String> = pages().iter().flat_map(|page| broken_links(page)).collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn broken_links_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("a.md");
    let text = "# A Heading, `code`\n[x](a.md#a-heading-code) [y](#a-heading-code) [z](http://b) [1](b.md) [2](#b)\n";
    fs::write(&page, format!("{text}<img src=\"c.png\">")).unwrap();
    let found: Vec<String> = broken_links(&page).into_iter().map(|l| l.rsplit(": ").next().unwrap().into()).collect();
    assert_eq!(found, ["b.md", "#b", "c.png"]);
}

#[test]
fn the_readme_is_a_screen() {
    assert!(read("README.md").lines().count() <= 110, "move it to docs/");
}
