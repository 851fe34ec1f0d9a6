//! Messages that came in and are not acknowledged yet. MQTT wants acknowledgements in the order of receipt, and each over
//! the connection by which its message came: on the next one a packet id means nothing, and the broker sends the message again.

use std::collections::VecDeque;

/// Stands for a message that is to be acknowledged once it is safe or answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt(u64);

/// What is to be acknowledged over one connection; `P` is what the client acknowledges by.
#[derive(Debug)]
pub(super) struct Receipts<P> {
    waiting: VecDeque<Unacknowledged<P>>,
    issued: u64,
}

#[derive(Debug)]
struct Unacknowledged<P> {
    receipt: Receipt,
    packet: P,
    handled: bool,
}

impl<P> Default for Receipts<P> {
    fn default() -> Receipts<P> {
        Receipts { waiting: VecDeque::new(), issued: 0 }
    }
}

impl<P> Receipts<P> {
    /// A message came in.
    pub(super) fn issue(&mut self, packet: P) -> Receipt {
        self.issued += 1;
        let receipt = Receipt(self.issued);
        self.waiting.push_back(Unacknowledged { receipt, packet, handled: false });
        receipt
    }

    /// A message is safe or answered. Gives what can be acknowledged now, in the order of receipt; `None` if the connection
    /// by which it came is gone.
    pub(super) fn handled(&mut self, receipt: Receipt) -> Option<Vec<P>> {
        self.waiting.iter_mut().find(|received| received.receipt == receipt)?.handled = true;
        let ready = self.waiting.iter().take_while(|received| received.handled).count();
        Some(self.waiting.drain(..ready).map(|received| received.packet).collect())
    }

    /// The connection is gone.
    pub(super) fn forget(&mut self) {
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_keep_the_order_of_receipt() {
        let mut receipts = Receipts::default();
        let [a, b, c] = ["a", "b", "c"].map(|packet| receipts.issue(packet));
        assert_eq!(receipts.handled(b), Some(vec![]));
        assert_eq!(receipts.handled(a), Some(vec!["a", "b"]));
        assert_eq!(receipts.handled(a), None, "acknowledged already");
        receipts.forget();
        let d = receipts.issue("d");
        assert_eq!(receipts.handled(c), None, "of a connection that is gone");
        assert_eq!(receipts.handled(d), Some(vec!["d"]));
    }
}
