//! What follows from lines, whole and damaged.

use std::time::{Duration, SystemTime};

use serde_json::json;

use super::*;
use crate::contract::fault::{Code, Fault};
use crate::contract::messages::{Ending, Image};
use crate::jobs::record::Moment;
use crate::jobs::request::RequestMode;
use crate::mqtt::message::MessagePayload;

fn accepted(number: u64, id: &str) -> Record {
    let payload = json!({"prompt": "a cat", "seed": 7, "id": id, "transaction": "t", "colour": "red"}).to_string();
    let (job, _) = Job::parse(payload.as_bytes(), RequestMode::Txt2Img, Path::new("")).unwrap();
    let mark = RequestMark { checksum: number, correlated: false, packet: 3, session: 0 };
    let reply = Some(Reply {
        topic: "answers".into(),
        correlation: Some(vec![0, 159, 146, 150].into()),
        user_properties: vec![("a".into(), "b".into())],
    });
    let expiry = Some(Expiry {
        left: Duration::from_secs(9),
        at: Moment { shown: SystemTime::UNIX_EPOCH, boot: "x".into(), uptime: 1.5 },
    });
    let files = SourceFiles { init_image: Some("a.init-image".into()), mask: Some("a.mask".into()) };
    Record::Accepted(Box::new(Acceptance { number, job, files, mark, reply, expiry }))
}

fn painted(job: u64) -> Record {
    let image = Image {
        topic: Some("image/0".into()),
        content_type: "image/png".into(),
        bytes: 5,
        sha256: "00".into(),
        path: Some("/x".into()),
        prompt: None,
        output: None,
    };
    Record::Painted { job, image: Box::new(image), warnings: vec!["small".into()] }
}

fn ended(number: u64, id: &str) -> Record {
    let mark = RequestMark { checksum: number, correlated: true, packet: 1, session: 0 };
    let ending = Ending::Failed(Fault::new(Code::Internal, "x"));
    Record::Ended(Box::new(EndedJob { number, id: id.into(), transaction: None, mark, ending, result: None }))
}

fn message(number: u64, text: &str) -> Record {
    let message = Message::json("a/b".into(), &json!({"text": text}));
    Record::Message(Box::new(Message { number: Some(number), ..message }))
}

fn replay(records: &[Record]) -> JournalState {
    let lines: String = records.iter().map(Record::line).collect();
    let journal = JournalState::replay(lines.as_bytes());
    assert_eq!(journal.damaged, [0usize; 0]);
    journal
}

/// Compares what two journals say.
fn shown(journal: &JournalState) -> String {
    let ended: Vec<&EndedJob> = journal.ended.iter().collect();
    let JournalState { jobs, messages, order, settings, announced, paused, session, .. } = journal;
    format!("{jobs:?} {ended:?} {messages:?} {order:?} {settings:?} {announced:?} {paused} {session}")
}

#[test]
fn a_job_is_there_with_all_that_is_known_until_it_ends() {
    let journal = replay(&[accepted(1, "a"), accepted(2, "b"), Record::Started { job: 1 }, painted(1)]);
    let (record, files) = &journal.jobs[&1];
    assert_eq!((record.job.id.as_str(), record.job.request.seed, record.images.len()), ("a", 7, 1));
    assert!(files.paths().eq([Path::new("a.init-image"), Path::new("a.mask")]));
    assert_eq!(record.reply.as_ref().unwrap().correlation.as_deref(), Some([0, 159, 146, 150].as_slice()));
    assert!(record.warnings.len() == 2 && record.warnings[1] == "small", "{:?}", record.warnings);
    assert!(record.interrupted && !journal.jobs[&2].0.interrupted);
    assert_eq!(journal.next, 3);
    let journal = replay(&[accepted(1, "a"), ended(1, "a")]);
    assert!(journal.jobs.is_empty());
    assert_eq!(journal.ended.get("a").map(|job| job.number), Some(1));
}

#[test]
fn what_the_broker_did_not_take_is_corrected_before_and_after_the_end() {
    let Record::Painted { image, .. } = painted(1) else { unreachable!() };
    let image = Box::new(Image { content_type: "image/jpeg".into(), bytes: 3, ..*image });
    let correction = Record::Corrected { job: 1, index: 1, image, warnings: vec!["a JPEG".into()] };
    let journal = replay(&[accepted(1, "a"), painted(1), painted(1), correction]);
    for journal in [&journal, &JournalState::replay(journal.lines().as_bytes())] {
        let record = &journal.jobs[&1].0;
        assert_eq!(record.images.iter().map(|image| image.bytes).collect::<Vec<_>>(), [5, 3]);
        assert_eq!(record.images[1].content_type, "image/jpeg");
    }
    assert_eq!(journal.jobs[&1].0.warnings, ["a JPEG"]);
    let Record::Ended(mut job) = ended(1, "a") else { unreachable!() };
    job.transaction = Some(json!("corrected"));
    let journal = replay(&[ended(1, "a"), ended(2, "b"), Record::Ended(job)]);
    assert_eq!(journal.ended.iter().map(|job| job.number).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(journal.ended.get("a").unwrap().transaction, Some(json!("corrected")));
}

#[test]
fn only_starts_without_progress_count() {
    let started = || Record::Started { job: 1 };
    let starts = |records: Vec<Record>| {
        let records: Vec<Record> = [accepted(1, "a")].into_iter().chain(records).collect();
        replay(&records).jobs[&1].0.starts
    };
    assert_eq!(starts(vec![started(), started()]), 2);
    assert_eq!(starts(vec![started(), painted(1), started()]), 1);
    assert_eq!(starts(vec![started(), Record::Advanced { job: 1 }]), 0);
}

#[test]
fn messages_stay_until_they_leave_and_take_their_last_form() {
    let journal = replay(&[message(1, "a"), message(2, "b"), message(1, "c"), Record::Left { message: 2 }]);
    let MessagePayload::Bytes(text) = &journal.messages[&1].payload else { panic!("text") };
    assert_eq!((journal.messages.len(), text.as_ref()), (1, br#"{"text":"c"}"#.as_slice()));
}

#[test]
fn the_shortest_journal_says_the_same() {
    let records = [
        accepted(1, "a"),
        accepted(2, "b"),
        Record::Started { job: 2 },
        Record::Started { job: 2 },
        accepted(3, "c"),
        Record::Started { job: 3 },
        painted(3),
        painted(3),
        Record::Cancelled { job: 3 },
        accepted(4, "d"),
        Record::Started { job: 4 },
        Record::Advanced { job: 4 },
        ended(1, "a"),
        message(5, "x"),
        message(6, "y"),
        Record::Left { message: 5 },
        Record::Session { session: 9 },
        Record::Order { jobs: vec![4, 2] },
        Record::Announced { topics: vec!["homeassistant/device/x/config".into()] },
        Record::Settings(PromptSettings { steps: Some(7), ..PromptSettings::default() }),
        Record::Paused { paused: true },
    ];
    let journal = replay(&records);
    let lines = journal.lines();
    let again = JournalState::replay(lines.as_bytes());
    assert_eq!(shown(&again), shown(&journal));
    assert_eq!(again.lines(), lines);
    assert_eq!(again.next, journal.next);
}

#[test]
fn the_order_that_a_client_gave_is_kept_for_jobs_that_are_there() {
    let journal =
        replay(&[accepted(1, "a"), accepted(2, "b"), accepted(3, "c"), Record::Order { jobs: vec![3, 1, 2] }]);
    assert_eq!(journal.order, [3, 1, 2]);
    let later = [journal.lines(), ended(3, "c").line()].concat();
    let later = JournalState::replay(JournalState::replay(later.as_bytes()).lines().as_bytes());
    assert_eq!(later.order, [1, 2]);
}

#[test]
fn whatever_is_damaged_the_rest_is_used() {
    let lines: Vec<String> = [accepted(1, "a"), accepted(2, "b"), accepted(3, "c")].iter().map(Record::line).collect();
    let text = lines.concat();
    for at in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 0x10;
        let journal = JournalState::replay(&bytes);
        // A line end that is gone joins two lines.
        assert!(!journal.jobs.is_empty() && !journal.damaged.is_empty(), "byte {at}");
        let cut = JournalState::replay(&text.as_bytes()[..at]);
        let whole = text[..at].matches('\n').count();
        assert_eq!(cut.jobs.len(), whole, "cut at {at}");
    }
}

#[test]
fn ended_jobs_are_forgotten_in_their_order() {
    let mut jobs = EndedJobs::default();
    for number in 0..(ENDED as u64 + 10) {
        let Record::Ended(job) = ended(number, &format!("job-{}", number % 300)) else { panic!("ended") };
        jobs.push(*job);
    }
    assert_eq!(jobs.iter().count(), ENDED);
    assert!(jobs.get("job-3").is_none() && jobs.get("job-200").is_some());
    let mut large = EndedJobs::default();
    for number in 0..40 {
        let Record::Ended(job) = ended(number, "a") else { panic!("ended") };
        large.push(EndedJob { ending: Ending::Failed(Fault::new(Code::Internal, "x".repeat(100_000))), ..*job });
    }
    assert!(large.iter().count() <= 10);
}
