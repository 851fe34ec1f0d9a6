//! The service in faults: brokers, power, disks, clocks and clients that fail, each against the real program, and a table
//! at the end of what was tried and what held.
//!
//! `DIFFUSED_FAULTS=full` tries far more of each, for hours; `DIFFUSED_SEED` repeats what chance chose, whose seed the first
//! line prints. Where there is no `mosquitto`, these tests are reported as ignored.

use std::process::ExitCode;

use diffused_tests::mqtt::has_broker;
use libtest_mimic::Arguments;

mod away;
mod brokers;
mod clock;
mod disk;
mod flood;
mod kills;
mod malformed;
mod refusals;
mod resume;
mod rig;
mod shim;
mod stops;
mod table;

/// Tests, named as their functions are, each with the fault's name in the table.
macro_rules! faults {
    ($($module:ident::$name:ident: $fault:literal),+ $(,)?) => {
        [$(table::FaultTest {
            name: concat!(stringify!($module), "::", stringify!($name)), fault: $fault, test: $module::$name
        }),+]
    };
}

fn main() -> ExitCode {
    let missing = !has_broker();
    if missing {
        eprintln!("faults: SKIPPED, mosquitto is not installed: the service was NOT tested in faults");
    }
    println!("faults: DIFFUSED_SEED={}", rig::seed());
    let faults = faults![
        brokers::restarts_without_persistence: "broker killed and stopped, forgets all",
        brokers::restarts_with_persistence: "broker killed and stopped, with persistence",
        brokers::frozen_while_it_takes_an_image: "broker frozen while it takes an image",
        away::broker_away: "broker away while images queue",
        away::nobody_takes_images: "nobody takes images for long",
        brokers::limit_of_100_kilobytes: "broker with a limit of 100 KB a packet",
        refusals::image_refused_0x95: "PUBACK 0x95, packet too large, for images",
        refusals::image_refused_0x87: "PUBACK 0x87, not authorised, for images",
        refusals::image_refused_0x97: "PUBACK 0x97, quota exceeded, for images",
        refusals::all_refused: "PUBACK 0x97 for everything",
        refusals::subscription_refused: "SUBACK 0x87",
        refusals::connection_refused: "CONNACK 0x85, 0x86, 0x87",
        flood::prompts_at_once: "prompts at once, then one cancelled, then all",
        clock::jumps: "clock jumps",
        clock::start_in_1970: "start in 1970",
        disk::writes_that_fail: "writing fails",
        disk::full_disk: "full disk",
        kills::kill_9: "kill -9",
        kills::torn_journal: "damaged journal",
        kills::second_service: "a second service on the state folder",
        resume::kill_in_an_image: "kill -9 in an image",
        resume::kill_twice: "the program ends twice in a job",
        stops::sigterm_mid_job: "SIGTERM in a job",
        stops::sigterm_in_a_long_operator: "SIGTERM in a long operator",
        stops::second_sigterm: "SIGTERM twice in a long operator",
        malformed::payloads: "malformed requests",
        malformed::large_packets: "packets of 1, 16 and 250 MB",
    ];
    let trials = faults.into_iter().enumerate().map(|(place, fault)| fault.trial(place).with_ignored_flag(missing));
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials.collect());
    table::print();
    conclusion.exit_code()
}
