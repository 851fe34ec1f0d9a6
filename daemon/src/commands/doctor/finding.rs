//! What the doctor finds: a name that scripts may rely on, how bad it is, what was seen and what to do.

use serde::Serialize;

/// How bad it is; the worst comes last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Severity {
    /// As it should be.
    Ok,
    /// Images are painted, but not as well as they could be.
    Warning,
    /// Something will not work.
    Error,
}

impl Severity {
    /// As it is printed.
    pub(super) fn name(self) -> &'static str {
        match self {
            Severity::Ok => "ok",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// One thing that was looked at. `docs/doctor.md` has a section for each name.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Finding {
    pub(super) name: &'static str,
    #[serde(rename = "level")]
    pub(super) severity: Severity,
    /// What was seen.
    pub(super) found: String,
    /// What to do, where it is not as it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) advice: Option<String>,
}

impl Finding {
    /// All is well.
    pub(super) fn ok(name: &'static str, found: impl Into<String>) -> Finding {
        Finding { name, severity: Severity::Ok, found: found.into(), advice: None }
    }

    /// It could be better.
    pub(super) fn warning(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding { name, severity: Severity::Warning, found: found.into(), advice: Some(advice.into()) }
    }

    /// It will not work.
    pub(super) fn error(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding { name, severity: Severity::Error, found: found.into(), advice: Some(advice.into()) }
    }

    /// Where more is said of it.
    pub(super) fn page(&self) -> String {
        format!("docs/doctor.md#{}", self.name)
    }
}

/// Bytes in KiB, MiB or GiB, whichever is easiest to read.
pub(in crate::commands) fn amount(bytes: u64) -> String {
    let mib = bytes as f64 / (1 << 20) as f64;
    match bytes {
        0..0x10_0000 => format!("{} KiB", bytes >> 10),
        0x10_0000..0x4000_0000 => format!("{mib:.0} MiB"),
        _ => format!("{:.1} GiB", mib / 1024.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_units() {
        assert_eq!(amount(300 << 10), "300 KiB");
        assert_eq!(amount(200 << 20), "200 MiB");
        assert_eq!(amount(3 << 29), "1.5 GiB");
    }
}
