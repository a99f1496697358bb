//! A table by itself.

#![cfg_attr(fuzzing, no_main)]

persistent_map_fuzz::fuzz!(csv_table);
