//! A journal whose checksums are right.

#![cfg_attr(fuzzing, no_main)]

persistent_map_fuzz::fuzz!(csv_journal);
