//! A database.

#![cfg_attr(fuzzing, no_main)]

persistent_map_fuzz::fuzz!(sqlite_file);
