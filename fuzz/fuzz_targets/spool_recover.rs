//! See `waypost_fuzz::spool_recover`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| waypost_fuzz::spool_recover(input));
