//! See `waypost_fuzz::route_tests`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| waypost_fuzz::route_tests(input));
