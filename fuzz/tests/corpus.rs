//! All inputs that fuzzers have found worth keeping, and those that have found bugs.

use std::fs;

use persistent_map_fuzz::{TARGETS, corpus};

#[test]
fn no_input_of_the_corpus_finds_anything() {
    for (name, target) in TARGETS {
        let inputs = corpus(name);
        assert!(!inputs.is_empty(), "{name} has no corpus");
        for input in inputs {
            println!("{}", input.display());
            target(&fs::read(input).unwrap());
        }
    }
}
