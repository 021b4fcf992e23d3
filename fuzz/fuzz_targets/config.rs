//! See `waypost_fuzz::config`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| waypost_fuzz::config(input));
