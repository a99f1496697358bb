//! Values of some types in each codec.

#![cfg_attr(fuzzing, no_main)]

persistent_map_fuzz::fuzz!(codecs);
