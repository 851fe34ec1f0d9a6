//! What is wrong with the broker now, for `health`, and what was logged of it already: each problem is logged once, not at
//! every connection.

use std::collections::{BTreeMap, HashSet};

/// Reports that are remembered, so that each is logged once.
const REMEMBERED: usize = 64;

/// A kind of problem; of each, the newest holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// No connection.
    Connection,
    /// What the broker lacks.
    Retain,
    Qos,
    /// A subscription is refused, by its filter.
    Subscription(String),
    /// Messages are refused, by the code.
    Message(u8),
    /// Images over a size are refused.
    ImageSize,
}

/// What is wrong.
#[derive(Debug, Default)]
pub(super) struct Problems {
    now: BTreeMap<Kind, String>,
    reported: HashSet<String>,
}

impl Problems {
    /// `text` is wrong now. Returns whether it is to be logged: whether it was not before.
    pub(super) fn set(&mut self, kind: Kind, text: String) -> bool {
        if self.reported.len() >= REMEMBERED {
            self.reported.clear();
        }
        let new = self.reported.insert(text.clone());
        self.now.insert(kind, text);
        new
    }

    /// All of this kind is well again; if it comes back, that is news.
    pub(super) fn clear(&mut self, is_well: impl Fn(&Kind) -> bool) {
        self.now.retain(|kind, text| {
            let well = is_well(kind);
            if well {
                self.reported.remove(text);
            }
            !well
        });
    }

    /// A connection is there. What broke the last one may come back, and is known then.
    pub(super) fn connected(&mut self) {
        self.now.retain(|kind, _| !matches!(kind, Kind::Connection | Kind::Message(_)));
    }

    /// The connection has held: what broke earlier ones is over.
    pub(super) fn settled(&mut self) {
        self.reported.retain(|text| self.now.values().any(|now| now == text));
    }

    /// What is wrong now, a sentence each.
    pub(super) fn now(&self) -> Vec<String> {
        self.now.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_reported_once_until_a_connection_has_held() {
        let mut problems = Problems::default();
        let taken = || "taken over".to_owned();
        assert!(problems.set(Kind::Connection, taken()));
        problems.connected();
        assert_eq!(problems.now(), Vec::<String>::new());
        assert!(!problems.set(Kind::Connection, taken()), "the same again");
        assert!(problems.set(Kind::Connection, "another".into()));
        assert_eq!(problems.now(), ["another"]);
        problems.connected();
        problems.settled();
        assert!(problems.set(Kind::Connection, taken()), "after a good connection it is news");
    }

    #[test]
    fn what_is_well_again_is_gone() {
        let mut problems = Problems::default();
        let filter = |name: &str| Kind::Subscription(name.into());
        problems.set(filter("a"), "no a".into());
        problems.set(filter("b"), "no b".into());
        problems.clear(|kind| *kind == filter("a"));
        assert_eq!(problems.now(), ["no b"]);
        assert!(problems.set(filter("a"), "no a".into()));
    }
}
