//! What is sent when, over connections that come and go.

use super::*;

fn message(topic: &str, certain: bool) -> Message {
    Message { certain, ..Message::new(topic.into(), Bytes::from_static(b"x"), "text/plain") }
}

fn connected(topics: &[&str]) -> Outbox {
    let mut outbox = Outbox::default();
    outbox.connect(None, &[]);
    topics.iter().for_each(|topic| assert_eq!(outbox.push(message(topic, true)), None));
    outbox
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
    assert_eq!(outbox.push(message("progress", false)), None);
    assert_eq!(outbox.push(message("b", true)), None);
    outbox.handed_over(true);
    outbox.sent(1);
    outbox.acknowledged(1, true);
    assert_eq!(next(&outbox), Some("progress"));
    outbox.handed_over(true);
    assert_eq!(next(&outbox), Some("b"));
    outbox.disconnect(Loss::Ended);
    assert_eq!(outbox.push(message("progress", false)), None);
    outbox.connect(None, &[]);
    outbox.handed_over(true);
    outbox.sent(2);
    outbox.acknowledged(2, true);
    assert!(outbox.is_empty());
}

#[test]
fn greetings_go_first_and_replace_their_elders() {
    let mut outbox = Outbox::default();
    assert_eq!(outbox.push(message("result", true)), None);
    assert_eq!(outbox.push(message("status", true)), None);
    outbox.connect(None, &[message("status", true), message("info", true)]);
    let topics: Vec<_> = outbox.entries.iter().map(|entry| entry.message.topic.as_str()).collect();
    assert_eq!(topics, ["status", "info", "result"]);
}

#[test]
fn what_the_broker_would_not_take_is_given_back() {
    let mut outbox = connected(&["a"]);
    let large = Message::new("large".into(), vec![0; 500].into(), "image/png");
    assert_eq!(outbox.push(large.clone()), None);
    outbox.disconnect(Loss::Ended);
    let refused = Refused { message: large.clone(), place: None };
    assert_eq!(outbox.connect(Some(300), &[]), [refused]);
    assert_eq!(outbox.push(large.clone()).unwrap().message, large);
    assert_eq!(next(&outbox), Some("a"));
}

fn image(bytes: usize) -> Message {
    let part = Part::Image(SentImage { job: "job".into(), index: 0, reduced: false });
    Message { part, ..Message::new("image".into(), vec![0; bytes].into(), "image/png") }
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
    let mut outbox = Outbox::default();
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
        assert_eq!(outbox.push(message), None);
    }
    let refused = lose(&mut outbox, Loss::Refused);
    assert_eq!(refused.len(), 2, "the first, and the other of that size");
    assert!(outbox.limit().is_some_and(|limit| (500..600).contains(&limit)));
    outbox.connect(None, &[]);
    assert_eq!(next(&outbox), None);
    outbox.resolve(refused[0].place.unwrap(), vec![image(100)], |result| result.payload = "changed".into());
    assert_eq!(outbox.next().map(|message| message.payload.len()), Some(100));
    outbox.handed_over(true);
    outbox.sent(2);
    outbox.acknowledged(2, true);
    assert_eq!(outbox.next().map(|message| &message.payload[..]), Some(&b"changed"[..]));
    outbox.handed_over(true);
    outbox.sent(3);
    outbox.acknowledged(3, true);
    assert_eq!(next(&outbox), None);
    outbox.resolve(refused[1].place.unwrap(), vec![], |_| {});
    assert_eq!(outbox.next().map(|message| message.payload.len()), Some(400));
    assert_eq!(outbox.push(image(1000)).map(|refused| refused.message), Some(image(1000)), "too large from now on");
}

#[test]
fn an_image_whose_acknowledgement_is_a_refusal_keeps_its_place() {
    let mut outbox = connected(&[]);
    assert_eq!(outbox.push(image(10)), None);
    outbox.handed_over(true);
    outbox.sent(1);
    let (_, refused) = outbox.acknowledged(1, false).unwrap();
    assert!(refused.unwrap().place.is_some() && outbox.next().is_none());
}

#[test]
fn a_newer_position_replaces_one_that_was_not_sent() {
    let position = |job: &str, text: &'static str| Message {
        part: Part::Position(job.into()),
        ..Message::new("answers".into(), text.into(), "text/plain")
    };
    let mut outbox = connected(&["first"]);
    for (job, text) in [("a", "2"), ("b", "3"), ("a", "1"), ("b", "2"), ("a", "0")] {
        assert_eq!(outbox.push(position(job, text)), None);
    }
    let payloads: Vec<_> = outbox.entries.iter().map(|entry| &entry.message.payload[..]).collect();
    assert_eq!(payloads, [&b"x"[..], b"0", b"2"]);
}

#[test]
fn a_broker_that_confirms_nothing_gets_each_message_once() {
    let mut outbox = connected(&["a", "b"]);
    outbox.handed_over(false);
    assert_eq!(next(&outbox), Some("b"));
    outbox.handed_over(false);
    assert!(outbox.is_empty());
}
