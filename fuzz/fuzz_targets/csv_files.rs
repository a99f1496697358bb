//! A table and its journal.

#![cfg_attr(fuzzing, no_main)]

persistent_map_fuzz::fuzz!(csv_files);
