//! Every input of the fuzzing corpus goes through its target once: with any toolchain, and without fuzzing.

#[allow(unreachable_pub, reason = "the fuzzing crate's own root")]
#[path = "fuzz/src/lib.rs"]
mod fuzz;

use diffused_tests::root;

#[test]
fn the_corpus_is_taken_or_refused() {
    let corpus = root().join("tests/fuzz/corpus");
    for (name, target) in fuzz::TARGETS {
        let inputs: Vec<_> = std::fs::read_dir(corpus.join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(inputs.len() > 3, "{name}: {} inputs", inputs.len());
        for input in inputs {
            println!("{}", input.display());
            target(&std::fs::read(input).unwrap());
        }
    }
}
