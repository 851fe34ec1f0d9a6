//! What `trim` gives back of the program itself. In a process of its own, since other tests trim, too.

#![cfg(all(target_os = "linux", not(miri)))]

use std::fs::read_to_string;

/// Resident bytes that are mapped from files.
fn resident() -> u64 {
    let status = read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn pages_of_the_program_are_given_back_and_it_still_runs() {
    let before = resident();
    diffused_heap::trim();
    let after = resident();
    // What runs at once is mapped again at once, with its neighbours.
    assert!(after < before * 3 / 4, "{before} bytes before, {after} after");
    assert_eq!(format!("{:?}", "ä".to_uppercase()), "\"Ä\"");
}
