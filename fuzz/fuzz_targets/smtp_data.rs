//! See `waypost_fuzz::smtp_data`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| waypost_fuzz::smtp_data(input));
