//! See `waypost_fuzz::address`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| waypost_fuzz::address(input));
