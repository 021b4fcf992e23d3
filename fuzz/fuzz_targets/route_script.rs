//! See `waypost_fuzz::route_script`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| waypost_fuzz::route_script(input));
