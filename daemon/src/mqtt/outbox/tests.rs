//! What is sent when, over connections that come and go.

use bytes::Bytes;

use super::*;
use crate::mqtt::message::SentImage;
use crate::mqtt::receipts::Receipts;

fn message(topic: &str, certain: bool) -> Message {
    Message { certain, ..Message::new(topic.into(), bytes("x"), "text/plain") }
}

fn connected(topics: &[&str]) -> Outbox {
    let mut outbox = Outbox::new(u64::MAX);
    outbox.connect(None, &[]);
    topics.iter().for_each(|topic| assert_eq!(outbox.push(message(topic, true)), []));
    outbox
}

fn bytes(text: &'static str) -> MessagePayload {
    MessagePayload::Bytes(Bytes::from_static(text.as_bytes()))
}

fn next(outbox: &Outbox) -> Option<&str> {
    outbox.next().map(|message| message.topic.as_str())
}

#[test]
fn one_at_a_time_until_it_is_acknowledged() {
    let mut outbox = connected(&["a", "b"]);
    assert_eq!(next(&outbox), Some("a"));
    outbox.handed_over(true);
    assert_eq!(next(&outbox), None);
    outbox.sent(7);
    assert_eq!(outbox.acknowledged(6, true), None, "another packet's");
    assert_eq!(outbox.acknowledged(7, true), Some(("a".into(), None)));
    assert_eq!(next(&outbox), Some("b"));
}

#[test]
fn what_was_not_acknowledged_is_sent_again() {
    let mut outbox = connected(&["a", "b"]);
    outbox.handed_over(true);
    outbox.sent(1);
    outbox.disconnect(Loss::Ended);
    assert_eq!(next(&outbox), None);
    assert_eq!(outbox.acknowledged(1, true), None);
    outbox.connect(None, &[]);
    assert_eq!(next(&outbox), Some("a"));
}

#[test]
fn what_need_not_arrive_is_sent_once_and_only_over_a_connection() {
    let mut outbox = connected(&["a"]);
    assert_eq!(outbox.push(message("progress", false)), []);
    assert_eq!(outbox.push(message("b", true)), []);
    outbox.handed_over(true);
    outbox.sent(1);
    outbox.acknowledged(1, true);
    assert_eq!(next(&outbox), Some("progress"));
    outbox.handed_over(true);
    assert_eq!(next(&outbox), Some("b"));
    outbox.disconnect(Loss::Ended);
    assert_eq!(outbox.push(message("progress", false)), []);
    outbox.connect(None, &[]);
    outbox.handed_over(true);
    outbox.sent(2);
    outbox.acknowledged(2, true);
    assert!(outbox.is_empty());
}

#[test]
fn greetings_go_first_and_replace_their_elders() {
    let mut outbox = Outbox::new(u64::MAX);
    assert_eq!(outbox.push(message("result", true)), []);
    assert_eq!(outbox.push(message("status", true)), []);
    outbox.connect(None, &[message("status", true), message("info", true)]);
    let topics: Vec<_> = outbox.entries.iter().map(|entry| entry.message.topic.as_str()).collect();
    assert_eq!(topics, ["status", "info", "result"]);
}

#[test]
fn what_a_greeting_replaces_leaves_the_journal() {
    let mut outbox = Outbox::new(u64::MAX);
    let nothing = Message { retain: true, number: Some(7), ..message("announcement", true) };
    assert_eq!(outbox.push(nothing), []);
    outbox.connect(None, &[message("announcement", true)]);
    assert_eq!(outbox.len(), 1);
    assert_eq!(outbox.left(), [Left { number: Some(7), answers: None }]);
}

#[test]
fn what_the_broker_would_not_take_is_given_back() {
    let mut outbox = connected(&["a"]);
    let large = Message::new("large".into(), MessagePayload::Bytes(vec![0; 500].into()), "image/png");
    assert_eq!(outbox.push(large.clone()), []);
    outbox.disconnect(Loss::Ended);
    let refused = Refused { message: large.clone(), place: None, reason: Reason::Broker };
    assert_eq!(outbox.connect(Some(300), &[]), [refused]);
    assert_eq!(outbox.push(large.clone())[0].message, large);
    assert_eq!(next(&outbox), Some("a"));
}

fn image(bytes: usize) -> Message {
    let part = Part::Image(SentImage { job: "job".into(), index: 0, reduced: false, output: false });
    Message { part, ..Message::new("image".into(), MessagePayload::Bytes(vec![0; bytes].into()), "image/png") }
}

/// Sends the first message over a connection that ends before it is acknowledged.
fn lose(outbox: &mut Outbox, loss: Loss) -> Vec<Refused> {
    outbox.connect(None, &[]);
    outbox.handed_over(true);
    outbox.sent(1);
    outbox.disconnect(loss)
}

#[test]
fn a_message_that_ends_three_connections_is_taken_out() {
    let mut outbox = connected(&["bad", "good"]);
    assert_eq!(lose(&mut outbox, Loss::Ended), []);
    assert_eq!(lose(&mut outbox, Loss::Silence), [], "a frozen broker has refused nothing");
    assert_eq!(lose(&mut outbox, Loss::Ended), []);
    assert_eq!(lose(&mut outbox, Loss::Ended)[0].message.topic, "bad");
    outbox.connect(None, &[]);
    assert_eq!(next(&outbox), Some("good"));
    outbox.disconnect(Loss::Ended);
    outbox.disconnect(Loss::Ended);
    outbox.disconnect(Loss::Ended);
    outbox.connect(None, &[]);
    assert_eq!(next(&outbox), Some("good"), "it was not on its way");
}

#[test]
fn a_greeting_that_ends_three_connections_is_not_sent_again() {
    let mut outbox = Outbox::new(u64::MAX);
    let info = Message { retain: true, ..message("info", true) };
    for _ in 0..3 {
        outbox.connect(None, std::slice::from_ref(&info));
        assert_eq!(next(&outbox), Some("info"));
        outbox.handed_over(true);
        outbox.disconnect(Loss::Ended);
    }
    outbox.connect(None, std::slice::from_ref(&info));
    assert_eq!(next(&outbox), None);
}

#[test]
fn a_refused_image_keeps_its_place_until_something_takes_it() {
    let mut outbox = connected(&[]);
    let result = Message { part: Part::Result("job".into()), ..message("result", true) };
    for message in [image(1000), result, image(1000), image(400)] {
        assert_eq!(outbox.push(message), []);
    }
    let refused = lose(&mut outbox, Loss::Refused);
    assert_eq!(refused.len(), 2, "the first, and the other of that size");
    assert!(outbox.limit().is_some_and(|limit| (500..600).contains(&limit)));
    outbox.connect(None, &[]);
    assert_eq!(next(&outbox), None);
    let changed = outbox.resolve(refused[0].place.unwrap(), vec![image(100)], |result| {
        result.payload = bytes("changed");
        true
    });
    assert_eq!(changed.len(), 1);
    assert_eq!(outbox.next().map(|message| message.payload.len()), Some(100));
    outbox.handed_over(true);
    outbox.sent(2);
    outbox.acknowledged(2, true);
    assert_eq!(outbox.next().map(|message| &message.payload), Some(&bytes("changed")));
    outbox.handed_over(true);
    outbox.sent(3);
    outbox.acknowledged(3, true);
    assert_eq!(next(&outbox), None);
    outbox.resolve(refused[1].place.unwrap(), vec![], |_| false);
    assert_eq!(outbox.next().map(|message| message.payload.len()), Some(400));
    assert_eq!(outbox.push(image(1000))[0].message, image(1000), "too large from now on");
    let copy = Part::Image(SentImage { job: "job".into(), index: 0, reduced: true, output: false });
    assert_eq!(outbox.push(Message { part: copy, ..image(700) }), [], "a copy that the broker may have taken before");
}

#[test]
fn an_image_whose_acknowledgement_is_a_refusal_keeps_its_place() {
    let mut outbox = connected(&[]);
    assert_eq!(outbox.push(image(10)), []);
    outbox.handed_over(true);
    outbox.sent(1);
    let (_, refused) = outbox.acknowledged(1, false).unwrap();
    assert!(refused.unwrap().place.is_some() && outbox.next().is_none());
}

#[test]
fn a_newer_position_replaces_one_that_was_not_sent() {
    let position = |job: &str, text: &'static str| Message {
        part: Part::Position(job.into()),
        ..Message::new("answers".into(), bytes(text), "text/plain")
    };
    let mut outbox = connected(&["first"]);
    for (job, text) in [("a", "2"), ("b", "3"), ("a", "1"), ("b", "2"), ("a", "0")] {
        assert_eq!(outbox.push(position(job, text)), []);
    }
    let payloads: Vec<_> = outbox.entries.iter().map(|entry| entry.message.payload.clone()).collect();
    assert_eq!(payloads, [bytes("x"), bytes("0"), bytes("2")]);
}

#[test]
fn a_newer_preview_replaces_one_of_its_job_that_was_not_sent() {
    let preview = |topic: &str, text: &'static str| Message {
        part: Part::Preview,
        certain: false,
        ..Message::new(topic.into(), bytes(text), "image/jpeg")
    };
    let mut outbox = connected(&["first"]);
    for (topic, text) in [("job/a/preview", "1"), ("job/b/preview", "2"), ("job/a/preview", "3")] {
        assert_eq!(outbox.push(preview(topic, text)), []);
    }
    let payloads: Vec<_> = outbox.entries.iter().map(|entry| entry.message.payload.clone()).collect();
    assert_eq!(payloads, [bytes("x"), bytes("3"), bytes("2")]);
    outbox.disconnect(Loss::Ended);
    assert_eq!(outbox.push(preview("job/a/preview", "4")), []);
    assert_eq!(outbox.len(), 1);
}

#[test]
fn a_broker_that_confirms_nothing_gets_each_message_once() {
    let mut outbox = connected(&["a", "b"]);
    outbox.handed_over(false);
    assert_eq!(next(&outbox), Some("b"));
    outbox.handed_over(false);
    assert!(outbox.is_empty());
}

#[test]
fn what_has_left_is_told_once_by_its_number_and_the_request_that_it_answers() {
    let receipt = Receipts::default().issue(());
    let mut outbox = connected(&[]);
    let kept = |topic: &str, number| Message { number: Some(number), ..message(topic, true) };
    outbox.push(kept("a", 1));
    outbox.push(Message { answers: Some(receipt), ..message("b", true) });
    outbox.push(Message { number: Some(3), ..message("progress", false) });
    assert_eq!(outbox.left(), []);
    for id in [1, 2] {
        outbox.handed_over(true);
        outbox.sent(id);
        outbox.acknowledged(id, true);
    }
    let left = |number, answers| Left { number, answers };
    assert_eq!(outbox.left(), [left(Some(1), None), left(None, Some(receipt))]);
    outbox.handed_over(true);
    assert_eq!(outbox.left(), [left(Some(3), None)]);
    assert_eq!(outbox.left(), []);
}

#[test]
fn a_position_that_is_replaced_lets_go_of_the_request_that_it_answered() {
    let mut receipts = Receipts::default();
    let position =
        |receipt| Message { part: Part::Position("a".into()), answers: Some(receipt), ..message("state", true) };
    let mut outbox = connected(&["first"]);
    let [older, newer] = [(); 2].map(|()| receipts.issue(()));
    outbox.push(position(older));
    outbox.push(position(newer));
    assert_eq!(outbox.left(), [Left { number: None, answers: Some(older) }]);
    assert_eq!(outbox.len(), 2);
}

#[test]
fn answers_to_commands_go_before_what_waits() {
    let response = |topic: &str| Message { part: Part::Response, ..message(topic, true) };
    let mut outbox = connected(&["first", "second"]);
    outbox.handed_over(true);
    outbox.sent(1);
    outbox.push(response("x"));
    outbox.push(response("y"));
    let topics: Vec<_> = outbox.entries.iter().map(|entry| entry.message.topic.as_str()).collect();
    assert_eq!(topics, ["first", "x", "y", "second"]);
}

#[test]
fn the_oldest_images_go_where_too_many_wait() {
    let mut outbox = Outbox::new(2500);
    for n in 0..3 {
        assert_eq!(outbox.push(Message { number: Some(n), ..image(900) }).len(), usize::from(n == 2));
    }
    let aged = outbox.push(Message { number: Some(3), ..image(5000) });
    assert_eq!(aged.iter().map(|refused| refused.message.number).collect::<Vec<_>>(), [Some(1), Some(2)]);
    assert!(aged.iter().all(|refused| refused.reason == Reason::Aged && refused.place.is_some()));
    outbox.connect(None, &[]);
    assert_eq!(next(&outbox), None, "the place of the oldest is kept");
}

#[test]
fn a_file_that_is_gone_is_given_back_and_one_that_need_not_arrive_is_not() {
    let payload = MessagePayload::File { path: "/no/such/file".into(), bytes: 3 };
    assert!(payload.read().is_err());
    let mut outbox = connected(&[]);
    outbox.push(Message { payload: payload.clone(), certain: false, ..image(3) });
    outbox.push(Message { payload, ..image(3) });
    assert_eq!(outbox.unreadable(), None);
    assert_eq!(outbox.unreadable().map(|refused| refused.reason), Some(Reason::Unreadable));
}
