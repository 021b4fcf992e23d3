//! See `waypost_fuzz::mime_structure`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| waypost_fuzz::mime_structure(input));
