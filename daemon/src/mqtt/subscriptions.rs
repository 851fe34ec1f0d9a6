//! Which SUBSCRIBE a SUBACK answers: the client numbers them when it writes them, in the order in which it got them.

use std::collections::VecDeque;

/// Subscriptions that are under way over one connection.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    asked: VecDeque<Vec<String>>,
    written: Vec<(u16, Vec<String>)>,
}

impl Subscriptions {
    /// The client was given a SUBSCRIBE for `filters`.
    pub(super) fn asked(&mut self, filters: Vec<String>) {
        self.asked.push_back(filters);
    }

    /// It wrote the next one under this packet id.
    pub(super) fn written(&mut self, packet: u16) {
        if let Some(filters) = self.asked.pop_front() {
            self.written.push((packet, filters));
        }
    }

    /// The broker answered it. Gives its filters.
    pub(super) fn answered(&mut self, packet: u16) -> Option<Vec<String>> {
        let at = self.written.iter().position(|(written, _)| *written == packet)?;
        Some(self.written.swap_remove(at).1)
    }

    /// The connection is new.
    pub(super) fn forget(&mut self) {
        *self = Subscriptions::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_find_their_filters_in_any_order() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.asked(vec!["a".into()]);
        subscriptions.asked(vec!["b".into()]);
        subscriptions.written(7);
        subscriptions.written(8);
        assert_eq!(subscriptions.answered(8), Some(vec!["b".into()]));
        assert_eq!(subscriptions.answered(8), None);
        assert_eq!(subscriptions.answered(7), Some(vec!["a".into()]));
        subscriptions.asked(vec!["c".into()]);
        subscriptions.forget();
        subscriptions.written(9);
        assert_eq!(subscriptions.answered(9), None);
    }
}
