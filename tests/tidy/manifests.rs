//! The crates' manifests: who may depend on whom.

use toml::{Table, Value};

use crate::files::TextFile;

/// Which of our crates each of them may depend on, in any table but that for tests. Never upward: kernels know nobody,
/// the engine knows no service.
const LAYERS: [(&str, &[&str]); 5] = [
    ("daemon/heap/Cargo.toml", &[]),
    ("daemon/kernels/Cargo.toml", &[]),
    ("daemon/engine/Cargo.toml", &["diffused-kernels"]),
    ("model-prep/Cargo.toml", &["diffused-engine", "diffused-heap", "diffused-kernels"]),
    ("daemon/Cargo.toml", &["diffused-engine", "diffused-heap"]),
];

/// What must not come into the libraries by any table of their manifests.
const NEVER_IN_LIBRARIES: [&str; 6] = ["tokio", "rumqttc", "rumqttd", "clap", "anyhow", "tracing-subscriber"];

/// The packages that a manifest depends on, each with its table: under their own names, for all targets.
fn dependencies(manifest: &Table) -> Vec<(String, &'static str)> {
    let mut found = Vec::new();
    let everywhere = std::iter::once(manifest);
    let by_target = manifest.get("target").and_then(Value::as_table).into_iter().flat_map(Table::values);
    for part in everywhere.chain(by_target.filter_map(Value::as_table)) {
        for name in ["dependencies", "build-dependencies", "dev-dependencies"] {
            let table = part.get(name).and_then(Value::as_table);
            found.extend(table.into_iter().flatten().map(|(key, value)| {
                let package = value.get("package").and_then(Value::as_str);
                (package.unwrap_or(key).to_owned(), name)
            }));
        }
    }
    found
}

pub(crate) fn depends_upward(file: &TextFile) -> Vec<String> {
    let Some((_, allowed)) = LAYERS.iter().find(|(manifest, _)| file.path == *manifest) else { return vec![] };
    let manifest: Table = file.text.parse().unwrap_or_else(|e| panic!("{}: {e}", file.path));
    let ours = |name: &str| name.starts_with("diffused") || name == "model-prep";
    let library = file.path != "daemon/Cargo.toml" && file.path != "model-prep/Cargo.toml";
    let upward = |name: &str| ours(name) && !allowed.contains(&name);
    let foreign = |name: &str| library && NEVER_IN_LIBRARIES.contains(&name);
    let dependencies = dependencies(&manifest).into_iter();
    dependencies
        .filter(|(name, _)| upward(name) || foreign(name))
        .map(|(name, table)| format!("{}: [{table}] has {name}", file.path))
        .collect()
}
